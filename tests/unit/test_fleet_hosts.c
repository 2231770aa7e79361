/* SPDX-License-Identifier: BSD-2-Clause */
/* The store's list of hosts, which anybody may write who can write to the store: a host that was seen with a
 * lease is waited for, and counts for what it said itself. */
#include "daemons/control/model/fleet_hosts.h"
#include "daemons/control/model/fleet_object.h"
#include "polder/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define EPOCH UINT64_C(1700000000000000001)
#define NOW   UINT64_C(1700000010000)

static struct fleet_page page;
static struct config_fleet config = {.name = "f", .host = "amber", .secret = "a secret"};
static struct fleet_base base = {.config = &config, .page = &page};
static struct fleet_hosts hosts;

struct record {
    char name[80], value[FLEET_RECORD_MAX];
};
/* As the store would have written it. */
static struct record record_of(const char *host, const struct fleet_record *r, const char *secret)
{
    struct record out;
    struct fleet_key fleet, key;
    char tail[FLEET_TAIL_SIZE];
    fleet_key_make(&fleet, "f", secret);
    fleet_record_key(&fleet, &key);
    fleet_record_tail(r, host, &key, tail);
    snprintf(out.name, sizeof out.name, "%s", host);
    snprintf(out.value, sizeof out.value, "%" PRIx64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %s",
             r->instance, r->epoch, r->applied, r->until_ms, tail);
    return out;
}

static struct record birch(uint64_t seq, uint64_t applied)
{
    return record_of("birch",
                     &(struct fleet_record){.instance = 0xb,
                                            .epoch = EPOCH,
                                            .applied = applied,
                                            .until_ms = NOW + FLEET_LEASE_MS,
                                            .seq = seq},
                     "a secret");
}

/* The list has these n. */
static void take(const struct record *r, size_t n)
{
    redisReply element[160], *list[160], all = {.type = REDIS_REPLY_ARRAY, .element = list};
    const redisReply none = {.type = REDIS_REPLY_STRING, .str = (char[]){""}};
    memset(element, 0, sizeof element);
    for (size_t i = 0; i < 2 * n; i++) {
        const char *text = i % 2 ? r[i / 2].value : r[i / 2].name;
        element[i] = (redisReply){
            .type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t)text, .len = strlen(text)};
        list[i] = &element[i];
    }
    all.elements = 2 * n;
    fleet_hosts_take(&hosts, &all, 0, &none, NOW);
    fleet_hosts_drop(&hosts);
}

static int begin(void **state)
{
    (void)state;
    atomic_store(&page.instance, 0xa);
    fleet_key_make(&base.key, config.name, config.secret);
    fleet_hosts_init(&hosts, &base);
    return 0;
}

static const struct fleet_known_host *the_host(void)
{
    assert_int_equal(hosts.n, 1);
    assert_true(hosts.at[0].ours);
    return &hosts.at[0];
}

