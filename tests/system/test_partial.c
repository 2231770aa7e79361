/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of ranges: parts of bodies are kept, joined and given again, and are never taken for the
 * whole. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE 200000u

static struct backend *backend;
static char content[SIZE + 1];
static atomic_uint version;

/* What a target asks for: how the backend's answers differ from good ones. */
static bool says(const struct asked *a, const char *what)
{
    return strstr(a->target, what) != NULL;
}

static void read_range(const struct asked *a, unsigned *first, unsigned *last)
{
    const char *range = field_of(&a->m, "Range");
    *first = 0;
    *last = SIZE - 1;
    if (!range)
        return;
    if (sscanf(range, "bytes=-%u", first) == 1)
        *first = SIZE - *first;
    else
        sscanf(range, "bytes=%u-%u", first, last);
    if (*last >= SIZE)
        *last = SIZE - 1;
}

#define DATE(second) "Wed, 04 Mar 2026 10:00:0" #second " GMT\r\n"
#define LAST         "Last-Modified: " DATE(0)

static bool ranges(struct asked *a)
{
    unsigned first, last;
    char etag[64];
    const unsigned v = atomic_load(&version);
    if (says(a, "stray")) /* a field that means nothing beside 200 */
        return reply_ok(a, "Cache-Control: max-age=600\r\nContent-Range: bytes 0-3/10\r\n",
                        "0123456789");
    if (says(a, "date")) /* the whole, made in the second of its last change, or later */
        return reply_ok(a,
                        says(a, "later")
                            ? "Cache-Control: max-age=2000000000\r\nDate: " DATE(1) LAST
                            : "Cache-Control: max-age=2000000000\r\nDate: " DATE(0) LAST,
                        "0123456789");
    snprintf(etag, sizeof etag, "ETag: %s\"v%u\"\r\n", says(a, "weak") ? "W/" : "", v);
    read_range(a, &first, &last);
    const bool whole = !field_of(&a->m, "Range");
    const unsigned len = last - first + 1;
    if (whole)
        return reply(a,
                     "HTTP/1.1 200 OK\r\nCache-Control: %s\r\n%sContent-Length: %u\r\n"
                     "X-Asked: %u\r\n\r\n",
                     says(a, "mixed") ? "no-cache" : "max-age=600", etag, len, a->number) &&
               reply_bytes(a, content, SIZE);
    if (says(a, "chunked")) /* one byte more than it says, or not */
        return reply(a,
                     "HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=600\r\n%s"
                     "Content-Range: bytes %u-%u/%u\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n",
                     etag, first, last, SIZE, len + says(a, "long")) &&
               reply_bytes(a, content + first, len + says(a, "long")) && reply(a, "\r\n0\r\n\r\n");
    if (!reply(a,
               "HTTP/1.1 206 Partial Content\r\nCache-Control: %s\r\n%s%sX-Asked: %u\r\n"
               "Content-Range: bytes %u-%u/%u\r\nContent-Length: %u\r\n\r\n",
               says(a, "private") ? "private, max-age=600" : "max-age=600",
               says(a, "none") ? "" : etag,
               says(a, "vary")    ? "Vary: X\r\n"
               : says(a, "multi") ? "Content-Type: Multipart/Byteranges; boundary=x\r\n"
                                  : "",
               a->number, first, last, says(a, "grows") ? SIZE + a->number : SIZE,
               says(a, "short") ? len - 1 : len))
        return false;
    if (says(a, "breaks"))
        return reply_bytes(a, content + first, len / 2) && false;
    return reply_bytes(a, content + first, says(a, "short") ? len - 1 : len);
}

/* A body that takes its time, until nobody wants it any more. */
static atomic_bool left;
static bool drips(struct asked *a)
{
    if (!reply(a, "HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=600\r\nETag: \"a\"\r\n"
                  "Content-Range: bytes 5-99999/100000\r\nContent-Length: 99995\r\n\r\n"))
        return false;
    const uint64_t end = mono_ms() + 10000;
    while (mono_ms() < end && reply_bytes(a, "x", 1))
        nap_ms(5);
    atomic_store(&left, mono_ms() < end);
    return false;
}

