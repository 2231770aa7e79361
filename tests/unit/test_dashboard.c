/* SPDX-License-Identifier: BSD-2-Clause */
/* The dashboard's page, its stream of events, and whose Host may ask for them. */
#include "daemons/control/control.h"
#include "daemons/control/model/route_use.h"
#include "daemons/control/model/windows.h"
#include "daemons/control/ops/host.h"
#include "daemons/control/ops/live.h"
#include "daemons/control/ops/pages.h"
#include "daemons/control/ops/tail.h"
#include "daemons/control/ops/text.h"
#include "polder/alerts.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/limit.h"
#include "polder/recent.h"

#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>
/* after the others: it wants them */
#include <cmocka.h>

#define PATIENCE_MS 10000

struct rig {
    struct control control;
    struct http_server *server;
    struct shared shared;
    struct shm_segment conditions;
    struct config config;
    struct runtime_page runtime;
    char seen[1u << 20];
    size_t len;
};

static int set_up(void **state)
{
    static const char *const hosts[] = {"ops.example"};
    struct rig *r = calloc(1, sizeof *r);
    r->shared.proc = aligned_alloc(128, (sizeof *r->shared.proc + 127) / 128 * 128);
    r->shared.stats = mmap(NULL, sizeof *r->shared.stats * PROC_SLOTS, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(r->shared.stats, MAP_FAILED);
    memset(r->shared.proc, 0, sizeof *r->shared.proc);
    assert_int_equal(conditions_open(&r->conditions, NULL, CONDITIONS_OF_POLDERD), 0);
    r->shared.conditions = conditions_of(&r->conditions);
    r->shared.limits = mmap(NULL, limit_table_size(1024), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(r->shared.limits, MAP_FAILED);
    limit_table_init(r->shared.limits, 1024);
    r->config.ops_listen =
        (struct config_address){.sa.ss_family = AF_INET, .len = 16, .text = "box:9145"};
    r->config.ops_hosts = hosts;
    r->config.n_ops_hosts = 1;
    r->config.runtime_dir = "/nowhere";
    r->config.telemetry_path = "/tele";
    r->config.cost = (struct config_cost){"EUR", 0.5, 0};
    atomic_store(&r->shared.proc->started_ms, clock_mono_ms()); /* young: nothing is missing yet */
    r->shared.alerts = aligned_alloc(64, sizeof *r->shared.alerts);
    memset(r->shared.alerts, 0, sizeof *r->shared.alerts);
    r->control.shared = &r->shared;
    r->control.config = &r->config;
    r->control.runtime = &r->runtime;
    r->control.loop = ev_loop_new(EVBACKEND_EPOLL);
    r->control.windows = windows_new();
    r->control.live = live_new();
    peers_init(&r->control.peers, r->control.loop, r->config.runtime_dir);
    r->server = http_server_new(r->control.loop, pages_answer, &r->control);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    peers_fini(&r->control.peers);
    http_server_free(r->server);
    live_free(r->control.live);
    windows_free(r->control.windows);
    ev_loop_destroy(r->control.loop);
    munmap(r->shared.limits, limit_table_size(1024));
    shm_close(&r->conditions);
    free(r->shared.alerts);
    free(r->shared.proc);
    munmap(r->shared.stats, sizeof *r->shared.stats * PROC_SLOTS);
    free(r);
    return 0;
}

static int ask(struct rig *r, const char *target, const char *lines)
{
    int pair[2];
    char request[1024];
    const int n = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\n%s\r\n", target, lines);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(send(pair[0], request, (size_t)n, 0), n);
    http_server_add(r->server, pair[1], PAGE_OPS);
    return pair[0];
}

static void turn(struct rig *r)
{
    for (int i = 0; i < 8; i++)
        ev_run(r->control.loop, EVRUN_NOWAIT);
}

/* Runs the loop until `wanted` has come. */
static void see(struct rig *r, int fd, const char *wanted)
{
    const uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;
    r->len = 0;
    for (;;) {
        ev_run(r->control.loop, EVRUN_NOWAIT);
        const ssize_t n = recv(fd, r->seen + r->len, sizeof r->seen - 1 - r->len, MSG_DONTWAIT);
        if (n > 0)
            r->len += (size_t)n;
        r->seen[r->len] = 0;
        if (strstr(r->seen, wanted))
            return;
        if (n == 0 || (n < 0 && errno != EAGAIN) || clock_mono_ms() > until_ms)
            fail_msg("no %s in: %s", wanted, r->seen);
    }
}

static void expect(struct rig *r, const char *target, const char *lines, const char *wanted)
{
    const int fd = ask(r, target, lines);
    see(r, fd, wanted);
    close(fd);
    turn(r);
}

/* ---- whose it is ---- */

static void only_its_own_names_are_taken(void **state)
{
    struct rig *r = *state;
    static const char *const ours[] = {"",
                                       "localhost",
                                       "localhost:9145",
                                       "LOCALHOST.",
                                       "a.localhost:1",
                                       "127.0.0.1:9145",
                                       "127.9.9.9",
                                       "[::1]:9145",
                                       "[::1]",
                                       "10.1.2.3:80",
                                       "box",
                                       "BOX:9145",
                                       "ops.example",
                                       "Ops.Example:443"};
    static const char *const others[] = {"evil.example",
                                         "localhost.evil.example",
                                         "notlocalhost",
                                         "127.0.0.1.evil.example",
                                         "127.0.0.1evil",
                                         "ops.example.evil",
                                         "xops.example",
                                         ":9145",
                                         "[::1",
                                         "[evil.example]:80",
                                         "localhost@evil.example"};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (!host_is_ours(&r->config, (struct str){ours[i], strlen(ours[i])}))
            fail_msg("\"%s\" is refused", ours[i]);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (host_is_ours(&r->config, (struct str){others[i], strlen(others[i])}))
            fail_msg("\"%s\" is taken", others[i]);
}

static void a_name_that_was_led_here_reads_nothing(void **state)
{
    struct rig *r = *state;
    static const char *const pages[] = {"/", "/events", "/metrics", "/readyz",
                                        "/api/telemetry/overview"};
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        expect(r, pages[i], "Host: evil.example:9145\r\n", "HTTP/1.1 421 ");
    expect(r, "/healthz", "Host: evil.example:9145\r\n", "HTTP/1.1 200 ");
    expect(r, "/healthz", "Host: ops.example\r\n", "HTTP/1.1 200 ");
    expect(r, "/api/telemetry/overview", "Host: ops.example\r\n", "HTTP/1.1 200 ");
    r->config.ops_listen.sa.ss_family = AF_UNIX; /* no browser gets there */
    expect(r, "/readyz", "Host: a\r\n", "HTTP/1.1 503 ");
}

/* ---- the page ---- */

static void the_page_needs_nothing_else(void **state)
{
    struct rig *r = *state;
    expect(r, "/", "Host: localhost\r\n", "</html>");
    assert_non_null(strstr(r->seen, "Content-Security-Policy: default-src 'none'; script-src "
                                    "'sha256-"));
    assert_non_null(strstr(r->seen, "frame-ancestors 'none'"));
    assert_null(strstr(r->seen, "'unsafe-inline'"));
    assert_non_null(strstr(r->seen, "Vary: Accept-Encoding\r\n"));
    assert_null(strstr(r->seen, "Content-Encoding:"));
    const char *page = strstr(r->seen, "\r\n\r\n");
    assert_non_null(page);
    assert_null(strstr(page, "<script src"));
    assert_null(strstr(page, "<link rel=\"stylesheet"));
    assert_null(strstr(page, "onclick="));
    assert_null(strstr(page, " style=\""));
}

static void it_is_sent_compressed_to_those_that_take_it(void **state)
{
    struct rig *r = *state;
    static unsigned char text[2u << 20];
    const int fd = ask(r, "/", "Host: localhost\r\nAccept-Encoding: br, gzip\r\n");
    see(r, fd, "\r\n\r\n");
    unsigned long len = 0;
    const char *field = strstr(r->seen, "Content-Length: ");
    assert_non_null(field);
    sscanf(field, "Content-Length: %lu", &len);
    assert_in_range(len, 10000, 100000);
    assert_non_null(strstr(r->seen, "Content-Encoding: gzip\r\n"));
    const size_t head = (size_t)(strstr(r->seen, "\r\n\r\n") + 4 - r->seen);
    const uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;
    while (r->len < head + len && clock_mono_ms() < until_ms) {
        ev_run(r->control.loop, EVRUN_NOWAIT);
        const ssize_t n = recv(fd, r->seen + r->len, sizeof r->seen - 1 - r->len, MSG_DONTWAIT);
        r->len += n > 0 ? (size_t)n : 0;
    }
    z_stream z = {.next_in = (unsigned char *)r->seen + head,
                  .avail_in = (unsigned)len,
                  .next_out = text,
                  .avail_out = sizeof text - 1};
    assert_int_equal(inflateInit2(&z, 31), Z_OK);
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    inflateEnd(&z);
    assert_non_null(strstr((char *)text, "</html>"));
    close(fd);
}

static void the_runbook_has_a_place_for_each_condition(void **state)
{
    struct rig *r = *state;
    char anchor[128];
    expect(r, "/runbook", "Host: localhost\r\n", "</html>");
    for (unsigned i = 0; i < CONDITIONS; i++) {
        snprintf(anchor, sizeof anchor, "id=\"condition-%s\"",
                 condition_kind((enum condition_id)i)->name);
        if (!strstr(r->seen, anchor))
            fail_msg("no %s", anchor);
    }
}

/* ---- the stream ---- */

static unsigned times(const char *text, const char *wanted)
{
    unsigned n = 0;
    for (const char *at = text; (at = strstr(at, wanted)); at++)
        n++;
    return n;
}

static json_t *message_of(const char *text)
{
    const char *at = strstr(text, "data: ");
    assert_non_null(at);
    json_error_t why;
    json_t *j = json_loads(at + 6, JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, &why);
    if (!j)
        fail_msg("%s at %d of %s", why.text, why.position, at);
    return j;
}

static void a_stream_begins_with_all_and_goes_on_with_changes(void **state)
{
    struct rig *r = *state;
    const int fd = ask(r, "/events", "Host: localhost\r\n");
    see(r, fd, "}\n\n");
    assert_non_null(strstr(r->seen, "Content-Type: text/event-stream\r\n"));
    assert_non_null(strstr(r->seen, "retry: "));
    json_decref(message_of(r->seen));
    assert_non_null(strstr(r->seen, "\"conditions\":{\"conditions\":[]"));
    assert_non_null(strstr(r->seen, "\"cache-stats\":{\"hitRate\":0,"));
    turn(r);
    live_follow(&r->control); /* websocket-health has come meanwhile */
    see(r, fd, "}\n\n");
    stats_add(&r->shared.stats[0], STATS_CACHE_HITS, 3);
    live_follow(&r->control);
    see(r, fd, "\"cache-stats\":{\"hitRate\":1,");
    assert_int_equal(times(r->seen, "\"conditions\":"), 0);
    assert_int_equal(times(r->seen, "data: {\"now\":"), 1);
    close(fd);
}

/* The same bytes as the documents: what is shown is what can be checked. */
static void sections_are_the_documents(void **state)
{
    struct rig *r = *state;
    static char document[4096];
    stats_add(&r->shared.stats[2], STATS_CACHE_HITS, 5);
    stats_add(&r->shared.stats[2], STATS_CACHE_MISSES, 7);
    expect(r, "/api/telemetry/cache-stats", "Host: localhost\r\n", "}\n");
    snprintf(document, sizeof document, "\"cache-stats\":%s", strstr(r->seen, "\r\n\r\n") + 4);
    *strchr(document, '\n') = 0;
    expect(r, "/events", "Host: localhost\r\n", document);
}

static void the_seventeenth_is_told_to_come_later(void **state)
{
    struct rig *r = *state;
    int fd[LIVE_STREAMS];
    for (unsigned i = 0; i < LIVE_STREAMS; i++) {
        fd[i] = ask(r, "/events", "Host: localhost\r\n");
        see(r, fd[i], "\"overview\":");
    }
    const int more = ask(r, "/events", "Host: localhost\r\n");
    see(r, more, "}\n");
    assert_non_null(strstr(r->seen, "HTTP/1.1 503 "));
    assert_non_null(strstr(r->seen, "Retry-After: "));
    close(more);
    for (unsigned i = 0; i < 70; i++) { /* others have places of their own */
        const int one = ask(r, "/healthz", "Host: localhost\r\n");
        see(r, one, "ok");
        close(one);
    }
    close(fd[3]);
    turn(r);
    const int again = ask(r, "/events", "Host: localhost\r\n");
    see(r, again, "\"overview\":");
    for (unsigned i = 0; i < LIVE_STREAMS; i++)
        if (i != 3)
            close(fd[i]);
    close(again);
}

static void other_sites_take_no_place(void **state)
{
    struct rig *r = *state;
    expect(r, "/events", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", "HTTP/1.1 403 ");
    expect(r, "/events", "Host: localhost\r\nSec-Fetch-Site: same-site\r\n", "HTTP/1.1 403 ");
    expect(r, "/events", "Host: localhost\r\nSec-Fetch-Site: same-origin\r\n", "HTTP/1.1 200 ");
}

/* A client that does not read is hung up, and another one has its place; those that do read see
 * every change. */
static void put_hostile_request(struct recent_page *page)
{
    static const char target[] = "/<script>\"'\\\n\x01\xff?token=secret&\"=</script>";
    struct recent_request q = {.status = 200};
    recent_text(q.method, sizeof q.method, (struct str){"GET", 3});
    recent_mask_target(q.target, sizeof q.target, (struct str){target, sizeof target - 1});
    recent_mask_key(q.key, sizeof q.key, (struct str){"\"\\bearer-secret", 15}, 1);
    recent_put_request(page, &q);
}

/* The newest fifty, whole and masked, whatever clients have sent. */
static void hostile_requests_stay_text(void **state)
{
    struct rig *r = *state;
    r->shared.recent = aligned_alloc(128, (recent_page_size() + 127) / 128 * 128);
    memset(r->shared.recent, 0, recent_page_size());
    for (unsigned i = 0; i < 300; i++)
        put_hostile_request(r->shared.recent);
    const int fd = ask(r, "/events", "Host: localhost\r\n");
    see(r, fd, "}\n\n");
    assert_null(strstr(r->seen, "secret"));
    json_t *j = message_of(r->seen);
    assert_int_equal(json_array_size(json_object_get(j, "requests")), 50);
    json_decref(j);
    for (unsigned i = 0; i < 200; i++)
        put_hostile_request(r->shared.recent);
    live_follow(&r->control);
    see(r, fd, "\"requests\":");
    close(fd);
    free(r->shared.recent);
    r->shared.recent = NULL;
}

static void who_does_not_read_is_hung_up(void **state)
{
    struct rig *r = *state;
    const int slow = ask(r, "/events", "Host: localhost\r\n");
    const int fast = ask(r, "/events", "Host: localhost\r\n");
    char one;
    bool hung_up = false;
    for (unsigned i = 0; i < 20000 && !hung_up; i++) {
        stats_add(&r->shared.stats[0], STATS_CACHE_HITS, 1);
        live_follow(&r->control);
        turn(r);
        r->len = 0;
        while (recv(fast, r->seen, sizeof r->seen, MSG_DONTWAIT) > 0)
            ;
        assert_int_equal(recv(fast, &one, 1, MSG_DONTWAIT | MSG_PEEK), -1);
        hung_up = send(slow, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EPIPE;
    }
    assert_true(hung_up);
    stats_add(&r->shared.stats[0], STATS_CACHE_MISSES, 1);
    live_follow(&r->control);
    see(r, fast, "\"misses\":1,");
    close(slow);
    close(fast);
}

/* Nothing is made while nobody looks, and a new stream shows nothing of long ago. */
static void nothing_is_kept_for_nobody(void **state)
{
    struct rig *r = *state;
    expect(r, "/events", "Host: localhost\r\n", "\"hits\":0,");
    stats_add(&r->shared.stats[0], STATS_CACHE_HITS, 9);
    live_follow(&r->control);
    const int fd = ask(r, "/events", "Host: localhost\r\n");
    see(r, fd, "\"hits\":9,");
    assert_null(strstr(r->seen, "\"hits\":0,\"misses\":0,\"stale\""));
    close(fd);
}

/* ---- windows ---- */

static void a_window_counts_what_came_within_it(void **state)
{
    struct rig *r = *state;
    struct windows_sums s;
    windows_follow(&r->control); /* a later control: it begins with what there is */
    stats_add(&r->shared.stats[1], STATS_CACHE_HITS, 3);
    stats_add(&r->shared.stats[2], STATS_CACHE_MISSES, 1);
    stats_add(&r->shared.stats[2], STATS_UPSTREAM_REQUESTS, 1);
    stats_add(&r->shared.stats[2], STATS_LIMIT_REFUSED, 2);
    windows_sum(&r->control, WINDOWS_1H, &s);
    assert_int_equal(s.hits, 3);
    assert_int_equal(s.misses, 1);
    assert_true(s.calls > .9 && s.calls < 1.1);
    assert_true(s.avoided > 4.9 && s.avoided < 5.1); /* hits and what a limit refused */
    assert_true(s.money.saved_total > 2.4 && s.money.saved_total < 2.6);
    assert_true(windows_open_ago(&r->control, 15).connections < 0);
    assert_true(windows_open_now(&r->control).connections >= 0);
}

static int clock_fd;

/* Time moves on as it does, a tick each so many seconds. */
static void pass(struct rig *r, unsigned minutes, unsigned tick_s)
{
    static uint64_t ahead_ms;
    for (unsigned i = 0; i < minutes * 60 / tick_s; i++) {
        ahead_ms += tick_s * 1000u;
        assert_int_equal(pwrite(clock_fd, &ahead_ms, sizeof ahead_ms, 0), sizeof ahead_ms);
        windows_follow(&r->control);
    }
}

static uint64_t hits_within(struct rig *r, enum windows_span span)
{
    struct windows_sums s;
    windows_sum(&r->control, span, &s);
    return s.hits;
}

static void what_is_older_leaves_the_window(void **state)
{
    struct rig *r = *state;
    windows_follow(&r->control);
    stats_add(&r->shared.stats[1], STATS_CACHE_HITS, 3);
    pass(r, 4, 5);
    assert_int_equal(hits_within(r, WINDOWS_5MIN), 3);
    pass(r, 2, 5);
    assert_int_equal(hits_within(r, WINDOWS_5MIN), 0);
    assert_int_equal(hits_within(r, WINDOWS_1H), 3);
    stats_add(&r->shared.stats[1], STATS_CACHE_HITS, 2);
    pass(r, 58, 5);
    assert_int_equal(hits_within(r, WINDOWS_1H), 2);
    pass(r, 5, 5);
    assert_int_equal(hits_within(r, WINDOWS_1H), 0);
    assert_int_equal(hits_within(r, WINDOWS_24H), 5);
    pass(r, 25 * 60, 60);
    assert_int_equal(hits_within(r, WINDOWS_24H), 0);
}

/* ---- routes ---- */

static void a_route_tells_when_it_was_asked_for_last(void **state)
{
    struct rig *r = *state;
    struct config_route route = {.pattern = "/a\"b", .id = 77};
    struct stats_slab *slab = &r->shared.stats[PROC_SLOT_WORKER0];
    r->config.routes = &route;
    r->config.n_routes = 1;
    r->control.route_use = route_use_new();
    stats_adopt(slab, &r->config);
    struct stats_route_row *row = stats_route_row(slab, 77);
    stats_bump(&row->answers[1], 4); /* before control looked */
    expect(r, "/api/telemetry/routes", "Host: localhost\r\n",
           "\"route\":\"/"
           "a\\\"b\",\"upstream\":\"\",\"cached\":false,\"websocket\":false,\"requests\":4,");
    assert_non_null(strstr(r->seen, "\"lastRequest\":null"));
    stats_bump(&row->answers[4], 1);
    expect(r, "/api/telemetry/routes", "Host: localhost\r\n", "\"requests\":5,\"errors\":1,");
    assert_non_null(strstr(r->seen, "\"lastRequest\":1"));
    atomic_store(&row->last_hit_ms, clock_real_ms() + 5000); /* workers know of hits exactly */
    expect(r, "/api/telemetry/routes", "Host: localhost\r\n", "\"lastCacheHit\":1");
    route_use_free(r->control.route_use);
    r->control.route_use = NULL;
    r->config.n_routes = 0;
}

static void a_flood_hides_no_rare_event(void **state)
{
    (void)state;
    struct text t = {0};
    struct recent_page *page = aligned_alloc(128, (recent_page_size() + 127) / 128 * 128);
    memset(page, 0, recent_page_size());
    struct recent_event e = {.count = 1, .noun = "processes", .what = "started"};
    recent_put_event(page, &e);
    e = (struct recent_event){.count = 9, .noun = "limits", .what = "refused"};
    for (int i = 0; i < 100; i++)
        recent_put_event(page, &e);
    tail_put_last(&t, page);
    unsigned refused = 0;
    for (const char *at = t.at; (at = strstr(at, "refused")); at++)
        refused++;
    assert_non_null(strstr(t.at, "started"));
    assert_int_equal(refused, TAIL_EVENTS);
    text_free(&t);
    free(page);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(only_its_own_names_are_taken),
        TEST(a_name_that_was_led_here_reads_nothing),
        TEST(the_page_needs_nothing_else),
        TEST(it_is_sent_compressed_to_those_that_take_it),
        TEST(the_runbook_has_a_place_for_each_condition),
        TEST(a_stream_begins_with_all_and_goes_on_with_changes),
        TEST(sections_are_the_documents),
        TEST(the_seventeenth_is_told_to_come_later),
        TEST(other_sites_take_no_place),
        TEST(hostile_requests_stay_text),
        TEST(a_flood_hides_no_rare_event),
        TEST(who_does_not_read_is_hung_up),
        TEST(nothing_is_kept_for_nobody),
        TEST(a_window_counts_what_came_within_it),
        TEST(what_is_older_leaves_the_window),
        TEST(a_route_tells_when_it_was_asked_for_last),
    };
    char name[] = "/tmp/polder-dashboard.XXXXXX";
    const uint64_t ahead_ms = 0;
    clock_fd = mkstemp(name);
    if (clock_fd < 0 || write(clock_fd, &ahead_ms, sizeof ahead_ms) != sizeof ahead_ms)
        return 1;
    setenv("POLDER_CLOCK", name, 1);
    clock_open();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(name);
    return failed;
}
