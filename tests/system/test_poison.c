/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of a cache that others would like to fill with what does not belong there: every answer
 * is stored under what the backend has really been asked. */
#include "harness.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct backend *backend;

#define H_MOST   65536
#define TOGETHER 6
static atomic_uint gathered;

/* Answers nobody before all are there, but the first one. */
static void wait_for_all(void)
{
    const uint64_t end = mono_ms() + harness_patience(5000);
    if (atomic_fetch_add(&gathered, 1) > 0)
        while (atomic_load(&gathered) < 1 + TOGETHER && mono_ms() < end)
            nap_ms(5);
}

static char seen[H_MOST]; /* the last heads, one behind the other */
static pthread_mutex_t seen_lock = PTHREAD_MUTEX_INITIALIZER;

static void note(const char *head)
{
    pthread_mutex_lock(&seen_lock);
    const size_t have = strlen(seen);
    snprintf(have + 4096 < sizeof seen ? seen + have : seen, 4096, "%s", head);
    pthread_mutex_unlock(&seen_lock);
}

static bool answers(struct asked *a)
{
    char lines[512], body[1024];
    const char *t = a->target;
    note(a->m.head);
    if (!strncmp(t, "/range", 6))
        return field_of(&a->m, "Range")
                   ? reply(a, "HTTP/1.1 416 Range Not Satisfiable\r\nCache-Control: max-age=60\r\n"
                              "Content-Length: 0\r\n\r\n")
                   : reply_ok(a, "Cache-Control: max-age=60\r\n", "whole");
    if (!strncmp(t, "/renewed", 8)) {
        static const char always[] =
            "Cache-Control: max-age=0, private=\"X-User\"\r\nETag: \"1\"\r\n";
        if (field_of(&a->m, "If-None-Match"))
            return reply(a,
                         "HTTP/1.1 304 Not Modified\r\n%sX-User: alice\r\n"
                         "X-RateLimit-Remaining: 3\r\nX-Fine: yes\r\n\r\n",
                         always);
        return reply_ok(a, always, "renewed");
    }
    if (!strncmp(t, "/vary-ours", 10)) {
        if (strstr(t, "together"))
            wait_for_all();
        const char *who = field_of(&a->m, "X-Forwarded-For");
        snprintf(body, sizeof body, "you are %s", who ? who : "nobody");
        return reply_ok(a, "Cache-Control: max-age=60\r\nVary: X-Forwarded-For\r\n", body);
    }
    if (!strncmp(t, "/link", 5)) {
        const char *proto = field_of(&a->m, "X-Forwarded-Proto");
        snprintf(lines, sizeof lines, "%s", proto ? proto : "none");
        const char *host = field_of(&a->m, "X-Forwarded-Host");
        snprintf(body, sizeof body, "%.100s://%.100s/", lines, host ? host : "none");
        return reply_ok(a, "Cache-Control: max-age=60\r\n", body);
    }
    if (!strncmp(t, "/port", 5)) {
        const char *port = field_of(&a->m, "X-Forwarded-Port");
        snprintf(body, sizeof body, "%.100s%s", port ? port : "none",
                 strstr(a->m.head, "X_Forwarded") ? " and more" : "");
        return reply_ok(a, "Cache-Control: max-age=60\r\n", body);
    }
    if (!strncmp(t, "/host", 5)) {
        const char *host = field_of(&a->m, "Host");
        snprintf(body, sizeof body, "%.100s", host ? host : "none");
        return reply_ok(a, "Cache-Control: max-age=60\r\n", body);
    }
    if (!strncmp(t, "/endless", 8) || !strncmp(t, "/events", 7)) {
        bool ok =
            reply(a, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n",
                  t[2] == 'v' ? "text/event-stream" : "text/plain");
        for (int i = 0; ok && i < 3000; i++) {
            ok = reply(a, "5\r\ntick\n\r\n");
            nap_ms(10);
        }
        return false;
    }
    if (!strncmp(t, "/big", 4)) {
        static char big[6000000];
        memset(big, 'b', sizeof big);
        return reply(a,
                     "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: %zu\r\n\r\n",
                     sizeof big) &&
               reply_bytes(a, big, sizeof big);
    }
    if (!strncmp(t, "/hints", 6)) {
        bool ok = true;
        for (int i = 0; ok && i < 100000; i++)
            ok = reply(a, "HTTP/1.1 103 Early Hints\r\nLink: </%0900d>\r\n\r\n", i);
        return false;
    }
    if (!strncmp(t, "/selected", 9)) { /* as a gateway of the CGI kind sees it */
        const char *dash = field_of(&a->m, "X-Tenant");
        snprintf(lines, sizeof lines, "%.100s", dash ? dash : "");
        const char *under = field_of(&a->m, "X_Tenant");
        snprintf(body, sizeof body, "%s%.100s", lines, under ? under : "");
        return reply_ok(a, "Cache-Control: max-age=60\r\nVary: X-Tenant\r\n", body);
    }
    if (!strncmp(t, "/both", 5) || !strncmp(t, "/tenant", 7) || !strncmp(t, "/sid", 4)) {
        const char *names[] = {"X-Tenant", "X_Tenant", "Authorization", "Cookie"};
        int n = 0;
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            const char *value = field_of(&a->m, names[i]);
            n += snprintf(body + n, sizeof body - (size_t)n, "[%.100s]", value ? value : "");
        }
        return reply_ok(a, "Cache-Control: max-age=60\r\n", body);
    }
    if (!strncmp(t, "/tags", 5)) {
        int n = snprintf(lines, sizeof lines, "Cache-Tag: ");
        for (int i = 0; i < 40; i++)
            n += snprintf(lines + n, sizeof lines - (size_t)n, "tag%d,", i);
        snprintf(lines + n, sizeof lines - (size_t)n, "last\r\n");
        return reply_ok(a, lines, "tagged");
    }
    snprintf(body, sizeof body, "asked for %.900s", t);
    return reply_ok(a, "Cache-Control: max-age=60\r\n", body);
}