static void start(struct house *h, const char *cache)
{
    for (unsigned i = 0; i < SIZE; i++)
        content[i] = (char)('a' + (i * 7 + i / 251) % 26);
    atomic_store(&version, 1);
    backend = backend_start(ranges, NULL);
    house_start(h, 2,
                "cache { %s }\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                cache, backend_port(backend));
    backend_forget(backend);
}

static void stop(struct house *h)
{
    house_remove(h);
    backend_stop(backend);
}

/* Asks for a range (NULL: the whole), and checks that it is what was asked for, to the byte. True:
 * it came from the store. */
static bool ask_with(struct house *h, const char *target, const char *range, const char *lines)
{
    struct message m;
    char all[256], expected[64];
    unsigned first = 0, last = SIZE - 1, n = 0;
    snprintf(all, sizeof all, "%s%s%s%s", range ? "Range: bytes=" : "", range ? range : "",
             range ? "\r\n" : "", lines);
    assert_int_equal(get_with(h->port, target, all, &m), range ? 206 : 200);
    if (range) {
        assert_int_equal(sscanf(field_of(&m, "Content-Range"), "bytes %u-%u/%u", &first, &last, &n),
                         3);
        snprintf(expected, sizeof expected, "bytes %u-%u/%u", first, last, n);
        assert_string_equal(field_of(&m, "Content-Range"), expected); /* the only one */
    }
    assert_int_equal(m.body_len, last - first + 1);
    assert_memory_equal(m.body, content + first, m.body_len);
    const char *status = field_of(&m, "Cache-Status");
    const bool hit = status && strstr(status, "polder; hit");
    message_free(&m);
    return hit;
}

static bool ask(struct house *h, const char *target, const char *range)
{
    return ask_with(h, target, range, "");
}

/* Is it in the store? The backend is not asked. */
static bool has_with(struct house *h, const char *target, const char *range, const char *lines)
{
    char all[256];
    snprintf(all, sizeof all, "%s%s%s%sCache-Control: only-if-cached\r\n",
             range ? "Range: bytes=" : "", range ? range : "", range ? "\r\n" : "", lines);
    const int status = get_with(h->port, target, all, NULL);
    assert_true(status == 504 || status == (range ? 206 : 200));
    return status != 504;
}

static bool has(struct house *h, const char *target, const char *range)
{
    return has_with(h, target, range, "");
}

static void a_part_answers_the_ranges_within_it(void **state)
{
    (void)state;
    struct house h;
    start(&h, "");
    static const char *const part[] = {"1000-1999", "1000-90999", "1000-1999", "1000-90999"};
    static const char *const targets[] = {"/inline", "/in-pieces", "/chunked/1", "/chunked/2"};
    for (size_t i = 0; i < 4; i++) {
        assert_false(ask(&h, targets[i], part[i]));
        wait_until(has(&h, targets[i], part[i]), 5000);
        backend_forget(backend);
        assert_true(ask(&h, targets[i], "1000-1000"));
        assert_true(ask(&h, targets[i], "1999-1999"));
        assert_true(ask(&h, targets[i], "1500-1700"));
        assert_int_equal(backend_calls(backend), 0);
        assert_false(ask(&h, targets[i], "999-1000"));
        assert_false(ask(&h, targets[i], "190000-"));
    }
    stop(&h);
}

static void what_is_not_stored_as_a_part_comes_from_the_backend(void **state)
{
    (void)state;
    struct house h;
    start(&h, "");
    for (unsigned n = 0; n < 10; n++) {
        assert_false(ask(&h, "/private", "1000-1999"));
        assert_false(ask(&h, "/multi", "0-199999"));
    }
    for (unsigned n = 0; n < 10; n++) { /* its answers may lack what belongs to the whole */
        assert_false(ask_with(&h, "/if", "0-9", "If-Range: \"v1\"\r\n"));
        struct message m; /* 1000 bytes that are 999 */
        get_with(h.port, "/short", "Range: bytes=1000-1999\r\n", &m);
        assert_null(strstr(field_of(&m, "Cache-Status"), "hit"));
        message_free(&m);
        get_with(h.port, "/chunked/long", "Range: bytes=1000-1999\r\n", &m);
        assert_null(strstr(field_of(&m, "Cache-Status"), "hit"));
        message_free(&m);
        get_with(h.port, "/chunked/long", "Range: bytes=0-\r\n", NULL);
        assert_false(has(&h, "/chunked/long", NULL));
        get_with(h.port, "/short", "Range: bytes=0-\r\n", NULL);
        assert_false(has(&h, "/short", NULL));
        get_with(h.port, "/breaks", "Range: bytes=1000-1999\r\n", &m);
        assert_false(m.complete);
        message_free(&m);
    }
    stop(&h);
}

static void a_part_is_never_the_whole(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, "");
    wait_until(served_from_store(h.port, "/stray"), 5000);
    assert_int_equal(get_with(h.port, "/stray", "Range: bytes=4-5\r\n", &m), 206);
    assert_string_equal(field_of(&m, "Content-Range"),
                        "bytes 4-5/10"); /* one, joined by the harness */
    message_free(&m);
    assert_false(ask(&h, "/x", "0-999"));
    wait_until(has(&h, "/x", "0-999"), 5000);
    assert_false(ask(&h, "/x", NULL)); /* 200, with all of it */
    assert_false(ask(&h, "/y", "0-999"));
    wait_until(has(&h, "/y", "0-999"), 5000);
    backend_forget(backend); /* If-Range with another tag asks for the whole */
    get_with(h.port, "/y", "Range: bytes=0-9\r\nIf-Range: \"v0\"\r\n", &m);
    assert_int_equal(backend_calls(backend), 1);
    message_free(&m);
    assert_true(ask_with(&h, "/y", "0-9", "If-Range: \"v1\"\r\n"));
    assert_int_equal(get_with(h.port, "/y", "Range: bytes=0-9\r\nIf-None-Match: \"v1\"\r\n", &m),
                     304);
    message_free(&m);
    stop(&h);
}

