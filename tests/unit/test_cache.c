/* SPDX-License-Identifier: BSD-2-Clause */
/* Keys, records and checksums; how a reader follows the store is in test_keeper.c. */
#include "polder/cache.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t secret[32] = "0123456789abcdef0123456789abcde";

static bool same(const struct cache_key *a, const struct cache_key *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static struct cache_key key_of(const char *url, const char *partition)
{
    struct cache_key key;
    cache_key_of(secret, url, strlen(url), partition, partition ? strlen(partition) : 0, &key);
    return key;
}

static void keys_tell_urls_partitions_and_variants_apart(void **state)
{
    (void)state;
    const struct cache_key a = key_of("h/a", NULL), b = key_of("h/b", NULL);
    const struct cache_key pa = key_of("h/a", "x"), shifted = key_of("h/ax", NULL),
                           empty = key_of("h/a", "");
    struct cache_key variant, other;
    assert_false(same(&a, &b));
    assert_false(same(&a, &pa));
    assert_false(same(&pa, &shifted));
    assert_true(same(&a, &empty));
    cache_key_variant(secret, &a, "accept: x\n", 10, &variant);
    assert_false(same(&a, &variant));
    cache_key_variant(secret, &b, "accept: x\n", 10, &other);
    assert_false(same(&other, &variant));
    cache_key_variant(secret, &a, "accept: y\n", 10, &other);
    assert_false(same(&other, &variant));
    other = a;
    cache_key_variant(secret, &other, "accept: x\n", 10, &other); /* in place */
    assert_true(same(&other, &variant));
}

static void another_secret_makes_other_keys(void **state)
{
    (void)state;
    uint8_t changed[32];
    struct cache_key a = key_of("h/a", NULL), b;
    for (unsigned i = 0; i < sizeof changed; i++) {
        memcpy(changed, secret, sizeof changed);
        changed[i] ^= 1;
        cache_key_of(changed, "h/a", 3, NULL, 0, &b);
        assert_false(same(&a, &b));
    }
}

static void long_urls_have_keys_too(void **state)
{
    (void)state;
    char *url = malloc(9000);
    struct cache_key before = {{0}}, key;
    memset(url, 'u', 9000);
    for (size_t len = 900; len < 1100; len++) {
        cache_key_of(secret, url, len, "p", 1, &key);
        assert_false(same(&key, &before));
        before = key;
    }
    cache_key_of(secret, url, 9000, NULL, 0, &key);
    url[8999] = 'v';
    cache_key_of(secret, url, 9000, NULL, 0, &before);
    assert_false(same(&key, &before));
    free(url);
}

struct sample {
    struct cache_record r;
    char rest[64];
};

static size_t sample(struct sample *s, size_t body)
{
    memset(s, 0, sizeof *s);
    cache_record_init(&s->r);
    s->r.status = 200;
    s->r.url_len = 3;
    s->r.vary_len = 4;
    s->r.head_len = 5;
    s->r.inline_len = (uint32_t)body;
    s->r.body_len = body;
    s->r.slot = 5;
    memcpy(s->rest, "h/avaryhead!", 12);
    memset(s->rest + 12, 'b', body);
    const size_t len = cache_record_len(&s->r);
    const struct iovec iov = {s, len};
    s->r.checksum = cache_checksum(&iov, 1);
    return len;
}

static void a_view_shows_the_parts(void **state)
{
    (void)state;
    struct sample s;
    struct cache_view view;
    const size_t len = sample(&s, 9);
    assert_true(cache_record_sound(&s, len));
    cache_view_of(&s, &view);
    assert_memory_equal(view.url, "h/a", 3);
    assert_memory_equal(view.vary, "vary", 4);
    assert_memory_equal(view.head, "head!", 5);
    assert_memory_equal(view.body, "bbbbbbbbb", 9);
}

static void every_flipped_bit_is_noticed(void **state)
{
    (void)state;
    struct sample s;
    const size_t len = sample(&s, 20);
    for (size_t bit = 0; bit < len * 8; bit++) {
        char *byte = (char *)&s + bit / 8;
        *byte = (char)(*byte ^ 1 << bit % 8);
        assert_false(cache_record_sound(&s, len));
        *byte = (char)(*byte ^ 1 << bit % 8);
    }
    assert_true(cache_record_sound(&s, len));
}

static void lengths_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct sample s;
    const size_t len = sample(&s, 9), padded = (len + 7) & ~(size_t)7;
    assert_true(cache_record_fits(&s, len));
    assert_true(cache_record_fits(&s, padded));
    for (size_t other = 0; other < sizeof s; other++)
        if (other != len && other != padded)
            assert_false(cache_record_fits(&s, other));
    uint32_t *const fields[] = {&s.r.url_len, &s.r.vary_len, &s.r.head_len, &s.r.inline_len,
                                &s.r.n_tags,  &s.r.slot,     &s.r.url_slot};
    for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++) {
        const uint32_t before = *fields[i];
        *fields[i] = UINT32_MAX;
        assert_false(cache_record_fits(&s, len));
        *fields[i] = before;
    }
    s.r.flags = CACHE_CHUNKED_BODY; /* and inline bytes */
    assert_false(cache_record_fits(&s, len));
    s.r.flags = 0;
    s.r.body_len = 10;
    assert_false(cache_record_fits(&s, len));
    s.r.body_len = 9;
    s.r.version++;
    assert_false(cache_record_fits(&s, len));
}

