/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of active checks: who is left because of them, what a backend may say in its answers, and
 * what bad answers do. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What the watched backend answers to its checks; it answers everything else well. */
enum answer {
    WELL,
    FAILS,
    WRONG_BODY,
    LONG_BODY,
    REDIRECTS,
    SILENT,
    GARBAGE,
    HUGE_HEAD,
    ENDLESS_HEAD,
    CLOSES,
    INTERIM
};
static _Atomic int answer;
static _Atomic(const char *) weight; /* "" or a line */
static atomic_uint checks, work[2];  /* that reached a backend */
static struct backend *watched, *other;
static struct house house;

static bool answers_check(struct asked *a)
{
    atomic_fetch_add(&checks, 1);
    switch (atomic_load(&answer)) {
    case FAILS:
        return reply(a, "HTTP/1.1 503 Unwell\r\n%sContent-Length: 0\r\n\r\n", atomic_load(&weight));
    case WRONG_BODY:
        return reply_ok(a, "", "it is not");
    case LONG_BODY: /* the word stands behind what is looked at */
        return reply(a, "HTTP/1.1 200 OK\r\nContent-Length: 20002\r\n\r\n%020000dok", 0);
    case REDIRECTS:
        return reply(a, "HTTP/1.1 302 F\r\nLocation: /well\r\nContent-Length: 0\r\n\r\n");
    case SILENT:
        for (int i = 0; atomic_load(&answer) == SILENT && i < 6000; i++)
            nap_ms(5);
        return false;
    case GARBAGE:
        return reply(a, "SSH-2.0-OpenSSH_9.2p1\r\n\r\n");
    case HUGE_HEAD:
        return reply(a, "HTTP/1.1 200 OK\r\nX: %017000d\r\nContent-Length: 2\r\n\r\nok", 0);
    case ENDLESS_HEAD:
        for (int i = 0; i < 100 && reply(a, "HTTP/1.1 103 Early\r\nX: %01000d\r\n\r\n", 0); i++)
            ;
        return false;
    case CLOSES:
        return false;
    case INTERIM:
        return reply(a,
                     "HTTP/1.1 103 Early Hints\r\nLink: </%09000d>\r\n\r\n" /* each head fits */
                     "HTTP/1.1 200 OK\r\nX: %09000d\r\nTransfer-Encoding: chunked\r\n\r\n"
                     "1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
                     0, 0);
    default:
        return reply_ok(a, atomic_load(&weight), "all is ok");
    }
}

/* A handshake of ours, whose key and answer are those of RFC 6455 1.3. */
#define HANDSHAKE                                                                                  \
    "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"                 \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
#define SWITCHES                                                                                   \
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"            \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
static atomic_uint opened[2];

static bool is_watched(struct asked *a)
{
    if (!strcmp(a->target, "/ws")) {
        atomic_fetch_add(&opened[0], 1);
        return reply(a, SWITCHES);
    }
    if (!strcmp(a->target, "/healthz?deep=1"))
        return answers_check(a);
    atomic_fetch_add(&work[0], 1);
    return reply_ok(a, "", "watched");
}

static bool is_other(struct asked *a)
{
    if (!strcmp(a->target, "/ws")) {
        atomic_fetch_add(&opened[1], 1);
        return reply(a, SWITCHES);
    }
    if (strcmp(a->target, "/healthz?deep=1") != 0)
        atomic_fetch_add(&work[1], 1);
    return reply_ok(a, "", "ok");
}

static int begin(void **state)
{
    (void)state;
    atomic_store(&answer, WELL);
    atomic_store(&weight, "");
    watched = backend_start(is_watched, NULL);
    other = backend_start(is_other, NULL);
    return 0;
}

static int end(void **state)
{
    (void)state;
    atomic_store(&answer, WELL);
    house_remove(&house);
    backend_stop(watched);
    backend_stop(other);
    return 0;
}

#define CHECKED "health = \"/healthz?deep=1\" health_interval = \"50ms\" health_timeout = \"200ms\""

static void two_servers(const char *keys)
{
    house_start(&house, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } server \"127.0.0.1:%u\" { }\n%s }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                backend_port(watched), backend_port(other), keys);
}

