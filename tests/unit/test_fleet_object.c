/* SPDX-License-Identifier: BSD-2-Clause */
/* Shared objects as bytes: what is not signed for that name is not taken, nor what only one client may
 * have; and where an object of another host stands among the invalidations of this one. */
#include "daemons/control/model/fleet_marks.h"
#include "daemons/control/model/fleet_object.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct fleet_key key;
static struct fleet_object_name name;
static uint8_t bytes[FLEET_OBJECT_MAX];
static _Alignas(8) char record[RING_RECORD_MAX], space[FLEET_OBJECT_PLAIN];

static struct cache_record *rec(void)
{
    return (struct cache_record *)(void *)record;
}

static const char url[] = "example.org/a?b", vary[] = "x-kind: 1\n", head[] = "HTTP/1.1 200 OK\r\n",
                  origin[] = "https://example.org";

static struct str text(const char *s)
{
    return (struct str){s, strlen(s)};
}

static void name_of(const char *u, const char *partition, const char *v,
                    struct fleet_object_name *out)
{
    const struct fleet_object_of what = {text(u), text(partition), text(v)};
    fleet_object_name_of(&key, &what, out);
}

/* With a body of so many bytes that hardly compress, or do. */
static struct fleet_object sample(size_t body, bool random)
{
    struct fleet_key fleet;
    struct cache_record *r = rec();
    cache_record_init(r);
    r->status = 200;
    r->url_len = sizeof url - 1;
    r->vary_len = sizeof vary - 1;
    r->head_len = sizeof head - 1;
    r->body_len = r->inline_len = (uint32_t)body;
    char *at = record + sizeof *r;
    at = mempcpy(at, url, r->url_len);
    at = mempcpy(at, vary, r->vary_len);
    at = mempcpy(at, head, r->head_len);
    for (size_t i = 0; i < body; i++)
        at[i] = (char)(random ? rand() : 'x');
    fleet_key_make(&fleet, "prod", "a secret of sixteen");
    fleet_object_key(&fleet, &key);
    name_of(url, "", vary, &name);
    return (struct fleet_object){.epoch = 7,
                                 .applied = 8,
                                 .record = r,
                                 .record_len = cache_record_len(r),
                                 .origin = origin,
                                 .origin_len = sizeof origin - 1};
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    for (int random = 0; random < 2; random++) {
        struct fleet_object o = sample(20000, random), back;
        const size_t len = fleet_object_write(&o, &key, &name, bytes);
        assert_true(random ? len > 20000 : len > 0 && len < 2000);
        assert_int_equal(fleet_object_read(bytes, len, &key, &name, space, &back), 0);
        assert_int_equal(back.epoch, 7);
        assert_int_equal(back.applied, 8);
        assert_int_equal(back.record_len, o.record_len);
        assert_memory_equal(back.record, record, o.record_len);
        assert_int_equal(back.origin_len, sizeof origin - 1);
        assert_memory_equal(back.origin, origin, back.origin_len);
    }
}

static void long_bodies_stand_behind_the_rest(void **state)
{
    (void)state;
    static char body[FLEET_BODY_MAX + 1];
    struct fleet_object o = sample(0, false), back;
    memset(body, 'y', sizeof body);
    rec()->flags = CACHE_CHUNKED_BODY;
    o.body = body;
    for (o.body_len = FLEET_BODY_MAX - 1; o.body_len <= FLEET_BODY_MAX; o.body_len++) {
        rec()->body_len = o.body_len;
        const size_t len = fleet_object_write(&o, &key, &name, bytes);
        assert_true(len > 0);
        assert_int_equal(fleet_object_read(bytes, len, &key, &name, space, &back), 0);
        assert_int_equal(back.body_len, o.body_len);
        assert_memory_equal(back.body, body, o.body_len);
    }
    rec()->body_len = o.body_len;
    assert_int_equal(fleet_object_write(&o, &key, &name, bytes), 0);
    o.body_len = 10;
    assert_int_equal(fleet_object_write(&o, &key, &name, bytes), 0); /* not as long as it says */
}

