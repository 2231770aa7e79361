/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of content codings: stored once in each, for those who take it, and never mixed up. */
#include "coded.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static struct backend *backend;
static atomic_uint version;

/* A text of that many bytes that says its version in each line. */
static char *document(size_t size, unsigned v)
{
    char *s = malloc(size + 64);
    size_t n = 0;
    for (unsigned i = 0; n < size; i++)
        n += (size_t)sprintf(s + n, "{\"version\": %u, \"line\": %u}\n", v, i);
    s[size] = 0;
    return s;
}

static bool send_document(struct asked *a, const char *lines, size_t size)
{
    char *s = document(size, atomic_load(&version));
    const bool ok = reply(a,
                          "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n%sContent-Length: "
                          "%zu\r\n\r\n",
                          lines, size) &&
                    reply_bytes(a, s, size);
    free(s);
    return ok;
}

#define LAST "Last-Modified: Wed, 04 Mar 2026 10:00:00 GMT\r\n"

static bool answers(struct asked *a)
{
    static const struct {
        const char *path, *lines;
    } kinds[] = {
        {"/json", "Content-Type: application/json\r\nETag: \"v1\"\r\n"},
        {"/vary", "Content-Type: text/html\r\nVary: X-Tenant\r\nVary: accept-encoding, Accept\r\n"},
        {"/tenant", "Content-Type: text/html\r\nVary: X-Tenant\r\n"},
        {"/png", "Content-Type: image/png\r\n"},
        {"/typeless", ""},
        {"/coded", "Content-Type: text/plain\r\nContent-Encoding: gzip\r\n"},
        {"/fixed", "Content-Type: text/plain\r\nCache-Control: no-transform\r\n"},
        {"/digest", "Content-Type: text/plain\r\nContent-Digest: sha-256=:AAAA:\r\n"},
        {"/dated", "Content-Type: text/plain\r\n" LAST},
        {"/weak", "Content-Type: text/plain\r\nETag: W/\"w1\"\r\n"},
        {"/plain", "Content-Type: text/plain\r\n"},
    };
    size_t size = 4000;
    const char *last = strrchr(a->target, '/');
    if (last != a->target)
        size = strtoul(last + 1, NULL, 10);
    if (!strcmp(a->method, "PUT")) {
        const char *condition = field_of(&a->m, "If-Match");
        return reply(a, "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n",
                     condition && !strcmp(condition, "\"v1\"") ? "204 No Content"
                                                               : "412 Precondition Failed");
    }
    if (!strncmp(a->target, "/noise", 6)) {
        unsigned char noise[4000];
        uint32_t x = 1;
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = (unsigned char)((x = x * 1664525u + 1013904223u) >> 24);
        return reply(a, "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Type: "
                        "text/plain\r\nContent-Length: 4000\r\n\r\n") &&
               reply_bytes(a, noise, sizeof noise);
    }
    if (!strncmp(a->target, "/stale", 6)) {
        const char *inm = field_of(&a->m, "If-None-Match");
        const char *lines = "Cache-Control: max-age=0\r\nETag: \"s\"\r\n";
        if (inm && !strcmp(inm, "\"s\""))
            return reply(a,
                         "HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=600\r\nETag: "
                         "\"s\"\r\n%s\r\n",
                         strstr(a->target, "vouched") ? "Repr-Digest: sha-256=:AAAA:\r\n" : "");
        char *s = document(size, 1);
        const bool ok = reply_ok(a, lines, s);
        free(s);
        return ok;
    }
    if (!strncmp(a->target, "/always", 7)) {
        if (field_of(&a->m, "If-None-Match"))
            return reply(a, "HTTP/1.1 304 Not Modified\r\nCache-Control: no-cache\r\nETag: "
                            "\"a\"\r\n\r\n");
        char *s = document(size, 1);
        const bool ok = reply_ok(a, "Cache-Control: no-cache\r\nETag: \"a\"\r\n", s);
        free(s);
        return ok;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strncmp(a->target, kinds[i].path, strlen(kinds[i].path)))
            return send_document(a, kinds[i].lines, size);
    return reply_ok(a, "", "?");
}