static void a_date_guards_a_range_only_where_it_is_strong(void **state)
{
    (void)state;
    struct house h;
    start(&h, "");
    static const struct {
        const char *target, *if_range;
        int status;
    } cases[] = {{"/date/later", "If-Range: " DATE(0), 206},
                 {"/date/later", "If-Range: " DATE(1), 200},
                 {"/date/same", "If-Range: " DATE(0), 200}};
    for (size_t i = 0; i < 3; i++) {
        char lines[256];
        struct message m;
        snprintf(lines, sizeof lines, "Range: bytes=2-3\r\nCache-Control: only-if-cached\r\n%s",
                 cases[i].if_range);
        get(h.port, cases[i].target, NULL);
        wait_until(get_with(h.port, cases[i].target, "Cache-Control: only-if-cached\r\n", NULL) ==
                       200,
                   5000);
        assert_int_equal(get_with(h.port, cases[i].target, lines, &m), cases[i].status);
        assert_string_equal(m.body, cases[i].status == 206 ? "23" : "0123456789");
        message_free(&m);
    }
    stop(&h);
}

static void parts_that_touch_become_the_whole(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, "");
    assert_false(ask(&h, "/j", "50000-149999"));
    wait_until(has(&h, "/j", "50000-149999"), 5000);
    assert_false(ask(&h, "/j", "140000-")); /* overlaps */
    wait_until(has(&h, "/j", "50000-199999"), 5000);
    assert_false(ask(&h, "/j", "0-49999")); /* touches */
    wait_until(has(&h, "/j", "0-199999"), 5000);
    assert_true(ask(&h, "/j", NULL));
    assert_int_equal(backend_calls(backend), 3);
    assert_int_equal(get(h.port, "/j", &m), 200);
    assert_null(field_of(&m, "Content-Range"));
    assert_string_equal(field_of(&m, "X-Asked"), "3"); /* the newest head */
    message_free(&m);
    stop(&h);
}

