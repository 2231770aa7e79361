/* SPDX-License-Identifier: BSD-2-Clause */
/* The parts of a worker that need no socket: keys of limits, chains of buffers, turns of servers,
 * conditions. */
#include "daemons/worker/buffer.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/message/origin.h"
#include "daemons/worker/message/key_text.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/message/request_id.h"
#include "daemons/worker/fetch/store.h"
#include "daemons/worker/cache/conditions.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/config.h"
#include "polder/inval.h"
#include "polder/proc.h"
#include "polder/shared.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct h1_head head;
static char text[2048];

/* A request with these header lines. */
static struct request asking(const char *target, const char *lines)
{
    static struct config_route route = {.pattern = "/r/*"};
    enum problem problem;
    size_t scanned = 0;
    const int n =
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: h\r\n%s\r\n", target, lines);
    assert_int_equal(h1_parse_request(text, (size_t)n, &scanned, &head, &problem), H1_DONE);
    struct request r = {.head = &head, .route = &route};
    assert_int_equal(clientip_parse("192.0.2.7", 9, &r.ip), 0);
    return r;
}

static void expect_key(const struct request *r, enum config_key_kind kind, const char *name,
                       const char *value)
{
    const struct config_key part = {kind, name};
    char out[256];
    const int n = key_text_join(r, &part, 1, false, out, sizeof out);
    if (!value) {
        assert_int_equal(n, -ENOENT);
        return;
    }
    assert_int_equal(n, (int)strlen(value));
    assert_memory_equal(out, value, strlen(value));
}

static void a_key_is_read_from_where_it_is_said_to_be(void **state)
{
    (void)state;
    const struct request r = asking("/r/x?a=1&key=k2&keys=no&e=", "X-Api-Key: abc\r\n"
                                                                  "Cookie: a=b; sid=s1;  t = u\r\n"
                                                                  "Cookie: late=yes\r\n");
    expect_key(&r, CONFIG_KEY_HEADER, "x-api-key", "abc");
    expect_key(&r, CONFIG_KEY_HEADER, "x-api", NULL);
    expect_key(&r, CONFIG_KEY_COOKIE, "sid", "s1");
    expect_key(&r, CONFIG_KEY_COOKIE, "late", "yes");
    expect_key(&r, CONFIG_KEY_COOKIE, "si", NULL);
    expect_key(&r, CONFIG_KEY_QUERY, "key", "k2");
    expect_key(&r, CONFIG_KEY_QUERY, "e", "");
    expect_key(&r, CONFIG_KEY_QUERY, "ke", NULL);
    expect_key(&r, CONFIG_KEY_ROUTE, "", "/r/*");
}

static void expect_origin(struct request r, bool trusted, const char *url, const char *wanted)
{
    char out[ORIGIN_MAX];
    r.url = url;
    r.url_len = (uint32_t)strlen(url);
    r.trusted_peer = trusted;
    const size_t n = origin_text(&r, out);
    if (n != strlen(wanted) || memcmp(out, wanted, n))
        fail_msg("origin of %s: %.*s, wanted %s", url, (int)n, out, wanted);
}

static void the_origin_is_what_the_client_sees(void **state)
{
    (void)state;
    expect_origin(asking("/", ""), true, "h:8080/x?http://y/", "http://h:8080");
    expect_origin(asking("/", ""), true, "[::1]:81/x", "http://[::1]:81");
    expect_origin(asking("/", ""), true, "/x", "http://");
    const char *proto = "X-Forwarded-Proto: HTTPS\r\n";
    expect_origin(asking("/", proto), false, "h/x", "http://h");
    expect_origin(asking("/", proto), true, "h/x", "https://h");
    expect_origin(asking("/", proto), true, "h:443/x", "https://h");
    /* a list grows at its end: what stands before may be the client's own */
    expect_origin(asking("/", "X-Forwarded-Host: evil, Shop.example\r\n"
                              "X-Forwarded-Proto: evil ,https\r\n"),
                  true, "h/x", "https://shop.example");
    expect_origin(asking("/", "X-Forwarded-Host: a\r\nX-Forwarded-Host: b:80\r\n"), true, "h/x",
                  "http://b");
    expect_origin(asking("/", "Forwarded: proto=evil;host=evil\r\n"
                              "Forwarded: for=1.2.3.4, for=\"[::1]\" ; Host=\"s,;:443\";"
                              "proto=https\r\n"),
                  true, "h/x", "https://s,;");
    expect_origin(asking("/", "Forwarded: for=1.2.3.4;proto=https;host=s\r\n"
                              "X-Forwarded-Host: t\r\n"),
                  true, "h/x", "https://t");
    expect_origin(asking("/", "Forwarded: ;=;proto;host=\"\r\nX-Forwarded-Proto: ,\r\n"), true,
                  "h/x", "http://\"");
    char wide[1200] = "X-Forwarded-Host: ", cut[ORIGIN_MAX + 1] = "http://";
    memset(wide + 18, 'x', 1000);
    strcpy(wide + 1018, "\r\n");
    memset(cut + 7, 'x', ORIGIN_MAX - 7);
    expect_origin(asking("/", wide), true, "h/x", cut);
}