static void a_checksum_does_not_depend_on_how_the_bytes_are_cut(void **state)
{
    (void)state;
    struct sample s;
    const size_t len = sample(&s, 30);
    for (size_t cut = sizeof s.r; cut < len; cut++) {
        const struct iovec iov[] = {{&s, cut}, {NULL, 0}, {(char *)&s + cut, len - cut}};
        assert_int_equal(cache_checksum(iov, 3), s.r.checksum);
    }
}

static void what_fits_inline_is_known_beforehand(void **state)
{
    (void)state;
    struct cache_record r;
    cache_record_init(&r);
    r.url_len = 100;
    r.head_len = 1000;
    const size_t room = cache_inline_room(&r);
    assert_int_equal(room, CACHE_VALUE_MAX - sizeof r - 1100);
    r.inline_len = (uint32_t)room;
    r.body_len = room;
    char *bytes = calloc(1, CACHE_VALUE_MAX + 8);
    memcpy(bytes, &r, sizeof r);
    assert_true(cache_record_fits(bytes, CACHE_VALUE_MAX));
    r.inline_len++;
    r.body_len++;
    memcpy(bytes, &r, sizeof r);
    assert_false(cache_record_fits(bytes, CACHE_VALUE_MAX + 1));
    free(bytes);
    r.head_len = 40000;
    assert_int_equal(cache_inline_room(&r), 0);
}

static void ids_sort_as_numbers(void **state)
{
    (void)state;
    uint8_t a[CACHE_CHUNK_KEY], b[CACHE_CHUNK_KEY];
    const uint64_t ids[] = {1, 255, 256, 65535, UINT64_C(1) << 40, UINT64_MAX};
    for (unsigned i = 0; i < 6; i++) {
        cache_id_key(ids[i], a);
        assert_int_equal(cache_id_of(a), ids[i]);
        cache_chunk_key(ids[i], 255, a);
        cache_chunk_key(ids[i], 256, b);
        assert_true(memcmp(a, b, sizeof a) < 0);
        if (i < 5) {
            cache_chunk_key(ids[i + 1], 0, a);
            assert_true(memcmp(b, a, sizeof a) < 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_tell_urls_partitions_and_variants_apart),
        cmocka_unit_test(another_secret_makes_other_keys),
        cmocka_unit_test(long_urls_have_keys_too),
        cmocka_unit_test(a_view_shows_the_parts),
        cmocka_unit_test(every_flipped_bit_is_noticed),
        cmocka_unit_test(lengths_that_do_not_fit_are_refused),
        cmocka_unit_test(a_checksum_does_not_depend_on_how_the_bytes_are_cut),
        cmocka_unit_test(what_fits_inline_is_known_beforehand),
        cmocka_unit_test(ids_sort_as_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
