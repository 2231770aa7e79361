/* SPDX-License-Identifier: BSD-2-Clause */
/* What requests that say who asks share, what they keep for themselves, and what passes by. */
#include "harness.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct backend *backend;
static atomic_bool locked_out; /* requests without a credential are refused */
static atomic_uint gathered;
static unsigned refresh_share; /* of the next house; 0: what is stale stays so until it is read */

#define ALICE "Cookie: sid=alice\r\n"
#define BOB   "Cookie: sid=bob\r\n"
#define LOT   8

/* ---- the backend ---- */

static const struct {
    const char *path, *lines;
} kinds[] = {{"/silent", ""},
             {"/max-age", "Cache-Control: max-age=60\r\n"},
             {"/public", "Cache-Control: public, max-age=60\r\n"},
             {"/s-maxage", "Cache-Control: s-maxage=60\r\n"},
             {"/cdn", "CDN-Cache-Control: max-age=60\r\nCache-Control: no-store\r\n"},
             {"/bare", "Cache-Control: public\r\n"},
             {"/zero", "Cache-Control: public, max-age=0\r\nETag: \"1\"\r\n"},
             {"/cookie", "Cache-Control: max-age=60\r\nVary: Cookie\r\n"},
             {"/given", "Cache-Control: public, max-age=60\r\nSet-Cookie: s=1\r\nETag: \"1\"\r\n"},
             {"/renewed", "Cache-Control: public, max-age=1\r\nSet-Cookie: s=1\r\nETag: \"1\"\r\n"},
             {"/mine", "Cache-Control: public, max-age=1\r\nETag: \"1\"\r\n"},
             {"/short", "Cache-Control: max-age=1, stale-while-revalidate=60\r\n"},
             {"/soon", "Cache-Control: public, max-age=2\r\n"}};

/* What the last requests said of who asks: "TARGET|COOKIE|AUTHORIZATION\n". */
static char seen[1 << 20];
static pthread_mutex_t seen_lock = PTHREAD_MUTEX_INITIALIZER;

static void note(const struct asked *a)
{
    char line[1024];
    const char *cookie = field_of(&a->m, "Cookie");
    int n = snprintf(line, sizeof line, "%.200s|%.300s|", a->target, cookie ? cookie : "");
    const char *authorization = field_of(&a->m, "Authorization");
    n +=
        snprintf(line + n, sizeof line - (size_t)n, "%.300s\n", authorization ? authorization : "");
    pthread_mutex_lock(&seen_lock);
    const size_t have = strlen(seen);
    if (have + (size_t)n < sizeof seen)
        memcpy(seen + have, line, (size_t)n + 1);
    pthread_mutex_unlock(&seen_lock);
}

/* How many requests the backend has seen that began so: "/short|sid=alice|". */
static unsigned asked(const char *start)
{
    unsigned n = 0;
    pthread_mutex_lock(&seen_lock);
    for (const char *line = seen; *line; line = strchr(line, '\n') + 1)
        n += !strncmp(line, start, strlen(start));
    pthread_mutex_unlock(&seen_lock);
    return n;
}

static bool answers(struct asked *a)
{
    char body[600];
    const char *lines = "";
    note(a);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strstr(a->target, kinds[i].path))
            lines = kinds[i].lines;
    if (strstr(a->target, "together")) { /* all of them are here, or none gets an answer */
        const uint64_t end = mono_ms() + harness_patience(20000);
        if (atomic_fetch_add(&gathered, 1) > 0)
            while (atomic_load(&gathered) < LOT && mono_ms() < end)
                nap_ms(5);
    }
    if (strstr(a->target, "slow"))
        nap_ms(300);
    const bool known = field_of(&a->m, "Cookie") || field_of(&a->m, "Authorization");
    if (atomic_load(&locked_out) && !known)
        return reply(a, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
    if (strstr(a->target, "/mine") && field_of(&a->m, "If-None-Match"))
        return reply(a, "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nX-For: alice\r\n%s\r\n",
                     strstr(a->target, "stated") ? "Cache-Control: public, max-age=60\r\n" : "");
    if (field_of(&a->m, "If-None-Match"))
        return reply(a, "HTTP/1.1 304 Not Modified\r\n%s\r\n", lines);
    const char *cookie = field_of(&a->m, "Cookie");
    int n = snprintf(body, sizeof body, "for %.200s", cookie ? cookie : "all");
    const char *authorization = field_of(&a->m, "Authorization");
    snprintf(body + n, sizeof body - (size_t)n, "%.200s", authorization ? authorization : "");
    return reply_ok(a, lines, body);
}

