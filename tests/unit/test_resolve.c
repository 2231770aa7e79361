/* SPDX-License-Identifier: BSD-2-Clause */
/* Resolving names: many at once, from a name server that answers as it should, and otherwise. */
#include "dns.h"
#include "polder/clock.h"
#include "polder/resolve.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static struct dns *dns;
static char servers[32];

static int begin(void **state)
{
    (void)state;
    dns = dns_start();
    snprintf(servers, sizeof servers, "127.0.0.1:%u", dns_port(dns));
    return 0;
}

static int end(void **state)
{
    (void)state;
    dns_stop(dns);
    return 0;
}

static const struct resolve_answer *resolved(const char *name)
{
    static struct resolve_name one;
    one.text = name;
    resolve_all(servers, &one, 1, 10000);
    return &one.answer;
}

static const char *place(const struct resolve_answer *answer, uint32_t i)
{
    static char text[64];
    assert_true(i < answer->n);
    server_address_text(&answer->at[i], text, sizeof text);
    return text;
}

static void names_are_asked_for_side_by_side(void **state)
{
    (void)state;
    struct resolve_name name[4] = {{.text = "localhost:8001"},
                                   {.text = "nothing.test:8002"},
                                   {.text = "127.0.0.9:8003"},
                                   {.text = "one.test:8004"}};
    dns_has(dns, "one.test", 60, "192.0.2.7");
    resolve_all(servers, name, 4, 10000);
    assert_true(name[0].answer.n >= 1);
    assert_string_equal(name[0].answer.why, "");
    assert_int_equal(name[1].answer.n, 0);
    assert_string_equal(name[1].answer.why, "Domain name not found");
    assert_int_equal(name[2].answer.n, 1);
    assert_int_equal(name[3].answer.n, 1);
    assert_string_equal(place(&name[3].answer, 0), "192.0.2.7:8004");
    assert_int_equal(name[3].answer.ttl_s, 60);
}

static void both_families_come_in_turn(void **state)
{
    (void)state;
    dns_has(dns, "both.test", 7, "192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1 2001:db8::2 192.0.2.1");
    const struct resolve_answer *a = resolved("both.test:80");
    assert_int_equal(a->n, 5);
    assert_int_equal(a->ttl_s, 7);
    for (uint32_t i = 1; i < 4; i++)
        assert_int_not_equal(a->at[i].family, a->at[i - 1].family);
}

static void an_alias_lives_as_long_as_its_shortest_record(void **state)
{
    (void)state;
    dns_alias(dns, "www.test", 300, "second.test");
    dns_alias(dns, "second.test", 20, "third.test");
    dns_has(dns, "third.test", 90, "192.0.2.5");
    const struct resolve_answer *a = resolved("www.test:80");
    assert_int_equal(a->n, 1);
    assert_int_equal(a->ttl_s, 20);
    dns_alias(dns, "loop.test", 5, "pool.test");
    dns_alias(dns, "pool.test", 5, "loop.test");
    assert_int_equal(resolved("loop.test:80")->n, 0);
    dns_alias(dns, "nowhere.test", 5, "missing.test");
    assert_int_equal(resolved("nowhere.test:80")->n, 0);
}

static void long_answers_come_over_tcp(void **state)
{
    (void)state;
    char addresses[2048] = "";
    for (unsigned i = 1; i <= 50; i++)
        snprintf(addresses + strlen(addresses), sizeof addresses - strlen(addresses), "192.0.2.%u ",
                 i);
    dns_has(dns, "fifty.test", 5, addresses);
    assert_int_equal(resolved("fifty.test:80")->n, 50);
    dns_has(dns, "cut.test", 5, "192.0.2.1");
    dns_behaves(dns, "cut.test", DNS_CUT);
    assert_int_equal(resolved("cut.test:80")->n, 1);
}

