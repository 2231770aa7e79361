/* SPDX-License-Identifier: BSD-2-Clause */
/* What the keeper tells control about its store. */
#include "keeper_rig.h"
#include "daemons/rpc/client.h"

#define MIB ((uint64_t)1 << 20)

/* The last answer, copied out. */
static struct {
    bool done;
    enum rpc_error code;
    char message[256];
    msgpack_zone zone;
    msgpack_object result;
} answer;

static void on_answer(void *arg, enum rpc_error code, const char *message,
                      const msgpack_object *result)
{
    msgpack_sbuffer bytes;
    size_t at = 0;
    answer.done = true;
    answer.code = code;
    snprintf(answer.message, sizeof answer.message, "%s", message ? message : "");
    if (result) {
        msgpack_packer packer;
        msgpack_sbuffer_init(&bytes);
        msgpack_packer_init(&packer, &bytes, msgpack_sbuffer_write);
        msgpack_pack_object(&packer, *result);
        char *copy = msgpack_zone_malloc(&answer.zone, bytes.size);
        memcpy(copy, bytes.data, bytes.size);
        assert_int_equal(msgpack_unpack(copy, bytes.size, &at, &answer.zone, &answer.result),
                         MSGPACK_UNPACK_SUCCESS);
        msgpack_sbuffer_destroy(&bytes);
    }
    ev_break(arg, EVBREAK_ALL);
}

static void ask(struct rig *r, const char *method, const char *key, const char *text,
                uint64_t limit, const char *cursor)
{
    struct rpc_client client;
    struct rpc_out params;
    char path[128];
    struct ev_loop *loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    msgpack_zone_clear(&answer.zone);
    answer.done = false;
    snprintf(path, sizeof path, "%s/keeper.sock", r->dir);
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    if (text)
        rpc_out_str(&params, key, text);
    if (limit)
        rpc_out_u64(&params, "limit", limit);
    if (cursor)
        rpc_out_str(&params, "cursor", cursor);
    rpc_out_end(&params);
    rpc_client_init(&client, loop, path);
    rpc_client_call(&client, method, &params, 5000, on_answer, loop);
    ev_run(loop, 0);
    rpc_client_fini(&client);
    ev_loop_destroy(loop);
    assert_true(answer.done);
    if (answer.code && getenv("POLDER_TEST_VERBOSE"))
        print_message("%s: %s\n", method, answer.message);
}

static const msgpack_object *list_of(const char *key)
{
    const msgpack_object *list = rpc_in_get(&answer.result, key);
    assert_non_null(list);
    assert_int_equal(list->type, MSGPACK_OBJECT_ARRAY);
    return list;
}

static void on_mistake(void *arg, const char *line)
{
    (void)arg;
    print_error("%s\n", line);
}

static void start_with(struct rig *r, uint64_t max_items, uint64_t max_bytes)
{
    struct config_arena arena;
    char path[128];
    rig_init(r, max_items, max_bytes);
    snprintf(path, sizeof path, "%s/polder.conf", r->dir);
    FILE *f = fopen(path, "w");
    fprintf(f,
            "listen = {\"127.0.0.1:1\"}\nstate_dir = \"%s\"\nruntime_dir = \"%s\"\n"
            "upstream \"u\" { server \"127.0.0.1:2\" { } }\n"
            "route \"/*\" { upstream = \"u\" cache { } }\n",
            r->dir, r->dir);
    fclose(f);
    config_arena_init(&arena, r->sh.region[0]->arena,
                      SHARED_REGION_SIZE - sizeof(struct config_region));
    r->sh.region[0]->config = config_load(&arena, path, on_mistake, NULL);
    assert_non_null(r->sh.region[0]->config);
    rig_start(r);
}

static void start(struct rig *r)
{
    start_with(r, 100000, 64 * MIB);
}

static void list_goes_through_all_objects_page_by_page(void **state)
{
    struct rig r;
    char url[64], cursor[1024] = "";
    unsigned seen = 0, pages = 0;
    (void)state;
    start(&r);
    for (unsigned i = 0; i < 2500; i++) {
        snprintf(url, sizeof url, "h/%s/%05u", i % 2 ? "b" : "a", i);
        rig_must_store(&r, url, 1, 10);
    }
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 2500);
    char last[64] = "";
    for (;;) {
        ask(&r, "cache.list", "prefix", "h/b/", 300, cursor[0] ? cursor : NULL);
        assert_int_equal(answer.code, RPC_OK);
        const msgpack_object *list = list_of("objects");
        for (uint32_t i = 0; i < list->via.array.size; i++) {
            assert_true(rpc_in_text(&list->via.array.ptr[i], "url", url, sizeof url) > 0);
            assert_true(strcmp(url, last) > 0);
            assert_memory_equal(url, "h/b/", 4);
            memcpy(last, url, sizeof last);
            seen++;
        }
        pages++;
        if (rpc_in_text(&answer.result, "cursor", cursor, sizeof cursor) < 0)
            break;
    }
    assert_int_equal(seen, 1250);
    assert_int_equal(pages, 5);
    ask(&r, "cache.list", NULL, NULL, 0, NULL);
    assert_int_equal(list_of("objects")->via.array.size, 100);
    ask(&r, "cache.list", "prefix", "/a/0000", 0, NULL); /* of any host */
    assert_int_equal(list_of("objects")->via.array.size, 5);
    ask(&r, "cache.list", "prefix", "h/none", 0, NULL);
    assert_int_equal(answer.code, RPC_OK);
    assert_int_equal(list_of("objects")->via.array.size, 0);
    rig_free(&r);
}