static void joined_keys_do_not_run_into_each_other(void **state)
{
    (void)state;
    const struct config_key parts[2] = {{CONFIG_KEY_HEADER, "a"}, {CONFIG_KEY_HEADER, "b"}};
    char one[64], two[64], small[3];
    struct request r = asking("/r/", "A: xy\r\nB: z\r\n");
    const int n = key_text_join(&r, parts, 2, true, one, sizeof one);
    assert_int_equal(key_text_join(&r, parts, 2, true, small, sizeof small), -ENOBUFS);
    r = asking("/r/", "A: x\r\nB: yz\r\n");
    assert_int_equal(key_text_join(&r, parts, 2, true, two, sizeof two), n);
    assert_memory_not_equal(one, two, (size_t)n);
}

static void a_claim_of_an_unverified_token_tells_callers_apart(void **state)
{
    (void)state;
    /* {"sub":"u-1","n":{"sub":"inner"},"tier":7} */
    struct request r = asking("/r/", "Authorization: Bearer eyJh.eyJzdWIiOiJ1LTEiLCJuIjp7InN1YiI6"
                                     "ImlubmVyIn0sInRpZXIiOjd9.c2ln\r\n");
    expect_key(&r, CONFIG_KEY_JWT, "sub", "u-1");
    expect_key(&r, CONFIG_KEY_JWT, "tier", "7");
    expect_key(&r, CONFIG_KEY_JWT, "inner", NULL);
    static const char *const broken[] = {"Authorization: Bearer\r\n",
                                         "Authorization: Bearer a\r\n",
                                         "Authorization: Bearer a.\r\n",
                                         "Authorization: Bearer a.e!.b\r\n",
                                         "Authorization: Bearer a.eyJzdWIiOiJ1.b\r\n",
                                         "Authorization: Basic a.eyJzdWIiOiJ1LTEifQ.b\r\n"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        r = asking("/r/", broken[i]);
        expect_key(&r, CONFIG_KEY_JWT, "sub", NULL);
    }
}

/* A partition's key holds the whole of what its parts name. */
static void the_key_of_a_partition_is_spelled_out(void **state)
{
    (void)state;
    const struct config_key jwt = {CONFIG_KEY_JWT, "sub"}, sid = {CONFIG_KEY_COOKIE, "sid"};
    char one[256], two[256];
    struct request r = asking("/r/", "Authorization: Bearer a.b.c\r\n");
    int n = key_text_join(&r, &jwt, 1, true, one, sizeof one);
    assert_int_equal(n, strlen("?Bearer a.b.c"));
    assert_memory_equal(one + 1, "Bearer a.b.c", (size_t)n - 1);
    r = asking("/r/", "Cookie: sid=\r\n"); /* there, and empty: not as if it were missing */
    assert_int_equal(key_text_join(&r, &sid, 1, true, two, sizeof two), 1);
    r = asking("/r/", "Cookie: other=1\r\n");
    assert_int_equal(key_text_join(&r, &sid, 1, true, two, sizeof two), -ENOENT);
}

