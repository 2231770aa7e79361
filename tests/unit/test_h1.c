/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * h1: heads, bodies and writing. Beside tests of single rules every vector of data/h1-vectors.json
 * is run the way a gateway would: parse, decode, serialise what would be forwarded, go on with the
 * next message; whole, byte by byte, and cut in two at each place.
 */
#include "daemons/http/h1.h"
#include "daemons/http/h1_cache.h"

#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct h1_head head;

static struct str text(const char *s)
{
    return (struct str){s, strlen(s)};
}

static void assert_text(struct str t, const char *wanted)
{
    if (t.len != strlen(wanted) || memcmp(t.at, wanted, t.len) != 0)
        fail_msg("'%.*s' is not '%s'", (int)t.len, t.at ? t.at : "", wanted);
}

/* 0: parsed; -1: incomplete; else the status of the problem. */
static int request_status(const char *bytes, size_t len)
{
    size_t scanned = 0;
    enum problem problem = PROBLEMS;
    switch (h1_parse_request(bytes, len, &scanned, &head, &problem)) {
    case H1_DONE:
        return 0;
    case H1_MORE:
        return -1;
    default:
        return (int)problem_status(problem);
    }
}

static int request(const char *bytes)
{
    return request_status(bytes, strlen(bytes));
}

static int response(const char *bytes, bool to_head)
{
    size_t scanned = 0;
    switch (h1_parse_response(bytes, strlen(bytes), &scanned, to_head, &head)) {
    case H1_DONE:
        return 0;
    case H1_MORE:
        return -1;
    default:
        return 502;
    }
}

/* ---- the vectors: a gateway without sockets ---- */

struct bytes {
    char *at;
    size_t len, size;
};

static void append(struct bytes *b, const char *at, size_t len)
{
    if (b->len + len + 1 > b->size) {
        b->size = (b->len + len + 1) * 2;
        b->at = realloc(b->at, b->size);
        assert_non_null(b->at);
    }
    if (len)
        memcpy(b->at + b->len, at, len);
    b->len += len;
    b->at[b->len] = '\0';
}

static void append_text(struct bytes *b, const char *s)
{
    append(b, s, strlen(s));
}

/* What a run did. */
struct run {
    unsigned messages; /* complete ones */
    struct bytes forwarded, body;
    char target[128];
    unsigned status; /* of the problem (requests), or of the final response */
    bool incomplete; /* input ended inside a message */
    bool closed;     /* after Connection: close */
};

static void forward_head(struct run *run, const struct h1_head *h)
{
    append(&run->forwarded, h->method.at, h->method.len);
    append_text(&run->forwarded, " ");
    append(&run->forwarded, h->path.at, h->path.len);
    if (h->query.at)
        append_text(&run->forwarded, "?"), append(&run->forwarded, h->query.at, h->query.len);
    append_text(&run->forwarded, " HTTP/1.1\r\nHost: ");
    append(&run->forwarded, h->host.at, h->host.len);
    for (uint32_t i = 0; i < h->n_fields; i++) {
        const struct h1_field *f = &h->field[i];
        if (f->id == H1_HOST || f->id == H1_CONTENT_LENGTH || h1_is_hop_by_hop(h, f))
            continue;
        append_text(&run->forwarded, "\r\n");
        append(&run->forwarded, f->name.at, f->name.len);
        append_text(&run->forwarded, ": ");
        append(&run->forwarded, f->value.at, f->value.len);
    }
    append_text(&run->forwarded, "\r\n\r\n");
    if (run->messages == 0)
        snprintf(run->target, sizeof run->target, "%.*s", (int)h->path.len, h->path.at);
}

/* Bytes arrive in `step`s; the buffer is what a connection has not consumed yet. */
struct feed {
    const struct bytes *in;
    size_t start, end, step;
};

static bool more(struct feed *f)
{
    if (f->end == f->in->len)
        return false;
    f->end = f->in->len - f->end < f->step ? f->in->len : f->end + f->step;
    return true;
}

/* A copy that ends where the bytes end, so that a sanitizer sees every look beyond. */
static char *exact(const struct feed *f)
{
    char *copy = malloc(f->end - f->start + 1);
    assert_non_null(copy);
    memcpy(copy, f->in->at + f->start, f->end - f->start);
    return realloc(copy, f->end - f->start ? f->end - f->start : 1);
}

/* False: the body is broken or ends too early. */
static bool run_body(struct feed *f, struct h1_body *body, struct bytes *out, bool *broken)
{
    *broken = false;
    while (!body->done) {
        size_t used;
        struct str content;
        if (f->start == f->end && !more(f))
            return false;
        char *copy = exact(f);
        int rc = h1_body_read(body, copy, f->end - f->start, &used, &content);
        if (rc == 0 && content.len)
            append(out, content.at, content.len);
        free(copy);
        if (rc != 0) {
            *broken = true;
            return false;
        }
        f->start += used;
    }
    return true;
}

static void run_requests(struct run *run, const struct bytes *in, size_t first, size_t step)
{
    struct feed f = {in, 0, 0, first};
    size_t scanned = 0;
    while (!run->closed) {
        enum problem problem = PROBLEMS;
        char *copy = exact(&f);
        size_t blank = scanned ? 0 : h1_skip_blank(copy, f.end - f.start);
        enum h1_result r =
            h1_parse_request(copy + blank, f.end - f.start - blank, &scanned, &head, &problem);
        f.start += blank;
        if (r == H1_DONE)
            forward_head(run, &head);
        free(copy);
        if (r == H1_BAD) {
            run->status = problem_status(problem);
            return;
        }
        if (r == H1_MORE) {
            bool had = f.end > f.start;
            if (!more(&f)) {
                run->incomplete = had;
                return;
            }
            f.step = step;
            continue;
        }
        f.start += head.head_len;
        scanned = 0;
        struct h1_body body;
        struct bytes content = {0};
        bool broken;
        h1_body_init(&body, head.framing, head.length);
        run->closed = !head.keep_alive;
        if (!run_body(&f, &body, &content, &broken)) {
            run->status = broken ? 400 : 0;
            run->incomplete = true;
            free(content.at);
            return;
        }
        if (run->messages++ == 0)
            append(&run->body, content.at, content.len);
        free(content.at);
    }
}

/* status 502: refused; incomplete: the client sees a broken response. */
static void run_response(struct run *run, const struct bytes *in, bool closes, bool to_head,
                         size_t first, size_t step)
{
    struct feed f = {in, 0, 0, first};
    size_t scanned = 0;
    for (;;) {
        char *copy = exact(&f);
        enum h1_result r = h1_parse_response(copy, f.end - f.start, &scanned, to_head, &head);
        free(copy);
        if (r == H1_MORE && more(&f)) {
            f.step = step;
            continue;
        }
        if (r != H1_DONE || head.status == 101) {
            run->status = 502;
            return;
        }
        f.start += head.head_len;
        scanned = 0;
        if (head.status >= 200)
            break;
    }
    struct h1_body body;
    bool broken = false;
    h1_body_init(&body, head.framing, head.length);
    run->status = head.status;
    bool whole = run_body(&f, &body, &run->body, &broken);
    if (!whole && !broken && closes)
        whole = h1_body_eof(&body);
    run->incomplete = !whole;
    append(&run->body, "", 0);
}

static bool lists(const json_t *numbers, unsigned n)
{
    size_t i;
    json_t *value;
    json_array_foreach(numbers, i, value) if (json_integer_value(value) == n) return true;
    return false;
}

