/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of polderctl verify: what works scores 100, what is switched off or wrong is named, and
 * no client and no figure notices that somebody looks. */
#include "ws_client.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct backend *backend;
static atomic_uint keeps; /* 0: answers may be stored */

static bool answers(struct asked *a)
{
    char body[64];
    snprintf(body, sizeof body, "number %u", a->number);
    if (!strncmp(a->target, "/closed", 7))
        return reply(a, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    return reply_ok(a, atomic_load(&keeps) ? "Cache-Control: private\r\n" : "", body);
}

#define ROUTES                                                                                     \
    "access_log = \"json:%s\"\n"                                                                   \
    "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"                                             \
    "cache { stale_while_revalidate = \"0s\" }\n"                                                  \
    "websocket { heartbeat = both interval = 300ms timeout = 300ms max_connections = 3 "           \
    "max_per_client = 3 }\n"                                                                       \
    "limit \"few\" { requests = 3 window = \"60s\" }\n"                                            \
    "limit \"keyed\" { requests = 2 window = \"1s\" key = "                                        \
    "\"header:X-Key+cookie:sid+jwt:sub+query:q\" missing = refuse }\n"                             \
    "route \"/limited\" { upstream = \"u\" limits = {\"few\"} }\n"                                 \
    "route \"/keyed\" { upstream = \"u\" limits = {\"keyed\"} }\n"                                 \
    "route \"/items/*\" { upstream = \"u\" cache { } verify = \"/items/7?x=1\" }\n"                \
    "route \"/polled/*\" { upstream = \"u\" cache { ttl = \"0s\" } poll { min_interval = %s } }\n" \
    "route \"/ws/*\" { websocket { } }\n"                                                          \
    "route \"/*\" { upstream = \"u\" }\n"

static char access_path[160];

static void start(struct house *h, const char *interval)
{
    atomic_store(&keeps, 0);
    snprintf(access_path, sizeof access_path, "/tmp/polder-verify-%d.log", (int)getpid());
    unlink(access_path);
    house_start(h, 2, ROUTES, access_path, backend_port(backend), interval);
    wait_for_supervisor(h);
    backend_forget(backend);
}

static void stop(struct house *h)
{
    house_remove(h);
    unlink(access_path);
}

/* A line of the table with these three. */
static bool says(const char *table, const char *subject, const char *check, const char *result)
{
    char row[256];
    for (const char *line = table; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        snprintf(row, sizeof row, "%.*s", (int)strcspn(line, "\n"), line);
        if (strstr(row, subject) && strstr(row, check) && strstr(row, result))
            return true;
    }
    return false;
}

#define assert_says(table, subject, check, result)                                                 \
    do {                                                                                           \
        if (!says(table, subject, check, result))                                                  \
            fail_msg("no \"%s\" \"%s\" \"%s\" in:\n%s", subject, check, result, table);            \
    } while (0)

/* ---- what a run leaves behind ---- */

/* What counts, in lines: all counters and histograms, and the gauges of what is open or stored. */
static char *metrics(struct house *h)
{
    static const char *const counting[] = {"_total", "_bucket{", "_count", "polder_cache_items",
                                           "polder_websocket"};
    static const char *const moving[] = {
        "polder_client_connections_total", /* before a token is seen */
        "polder_client_bytes_total{direction=\"in\"}",
        "polder_admin",
        "polder_alert",
        "process_",
        "polder_process",
        "polder_history",
        "polder_scrape",
        "polder_condition",
    };
    struct message m;
    assert_int_equal(get(h->ops_port, "/metrics", &m), 200);
    char *out = calloc(1, m.body_len + 1), *next = m.body;
    for (char *line; (line = strsep(&next, "\n"));) {
        bool counts = false;
        for (size_t i = 0; i < sizeof counting / sizeof *counting; i++)
            counts |= strstr(line, counting[i]) != NULL;
        for (size_t i = 0; i < sizeof moving / sizeof *moving; i++)
            counts &= strncmp(line, moving[i], strlen(moving[i])) != 0;
        if (counts && *line != '#' && !strstr(line, "_cpu_"))
            strcat(strcat(out, line), "\n");
    }
    message_free(&m);
    assert_non_null(strstr(out, "polder_requests_total"));
    assert_non_null(strstr(out, "polder_cache_items"));
    assert_non_null(strstr(out, "result=\"admitted\""));
    return out;
}

static void assert_same_lines(const char *before, const char *after)
{
    while (*before || *after) {
        const size_t n = strcspn(before, "\n"), m = strcspn(after, "\n");
        if (n != m || memcmp(before, after, n))
            fail_msg("before: %.*s\nafter:  %.*s", (int)n, before, (int)m, after);
        before += n + (before[n] == '\n');
        after += m + (after[m] == '\n');
    }
}

/* The keeper shows how many objects there are some time after they have changed. */
static bool same_items(struct house *h, const char *before)
{
    char *now = metrics(h);
    const char *was = strstr(before, "polder_cache_items "),
               *is = strstr(now, "polder_cache_items ");
    assert_non_null(was);
    const bool same = is && !strncmp(was, is, strcspn(was, "\n") + 1);
    free(now);
    return same;
}

static unsigned stored_probes(struct house *h)
{
    const char *out;
    unsigned n = 0;
    if (ctl(h, &out, "cache list")) /* nobody knows */
        return 1000;
    for (const char *at = out; (at = strstr(at, "verify-")); at++)
        n++;
    return n;
}

/* ---- stories ---- */

static FILE *begin_verify(struct house *h, const char *args)
{
    char command[512];
    snprintf(command, sizeof command, "%s -s %s verify %s 2>/dev/null", built("polderctl"), h->sock,
             args);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    return f;
}

static void what_works_scores_100_and_nobody_notices(void **state)
{
    (void)state;
    struct house h;
    char table[16384];
    start(&h, "60s");
    /* a client that has used two of three, and a copy */
    assert_int_equal(get(h.port, "/limited", NULL), 200);
    assert_int_equal(get(h.port, "/limited", NULL), 200);
    get(h.port, "/items/7?x=1", NULL);
    wait_until(served_from_store(h.port, "/items/7?x=1"), 3000);
    wait_until(same_items(&h, "polder_cache_items 1\n"), 5000);
    char *before = metrics(&h);

    FILE *f = begin_verify(&h, "");
    size_t n = fread(table, 1, sizeof table - 1, f);
    table[n] = 0;
    const int status = pclose(f);
    assert_says(table, "/items/*", "second read", " ok ");
    assert_says(table, "/items/*", "invalidation", " ok ");
    assert_says(table, "/polled/*", "interval", " ok ");
    assert_says(table, "few", "exact", "3 of 8 requests for /limited were admitted");
    assert_says(table, "few", "Retry-After", " ok ");
    assert_says(table, "keyed", "exact", "2 of 7 requests");
    assert_says(table, "keyed", "Retry-After", " ok "); /* taken at its word */
    assert_says(table, "/ws/*", "limit", "3 of 3 places were given, 3 to one client; then 503");
    assert_says(table, "/ws/*", "heartbeat", "JSON and ping");
    assert_says(table, "/ws/*", "dead peer", " ok ");
    assert_non_null(strstr(table, "score 100 of 100"));
    assert_int_equal(WEXITSTATUS(status), 0);

    /* its objects go, and then the count of all */
    wait_until(stored_probes(&h) == 0, 5000);
    wait_until(same_items(&h, before), 5000);
    char *after = metrics(&h);
    assert_same_lines(before, after);
    free(before), free(after);
    assert_true(served_from_store(h.port, "/items/7?x=1")); /* it was not invalidated */
    assert_int_equal(get(h.port, "/limited", NULL), 200);   /* the third */
    assert_int_equal(get(h.port, "/limited", NULL), 429);
    const char *out;
    assert_int_equal(ctl(&h, &out, "limit top few"), 0);
    assert_non_null(strstr(out, "127.0.0.1"));
    assert_null(strstr(out, "192.0.2."));

    char *asked = backend_transcript(backend);
    assert_null(strcasestr(asked, "polder-verify"));
    assert_null(strstr(asked, "verify-"));
    free(asked);
    assert_false(house_logged(&h, "192.0.2."));
    FILE *log = fopen(access_path, "r");
    n = fread(table, 1, sizeof table - 1, log);
    table[n] = 0;
    fclose(log);
    assert_non_null(strstr(table, "/limited"));
    assert_null(strstr(table, "192.0.2."));
    assert_null(strstr(table, "polder-verify"));
    stop(&h);
}

/* While it holds all places of its own, a client gets the last one of the clients'. */
static void a_client_gets_its_place_while_somebody_verifies(void **state)
{
    (void)state;
    struct house h;
    char line[512];
    const char *out;
    bool seen = false;
    start(&h, "60s");
    assert_int_equal(ctl(&h, NULL, "ws set interval=500ms timeout=500ms"), 0);
    const int one = open_ws(h.port, "/ws/a"), two = open_ws(h.port, "/ws/b");
    FILE *f = begin_verify(&h, "--only websocket,rateLimiting");
    /* it has a WebSocket and a dead peer open by the time that this is said */
    wait_until(house_logged(&h, "verify: begun"), 5000);
    const int three = open_ws(h.port, "/ws/c");
    assert_int_equal(status_of(h.port, "/ws/d"), 503);
    assert_int_equal(ctl(&h, &out, "--json ws list"), 0);
    assert_non_null(strstr(out, "\"total\": 3"));
    assert_null(strstr(out, "192.0.2."));
    for (int i = 0; i < 3; i++)
        assert_int_equal(get(h.port, "/limited", NULL), 200);
    assert_int_equal(get(h.port, "/limited", NULL), 429);
    while (fgets(line, sizeof line, f))
        seen |= strstr(line, "score 100") != NULL;
    assert_int_equal(WEXITSTATUS(pclose(f)), 0);
    assert_true(seen);
    close(one), close(two), close(three);
    stop(&h);
}

/* One optimisation that is off is enough; each is named with what was seen. */
static void what_is_switched_off_is_named_and_fails(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, "60s");
    assert_int_equal(ctl(&h, NULL, "limit set few dry_run=true"), 0);
    assert_int_equal(ctl(&h, NULL, "limit set keyed dry_run=true"), 0);
    assert_int_equal(ctl(&h, &out, "verify --only caching,polling,rateLimiting"), 1);
    assert_says(out, "few", "exact", "FAILED");
    assert_says(out, "few", "exact", "dry_run: it never refuses");
    assert_non_null(strstr(out, "score 66 of 100"));

    assert_int_equal(ctl(&h, NULL, "cache set ttl=0s"), 0);
    assert_int_equal(ctl(&h, NULL, "ws set heartbeat=off"), 0);
    atomic_store(&keeps, 1);
    assert_int_equal(ctl(&h, &out, "verify --threshold 1"), 1);
    assert_says(out, "/items/*", "second read", "FAILED");
    assert_says(out, "/items/*", "second read", "no hit");
    assert_says(out, "/polled/*", "interval", "8 of 8 polls");
    assert_says(out, "/ws/*", "heartbeat", "heartbeat = off");
    assert_says(out, "/ws/*", "dead peer", "FAILED");
    assert_says(out, "few", "exact", "FAILED");
    assert_non_null(strstr(out, "score 0 of 100"));
    stop(&h);
}