static void start(struct house *h, unsigned workers, const char *cache)
{
    atomic_store(&locked_out, false);
    atomic_store(&gathered, 0);
    house_start(
        h, workers,
        "cache { leak_guard = 0 %s }\n"
        "upstream \"u\" { server \"127.0.0.1:%u\" { } refresh_share = %u }\n"
        "route \"/*\" { upstream = \"u\" cache { } }\n"
        "route \"/all/*\" { upstream = \"u\" cache { share = true } }\n"
        "route \"/rfc/*\" { upstream = \"u\" cache { share = \"rfc\" } }\n"
        "route \"/own/*\" { upstream = \"u\" cache { partition = \"identity\" } }\n"
        "route \"/sid/*\" { upstream = \"u\" cache { partition = \"cookie:sid\" } }\n"
        "route \"/poll/*\" { upstream = \"u\" cache { } poll { min_interval = \"30s\" } }\n",
        cache, backend_port(backend), refresh_share);
    backend_forget(backend);
    pthread_mutex_lock(&seen_lock);
    seen[0] = 0;
    pthread_mutex_unlock(&seen_lock);
}

/* ---- clients ---- */

static bool says(const struct house *h, const char *target, const char *lines, const char *status)
{
    struct message m;
    get_with(h->port, target, lines, &m);
    const char *got = m.status ? field_of(&m, "Cache-Status") : NULL;
    const bool said = got && strstr(got, status);
    message_free(&m);
    return said;
}

static void expect_status(const struct house *h, const char *target, const char *lines,
                          const char *status)
{
    struct message m;
    get_with(h->port, target, lines, &m);
    const char *got = m.status ? field_of(&m, "Cache-Status") : NULL;
    if (!got || !strstr(got, status))
        fail_msg("%s with %.60s: %s, wanted %s", target, lines, got ? got : "no status", status);
    message_free(&m);
}

static void expect_body(const struct house *h, const char *target, const char *lines,
                        const char *body)
{
    struct message m;
    assert_int_equal(get_with(h->port, target, lines, &m), 200);
    assert_string_equal(m.body, body);
    message_free(&m);
}

/* ---- stories ---- */

static void what_is_stated_to_be_for_all_is_shared(void **state)
{
    (void)state;
    static const char *const shared[] = {"/public", "/s-maxage", "/cdn"};
    static const char *const who[] = {ALICE, "Authorization: Bearer a\r\n", "X-Api-Key: k\r\n",
                                      "X-Auth-User: u\r\n", "Cookie: odd\r\n"};
    struct house h;
    char target[64];
    start(&h, 2, "");
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++)
        for (size_t k = 0; k < sizeof who / sizeof *who; k++) {
            snprintf(target, sizeof target, "%s/%zu", shared[i], k);
            expect_status(&h, target, who[k], "stored"); /* made by somebody */
            wait_until(says(&h, target, "", "polder; hit"), 5000);
            expect_status(&h, target, BOB, "polder; hit");
            snprintf(target, sizeof target, "%s/by-nobody/%zu", shared[i], k);
            expect_status(&h, target, "", "stored");
            wait_until(says(&h, target, who[k], "polder; hit"), 5000);
        }
    house_remove(&h);
}