static void start_trusting(struct house *h, const char *proxies)
{
    house_start(
        h, 2,
        "trusted_proxies = {\"%s\"}\ncache { ttl = \"5m\" ignore_query = "
        "{\"utm_*\"} stale_while_revalidate = \"0s\" }\nupstream \"u\" { server "
        "\"127.0.0.1:%u\" { } }\nroute \"/raw/*\" { upstream = \"u\" }\nroute \"/*\" { "
        "upstream = \"u\" cache { } }\n"
        "route \"/both/*\" { upstream = \"u\" cache { partition = "
        "\"header:Authorization+cookie:sid\" } }\n"
        "route \"/tenant/*\" { upstream = \"u\" cache { partition = \"header:X-Tenant\" } }\n"
        "route \"/sid/*\" { upstream = \"u\" cache { partition = \"cookie:sid\" } }\n",
        proxies, backend_port(backend));
    backend_forget(backend);
    pthread_mutex_lock(&seen_lock);
    seen[0] = 0;
    pthread_mutex_unlock(&seen_lock);
}

static void start(struct house *h)
{
    start_trusting(h, "127.0.0.0/8");
}

/* Asks until it is a hit, and returns that answer's body. */
static const char *stored(struct house *h, const char *target, const char *lines)
{
    static char body[1024];
    struct message m;
    bool hit = false;
    wait_until(get_with(h->port, target, lines, &m) == 200 &&
                   (hit = field_of(&m, "Cache-Status") &&
                          strstr(field_of(&m, "Cache-Status"), "polder; hit"),
                    snprintf(body, sizeof body, "%s", m.body), message_free(&m), hit),
               5000);
    return body;
}