/* Does the entry of the watched server in `upstream list` say so? */
static bool listed(const char *what)
{
    const char *out;
    char server[64];
    assert_int_equal(ctl(&house, &out, "upstream list --json"), 0);
    snprintf(server, sizeof server, "\"server\": \"127.0.0.1:%u\"", backend_port(watched));
    const char *at = strstr(out, server), *next = at ? strstr(at, "\"upstream\": ") : NULL;
    const char *said = at ? strstr(at, what) : NULL;
    return said && (!next || said < next);
}

static unsigned long checked(const char *result)
{
    struct message m;
    char name[160];
    snprintf(name, sizeof name,
             "\npolder_upstream_health_checks_total{upstream=\"u\",server=\"127.0.0.1:%u\","
             "result=\"%s\"} ",
             backend_port(watched), result);
    assert_int_equal(get(house.ops_port, "/metrics", &m), 200);
    const char *at = strstr(m.body, name);
    assert_non_null(at);
    const unsigned long n = strtoul(at + strlen(name), NULL, 10);
    message_free(&m);
    return n;
}

static void share_of_the_watched(unsigned requests, unsigned min, unsigned max)
{
    unsigned counts[1000] = {0};
    atomic_store(&work[0], 0);
    storm(house.port, "/", requests, 4, counts, NULL);
    assert_int_equal(counts[200], requests);
    assert_in_range(atomic_load(&work[0]), min, max);
}

static void a_server_that_fails_its_checks_is_left_until_it_passes(void **state)
{
    (void)state;
    char line[80];
    two_servers(CHECKED);
    wait_until(checked("passed") > 2, 10000);
    share_of_the_watched(40, 18, 22);
    atomic_store(&answer, FAILS);
    wait_until(listed("\"state\": \"down\""), 10000);
    assert_true(checked("status") >= 3);
    share_of_the_watched(40, 0, 0);
    assert_true(house_logged(&house, "fails its checks and gets no more requests: unexpected "
                                     "status (status 503)"));
    snprintf(line, sizeof line, "condition backend_down u/127.0.0.1:%u", backend_port(watched));
    wait_until(house_logged(&house, line), 5000);
    assert_int_equal(ctl(&house, NULL, "reload --wait"), 0);
    assert_true(listed("\"state\": \"down\""));
    share_of_the_watched(40, 0, 0);
    atomic_store(&answer, WELL);
    wait_until(listed("\"state\": \"up\""), 10000);
    assert_true(house_logged(&house, "passes its checks again"));
    share_of_the_watched(40, 18, 22);
}

static void each_bad_answer_has_its_name(void **state)
{
    static const struct {
        enum answer answer;
        const char *result;
    } cases[] = {{WRONG_BODY, "body"},  {LONG_BODY, "body"},        {REDIRECTS, "status"},
                 {SILENT, "timeout"},   {GARBAGE, "malformed"},     {HUGE_HEAD, "malformed"},
                 {CLOSES, "malformed"}, {ENDLESS_HEAD, "malformed"}};
    (void)state;
    two_servers(CHECKED " health_body = \"ok\"");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const unsigned long before = checked(cases[i].result);
        atomic_store(&answer, (int)cases[i].answer);
        wait_until(checked(cases[i].result) > before + 2, 10000);
        wait_until(listed("\"state\": \"down\""), 5000);
    }
    atomic_store(&answer, INTERIM); /* passes */
    wait_until(listed("\"state\": \"up\""), 10000);
    unsigned n = 0; /* lines of the log: one for each change */
    FILE *f = fopen(house.log, "r");
    for (char line[4096]; f && fgets(line, sizeof line, f);)
        n += strstr(line, "fails its checks") != NULL;
    if (f)
        fclose(f);
    assert_int_equal(n, 1);
}