static void all_else_passes_by_and_says_by_which_field(void **state)
{
    (void)state;
    static const char *const personal[] = {"/silent", "/max-age", "/bare", "/zero"};
    static const struct {
        const char *lines, *detail;
    } who[] = {
        {ALICE, "polder; fwd=bypass; detail=\"identity: cookie sid\""},
        {"Authorization: Bearer a\r\n", "detail=\"identity: authorization\""},
        {"X-Api-Key: k\r\nCookie: a=1; _ga=2; b\r\n",
         "detail=\"identity: x-api-key, cookie a, cookie ?\""},
        {"Proxy-Authorization: Basic a\r\n", "detail=\"identity: proxy-authorization\""},
        {"X-Shop-Token: 1\r\n", "detail=\"identity: x-shop-token\""},
        {"Cookie: q'!=1\r\n", "detail=\"identity: cookie q'!\""},
        {"Cookie: a\"b\\c=1\r\n", "detail=\"identity: cookie ?\""},
        {"Cookie: a23456789012345678901234567890123456789012345678901234567890=1\r\n",
         "cookie a234567890123456789012345678901234567890...\""},
    };
    struct house h;
    char target[64];
    start(&h, 2, "identity_headers = {\"X-Shop-*\"}");
    for (size_t i = 0; i < sizeof personal / sizeof *personal; i++)
        for (size_t k = 0; k < sizeof who / sizeof *who; k++) {
            snprintf(target, sizeof target, "%s/%zu", personal[i], k);
            for (int times = 0; times < 3; times++)
                expect_status(&h, target, who[k].lines, who[k].detail);
            expect_body(&h, target, "", "for all");
            if (i < 2)
                wait_until(says(&h, target, "", "polder; hit"), 5000);
            expect_status(&h, target, who[k].lines, who[k].detail);
        }
    const char *out;
    assert_int_equal(ctl(&h, &out, "--json cache stats"), 0);
    house_remove(&h);
}

static void a_long_list_of_names_is_cut(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char lines[4096] = "Cookie: ";
    for (int i = 0; i < 200; i++)
        snprintf(lines + strlen(lines), sizeof lines - strlen(lines), "c%d=1; ", i);
    strcat(lines, "\r\n");
    start(&h, 1, "");
    assert_int_equal(get_with(h.port, "/silent", lines, &m), 200);
    const char *status = field_of(&m, "Cache-Status");
    assert_non_null(strstr(status, "identity: cookie c0, cookie c1"));
    assert_non_null(strstr(status, ", ...\""));
    assert_true(strlen(status) < 260);
    message_free(&m);
    house_remove(&h);
}

/* The first time nobody knows that it will pass by, and the backend is asked without a coding. */
static void what_passes_by_is_compressed_all_the_same(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 1, "compress_min = 1");
    assert_int_equal(get_with(h.port, "/max-age/long", ALICE "Accept-Encoding: gzip\r\n", &m), 200);
    assert_non_null(strstr(field_of(&m, "Cache-Status"), "identity: cookie sid"));
    assert_string_equal(field_of(&m, "Content-Encoding"), "gzip");
    message_free(&m);
    house_remove(&h);
}

static void what_passes_by_leaves_no_trace(void **state)
{
    (void)state;
    static const struct {
        const char *method, *lines;
    } ways[] = {{"GET", ALICE},
                {"HEAD", ALICE},
                {"GET", ALICE "Range: bytes=0-1\r\n"},
                {"GET", ALICE "If-None-Match: \"0\"\r\n"},
                {"GET", ALICE "Prefer: wait=5\r\nIf-None-Match: \"0\"\r\n"},
                {"HEAD", "Authorization: Bearer a\r\n"}};
    struct house h;
    struct message m;
    start(&h, 2, "");
    expect_body(&h, "/max-age", "", "for all");
    wait_until(says(&h, "/max-age", "", "polder; hit"), 5000);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        const unsigned before = backend_calls(backend);
        assert_true(request(h.port, ways[i].method, "/max-age", ways[i].lines, NULL, &m) > 0);
        assert_non_null(strstr(field_of(&m, "Cache-Status"), "fwd=bypass"));
        message_free(&m);
        assert_int_equal(backend_calls(backend), before + 1);
        expect_body(&h, "/max-age", "", "for all");
        assert_int_equal(backend_calls(backend), before + 1);
    }
    assert_int_equal(get_with(h.port, "/max-age", ALICE "Cache-Control: only-if-cached\r\n", NULL),
                     504);
    /* but a change is a change, whoever makes it */
    assert_int_equal(request(h.port, "POST", "/max-age", ALICE, "", NULL), 200);
    assert_false(says(&h, "/max-age", "", "polder; hit"));
    house_remove(&h);
}

