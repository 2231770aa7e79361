/* SPDX-License-Identifier: BSD-2-Clause */
/* What of a request says who asks, and the request without it. */
#include "daemons/http/h1.h"
#include "daemons/worker/leak_guard/leak_guard.h"
#include "daemons/worker/leak_guard/leak_guard_fields.h"
#include "daemons/worker/message/guard.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "polder/config.h"
#include "polder/leak_guard.h"
#include "polder/inval.h"
#include "polder/problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

static struct h1_head head;
static char text[8192];
static struct config_cache cache;
static struct config_route route = {.cache = &cache};
static struct worker *worker;
static struct shared shared;

static struct request asking(const char *lines)
{
    enum problem problem;
    size_t scanned = 0;
    const int n = snprintf(text, sizeof text, "GET /x?y HTTP/1.1\r\nHost: h\r\n%s\r\n", lines);
    assert_int_equal(h1_parse_request(text, (size_t)n, &scanned, &head, &problem), H1_DONE);
    return (struct request){.worker = worker, .head = &head, .route = &route};
}

static struct guard_fields fields_of(const char *lines, const char *vary)
{
    struct cache_record rec = {.vary_len = (uint32_t)strlen(vary)};
    const struct cache_view v = {.record = &rec, .vary = vary};
    const struct request r = asking(lines);
    struct guard_fields k;
    guard_fields_list(&k, &r, &v);
    return k;
}

static void expect_names(const struct guard_fields *k, uint32_t bits, const char *want)
{
    char out[GUARD_NAMES];
    const size_t n = guard_fields_name(k, bits, out, sizeof out);
    assert_int_equal(n, strlen(want));
    assert_memory_equal(out, want, n);
}

static void expect_head(const struct guard_fields *k, uint32_t omits, const char *lines)
{
    char out[8192], want[8192];
    const size_t n = guard_fields_write(k, &head, omits, out, sizeof out);
    snprintf(want, sizeof want, "GET /x?y HTTP/1.1\r\nHost: h\r\n%s\r\n", lines);
    assert_int_equal(n, strlen(want));
    assert_memory_equal(out, want, n);
}

static void fields_and_cookies_are_told_apart(void **state)
{
    (void)state;
    const struct guard_fields k =
        fields_of("Cookie: sid=1; lang=de;a=b\r\nAccept: x\r\nX-Api-Key: k\r\nCookie: late=1\r\n"
                  "Authorization: Bearer t\r\n",
                  "");
    assert_int_equal(k.n, 6);
    expect_names(&k, 63,
                 "x-api-key, authorization, cookie:sid, cookie:lang, cookie:a, cookie:late");
    expect_head(&k, 1,
                "Cookie: sid=1; lang=de;a=b\r\nAccept: x\r\nCookie: late=1\r\n"
                "Authorization: Bearer t\r\n");
    expect_head(&k, 4,
                "Cookie: lang=de; a=b\r\nAccept: x\r\nX-Api-Key: k\r\nCookie: late=1\r\n"
                "Authorization: Bearer t\r\n");
    expect_head(&k, 32,
                "Cookie: sid=1; lang=de;a=b\r\nAccept: x\r\nX-Api-Key: k\r\n"
                "Authorization: Bearer t\r\n");
    expect_head(&k, 63, "Accept: x\r\n");
    expect_head(&k, 0,
                "Cookie: sid=1; lang=de;a=b\r\nAccept: x\r\nX-Api-Key: k\r\n"
                "Cookie: late=1\r\nAuthorization: Bearer t\r\n");
}

static void what_partition_and_variant_hold_stays(void **state)
{
    (void)state;
    cache.partition[0] = (struct config_key){CONFIG_KEY_COOKIE, "sid"};
    cache.partition[1] = (struct config_key){CONFIG_KEY_JWT, "sub"};
    cache.n_partition = 2;
    struct guard_fields k = fields_of("Cookie: sid=1; x=2\r\nAuthorization: Bearer t\r\n"
                                      "X-Tenant: nl\r\nX-User: u\r\n",
                                      "x-tenant: nl\nx-other\n");
    assert_int_equal(k.n, 2);
    expect_names(&k, 3, "x-user, cookie:x");
    expect_head(&k, 3, "Cookie: sid=1\r\nAuthorization: Bearer t\r\nX-Tenant: nl\r\n");
    k = fields_of("Cookie: x=2\r\n", "cookie: x=2\n");
    assert_int_equal(k.n, 0);
    cache.n_partition = 0;
}