static void what_is_misconfigured_is_named_and_fails(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, "100ms");
    /* no lifetime; an interval that holds nothing back; exempt; json alone */
    assert_int_equal(ctl(&h, NULL, "cache set ttl=0s"), 0);
    assert_int_equal(ctl(&h, NULL, "limit set few exempt=0.0.0.0/0"), 0);
    assert_int_equal(ctl(&h, NULL, "limit set keyed requests=30000"), 0);
    assert_int_equal(ctl(&h, NULL, "ws set heartbeat=json"), 0);
    assert_int_equal(ctl(&h, &out, "verify"), 1);
    assert_says(out, "/items/*", "second read", "no hit");
    assert_says(out, "/polled/*", "interval", "holds nothing back");
    assert_says(out, "few", "exact", "is it exempt?");
    assert_says(out, "keyed", "exact", "too many to have an effect");
    assert_says(out, "/ws/*", "heartbeat", " ok ");
    assert_says(out, "/ws/*", "dead peer", "one that is gone is not noticed");
    assert_non_null(strstr(out, "score 0 of 100"));

    assert_int_equal(ctl(&h, NULL, "ws set heartbeat=both interval=2m timeout=1h"), 0);
    assert_int_equal(ctl(&h, &out, "verify --only websocket"), 1);
    assert_says(out, "/ws/*", "heartbeat", "interval = 2m is too slow");
    assert_says(out, "/ws/*", "dead peer", "keeps its place for");
    assert_says(out, "/ws/*", "limit", " ok ");
    assert_int_equal(ctl(&h, NULL, "ws set interval=20s timeout=40s"), 0);
    assert_int_equal(ctl(&h, &out, "verify --only websocket --wait 1s"), 0);
    assert_says(out, "/ws/*", "heartbeat", "not probed");
    assert_int_equal(ctl(&h, &out, "verify --only nothing"), 2);
    assert_int_equal(ctl(&h, &out, "verify https://localhost"), 2);
    stop(&h);
}