static void a_chain_gives_back_what_was_put_in(void **state)
{
    (void)state;
    struct buffer_pool pool;
    struct chain c = {0};
    static char bytes[100000];
    buffer_pool_init(&pool, WORKER_BUFFER, 2);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 31 + i / 257);
    for (int round = 0; round < 2; round++) { /* one that was empty in between is as good */
        size_t put = 0, got = 0;
        for (size_t step = 1; put < sizeof bytes; step = step * 3 + 1) {
            const size_t n = step < sizeof bytes - put ? step : sizeof bytes - put;
            assert_true(chain_append(&pool, &c, bytes + put, n));
            put += n;
        }
        assert_int_equal(c.len, sizeof bytes);
        while (c.len) {
            struct iovec iov[8];
            assert_true(chain_iov(&c, iov, 8) > 0);
            const size_t n = iov[0].iov_len < 777 ? iov[0].iov_len : 777;
            assert_memory_equal(iov[0].iov_base, bytes + got, n);
            chain_drop(&pool, &c, n);
            got += n;
        }
        assert_int_equal(got, sizeof bytes);
    }
    assert_int_equal(pool.n_used, 0);
    assert_int_equal(pool.n_free, 2); /* of four */
    assert_true(chain_append(&pool, &c, bytes, 1));
    buffer_pool_trim(&pool); /* not while one is in use */
    assert_int_equal(pool.n_free, 1);
    chain_free(&pool, &c);
    assert_int_equal(c.len, 0);
    buffer_pool_trim(&pool);
    assert_int_equal(pool.n_free, 0);
}

struct servers_rig {
    struct worker *w;
    struct config config;
    struct config_server server[3];
    struct config_upstream upstream;
};

static struct servers_rig *servers_up(const uint32_t weight[3])
{
    struct servers_rig *r = calloc(1, sizeof *r);
    r->config.n_servers = 3;
    r->upstream = (struct config_upstream){.name = "u",
                                           .servers = r->server,
                                           .n_servers = 3,
                                           .timeout_ms = 2000,
                                           .connect_timeout_ms = 500};
    r->w = worker_alloc();
    r->w->config = &r->config;
    r->w->upstreams->servers = calloc(4, sizeof *r->w->upstreams->servers);
    r->w->mono_ms = 100000;
    for (uint32_t i = 0; i < 3; i++) {
        r->server[i] =
            (struct config_server){.index = i, .upstream = &r->upstream, .address.text = "s"};
        r->w->upstreams->servers[i].row = aligned_alloc(128, sizeof(struct server_row));
        memset(r->w->upstreams->servers[i].row, 0, sizeof(struct server_row));
        r->w->runtime.server[i].weight = weight[i];
        struct server_local *s = &r->w->upstreams->servers[i];
        server_load_open(&s->loads, NULL, s->row, 0, &s->alone);
    }
    return r;
}

static void servers_down(struct servers_rig *r)
{
    for (uint32_t i = 0; i < 3; i++)
        free(r->w->upstreams->servers[i].row);
    free(r->w->upstreams->servers);
    free(r->w);
    free(r);
}

/* The server's number; -1: none. */
static int chosen(struct servers_rig *r, uint64_t tried, bool repeatable,
                  struct pool_choice *choice)
{
    const struct pool_request wish = {&r->upstream, tried, 0, repeatable, NULL};
    return pool_choose(r->w, &wish, choice) == POOL_CHOSEN ? (int)choice->server->index : -1;
}

static void servers_take_turns_by_weight(void **state)
{
    (void)state;
    struct servers_rig *r = servers_up((const uint32_t[]){3, 1, 0});
    struct pool_choice choice;
    unsigned count[3] = {0};
    for (int i = 0; i < 400; i++)
        count[chosen(r, 0, true, &choice)]++;
    assert_int_equal(count[0], 300);
    assert_int_equal(count[1], 100);
    assert_int_equal(count[2], 0); /* weight 0 */
    assert_int_equal(chosen(r, 3, true, &choice), -1);
    servers_down(r);
}