static void what_is_no_answer_is_none(void **state)
{
    static const enum dns_manner manner[] = {DNS_NXDOMAIN,  DNS_SERVFAIL, DNS_REFUSED,  DNS_NOISE,
                                             DNS_LOOP,      DNS_LIES,     DNS_STRANGER, DNS_EMPTY,
                                             DNS_CUT_TWICE, DNS_SILENT};
    struct resolve_name name[sizeof manner / sizeof *manner];
    char text[sizeof manner / sizeof *manner][48], host[32];
    const size_t n = sizeof manner / sizeof *manner;
    (void)state;
    for (size_t i = 0; i < n; i++) {
        snprintf(host, sizeof host, "bad%zu.test", i);
        snprintf(text[i], sizeof text[i], "%s:80", host);
        dns_has(dns, host, 5, "192.0.2.1");
        dns_behaves(dns, host, manner[i]);
        name[i].text = text[i];
    }
    resolve_all(servers, name, n, 20000);
    for (size_t i = 0; i < n; i++) {
        if (name[i].answer.n)
            fail_msg("bad%zu.test has an address", i);
        assert_string_not_equal(name[i].answer.why, "");
    }
}

static void a_family_without_an_answer_does_not_hide_the_other(void **state)
{
    (void)state;
    dns_has(dns, "four.test", 5, "192.0.2.1 2001:db8::1");
    dns_behaves(dns, "four.test", DNS_SILENT_V6);
    assert_int_equal(resolved("four.test:80")->n, 1);
}

static void the_time_is_bounded(void **state)
{
    struct resolve_name one = {.text = "silent.test:80"};
    (void)state;
    dns_behaves(dns, "silent.test", DNS_SILENT);
    const uint64_t from_ms = clock_mono_ms();
    resolve_all(servers, &one, 1, 200);
    assert_true(clock_mono_ms() - from_ms >= 190);
    assert_int_equal(one.answer.n, 0);
    assert_string_equal(one.answer.why, "the name server does not answer in time");
}

/* ---- lists of addresses ---- */

static struct server_address v4(unsigned last)
{
    return (struct server_address){
        .addr = {192, 0, 2, (uint8_t)last}, .family = AF_INET, .port = htons(80)};
}

static struct server_address v6(unsigned last)
{
    return (struct server_address){
        .addr = {0x20, 1, 0xd, 0xb8, [15] = (uint8_t)last}, .family = AF_INET6, .port = htons(80)};
}

static void a_lookup_in_another_order_changes_nothing(void **state)
{
    (void)state;
    struct server_addresses list = {.n = 3, .at = {v4(1), v4(2), v4(3)}};
    const struct server_addresses before = list;
    server_addresses_merge(&list, (struct server_address[]){v4(3), v4(1), v4(2)}, 3);
    assert_memory_equal(&list, &before, sizeof list);
    server_addresses_merge(&list, (struct server_address[]){v4(9), v4(3), v4(1)}, 3);
    const struct server_addresses moved = {.n = 3, .at = {v4(1), v4(3), v4(9)}};
    assert_memory_equal(&list, &moved, sizeof list);
}

static void of_many_addresses_those_that_are_known_stay(void **state)
{
    (void)state;
    struct server_address found[50], turned[50];
    struct server_addresses list = {0};
    for (unsigned i = 0; i < 50; i++) {
        found[i] = v4(i + 1);
        turned[i] = v4((i + 20) % 50 + 1);
    }
    server_addresses_merge(&list, found, 50);
    assert_int_equal(list.n, SERVER_ADDRESSES_MAX);
    const struct server_addresses before = list;
    server_addresses_merge(&list, turned, 50);
    assert_memory_equal(&list, &before, sizeof list);
}

static void families_take_turns(void **state)
{
    (void)state;
    struct server_address at[] = {v6(1), v6(2), v6(3), v4(1), v4(2), v4(3), v4(4)};
    const struct server_address turns[] = {v6(1), v4(1), v6(2), v4(2), v6(3), v4(3), v4(4)};
    server_addresses_in_turn(at, 7);
    assert_memory_equal(at, turns, sizeof at);
    server_addresses_in_turn(at, 7);
    assert_memory_equal(at, turns, sizeof at);
    server_addresses_in_turn(at, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_asked_for_side_by_side),
        cmocka_unit_test(both_families_come_in_turn),
        cmocka_unit_test(an_alias_lives_as_long_as_its_shortest_record),
        cmocka_unit_test(long_answers_come_over_tcp),
        cmocka_unit_test(what_is_no_answer_is_none),
        cmocka_unit_test(a_family_without_an_answer_does_not_hide_the_other),
        cmocka_unit_test(the_time_is_bounded),
        cmocka_unit_test(a_lookup_in_another_order_changes_nothing),
        cmocka_unit_test(of_many_addresses_those_that_are_known_stay),
        cmocka_unit_test(families_take_turns),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