static void what_is_not_configured_is_left_out(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    house_start(&h, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/items/*\" { upstream = \"u\" cache { } }\n"
                "route \"/closed\" { upstream = \"u\" cache { } }\n",
                backend_port(backend));
    atomic_store(&keeps, 0);
    assert_int_equal(ctl(&h, &out, "verify http://localhost:%u/items/new", h.port), 0);
    assert_says(out, "polling", "not configured", "no route has a poll section");
    assert_says(out, "websocket", "not configured", "");
    assert_says(out, "rateLimiting", "not configured", "no limit");
    assert_says(out, "/items/*", "second read", "GET /items/new: polder; hit");
    assert_says(out, "/closed", "not probed",
                "401; the route has this path alone, and probes carry no credentials");
    assert_non_null(strstr(out, "score 100 of 100"));
    assert_int_equal(ctl(&h, &out, "--json verify --only polling,rateLimiting"), 1);
    assert_non_null(strstr(out, "\"score\": null"));
    assert_non_null(strstr(out, "\"result\": \"not configured\""));
    house_remove(&h);
}

/* ---- tokens ---- */

/* Asks control for a token, as any program may. */
static void take_token(struct house *h, char token[33])
{
    static const char call[] = "\x94\x00\x01\xa6verify\x91\x80";
    char answer[8192] = "", *at;
    size_t n = 0;
    const int fd = house_admin_connect(h);
    assert_int_equal(write(fd, call, sizeof call - 1), sizeof call - 1);
    do {
        struct pollfd p = {fd, POLLIN, 0};
        assert_int_equal(poll(&p, 1, 10000), 1);
        const ssize_t got = read(fd, answer + n, sizeof answer - 1 - n);
        assert_true(got > 0);
        n += (size_t)got;
        at = memmem(answer, n, "token", 5);
    } while (!at || at + 7 + 32 > answer + n);
    memcpy(token, at + 7, 32); /* behind a string's two bytes of length */
    token[32] = 0;
    close(fd);
}

static int probe(struct house *h, const char *target, const char *token, struct message *m)
{
    char line[128];
    snprintf(line, sizeof line, "Polder-Verify: %s\r\n", token);
    return get_with(h->port, target, line, m);
}

static void a_forged_token_is_an_ordinary_request(void **state)
{
    (void)state;
    struct house h;
    char token[33];
    start(&h, "60s");
    take_token(&h, token);
    token[5] = token[5] == '0' ? '1' : '0';
    char limit[48];
    snprintf(limit, sizeof limit, "%s;limit", token);
    for (int i = 0; i < 3; i++)
        assert_int_equal(probe(&h, "/limited", limit, NULL), 200);
    assert_int_equal(probe(&h, "/limited", limit, NULL), 429);
    assert_int_equal(get(h.port, "/limited", NULL), 429); /* it was this client that was charged */
    assert_int_equal(backend_calls(backend), 3);
    char *asked = backend_transcript(backend);
    assert_null(strcasestr(asked, "polder-verify"));
    free(asked);
    stop(&h);
}

static void what_is_left_behind_ends_by_itself(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    char token[33], limit[48];
    start(&h, "60s");
    take_token(&h, token);
    snprintf(limit, sizeof limit, "%s;limit", token);
    assert_int_equal(probe(&h, "/limited", limit, NULL), 204);
    assert_int_equal(probe(&h, "/items/1", token, NULL), 200);
    wait_until(stored_probes(&h) == 1, 5000);
    assert_int_equal(ctl(&h, &out, "verify --only rateLimiting"), 1);
    assert_non_null(strstr(out, "another verify is running"));
    pid_t control; /* whoever it was has died, and so does control */
    assert_int_equal(house_children(&h, "polderd: control", &control, 1), 1);
    kill(control, SIGKILL);
    house_advance(&h, 16000);
    wait_until(stored_probes(&h) == 0, 5000);
    assert_int_equal(probe(&h, "/limited", limit, NULL), 200);
    assert_int_equal(ctl(&h, &out, "verify step %s", token), 1);
    assert_int_equal(ctl(&h, &out, "verify --only rateLimiting"), 0);
    stop(&h);
}

static void who_is_interrupted_cleans_up(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    int status;
    start(&h, "60s"); /* heartbeats so rare that the run is still under way when it is noticed */
    assert_int_equal(ctl(&h, NULL, "ws set interval=25s timeout=25s"), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        close(1), close(2);
        execl(built("polderctl"), "polderctl", "-s", h.sock, "verify", "--only",
              "caching,websocket", (char *)NULL);
        _exit(127);
    }
    wait_until(stored_probes(&h) > 0 && stored_probes(&h) < 1000, 5000);
    kill(pid, SIGINT);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_true(house_logged(&h, "verify: ended"));
    wait_until(stored_probes(&h) == 0, 5000);
    assert_int_equal(ctl(&h, &out, "verify --only rateLimiting"), 0);
    stop(&h);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(what_works_scores_100_and_nobody_notices),
        cmocka_unit_test(a_client_gets_its_place_while_somebody_verifies),
        cmocka_unit_test(what_is_switched_off_is_named_and_fails),
        cmocka_unit_test(what_is_misconfigured_is_named_and_fails),
        cmocka_unit_test(what_is_not_configured_is_left_out),
        cmocka_unit_test(a_forged_token_is_an_ordinary_request),
        cmocka_unit_test(what_is_left_behind_ends_by_itself),
        cmocka_unit_test(who_is_interrupted_cleans_up),
    };
    return run_with_backend(stories, &backend, answers);
}
