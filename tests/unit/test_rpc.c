/* SPDX-License-Identifier: BSD-2-Clause */
/* The bytes of the admin protocol are measured before anybody parses them; the table of methods
 * says what each one takes. */
#include "polder/rpc.h"
#include "polder/rpc_in.h"
#include "polder/rpc_out.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it wants them */
#include <cmocka.h>

/* ---- scan ---- */

/* One message with every type of msgpack in it. */
static void put_every_type(msgpack_packer *pk)
{
    static const char bytes[300] = {0};
    static const size_t len[] = {0, 1, 31, 32, 255, 256, 300};
    static const size_t ext[] = {1, 2, 4, 8, 16, 3, 255, 256};
    msgpack_pack_array(pk, 19);
    msgpack_pack_nil(pk);
    msgpack_pack_true(pk);
    msgpack_pack_false(pk);
    msgpack_pack_int(pk, -1);
    msgpack_pack_int(pk, -200);
    msgpack_pack_int64(pk, INT64_MIN);
    msgpack_pack_uint64(pk, 7);
    msgpack_pack_uint64(pk, 200);
    msgpack_pack_uint64(pk, 70000);
    msgpack_pack_uint64(pk, UINT64_MAX);
    msgpack_pack_int32(pk, -70000);
    msgpack_pack_int16(pk, -300);
    msgpack_pack_float(pk, 1.5f);
    msgpack_pack_double(pk, 1.5);
    msgpack_pack_array(pk, 2 * sizeof len / sizeof *len);
    for (size_t i = 0; i < sizeof len / sizeof *len; i++) {
        msgpack_pack_str(pk, len[i]);
        msgpack_pack_str_body(pk, bytes, len[i]);
        msgpack_pack_bin(pk, len[i]);
        msgpack_pack_bin_body(pk, bytes, len[i]);
    }
    msgpack_pack_array(pk, sizeof ext / sizeof *ext);
    for (size_t i = 0; i < sizeof ext / sizeof *ext; i++) {
        msgpack_pack_ext(pk, ext[i], 5);
        msgpack_pack_ext_body(pk, bytes, ext[i]);
    }
    msgpack_pack_map(pk, 20); /* map 16 */
    for (int i = 0; i < 40; i++)
        msgpack_pack_int(pk, i);
    msgpack_pack_array(pk, 0);
    msgpack_pack_map(pk, 0);
}

static void a_message_of_every_type_is_measured_to_the_byte(void **state)
{
    (void)state;
    msgpack_sbuffer b;
    msgpack_packer pk;
    msgpack_sbuffer_init(&b);
    msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
    put_every_type(&pk);
    const size_t len = b.size;
    put_every_type(&pk); /* what follows does not matter */
    for (size_t n = 0; n < len; n++) {
        uint8_t *cut = malloc(n ? n : 1); /* of its own, so that a byte too far is noticed */
        memcpy(cut, b.data, n);
        assert_int_equal(rpc_scan(cut, n), 0);
        free(cut);
    }
    for (size_t n = len; n <= b.size; n++)
        assert_int_equal(rpc_scan((const uint8_t *)b.data, n), len);
    msgpack_sbuffer_destroy(&b);
}

static void pieces_of_any_size_give_the_same(void **state)
{
    (void)state;
    msgpack_sbuffer b;
    msgpack_packer pk;
    msgpack_sbuffer_init(&b);
    msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
    put_every_type(&pk);
    for (size_t step = 1; step < b.size; step += 1 + step / 3) {
        struct rpc_scan_state s = {0};
        int64_t code = 0;
        size_t n = 0;
        while (code == 0) {
            n = n + step < b.size ? n + step : b.size;
            code = rpc_scan_on(&s, (const uint8_t *)b.data, n);
            assert_true(code == 0 || n == b.size);
        }
        assert_int_equal(code, b.size);
    }
    msgpack_sbuffer_destroy(&b);
}