static void vary_that_names_all_of_it_keeps_a_copy_for_each(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2, "");
    expect_body(&h, "/cookie", ALICE, "for sid=alice");
    wait_until(says(&h, "/cookie", ALICE, "polder; hit"), 5000);
    expect_body(&h, "/cookie", BOB, "for sid=bob");
    wait_until(says(&h, "/cookie", BOB, "polder; hit"), 5000);
    expect_body(&h, "/cookie", ALICE, "for sid=alice");
    expect_body(&h, "/cookie", "", "for all");
    expect_status(&h, "/cookie", ALICE "X-Api-Key: k\r\n", "identity: cookie sid, x-api-key");
    expect_body(&h, "/cookie", ALICE "X-Api-Key: k\r\n", "for sid=alice");
    /* what is not sent does not select */
    expect_status(&h, "/cookie", "Cookie: _ga=7; sid=alice\r\n", "polder; hit");
    expect_status(&h, "/cookie", "Cookie: _gid=7\r\n", "polder; hit");
    house_remove(&h);
}

static void cookies_that_say_nothing_stay_here(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "ignore_cookies = {\"seen_*\"}");
    expect_body(&h, "/max-age/1", "Cookie: seen_a=1; seen_b=2\r\n", "for all");
    wait_until(says(&h, "/max-age/1", "Cookie: seen_c=3\r\n", "polder; hit"), 5000);
    expect_status(&h, "/max-age/1", "", "polder; hit");
    expect_body(&h, "/public/2", "Cookie: seen_a=1; sid=alice\r\n", "for sid=alice");
    /* what passes by goes as it came */
    expect_status(&h, "/max-age/1", "Cookie: seen_a=1; sid=alice\r\n", "bypass");
    expect_body(&h, "/max-age/1", "Cookie: seen_a=1; sid=alice\r\n", "for seen_a=1; sid=alice");
    expect_status(&h, "/max-age/1", "Cookie: _ga=1\r\n", "identity: cookie _ga");
    house_remove(&h);
}

static void a_route_may_say_that_nobody_matters(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2, "");
    expect_body(&h, "/all/silent", ALICE, "for sid=alice");
    wait_until(says(&h, "/all/silent", BOB, "polder; hit"), 5000);
    expect_body(&h, "/all/silent", "Authorization: Bearer x\r\n", "for sid=alice");
    /* RFC 9111 knows of Authorization alone */
    expect_body(&h, "/rfc/silent", ALICE, "for sid=alice");
    wait_until(says(&h, "/rfc/silent", BOB, "polder; hit"), 5000);
    expect_body(&h, "/rfc/silent", "Authorization: Bearer x\r\n", "for allBearer x");
    house_remove(&h);
}

static void a_partition_keeps_each_his_own(void **state)
{
    (void)state;
    static const char *const who[] = {ALICE,
                                      BOB,
                                      "Authorization: Bearer a\r\n",
                                      ALICE "X-Api-Key: k\r\n",
                                      "Cookie: sid\r\n",
                                      "Cookie: sid=\r\n"};
    struct house h;
    start(&h, 2, "");
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < sizeof who / sizeof *who; i++) {
            if (round == 0)
                expect_status(&h, "/own/max-age", who[i], "fwd=uri-miss");
            wait_until(says(&h, "/own/max-age", who[i], "polder; hit"), 5000);
        }
    expect_body(&h, "/own/max-age", ALICE, "for sid=alice");
    expect_body(&h, "/own/max-age", BOB, "for sid=bob");
    expect_body(&h, "/own/max-age", "", "for all");
    /* the ttl is for nobody in particular */
    for (int i = 0; i < 3; i++)
        expect_status(&h, "/own/silent", ALICE, "fwd=uri-miss");
    /* what is not wholly in the key */
    expect_body(&h, "/sid/max-age", ALICE, "for sid=alice");
    wait_until(says(&h, "/sid/max-age", ALICE, "polder; hit"), 5000);
    expect_status(&h, "/sid/max-age", ALICE "X-Api-Key: k\r\n", "identity: x-api-key");
    expect_status(&h, "/sid/max-age", "Cookie: sid=alice; x=1\r\n", "identity: cookie x");
    expect_status(&h, "/sid/max-age", "Cookie: sid=alice; sid=bob\r\n", "identity: cookie sid");
    house_remove(&h);
}