/* In the order of their keys: hosts apart, then bytes, the long ones cut. */
static unsigned list_all(struct rig *r, const char *prefix, uint64_t limit, unsigned *pages)
{
    static char url[4096], last[4096];
    char cursor[1024] = "";
    unsigned seen = 0;
    last[0] = 0;
    for (*pages = 1;; ++*pages) {
        ask(r, "cache.list", "prefix", prefix, limit, cursor[0] ? cursor : NULL);
        assert_int_equal(answer.code, RPC_OK);
        const msgpack_object *list = list_of("objects");
        for (uint32_t i = 0; i < list->via.array.size; i++) {
            assert_true(rpc_in_text(&list->via.array.ptr[i], "url", url, sizeof url) > 0);
            assert_true(strncmp(url, last, 400) >= 0);
            memcpy(last, url, sizeof last);
        }
        seen += list->via.array.size;
        assert_true(list->via.array.size <= limit);
        if (rpc_in_text(&answer.result, "cursor", cursor, sizeof cursor) < 0)
            return seen;
        assert_true(*pages < 400);
    }
}

static void a_hundred_thousand_objects_are_listed_page_by_page(void **state)
{
    struct rig r;
    char url[64];
    unsigned pages;
    (void)state;
    start_with(&r, 200000, 1024 * MIB);
    for (unsigned i = 0; i < 100000; i++) {
        snprintf(url, sizeof url, "h%u/%05u/%u", i % 3, i / 10, i);
        rig_must_store(&r, url, 1, 1);
    }
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 100000);
    assert_int_equal(list_all(&r, NULL, 1000, &pages), 100000);
    assert_in_range(pages, 100, 130); /* one too slow to be full has a cursor as well */
    assert_int_equal(list_all(&r, "h1/", 1000, &pages), 33333);
    assert_int_equal(list_all(&r, "/0999", 1000, &pages), 100); /* it looks at all */
    rig_free(&r);
}

static void odd_bytes_and_long_urls_are_listed_too(void **state)
{
    struct rig r;
    static char url[1200], prefix[1200];
    unsigned pages;
    (void)state;
    start(&r);
    for (unsigned c = 1; c < 256; c++) { /* whatever bytes a key may have */
        snprintf(url, sizeof url, "odd/%c%c", (char)c, (char)(255 - c + (c == 255)));
        rig_must_store(&r, url, 1, 1);
    }
    memset(url, 'x', sizeof url);
    memcpy(url, "long/", 5);
    for (unsigned i = 0; i < 20; i++) { /* the same in the first 400 bytes */
        url[900] = (char)('a' + i);
        url[1000 + i] = 0;
        rig_must_store(&r, url, 1, 1);
        url[1000 + i] = 'x';
    }
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 275);
    assert_int_equal(list_all(&r, "long/", 3, &pages), 20);
    assert_int_equal(pages, 7);
    memcpy(prefix, url, 901);
    prefix[900] = 'c';
    prefix[901] = 0;
    assert_int_equal(list_all(&r, prefix, 3, &pages), 1);
    assert_int_equal(list_all(&r, prefix + 4, 3, &pages), 1); /* of all hosts */
    assert_int_equal(list_all(&r, "/xx", 3, &pages), 20);
    unsigned seen = 0;
    char cursor[1024] = "";
    do { /* not compared: what is no UTF-8 is shown as '?' */
        ask(&r, "cache.list", "prefix", "odd/", 7, cursor[0] ? cursor : NULL);
        assert_int_equal(answer.code, RPC_OK);
        seen += list_of("objects")->via.array.size;
    } while (rpc_in_text(&answer.result, "cursor", cursor, sizeof cursor) > 0);
    assert_int_equal(seen, 255);
    static const char *const bad[] = {"0", "zz", "+1", "-1", "0x", "AB", "6 ", "a\x01"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ask(&r, "cache.list", NULL, NULL, 0, bad[i]);
        assert_int_equal(answer.code, RPC_BAD_ARGUMENT);
    }
    static const char *const odd[] = {"00", "ff", "ffffffffffffffffffff", "6f64642f00"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) { /* made up, but harmless */
        ask(&r, "cache.list", "prefix", "odd/", 5, odd[i]);
        assert_int_equal(answer.code, RPC_OK);
    }
    rig_free(&r);
}