static void start(struct house *h, unsigned workers, const char *cache)
{
    house_start(h, workers,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { %s } }\n",
                backend_port(backend), cache);
    atomic_store(&version, 1);
    /* the store may come a moment after the port */
    wait_until(get(h->port, "/plain/1", NULL) == 200 && served_from_store(h->port, "/plain/1"),
               5000);
    backend_forget(backend);
}

static void ask(struct house *h, const char *target, const char *accept, struct message *m)
{
    char lines[256];
    snprintf(lines, sizeof lines, "Accept-Encoding: %s\r\n", accept);
    assert_int_equal(get_with(h->port, target, lines, m), 200);
    assert_true(m->complete);
}

/* Is it answered in that coding from the store now? */
static bool is_coded(struct house *h, const char *target, const char *accept, const char *coding)
{
    struct message m;
    ask(h, target, accept, &m);
    const char *cache = field_of(&m, "Cache-Status");
    const bool fetched = cache && strstr(cache, "fwd-status=200"); /* field_of() lends */
    const bool yes = !strcmp(coding_of(&m), coding) && (!fetched || !strcmp(coding, "identity"));
    message_free(&m);
    return yes;
}

static void expect_document(const struct message *m, size_t size, unsigned v)
{
    char *s = document(size, v);
    assert_string_equal(plain_of(m), s);
    free(s);
}

/* ---- stories ---- */

static void each_coding_is_stored_once_for_all_workers(void **state)
{
    (void)state;
    static const char *const codings[] = {"br", "zstd", "gzip"};
    static const size_t sizes[] = {1024, 4000, 40000, 700000, 3000000};
    struct house h;
    struct message m;
    char target[64];
    start(&h, 2, "");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        snprintf(target, sizeof target, "/json/%zu", sizes[i]);
        for (size_t k = 0; k < 3; k++) {
            wait_until(is_coded(&h, target, codings[k], codings[k]), 5000);
            ask(&h, target, codings[k], &m);
            assert_true(m.body_len < sizes[i] / 2);
            expect_document(&m, sizes[i], 1);
            message_free(&m);
        }
        assert_int_equal(get(h.port, target, &m), 200);
        assert_string_equal(coding_of(&m), "identity");
        expect_document(&m, sizes[i], 1);
        message_free(&m);
    }
    assert_int_equal(backend_calls(backend), 5);
    const char *out;
    assert_int_equal(ctl(&h, &out, "--json cache stats"), 0);
    assert_non_null(strstr(out, "\"items\": 6,")); /* copies are no items of their own */
    assert_int_equal(ctl(&h, &out, "cache show /json/4000"), 0);
    assert_non_null(strstr(out, "content-coding: br"));
    house_remove(&h);
}

static void validators_of_coded_answers_are_weak_and_still_work(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 1, "");
    wait_until(is_coded(&h, "/json", "gzip", "gzip"), 5000);
    ask(&h, "/json", "gzip", &m);
    assert_string_equal(field_of(&m, "ETag"), "W/\"v1~polder\"");
    assert_string_equal(field_of(&m, "Vary"), "Accept-Encoding");
    message_free(&m);
    ask(&h, "/json", "identity", &m);
    assert_string_equal(field_of(&m, "ETag"), "\"v1\"");
    assert_string_equal(field_of(&m, "Vary"), "Accept-Encoding");
    message_free(&m);
    static const char *const known[] = {"W/\"v1~polder\"", "W/\"v1\"", "\"v1\"",
                                        "\"x\", W/\"v1~polder\"", "*"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char lines[128];
        snprintf(lines, sizeof lines, "Accept-Encoding: gzip\r\nIf-None-Match: %s\r\n", known[i]);
        assert_int_equal(get_with(h.port, "/json", lines, &m), 304);
        assert_string_equal(field_of(&m, "ETag"), "W/\"v1~polder\"");
        assert_string_equal(field_of(&m, "Vary"), "Accept-Encoding");
        assert_null(field_of(&m, "Content-Encoding"));
        message_free(&m);
    }
    /* a tag of Polder's own, and one that is weak already */
    wait_until(is_coded(&h, "/plain", "gzip", "gzip"), 5000);
    ask(&h, "/plain", "gzip", &m);
    assert_int_equal(strncmp(field_of(&m, "ETag"), "W/\"p-", 5), 0);
    message_free(&m);
    wait_until(is_coded(&h, "/weak", "gzip", "gzip"), 5000);
    ask(&h, "/weak", "gzip", &m);
    assert_string_equal(field_of(&m, "ETag"), "W/\"w1\"");
    message_free(&m);
    /* who changes what it got in a coding names the strong tag to the backend */
    assert_int_equal(request(h.port, "PUT", "/json", "If-Match: W/\"v1~polder\"\r\n", "x", NULL),
                     204);
    /* and a weak tag that is the backend's own stays what it is */
    assert_int_equal(request(h.port, "PUT", "/json", "If-Match: W/\"v1\"\r\n", "x", NULL), 412);
    house_remove(&h);
}