static void polls_are_kept_for_each(void **state)
{
    (void)state;
    static const char *const who[] = {"", ALICE, BOB, "Authorization: Bearer a\r\n"};
    struct house h;
    struct message m;
    start(&h, 2, "stale_while_revalidate = \"0s\"");
    for (size_t i = 0; i < sizeof who / sizeof *who; i++)
        wait_until(says(&h, "/poll/silent", who[i], "polder; hit"), 5000);
    const unsigned before = backend_calls(backend);
    for (int times = 0; times < 20; times++)
        for (size_t i = 0; i < sizeof who / sizeof *who; i++) {
            assert_int_equal(get_with(h.port, "/poll/silent", who[i], &m), 200);
            assert_int_equal(strstr(field_of(&m, "Cache-Control"), "private") != NULL, i > 0);
            message_free(&m);
        }
    expect_body(&h, "/poll/silent", ALICE, "for sid=alice");
    expect_body(&h, "/poll/silent", BOB, "for sid=bob");
    expect_body(&h, "/poll/silent", "", "for all");
    assert_int_equal(backend_calls(backend), before);
    house_remove(&h);
}

static void a_cookie_is_given_once(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 2, "stale_while_revalidate = \"0s\"");
    assert_int_equal(get(h.port, "/given", &m), 200);
    assert_non_null(field_of(&m, "Set-Cookie"));
    message_free(&m);
    wait_until(says(&h, "/given", "", "polder; hit"), 5000);
    assert_int_equal(get(h.port, "/given", &m), 200);
    assert_null(field_of(&m, "Set-Cookie"));
    message_free(&m);
    /* the same of a 304: who has asked gets it, the store does not */
    bool renewed = false;
    assert_int_equal(get(h.port, "/renewed", NULL), 200);
    const uint64_t end = mono_ms() + harness_patience(20000);
    while (!renewed && mono_ms() < end) {
        assert_int_equal(get(h.port, "/renewed", &m), 200);
        char status[200];
        snprintf(status, sizeof status, "%s", field_of(&m, "Cache-Status"));
        renewed = strstr(status, "fwd-status=304") != NULL;
        if (renewed)
            assert_non_null(field_of(&m, "Set-Cookie"));
        else if (strstr(status, "polder; hit"))
            assert_null(field_of(&m, "Set-Cookie"));
        message_free(&m);
        nap_ms(5);
    }
    assert_true(renewed);
    house_remove(&h);
    start(&h, 1, "store_set_cookie = true");
    assert_int_equal(get(h.port, "/given", NULL), 200);
    wait_until(says(&h, "/given", "", "polder; hit"), 5000);
    assert_int_equal(get(h.port, "/given", &m), 200);
    assert_non_null(field_of(&m, "Set-Cookie"));
    message_free(&m);
    house_remove(&h);
}

/* A 304 renews what all share only with fields that it says all may have. */
static void what_a_304_tells_somebody_is_his(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 1, "stale_while_revalidate = \"0s\"");
    for (int stated = 0; stated < 2; stated++) {
        const char *target = stated ? "/mine/stated" : "/mine";
        assert_int_equal(get(h.port, target, NULL), 200);
        wait_until(says(&h, target, "", "polder; hit"), 5000);
        wait_until(says(&h, target, ALICE, "fwd-status=304"), 10000);
        if (stated)
            wait_until(says(&h, target, BOB, "polder; hit"), 5000);
        assert_int_equal(get(h.port, target, &m), 200);
        if (!stated && strstr(field_of(&m, "Cache-Status"), "polder; hit"))
            assert_null(field_of(&m, "X-For"));
        message_free(&m);
    }
    const char *out;
    assert_int_equal(ctl(&h, &out, "--json cache show http://test.example/mine/stated"), 0);
    assert_non_null(strstr(out, "X-For"));
    house_remove(&h);
}

/* ---- waiting for another's fetch ---- */

/* Each with a cookie of his own; or all with the same. */
static void crowd(struct house *h, const char *target, bool same)
{
    struct message m;
    int fd[LOT];
    for (int i = 0; i < LOT; i++) {
        fd[i] = client_connect(h->port);
        client_send(fd[i], "GET %s HTTP/1.1\r\nHost: test.example\r\nCookie: sid=%d\r\n\r\n",
                    target, same ? 0 : i);
    }
    for (int i = 0; i < LOT; i++) {
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 200);
        message_free(&m);
        close(fd[i]);
    }
}