static bool slowly(struct asked *a)
{
    nap_ms(300);
    return ranges(a);
}

static void a_storm_for_one_range_is_one_call(void **state)
{
    (void)state;
    struct house h;
    unsigned counts[1000] = {0};
    struct backend *slow = backend_start(slowly, NULL);
    house_start(&h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(slow));
    storm(h.port, "/x HTTP/1.1\r\nRange: bytes=0-49999\r\nRest:", 100, 50, counts, NULL);
    storm(h.port, "/x HTTP/1.1\r\nRange: bytes=0-\r\nRest:", 100, 50, counts, NULL);
    assert_int_equal(counts[206], 200);
    assert_int_equal(backend_calls(slow), 2);
    backend_forget(slow); /* what cannot be shared keeps nobody waiting */
    storm(h.port, "/private HTTP/1.1\r\nRange: bytes=0-49999\r\nRest:", 20, 20, counts, NULL);
    assert_int_equal(counts[206], 220);
    assert_int_equal(backend_calls(slow), 20);
    house_remove(&h);
    backend_stop(slow);
}

static void a_range_waits_for_the_whole_that_is_under_way(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    struct backend *slow = backend_start(slowly, NULL);
    house_start(&h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(slow));
    const int fd = client_connect(h.port);
    client_send(fd, "GET /x HTTP/1.1\r\nHost: test.example\r\n\r\n");
    wait_until(backend_calls(slow) == 1, 5000);
    assert_int_equal(get_with(h.port, "/x", "Range: bytes=5-9\r\n", &m), 206);
    assert_int_equal(m.body_len, 5);
    message_free(&m);
    assert_int_equal(request(h.port, "HEAD", "/x", "", NULL, NULL), 200);
    assert_int_equal(backend_calls(slow), 1);
    client_read(fd, &m, false);
    assert_int_equal(m.status, 200);
    message_free(&m);
    close(fd);
    house_remove(&h);
    backend_stop(slow);
}

static void what_is_partly_there_is_said_to_be(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, "");
    ask(&h, "/x", "0-99");
    wait_until(has(&h, "/x", "0-99"), 5000);
    get_with(h.port, "/x", "Range: bytes=50-199\r\n", &m);
    assert_string_equal(field_of(&m, "Cache-Status"),
                        "polder; fwd=partial; fwd-status=206; stored");
    message_free(&m);
    stop(&h);
}

static void one_answer_with_all_of_it_is_the_whole(void **state)
{
    (void)state;
    struct house h;
    start(&h, "");
    assert_false(ask(&h, "/none", "0-")); /* as players begin; needs no validator */
    wait_until(has(&h, "/none", NULL), 5000);
    stop(&h);
}

static void parts_without_a_strong_tag_are_used_but_never_joined(void **state)
{
    (void)state;
    struct house h;
    start(&h, "");
    static const char *const targets[] = {"/none", "/weak"};
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        assert_false(ask(&h, targets[i], "0-99999"));
        wait_until(has(&h, targets[i], "0-99999"), 5000);
        assert_false(ask(&h, targets[i], "100000-"));
        wait_until(has(&h, targets[i], "100000-"), 5000);
        assert_false(has(&h, targets[i], "0-99"));
        assert_false(has(&h, targets[i], NULL));
    }
    struct message m; /* no tag can be made of a part */
    assert_int_equal(get_with(h.port, "/none", "Range: bytes=100000-100009\r\n", &m), 206);
    assert_non_null(strstr(field_of(&m, "Cache-Status"), "hit"));
    assert_null(field_of(&m, "ETag"));
    message_free(&m);
    stop(&h);
}