static void another_spelling_gets_the_same_question(void **state)
{
    (void)state;
    static const struct {
        const char *spelled, *plain;
    } s[] = {{"/c/x/../a?q=%41", "/c/a?q=%41"},
             {"/c/%62", "/c/b"},
             {"/c/./c", "/c/c"},
             {"/c/empty?", "/c/empty"},
             {"/c/%7Ed%2f", "/c/~d%2F"}};
    struct house h;
    struct message m;
    char want[256];
    start(&h);
    for (size_t i = 0; i < sizeof s / sizeof *s; i++) {
        snprintf(want, sizeof want, "asked for %s", s[i].plain);
        assert_int_equal(get(h.port, s[i].spelled, &m), 200);
        assert_string_equal(m.body, want);
        message_free(&m);
        assert_string_equal(stored(&h, s[i].plain, ""), want);
    }
    /* where nothing is stored, the client's bytes are nobody's business */
    assert_int_equal(get(h.port, "/raw/x/../%62", &m), 200);
    assert_string_equal(m.body, "asked for /raw/x/../%62");
    message_free(&m);
    house_remove(&h);
}

/* A path that some backends take for one of another route gets the rules of neither. */
static void a_path_of_two_routes_is_refused(void **state)
{
    (void)state;
    static const char *const two[] = {"/raw/..%2fc/x.css", "/raw/%2e%2e%2fc/y",
                                      "/tenant/..%2fraw/y", "/c/x%2f..%2f..%2f..%2fraw/z"};
    struct house h;
    struct message m;
    start(&h);
    for (size_t i = 0; i < sizeof two / sizeof *two; i++) {
        assert_int_equal(get(h.port, two[i], &m), 400);
        assert_non_null(strstr(m.body, "two ways"));
        message_free(&m);
    }
    assert_int_equal(backend_calls(backend), 0);
    assert_int_equal(get(h.port, "/raw/group%2Fproject", &m), 200);
    assert_string_equal(m.body, "asked for /raw/group%2Fproject");
    message_free(&m);
    /* dot segments that lead out of a route are resolved before a backend sees them */
    assert_int_equal(get(h.port, "/c/../raw/%62?q=%62", &m), 200);
    assert_string_equal(m.body, "asked for /raw/b?q=%62");
    message_free(&m);
    house_remove(&h);
}

static bool backend_saw(const char *text)
{
    pthread_mutex_lock(&seen_lock);
    const bool found = strcasestr(seen, text) != NULL;
    pthread_mutex_unlock(&seen_lock);
    return found;
}

/* What lets a client say another URL, method, host or address than its request does. */
static void overrides_come_from_trusted_proxies_alone(void **state)
{
    (void)state;
    static const char lines[] = "X-Original-URL: /ov1\r\nX_HTTP_Method_Override: OV2\r\n"
                                "X-Host: ov3\r\nX-Real-IP: 198.51.100.44\r\nProxy: ov5\r\n";
    static const char *const replacing[] = {"/ov1", "OV2", "ov3"}, *const telling[] = {
                                                                       "198.51.100.44", "ov5"};
    struct house h;
    start_trusting(&h, "10.0.0.0/8");
    assert_int_equal(get_with(h.port, "/raw/a", lines, NULL), 200);
    assert_int_equal(get_with(h.port, "/c/a", lines, NULL), 200);
    assert_int_equal(request(h.port, "POST", "/c/a", lines, "x", NULL), 200);
    for (size_t i = 0; i < 3; i++)
        assert_false(backend_saw(replacing[i]));
    for (size_t i = 0; i < 2; i++)
        assert_false(backend_saw(telling[i]));
    house_remove(&h);
    start(&h);
    assert_int_equal(get_with(h.port, "/c/a", lines, NULL), 200);
    for (size_t i = 0; i < 3; i++) /* what is stored is never fetched with one */
        assert_false(backend_saw(replacing[i]));
    for (size_t i = 0; i < 2; i++)
        assert_true(backend_saw(telling[i]));
    assert_int_equal(get_with(h.port, "/raw/a", lines, NULL), 200);
    for (size_t i = 0; i < 3; i++)
        assert_true(backend_saw(replacing[i]));
    house_remove(&h);
}