static void those_who_share_fetch_once_and_the_others_all_at_once(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2, "");
    crowd(&h, "/public/slow", false);
    assert_int_equal(asked("/public/slow|"), 1);
    crowd(&h, "/own/max-age/slow", true);
    assert_int_equal(asked("/own/max-age/slow|"), 1);
    /* nobody of these gets an answer before all have asked, but for the first */
    crowd(&h, "/max-age/together", false);
    assert_int_equal(asked("/max-age/together|"), LOT);
    house_remove(&h);
}

/* ---- with nobody waiting ---- */

static void what_is_fetched_behind_says_nothing_of_who_reads(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "");
    /* made by nobody, read by alice, fetched again behind her */
    expect_status(&h, "/all/short", "", "stored");
    wait_until(says(&h, "/all/short", ALICE, "stale-while-revalidate"), 10000);
    wait_until(asked("/all/short||") >= 2, 5000);
    assert_int_equal(asked("/all/short|sid=alice|"), 0);
    /* her own */
    expect_status(&h, "/own/short", ALICE, "stored");
    wait_until(says(&h, "/own/short", ALICE, "stale-while-revalidate"), 10000);
    wait_until(asked("/own/short|sid=alice|") >= 2, 5000);
    assert_int_equal(asked("/own/short||"), 0);
    house_remove(&h);
}

static void what_is_refreshed_ahead_says_nothing_of_who_reads(void **state)
{
    (void)state;
    struct house h;
    bool ahead = false;
    refresh_share = 10;
    start(&h, 1, "");
    refresh_share = 0;
    for (int i = 0; i < 8 && !ahead; i++) { /* where this machine is slow it may come too late */
        char target[64], hers[128], nobodys[128];
        bool late = false;
        snprintf(target, sizeof target, "/soon/%d", i);
        snprintf(hers, sizeof hers, "%s|sid=alice|", target);
        snprintf(nobodys, sizeof nobodys, "%s||", target);
        expect_status(&h, target, "", "stored");
        wait_until(says(&h, target, "", "polder; hit"), 5000);
        wait_until((says(&h, target, ALICE, ""), ahead = asked(nobodys) >= 2,
                    late = asked(hers) >= 1, ahead || late),
                   20000);
    }
    assert_true(ahead);
    house_remove(&h);
}

static void a_refusal_to_nobody_ends_no_copy(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "");
    expect_body(&h, "/all/short", "", "for all");
    wait_until(says(&h, "/all/short", "", "polder; hit"), 5000);
    atomic_store(&locked_out, true);
    const unsigned before = asked("/all/short|");
    wait_until(says(&h, "/all/short", ALICE, "stale-while-revalidate"), 10000);
    wait_until(asked("/all/short||") > before, 5000);
    for (int i = 0; i < 20; i++)
        expect_body(&h, "/all/short", ALICE, "for all");
    house_remove(&h);
}

static void copies_of_identities_take_a_quarter(void **state)
{
    (void)state;
    struct house h;
    char target[64], lines[64];
    const char *out;
    start(&h, 1, "max_items = 100");
    for (int i = 0; i < 50; i++) {
        snprintf(target, sizeof target, "/max-age/%d", i);
        assert_int_equal(get(h.port, target, NULL), 200);
    }
    for (int i = 0; i < 200; i++) {
        snprintf(lines, sizeof lines, "Cookie: sid=%d\r\n", i);
        assert_int_equal(get_with(h.port, "/own/max-age", lines, NULL), 200);
    }
    snprintf(lines, sizeof lines, "Cookie: sid=%d\r\n", 199);
    wait_until(says(&h, "/own/max-age", lines, "polder; hit"), 5000);
    unsigned items = 0;
    assert_int_equal(ctl(&h, &out, "--json cache stats"), 0);
    assert_int_equal(sscanf(strstr(out, "\"items\":"), "\"items\": %u", &items), 1);
    assert_int_equal(items, 75);
    for (int i = 0; i < 50; i++) { /* nobody's went for them */
        snprintf(target, sizeof target, "/max-age/%d", i);
        expect_status(&h, target, "", "polder; hit");
    }
    /* the bound holds over a restart, which reads them from the disk */
    assert_int_equal(house_stop(&h), 0);
    house_run(&h);
    wait_until(says(&h, "/max-age/1", "", "polder; hit"), 10000);
    for (int i = 300; i < 400; i++) {
        snprintf(lines, sizeof lines, "Cookie: sid=%d\r\n", i);
        assert_int_equal(get_with(h.port, "/own/max-age", lines, NULL), 200);
    }
    snprintf(lines, sizeof lines, "Cookie: sid=%d\r\n", 399);
    wait_until(says(&h, "/own/max-age", lines, "polder; hit"), 5000);
    assert_int_equal(ctl(&h, &out, "--json cache stats"), 0);
    assert_int_equal(sscanf(strstr(out, "\"items\":"), "\"items\": %u", &items), 1);
    assert_int_equal(items, 75);
    house_remove(&h);
}

