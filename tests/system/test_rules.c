/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of RFC 9111's finer rules, through the real daemon: what each answer of a backend does to
 * what is stored. */
#include "harness.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct backend *backend;

static void start(struct house *h, backend_fn fn, void *arg, const char *cache)
{
    backend = backend_start(fn, arg);
    house_start(h, 2,
                "cache { ttl = \"heuristic\" stale_while_revalidate = \"0s\" %s }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                cache, backend_port(backend));
    backend_forget(backend);
}

static void stop(struct house *h)
{
    house_remove(h);
    backend_stop(backend);
}

/* ---- answers to POST ---- */

static bool posts(struct asked *a)
{
    char lines[128];
    if (!strncmp(a->target, "/other", 6))
        return reply_ok(a, "", "done");
    snprintf(lines, sizeof lines, "Cache-Control: max-age=600\r\nContent-Location: %.60s\r\n",
             a->target);
    atomic_uint *others = a->arg;
    const unsigned before = atomic_load(others);
    if (!strcmp(a->method, "POST")) /* it takes its time, and others are at work meanwhile */
        wait_until(atomic_load(others) > before + 2, 5000);
    return reply_ok(a, lines, a->method);
}

struct bystander {
    unsigned port;
    atomic_uint *others;
    atomic_bool stop;
};

static void *post_elsewhere(void *arg)
{
    struct bystander *b = arg;
    while (!atomic_load(&b->stop)) {
        request(b->port, "POST", "/other", "", "x", NULL);
        atomic_fetch_add(b->others, 1);
        nap_ms(2);
    }
    return NULL;
}

static void answers_to_post_are_kept_while_others_invalidate_other_things(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    static atomic_uint others;
    pthread_t thread;
    start(&h, posts, &others, "");
    struct bystander b = {.port = h.port, .others = &others};
    pthread_create(&thread, NULL, post_elsewhere, &b);
    unsigned hits = 0;
    for (unsigned i = 0; i < 20; i++) {
        char target[32];
        snprintf(target, sizeof target, "/thing/%u", i);
        assert_int_equal(request(h.port, "POST", target, "", "x", NULL), 200);
        assert_int_equal(get(h.port, target, &m), 200);
        hits += !strcmp(m.body, "POST");
        message_free(&m);
    }
    atomic_store(&b.stop, true);
    pthread_join(thread, NULL);
    /* an invalidation in the very microseconds of the answer costs it its reuse: rare */
    assert_true(hits >= 15);
    stop(&h);
}

/* ---- 304 and HEAD ---- */

/* From the store; also if it came so soon that it had to wait until that was stored. */
static bool is_hit(const struct message *m)
{
    const char *status = field_of(m, "Cache-Status");
    return status && (strstr(status, "polder; hit") ||
                      (strstr(status, "; collapsed") && !strstr(status, "; collapsed=?0")));
}

static void expect(struct house *h, const char *method, const char *target, const char *field,
                   const char *value, const char *body, bool hit)
{
    struct message m;
    assert_int_equal(request(h->port, method, target, "", "", &m), 200);
    const char *got = field_of(&m, field);
    assert_string_equal(got ? got : "none", value);
    assert_string_equal(m.body, body);
    assert_int_equal(is_hit(&m), hit);
    message_free(&m);
}

/* Whoever sets a condition is told that it holds, and of an entity tag that nobody has asked
 * about. */
static bool confuses(struct asked *a)
{
    if (!strncmp(a->target, "/always", 7) && a->number > 1)
        return reply(a, "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n");
    if (field_of(&a->m, "If-None-Match"))
        return reply(a, "HTTP/1.1 304 Not Modified\r\nETag: \"b\"\r\nX: 304\r\n\r\n");
    if (a->number > 1)
        return reply_ok(a, "Cache-Control: max-age=600\r\nETag: \"b\"\r\nX: 200\r\n", "new");
    return reply_ok(a, "Cache-Control: no-cache\r\nETag: \"a\"\r\nX: 1\r\n", "old");
}

static bool hits(unsigned port, const char *target)
{
    struct message m;
    get(port, target, &m);
    const bool hit = is_hit(&m);
    message_free(&m);
    return hit;
}

static void a_304_about_something_else_is_not_used(void **state)
{
    (void)state;
    struct house h;
    start(&h, confuses, NULL, "stale_if_error = \"0s\"");
    expect(&h, "GET", "/x", "X", "1", "old", false);
    expect(&h, "GET", "/x", "X", "200", "new", false);
    assert_int_equal(backend_calls(backend), 3);
    wait_until(hits(h.port, "/x"), 5000); /* until the keeper has stored it, each is asked about */
    const unsigned calls = backend_calls(backend);
    expect(&h, "GET", "/x", "X", "200", "new", true);
    assert_int_equal(backend_calls(backend), calls);
    backend_forget(backend); /* and one that no condition was set for is an error */
    expect(&h, "GET", "/always", "X", "1", "old", false);
    assert_int_equal(get(h.port, "/always", NULL), 502);
    stop(&h);
}

/* GET: stale at once; HEAD: fresh, with what the target asks for. */
static bool heads(struct asked *a)
{
    if (strcmp(a->method, "HEAD") != 0)
        return reply_ok(a, "Cache-Control: max-age=0\r\nETag: \"a\"\r\nX: get\r\nY: kept\r\n",
                        "content");
    return reply(a,
                 "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nETag: \"%s\"\r\nX: head\r\n"
                 "Content-Length: %d\r\n\r\n",
                 strstr(a->target, "etag") ? "b" : "a", strstr(a->target, "length") ? 8 : 7);
}

/* GET, HEAD, GET: has the second one made the third a hit? Not always, for the keeper stores a
 * little later. */
static bool head_renews(unsigned port, const char *target)
{
    get(port, target, NULL);
    request(port, "HEAD", target, "", NULL, NULL);
    return hits(port, target);
}

static void a_head_renews_what_it_describes(void **state)
{
    (void)state;
    struct house h;
    start(&h, heads, NULL, "stale_if_error = \"0s\"");
    wait_until(head_renews(h.port, "/same"), 5000);
    expect(&h, "GET", "/same", "X", "head", "content", true);
    expect(&h, "GET", "/same", "Y", "kept", "content", true);
    for (unsigned i = 0; i < 20; i++) {
        assert_false(head_renews(h.port, "/etag"));
        assert_false(head_renews(h.port, "/length"));
    }
    stop(&h);
}

/* ---- failures ---- */

/* Good once; then broken off within the head, or with a 5xx. */
static bool fails(struct asked *a)
{
    if (a->number == 1)
        return reply_ok(a, "Cache-Control: max-age=0\r\nETag: \"a\"\r\n", "good");
    if (strstr(a->target, "head"))
        return reply(a, "HTTP/1.1 200 OK\r\nCache-Control: max-a") && false;
    return reply(a, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
}

static bool is_stale(unsigned port, const char *target)
{
    struct message m;
    const int status = get(port, target, &m);
    const bool stale = status == 200 && !strcmp(m.body, "good");
    if (stale)
        assert_string_equal(field_of(&m, "Cache-Status"),
                            strstr(target, "head")
                                ? "polder; fwd=stale; detail=stale-if-error"
                                : "polder; fwd=stale; fwd-status=503; detail=stale-if-error");
    message_free(&m);
    return stale;
}

static void what_is_stale_stands_in_for_a_backend_that_fails(void **state)
{
    (void)state;
    struct house h;
    start(&h, fails, NULL, "stale_if_error = \"60s\"");
    static const char *const targets[] = {"/head", "/status"};
    for (size_t i = 0; i < 2; i++) {
        expect(&h, "GET", targets[i], "ETag", "\"a\"", "good", false);
        wait_until(is_stale(h.port, targets[i]), 5000);
        backend_forget(backend);
    }
    stop(&h);
}

/* ---- groups ---- */

static bool groups(struct asked *a)
{
    char lines[2048] = "Cache-Control: max-age=600\r\nCache-Groups: ";
    if (!strncmp(a->target, "/end", 4))
        return reply_ok(a, "Cache-Group-Invalidation: \"g31-xxxxxxxxxxxxxxxxxxxxxxxxxxxx\";p=1\r\n",
                        a->method);
    for (unsigned i = 0; i < 32; i++) {
        const size_t n = strlen(lines);
        snprintf(lines + n, sizeof lines - n, "\"g%02u-xxxxxxxxxxxxxxxxxxxxxxxxxxxx\"%s", i,
                 i < 31 ? ", " : "\r\n");
    }
    return reply_ok(a, lines, "member");
}

static bool becomes_hit(unsigned port, const char *target)
{
    struct message m;
    get(port, target, &m);
    const bool hit = is_hit(&m);
    message_free(&m);
    return hit;
}

static void only_unsafe_methods_invalidate_groups(void **state)
{
    (void)state;
    struct house h;
    start(&h, groups, NULL, "");
    wait_until(becomes_hit(h.port, "/a"), 5000);
    static const char *const safe[] = {"GET", "HEAD", "OPTIONS"};
    for (size_t i = 0; i < 3; i++) {
        request(h.port, safe[i], "/end", "", NULL, NULL);
        assert_true(becomes_hit(h.port, "/a"));
    }
    assert_int_equal(request(h.port, "PATCH", "/end", "", "x", NULL), 200);
    assert_false(becomes_hit(h.port, "/a"));
    stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_stale_stands_in_for_a_backend_that_fails),
        cmocka_unit_test(only_unsafe_methods_invalidate_groups),
        cmocka_unit_test(a_304_about_something_else_is_not_used),
        cmocka_unit_test(a_head_renews_what_it_describes),
        cmocka_unit_test(answers_to_post_are_kept_while_others_invalidate_other_things),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