/* Most backends know X-Forwarded-* alone. */
static void forwarded_of_a_trusted_proxy_reaches_the_backend(void **state)
{
    (void)state;
    static const char line[] =
        "Forwarded: for=6.6.6.6;proto=http, for=192.0.2.60;proto=https;host=\"shop.example\"\r\n";
    struct house h;
    start(&h);
    assert_int_equal(get_with(h.port, "/raw/a", line, NULL), 200);
    assert_true(backend_saw("X-Forwarded-For: 6.6.6.6, 192.0.2.60, 127.0.0.1\r\n"));
    assert_true(backend_saw("X-Forwarded-Proto: https\r\n"));
    assert_true(backend_saw("X-Forwarded-Host: shop.example\r\n"));
    assert_true(backend_saw("host=\"shop.example\", for=127.0.0.1\r\n"));
    house_remove(&h);
    start_trusting(&h, "10.0.0.0/8");
    assert_int_equal(get_with(h.port, "/raw/a", line, NULL), 200);
    assert_false(backend_saw("192.0.2.60"));
    assert_true(backend_saw("X-Forwarded-Proto: http\r\n"));
    house_remove(&h);
}

static void another_spelling_of_the_host_is_none_to_the_backend(void **state)
{
    (void)state;
    static const char *const spelled[] = {"Test.EXAMPLE:80", "test.example:80", "TEST.example"};
    struct house h;
    struct message m;
    char target[32];
    start(&h);
    for (size_t i = 0; i < sizeof spelled / sizeof *spelled; i++) {
        snprintf(target, sizeof target, "/host/%zu", i);
        int fd = client_connect(h.port);
        client_send(fd, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, spelled[i]);
        client_read(fd, &m, false);
        message_free(&m);
        close(fd);
        assert_string_equal(stored(&h, target, ""), "test.example");
    }
    house_remove(&h);
}

static void an_ignored_parameter_hides_no_other(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h);
    assert_string_equal(stored(&h, "/q?utm_x=1", ""), "asked for /q?utm_x=1");
    assert_string_equal(stored(&h, "/q?utm_y=2", ""), "asked for /q?utm_x=1");
    assert_int_equal(get(h.port, "/q?utm_x=1;id=2", &m), 200);
    assert_string_equal(m.body, "asked for /q?utm_x=1;id=2");
    message_free(&m);
    house_remove(&h);
}

static void an_answer_to_one_range_is_not_everybodys(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h);
    assert_int_equal(get_with(h.port, "/range", "Range: bytes=100-\r\n", &m), 416);
    message_free(&m);
    assert_string_equal(stored(&h, "/range", ""), "whole");
    house_remove(&h);
}

static void a_304_brings_nothing_private(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h);
    assert_int_equal(get(h.port, "/renewed", NULL), 200);
    bool renewed = false;
    wait_until(get(h.port, "/renewed", &m) == 200 &&
                   (renewed = field_of(&m, "X-Fine") != NULL, renewed || (message_free(&m), false)),
               5000);
    assert_null(field_of(&m, "X-User"));
    assert_null(field_of(&m, "X-RateLimit-Remaining"));
    message_free(&m);
    house_remove(&h);
}

static void what_varies_by_what_polder_says_is_not_stored(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h);
    for (int i = 0; i < 5; i++) {
        char lines[64], want[64];
        snprintf(lines, sizeof lines, "X-Forwarded-For: 198.51.100.%d\r\n", i);
        snprintf(want, sizeof want, "you are 198.51.100.%d, 127.0.0.1", i);
        assert_int_equal(get_with(h.port, "/vary-ours", lines, &m), 200);
        assert_string_equal(m.body, want);
        message_free(&m);
    }
    house_remove(&h);
}

