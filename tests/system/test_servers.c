/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of servers that hang, refuse, close or talk nonsense beside one that is well: who is
 * asked, by all workers, what clients get meanwhile, and what the operator is told. */
#include "harness.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum mood { WELL, HANGS, CLOSES, CLOSES_WITHIN, GARBAGE, HUGE_HEAD, MANY_FIELDS, DRIPS };
static _Atomic int mood; /* of the bad one */
static struct backend *good, *bad;
static struct house house;
static atomic_uint posts; /* that reached a backend */

/* A handshake of ours, whose key and answer are those of RFC 6455 1.3. */
#define HANDSHAKE                                                                                  \
    "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"                 \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
#define SWITCHES                                                                                   \
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"            \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

static bool is_well(struct asked *a)
{
    if (!strcmp(a->target, "/ws"))
        return reply(a, SWITCHES);
    if (!strcmp(a->target, "/events")) {
        reply(a, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n");
        for (int i = 0; i < 1000 && recv(a->fd, &(char){0}, 1, MSG_DONTWAIT | MSG_PEEK) != 0; i++)
            nap_ms(10);
        return false;
    }
    if (!strcmp(a->method, "POST"))
        atomic_fetch_add(&posts, 1);
    return reply_ok(a, a->arg ? a->arg : "", "well");
}

static bool has_moods(struct asked *a)
{
    char many[40 * 200];
    if (!strcmp(a->method, "POST"))
        atomic_fetch_add(&posts, 1);
    switch (atomic_load(&mood)) {
    case HANGS:
        for (int i = 0; atomic_load(&mood) == HANGS && i < 6000; i++)
            nap_ms(5);
        return false;
    case DRIPS:
        for (int i = 0;
             atomic_load(&mood) == DRIPS && i < 600 && reply(a, "%s", i ? "0" : "HTTP/1.1 200 O");
             i++)
            nap_ms(50);
        return false;
    case CLOSES:
        return false;
    case CLOSES_WITHIN:
        reply(a, "HTTP/1.1 200 OK\r\nContent-Le");
        return false;
    case GARBAGE:
        return reply(a, "HTTP/1.1 200 OK\r\nA: b\nContent-Length: 0\r\n\r\n");
    case HUGE_HEAD:
        return reply(a, "HTTP/1.1 200 OK\r\nX: %017000d\r\nContent-Length: 0\r\n\r\n", 0);
    case MANY_FIELDS:
        many[0] = 0;
        for (int i = 0; i < 129; i++)
            snprintf(many + strlen(many), 20, "X-%d: y\r\n", i);
        return reply(a, "HTTP/1.1 200 OK\r\n%sContent-Length: 0\r\n\r\n", many);
    default:
        return !strcmp(a->target, "/ws") ? reply(a, SWITCHES) : reply_ok(a, "", "bad, and well");
    }
}

static int begin(void **state)
{
    (void)state;
    atomic_store(&mood, WELL);
    atomic_store(&posts, 0);
    good = backend_start(is_well, NULL);
    bad = backend_start(has_moods, NULL);
    return 0;
}

static int end(void **state)
{
    (void)state;
    atomic_store(&mood, WELL);
    house_remove(&house);
    backend_stop(good);
    backend_stop(bad);
    return 0;
}

static void two_servers(const char *more)
{
    house_start(&house, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } server \"127.0.0.1:%u\" { }\n"
                "timeout = \"1s\" %s }\nroute \"/*\" { upstream = \"u\" }\n",
                backend_port(bad), backend_port(good), more);
}

/* Does the line of the server on that port in `upstream list` say so? */
static bool listed(unsigned port, const char *what)
{
    const char *out;
    char server[32];
    assert_int_equal(ctl(&house, &out, "upstream list --json"), 0);
    snprintf(server, sizeof server, "127.0.0.1:%u", port);
    const char *at = strstr(out, server), *next = at ? strstr(at, "\"upstream\"") : NULL;
    const char *said = at ? strstr(at, what) : NULL;
    return said && (!next || said < next);
}

static unsigned lines_with(const char *text)
{
    static char log[1 << 20];
    unsigned n = 0;
    FILE *f = fopen(house.log, "r");
    const size_t len = f ? fread(log, 1, sizeof log - 1, f) : 0;
    if (f)
        fclose(f);
    log[len] = 0;
    for (const char *at = log; (at = strstr(at, text)); at++)
        n++;
    return n;
}

/* ---- one of two ---- */