static void more_cookies_than_places_share_the_last(void **state)
{
    (void)state;
    char lines[1024] = "Cookie: ", rest[64];
    for (int i = 0; i < 30; i++)
        snprintf(lines + strlen(lines), 64, "c%d=v%s", i, i < 29 ? "; " : "\r\n");
    const struct guard_fields k = fields_of(lines, "");
    assert_int_equal(k.n, GUARD_FIELDS_MAX);
    expect_names(&k, 1u << 15 | 1, "cookie:c0, cookie");
    expect_head(&k, (1u << GUARD_FIELDS_MAX) - 1, "");
    snprintf(rest, sizeof rest, "Cookie: c15=v");
    char out[2048];
    const size_t n = guard_fields_write(&k, &head, (1u << 15) - 1, out, sizeof out);
    assert_non_null(memmem(out, n, rest, strlen(rest)));
    assert_non_null(memmem(out, n, "c29=v", 5));
}

static void names_from_clients_are_harmless(void **state)
{
    (void)state;
    const struct guard_fields k = fields_of("Cookie: a\"b\\c,d=1; \xc3\xa9=2; =3; four\r\n", "");
    expect_names(&k, 7, "cookie:a?b?c?d, cookie:??, cookie:four");
}

static void vary_is_read_for_each_field(void **state)
{
    (void)state;
    enum { X_USER = 1, SID = 2 };
    const struct guard_fields k = fields_of("Cookie: sid=1\r\nX-User: u\r\n", "");
    static const struct {
        const char *vary;
        uint32_t bits;
    } rows[] = {{"Cookie", SID}, {"accept, X-USER", X_USER}, {"*", SID | X_USER}, {"origin", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct h1_head response;
        char bytes[256];
        size_t scanned = 0;
        const int n =
            snprintf(bytes, sizeof bytes,
                     "HTTP/1.1 200 OK\r\nVary: %s\r\nContent-Length: 0\r\n\r\n", rows[i].vary);
        assert_int_equal(h1_parse_response(bytes, (size_t)n, &scanned, false, &response), H1_DONE);
        assert_int_equal(guard_fields_varied(&k, &response), rows[i].bits);
    }
}

static uint64_t identity_of(const char *lines)
{
    const struct request r = asking(lines);
    return guard_identity(&r);
}

static void an_identity_is_who_asks_and_nothing_else(void **state)
{
    (void)state;
    const uint64_t ann = identity_of("Cookie: sid=ann\r\nX-User: 1\r\n");
    assert_int_equal(identity_of("Accept: x\r\n"), 0);
    assert_int_equal(ann, identity_of("x-user: 1\r\nAccept: y\r\nCookie: sid=ann\r\n"));
    assert_int_not_equal(ann, identity_of("Cookie: sid=bob\r\nX-User: 1\r\n"));
    assert_int_not_equal(ann, identity_of("Cookie: sid=ann\r\n"));
    assert_int_equal(ann & GUARD_ID_KINDS, GUARD_ID_COOKIE | GUARD_ID_OTHER);
    assert_int_equal(identity_of("Authorization: a\r\n") & GUARD_ID_KINDS, GUARD_ID_AUTHORIZATION);
}

static int set_up(void **state)
{
    (void)state;
    worker = worker_alloc();
    shared.inval =
        mmap(NULL, inval_page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!worker || shared.inval == MAP_FAILED)
        return -1;
    inval_page_init(shared.inval);
    static const struct config config;
    worker->config = &config;
    worker->shared = &shared;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    munmap(shared.inval, inval_page_size());
    free(worker);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_and_cookies_are_told_apart),
        cmocka_unit_test(what_partition_and_variant_hold_stays),
        cmocka_unit_test(more_cookies_than_places_share_the_last),
        cmocka_unit_test(names_from_clients_are_harmless),
        cmocka_unit_test(vary_is_read_for_each_field),
        cmocka_unit_test(an_identity_is_who_asks_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