static void a_record_says_what_was_signed(void **state)
{
    (void)state;
    struct fleet_record r;
    struct record b = birch(7, 12);
    struct fleet_key key = hosts.key;
    const size_t len = strlen(b.value);
    assert_int_equal(fleet_record_read("birch", 5, b.value, len, &key, &r), 0);
    assert_int_equal(r.instance, 0xb);
    assert_int_equal(r.applied, 12);
    assert_int_equal(r.seq, 7);
    assert_int_equal(r.format, FLEET_FORMAT);
    assert_int_equal(r.entry, FLEET_ENTRY_VERSION);
    assert_int_equal(r.object, FLEET_OBJECT_VERSION);
    assert_string_equal(r.program, POLDER_VERSION);
    assert_int_equal(fleet_record_read("cedar", 5, b.value, len, &key, &r), -EPERM);
    for (size_t at = 0; at < len; at++) { /* each byte, but those of UNTIL */
        const char was = b.value[at];
        b.value[at] = was == '1' ? '2' : '1';
        const int rc = fleet_record_read("birch", 5, b.value, len, &key, &r);
        const bool is_until = rc == 0;
        assert_true(!is_until || (at >= strlen("b 1700000000000000001 12 ") &&
                                  at < strlen("b 1700000000000000001 12 1700000013000")));
        b.value[at] = was;
        assert_true(fleet_record_read("birch", 5, b.value, at, &key, &r) < 0);
    }
    static const char *const none[] = {"",
                                       " ",
                                       "b",
                                       "b 1 1",
                                       "b 1 1 x",
                                       "-1 1 1 1",
                                       "b  1 1 1",
                                       "b 18446744073709551616 1 1",
                                       "b 1 1 18446744073709551615"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_int_equal(fleet_record_read("h", 1, none[i], strlen(none[i]), &key, &r), -EINVAL);
    assert_int_equal(fleet_record_read("h", 1, "b 1 2 3", 7, &key, &r), -EPERM);
    assert_int_equal(r.format, 1);
}

static void a_host_that_was_taken_out_of_the_list_is_waited_for(void **state)
{
    (void)state;
    const struct record b = birch(1, 5);
    take(&b, 1);
    assert_true(fleet_hosts_lives(&hosts, the_host()));
    take(NULL, 0);
    assert_true(fleet_hosts_lives(&hosts, the_host()));
    assert_false(the_host()->listed);
}

static void what_others_write_in_its_place_counts_for_nothing(void **state)
{
    (void)state;
    struct record b = birch(1, 5), forged = b;
    take(&b, 1);
    /* more than it has applied, an end of its lease, another's signature, an earlier record of its own */
    snprintf(forged.value, sizeof forged.value, "b %" PRIu64 " 999 %" PRIu64, EPOCH, NOW + 3000);
    take(&forged, 1);
    assert_int_equal(hosts.n, 2); /* it is shown */
    assert_int_equal(hosts.at[0].is.applied, 5);
    assert_true(fleet_hosts_lives(&hosts, &hosts.at[0]));
    assert_false(fleet_hosts_lives(&hosts, &hosts.at[1]));
    assert_non_null(strstr(hosts.wrong, "birch: a host that is not signed"));
    forged = b;
    memcpy(strstr(forged.value, "1700000013000"), "1600000013000", 13);
    take(&forged, 1);
    assert_true(fleet_hosts_lives(&hosts, the_host()));
    assert_non_null(strstr(hosts.wrong, "birch: its lease was changed"));
    const struct record later = birch(2, 6),
                        other = record_of("birch",
                                          &(struct fleet_record){.instance = 0xb,
                                                                 .epoch = EPOCH,
                                                                 .applied = 900,
                                                                 .until_ms = NOW + 1,
                                                                 .seq = 3},
                                          "another secret");
    take(&later, 1);
    assert_string_equal(hosts.wrong, "");
    assert_int_equal(the_host()->is.applied, 6);
    take(&other, 1);
    assert_int_equal(hosts.at[0].is.applied, 6);
    take(&b, 1);
    assert_int_equal(the_host()->is.applied, 6);
    assert_non_null(strstr(hosts.wrong, "an earlier record"));
    assert_true(fleet_hosts_lives(&hosts, the_host()));
}

/* A replica may lack the last renewals of a host, and a store that was restarted from its file many. */
static void a_store_that_was_behind_has_earlier_records(void **state)
{
    (void)state;
    const struct record earlier = birch(1, 5), later = birch(9, 6);
    take(&later, 1);
    fleet_hosts_begin(&hosts);
    take(&earlier, 1);
    assert_string_equal(hosts.wrong, "");
    take(&earlier, 1);
    assert_string_equal(hosts.wrong, "");
    assert_int_equal(the_host()->is.applied, 6); /* it counts for nothing */
    take(&later, 1);
    assert_string_equal(hosts.wrong, "");
    take(&earlier, 1);
    assert_non_null(strstr(hosts.wrong, "an earlier record"));
}

/* A lease is no longer than it can be, and what the store says when it ends is believed as far as that can be. */
static void a_lease_ends(void **state)
{
    (void)state;
    struct record b =
        record_of("birch",
                  &(struct fleet_record){
                      .instance = 0xb, .epoch = EPOCH, .until_ms = NOW + 9000000, .seq = 1},
                  "a secret");
    take(&b, 1);
    assert_true(the_host()->lives_ms <= clock_mono_ms() + FLEET_LEASE_MS);
    hosts.looked_ms -= 500; /* it was seen then, and has renewed since */
    b = record_of(
        "birch",
        &(struct fleet_record){.instance = 0xb, .epoch = EPOCH, .until_ms = NOW + 2600, .seq = 2},
        "a secret");
    take(&b, 1);
    assert_in_range(the_host()->lives_ms - hosts.looked_ms, 2500, 2600);
    hosts.looked_ms -= 500;
    b = record_of(
        "birch",
        &(struct fleet_record){.instance = 0xb, .epoch = EPOCH, .until_ms = NOW + 1, .seq = 3},
        "a secret");
    take(&b, 1);
    assert_in_range(the_host()->lives_ms - hosts.looked_ms, 2400, 2500);
    /* it says itself that it has none */
    b = record_of("birch",
                  &(struct fleet_record){.instance = 0xb, .until_ms = NOW + 3000, .seq = 4},
                  "a secret");
    take(&b, 1);
    assert_false(fleet_hosts_lives(&hosts, the_host()));
    take(NULL, 0);
    assert_int_equal(hosts.n, 0);
}

static void more_than_are_known_are_noticed(void **state)
{
    (void)state;
    static struct record r[FLEET_HOSTS_MAX + 1];
    for (unsigned i = 0; i <= FLEET_HOSTS_MAX; i++) {
        char name[16];
        snprintf(name, sizeof name, "h%u", i);
        r[i] = record_of(name,
                         &(struct fleet_record){
                             .instance = i + 100, .epoch = EPOCH, .until_ms = NOW + 3000, .seq = 1},
                         i % 2 ? "a secret" : "another");
    }
    take(r, FLEET_HOSTS_MAX + 1); /* strangers take no place of theirs */
    assert_false(hosts.crowded);
    unsigned ours = 0;
    for (uint32_t i = 0; i < hosts.n; i++)
        ours += fleet_hosts_lives(&hosts, &hosts.at[i]);
    assert_int_equal(ours, FLEET_HOSTS_MAX / 2);
    for (unsigned i = 0; i <= FLEET_HOSTS_MAX; i++)
        r[i] = record_of(r[i].name,
                         &(struct fleet_record){
                             .instance = i + 100, .epoch = EPOCH, .until_ms = NOW + 3000, .seq = 2},
                         "a secret");
    take(r, FLEET_HOSTS_MAX + 1);
    assert_true(hosts.crowded);
}

#define STORY(name) cmocka_unit_test_setup(name, begin)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(a_record_says_what_was_signed),
        STORY(a_host_that_was_taken_out_of_the_list_is_waited_for),
        STORY(what_others_write_in_its_place_counts_for_nothing),
        STORY(a_store_that_was_behind_has_earlier_records),
        STORY(a_lease_ends),
        STORY(more_than_are_known_are_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