/* JSON text to bytes: code points are bytes (Latin-1), {{a*N}} is N times that character. */
static struct bytes unpack(const json_t *string)
{
    const unsigned char *s = (const unsigned char *)json_string_value(string);
    size_t n = json_string_length(string);
    struct bytes out = {0};
    for (size_t i = 0; i < n; i++) {
        unsigned long count;
        int used = 0;
        char c;
        if (s[i] == '{' && sscanf((const char *)s + i, "{{%c*%lu}}%n", &c, &count, &used) == 2 &&
            used) {
            char *run = malloc(count);
            assert_non_null(run);
            memset(run, c, count);
            append(&out, run, count);
            free(run);
            i += (size_t)used - 1;
        } else if (s[i] >= 0xc2 && s[i] <= 0xc3 && i + 1 < n) {
            c = (char)((s[i] & 3) << 6 | (s[i + 1] & 0x3f));
            append(&out, &c, 1);
            i++;
        } else {
            append(&out, (const char *)&s[i], 1);
        }
    }
    append(&out, "", 0);
    return out;
}

static const char *judge_request(const struct run *run, const json_t *expect)
{
    const char *outcome = json_string_value(json_object_get(expect, "outcome"));
    const char *body = json_string_value(json_object_get(expect, "body"));
    const char *target = json_string_value(json_object_get(expect, "target"));
    const json_t *status = json_object_get(expect, "status"), *value;
    size_t i;
    bool refused = run->messages == 0 && run->status;
    json_array_foreach(
        json_object_get(expect, "absent"), i,
        value) if (run->forwarded.at &&
                   strstr(run->forwarded.at,
                          json_string_value(value))) return "forwards what must be absent";
    if (strcmp(outcome, "reject") == 0) {
        if (run->messages && run->closed)
            return NULL;
        if (run->messages)
            return "was accepted";
        if (json_is_true(json_object_get(expect, "wait_ok")) && run->incomplete)
            return NULL;
        if (json_is_true(json_object_get(expect, "incomplete")))
            return run->incomplete ? NULL : "is not seen as incomplete";
        return run->status && lists(status, run->status) ? NULL : "has the wrong status";
    }
    if (refused && strcmp(outcome, "either") == 0)
        return !status || lists(status, run->status) ? NULL : "is refused with the wrong status";
    if (run->messages != (unsigned)json_integer_value(json_object_get(expect, "n")))
        return "is not the wanted number of messages";
    if (body && strcmp(run->body.at ? run->body.at : "", body) != 0)
        return "has the wrong body";
    if (target && strcmp(run->target, target) != 0)
        return "has the wrong target";
    const json_t *final = json_object_get(expect, "final");
    if (final && !lists(final, run->status))
        return "does not end in the wanted error";
    return !final && run->status ? "ends in an error" : NULL;
}

static const char *judge_response(const struct run *run, const json_t *expect)
{
    const char *outcome = json_string_value(json_object_get(expect, "outcome"));
    const char *body = json_string_value(json_object_get(expect, "body"));
    const json_t *status = json_object_get(expect, "status");
    if (strcmp(outcome, "bad_gateway") == 0)
        return run->status == 502 ? NULL : "is not 502";
    if (strcmp(outcome, "truncate") == 0)
        return run->status == 502 || run->incomplete ? NULL : "looks complete";
    if (strcmp(outcome, "either") == 0 && (run->status == 502 || run->incomplete))
        return NULL;
    if (run->incomplete)
        return "is broken";
    if (status && !lists(status, run->status))
        return "has the wrong status";
    return body && strcmp(run->body.at ? run->body.at : "", body) != 0 ? "has the wrong body"
                                                                       : NULL;
}

static const char *run_vector(const json_t *v, size_t first, size_t step)
{
    const json_t *expect = json_object_get(v, "expect"), *reply = json_object_get(v, "response");
    struct bytes in = unpack(reply ? reply : json_object_get(v, "request"));
    struct run run = {0};
    const char *wrong;
    if (reply) {
        bool closes = json_is_true(json_object_get(v, "backend_close"));
        const char *asked = json_string_value(json_object_get(v, "request"));
        run_response(&run, &in, closes, strncmp(asked, "HEAD ", 5) == 0, first, step);
        wrong = judge_response(&run, expect);
    } else {
        run_requests(&run, &in, first, step);
        wrong = judge_request(&run, expect);
    }
    free(run.forwarded.at);
    free(run.body.at);
    free(in.at);
    return wrong;
}

static void every_hostile_vector_ends_as_wanted(void **state)
{
    (void)state;
    json_error_t error;
    json_t *all = json_load_file("tests/unit/data/h1-vectors.json", JSON_ALLOW_NUL, &error), *v;
    size_t i, bad = 0;
    if (!all)
        fail_msg("tests/unit/data/h1-vectors.json: %s", error.text);
    assert_int_equal(json_array_size(all), 113);
    json_array_foreach(all, i, v)
    {
        const char *id = json_string_value(json_object_get(v, "id"));
        size_t len = json_string_length(json_object_get(v, "request"));
        if (json_object_get(v, "response"))
            len = json_string_length(json_object_get(v, "response"));
        const char *wrong = run_vector(v, SIZE_MAX, SIZE_MAX);
        for (size_t cut = 1; !wrong && cut < len; cut++)
            wrong = run_vector(v, cut, SIZE_MAX);
        if (!wrong && !strstr(id, "huge"))
            wrong = run_vector(v, 1, 1);
        if (wrong) {
            print_error("%s %s\n", id, wrong);
            bad++;
        }
    }
    json_decref(all);
    assert_int_equal(bad, 0);
}

/* ---- request lines ---- */

static void a_plain_request_is_understood(void **state)
{
    (void)state;
    const char *bytes =
        "GET /a/b?x=1&y HTTP/1.1\r\nHost: H.test:80\r\nAccept: */*\r\nX: \r\n\r\nrest";
    assert_int_equal(request(bytes), 0);
    assert_text(head.method, "GET");
    assert_text(head.target, "/a/b?x=1&y");
    assert_text(head.path, "/a/b");
    assert_text(head.query, "x=1&y");
    assert_text(head.host, "H.test:80");
    assert_true(head.is_get && head.is_safe && head.is_idempotent && head.keep_alive);
    assert_false(head.is_head || head.expect_continue || head.asks_upgrade);
    assert_int_equal(head.minor, 1);
    assert_int_equal(head.framing, H1_NO_BODY);
    assert_int_equal(head.head_len, strlen(bytes) - 4);
    assert_int_equal(head.n_fields, 3);
    assert_text(head.field[1].name, "Accept");
    assert_text(head.field[1].value, "*/*");
    assert_int_equal(head.field[1].id, H1_ACCEPT);
    assert_text(head.field[2].value, "");
    assert_ptr_equal(h1_find(&head, H1_ACCEPT), &head.field[1]);
    assert_null(h1_find(&head, H1_COOKIE));
}

static void nothing_of_an_earlier_head_is_left_in_the_next(void **state)
{
    (void)state;
    assert_int_equal(request("POST /a?q HTTP/1.1\r\nHost: h\r\nCookie: a\r\nContent-Length: 4\r\n"
                             "Connection: X-A\r\nX-A: 1\r\nExpect: 100-continue\r\n\r\n"),
                     0);
    assert_int_equal(request("GET /b HTTP/1.0\r\n\r\n"), 0);
    assert_null(h1_find(&head, H1_COOKIE));
    assert_null(head.query.at);
    assert_false(head.expect_continue || head.keep_alive);
    assert_int_equal(head.framing, H1_NO_BODY);
    assert_int_equal(head.length, 0);
    assert_int_equal(head.nominated[0], 0);
    assert_int_equal(head.host.len, 0);
    assert_int_equal(head.n_fields, 0);
}