static void a_server_that_is_down_gets_one_trial_at_a_time(void **state)
{
    (void)state;
    struct servers_rig *r = servers_up((const uint32_t[]){1, 1, 0});
    struct pool_choice choice;
    pool_failed(r->w, &r->server[0], SERVER_REFUSED, "refused the connection", 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(chosen(r, 0, true, &choice), 1);
        assert_false(choice.is_down);
    }
    assert_int_equal(chosen(r, 2, true, &choice), 0); /* none better */
    assert_true(choice.is_down);
    r->w->mono_ms += SERVER_PAUSE_MS;
    assert_int_equal(chosen(r, 0, false, &choice), 1); /* its failure would cost an answer */
    assert_int_equal(chosen(r, 0, true, &choice), 0);
    assert_int_equal(choice.lease_ms, r->w->mono_ms + 3500);
    const uint64_t lease_ms = choice.lease_ms;
    assert_int_equal(chosen(r, 0, true, &choice), 1); /* one at a time */
    pool_failed(r->w, &r->server[0], SERVER_TIMEOUT, "gave no response", lease_ms);
    r->w->mono_ms += SERVER_PAUSE_MS;
    assert_int_equal(chosen(r, 0, true, &choice), 1); /* the pause has doubled */
    r->w->mono_ms += SERVER_PAUSE_MS;
    assert_int_equal(chosen(r, 0, true, &choice), 0);
    pool_answered(r->w, &r->server[0], 200, true);
    unsigned count[3] = {0};
    for (int i = 0; i < 10; i++)
        count[chosen(r, 0, true, &choice)]++;
    assert_int_equal(count[0], 5);
    servers_down(r);
}

static void a_server_that_is_up_again_warms_up(void **state)
{
    (void)state;
    struct servers_rig *r = servers_up((const uint32_t[]){1, 1, 0});
    struct pool_choice choice;
    r->upstream.slow_start_ms = 10000;
    pool_failed(r->w, &r->server[0], SERVER_REFUSED, "refused the connection", 0);
    r->w->mono_ms += 5000;
    pool_answered(r->w, &r->server[0], 200, true);
    static const unsigned wanted[] = {10, 504, 1000}; /* parts of 1000: 1, 50 and 100 percent */
    for (unsigned i = 0; i < 3; i++) {
        unsigned count[3] = {0};
        for (unsigned n = 0; n < 1000 + wanted[i]; n++)
            count[chosen(r, 0, true, &choice)]++;
        assert_in_range(count[0], wanted[i] - 8, wanted[i] + 8);
        r->w->mono_ms += 5000;
    }
    servers_down(r);
}

static void where_all_are_down_all_are_asked(void **state)
{
    (void)state;
    struct servers_rig *r = servers_up((const uint32_t[]){1, 3, 0});
    struct pool_choice choice;
    unsigned count[3] = {0};
    for (int i = 0; i < 2; i++)
        pool_failed(r->w, &r->server[i], SERVER_REFUSED, "refused the connection", 0);
    for (int i = 0; i < 40; i++) {
        count[chosen(r, 0, true, &choice)]++;
        assert_true(choice.is_down);
    }
    assert_int_equal(count[0], 10);
    assert_int_equal(count[1], 30);
    servers_down(r);
}

/* The last one answers whatever it has. */
static void a_server_with_five_errors_in_a_row_is_ejected_but_not_the_last(void **state)
{
    (void)state;
    struct servers_rig *r = servers_up((const uint32_t[]){1, 1, 0});
    struct pool_choice choice;
    r->upstream.eject = true;
    for (int i = 0; i < 4; i++)
        pool_answered(r->w, &r->server[0], 500, false);
    pool_answered(r->w, &r->server[0], 404, false); /* the client's own */
    for (int i = 0; i < 4; i++)
        pool_answered(r->w, &r->server[0], 500 + (i ? 1 + (unsigned)i : 0), false);
    pool_answered(r->w, &r->server[0], 501, false); /* says nothing of the server */
    for (int i = 0; i < 4; i++)
        pool_answered(r->w, &r->server[0], 503, false);
    assert_true(server_is_up(r->w->upstreams->servers[0].row));
    pool_answered(r->w, &r->server[0], 503, false);
    assert_int_equal(server_view(r->w->upstreams->servers[0].row).state, SERVER_EJECTED);
    pool_answered(r->w, &r->server[0], 200, false); /* was under way before */
    for (int i = 0; i < 10; i++) {
        pool_answered(r->w, &r->server[1], 503, false);
        assert_int_equal(chosen(r, 0, true, &choice), 1);
    }
    r->w->mono_ms += 11001;
    assert_int_equal(chosen(r, 0, true, &choice), 0);
    pool_answered(r->w, &r->server[0], 200, true);
    unsigned count[3] = {0};
    for (int i = 0; i < 101; i++)
        count[chosen(r, 0, true, &choice)]++;
    assert_int_equal(count[0], 1); /* slow start */
    r->w->mono_ms += SERVER_RETURN_MS;
    for (int i = 0; i < 100; i++)
        count[chosen(r, 0, true, &choice)]++;
    assert_in_range(count[0], 50, 52);
    servers_down(r);
}