static void an_answer_may_ask_for_less(void **state)
{
    (void)state;
    two_servers(CHECKED);
    wait_until(checked("passed") > 2, 10000);
    atomic_store(&weight, "Polder-Weight: 25%\r\n");
    wait_until(listed("\"percent\": 25"), 10000);
    share_of_the_watched(50, 8, 12);
    atomic_store(&weight, "Polder-Weight: a lot, and more of it\r\n");
    wait_until(house_logged(&house, "neither 0 to 100 nor \"drain\"; it is ignored"), 10000);
    assert_true(listed("\"percent\": 25")); /* as before */
    atomic_store(&weight, "polder-weight: drain\r\n");
    wait_until(listed("\"state\": \"draining\""), 10000);
    share_of_the_watched(40, 0, 0);
    backend_stop(other); /* rather than none */
    other = NULL;
    share_of_the_watched(20, 20, 20);
    atomic_store(&weight, "");
    wait_until(listed("\"state\": \"up\""), 10000);
    other = backend_start(is_other, NULL);
}

static void a_server_that_refuses_is_left_and_found_again(void **state)
{
    (void)state;
    const unsigned port = backend_port(other);
    two_servers(CHECKED);
    wait_until(checked("passed") > 2, 10000);
    backend_stop(other);
    other = backend_start(is_other, NULL);
    char line[80];
    snprintf(line, sizeof line, "server 127.0.0.1:%u fails its checks", port);
    wait_until(house_logged(&house, line), 10000);
    assert_false(house_logged(&house, "refused the connection")); /* no request has met it */
    share_of_the_watched(40, 40, 40);
}

static void all_that_fail_their_checks_are_asked_all_the_same(void **state)
{
    (void)state;
    house_start(&house, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { }\n" CHECKED " }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                backend_port(watched));
    atomic_store(&answer, FAILS);
    wait_until(listed("\"state\": \"down\""), 10000);
    share_of_the_watched(10, 10, 10);
}

static void without_health_nothing_is_asked(void **state)
{
    (void)state;
    two_servers(CHECKED);
    atomic_store(&answer, FAILS);
    wait_until(listed("\"state\": \"down\""), 10000);
    static char text[1024];
    snprintf(
        text, sizeof text,
        "upstream \"u\" { server \"127.0.0.1:%u\" { } server \"127.0.0.1:%u\" { }\n"
        "health = \"/healthz?deep=1\" health_interval = 0 }\nroute \"/*\" { upstream = \"u\" }\n",
        backend_port(watched), backend_port(other));
    house_write_conf(&house, 2, text);
    assert_int_equal(ctl(&house, NULL, "reload --wait"), 0);
    wait_until(listed("\"state\": \"up\""), 10000);
    const unsigned before = atomic_load(&checks);
    nap_ms(300);
    assert_int_equal(atomic_load(&checks), before);
    share_of_the_watched(40, 18, 22);
}

static void websockets_leave_it_too(void **state)
{
    (void)state;
    house_start(&house, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } server \"127.0.0.1:%u\" { }\n" CHECKED
                " }\nroute \"/ws\" { upstream = \"u\" websocket { max_per_client = 50 } }\n",
                backend_port(watched), backend_port(other));
    atomic_store(&answer, FAILS);
    wait_until(listed("\"state\": \"down\""), 10000);
    for (int i = 0; i < 4; i++) {
        struct message m;
        const int fd = client_connect(house.port);
        client_send(fd, HANDSHAKE);
        client_read(fd, &m, true);
        assert_int_equal(m.status, 101);
        message_free(&m);
        close(fd);
    }
    assert_int_equal(atomic_load(&opened[0]), 0);
    assert_int_equal(atomic_load(&opened[1]), 4);
}

static void a_unix_socket_is_checked_too(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "/tmp/polder-check-%d", (int)getpid());
    unlink(path);
    house_start(&house, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } server \"unix:%s\" { }\n" CHECKED
                " }\nroute \"/*\" { upstream = \"u\" }\n",
                backend_port(watched), path);
    wait_until(house_logged(&house, "fails its checks and gets no more requests: no connection"),
               10000);
    share_of_the_watched(10, 10, 10);
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(a_server_that_fails_its_checks_is_left_until_it_passes),
        STORY(each_bad_answer_has_its_name),
        STORY(an_answer_may_ask_for_less),
        STORY(a_server_that_refuses_is_left_and_found_again),
        STORY(all_that_fail_their_checks_are_asked_all_the_same),
        STORY(without_health_nothing_is_asked),
        STORY(websockets_leave_it_too),
        STORY(a_unix_socket_is_checked_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