static void methods_are_known_or_not_implemented(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int status;
        bool safe, idempotent;
    } cases[] = {
        {"HEAD / HTTP/1.1", 0, true, true},           {"OPTIONS / HTTP/1.1", 0, true, true},
        {"PUT / HTTP/1.1", 0, false, true},           {"DELETE / HTTP/1.1", 0, false, true},
        {"POST / HTTP/1.1", 0, false, false},         {"PATCH / HTTP/1.1", 0, false, false},
        {"M-SEARCH / HTTP/1.1", 0, false, false},     {"PROPFIND / HTTP/1.1", 0, true, true},
        {"PURGE / HTTP/1.1", 0, false, false},        {"GETT / HTTP/1.1", 501, false, false},
        {"GE / HTTP/1.1", 501, false, false},         {"get / HTTP/1.1", 501, false, false},
        {"FROBNICATE / HTTP/1.1", 501, false, false}, {"DESCRIBE / HTTP/1.1", 501, false, false},
        {"CONNECT h:1 HTTP/1.1", 501, false, false},  {"TRACE / HTTP/1.1", 501, false, false},
        {"PRI * HTTP/1.1", 501, false, false},        {"G(T / HTTP/1.1", 400, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char bytes[128];
        snprintf(bytes, sizeof bytes, "%s\r\nHost: h\r\n\r\n", cases[i].line);
        int status = request(bytes);
        if (status != cases[i].status)
            fail_msg("%s: %d", cases[i].line, status);
        if (status == 0) {
            assert_int_equal(head.is_safe, cases[i].safe);
            assert_int_equal(head.is_idempotent, cases[i].idempotent);
        }
    }
}