static void a_hung_server_is_passed_over_and_left_by_all_workers(void **state)
{
    unsigned counts[1000] = {0};
    char line[64];
    (void)state;
    two_servers("");
    atomic_store(&mood, HANGS);
    for (int i = 0; i < 4; i++) /* one by one, whichever worker takes them */
        assert_int_equal(get(house.port, "/", NULL), 200);
    wait_until(listed(backend_port(bad), "\"down\""), 5000);
    assert_true(listed(backend_port(bad), "\"response timeout\""));
    assert_true(listed(backend_port(good), "\"up\""));
    const unsigned before = backend_calls(bad);
    storm(house.port, "/", 400, 8, counts, NULL);
    assert_int_equal(counts[200], 400);
    assert_true(backend_calls(bad) <= before + 3); /* trials */
    snprintf(line, sizeof line, "condition backend_down u/127.0.0.1:%u: a", backend_port(bad));
    assert_int_equal(lines_with(line), 1);
    assert_true(house_logged(&house, "gave no response for 1 s"));
    atomic_store(&mood, WELL);
    wait_until(get(house.port, "/", NULL) == 200 && listed(backend_port(bad), "\"up\""), 40000);
    snprintf(line, sizeof line, "condition backend_down u/127.0.0.1:%u: is over",
             backend_port(bad));
    assert_true(house_logged(&house, line));
    backend_forget(good);
    backend_forget(bad);
    storm(house.port, "/", 100, 4, counts, NULL);
    assert_in_range(backend_calls(bad), 48, 52);
}

static void a_get_passes_over(enum mood how, const char *reason, const char *text)
{
    char line[80];
    unsigned counts[1000] = {0};
    two_servers("");
    atomic_store(&mood, (int)how);
    storm(house.port, "/", 60, 4, counts, NULL);
    assert_int_equal(counts[200], 60);
    if (!house_logged(&house, text))
        fail_msg("not in the log: %s", text);
    assert_true(listed(backend_port(bad), reason));
    snprintf(line, sizeof line, "condition backend_down u/127.0.0.1:%u: a", backend_port(bad));
    assert_true(house_logged(&house, line));
}

static void a_get_passes_over_a_server_that_closes(void **state)
{
    (void)state;
    a_get_passes_over(CLOSES, "\"closed\"", "closed the connection before its response head");
}

static void a_get_passes_over_a_server_that_closes_within_the_head(void **state)
{
    (void)state;
    a_get_passes_over(CLOSES_WITHIN, "\"closed\"",
                      "closed the connection within its response head");
}

static void a_get_passes_over_a_server_that_talks_nonsense(void **state)
{
    (void)state;
    a_get_passes_over(GARBAGE, "\"malformed\"",
                      "sent a response head with a malformed line at byte 21");
}

static void a_get_passes_over_a_server_with_heads_over_16_kib(void **state)
{
    (void)state;
    a_get_passes_over(HUGE_HEAD, "\"too_large\"", "sent a response head over 16 KiB");
}

static void a_get_passes_over_a_server_with_over_128_fields(void **state)
{
    (void)state;
    a_get_passes_over(MANY_FIELDS, "\"too_large\"", "sent a response head with over 128 fields");
}

static void a_get_passes_over_a_server_whose_head_drips(void **state)
{
    (void)state;
    const uint64_t from = mono_ms();
    a_get_passes_over(DRIPS, "\"response timeout\"", "gave no whole response head for 1 s");
    assert_true(mono_ms() < from + harness_patience(12000));
}

/* It has answered, so it is not restarting: nobody waits for it, and it is not asked again. */
static void nonsense_of_the_only_server_is_not_waited_for(void **state)
{
    static const enum mood moods[] = {GARBAGE, HUGE_HEAD, MANY_FIELDS};
    (void)state;
    house_start(&house, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } park = \"60s\" }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                backend_port(bad));
    for (size_t i = 0; i < sizeof moods / sizeof *moods; i++) {
        struct message m;
        atomic_store(&mood, (int)moods[i]);
        backend_forget(bad);
        assert_int_equal(get(house.port, "/", NULL), 502);
        assert_int_equal(backend_calls(bad), 1);
        assert_int_equal(get(house.ops_port, "/metrics", &m), 200);
        assert_non_null(strstr(m.body, "\npolder_upstream_waits_total 0\n"));
        message_free(&m);
    }
}