static void where_ejection_is_off_errors_are_answers(void **state)
{
    (void)state;
    struct servers_rig *r = servers_up((const uint32_t[]){1, 1, 0});
    for (int i = 0; i < 20; i++)
        pool_answered(r->w, &r->server[0], 500, false);
    assert_true(server_is_up(r->w->upstreams->servers[0].row));
    assert_int_equal(atomic_load(&r->w->upstreams->servers[0].row->errors[SERVER_STATUS]), 20);
    servers_down(r);
}

static void a_server_takes_as_many_as_it_may(void **state)
{
    (void)state;
    struct servers_rig *r = servers_up((const uint32_t[]){3, 1, 0});
    struct pool_choice choice;
    const struct pool_request any = {.upstream = &r->upstream};
    unsigned count[3] = {0};
    r->server[0].max_connections = 2;
    r->server[1].max_connections = 5;
    for (int i = 0; i < 7; i++)
        count[chosen(r, 0, true, &choice)]++;
    assert_int_equal(count[0], 2);
    assert_int_equal(count[1], 5);
    assert_int_equal(pool_choose(r->w, &any, &choice), POOL_FULL);
    assert_int_equal(chosen(r, 3, true, &choice), -1);
    pool_leave(r->w, &r->server[0]);
    assert_int_equal(chosen(r, 0, true, &choice), 0);
    assert_int_equal(pool_choose(r->w, &any, &choice), POOL_FULL);
    servers_down(r);
}

static void the_one_with_the_fewest_requests_for_its_weight_is_next(void **state)
{
    (void)state;
    struct servers_rig *r = servers_up((const uint32_t[]){2, 1, 0});
    struct pool_choice choice;
    unsigned count[3] = {0};
    r->upstream.balance = CONFIG_BALANCE_FEWEST;
    for (int i = 0; i < 30; i++)
        count[chosen(r, 0, true, &choice)]++;
    assert_int_equal(count[0], 20);
    assert_int_equal(count[1], 10);
    for (int i = 0; i < 6; i++)
        pool_leave(r->w, &r->server[1]);
    for (int i = 0; i < 6; i++)
        assert_int_equal(chosen(r, 0, true, &choice), 1);
    for (int i = 0; i < 1000; i++) { /* the other has much to do, and then not any more */
        assert_int_equal(chosen(r, 1, true, &choice), 1);
        pool_leave(r->w, &r->server[1]);
    }
    memset(count, 0, sizeof count);
    for (int i = 0; i < 30; i++)
        count[chosen(r, 0, true, &choice)]++;
    assert_in_range(count[0], 18, 22);
    servers_down(r);
}

static void a_backup_server_waits_until_no_other_is_up(void **state)
{
    (void)state;
    struct servers_rig *r = servers_up((const uint32_t[]){1, 1, 1});
    struct pool_choice choice;
    r->server[2].backup = true;
    for (int i = 0; i < 10; i++)
        assert_int_not_equal(chosen(r, 0, true, &choice), 2);
    pool_failed(r->w, &r->server[0], SERVER_REFUSED, "refused the connection", 0);
    assert_int_equal(chosen(r, 0, true, &choice), 1);
    atomic_store(&r->w->upstreams->servers[1].row->check, SERVER_CHECK_DOWN);
    assert_int_equal(chosen(r, 0, true, &choice), 2);
    assert_false(choice.is_down);
    assert_int_not_equal(chosen(r, 4, true, &choice), 2); /* tried */
    atomic_store(&r->w->upstreams->servers[1].row->check, SERVER_CHECK_DRAIN);
    assert_int_equal(chosen(r, 0, true, &choice), 2);
    assert_int_equal(chosen(r, 4, true, &choice), 1); /* rather than one that is down */
    assert_false(choice.is_down);
    servers_down(r);
}