static void versions_other_than_1_0_and_1_1_are_505(void **state)
{
    (void)state;
    assert_int_equal(request("GET / HTTP/1.2\r\nHost: h\r\n\r\n"), 505);
    assert_int_equal(request("GET / HTTP/2.0\r\nHost: h\r\n\r\n"), 505);
    assert_int_equal(request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
    assert_int_equal(request("GET / HTTP/0.9\r\n\r\n"), 505);
    assert_int_equal(request("GET / http/1.1\r\nHost: h\r\n\r\n"), 400);
    assert_int_equal(request("GET / HTTP/1.1 \r\nHost: h\r\n\r\n"), 400);
    assert_int_equal(request("GET / HTTP/11\r\nHost: h\r\n\r\n"), 400);
    assert_int_equal(request("GET /\r\nHost: h\r\n\r\n"), 400);
}

static void targets_have_one_form_each(void **state)
{
    (void)state;
    static const struct {
        const char *line, *path, *query, *host;
        int status;
    } cases[] = {
        {"GET http://a.test HTTP/1.1\r\nHost: a.test", "/", NULL, "a.test", 0},
        {"GET http://a.test?q HTTP/1.1\r\nHost: a.test", "/", "q", "a.test", 0},
        {"GET HTTP://A.test/x?y?z HTTP/1.1\r\nHost: a.TEST", "/x", "y?z", "A.test", 0},
        {"GET http://a.test:80/ HTTP/1.1\r\nHost: a.test", "/", NULL, "a.test:80", 0},
        {"GET https://a.test/ HTTP/1.1\r\nHost: a.test:443", "/", NULL, "a.test", 0},
        {"GET http://a.test/ HTTP/1.0", "/", NULL, "a.test", 0},
        {"GET http://a.test:/ HTTP/1.1\r\nHost: a.test", "/", NULL, "a.test:", 0},
        {"GET http://a.test/ HTTP/1.1\r\nHost: a.test:", "/", NULL, "a.test", 0},
        {"GET http://a.test:80/ HTTP/1.1\r\nHost: a.test:", "/", NULL, "a.test:80", 0},
        {"GET http://a.test:/ HTTP/1.1\r\nHost: a.test:81", NULL, NULL, NULL, 400},
        {"QUERY /q?a HTTP/1.1\r\nHost: a.test", "/q", "a", "a.test", 0},
        {"QUERYX /q HTTP/1.1\r\nHost: a.test", NULL, NULL, NULL, 501},
        {"GET http://a.test:81/ HTTP/1.1\r\nHost: a.test", NULL, NULL, NULL, 400},
        {"GET http://b.test/ HTTP/1.1\r\nHost: a.test", NULL, NULL, NULL, 400},
        {"GET http://a.test/ HTTP/1.1\r\nHost: a.tester", NULL, NULL, NULL, 400},
        {"GET http:///x HTTP/1.1\r\nHost: a.test", NULL, NULL, NULL, 400},
        {"GET ftp://a.test/ HTTP/1.1\r\nHost: a.test", NULL, NULL, NULL, 400},
        {"GET http://u@a.test/ HTTP/1.1\r\nHost: a.test", NULL, NULL, NULL, 400},
        {"GET x HTTP/1.1\r\nHost: a.test", NULL, NULL, NULL, 400},
        {"GET a.test:80 HTTP/1.1\r\nHost: a.test", NULL, NULL, NULL, 400},
        {"GET * HTTP/1.1\r\nHost: a.test", NULL, NULL, NULL, 400},
        {"OPTIONS * HTTP/1.1\r\nHost: a.test", "*", NULL, "a.test", 0},
        {"OPTIONS http://a.test HTTP/1.1\r\nHost: a.test", "*", NULL, "a.test", 0},
        {"GET /a#b HTTP/1.1\r\nHost: a.test", NULL, NULL, NULL, 400},
        {"GET //b.test/ HTTP/1.1\r\nHost: a.test", "//b.test/", NULL, "a.test", 0},
        {"GET /? HTTP/1.1\r\nHost: a.test", "/", "", "a.test", 0},
        {"GET /\x80 HTTP/1.1\r\nHost: a.test", NULL, NULL, NULL, 400},
        {"GET /\x7f HTTP/1.1\r\nHost: a.test", NULL, NULL, NULL, 400},
        {"GET /\t HTTP/1.1\r\nHost: a.test", NULL, NULL, NULL, 400},
        {"GET  HTTP/1.1\r\nHost: a.test", NULL, NULL, NULL, 400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char bytes[128];
        snprintf(bytes, sizeof bytes, "%s\r\n\r\n", cases[i].line);
        int status = request(bytes);
        if (status != cases[i].status)
            fail_msg("%s: %d", cases[i].line, status);
        if (status)
            continue;
        assert_text(head.path, cases[i].path);
        assert_text(head.host, cases[i].host);
        assert_true(!head.query.at == !cases[i].query);
        if (cases[i].query)
            assert_text(head.query, cases[i].query);
    }
}

static void hosts_are_names_or_addresses(void **state)
{
    (void)state;
    static const char *const good[] = {"a",          "a.b-c_d.test", "127.0.0.1:8080", "[::1]",
                                       "[::1]:8080", "a:",           "a:65535",        "A.Test"};
    static const char *const bad[] = {
        "",       "a b",    "a,b", "a/b",  "a@b",     "a%41", "a:65536",  "a:4294967376",
        "a:x",    "a:1:2",  ":80", "[::1", "[]",      "[g]",  "a:999999", "a\\b",
        "[::1]x", "a\xc3z", "a?b", "a#b",  "[::1]:-1"};
    char bytes[128];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(bytes, sizeof bytes, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", good[i]);
        if (request(bytes) != 0)
            fail_msg("%s is refused", good[i]);
        assert_text(head.host, good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(bytes, sizeof bytes, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", bad[i]);
        if (request(bytes) != 400)
            fail_msg("%s is accepted", bad[i]);
    }
}

/* ---- sizes ---- */

static size_t request_with_target(char *out, size_t len)
{
    memcpy(out, "GET /", 5);
    memset(out + 5, 'a', len - 1);
    size_t n = 4 + len;
    memcpy(out + n, " HTTP/1.1\r\nHost: h\r\n\r\n", 22);
    return n + 22;
}

static void targets_up_to_8192_bytes_pass_and_longer_ones_are_414(void **state)
{
    (void)state;
    static char bytes[40000];
    size_t len = request_with_target(bytes, H1_TARGET_MAX);
    assert_int_equal(request_status(bytes, len), 0);
    len = request_with_target(bytes, H1_TARGET_MAX + 1);
    assert_int_equal(request_status(bytes, len), 414);
    /* long before the head is complete, and where all of it is longer than a head may be */
    assert_int_equal(request_status(bytes, 4 + H1_TARGET_MAX), -1);
    assert_int_equal(request_status(bytes, 4 + H1_TARGET_MAX + 1), 414);
    len = request_with_target(bytes, 30000);
    assert_int_equal(request_status(bytes, 20000), 414);
    assert_int_equal(request_status(bytes, len), 414);
}

static size_t request_of_size(char *out, size_t size)
{
    size_t n = (size_t)sprintf(out, "GET / HTTP/1.1\r\nHost: h\r\nX: ");
    memset(out + n, 'x', size - n - 4);
    memcpy(out + size - 4, "\r\n\r\n", 4);
    return size;
}

static void heads_up_to_16384_bytes_pass_and_larger_ones_are_431(void **state)
{
    (void)state;
    static char bytes[40000];
    assert_int_equal(request_status(bytes, request_of_size(bytes, H1_HEAD_MAX)), 0);
    assert_int_equal(request_status(bytes, request_of_size(bytes, H1_HEAD_MAX + 1)), 431);
    request_of_size(bytes, 30000);
    assert_int_equal(request_status(bytes, H1_HEAD_MAX), -1);
    assert_int_equal(request_status(bytes, H1_HEAD_MAX + 1), 431);
}

static void up_to_128_fields_pass_and_more_are_431(void **state)
{
    (void)state;
    char bytes[2048];
    size_t n = (size_t)sprintf(bytes, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (int i = 0; i < 127; i++)
        n += (size_t)sprintf(bytes + n, "A: b\r\n");
    memcpy(bytes + n, "\r\n", 3);
    assert_int_equal(request(bytes), 0);
    assert_int_equal(head.n_fields, 128);
    memcpy(bytes + n, "A: b\r\n\r\n", 9);
    assert_int_equal(request(bytes), 431);
}

static void what_can_be_no_request_is_refused_at_once(void **state)
{
    (void)state;
    assert_int_equal(request_status("\x16\x03\x01", 3), 400); /* TLS */
    assert_int_equal(request_status("\0", 1), 400);
    assert_int_equal(request("GET / HTTP/1.1\n"), 400);
    assert_int_equal(request("GET / HTTP/1.1\r\nHost: h\r\n X"), 400);
    assert_int_equal(request("\r"), -1);
    assert_int_equal(request(""), -1);
}

static void blank_lines_before_a_request_are_skipped(void **state)
{
    (void)state;
    assert_int_equal(h1_skip_blank("\r\n\r\nGET", 7), 4);
    assert_int_equal(h1_skip_blank("\r\n\r", 3), 2);
    assert_int_equal(h1_skip_blank("\n", 1), 0);
    assert_int_equal(h1_skip_blank("", 0), 0);
}

/* ---- fields ---- */

static void every_known_field_is_recognised_in_any_case(void **state)
{
    (void)state;
    static const char *const names[] = {
#define FIELD(id, name) [H1_##id] = name,
#include "daemons/http/h1_fields.def"
#undef FIELD
    };
    for (unsigned id = 1; id < H1_FIELD_IDS; id++) {
        char name[64];
        snprintf(name, sizeof name, "%s", names[id]);
        assert_int_equal(h1_field_id_of(text(name)), id);
        name[0] = (char)(name[0] & ~0x20);
        assert_int_equal(h1_field_id_of(text(name)), id);
        name[strlen(name) - 1] = '_';
        assert_int_equal(h1_field_id_of(text(name)), H1_OTHER);
    }
    assert_int_equal(h1_field_id_of(text("")), H1_OTHER);
    assert_int_equal(h1_field_id_of(text("x")), H1_OTHER);
    assert_int_equal(h1_field_id_of(text("cookie\r")), H1_OTHER);
    assert_int_equal(h1_field_id_of(text("content\rlength")), H1_OTHER);
}

/* RFC 9110 5.5, RFC 9112 5 */
static void field_lines_are_strict(void **state)
{
    (void)state;
    static const char *const bad[] = {"X : a",    ": a",         "X",        "X\x01: a",
                                      "X: a\x01", "X: \x7f",     "X: a\n b", "X\t: a",
                                      "(: a",     "X: a\r\n\tb", "X:a\rb",   " X: a"};
    char bytes[128];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(bytes, sizeof bytes, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n\r\n", bad[i]);
        if (request(bytes) != 400)
            fail_msg("%s is accepted", bad[i]);
    }
    assert_int_equal(request("GET / HTTP/1.1\r\nHost:h\r\nX:\t a\t\xff \t\r\n\r\n"), 0);
    assert_text(head.field[1].value, "a\t\xff");
}

static void lines_of_a_field_are_joined(void **state)
{
    (void)state;
    char out[8];
    assert_int_equal(request("GET / HTTP/1.1\r\nHost: h\r\nVia: ab\r\nX: y\r\nvia: cd\r\n\r\n"), 0);
    assert_int_equal(h1_join(&head, H1_VIA, out, sizeof out), 6);
    assert_memory_equal(out, "ab, cd", 6);
    assert_int_equal(h1_join(&head, H1_VIA, out, 6), 6);
    assert_int_equal(h1_join(&head, H1_VIA, out, 5), 0);
    assert_int_equal(h1_join(&head, H1_TE, out, sizeof out), 0);
}

/* RFC 9110 7.6.1 */
static void hop_by_hop_fields_are_the_usual_and_the_nominated_ones(void **state)
{
    (void)state;
    assert_int_equal(request("GET / HTTP/1.1\r\nHost: h\r\nConnection: x-foo, Cookie,\r\n"
                             "X-Foo: 1\r\nCookie: a\r\nTE: trailers\r\nX-Bar: 1\r\n"
                             "connection: host, X-BAR\r\nKeep-Alive: 1\r\nX-Foo-2: 1\r\n\r\n"),
                     0);
    static const bool hop[] = {false, true, true, false, true, true, true, true, false};
    assert_int_equal(head.n_fields, sizeof hop / sizeof *hop);
    for (uint32_t i = 0; i < head.n_fields; i++)
        if (h1_is_hop_by_hop(&head, &head.field[i]) != hop[i])
            fail_msg("%.*s", (int)head.field[i].name.len, head.field[i].name.at);
}

static void connections_persist_as_sender_and_version_say(void **state)
{
    (void)state;
    assert_int_equal(request("GET / HTTP/1.1\r\nHost: h\r\nConnection: Close\r\n\r\n"), 0);
    assert_false(head.keep_alive);
    assert_int_equal(request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), 0);
    assert_true(head.keep_alive);
    assert_int_equal(request("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"), 0);
    assert_false(head.keep_alive);
    assert_int_equal(request("GET / HTTP/1.1\r\nHost: h\r\nConnection: a b\r\n\r\n"), 400);
}

static void connection_options_are_few(void **state)
{
    (void)state;
    char bytes[512] = "GET / HTTP/1.1\r\nHost: h\r\nConnection: ";
    for (int i = 0; i < 64; i++)
        strcat(bytes, "a,");
    strcat(bytes, "\r\n\r\n");
    assert_int_equal(request(bytes), 0);
    strcpy(strstr(bytes, "\r\n\r\n"), "a\r\n\r\n");
    assert_int_equal(request(bytes), 400);
    assert_int_equal(response("HTTP/1.1 200 OK\r\nConnection: a b, close\r\n\r\n", false), 0);
    assert_false(head.keep_alive);
}

static void upgrades_need_both_fields_and_1_1(void **state)
{
    (void)state;
    assert_int_equal(request("GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n"
                             "Upgrade: websocket\r\n\r\n"),
                     0);
    assert_true(head.asks_upgrade);
    assert_int_equal(request("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n"), 0);
    assert_false(head.asks_upgrade);
    assert_int_equal(request("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\n\r\n"), 0);
    assert_false(head.asks_upgrade);
    assert_int_equal(request("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
                     0);
    assert_false(head.asks_upgrade);
}

/* RFC 9110 10.1.1 */
static void only_100_continue_may_be_expected(void **state)
{
    (void)state;
    assert_int_equal(request("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n"
                             "Expect: 100-Continue\r\n\r\n"),
                     0);
    assert_true(head.expect_continue);
    assert_int_equal(request("GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n"), 0);
    assert_false(head.expect_continue);
    assert_int_equal(request("GET / HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n"), 417);
    assert_int_equal(request("GET / HTTP/1.0\r\nExpect: x\r\n\r\n"), 0);
}

/* RFC 9112 6 */
static void framing_of_requests_is_one_length_or_chunked(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        int status;
        enum h1_framing framing;
        uint64_t length;
    } cases[] = {
        {"Content-Length: 0", 0, H1_LENGTH, 0},
        {"Content-Length: 007", 0, H1_LENGTH, 7},
        {"Content-Length: 9223372036854775807", 0, H1_LENGTH, INT64_MAX},
        {"Content-Length: 9223372036854775808", 400, 0, 0},
        {"Content-Length: 5 5", 400, 0, 0},
        {"Content-Length: -5", 400, 0, 0},
        {"Content-Length: 5,5", 400, 0, 0},
        {"Content-Length:", 400, 0, 0},
        {"Content-Length: 5\r\nContent-Length: 5", 400, 0, 0},
        {"Transfer-Encoding: chunked", 0, H1_CHUNKED, 0},
        {"Transfer-Encoding: Chunked", 0, H1_CHUNKED, 0},
        {"Transfer-Encoding:", 400, 0, 0},
        {"Transfer-Encoding: chunked,", 400, 0, 0},
        {"Transfer-Encoding: \"chunked\"", 400, 0, 0},
        {"Transfer-Encoding: chunked;a=b", 400, 0, 0},
        {"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400, 0, 0},
        {"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 501, 0, 0},
        {"Transfer-Encoding: gzip, chunked", 501, 0, 0},
        {"Transfer-Encoding: gzip", 400, 0, 0},
        {"Transfer-Encoding: identity", 400, 0, 0},
        {"Transfer-Encoding: carrier-pigeon", 400, 0, 0},
        {"Transfer-Encoding: chunked, gzip", 400, 0, 0},
        {"Transfer-Encoding: chunked, chunked", 400, 0, 0},
        {"Transfer-Encoding: ,chunked", 400, 0, 0},
        {"Transfer-Encoding: gzip;q=1, chunked", 400, 0, 0},
        {"Transfer-Encoding: chunked\r\nContent-Length: 5", 400, 0, 0},
        {"Content-Length: 5\r\nTransfer-Encoding: chunked", 400, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char bytes[256];
        snprintf(bytes, sizeof bytes, "POST / HTTP/1.1\r\nHost: h\r\n%s\r\n\r\n", cases[i].fields);
        int status = request(bytes);
        if (status != cases[i].status)
            fail_msg("%s: %d", cases[i].fields, status);
        if (status == 0) {
            assert_int_equal(head.framing, cases[i].framing);
            assert_int_equal(head.length, cases[i].length);
        }
    }
    assert_int_equal(request("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

/* ---- responses ---- */

static void a_plain_response_is_understood(void **state)
{
    (void)state;
    assert_int_equal(response("HTTP/1.1 200 Very OK\r\nContent-Length: 5\r\n\r\nhello", false), 0);
    assert_int_equal(head.status, 200);
    assert_text(head.reason, "Very OK");
    assert_int_equal(head.framing, H1_LENGTH);
    assert_int_equal(head.length, 5);
    assert_true(head.keep_alive);
    assert_int_equal(response("HTTP/1.1 299 \r\n\r\n", false), 0);
    assert_int_equal(response("HTTP/1.1 200\r\n\r\n", false), 0);
    assert_int_equal(head.reason.len, 0);
    assert_int_equal(head.framing, H1_TO_CLOSE);
    assert_false(head.keep_alive);
    assert_int_equal(response("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", false), 0);
    assert_false(head.keep_alive);
    assert_int_equal(
        response("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n", false), 0);
    assert_false(head.keep_alive);
}

/* RFC 9112 6.3 */
static void some_responses_have_no_body_whatever_they_claim(void **state)
{
    (void)state;
    static const char *const heads[] = {
        "HTTP/1.1 204 No Content\r\nContent-Length: 46\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 46\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        assert_int_equal(response(heads[i], false), 0);
        assert_int_equal(head.framing, H1_NO_BODY);
        assert_true(head.keep_alive);
    }
    assert_int_equal(response("HTTP/1.1 200 OK\r\nContent-Length: 46\r\n\r\n", true), 0);
    assert_int_equal(head.framing, H1_NO_BODY);
    assert_int_equal(head.length, 46);
    assert_int_equal(response("HTTP/1.1 200 OK\r\n\r\n", true), 0);
    assert_true(head.keep_alive);
}

static void statuses_have_three_digits(void **state)
{
    (void)state;
    char bytes[64];
    for (unsigned status = 0; status < 1000; status++) {
        snprintf(bytes, sizeof bytes, "HTTP/1.1 %03u X\r\nContent-Length: 0\r\n\r\n", status);
        assert_int_equal(response(bytes, false), status < 100 ? 502 : 0);
        if (status >= 100)
            assert_int_equal(head.status, status);
    }
    assert_int_equal(response("HTTP/1.1 2000 X\r\n\r\n", false), 502);
    assert_int_equal(response("HTTP/1.1 20 X\r\n\r\n", false), 502);
    assert_int_equal(response("HTTP/1.1  200 X\r\n\r\n", false), 502);
    assert_int_equal(response("HTTP/1.2 200 X\r\n\r\n", false), 502);
    assert_int_equal(response("HTTP/2.0 200 X\r\n\r\n", false), 502);
    assert_int_equal(response("http/1.1 200 X\r\n\r\n", false), 502);
    assert_int_equal(response("HTTP/1.1 200 \x01\r\n\r\n", false), 502);
}

static void query_is_safe_and_has_a_body(void **state)
{
    (void)state;
    assert_int_equal(request("QUERY /q HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nX-A: b\r\n\r\n"),
                     0);
    assert_int_equal(head.method.len, 5);
    assert_memory_equal(head.method.at, "QUERY", 5);
    assert_true(head.is_safe && head.is_idempotent && !head.is_get && !head.is_head);
    assert_int_equal(head.framing, H1_LENGTH);
    assert_int_equal(head.length, 3);
    assert_int_equal(head.n_fields, 3);
    assert_int_equal(request("QUERY /q HTTP/1.1\r\nHost: h\r\nX A: b\r\n\r\n"), 400);
    assert_int_equal(request("query /q HTTP/1.1\r\nHost: h\r\n\r\n"), 501);
}

/* Of a response that is refused. */
static void expect_flaw(const char *bytes, const char *flaw, bool of_size)
{
    size_t scanned = 0;
    assert_int_equal(h1_parse_response(bytes, strlen(bytes), &scanned, false, &head), H1_BAD);
    assert_string_equal(head.flaw, flaw);
    assert_int_equal(head.flaw_is_size, of_size);
}

static void what_is_wrong_with_a_response_is_told_with_its_place(void **state)
{
    static char text[H1_HEAD_MAX + 1024];
    (void)state;
    expect_flaw("SMTP ready\r\n\r\n", "with a malformed status line at byte 0", false);
    expect_flaw("HTTP/1.1 200 OK\r\nA: b\n\r\n", "with a malformed line at byte 21", false);
    expect_flaw("HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", "with a malformed field at byte 18", false);
    expect_flaw("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                "with a malformed Connection, Transfer-Encoding or Content-Length", false);
    snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nA: %0*d", H1_HEAD_MAX, 0);
    expect_flaw(text, "over 16 KiB", true);
    strcpy(text, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i <= H1_FIELDS_MAX; i++)
        strcat(text, "A: b\r\n");
    expect_flaw(strcat(text, "\r\n"), "with over 128 fields", true);
}

static void ambiguous_responses_are_refused(void **state)
{
    (void)state;
    static const char *const fields[] = {"Transfer-Encoding: chunked\r\nContent-Length: 5",
                                         "Transfer-Encoding: gzip, chunked",
                                         "Transfer-Encoding: x",
                                         "Content-Length: 5\r\nContent-Length: 6",
                                         "Content-Length: x",
                                         "X: a\r\n b",
                                         "X : a",
                                         ": a",
                                         "Content-Length: 5,6"};
    char bytes[256];
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        snprintf(bytes, sizeof bytes, "HTTP/1.1 200 OK\r\n%s\r\n\r\n", fields[i]);
        if (response(bytes, false) != 502)
            fail_msg("%s is accepted", fields[i]);
    }
    assert_int_equal(response("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false), 502);
    assert_int_equal(response("HTTP/1.1 200 OK\nContent-Length: 5\n\n", false), 502);
}

/* ---- bodies ---- */

/* Decodes all of it in steps; the return code, the content in out. */
static int decode(struct h1_body *body, const char *bytes, size_t len, size_t step,
                  struct bytes *out)
{
    out->len = 0;
    for (size_t at = 0, end = 0; !body->done;) {
        size_t used;
        struct str content;
        if (at == end) {
            if (end == len)
                return -EAGAIN;
            end = len - end < step ? len : end + step;
        }
        char *copy = malloc(end - at);
        assert_non_null(copy);
        memcpy(copy, bytes + at, end - at);
        int rc = h1_body_read(body, copy, end - at, &used, &content);
        if (rc == 0 && content.len)
            append(out, content.at, content.len);
        free(copy);
        if (rc)
            return rc;
        at += used;
    }
    return 0;
}

static int decode_chunked(const char *bytes, struct bytes *out)
{
    struct h1_body body;
    int first = 0;
    for (size_t step = 1; step < strlen(bytes) + 2; step++) {
        h1_body_init(&body, H1_CHUNKED, 0);
        int rc = decode(&body, bytes, strlen(bytes), step, out);
        if (step == 1)
            first = rc;
        else
            assert_int_equal(rc, first); /* whatever the segments */
    }
    append(out, "", 0);
    return first;
}

static void chunks_are_decoded_whatever_the_segments(void **state)
{
    (void)state;
    struct bytes out = {0};
    assert_int_equal(
        decode_chunked("5\r\nhello\r\n000B;a=\"b\"\r\n great world\r\n0\r\n\r\n", &out), -EPROTO);
    assert_int_equal(
        decode_chunked("5\r\nhello\r\n000C;a=\"b\"\r\n great world\r\n0\r\n\r\n", &out), 0);
    assert_string_equal(out.at, "hello great world");
    assert_int_equal(decode_chunked("a \t;x\r\n0123456789\r\n0\r\nX: y\r\nZ:\r\n\r\n", &out), 0);
    assert_string_equal(out.at, "0123456789");
    assert_int_equal(decode_chunked("0\r\n\r\n", &out), 0);
    assert_int_equal(out.len, 0);
    assert_int_equal(decode_chunked("5\r\nhello\r\n", &out), -EAGAIN);
    free(out.at);
}

/* The content of a chunked body, gathered `step` bytes at a time in at most `max` spans. */
static int gather(const char *bytes, size_t len, size_t step, unsigned max, struct bytes *out,
                  unsigned *most)
{
    struct h1_body body;
    char *copy = malloc(len + 1);
    struct iovec iov[4];
    struct h1_spans spans = {.iov = iov, .max = max};
    int rc = 0;
    assert_non_null(copy);
    memcpy(copy, bytes, len);
    out->len = *most = 0;
    h1_body_init(&body, H1_CHUNKED, 0);
    for (size_t at = 0, used; rc == 0 && at < len && !body.done; at += used) {
        const size_t n = len - at < step ? len - at : step;
        size_t total = 0;
        rc = h1_body_gather(&body, copy + at, n, &used, &spans);
        for (unsigned i = 0; i < spans.n; i++) {
            append(out, iov[i].iov_base, iov[i].iov_len);
            total += iov[i].iov_len;
        }
        assert_int_equal(total, spans.total);
        assert_true(spans.n <= max && used <= n &&
                    (used == n || body.done || rc || spans.n == max));
        *most = spans.n > *most ? spans.n : *most;
    }
    free(copy);
    return rc ? rc : body.done ? 0 : -EAGAIN;
}

static void small_chunks_are_gathered_into_one_span(void **state)
{
    static const size_t sizes[] = {1, 1, 511, 512, 2, 700, 1, 513, 3, 1, 5000, 1, 16, 512, 1};
    struct bytes raw = {0}, content = {0}, out = {0};
    unsigned most;
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char piece[5000], line[20];
        memset(piece, 'a' + (int)i, sizes[i]);
        append(&raw, line, (size_t)snprintf(line, sizeof line, "%zx\r\n", sizes[i]));
        append(&raw, piece, sizes[i]);
        append_text(&raw, "\r\n");
        append(&content, piece, sizes[i]);
    }
    append_text(&raw, "0\r\nX: y\r\n\r\nGET");
    for (size_t step = 1; step < raw.len + 400; step += step < 40 ? 1 : 97)
        for (unsigned max = 1; max <= 4; max++) {
            assert_int_equal(gather(raw.at, raw.len, step, max, &out, &most), 0);
            assert_int_equal(out.len, content.len);
            assert_memory_equal(out.at, content.at, content.len);
        }
    raw.len = 0;
    for (unsigned i = 0; i < 4000; i++)
        append_text(&raw, "1\r\nx\r\n");
    append_text(&raw, "0\r\n\r\n");
    assert_int_equal(gather(raw.at, raw.len, raw.len, 4, &out, &most), 0);
    assert_int_equal(out.len, 4000);
    assert_int_equal(most, 1);
    assert_int_equal(gather("1\r\nx\r\n1\r\ny\r\nz", 13, 13, 4, &out, &most), -EPROTO);
    assert_int_equal(out.len, 2); /* what came before the mistake */
    free(raw.at);
    free(content.at);
    free(out.at);
}

/* RFC 9112 7.1 */
static void broken_chunks_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"\r\n",
                                      "-1\r\n",
                                      "+5\r\n",
                                      " 5\r\n",
                                      "0x5\r\n",
                                      "5_\r\n",
                                      "g\r\n",
                                      "5 \r\n",
                                      "5\t\r\n",
                                      "5 5\r\n",
                                      "5\n",
                                      "5\rX",
                                      "5;a\n",
                                      "5;\x01\r\n",
                                      "5\r\nhelloX",
                                      "5\r\nhello\rX",
                                      "5\r\nhello\n",
                                      "0\r\n\n",
                                      "0\r\nX\r\n",
                                      "0\r\n: y\r\n",
                                      "0\r\nX : y\r\n",
                                      "0\r\nX: y\n",
                                      "0\r\nX: \x01",
                                      "0\r\nX: y\r\n z",
                                      "0\r\n X: y\r\n",
                                      "0\r\n\rX",
                                      "8000000000000000\r\n",
                                      "00000000000000005\r\n"};
    struct bytes out = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (decode_chunked(bad[i], &out) != -EPROTO)
            fail_msg("%s is accepted", bad[i]);
    assert_int_equal(decode_chunked("7fffffffffffffff\r\nx", &out), -EAGAIN);
    assert_int_equal(decode_chunked("0000000000000000\r\n\r\n", &out), 0);
    free(out.at);
}

static void chunk_lines_and_trailers_are_bounded(void **state)
{
    (void)state;
    struct bytes in = {0}, out = {0};
    struct h1_body body;
    for (size_t extension = 253; extension <= 254;
         extension++) { /* "0;" … CRLF: 256 and 257 bytes */
        in.len = 0;
        append_text(&in, "0;");
        for (size_t i = 0; i < extension - 1; i++)
            append_text(&in, "x");
        append_text(&in, "\r\n\r\n");
        h1_body_init(&body, H1_CHUNKED, 0);
        assert_int_equal(decode(&body, in.at, in.len, SIZE_MAX, &out),
                         extension == 253 ? 0 : -EPROTO);
    }
    for (size_t size = H1_TRAILER_MAX; size <= H1_TRAILER_MAX + 1; size++) {
        in.len = 0;
        append_text(&in, "0\r\nX:");
        for (size_t i = 0; i < size - 6; i++)
            append_text(&in, "x");
        append_text(&in, "\r\n\r\n");
        h1_body_init(&body, H1_CHUNKED, 0);
        assert_int_equal(decode(&body, in.at, in.len, 100, &out),
                         size == H1_TRAILER_MAX ? 0 : -EPROTO);
    }
    free(in.at);
    free(out.at);
}

/* RFC 9110 6.5.1 */
static void trailers_are_kept_but_for_those_that_steer(void **state)
{
    (void)state;
    const char *bytes =
        "0\r\nX-Checksum: 1\r\nContent-Length: 41\r\nHost: evil\r\nSet-Cookie: a\r\n"
        "Proxy-Authorization: x\r\nserver-timing:a\r\nETag: \"a\"\r\n\r\n";
    const char *wanted = "X-Checksum: 1\r\nserver-timing:a\r\nETag: \"a\"\r\n";
    struct bytes out = {0};
    for (size_t step = 1; step < 30; step++) {
        char buffer[H1_TRAILER_MAX];
        struct h1_body body;
        h1_body_init(&body, H1_CHUNKED, 0);
        h1_body_keep_trailer(&body, buffer, sizeof buffer);
        assert_int_equal(decode(&body, bytes, strlen(bytes), step, &out), 0);
        assert_int_equal(body.kept_len, strlen(wanted));
        assert_memory_equal(buffer, wanted, strlen(wanted));
        h1_body_init(&body, H1_CHUNKED, 0);
        h1_body_keep_trailer(&body, buffer, 27); /* of the kept lines the first and the third fit */
        assert_int_equal(decode(&body, bytes, strlen(bytes), step, &out), 0);
        assert_int_equal(body.kept_len, 26);
        assert_memory_equal(buffer, "X-Checksum: 1\r\nETag: \"a\"\r\n", 26);
    }
    free(out.at);
}

static void lengths_are_exact(void **state)
{
    (void)state;
    struct h1_body body;
    struct str content;
    size_t used;
    h1_body_init(&body, H1_LENGTH, 7);
    assert_int_equal(h1_body_read(&body, "hello", 5, &used, &content), 0);
    assert_int_equal(used, 5);
    assert_false(body.done);
    assert_false(h1_body_eof(&body));
    assert_int_equal(h1_body_read(&body, "worldly", 7, &used, &content), 0);
    assert_int_equal(used, 2);
    assert_text(content, "wo");
    assert_true(body.done);
    assert_int_equal(body.total, 7);
    assert_int_equal(h1_body_read(&body, "x", 1, &used, &content), 0);
    assert_int_equal(used, 0);
    h1_body_init(&body, H1_LENGTH, 0);
    assert_true(body.done);
    h1_body_init(&body, H1_NO_BODY, 9);
    assert_true(body.done && h1_body_eof(&body));
}

static void only_a_body_to_the_close_ends_with_it(void **state)
{
    (void)state;
    struct h1_body body;
    struct str content;
    size_t used;
    h1_body_init(&body, H1_TO_CLOSE, 0);
    assert_int_equal(h1_body_read(&body, "hello", 5, &used, &content), 0);
    assert_text(content, "hello");
    assert_false(body.done);
    assert_true(h1_body_eof(&body));
    assert_true(body.done);
    h1_body_init(&body, H1_CHUNKED, 0);
    assert_false(h1_body_eof(&body));
}

/* ---- writing ---- */

static void heads_are_written(void **state)
{
    (void)state;
    char buffer[96];
    struct h1_out o = {buffer, buffer + sizeof buffer, false};
    h1_put_status_line(&o, 404, text(""));
    h1_put_field(&o, "Age", text("1"));
    h1_put_u64(&o, 0);
    h1_put_u64(&o, UINT64_MAX);
    h1_puts(&o, "\r\n");
    *o.at = '\0';
    assert_false(o.overflow);
    assert_string_equal(buffer, "HTTP/1.1 404 Not Found\r\nAge: 1\r\n018446744073709551615\r\n");
    o = (struct h1_out){buffer, buffer + sizeof buffer, false};
    h1_put_status_line(&o, 299, text("Odd"));
    h1_put_status_line(&o, 999, text(""));
    *o.at = '\0';
    assert_string_equal(buffer, "HTTP/1.1 299 Odd\r\nHTTP/1.1 999 \r\n");
}

static void a_full_buffer_is_left_alone(void **state)
{
    (void)state;
    char buffer[8] = "--------";
    struct h1_out o = {buffer, buffer + 5, false};
    h1_puts(&o, "abc");
    h1_puts(&o, "def");
    assert_true(o.overflow);
    h1_puts(&o, "g");
    assert_ptr_equal(o.at, buffer + 3);
    assert_memory_equal(buffer, "abc-----", 8);
}

static void chunk_heads_are_hexadecimal(void **state)
{
    (void)state;
    char out[18];
    assert_int_equal(h1_chunk_head(out, 0), 3);
    assert_memory_equal(out, "0\r\n", 3);
    assert_int_equal(h1_chunk_head(out, 0x1a2b), 6);
    assert_memory_equal(out, "1a2b\r\n", 6);
    assert_int_equal(h1_chunk_head(out, UINT64_MAX), 18);
    assert_memory_equal(out, "ffffffffffffffff\r\n", 18);
}

/* ---- what heads mean to the cache ---- */

static struct policy_response meaning_of(const char *fields)
{
    static char bytes[1024], scratch[H1_CACHE_SCRATCH];
    struct policy_response resp;
    snprintf(bytes, sizeof bytes, "HTTP/1.1 200 OK\r\n%sContent-Length: 3\r\n\r\n", fields);
    assert_int_equal(response(bytes, false), 0);
    h1_policy_response(&head, 1000, scratch, &resp);
    return resp;
}

static void caching_fields_of_several_lines_are_read(void **state)
{
    (void)state;
    struct policy_response r =
        meaning_of("Cache-Control: max-age=5\r\nX: y\r\n"
                   "cache-control: Public, no-cache=\"a\"\r\nSet-Cookie: a\r\n"
                   "Date: Thu, 01 Jan 1970 00:00:07 GMT\r\nETag: \"a\"\r\n"
                   "Expires: 0\r\n");
    assert_int_equal(r.cc.flags, FIELD_CC_MAX_AGE | FIELD_CC_PUBLIC | FIELD_CC_NO_CACHE_FIELDS);
    assert_true(r.has_set_cookie && r.has_date && r.has_etag && r.has_expires);
    assert_false(r.expires_valid || r.has_last_modified || r.has_age || r.vary_star);
    assert_int_equal(r.date, 7);
    assert_int_equal(r.length, 3);
    assert_int_equal(meaning_of("").date, 1000);
    assert_int_equal(meaning_of("Date: foo\r\n").date, 1000);
}

static void targeted_fields_count_if_they_are_valid(void **state)
{
    (void)state;
    struct policy_response r =
        meaning_of("CDN-Cache-Control: max-age=1\r\nCDN-Cache-Control: no-cache\r\n"
                   "Surrogate-Control: max-age=9\r\n");
    assert_true(r.has_cdn_cc);
    assert_int_equal(r.cdn_cc.flags, FIELD_CC_MAX_AGE | FIELD_CC_NO_CACHE);
    r = meaning_of("CDN-Cache-Control: max-age=1, &&\r\nSurrogate-Control: max-age=9;polder\r\n");
    assert_true(r.has_cdn_cc);
    assert_int_equal(r.cdn_cc.max_age, 9);
    assert_true(r.cdn_cc_unreadable);
    r = meaning_of("CDN-Cache-Control:\r\nSurrogate-Control: max-age=9;other, foo\r\n");
    assert_false(r.has_cdn_cc);
    assert_false(r.cdn_cc_unreadable);
}

static void the_first_age_counts_and_a_garbled_one_does_not(void **state)
{
    (void)state;
    assert_false(meaning_of("").has_age);
    assert_int_equal(meaning_of("Age: 30\r\n").age, 30);
    assert_int_equal(meaning_of("Age: 7200,0\r\n").age, 7200);
    assert_int_equal(meaning_of("Age: 0\r\nAge: 7200\r\n").age, 0);
    assert_int_equal(meaning_of("Age: 7200\r\nAge: 0\r\n").age, 7200);
    assert_false(meaning_of("Age: abc\r\n").has_age);
    assert_false(meaning_of("Age: abc\r\nAge: 5\r\n").has_age);
}

/* RFC 9111 4.1 */
static void a_star_hides_nowhere_in_vary(void **state)
{
    (void)state;
    assert_true(meaning_of("Vary: *\r\n").vary_star);
    assert_true(meaning_of("Vary: , *\r\n").vary_star);
    assert_true(meaning_of("Vary:\r\nVary: Foo, *\r\n").vary_star);
    assert_false(meaning_of("Vary: Foo\r\nVary: Bar,, Baz\r\n").vary_star);
    struct h1_vary walk = {0};
    struct str name;
    static const char *const wanted[] = {"Foo", "Bar", "Baz"};
    for (int i = 0; i < 3; i++) {
        assert_true(h1_vary_next(&head, &walk, &name));
        assert_text(name, wanted[i]);
    }
    assert_false(h1_vary_next(&head, &walk, &name));
}

static void assert_selects(const char *fields, const char *name, const char *wanted)
{
    char bytes[512], out[256];
    struct h1_out o = {out, out + sizeof out - 1, false};
    snprintf(bytes, sizeof bytes, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", fields);
    assert_int_equal(request(bytes), 0);
    assert_int_equal(h1_selecting(&head, text(name), &o), wanted != NULL);
    *o.at = '\0';
    assert_string_equal(out, wanted ? wanted : "");
}

/* RFC 9111 4.1 */
static void selecting_fields_are_normalised(void **state)
{
    (void)state;
    assert_selects("Foo: 1\r\nX: y\r\nfoo: 2\r\n", "foo", "1,2");
    assert_selects("Foo:  1, 2 \r\n", "foo", "1,2");
    assert_selects("Foo: A b,\"x, y\"\r\n", "foo", "A b,\"x, y\"");
    assert_selects("Foo:\r\n", "foo", "");
    assert_selects("Bar: 1\r\n", "foo", NULL);
    assert_selects("Connection: foo\r\nFoo: 1\r\n", "foo", NULL);
    assert_selects("Accept-Language: en ,   De;Q = 0.5\r\n", "accept-language", "de;q=0.5,en");
    assert_selects("Accept-Language: dE;q=0.5\r\nAccept-Language: EN\r\n", "accept-language",
                   "de;q=0.5,en");
    assert_selects("Accept-Encoding: gzip, br, deflate\r\n", "accept-encoding", "br,deflate,gzip");
    assert_selects("Accept: b, a\r\n", "accept", "b,a");
    assert_selects("Cookie: a=1, b; c\r\n", "cookie", "a=1, b; c");
}

/* RFC 9111 5.4 */
static void pragma_counts_where_cache_control_is_silent(void **state)
{
    (void)state;
    struct policy_request r;
    assert_int_equal(
        request("GET / HTTP/1.0\r\nPragma: no-cache\r\nAuthorization: x\r\nRange: a\r\n\r\n"), 0);
    h1_policy_request(&head, &r);
    assert_true(r.is_get && r.has_authorization && r.has_range && !r.is_post);
    assert_int_equal(r.cc.flags, FIELD_CC_NO_CACHE);
    assert_int_equal(request("POST / HTTP/1.0\r\nPragma: no-cache\r\nCache-Control: a\r\n\r\n"), 0);
    h1_policy_request(&head, &r);
    assert_int_equal(r.cc.flags, 0);
    assert_true(r.is_post && !r.is_get);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_hostile_vector_ends_as_wanted),
        cmocka_unit_test(a_plain_request_is_understood),
        cmocka_unit_test(nothing_of_an_earlier_head_is_left_in_the_next),
        cmocka_unit_test(methods_are_known_or_not_implemented),
        cmocka_unit_test(versions_other_than_1_0_and_1_1_are_505),
        cmocka_unit_test(targets_have_one_form_each),
        cmocka_unit_test(hosts_are_names_or_addresses),
        cmocka_unit_test(targets_up_to_8192_bytes_pass_and_longer_ones_are_414),
        cmocka_unit_test(heads_up_to_16384_bytes_pass_and_larger_ones_are_431),
        cmocka_unit_test(up_to_128_fields_pass_and_more_are_431),
        cmocka_unit_test(what_can_be_no_request_is_refused_at_once),
        cmocka_unit_test(blank_lines_before_a_request_are_skipped),
        cmocka_unit_test(every_known_field_is_recognised_in_any_case),
        cmocka_unit_test(field_lines_are_strict),
        cmocka_unit_test(lines_of_a_field_are_joined),
        cmocka_unit_test(hop_by_hop_fields_are_the_usual_and_the_nominated_ones),
        cmocka_unit_test(connections_persist_as_sender_and_version_say),
        cmocka_unit_test(connection_options_are_few),
        cmocka_unit_test(upgrades_need_both_fields_and_1_1),
        cmocka_unit_test(only_100_continue_may_be_expected),
        cmocka_unit_test(framing_of_requests_is_one_length_or_chunked),
        cmocka_unit_test(a_plain_response_is_understood),
        cmocka_unit_test(some_responses_have_no_body_whatever_they_claim),
        cmocka_unit_test(statuses_have_three_digits),
        cmocka_unit_test(query_is_safe_and_has_a_body),
        cmocka_unit_test(what_is_wrong_with_a_response_is_told_with_its_place),
        cmocka_unit_test(ambiguous_responses_are_refused),
        cmocka_unit_test(chunks_are_decoded_whatever_the_segments),
        cmocka_unit_test(small_chunks_are_gathered_into_one_span),
        cmocka_unit_test(broken_chunks_are_refused),
        cmocka_unit_test(chunk_lines_and_trailers_are_bounded),
        cmocka_unit_test(trailers_are_kept_but_for_those_that_steer),
        cmocka_unit_test(lengths_are_exact),
        cmocka_unit_test(only_a_body_to_the_close_ends_with_it),
        cmocka_unit_test(heads_are_written),
        cmocka_unit_test(a_full_buffer_is_left_alone),
        cmocka_unit_test(chunk_heads_are_hexadecimal),
        cmocka_unit_test(caching_fields_of_several_lines_are_read),
        cmocka_unit_test(targeted_fields_count_if_they_are_valid),
        cmocka_unit_test(the_first_age_counts_and_a_garbled_one_does_not),
        cmocka_unit_test(a_star_hides_nowhere_in_vary),
        cmocka_unit_test(selecting_fields_are_normalised),
        cmocka_unit_test(pragma_counts_where_cache_control_is_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