/* What was shared while that was thought to be right is nobody's any more. */
static void other_rules_end_what_was_stored_under_them(void **state)
{
    (void)state;
    static const char conf[] =
        "cache { leak_guard = 0 %s }\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
        "route \"/*\" { upstream = \"u\" cache { } }\n";
    static const char *const then[] = {"", "identity_headers = {\"X-Who\"}"};
    static const char *const now[] = {"share = true", ""};
    static const char *const who[] = {ALICE, "X-Who: alice\r\n"};
    struct house h;
    char routes[512], target[32];
    for (size_t i = 0; i < 2; i++) {
        house_start(&h, 2, conf, now[i], backend_port(backend));
        snprintf(target, sizeof target, "/silent/rules/%zu", i);
        assert_int_equal(get_with(h.port, target, who[i], NULL), 200);
        wait_until(says(&h, target, "", "polder; hit"), 5000);
        snprintf(routes, sizeof routes, conf, then[i], backend_port(backend));
        house_write_conf(&h, 2, routes);
        assert_int_equal(ctl(&h, NULL, "reload"), 0);
        wait_until(says(&h, target, who[i], "identity: "), 10000);
        wait_until(says(&h, target, "", "polder; hit"), 5000);
        expect_body(&h, target, "", "for all");
        house_remove(&h);
    }
}

/* The same value of another field is somebody else, and what one parameter had no part in is not
 * the answer to who asks without it. */
static void other_keys_end_what_was_stored_under_them(void **state)
{
    (void)state;
    static const char conf[] =
        "cache { leak_guard = 0 %s }\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
        "route \"/*\" { upstream = \"u\" cache { } }\n";
    static const struct {
        const char *now, *who, *then, *other, *body;
    } t[] = {
        {"partition = \"cookie:sid\"", "Cookie: sid=1\r\n", "partition = \"cookie:user\"",
         "Cookie: user=1\r\n", "for user=1"},
        {"partition = \"header:X-API-Key\"", "X-API-Key: Basic 1\r\n",
         "partition = \"header:Authorization\"", "Authorization: Basic 1\r\n", "for allBasic 1"},
        {"partition = \"cookie:sid+cookie:user\"", "Cookie: sid=1; user=2\r\n",
         "partition = \"cookie:user+cookie:sid\"", "Cookie: user=1; sid=2\r\n",
         "for user=1; sid=2"},
    };
    struct house h;
    char routes[512], target[32];
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        house_start(&h, 2, conf, t[i].now, backend_port(backend));
        snprintf(target, sizeof target, "/max-age/keys/%zu", i);
        assert_int_equal(get_with(h.port, target, t[i].who, NULL), 200);
        wait_until(says(&h, target, t[i].who, "polder; hit"), 5000);
        snprintf(routes, sizeof routes, conf, t[i].then, backend_port(backend));
        house_write_conf(&h, 2, routes);
        assert_int_equal(ctl(&h, NULL, "reload"), 0);
        expect_body(&h, target, t[i].other, t[i].body);
        house_remove(&h);
    }
}

/* A cookie that was stored because that was wanted is given out no more once it is not. */
static void cookies_end_with_the_wish_to_store_them(void **state)
{
    (void)state;
    static const char conf[] =
        "cache { leak_guard = 0 %s }\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
        "route \"/*\" { upstream = \"u\" cache { } }\n";
    struct house h;
    struct message m;
    char routes[512];
    house_start(&h, 2, conf, "store_set_cookie = true", backend_port(backend));
    assert_int_equal(get_with(h.port, "/given/end", "", NULL), 200);
    wait_until(says(&h, "/given/end", "", "polder; hit"), 5000);
    snprintf(routes, sizeof routes, conf, "", backend_port(backend));
    house_write_conf(&h, 2, routes);
    assert_int_equal(ctl(&h, NULL, "reload"), 0);
    assert_int_equal(get_with(h.port, "/given/end", "", NULL), 200);
    wait_until(says(&h, "/given/end", "", "polder; hit"), 5000);
    get_with(h.port, "/given/end", "", &m);
    assert_null(field_of(&m, "Set-Cookie"));
    message_free(&m);
    house_remove(&h);
}

