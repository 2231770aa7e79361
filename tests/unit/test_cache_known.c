/* SPDX-License-Identifier: BSD-2-Clause */
/* What a reader remembers of records: it may forget, but must not mistake one for another. */
#include "libshared/cache/cache_known.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* A record under a key whose index and tag bits are given. */
static struct cache_record record(uint64_t index, uint64_t tag, uint64_t id, uint32_t slot)
{
    struct cache_record r;
    cache_record_init(&r);
    memcpy(r.key.hash, &index, sizeof index);
    memcpy(r.key.hash + sizeof index, &tag, sizeof tag);
    r.obj_id = id;
    r.checksum = id * 1000003;
    r.slot = slot;
    return r;
}

static void what_was_verified_is_remembered_with_its_place(void **state)
{
    struct known_table t;
    (void)state;
    assert_int_equal(known_init(&t), 0);
    struct cache_record r = record(5, 0, 1, 3); /* all bits of an empty entry fit this tag */
    assert_null(known_find(&t, &r.key));
    assert_false(known_verified(&t, &r, 7));
    known_add(&t, &r, 7);
    const struct known *e = known_find(&t, &r.key);
    assert_non_null(e);
    assert_ptr_equal(e->record, &r);
    assert_int_equal(e->txn, 7);
    assert_int_equal(e->slot, 3);
    const struct cache_record moved = r;
    assert_true(known_verified(&t, &moved, 8));
    assert_ptr_equal(known_find(&t, &r.key)->record, &moved);
    assert_int_equal(known_find(&t, &r.key)->txn, 8);
    known_clear(&t);
    assert_null(known_find(&t, &r.key));
    assert_false(known_verified(&t, &r, 8));
    known_fini(&t);
}

static void other_bytes_under_the_same_key_are_not_taken_for_verified(void **state)
{
    struct known_table t;
    (void)state;
    assert_int_equal(known_init(&t), 0);
    struct cache_record r = record(5, 9, 1, 0), next = record(5, 9, 2, 0);
    known_add(&t, &r, 1);
    assert_false(known_verified(&t, &next, 1));
    r.checksum ^= 1;
    assert_false(known_verified(&t, &r, 1));
    known_add(&t, &next, 1); /* takes the place of the one before */
    assert_ptr_equal(known_find(&t, &r.key)->record, &next);
    assert_true(known_verified(&t, &next, 1));
    known_fini(&t);
}

static void of_three_in_one_bucket_the_two_latest_stay(void **state)
{
    struct known_table t;
    (void)state;
    assert_int_equal(known_init(&t), 0);
    const struct cache_record a = record(4, 1, 1, 0), b = record(5, 2, 2, 0),
                              c = record(4, 3, 3, 0);
    known_add(&t, &a, 1);
    known_add(&t, &b, 1);
    assert_ptr_equal(known_find(&t, &a.key)->record, &a);
    assert_ptr_equal(known_find(&t, &b.key)->record, &b);
    known_add(&t, &a, 2); /* where it is */
    assert_ptr_equal(known_find(&t, &b.key)->record, &b);
    known_add(&t, &c, 1);
    assert_ptr_equal(known_find(&t, &c.key)->record, &c);
    assert_ptr_equal(known_find(&t, &b.key)->record, &b);
    assert_null(known_find(&t, &a.key));
    known_fini(&t);
}

static void the_table_grows_with_the_slots_and_no_further_than_its_end(void **state)
{
    struct known_table t;
    (void)state;
    assert_int_equal(known_init(&t), 0);
    const struct cache_record low = record(6, 1, 1, 0), high = record(6 + KNOWN_FIRST, 2, 2, 0);
    known_add(&t, &low, 1);
    known_add(&t, &high, 1);
    const struct cache_record many = record(12, 3, 3, KNOWN_FIRST);
    known_add(&t, &many, 1);
    assert_int_equal(t.mask, 4 * KNOWN_FIRST - 1);
    assert_ptr_equal(known_find(&t, &low.key)->record, &low);
    assert_ptr_equal(known_find(&t, &many.key)->record, &many);
    assert_null(known_find(&t, &high.key)); /* looked for elsewhere now */
    assert_false(known_verified(&t, &high, 1));
    const struct cache_record last = record(UINT64_MAX, UINT64_MAX, 4, CACHE_SLOTS_MAX - 1);
    known_add(&t, &last, 1);
    assert_int_equal(t.mask, KNOWN_MAX - 1);
    assert_ptr_equal(known_find(&t, &last.key)->record, &last);
    known_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_verified_is_remembered_with_its_place),
        cmocka_unit_test(other_bytes_under_the_same_key_are_not_taken_for_verified),
        cmocka_unit_test(of_three_in_one_bucket_the_two_latest_stay),
        cmocka_unit_test(the_table_grows_with_the_slots_and_no_further_than_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