static void what_is_not_signed_for_that_name_is_not_taken(void **state)
{
    (void)state;
    struct fleet_object o = sample(100, true), back;
    struct fleet_object_name other;
    struct fleet_key stranger;
    const size_t len = fleet_object_write(&o, &key, &name, bytes);
    name_of(url, "", "", &other);
    fleet_key_make(&stranger, "prod", "another one of sixteen");
    assert_int_equal(fleet_object_read(bytes, len, &key, &other, space, &back), -EPERM);
    assert_int_equal(fleet_object_read(bytes, len, &stranger, &name, space, &back), -EPERM);
    for (size_t n = 0; n < len; n++)
        assert_int_equal(fleet_object_read(bytes, n, &key, &name, space, &back), -EPERM);
    for (size_t i = 0; i < len; i++) {
        bytes[i] ^= 1;
        assert_int_equal(fleet_object_read(bytes, len, &key, &name, space, &back), -EPERM);
        bytes[i] ^= 1;
    }
    assert_int_equal(fleet_object_read(bytes, len, &key, &name, space, &back), 0);
    assert_null(strstr(name.hex, "example"));
}

static void names_tell_urls_and_variants_apart(void **state)
{
    (void)state;
    static const struct {
        const char *url, *partition, *vary;
    } of[] = {{"example.org/a", "", ""},       {"example.org/ab", "", ""},
              {"example.org/a", "", "b\n"},    {"example.org/a", "", "x-b\n"},
              {"example.org/ax-b\n", "", ""},  {"example.org/a", "b\n", ""},
              {"example.org/a", "b\n", "b\n"}, {"example.org/ab\n", "", "b\n"}};
    enum { N = sizeof of / sizeof *of };
    struct fleet_object_name names[N];
    sample(0, false);
    for (int i = 0; i < N; i++) {
        name_of(of[i].url, of[i].partition, of[i].vary, &names[i]);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(names[i].hex, names[k].hex);
    }
}

/* As export makes it. */
static struct fleet_object vary_record(const char *names)
{
    struct fleet_object o = sample(0, false);
    struct cache_record *r = rec();
    r->flags = CACHE_VARY_RECORD;
    r->head_len = 0;
    r->vary_len = (uint32_t)strlen(names);
    memcpy(record + sizeof *r + r->url_len, names, r->vary_len);
    o.record_len = cache_record_len(r);
    o.origin_len = 0;
    return o;
}

static void what_says_how_a_url_varies_is_written_and_read(void **state)
{
    (void)state;
    struct fleet_object o = vary_record("x-kind\nx-more\n"), back;
    const size_t len = fleet_object_write(&o, &key, &name, bytes);
    assert_true(len > 0);
    assert_int_equal(fleet_object_read(bytes, len, &key, &name, space, &back), 0);
    assert_memory_equal(back.record, record, o.record_len);
    o = vary_record("x-kind"); /* not a line */
    assert_int_equal(fleet_object_write(&o, &key, &name, bytes), 0);
    o = vary_record("");
    assert_int_equal(fleet_object_write(&o, &key, &name, bytes), 0);
    o = vary_record("x-kind\n");
    rec()->n_tags = 1;
    assert_int_equal(fleet_object_write(&o, &key, &name, bytes), 0);
    o = vary_record("x-kind\n");
    rec()->flags |= CACHE_FROM_FLEET;
    assert_int_equal(fleet_object_write(&o, &key, &name, bytes), 0);
}

static size_t written_with_status(uint16_t status)
{
    struct fleet_object o = sample(100, false);
    rec()->status = status;
    return fleet_object_write(&o, &key, &name, bytes);
}