static void a_post_is_sent_to_one_server_at_most(void **state)
{
    unsigned answered = 0, lost = 0;
    (void)state;
    two_servers("");
    atomic_store(&mood, CLOSES);
    for (int i = 0; i < 20; i++) {
        const int status = request(house.port, "POST", "/", "", "x", NULL);
        answered += status == 200;
        lost += status == 502;
    }
    assert_int_equal(answered + lost, 20);
    assert_int_equal(atomic_load(&posts), 20);
    assert_in_range(lost, 1, 6); /* until it is left alone */
}

static void a_post_that_nothing_was_sent_of_goes_to_the_next_server(void **state)
{
    const unsigned port = free_port();
    (void)state;
    house_start(&house, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                port, backend_port(good));
    for (int i = 0; i < 20; i++)
        assert_int_equal(request(house.port, "POST", "/", "", "x", NULL), 200);
    assert_int_equal(atomic_load(&posts), 20);
    assert_true(listed(port, "\"refused\""));
    assert_true(house_logged(&house, "refused the connection: Connection refused"));
}

static void errors_are_one_line_a_second_each(void **state)
{
    unsigned counts[1000] = {0};
    (void)state;
    house_start(&house, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } park = \"0s\" }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                free_port());
    const uint64_t from = mono_ms();
    storm(house.port, "/", 400, 4, counts, NULL);
    assert_int_equal(counts[502], 400);
    const unsigned seconds = (unsigned)(mono_ms() - from) / 1000;
    assert_in_range(lines_with("refused the connection"), 1, seconds + 2);
    assert_int_equal(lines_with("condition backend_down"), 1);
}

static void a_state_survives_a_reload(void **state)
{
    char line[64];
    (void)state;
    two_servers("");
    atomic_store(&mood, HANGS);
    for (int i = 0; i < 4; i++)
        assert_int_equal(get(house.port, "/", NULL), 200);
    wait_until(listed(backend_port(bad), "\"down\""), 5000);
    assert_int_equal(ctl(&house, NULL, "reload --wait"), 0);
    assert_true(listed(backend_port(bad), "\"down\""));
    snprintf(line, sizeof line, "condition backend_down u/127.0.0.1:%u: a", backend_port(bad));
    assert_int_equal(lines_with(line), 1);
}

/* ---- the only one ---- */

static void a_lone_hung_server_is_asked_all_the_same(void **state)
{
    (void)state;
    house_start(&house, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } timeout = \"500ms\" }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                backend_port(bad));
    atomic_store(&mood, HANGS);
    for (int i = 0; i < 4; i++)
        assert_int_equal(get(house.port, "/", NULL), 504);
    assert_true(listed(backend_port(bad), "\"down\""));
    assert_true(backend_calls(bad) >= 3);
    atomic_store(&mood, WELL);
    assert_int_equal(get(house.port, "/", NULL), 200);
    assert_true(listed(backend_port(bad), "\"up\""));
}

static void two_hung_servers_take_two_timeouts_together(void **state)
{
    struct backend *more[2];
    (void)state;
    for (int i = 0; i < 2; i++)
        more[i] = backend_start(has_moods, NULL);
    house_start(
        &house, 2,
        "upstream \"u\" { server \"127.0.0.1:%u\" { } server \"127.0.0.1:%u\" { }\n"
        "server \"127.0.0.1:%u\" { } timeout = \"2s\" }\nroute \"/*\" { upstream = \"u\" }\n",
        backend_port(bad), backend_port(more[0]), backend_port(more[1]));
    atomic_store(&mood, HANGS);
    const uint64_t from = mono_ms();
    assert_int_equal(get(house.port, "/", NULL), 504);
    const uint64_t took = mono_ms() - from;
    assert_in_range(took, 3900, harness_patience(8000));
    assert_in_range(backend_calls(bad) + backend_calls(more[0]) + backend_calls(more[1]), 1, 2);
    atomic_store(&mood, WELL);
    for (int i = 0; i < 2; i++)
        backend_stop(more[i]);
}

/* ---- those who wait for another's fetch ---- */

static _Atomic uint64_t longest_ms;
static atomic_uint timeouts;

static void *reads_the_same(void *arg)
{
    (void)arg;
    const uint64_t from = mono_ms();
    if (get(house.port, "/same", NULL) == 504)
        atomic_fetch_add(&timeouts, 1);
    const uint64_t took = mono_ms() - from;
    uint64_t longest = atomic_load(&longest_ms);
    while (took > longest && !atomic_compare_exchange_weak(&longest_ms, &longest, took))
        ;
    return NULL;
}