static void what_gains_nothing_is_only_kept_plain(void **state)
{
    (void)state;
    static const char *const targets[] = {"/png/9000",   "/typeless/9000", "/coded/9000",
                                          "/fixed/9000", "/digest/9000",   "/json/1023"};
    struct house h;
    struct message m;
    const char *out;
    start(&h, 1, "");
    for (unsigned round = 0; round < 3; round++)
        for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
            ask(&h, targets[i], "br, gzip", &m);
            assert_null(field_of(&m, "Vary"));
            if (strncmp(targets[i], "/coded", 6) != 0)
                assert_null(field_of(&m, "Content-Encoding"));
            message_free(&m);
        }
    /* One that does shrink comes after them: when it is there, their turn is long over. */
    wait_until(is_coded(&h, "/json/5000", "br", "br"), 5000);
    assert_int_equal(ctl(&h, &out, "--json cache list"), 0);
    assert_null(strstr(out, "content-coding: gzip"));
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        if (strncmp(targets[i], "/coded", 6) != 0)
            assert_true(is_coded(&h, targets[i], "br, gzip", "identity"));
    house_remove(&h);
}

static void vary_is_one_line_and_variants_stay_apart(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 1, "");
    ask(&h, "/vary/5000", "gzip", &m);
    assert_string_equal(field_of(&m, "Vary"), "X-Tenant, accept-encoding, Accept");
    message_free(&m);
    wait_until(is_coded(&h, "/vary/5000", "gzip", "gzip"), 5000);
    assert_true(is_coded(&h, "/vary/5000", "identity", "identity")); /* the same stored one */
    assert_int_equal(backend_calls(backend), 1);
    ask(&h, "/tenant/5000", "br", &m);
    assert_string_equal(field_of(&m, "Vary"), "X-Tenant, Accept-Encoding");
    message_free(&m);
    atomic_store(&version, 2);
    assert_int_equal(get_with(h.port, "/tenant/5000", "Accept-Encoding: br\r\nX-Tenant: b\r\n", &m),
                     200);
    expect_document(&m, 5000, 2);
    message_free(&m);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(
            get_with(h.port, "/tenant/5000", "Accept-Encoding: br\r\nX-Tenant: b\r\n", &m), 200);
        expect_document(&m, 5000, 2);
        message_free(&m);
        ask(&h, "/tenant/5000", "br", &m);
        expect_document(&m, 5000, 1);
        message_free(&m);
    }
    house_remove(&h);
}