static void a_server_may_ask_for_less_than_its_weight(void **state)
{
    (void)state;
    struct servers_rig *r = servers_up((const uint32_t[]){1, 1, 0});
    struct pool_choice choice;
    unsigned count[3] = {0};
    atomic_store(&r->w->upstreams->servers[0].row->check, UINT64_C(75) << 8); /* 25 % */
    for (int i = 0; i < 100; i++)
        count[chosen(r, 0, true, &choice)]++;
    assert_int_equal(count[0], 20);
    servers_down(r);
}

static void a_condition_is_met_by_the_same_tag_or_an_older_date(void **state)
{
    (void)state;
    struct request r = {0};
    const struct str tag = {"\"v1\"", 4};
    assert_false(conditions_not_modified(&r, tag, 1000));
    r.if_none_match = (struct str){"\"v0\", W/\"v1\"", 12};
    assert_true(conditions_not_modified(&r, tag, 0));
    assert_false(conditions_not_modified(&r, (struct str){"\"v2\"", 4}, 0));
    assert_false(conditions_not_modified(&r, (struct str){0}, 1000));
    r.if_none_match = (struct str){0};
    r.if_modified_since = (struct str){"Sun, 06 Nov 1994 08:49:37 GMT", 29};
    assert_true(conditions_not_modified(&r, tag, UINT64_C(784111777000)));
    assert_false(conditions_not_modified(&r, tag, UINT64_C(784111778000)));
    assert_false(conditions_not_modified(&r, tag, 0));
    r.if_modified_since = (struct str){"yesterday", 9};
    assert_false(conditions_not_modified(&r, tag, 1000));
}

static void a_variant_is_selected_by_the_fields_that_are_there(void **state)
{
    (void)state;
    static const char names[] = "accept-language\nx-absent\n";
    char out[256], small[10];
    const struct request r = asking("/r/", "Accept-Language: nl\r\n");
    const size_t n = stored_vary_text(&r, names, sizeof names - 1, out, sizeof out);
    assert_memory_equal(out, "accept-language: nl\nx-absent\n", n);
    assert_int_equal(n, strlen("accept-language: nl\nx-absent\n"));
    assert_int_equal(stored_vary_text(&r, names, sizeof names - 1, small, sizeof small), 0);
}

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, REQUEST_ID_LEN);
}

static void request_ids_are_hex_and_never_repeat(void **state)
{
    (void)state;
    enum { N = 100000 };
    static char ids[N][REQUEST_ID_LEN];
    struct worker *w = worker_alloc();
    assert_non_null(w);
    request_id_init(&w->messages->ids);
    for (int i = 0; i < N; i++) {
        struct request r = {.worker = w, .number = request_id_next(&w->messages->ids)};
        char line[64], space[REQUEST_ID_LEN];
        struct h1_out o = {line, line + sizeof line, false};
        request_id_put(&o, &r);
        assert_int_equal(o.at - line, 14 + REQUEST_ID_LEN + 2);
        assert_memory_equal(line, "X-Request-Id: ", 14);
        assert_memory_equal(o.at - 2, "\r\n", 2);
        memcpy(ids[i], line + 14, REQUEST_ID_LEN);
        for (int k = 0; k < REQUEST_ID_LEN; k++)
            assert_non_null(memchr("0123456789abcdef", ids[i][k], 16));
        assert_memory_equal(ids[i], ids[0], 8); /* the worker's */
        const struct str again = request_id_of(&r, space);
        assert_int_equal(again.len, REQUEST_ID_LEN);
        assert_memory_equal(again.at, ids[i], REQUEST_ID_LEN);
    }
    qsort(ids, N, REQUEST_ID_LEN, compare_ids);
    for (int i = 1; i < N; i++)
        assert_memory_not_equal(ids[i - 1], ids[i], REQUEST_ID_LEN);
    char tight[20];
    struct request r = {.worker = w, .number = 1};
    struct h1_out o = {tight, tight + sizeof tight, false};
    request_id_put(&o, &r);
    assert_true(o.overflow);
    free(w);
}