static void what_cannot_be_a_message_is_known_by_its_first_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        int64_t code;
    } bad[] = {
        {"\xc1", 1, -EPROTO},                       /* never used */
        {"\x94\x00\x01\xc1", 4, -EPROTO},           /* deeper inside */
        {"\xdd\x08\x00\x00\x00", 5, -EPROTO},       /* 2^27 elements */
        {"\xdd\xff\xff\xff\xff", 5, -EPROTO},       /* 2^32 - 1 */
        {"\xdf\xff\xff\xff\xff", 5, -EPROTO},       /* as many pairs */
        {"\xdf\x00\x08\x00\x00", 5, -EPROTO},       /* 2^19 pairs: 1 MiB and the header */
        {"\xdb\xff\xff\xff\xff", 5, -EMSGSIZE},     /* a string of 4 GiB */
        {"\xc6\x00\x10\x00\x00", 5, -EMSGSIZE},     /* 1 MiB of bytes and the header */
        {"\xc9\xff\xff\xff\xff\x01", 6, -EMSGSIZE}, /* ext */
        {"\x92\xdb\x00\x0f\xff\xf0\x00", 7, 0},     /* may still fit */
        {"\x92\xdd\x00\x0f\xff\x00\xdb\x00\x10\x00\x00", 11, -EMSGSIZE},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const int64_t code = rpc_scan((const uint8_t *)bad[i].bytes, bad[i].len);
        if (code != bad[i].code)
            fail_msg("message %zu: %lld, not %lld", i, (long long)code, (long long)bad[i].code);
    }
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    uint8_t deep[RPC_DEPTH_MAX + 2];
    memset(deep, 0x91, sizeof deep);
    deep[RPC_DEPTH_MAX] = 0xc0;
    assert_int_equal(rpc_scan(deep, RPC_DEPTH_MAX + 1), RPC_DEPTH_MAX + 1);
    deep[RPC_DEPTH_MAX] = 0x91;
    deep[RPC_DEPTH_MAX + 1] = 0xc0;
    assert_int_equal(rpc_scan(deep, sizeof deep), -ELOOP);
    deep[RPC_DEPTH_MAX] = 0x90; /* an empty one holds nothing */
    assert_int_equal(rpc_scan(deep, RPC_DEPTH_MAX + 1), RPC_DEPTH_MAX + 1);
}

static void a_mebibyte_fits_and_not_a_byte_more(void **state)
{
    (void)state;
    uint8_t *b = calloc(1, RPC_MESSAGE_MAX + 1);
    const uint32_t len = RPC_MESSAGE_MAX - 5;
    for (uint32_t more = 0; more < 2; more++) {
        b[0] = 0xdb;
        for (int i = 0; i < 4; i++)
            b[1 + i] = (uint8_t)((len + more) >> (24 - 8 * i));
        assert_int_equal(rpc_scan(b, RPC_MESSAGE_MAX + 1),
                         more ? -EMSGSIZE : (int64_t)RPC_MESSAGE_MAX);
    }
    b[0] = 0xdd; /* lists of one element: not complete within the bound */
    b[1] = 0x00, b[2] = 0x0f, b[3] = 0xff, b[4] = 0xf0;
    for (size_t i = 5; i < RPC_MESSAGE_MAX; i++)
        b[i] = i % 2 ? 0xc0 : 0x91;
    assert_int_equal(rpc_scan(b, RPC_MESSAGE_MAX), -EMSGSIZE);
    free(b);
}

static void msgpack_c_agrees_about_random_bytes(void **state)
{
    (void)state;
    uint32_t seed = 12345;
    unsigned whole = 0;
    for (int round = 0; round < 200000; round++) {
        uint8_t bytes[24];
        for (size_t i = 0; i < sizeof bytes; i++) {
            seed = seed * 1664525 + 1013904223;
            bytes[i] = (uint8_t)(seed >> 24);
            if (seed >> 8 & 1) /* more of the types that hold others */
                bytes[i] = (uint8_t)(0x80 | (bytes[i] & 0x1f));
        }
        const int64_t len = rpc_scan(bytes, sizeof bytes);
        if (len <= 0)
            continue;
        size_t used = 0;
        msgpack_unpacked u;
        msgpack_unpacked_init(&u);
        const int code = msgpack_unpack_next(&u, (const char *)bytes, (size_t)len, &used);
        msgpack_unpacked_destroy(&u);
        assert_int_equal(code, MSGPACK_UNPACK_SUCCESS);
        assert_int_equal(used, len);
        whole++;
    }
    assert_true(whole > 1000);
}

/* ---- the table ---- */

static void every_method_is_found_by_its_name_and_nothing_else_is(void **state)
{
    (void)state;
    static const char *const none[] = {"",
                                       ".",
                                       "status.",
                                       ".status",
                                       "cache",
                                       "cache.",
                                       "cache.statss",
                                       "cache.stat",
                                       "caches.stats",
                                       "cache.stats.x",
                                       "Status"};
    for (int m = 0; m < RPC_METHODS; m++) {
        char name[64];
        snprintf(name, sizeof name, "%s%s%s", rpc_methods[m].noun,
                 rpc_methods[m].verb[0] ? "." : "", rpc_methods[m].verb);
        assert_int_equal(rpc_method_find(name, strlen(name)), m);
    }
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_int_equal(rpc_method_find(none[i], strlen(none[i])), -1);
    assert_int_equal(rpc_method_find(NULL, 0), -1); /* an empty name, as msgpack hands it out */
}