static void ranges_and_heads_are_of_what_they_say(void **state)
{
    (void)state;
    struct house h;
    struct message m, whole;
    start(&h, 1, "");
    wait_until(is_coded(&h, "/json/90000", "br", "br"), 5000);
    assert_int_equal(
        get_with(h.port, "/json/90000", "Accept-Encoding: br\r\nRange: bytes=10-19\r\n", &m), 206);
    assert_null(field_of(&m, "Content-Encoding"));
    assert_string_equal(field_of(&m, "Content-Range"), "bytes 10-19/90000");
    assert_string_equal(field_of(&m, "ETag"), "\"v1\"");
    char *s = document(90000, 1);
    assert_memory_equal(m.body, s + 10, 10);
    free(s);
    message_free(&m);
    ask(&h, "/json/90000", "br", &whole);
    const int fd = client_connect(h.port);
    client_send(fd,
                "HEAD /json/90000 HTTP/1.1\r\nHost: test.example\r\nAccept-Encoding: br\r\n\r\n");
    client_read(fd, &m, true);
    assert_string_equal(field_of(&m, "Content-Encoding"), "br");
    assert_int_equal(strtoul(field_of(&m, "Content-Length"), NULL, 10), whole.body_len);
    message_free(&m);
    message_free(&whole);
    /* who wants the very bytes gets them */
    assert_int_equal(get_with(h.port, "/json/90000",
                              "Accept-Encoding: br\r\nCache-Control: no-transform\r\n", &m),
                     200);
    assert_null(field_of(&m, "Content-Encoding"));
    assert_string_equal(field_of(&m, "ETag"), "\"v1\"");
    message_free(&m);
    /* two of the same date have other bytes: it guards no range */
    wait_until(is_coded(&h, "/dated/90000", "br", "br"), 5000);
    assert_int_equal(get_with(h.port, "/dated/90000",
                              "Accept-Encoding: br\r\nRange: bytes=10-19\r\n"
                              "If-Range: Wed, 04 Mar 2026 10:00:00 GMT\r\n",
                              &m),
                     200);
    assert_int_equal(m.body_len, 90000);
    message_free(&m);
    house_remove(&h);
}

static void no_copy_outlives_what_it_is_a_copy_of(void **state)
{
    (void)state;
    static const size_t sizes[] = {4000, 200000};
    struct house h;
    struct message m;
    const char *out;
    char target[64];
    start(&h, 2, "");
    for (size_t i = 0; i < 2; i++) {
        snprintf(target, sizeof target, "/json/%zu", sizes[i]);
        for (unsigned v = 1; v < 30; v++) {
            atomic_store(&version, v);
            assert_int_equal(ctl(&h, &out, "cache invalidate %s", target), 0);
            for (unsigned k = 0; k < 5; k++) {
                ask(&h, target, k % 2 ? "gzip" : "br", &m);
                expect_document(&m, sizes[i], v);
                message_free(&m);
            }
        }
        wait_until(is_coded(&h, target, "br", "br"), 5000);
        ask(&h, target, "br", &m);
        expect_document(&m, sizes[i], 29);
        message_free(&m);
    }
    house_remove(&h);
}

static void copies_stay_when_a_304_renews_the_response(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 1, "stale_while_revalidate = \"0s\"");
    assert_int_equal(get(h.port, "/stale/5000", NULL), 200);
    wait_until(is_coded(&h, "/stale/5000", "br", "br"), 5000);
    ask(&h, "/stale/5000", "br", &m);
    assert_string_equal(field_of(&m, "Vary"), "Accept-Encoding");
    expect_document(&m, 5000, 1);
    message_free(&m);
    /* but where that vouches for the very bytes, these are what everybody gets */
    assert_int_equal(get(h.port, "/stale/vouched/5000", NULL), 200);
    wait_until(served_from_store(h.port, "/stale/vouched/5000"), 5000);
    for (int i = 0; i < 20; i++)
        assert_true(is_coded(&h, "/stale/vouched/5000", "br", "identity"));
    house_remove(&h);
}

static void what_is_validated_each_time_is_coded_too(void **state)
{
    (void)state;
    static const size_t sizes[] = {5000, 300000};
    struct house h;
    struct message m;
    char target[64];
    start(&h, 1, "");
    for (size_t i = 0; i < 2; i++) {
        snprintf(target, sizeof target, "/always/%zu", sizes[i]);
        wait_until(is_coded(&h, target, "gzip", "gzip"), 5000);
        backend_forget(backend);
        for (unsigned k = 0; k < 5; k++) {
            ask(&h, target, "gzip", &m);
            assert_string_equal(coding_of(&m), "gzip");
            assert_non_null(strstr(field_of(&m, "Cache-Status"), "fwd-status=304"));
            expect_document(&m, sizes[i], 1);
            message_free(&m);
        }
        assert_int_equal(backend_calls(backend), 5);
    }
    house_remove(&h);
}