static void a_trusted_proxy_may_name_a_request(void **state)
{
    (void)state;
    struct worker *w = worker_alloc();
    static char wide[200];
    memset(wide, 'x', 129);
    const struct {
        const char *id;
        bool trusted, kept;
    } cases[] = {{"abc-1.2", true, true}, {"abc-1.2", false, false}, {"a b", true, false},
                 {"", true, false},       {"a\"b", true, false},     {wide, true, false}};
    request_id_init(&w->messages->ids);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char lines[256], space[REQUEST_ID_LEN];
        snprintf(lines, sizeof lines, "X-Request-Id: %s\r\n", cases[i].id);
        struct request r = asking("/", lines);
        r.worker = w;
        r.trusted_peer = cases[i].trusted;
        assert_int_equal(request_id_is_given(&r), cases[i].kept);
        const struct str id = request_id_of(&r, space);
        assert_int_equal(id.len, cases[i].kept ? strlen(cases[i].id) : REQUEST_ID_LEN);
    }
    free(w);
}

/* ---- connections of one client ---- */

/* An address of which both hashes say the same cell, as they do of one in so many. */
static struct clientip address_of_one_hash(const uint8_t secret[32])
{
    for (uint32_t i = 0;; i++) {
        const struct clientip ip = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10,
                                     (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i}};
        const uint64_t hash = clientip_hash(&ip, secret);
        if ((uint32_t)hash % SHARED_CLIENT_CELLS == (uint32_t)(hash >> 32) % SHARED_CLIENT_CELLS)
            return ip;
    }
}

static void each_client_may_have_as_many_connections_as_said(void **state)
{
    enum { MOST = 3 };
    static struct config config = {.max_connections_per_client = MOST};
    static struct shared shared;
    static const struct process process = {.workers = 1};
    struct worker *w = worker_alloc();
    static struct client c[MOST];
    (void)state;
    shared.inval = calloc(1, inval_page_size());
    shared.proc = calloc(1, sizeof *shared.proc);
    shared.clients = calloc(PROC_WORKER_SLOTS, sizeof *shared.clients);
    assert_true(w && shared.inval && shared.proc && shared.clients);
    inval_page_init(shared.inval);
    atomic_store(&shared.proc->slot[PROC_SLOT_WORKER0].state, PROC_READY);
    w->shared = &shared;
    w->config = &config;
    w->process = &process;
    w->slot = &shared.proc->slot[PROC_SLOT_WORKER0];
    w->loop = ev_loop_new(EVBACKEND_EPOLL);
    assert_int_equal(accept_start(w), 0);
    const struct clientip ip = address_of_one_hash(inval_secret(shared.inval));
    for (unsigned i = 0; i < MOST; i++) {
        c[i].worker = w;
        assert_true(accept_admit(&c[i], &ip));
    }
    accept_free(w);
    ev_loop_destroy(w->loop);
    free(shared.clients);
    free(shared.proc);
    free(shared.inval);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_is_read_from_where_it_is_said_to_be),
        cmocka_unit_test(request_ids_are_hex_and_never_repeat),
        cmocka_unit_test(a_trusted_proxy_may_name_a_request),
        cmocka_unit_test(the_origin_is_what_the_client_sees),
        cmocka_unit_test(joined_keys_do_not_run_into_each_other),
        cmocka_unit_test(a_claim_of_an_unverified_token_tells_callers_apart),
        cmocka_unit_test(the_key_of_a_partition_is_spelled_out),
        cmocka_unit_test(a_chain_gives_back_what_was_put_in),
        cmocka_unit_test(servers_take_turns_by_weight),
        cmocka_unit_test(a_server_that_is_down_gets_one_trial_at_a_time),
        cmocka_unit_test(a_server_that_is_up_again_warms_up),
        cmocka_unit_test(where_all_are_down_all_are_asked),
        cmocka_unit_test(a_server_with_five_errors_in_a_row_is_ejected_but_not_the_last),
        cmocka_unit_test(where_ejection_is_off_errors_are_answers),
        cmocka_unit_test(a_server_takes_as_many_as_it_may),
        cmocka_unit_test(the_one_with_the_fewest_requests_for_its_weight_is_next),
        cmocka_unit_test(a_backup_server_waits_until_no_other_is_up),
        cmocka_unit_test(a_server_may_ask_for_less_than_its_weight),
        cmocka_unit_test(a_condition_is_met_by_the_same_tag_or_an_older_date),
        cmocka_unit_test(a_variant_is_selected_by_the_fields_that_are_there),
        cmocka_unit_test(each_client_may_have_as_many_connections_as_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
