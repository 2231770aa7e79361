/* SPDX-License-Identifier: BSD-2-Clause */
/* A store that is slow, hangs or is away costs at most one request its shared_timeout, which is the one that
 * is built in here; and what it cannot take costs no memory. */
#include "fleet_rig.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LONG_BODY 262144

static struct backend *backend;
static struct fleet fleet = {.sharing = "shared = true shared_timeout = 10s"};

static char random_body[LONG_BODY + 1];
static _Atomic int released; /* "/held-N" is answered when this is more */
static _Atomic unsigned version;

/* As long as the limit, a byte longer, or short; "open": of a length that is not told before. */
static bool answers(struct asked *ask)
{
    const char *t = ask->target;
    if (!strcmp(t, "/version")) {
        char body[16];
        snprintf(body, sizeof body, "%u", atomic_load(&version));
        return reply_ok(ask, "Cache-Control: max-age=300\r\n", body);
    }
    const size_t len = strstr(t, "longer") ? LONG_BODY + 1 : strstr(t, "long") ? LONG_BODY : 4;
    const char *held = strstr(t, "held-");
    while (held && atomic_load(&released) <= atoi(held + 5))
        nap_ms(2);
    if (strstr(t, "open")) {
        reply(ask,
              "HTTP/1.1 200 OK\r\nCache-Control: max-age=300\r\n"
              "Transfer-Encoding: chunked\r\n\r\n%zx\r\n",
              len);
        reply_bytes(ask, random_body, len);
        return reply(ask, "\r\n0\r\n\r\n");
    }
    reply(ask, "HTTP/1.1 200 OK\r\nCache-Control: max-age=300\r\nContent-Length: %zu\r\n\r\n", len);
    return reply_bytes(ask, random_body, len);
}

static unsigned number_of(int host, const char *name)
{
    return fleet_number(&fleet.host[host], name);
}

static unsigned number(const char *name)
{
    return number_of(0, name);
}

static bool is_in_use(void)
{
    return fleet_says(&fleet.host[0], "cache     in use");
}

/* So many URLs that are new, one after the other; ms of the slowest. */
static uint64_t ask_new(unsigned n, const char *kind)
{
    static unsigned next;
    uint64_t slowest = 0;
    for (unsigned i = 0; i < n; i++) {
        char path[32];
        struct message m;
        const uint64_t began = mono_ms();
        snprintf(path, sizeof path, "/%s/%u", kind, next++);
        assert_int_equal(fleet_get(&fleet.host[0], path, "", &m), 200);
        message_free(&m);
        slowest = mono_ms() - began > slowest ? mono_ms() - began : slowest;
    }
    return slowest;
}

static void be_well(void)
{
    relay_delay(fleet.relay, 0);
    relay_hold(fleet.relay, false);
    relay_refuse(fleet.relay, false);
    wait_until(is_in_use(), 20000);
}

static void costs_one(void (*ail)(void))
{
    be_well();
    const unsigned late = number("late");
    ail();
    assert_true(ask_new(30, "a") >= 20); /* what is built in */
    assert_int_equal(number("late") - late, 1);
    assert_false(is_in_use());
}

static void slow(void)
{
    relay_delay(fleet.relay, 30);
}

static void hang(void)
{
    relay_hold(fleet.relay, true);
}

static void a_slow_store_costs_one_request_its_timeout(void **state)
{
    (void)state;
    costs_one(slow);
    const unsigned late = number("late");
    for (const uint64_t until = mono_ms() + 600; mono_ms() < until;)
        ask_new(5, "a"); /* renewals of the lease go on, too late */
    assert_int_equal(number("late"), late);
    assert_true(fleet_says(&fleet.host[0], "state     member"));
    assert_true(fleet_says(&fleet.host[0], "cache     left out"));
}

static void a_store_that_hangs_costs_the_same(void **state)
{
    (void)state;
    costs_one(hang);
    const unsigned late = number("late");
    wait_until(!fleet_says(&fleet.host[0], "state     member"), 10000); /* it is left */
    ask_new(10, "a");
    assert_int_equal(number("late"), late);
}

static void a_store_that_is_away_costs_nothing(void **state)
{
    (void)state;
    be_well();
    relay_refuse(fleet.relay, true);
    wait_until(!fleet_says(&fleet.host[0], "state     member"), 10000);
    const unsigned late = number("late");
    ask_new(10, "a");
    assert_int_equal(number("late"), late);
}

static unsigned seen(int host)
{
    struct message m;
    assert_int_equal(fleet_get(&fleet.host[host], "/version", "", &m), 200);
    const unsigned n = (unsigned)atoi(m.body);
    message_free(&m);
    return n;
}