static void schemes_and_hosts_that_a_proxy_tells_are_kept_apart(void **state)
{
    (void)state;
    static const struct {
        const char *lines, *body;
    } s[] = {{"X-Forwarded-Proto: http\r\n", "http://test.example/"},
             {"X-Forwarded-Proto: https\r\n", "https://test.example/"},
             {"X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\n", "https://evil.test/"},
             {"X-Forwarded-Host: other.test\r\n", "http://other.test/"}};
    struct house h;
    struct message m;
    const char *out;
    start(&h);
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < sizeof s / sizeof *s; i++) {
            assert_int_equal(get_with(h.port, "/link", s[i].lines, &m), 200);
            assert_memory_equal(m.body, s[i].body, strlen(s[i].body) - 1);
            message_free(&m);
            if (round)
                assert_memory_equal(stored(&h, "/link", s[i].lines), s[i].body,
                                    strlen(s[i].body) - 1);
        }
    /* one invalidation of the URL is for all of them */
    assert_int_equal(ctl(&h, &out, "cache invalidate /link"), 0);
    const unsigned before = backend_calls(backend);
    for (size_t i = 0; i < sizeof s / sizeof *s; i++)
        assert_int_equal(get_with(h.port, "/link", s[i].lines, NULL), 200);
    assert_int_equal(backend_calls(backend), before + sizeof s / sizeof *s);
    /* Forwarded says the same in other words */
    assert_int_equal(get_with(h.port, "/fwd", "Forwarded: for=192.0.2.1;proto=https\r\n", &m), 200);
    message_free(&m);
    stored(&h, "/fwd", "Forwarded: for=192.0.2.1;proto=https\r\n");
    stored(&h, "/fwd", "Forwarded: for=192.0.2.2;proto=https\r\n");
    assert_int_equal(get_with(h.port, "/fwd", "Forwarded: for=192.0.2.1;proto=http\r\n", &m), 200);
    assert_non_null(strstr(field_of(&m, "Cache-Status"), "fwd="));
    message_free(&m);
    /* where a quote does not end, a backend may read on behind it */
    stored(&h, "/fwd/quote", "Forwarded: for=192.0.2.1\r\n");
    assert_int_equal(
        get_with(h.port, "/fwd/quote", "Forwarded: for=\"x;host=evil.test, for=192.0.2.1\r\n", &m),
        200);
    assert_non_null(strstr(field_of(&m, "Cache-Status"), "fwd="));
    message_free(&m);
    house_remove(&h);
}

/* All that the fields of this family say of the URL is for proxies to say. */
static void nobody_else_tells_the_backend_its_port(void **state)
{
    (void)state;
    static const char lie[] = "X-Forwarded-Port: 1\r\nX_Forwarded_Prefix: /x\r\n";
    struct house h;
    struct message m;
    start_trusting(&h, "192.0.2.1");
    assert_int_equal(get_with(h.port, "/port", lie, &m), 200);
    assert_string_equal(m.body, "none");
    message_free(&m);
    house_remove(&h);
    /* a proxy is believed, and what it has said is a copy of its own, if it is not the usual */
    start(&h);
    assert_string_equal(stored(&h, "/port", "X-Forwarded-Port: 8443\r\n"), "8443");
    assert_string_equal(stored(&h, "/port", ""), "none");
    assert_string_equal(stored(&h, "/port", "X-Forwarded-Port: 80\r\n"), "none");
    house_remove(&h);
}

/* Of two lines a backend takes the first or the last, and of two fields that contradict each other
 * the one that it knows; and proxies pass on what they do not set themselves. */
static void what_a_proxy_passes_on_beside_its_own_makes_no_copy_for_others(void **state)
{
    (void)state;
    static const char https[] = "X-Forwarded-Proto: https\r\n";
    static const struct {
        const char *own, *passed;
    } s[] = {{"", "X-Forwarded-Port: 443\r\n"},
             {"", "X-Forwarded-Scheme: https\r\n"},
             {https, "X-Forwarded-Port: 80\r\n"},
             {https, "X-Forwarded-Scheme: http\r\n"},
             {https, "X-Forwarded-Ssl: off\r\n"},
             {https, "X-Forwarded-Proto: http\r\n"},
             {"X-Forwarded-Host: shop.example\r\n", "X-Forwarded-Host: test.example\r\n"},
             {"X-Forwarded-Port: 8443\r\n", "X-Forwarded-Port: 80\r\n"},
             {"X-Forwarded-Prefix: /shop\r\n", "X-Forwarded-Prefix: /\r\n"}};
    struct house h;
    struct message m;
    char lines[160], target[32];
    start(&h);
    for (size_t i = 0; i < sizeof s / sizeof *s; i++) {
        snprintf(target, sizeof target, "/port/both/%zu", i);
        snprintf(lines, sizeof lines, "%s%s", s[i].passed, s[i].own);
        stored(&h, target, lines);
        assert_int_equal(get_with(h.port, target, s[i].own, &m), 200);
        if (strstr(field_of(&m, "Cache-Status"), "hit"))
            fail_msg("%s was given what had come for %s", s[i].own, lines);
        message_free(&m);
    }
    /* what says the same once more is no other copy */
    stored(&h, "/port/same", https);
    for (size_t i = 0; i < 2; i++) {
        snprintf(lines, sizeof lines, "%s%s", https,
                 i ? "X-Forwarded-Port: 443\r\n"
                   : "X-Forwarded-Ssl: on\r\nX-Forwarded-Scheme: https\r\n");
        assert_int_equal(get_with(h.port, "/port/same", lines, &m), 200);
        assert_non_null(strstr(field_of(&m, "Cache-Status"), "polder; hit"));
        message_free(&m);
    }
    house_remove(&h);
}