static void nobody_waits_for_a_silent_fetch_longer_than_for_its_own(void **state)
{
    pthread_t reader[6];
    (void)state;
    atomic_store(&longest_ms, 0);
    atomic_store(&timeouts, 0);
    house_start(&house, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } timeout = \"2s\" }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(bad));
    atomic_store(&mood, HANGS);
    for (int i = 0; i < 6; i++)
        pthread_create(&reader[i], NULL, reads_the_same, NULL);
    for (int i = 0; i < 6; i++)
        pthread_join(reader[i], NULL);
    assert_int_equal(atomic_load(&timeouts), 6);
    assert_in_range(atomic_load(&longest_ms), 1900, harness_patience(3900)); /* not 4, 6, 8 s */
}

static void those_who_wait_get_what_the_next_server_answers(void **state)
{
    unsigned counts[1000] = {0};
    (void)state;
    house_start(&house, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } server \"127.0.0.1:%u\" { weight = 1 "
                "} timeout = \"1s\" }\nroute \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(bad), backend_port(good));
    atomic_store(&mood, HANGS);
    storm(house.port, "/same", 12, 12, counts, NULL);
    assert_int_equal(counts[200], 12);
    assert_int_equal(backend_calls(good), 1);
}

static void what_is_stale_is_given_at_once_where_all_are_down(void **state)
{
    struct message m;
    (void)state;
    house_start(&house, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } timeout = \"1s\" }\n"
                "route \"/*\" { upstream = \"u\" cache { ttl = \"100ms\" stale_while_revalidate = "
                "\"0s\" stale_if_error = \"1h\" } }\n",
                backend_port(bad));
    assert_int_equal(get(house.port, "/a", NULL), 200);
    assert_int_equal(get(house.port, "/b", NULL), 200);
    nap_ms(150);
    atomic_store(&mood, HANGS);
    wait_until(get(house.port, "/other", NULL) == 504 && listed(backend_port(bad), "\"down\""),
               15000);
    unsigned fast = 0;
    for (int i = 0; i < 4; i++) { /* one of them may be a trial */
        const uint64_t from = mono_ms();
        assert_int_equal(get(house.port, i & 1 ? "/a" : "/b", &m), 200);
        assert_non_null(strstr(field_of(&m, "Cache-Status"), "stale"));
        message_free(&m);
        fast += mono_ms() - from < 900;
    }
    assert_true(fast >= 2);
}

/* ---- what the operator is told ---- */

static void an_event_stream_that_is_cut_names_the_key(void **state)
{
    const char *out;
    struct message m;
    (void)state;
    house_start(&house, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } stream_timeout = \"1s\" "
                "timeout = \"500ms\" }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                backend_port(good));
    get(house.port, "/events", &m);
    assert_false(m.complete);
    message_free(&m);
    assert_int_equal(ctl(&house, &out, "status"), 0);
    assert_non_null(strstr(out, "hint_stream_cut"));
    assert_non_null(strstr(out, "no event for 1 s; upstream u { stream_timeout }"));
    assert_true(house_logged(&house, "was silent for 1 s within its response"));
    assert_true(listed(backend_port(good), "\"cut\": 1"));
    assert_true(listed(backend_port(good), "\"up\"")); /* its response had begun */
}

static void what_is_down_is_a_condition(void **state)
{
    const char *out;
    unsigned counts[1000] = {0};
    (void)state;
    two_servers("park = \"0s\"");
    atomic_store(&mood, CLOSES);
    storm(house.port, "/", 20, 2, counts, NULL);
    assert_int_equal(counts[200], 20);
    assert_int_equal(ctl(&house, &out, "status"), 0);
    assert_non_null(strstr(out, "backend_down"));
    assert_non_null(strstr(out, "closed without a response"));
    assert_null(strstr(out, "no_server_left"));
    assert_int_equal(ctl(&house, NULL, "upstream weight u 127.0.0.1:%u 0", backend_port(good)), 0);
    assert_int_equal(ctl(&house, NULL, "upstream weight u 127.0.0.1:%u 0", backend_port(bad)), 0);
    wait_until(ctl(&house, &out, "status") == 0 && strstr(out, "all weights are 0"), 10000);
    assert_true(listed(backend_port(good), "\"drained\""));
    assert_int_equal(get(house.port, "/", NULL), 503);
    assert_int_equal(ctl(&house, NULL, "upstream weight u 127.0.0.1:%u 1", backend_port(good)), 0);
    wait_until(ctl(&house, &out, "status") == 0 && !strstr(out, "no_server_left"), 10000);
    assert_null(strstr(out, "backend_down")); /* of weight 0 it is nobody's concern */
}