/* Its host is a member as all are: what it tells, and what it is told, takes a second or two. */
static void a_store_that_is_far_away_is_only_late(void **state)
{
    const char *out;
    (void)state;
    be_well();
    wait_until(fleet_says(&fleet.host[0], "state     member"), 20000);
    relay_delay(fleet.relay, 300);
    for (int turn = 0; turn < 4; turn++) {
        for (int i = 0; i < FLEET_HOSTS; i++)
            seen(i);
        const unsigned now = atomic_fetch_add(&version, 1) + 1;
        const uint64_t began_ms = mono_ms();
        assert_int_equal(ctl(&fleet.host[turn % 2], &out, "cache invalidate /version"), 0);
        if (!strstr(out, "hosts        2")) {
            print_error("%s", out);
            ctl(&fleet.host[turn % 2], &out, "fleet");
            fail_msg("%s", out);
        }
        print_message("acknowledged after %u ms\n", (unsigned)(mono_ms() - began_ms));
        for (int i = 0; i < FLEET_HOSTS; i++)
            assert_int_equal(seen(i), now);
    }
    assert_true(fleet_says(&fleet.host[0], "state     member"));
}

/* ---- what it is given ---- */

static void bodies_up_to_the_limit_are_given(void **state)
{
    (void)state;
    static const char *const paths[] = {"/long", "/long-open", "/longer", "/longer-open", "/short"};
    const unsigned puts = number_of(1, "puts");
    for (int i = 0; i < 5; i++) {
        struct message m;
        assert_int_equal(fleet_get(&fleet.host[1], paths[i], "", &m), 200);
        message_free(&m);
        if (i < 2)
            wait_until(number_of(1, "puts") == puts + (unsigned)i + 1, 5000);
    }
    wait_until(number_of(1, "puts") == puts + 3, 5000); /* what came before has been seen */
    for (int i = 0; i < 2; i++) {
        struct message m;
        assert_int_equal(fleet_get(&fleet.host[2], paths[i], "", &m), 200);
        assert_non_null(strstr(field_of(&m, "Cache-Status"), "detail=fleet"));
        assert_int_equal(m.body_len, LONG_BODY);
        assert_memory_equal(m.body, random_body, LONG_BODY);
        message_free(&m);
    }
    assert_int_equal(number_of(1, "puts"), puts + 3);
}

static pid_t control_of(struct house *h)
{
    pid_t pid[8];
    assert_int_equal(house_children(h, "polderd: control", pid, 8), 1);
    return pid[0];
}

/* The backend's answers come while the store has stopped to read. */
static void what_the_store_does_not_take_is_not_kept(void **state)
{
    (void)state;
    enum { N = 60 };
    int fd[N];
    const pid_t control = control_of(&fleet.host[1]);
    const unsigned misses = number_of(1, "misses"), left_out = number_of(1, "left out");
    for (int i = 0; i < N; i++) {
        fd[i] = client_connect(fleet.host[1].port);
        client_send(fd[i], "GET /long-held-%d HTTP/1.1\r\nHost: example.org\r\n\r\n", i);
    }
    wait_until(number_of(1, "misses") == misses + N, 10000); /* all have been told to fetch */
    const long before = resident_kib(control);
    kill(fleet.redis.pid, SIGSTOP);
    for (int i = 0; i < N; i++) {
        struct message m;
        atomic_store(&released, i + 1);
        client_read(fd[i], &m, false); /* clients wait for no store */
        assert_int_equal(m.status, 200);
        assert_int_equal(m.body_len, LONG_BODY);
        message_free(&m);
        close(fd[i]);
    }
    const long after = resident_kib(control);
    kill(fleet.redis.pid, SIGCONT);
    if (!harness_sanitized())
        assert_true(after < before + 8 * 1024);
    assert_true(number_of(1, "left out") > left_out);
    assert_int_equal(control_of(&fleet.host[1]), control);
}

static void begin(void)
{
    const char *store = fleet_relay(&fleet);
    fleet_start_host(&fleet, 1, FLEET_SECRET);
    fleet_start_host(&fleet, 2, FLEET_SECRET);
    fleet.store = store; /* the first host alone, and as patient as it is by default */
    fleet.sharing = "shared = true";
    fleet_start_host(&fleet, 0, FLEET_SECRET);
    for (size_t i = 0; i < sizeof random_body; i++)
        random_body[i] = (char)(rand() | 1);
    for (int i = 1; i < FLEET_HOSTS; i++)
        wait_until(fleet_says(&fleet.host[i], "cache     in use"), 20000);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(a_slow_store_costs_one_request_its_timeout),
        cmocka_unit_test(a_store_that_hangs_costs_the_same),
        cmocka_unit_test(a_store_that_is_away_costs_nothing),
        cmocka_unit_test(a_store_that_is_far_away_is_only_late),
        cmocka_unit_test(bodies_up_to_the_limit_are_given),
        cmocka_unit_test(what_the_store_does_not_take_is_not_kept),
    };
    return run_with_fleet(stories, &fleet, &backend, answers, begin);
}