/* One fills the store as he likes, then another one asks: his answer is the one that is meant for
 * him. */
static void a_copy_of_one_identity_is_no_others(void **state)
{
    (void)state;
    static const struct {
        const char *target, *first, *then, *answer;
    } s[] = {
        /* a part of the partition is missing: the others still count */
        {"/both/1", "Authorization: a\r\n", "Authorization: b\r\n", "[][][b][]"},
        {"/both/2", "Authorization: a\r\n", "", "[][][][]"},
        {"/both/3", "Cookie: sid=a\r\n", "Cookie: sid=b\r\n", "[][][][sid=b]"},
        {"/both/4", "Cookie: sid=a\r\n", "Authorization: a\r\n", "[][][a][]"},
        /* the backend does not see it, or not all backends do */
        {"/tenant/1", "X-Tenant: v\r\nConnection: X-Tenant\r\n", "X-Tenant: v\r\n", "[v][][][]"},
        {"/tenant/2", "X_Tenant: m\r\n", "", "[][][][]"},
        {"/tenant/3", "X-Tenant: v\r\nX_Tenant: m\r\n", "X-Tenant: v\r\n", "[v][][][]"},
        {"/selected/1", "X_Tenant: m\r\n", "", ""},
        {"/selected/2", "X_Tenant: m\r\n", "X-Tenant: m\r\n", "m"},
        {"/selected/3", "X-Tenant: v\r\nX_Tenant: m\r\n", "X-Tenant: v\r\n", "v"},
        {"/sid/1", "Cookie: sid =m\r\n", "", "[][][][]"},
        {"/sid/2", "Cookie: sid=v; sid\xa0=m\r\n", "Cookie: sid=v\r\n", "[][][][sid=v]"},
        {"/sid/3", "Cookie: \xa0sid=m\r\n", "", "[][][][]"},
    };
    struct house h;
    struct message m;
    start(&h);
    for (size_t i = 0; i < sizeof s / sizeof *s; i++) {
        for (int times = 0; times < 3; times++) {
            assert_int_equal(get_with(h.port, s[i].target, s[i].first, &m), 200);
            message_free(&m);
        }
        assert_string_equal(stored(&h, s[i].target, s[i].then), s[i].answer);
    }
    house_remove(&h);
}

/* ---- leaders that keep others waiting ---- */

/* Connections to a port, from /proc. */
static unsigned established(unsigned port)
{
    char line[512], want[16];
    unsigned n = 0;
    FILE *f = fopen("/proc/net/tcp", "r");
    assert_non_null(f);
    snprintf(want, sizeof want, ":%04X 01 ", port);
    while (fgets(line, sizeof line, f))
        n += strstr(line, want) != NULL;
    fclose(f);
    return n;
}

/* The first bytes of an answer, and how long they took. */
static uint64_t first_bytes(struct house *h, const char *target, int *fd)
{
    char byte[512];
    const uint64_t start_ms = mono_ms();
    *fd = client_connect(h->port);
    client_send(*fd, "GET %s HTTP/1.1\r\nHost: test.example\r\n\r\n", target);
    assert_true(recv(*fd, byte, sizeof byte, 0) > 0);
    return mono_ms() - start_ms;
}