/* ---- handshakes of WebSockets ---- */

static int opened(void)
{
    struct message m;
    const int fd = client_connect(house.port);
    client_send(fd, HANDSHAKE);
    client_read(fd, &m, true);
    const int status = m.status;
    message_free(&m);
    close(fd);
    return status;
}

static void websocket_house(void)
{
    house_start(
        &house, 2,
        "upstream \"u\" { server \"127.0.0.1:%u\" { } server \"127.0.0.1:%u\" { }\n"
        "timeout = \"1s\" }\n"
        "route \"/ws\" { upstream = \"u\" websocket { } }\nroute \"/*\" { upstream = \"u\" }\n",
        backend_port(bad), backend_port(good));
    wait_until(opened() == 101, 20000); /* the supervisor is there */
}

static void handshakes_feed_the_table_that_requests_obey(void **state)
{
    (void)state;
    websocket_house();
    atomic_store(&mood, HANGS);
    for (int i = 0; i < 100 && !listed(backend_port(bad), "\"down\""); i++)
        assert_int_equal(opened(), 101); /* at the other one, after a timeout */
    assert_true(listed(backend_port(bad), "\"timeout\""));
    assert_true(house_logged(&house, "supervisor["));
    assert_true(house_logged(&house, "gave no response for 1 s"));
    const unsigned before = backend_calls(bad);
    unsigned counts[1000] = {0};
    storm(house.port, "/", 40, 4, counts, NULL);
    assert_int_equal(counts[200], 40);
    assert_true(backend_calls(bad) <= before + 2);
}

static void handshakes_obey_the_table_that_requests_feed(void **state)
{
    (void)state;
    websocket_house();
    atomic_store(&mood, HANGS);
    for (int i = 0; i < 100 && !listed(backend_port(bad), "\"down\""); i++)
        assert_int_equal(get(house.port, "/", NULL), 200);
    const unsigned before = backend_calls(bad);
    for (int i = 0; i < 20; i++)
        assert_int_equal(opened(), 101);
    assert_true(backend_calls(bad) <= before + 4); /* trials */
    atomic_store(&mood, WELL);
    wait_until(opened() == 101 && listed(backend_port(bad), "\"up\""), 40000);
}

static void a_handshake_passes_over_a_server_that_talks_nonsense(void **state)
{
    (void)state;
    websocket_house();
    atomic_store(&mood, GARBAGE);
    for (int i = 0; i < 20; i++)
        assert_int_equal(opened(), 101);
    assert_true(listed(backend_port(bad), "\"malformed\""));
    assert_true(house_logged(&house, "sent a response head with a malformed line at byte 21"));
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(a_hung_server_is_passed_over_and_left_by_all_workers),
        STORY(a_get_passes_over_a_server_that_closes),
        STORY(a_get_passes_over_a_server_that_closes_within_the_head),
        STORY(a_get_passes_over_a_server_that_talks_nonsense),
        STORY(a_get_passes_over_a_server_whose_head_drips),
        STORY(a_get_passes_over_a_server_with_heads_over_16_kib),
        STORY(a_get_passes_over_a_server_with_over_128_fields),
        STORY(nonsense_of_the_only_server_is_not_waited_for),
        STORY(a_post_is_sent_to_one_server_at_most),
        STORY(a_post_that_nothing_was_sent_of_goes_to_the_next_server),
        STORY(errors_are_one_line_a_second_each),
        STORY(a_state_survives_a_reload),
        STORY(a_lone_hung_server_is_asked_all_the_same),
        STORY(two_hung_servers_take_two_timeouts_together),
        STORY(nobody_waits_for_a_silent_fetch_longer_than_for_its_own),
        STORY(those_who_wait_get_what_the_next_server_answers),
        STORY(what_is_stale_is_given_at_once_where_all_are_down),
        STORY(an_event_stream_that_is_cut_names_the_key),
        STORY(what_is_down_is_a_condition),
        STORY(handshakes_feed_the_table_that_requests_obey),
        STORY(handshakes_obey_the_table_that_requests_feed),
        STORY(a_handshake_passes_over_a_server_that_talks_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