static void expect_why(struct house *h, const char *target, const char *words)
{
    const char *out;
    assert_int_equal(ctl(h, &out, "--json cache why http://test.example%s", target), 0);
    if (!strstr(out, words))
        fail_msg("no \"%s\" in %s", words, out);
}

static void an_operator_is_told_who_shares_what(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "");
    expect_status(&h, "/max-age", "", "stored");
    expect_status(&h, "/public", ALICE, "stored");
    expect_status(&h, "/all/silent", ALICE, "stored");
    expect_status(&h, "/own/max-age", ALICE, "stored");
    wait_until(says(&h, "/own/max-age", ALICE, "polder; hit"), 5000);
    expect_why(&h, "/max-age", "an anonymous request");
    expect_why(&h, "/max-age", "bypass it (fwd=bypass)");
    expect_why(&h, "/public", "an identified request");
    expect_why(&h, "/public", "share it while it is fresh");
    expect_why(&h, "/all/silent", "the route says share = true");
    expect_why(&h, "/own/max-age", "one identity, for itself");
    house_remove(&h);
}

static bool has_condition(struct house *h, const char *words)
{
    const char *out;
    return ctl(h, &out, "status") == 0 && strstr(out, "identity_bypass") && strstr(out, words);
}

static void where_most_pass_by_somebody_is_told(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "");
    for (int i = 0; i < 60; i++)
        get_with(h.port, "/max-age", i % 3 ? ALICE : "", NULL);
    wait_until(has_condition(&h, "cookie sid") && has_condition(&h, "ignore_cookies"), 5000);
    for (int i = 0; i < 60; i++)
        get(h.port, "/max-age", NULL);
    wait_until(!has_condition(&h, ""), 5000);
    /* not by one field */
    for (int i = 0; i < 90; i++) {
        char lines[64];
        snprintf(lines, sizeof lines, "X-Auth-%d: a\r\n", i % 3);
        get_with(h.port, "/max-age", lines, NULL);
    }
    assert_false(has_condition(&h, ""));
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_stated_to_be_for_all_is_shared),
        cmocka_unit_test(all_else_passes_by_and_says_by_which_field),
        cmocka_unit_test(a_long_list_of_names_is_cut),
        cmocka_unit_test(what_passes_by_leaves_no_trace),
        cmocka_unit_test(what_passes_by_is_compressed_all_the_same),
        cmocka_unit_test(vary_that_names_all_of_it_keeps_a_copy_for_each),
        cmocka_unit_test(cookies_that_say_nothing_stay_here),
        cmocka_unit_test(a_route_may_say_that_nobody_matters),
        cmocka_unit_test(a_partition_keeps_each_his_own),
        cmocka_unit_test(polls_are_kept_for_each),
        cmocka_unit_test(a_cookie_is_given_once),
        cmocka_unit_test(what_a_304_tells_somebody_is_his),
        cmocka_unit_test(those_who_share_fetch_once_and_the_others_all_at_once),
        cmocka_unit_test(what_is_fetched_behind_says_nothing_of_who_reads),
        cmocka_unit_test(what_is_refreshed_ahead_says_nothing_of_who_reads),
        cmocka_unit_test(a_refusal_to_nobody_ends_no_copy),
        cmocka_unit_test(copies_of_identities_take_a_quarter),
        cmocka_unit_test(where_most_pass_by_somebody_is_told),
        cmocka_unit_test(other_rules_end_what_was_stored_under_them),
        cmocka_unit_test(other_keys_end_what_was_stored_under_them),
        cmocka_unit_test(cookies_end_with_the_wish_to_store_them),
        cmocka_unit_test(an_operator_is_told_who_shares_what),
    };
    return run_with_backend(tests, &backend, answers);
}