static void show_tells_what_is_known_of_one_url(void **state)
{
    struct rig r;
    char body[100], text[64];
    uint64_t n;
    (void)state;
    start(&r);
    rig_must_store(&r, "h/a?x=1", 1, 77);
    rig_must_store(&r, "h/ab", 1, 7);
    struct cache_record variant = rig_record(&r, "h/v", 1, RIG_HEAD);
    for (unsigned i = 0; i < 3; i++) { /* three variants of one URL */
        rig_key(&r, "h/v", &variant.key);
        snprintf(text, sizeof text, "accept: %u\n", i);
        cache_key_variant(inval_secret(r.sh.inval), &variant.key, text, strlen(text), &variant.key);
        rig_body("h/v", 1, body, sizeof body);
        rig_store_record(&r, 0, NULL, &variant, "h/v", body, sizeof body);
    }
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 5);
    ask(&r, "cache.show", "url", "http://H/a?x=1", 0, NULL);
    assert_int_equal(answer.code, RPC_OK);
    const msgpack_object *list = list_of("variants");
    assert_int_equal(list->via.array.size, 1);
    const msgpack_object *one = &list->via.array.ptr[0];
    assert_true(rpc_in_text(one, "url", text, sizeof text) > 0);
    assert_string_equal(text, "h/a?x=1");
    assert_true(rpc_in_text(one, "state", text, sizeof text) > 0);
    assert_string_equal(text, "fresh");
    assert_int_equal(rpc_in_u64(one, "bytes", UINT64_MAX, &n), 0);
    assert_int_equal(n, 77);
    assert_int_equal(rpc_in_u64(one, "status", UINT64_MAX, &n), 0);
    assert_int_equal(n, 200);
    inval_mark_url(r.sh.inval, "h/a?x=1", 7, false);
    ask(&r, "cache.show", "url", "/a?x=1", 0, NULL);
    assert_int_equal(answer.code, RPC_OK);
    assert_true(rpc_in_text(&list_of("variants")->via.array.ptr[0], "state", text, sizeof text) >
                0);
    assert_string_equal(text, "invalidated");
    ask(&r, "cache.show", "url", "h/v", 0, NULL);
    assert_int_equal(list_of("variants")->via.array.size, 3);
    for (uint32_t i = 0; i < 3; i++) /* each with what selects it, where the record says so */
        assert_non_null(rpc_in_get(&list_of("variants")->via.array.ptr[i], "variant"));
    ask(&r, "cache.show", "url", "http://h/none", 0, NULL);
    assert_int_equal(answer.code, RPC_NOT_FOUND);
    rig_free(&r);
}

static void wrong_questions_get_an_answer_too(void **state)
{
    struct rig r;
    (void)state;
    start(&r);
    ask(&r, "cache.list", NULL, NULL, 1001, NULL);
    assert_int_equal(answer.code, RPC_BAD_ARGUMENT);
    ask(&r, "cache.list", NULL, NULL, 0, "zz");
    assert_int_equal(answer.code, RPC_BAD_ARGUMENT);
    ask(&r, "cache.list", NULL, NULL, 0, "abc");
    assert_int_equal(answer.code, RPC_BAD_ARGUMENT);
    ask(&r, "cache.list", "colour", "red", 0, NULL);
    assert_int_equal(answer.code, RPC_BAD_ARGUMENT);
    ask(&r, "cache.show", NULL, NULL, 0, NULL);
    assert_int_equal(answer.code, RPC_BAD_ARGUMENT);
    ask(&r, "cache.show", "url", "", 0, NULL);
    assert_int_equal(answer.code, RPC_BAD_ARGUMENT);
    ask(&r, "cache.eat", NULL, NULL, 0, NULL);
    assert_int_equal(answer.code, RPC_NO_METHOD);
    rig_must_store(&r, "h/a", 1, 10);
    rig_wait(rig_look(&r, "h/a") == 1);
    rig_free(&r);
}

int main(void)
{
    msgpack_zone_init(&answer.zone, 65536);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(list_goes_through_all_objects_page_by_page),
        cmocka_unit_test(a_hundred_thousand_objects_are_listed_page_by_page),
        cmocka_unit_test(odd_bytes_and_long_urls_are_listed_too),
        cmocka_unit_test(show_tells_what_is_known_of_one_url),
        cmocka_unit_test(wrong_questions_get_an_answer_too),
    };
    const int rc = cmocka_run_group_tests(tests, NULL, NULL);
    msgpack_zone_destroy(&answer.zone);
    return rc;
}