static void every_row_of_the_table_can_be_taken_apart(void **state)
{
    (void)state;
    struct rpc_args args;
    for (int m = 0; m < RPC_METHODS; m++) {
        assert_int_equal(rpc_args_parse(rpc_methods[m].args, &args), 0);
        assert_true(strlen(rpc_methods[m].help) > 5);
        for (unsigned i = 0; i < args.n; i++)
            for (unsigned k = 0; k < i; k++)
                assert_string_not_equal(args.at[i].name, args.at[k].name);
    }
    assert_int_equal(rpc_args_parse(rpc_methods[RPC_METHOD_CACHE_INVALIDATE].args, &args), 0);
    assert_int_equal(args.n, 6);
    assert_string_equal(args.at[0].name, "url");
    assert_int_equal(args.at[0].choice, 1);
    assert_int_equal(args.at[1].kind, RPC_ARG_OPTION);
    assert_int_equal(args.at[3].kind, RPC_ARG_FLAG);
    assert_int_equal(args.at[4].choice, 0);
    assert_false(args.at[4].required);
}

static void error_codes_have_names_and_names_codes(void **state)
{
    (void)state;
    for (int e = RPC_OK; e <= RPC_DENIED; e++)
        assert_int_equal(rpc_error_of(rpc_error_name((enum rpc_error)e)), e);
    assert_int_equal(rpc_error_of("no such error"), RPC_FAILED);
}

/* ---- values ---- */

static void numbers_come_as_numbers_or_as_text(void **state)
{
    (void)state;
    struct rpc_out o;
    msgpack_unpacked u;
    uint64_t n = 0;
    rpc_out_init(&o);
    rpc_out_map(&o, NULL);
    rpc_out_u64(&o, "number", 40);
    rpc_out_str(&o, "text", "40");
    rpc_out_str(&o, "bad", "-1");
    rpc_out_str(&o, "huge", "99999999999999999999");
    rpc_out_bool(&o, "yes", true);
    rpc_out_nil(&o, "nil");
    rpc_out_strn(&o, "nul", "a\0b", 3);
    rpc_out_strn(&o, "latin", "caf\xe9", 4);
    rpc_out_end(&o);
    assert_false(o.failed);
    msgpack_unpacked_init(&u);
    assert_int_equal(rpc_scan((const uint8_t *)o.buffer.data, o.buffer.size), o.buffer.size);
    assert_int_equal(msgpack_unpack_next(&u, o.buffer.data, o.buffer.size, NULL),
                     MSGPACK_UNPACK_SUCCESS);
    char text[16];
    assert_int_equal(rpc_in_u64(&u.data, "number", 100, &n), 0);
    assert_int_equal(n, 40);
    assert_int_equal(rpc_in_u64(&u.data, "text", 100, &n), 0);
    assert_int_equal(rpc_in_u64(&u.data, "text", 39, &n), -ERANGE);
    assert_int_equal(rpc_in_u64(&u.data, "bad", 100, &n), -EINVAL);
    assert_int_equal(rpc_in_u64(&u.data, "huge", UINT64_MAX, &n), -ERANGE);
    assert_int_equal(rpc_in_u64(&u.data, "absent", 100, &n), -ENOENT);
    assert_true(rpc_in_flag(&u.data, "yes"));
    assert_false(rpc_in_flag(&u.data, "absent"));
    assert_null(rpc_in_get(&u.data, "nil"));
    assert_int_equal(rpc_in_text(&u.data, "nul", text, sizeof text), -EINVAL);
    assert_int_equal(rpc_in_text(&u.data, "huge", text, sizeof text), -EINVAL);
    assert_int_equal(rpc_in_text(&u.data, "latin", text, sizeof text), 4);
    assert_string_equal(text, "caf?");
    const msgpack_object empty = {.type = MSGPACK_OBJECT_STR}; /* as it comes: without an address */
    assert_int_equal(rpc_in_object_text(&empty, text, sizeof text), 0);
    assert_string_equal(text, "");
    msgpack_unpacked_destroy(&u);
    rpc_out_fini(&o);
}

static void more_than_may_be_nested_is_never_written(void **state)
{
    (void)state;
    struct rpc_out o;
    rpc_out_init(&o);
    for (int i = 0; i <= RPC_DEPTH_MAX; i++)
        rpc_out_list(&o, NULL);
    for (int i = 0; i <= RPC_DEPTH_MAX; i++)
        rpc_out_end(&o);
    assert_true(o.failed);
    rpc_out_fini(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_of_every_type_is_measured_to_the_byte),
        cmocka_unit_test(pieces_of_any_size_give_the_same),
        cmocka_unit_test(what_cannot_be_a_message_is_known_by_its_first_bytes),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(a_mebibyte_fits_and_not_a_byte_more),
        cmocka_unit_test(msgpack_c_agrees_about_random_bytes),
        cmocka_unit_test(every_method_is_found_by_its_name_and_nothing_else_is),
        cmocka_unit_test(every_row_of_the_table_can_be_taken_apart),
        cmocka_unit_test(error_codes_have_names_and_names_codes),
        cmocka_unit_test(numbers_come_as_numbers_or_as_text),
        cmocka_unit_test(more_than_may_be_nested_is_never_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