/* What `cache why` says of a copy of the target; "" where it does not name it. */
static const char *copy_in(struct house *h, const char *target, const char *coding)
{
    static char said[64];
    const char *out;
    char wanted[64];
    assert_int_equal(ctl(h, &out, "cache why http://test.example%s", target), 0);
    snprintf(wanted, sizeof wanted, "\n%s ", coding);
    const char *at = strstr(out, wanted);
    snprintf(said, sizeof said, "%s", at ? at + 1 + strlen(coding) : "");
    said[strcspn(said, "\n")] = 0;
    return said + strspn(said, " ");
}

static void expect_next(struct house *h, const char *target, const char *accept, const char *wanted)
{
    const char *out;
    char line[80];
    struct message m;
    assert_int_equal(
        ctl(h, &out, "cache why http://test.example%s --accept-encoding '%s'", target, accept), 0);
    const char *at = strstr(out, "\nnext coding ");
    snprintf(line, sizeof line, "%s", at ? at + 13 : " nothing");
    line[strcspn(line, "\n")] = 0;
    const char *said = line + strspn(line, " ");
    if (strcmp(said, wanted))
        fail_msg("%s for \"%s\": why says \"%s\", wanted \"%s\"", target, accept, said, wanted);
    ask(h, target, accept, &m);
    const char *coding = coding_of(&m);
    if (strncmp(coding, said, strlen(coding)))
        fail_msg("%s for \"%s\": why says \"%s\", the answer is %s", target, accept, said, coding);
    message_free(&m);
}

static void cache_why_tells_which_copies_there_are_and_who_gets_them(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, 2, "compress = {\"br\", \"gzip\"}");
    wait_until((get(h.port, "/json/5000", NULL), served_from_store(h.port, "/json/5000")), 5000);
    assert_int_equal(strncmp(copy_in(&h, "/json/5000", "br"), "not made", 8), 0);
    assert_int_equal(strncmp(copy_in(&h, "/json/5000", "gzip"), "not made", 8), 0);
    assert_string_equal(copy_in(&h, "/json/5000", "zstd"), "");
    expect_next(&h, "/json/5000", "gzip, br;q=0.5",
                "gzip, made for it, and a copy is made behind it");
    wait_until(!strncmp(copy_in(&h, "/json/5000", "gzip"), "there ", 6), 5000);
    assert_int_equal(strncmp(copy_in(&h, "/json/5000", "br"), "not made", 8), 0);
    expect_next(&h, "/json/5000", "gzip, br;q=0.5", "gzip");
    expect_next(&h, "/json/5000", "", "identity");
    expect_next(&h, "/json/5000", "zstd", "identity");
    expect_next(&h, "/json/5000", "*, br;q=0", "gzip");
    /* a copy is told of where it belongs, and only there */
    assert_int_equal(ctl(&h, &out, "--json cache why http://test.example/json/5000"), 0);
    assert_null(strstr(out, "content-coding"));
    assert_null(strstr(out, "next_coding"));
    wait_until((get(h.port, "/noise/4000", NULL), served_from_store(h.port, "/noise/4000")), 5000);
    assert_true(is_coded(&h, "/noise/4000", "br", "identity"));
    wait_until(!strncmp(copy_in(&h, "/noise/4000", "br"), "none", 4), 5000);
    expect_next(&h, "/noise/4000", "br", "identity: br would not save a tenth");
    assert_int_equal(ctl(&h, NULL, "cache invalidate --all"), 0);
    assert_int_equal(ctl(&h, &out, "cache why /json/5000 --accept-encoding br"), 0);
    assert_null(strstr(out, "next coding"));
    wait_until((get(h.port, "/json/5000", NULL), served_from_store(h.port, "/json/5000")), 5000);
    assert_int_equal(strncmp(copy_in(&h, "/json/5000", "gzip"), "not made", 8), 0);
    assert_int_equal(ctl(&h, &out, "cache why /x --accept-encoding %02000d", 1), 2);
    assert_non_null(strstr(out, "at most"));
    house_remove(&h);
}

