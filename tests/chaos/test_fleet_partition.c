/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Three hosts and a store, each in a network namespace of its own. Packets between two of them and the store
 * are lost, both ways or one, and nobody is told: no connection is refused or reset. A host that is parted
 * knows it within its lease and a second, and says so in polderctl, metrics and conditions; the others do
 * not wait longer for it. Once it says that it is a member again it serves nothing older.
 *
 * Each has a backend within its own namespace, which no partition touches: only what a host knows of
 * the others is lost.
 */
#include "harness.h"
#include "nets.h"
#include "redis.h"
#include "tests/chaos/chaos.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOSTS    3
#define STORE    HOSTS /* its machine */
#define LEASE_MS 3000
#define KNOWN_MS (LEASE_MS + 1000)

static _Atomic unsigned version = 1;
static struct redis redis;
static struct host {
    struct house house;
    struct backend *backend;
    const char *name;
} host[HOSTS] = {{.name = "amber"}, {.name = "birch"}, {.name = "cedar"}};

static bool answers(struct asked *ask)
{
    char body[32];
    snprintf(body, sizeof body, "%u", atomic_load(&version));
    return reply_ok(ask, "Cache-Control: max-age=300\r\n", body);
}

/* ---- hosts ---- */

static void start_host(int i)
{
    nets_enter(i);
    host[i].backend = backend_start(answers, NULL);
    house_start(&host[i].house, 1,
                "fleet { store = {\"redis://%s\"} name = \"parted\" host = \"%s\" "
                "secret = \"sixteen characters\" }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                nets_address(STORE), host[i].name, backend_port(host[i].backend));
    nets_enter(-1);
}

static bool ctl_says(int i, const char *text)
{
    const char *out;
    return ctl(&host[i].house, &out, "fleet") == 0 && strstr(out, text);
}

static bool is_member(int i)
{
    return ctl_says(i, "state     member");
}

static bool page_says(int i, const char *target, const char *text)
{
    struct message m;
    nets_enter(i);
    get(host[i].house.ops_port, target, &m);
    nets_enter(-1);
    const bool there = m.body && strstr(m.body, text);
    message_free(&m);
    return there;
}

static unsigned seen(int i)
{
    struct message m;
    nets_enter(i);
    const int status = get(host[i].house.port, "/a", &m);
    nets_enter(-1);
    assert_int_equal(status, 200);
    const unsigned n = (unsigned)atoi(m.body);
    message_free(&m);
    return n;
}

static void start(void)
{
    redis = (struct redis){.port = 6379, .open = true};
    nets_enter(STORE);
    redis_start(&redis);
    nets_enter(-1);
    for (int i = 0; i < HOSTS; i++)
        start_host(i);
    for (int i = 0; i < HOSTS; i++)
        wait_until(is_member(i), 15000);
}

static void stop(void)
{
    for (int i = 0; i < HOSTS; i++) {
        house_remove(&host[i].house);
        backend_stop(host[i].backend);
    }
    redis_remove(&redis);
}

/* ---- stories ---- */

/* Which way packets of the host are lost. */
enum way { TO_STORE = 1, FROM_STORE = 2, BOTH = 3 };
struct parted {
    int host;
    enum way way;
};
#define PARTED 2 /* at a time: the third one invalidates */

/* A process that invalidates at that host; 0: it took no longer than leases last, and the hosts that are
 * parted are named as those that do not have it. */
static pid_t invalidate_at(int i, const struct parted parted[PARTED])
{
    const pid_t pid = fork();
    if (pid)
        return pid;
    const char *out;
    const uint64_t began_ms = mono_ms();
    bool good = ctl(&host[i].house, &out, "--timeout 30s cache invalidate /a") == 0;
    const uint64_t took_ms = mono_ms() - began_ms;
    printf("partition: an invalidation beside it took %u ms\n", (unsigned)took_ms);
    good &= took_ms <= harness_patience(2 * KNOWN_MS); /* else 30 s */
    for (int k = 0; k < PARTED; k++)
        good &= strstr(out, host[parted[k].host].name) != NULL;
    if (!good)
        printf("partition: %s", out);
    fflush(stdout);
    _exit(good ? 0 : 1);
}

/* Looks in three places until all say it. How long a look takes tells how busy the machine is: that
 * much more is granted. */
static void expect_known(int i, uint64_t parted_ms)
{
    uint64_t seen_ms[3] = {0}, longest_ms = 0;
    while (!seen_ms[0] || !seen_ms[1] || !seen_ms[2]) {
        const uint64_t look_ms = mono_ms();
        const bool says[3] = {
            ctl_says(i, "state     cut off"),
            page_says(i, "/metrics?scope=fleet", "\npolder_fleet_degraded{mode=\"serve\"} 1\n"),
            page_says(i, "/api/telemetry/conditions", "\"fleet_cut_off\"")};
        for (int k = 0; k < 3; k++)
            if (says[k] && !seen_ms[k])
                seen_ms[k] = look_ms - parted_ms;
        const uint64_t now_ms = mono_ms();
        longest_ms = now_ms - look_ms > longest_ms ? now_ms - look_ms : longest_ms;
        if (now_ms > parted_ms + harness_patience(KNOWN_MS) + 8 * longest_ms)
            fail_msg("%s is parted for %u ms; seen in polderctl after %u, in /metrics after %u, in "
                     "conditions after %u (0: not at all)",
                     host[i].name, (unsigned)(now_ms - parted_ms), (unsigned)seen_ms[0],
                     (unsigned)seen_ms[1], (unsigned)seen_ms[2]);
        nap_ms(20);
    }
    printf(
        "partition: seen in polderctl after %u ms, in /metrics after %u, in conditions after %u\n",
        (unsigned)seen_ms[0], (unsigned)seen_ms[1], (unsigned)seen_ms[2]);
}

/* Reads while it comes back; what says that it is a member has nothing that is older. */
static void expect_back(int i)
{
    const uint64_t healed_ms = mono_ms();
    unsigned after = 0;
    while (after < 20) {
        const bool member = is_member(i);
        const unsigned n = seen(i);
        if (member && n != atomic_load(&version))
            fail_msg("%s is a member again and serves version %u of %u", host[i].name, n,
                     atomic_load(&version));
        after += member;
        if (!after && mono_ms() > healed_ms + harness_patience(15000))
            fail_msg("%s does not come back", host[i].name);
        if (after == 1)
            printf("partition: %s is back after %u ms\n", host[i].name,
                   (unsigned)(mono_ms() - healed_ms));
    }
    wait_until(!page_says(i, "/api/telemetry/conditions", "\"fleet_cut_off\""), 5000);
    assert_true(page_says(i, "/metrics", "\npolder_fleet_degraded{mode=\"serve\"} 0\n"));
}

/* All hold what the backends say now. */
static void fill(void)
{
    for (int i = 0; i < HOSTS; i++)
        wait_until(seen(i) == atomic_load(&version), 5000);
}

static void set_parted(const struct parted *p, bool lose)
{
    if (p->way & TO_STORE)
        nets_lose(p->host, STORE, lose);
    if (p->way & FROM_STORE)
        nets_lose(STORE, p->host, lose);
}

static void part_and_heal(const struct parted parted[PARTED])
{
    const int other = HOSTS - parted[0].host - parted[1].host;
    int status;
    fill();
    const unsigned old = atomic_fetch_add(&version, 1);
    for (int k = 0; k < PARTED; k++)
        set_parted(&parted[k], true);
    const uint64_t parted_ms = mono_ms();
    const pid_t invalidation = invalidate_at(other, parted);
    for (int k = 0; k < PARTED; k++)
        expect_known(parted[k].host, parted_ms);
    assert_int_equal(waitpid(invalidation, &status, 0), invalidation);
    assert_int_equal(status, 0);
    assert_int_equal(seen(other), old + 1);
    for (int k = 0; k < PARTED; k++) /* which `serve` allows for a minute */
        assert_true(seen(parted[k].host) == old || parted[k].way == TO_STORE);
    for (int k = 0; k < PARTED; k++) {
        set_parted(&parted[k], false);
        expect_back(parted[k].host);
    }
}

/* It has lost its data, and no host hears that its connections have ended: they are half open. */
static void a_store_that_comes_back_unheard_is_known_as_another(void **state)
{
    (void)state;
    start();
    fill();
    atomic_fetch_add(&version, 1);
    for (int i = 0; i < HOSTS; i++)
        set_parted(&(struct parted){i, BOTH}, true);
    redis_kill(&redis);
    nets_enter(STORE);
    redis_run(&redis);
    nets_enter(-1);
    for (int i = 0; i < HOSTS; i++)
        set_parted(&(struct parted){i, BOTH}, false);
    for (int i = 0; i < HOSTS; i++) {
        wait_until(ctl_says(i, "gaps      2"), 10000);
        wait_until(is_member(i), 10000);
        assert_int_equal(seen(i), atomic_load(&version));
    }
    stop();
}

static void a_parted_host_knows_it_in_time_and_comes_back_with_nothing_older(void **state)
{
    static const enum way ways[][PARTED] = {
        {TO_STORE, FROM_STORE}, {BOTH, TO_STORE}, {FROM_STORE, BOTH}};
    (void)state;
    start();
    const unsigned rounds = chaos_count("CHAOS_ROUNDS", 12, 1);
    for (unsigned n = 0; n < rounds; n++)
        part_and_heal((const struct parted[PARTED]){{(int)(n % HOSTS), ways[n % 3][0]},
                                                    {(int)((n + 1) % HOSTS), ways[n % 3][1]}});
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_parted_host_knows_it_in_time_and_comes_back_with_nothing_older),
        cmocka_unit_test(a_store_that_comes_back_unheard_is_known_as_another),
    };
    const char *why = nets_make(HOSTS + 1);
    if (*why) {
        fprintf(stderr, "partition: NOT TESTED: %s\n", why);
        return 0;
    }
    setlinebuf(stdout); /* a child has nothing of it */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