static void nobody_waits_for_who_reads_slowly(void **state)
{
    (void)state;
    struct house h;
    int slow, quick;
    start(&h);
    first_bytes(&h, "/big", &slow); /* and reads no more */
    assert_true(first_bytes(&h, "/big", &quick) < harness_patience(4000));
    assert_int_equal(stored(&h, "/big", "")[0], 'b'); /* the quick one's copy */
    close(slow);
    close(quick);
    house_remove(&h);
}

static void what_cannot_be_stored_is_not_waited_for(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    int fd[TOGETHER];
    start(&h);
    assert_int_equal(get(h.port, "/vary-ours/together", NULL), 200);
    for (int i = 0; i < TOGETHER; i++) {
        fd[i] = client_connect(h.port);
        client_send(fd[i], "GET /vary-ours/together HTTP/1.1\r\nHost: test.example\r\n\r\n");
    }
    wait_until(atomic_load(&gathered) == 1 + TOGETHER, 4000);
    for (int i = 0; i < TOGETHER; i++) {
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 200);
        message_free(&m);
        close(fd[i]);
    }
    house_remove(&h);
}

static void streams_are_not_waited_for_nor_read_for_nobody(void **state)
{
    (void)state;
    struct house h;
    int a, b, c;
    start(&h);
    first_bytes(&h, "/events", &a);
    assert_true(first_bytes(&h, "/events", &b) < harness_patience(2000));
    first_bytes(&h, "/endless", &c);
    int d;
    assert_true(first_bytes(&h, "/endless", &d) < harness_patience(8000));
    close(a);
    close(b);
    close(c);
    close(d);
    /* the backend's connections end: nobody reads on */
    wait_until(established(backend_port(backend)) == 0, 20000);
    house_remove(&h);
}

static void floods_of_hints_end(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h);
    int fd = client_connect(h.port);
    client_send(fd, "GET /hints HTTP/1.1\r\nHost: test.example\r\n\r\n");
    do {
        client_read(fd, &m, false);
        const int status = m.status;
        message_free(&m);
        if (status != 103) {
            assert_int_equal(status, 502);
            break;
        }
    } while (true);
    close(fd);
    house_remove(&h);
}

static void why_an_answer_is_not_stored_is_said(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h);
    assert_int_equal(get(h.port, "/tags", &m), 200);
    assert_non_null(
        strstr(field_of(&m, "Cache-Status"), "detail=\"response has more than 32 tags\""));
    message_free(&m);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_spelling_gets_the_same_question),
        cmocka_unit_test(a_path_of_two_routes_is_refused),
        cmocka_unit_test(overrides_come_from_trusted_proxies_alone),
        cmocka_unit_test(forwarded_of_a_trusted_proxy_reaches_the_backend),
        cmocka_unit_test(another_spelling_of_the_host_is_none_to_the_backend),
        cmocka_unit_test(an_ignored_parameter_hides_no_other),
        cmocka_unit_test(an_answer_to_one_range_is_not_everybodys),
        cmocka_unit_test(a_304_brings_nothing_private),
        cmocka_unit_test(what_varies_by_what_polder_says_is_not_stored),
        cmocka_unit_test(schemes_and_hosts_that_a_proxy_tells_are_kept_apart),
        cmocka_unit_test(nobody_else_tells_the_backend_its_port),
        cmocka_unit_test(what_a_proxy_passes_on_beside_its_own_makes_no_copy_for_others),
        cmocka_unit_test(a_copy_of_one_identity_is_no_others),
        cmocka_unit_test(nobody_waits_for_who_reads_slowly),
        cmocka_unit_test(what_cannot_be_stored_is_not_waited_for),
        cmocka_unit_test(streams_are_not_waited_for_nor_read_for_nobody),
        cmocka_unit_test(floods_of_hints_end),
        cmocka_unit_test(why_an_answer_is_not_stored_is_said),
    };
    return run_with_backend(tests, &backend, answers);
}