static void whole_answers_of_any_status_are_written(void **state)
{
    (void)state;
    static const uint16_t good[] = {200, 203, 204, 301, 308, 404, 410, 501},
                          bad[] = {0, 100, 199, 206, 304, 600, 65535};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(written_with_status(good[i]) > 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(written_with_status(bad[i]), 0);
}

static void what_only_one_client_may_have_is_not_written(void **state)
{
    (void)state;
    static const uint32_t never[] = {CACHE_BY_IDENTITY, CACHE_OF_IDENTITY, CACHE_VARY_RECORD,
                                     CACHE_FROM_POST, CACHE_ENCODED};
    static const char cookie[] = "HTTP/1.1 200 OK\r\nset-Cookie: a=b\r\n";
    struct fleet_object o = sample(100, false);
    for (size_t i = 0; i < sizeof never / sizeof *never; i++) {
        rec()->flags = never[i];
        assert_int_equal(fleet_object_write(&o, &key, &name, bytes), 0);
    }
    o = sample(100, false);
    rec()->identity = 1;
    assert_int_equal(fleet_object_write(&o, &key, &name, bytes), 0);
    o = sample(100, false);
    rec()->head_len = sizeof cookie - 1;
    rec()->body_len = rec()->inline_len = 0;
    memcpy(record + sizeof *rec() + rec()->url_len + rec()->vary_len, cookie, sizeof cookie);
    o.record_len = cache_record_len(rec());
    assert_int_equal(fleet_object_write(&o, &key, &name, bytes), 0);
    o = sample(100, false);
    rec()->inline_len++;
    assert_int_equal(fleet_object_write(&o, &key, &name, bytes), 0);
}

static uint64_t before(struct fleet_page *page, uint64_t id, uint64_t now)
{
    uint64_t seq = UINT64_MAX - 1;
    return fleet_marks_before(page, id, now, &seq) ? seq : UINT64_MAX;
}

static void note(struct fleet_page *page, uint64_t id, uint64_t seq)
{
    fleet_marks_note(page, id, seq);
    atomic_store(&page->applied, id);
}

static void an_object_stands_before_all_later_entries(void **state)
{
    (void)state;
    struct fleet_page *page = calloc(1, sizeof *page);
    fleet_marks_begin(page, 100);
    atomic_store(&page->applied, 100);
    assert_true(before(page, 99, 50) == UINT64_MAX);  /* not known */
    assert_true(before(page, 101, 50) == UINT64_MAX); /* to come */
    assert_int_equal(before(page, 100, 50), 50);
    note(page, 101, 60);
    note(page, 102, 70);
    note(page, 103, 65); /* this host's own: its mark came before the one of 102 */
    assert_int_equal(before(page, 100, 90), 60);
    assert_int_equal(before(page, 101, 90), 65);
    assert_int_equal(before(page, 102, 90), 65);
    assert_int_equal(before(page, 103, 90), 90);
    assert_int_equal(before(page, 100, 40), 40);
    for (uint64_t id = 104; id <= 100 + FLEET_MARKS + 5; id++)
        note(page, id, id);
    assert_true(before(page, 104, UINT64_MAX) == UINT64_MAX); /* forgotten */
    assert_int_equal(before(page, 105, 1000000), 106);
    note(page, 100 + FLEET_MARKS + 6, 0); /* unknown: before everything */
    assert_int_equal(before(page, 50000, 1000000), 0);
    assert_int_equal(before(page, 100 + FLEET_MARKS + 6, 1000000), 1000000);
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(long_bodies_stand_behind_the_rest),
        cmocka_unit_test(what_is_not_signed_for_that_name_is_not_taken),
        cmocka_unit_test(names_tell_urls_and_variants_apart),
        cmocka_unit_test(what_says_how_a_url_varies_is_written_and_read),
        cmocka_unit_test(whole_answers_of_any_status_are_written),
        cmocka_unit_test(what_only_one_client_may_have_is_not_written),
        cmocka_unit_test(an_object_stands_before_all_later_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