static void who_wants_no_copies_passes_the_field_on(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 1, "compress = {\"off\"}");
    ask(&h, "/vary/5000", "br", &m);
    assert_string_equal(field_of(&m, "Vary"), "X-Tenant, accept-encoding, Accept");
    message_free(&m);
    ask(&h, "/vary/5000", "gzip", &m);
    message_free(&m);
    assert_int_equal(backend_calls(backend), 2); /* the backend's own negotiation */
    house_remove(&h);
    start(&h, 1, "compress = {\"gzip\"} compress_min = \"10K\"");
    wait_until(is_coded(&h, "/json/20000", "br, gzip", "gzip"), 5000);
    assert_true(is_coded(&h, "/json/20000", "br", "identity"));
    assert_true(is_coded(&h, "/json/9000", "gzip", "identity"));
    assert_true(is_coded(&h, "/json/9000", "gzip", "identity"));
    house_remove(&h);
}

static void a_worker_that_dies_at_it_is_followed_by_another(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char target[64];
    pid_t pids[8];
    start(&h, 2, "");
    for (unsigned i = 0; i < 10; i++) {
        snprintf(target, sizeof target, "/json/%u", 2000000 + i);
        ask(&h, target, "br", &m);
        message_free(&m);
        const size_t n = house_children(&h, "polderd: worker", pids, 8);
        for (size_t k = 0; k < n; k++)
            kill(pids[k], SIGKILL);
        wait_until(house_children(&h, "polderd: worker", pids, 8) == 2 && house_ready(&h), 10000);
    }
    for (unsigned i = 0; i < 10; i++) {
        snprintf(target, sizeof target, "/json/%u", 2000000 + i);
        wait_until(is_coded(&h, target, "br", "br"), 20000);
        ask(&h, target, "br", &m);
        expect_document(&m, 2000000 + i, 1);
        message_free(&m);
    }
    house_remove(&h);
}

static void slow_readers_get_all_of_a_copy(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 1, "");
    wait_until(is_coded(&h, "/json/3000000", "gzip", "gzip"), 10000);
    int fd[20];
    for (unsigned i = 0; i < 20; i++) {
        fd[i] = client_connect(h.port);
        client_send(
            fd[i],
            "GET /json/3000000 HTTP/1.1\r\nHost: test.example\r\nAccept-Encoding: gzip\r\n\r\n");
    }
    for (unsigned i = 0; i < 20; i++) {
        client_read(fd[i], &m, false);
        assert_true(m.complete);
        expect_document(&m, 3000000, 1);
        message_free(&m);
    }
    house_remove(&h);
}

static int set_up(void **state)
{
    (void)state;
    backend = backend_start(answers, NULL);
    decoded = malloc(BODY_MOST + 1);
    return decoded ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    backend_stop(backend);
    free(decoded);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_coding_is_stored_once_for_all_workers),
        cmocka_unit_test(validators_of_coded_answers_are_weak_and_still_work),
        cmocka_unit_test(what_gains_nothing_is_only_kept_plain),
        cmocka_unit_test(vary_is_one_line_and_variants_stay_apart),
        cmocka_unit_test(ranges_and_heads_are_of_what_they_say),
        cmocka_unit_test(no_copy_outlives_what_it_is_a_copy_of),
        cmocka_unit_test(copies_stay_when_a_304_renews_the_response),
        cmocka_unit_test(what_is_validated_each_time_is_coded_too),
        cmocka_unit_test(cache_why_tells_which_copies_there_are_and_who_gets_them),
        cmocka_unit_test(who_wants_no_copies_passes_the_field_on),
        cmocka_unit_test(a_worker_that_dies_at_it_is_followed_by_another),
        cmocka_unit_test(slow_readers_get_all_of_a_copy),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