static void parts_of_two_versions_are_never_joined(void **state)
{
    (void)state;
    struct house h;
    start(&h, "");
    assert_false(ask(&h, "/v", "0-99999"));
    wait_until(has(&h, "/v", "0-99999"), 5000);
    atomic_store(&version, 2);
    assert_false(ask(&h, "/v", "100000-"));
    wait_until(has(&h, "/v", "100000-"), 5000); /* the newer one is kept */
    assert_false(ask(&h, "/v", "0-99"));
    assert_false(ask(&h, "/grows", "0-99999")); /* another size under the same tag */
    wait_until(has(&h, "/grows", "0-99999"), 5000);
    assert_false(ask(&h, "/grows", "100000-199999"));
    wait_until(has(&h, "/grows", "100000-199999"), 5000);
    assert_false(ask(&h, "/grows", "0-99"));
    stop(&h);
}

static void a_part_older_than_what_is_stored_whole_is_not_used(void **state)
{
    (void)state;
    struct house h;
    start(&h, "");
    for (unsigned i = 0; i < 20; i++) { /* often within one tick of the clock */
        char target[32];
        snprintf(target, sizeof target, "/mixed/%u", i);
        atomic_store(&version, 1);
        assert_false(ask(&h, target, "0-99"));
        wait_until(has(&h, target, "0-99"), 5000);
        atomic_store(&version, 2);
        assert_false(ask(&h, target, NULL)); /* stored, but to be validated before each use */
        wait_until(!has(&h, target, "0-99"), 5000);
    }
    stop(&h);
}

static void parts_vary_and_are_invalidated_like_wholes(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, "");
    assert_false(ask_with(&h, "/vary", "0-99", "X: 1\r\n"));
    wait_until(has_with(&h, "/vary", "0-99", "X: 1\r\n"), 5000);
    assert_false(ask_with(&h, "/vary", "0-99", "X: 2\r\n"));
    assert_int_equal(ctl(&h, &out, "cache why test.example/vary"), 0);
    assert_non_null(strstr(out, "this is a part"));
    assert_int_equal(ctl(&h, &out, "cache invalidate test.example/vary"), 0);
    assert_false(ask_with(&h, "/vary", "0-99", "X: 1\r\n"));
    stop(&h);
}

static void a_part_that_its_client_gives_up_is_not_fetched_on(void **state)
{
    (void)state;
    struct house h;
    struct backend *slow = backend_start(drips, NULL);
    house_start(&h, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(slow));
    const int fd = client_connect(h.port);
    client_send(fd, "GET /x HTTP/1.1\r\nHost: a\r\nRange: bytes=5-\r\n\r\n");
    wait_until(backend_calls(slow) == 1, 5000);
    close(fd);
    wait_until(atomic_load(&left), 9000);
    house_remove(&h);
    backend_stop(slow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_part_answers_the_ranges_within_it),
        cmocka_unit_test(what_is_not_stored_as_a_part_comes_from_the_backend),
        cmocka_unit_test(a_part_is_never_the_whole),
        cmocka_unit_test(a_date_guards_a_range_only_where_it_is_strong),
        cmocka_unit_test(parts_that_touch_become_the_whole),
        cmocka_unit_test(a_storm_for_one_range_is_one_call),
        cmocka_unit_test(a_range_waits_for_the_whole_that_is_under_way),
        cmocka_unit_test(what_is_partly_there_is_said_to_be),
        cmocka_unit_test(one_answer_with_all_of_it_is_the_whole),
        cmocka_unit_test(parts_without_a_strong_tag_are_used_but_never_joined),
        cmocka_unit_test(parts_of_two_versions_are_never_joined),
        cmocka_unit_test(a_part_that_its_client_gives_up_is_not_fetched_on),
        cmocka_unit_test(a_part_older_than_what_is_stored_whole_is_not_used),
        cmocka_unit_test(parts_vary_and_are_invalidated_like_wholes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
