/* SPDX-License-Identifier: BSD-2-Clause */
/* Lists of the exempt: what is meant as a network is one or is refused, and nothing overflows. */
#include "polder/exempt.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static bool has(const struct exempt *list, const char *ip, const char *who)
{
    struct clientip address;
    assert_int_equal(clientip_parse(ip, strlen(ip), &address), 0);
    return exempt_has(list, &address, who, strlen(who));
}

static int parse(struct exempt *list, const char *text, char *wrong)
{
    const char *why = NULL;
    const int code = exempt_parse(list, text, wrong, 64, &why);
    assert_true(code == 0 || why);
    return code;
}

static void networks_and_values_are_told_apart(void **state)
{
    (void)state;
    struct exempt list;
    char wrong[64];
    assert_int_equal(
        parse(&list, "10.0.0.0/8, partner-key ,192.0.2.7,2001:db8::/32,a\\,b\\\\c,\\ x,path/of",
              wrong),
        0);
    assert_int_equal(list.n_nets, 3);
    assert_true(has(&list, "10.255.0.1", "?"));
    assert_true(has(&list, "192.0.2.7", "?"));
    assert_true(has(&list, "2001:db8:1::1", "?"));
    assert_false(has(&list, "192.0.2.8", "?"));
    assert_true(has(&list, "192.0.2.8", "partner-key"));
    assert_false(has(&list, "192.0.2.8", "partner-ke"));
    assert_false(has(&list, "192.0.2.8", " partner-key"));
    assert_true(has(&list, "192.0.2.8", "a,b\\c"));
    assert_true(has(&list, "192.0.2.8", " x"));
    assert_true(has(&list, "192.0.2.8", "path/of"));
    assert_false(has(&list, "192.0.2.8", ""));
    assert_int_equal(parse(&list, "", wrong), 0); /* nobody */
    assert_false(has(&list, "10.0.0.1", "partner-key"));
    assert_null(exempt_next(&list, NULL));
}

/* Lists are compared as bytes, and written as text and read again. */
static void a_network_has_one_form(void **state)
{
    (void)state;
    static const char *const same[][2] = {{"10.1.2.3/8", "10.0.0.0/8"},
                                          {"10.0.0.0/4", "0.0.0.0/4"},
                                          {"2001:db8::1/33", "2001:db8::/33"},
                                          {"2001:db8:ffff::/33", "2001:db8:8000::/33"},
                                          {"192.0.2.7/32", "192.0.2.7"},
                                          {"::ffff:10.9.9.9/104", "10.0.0.0/8"},
                                          {"ffff::/0", "::/0"}};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        struct exempt list[2];
        char wrong[64], text[64];
        for (int k = 0; k < 2; k++)
            assert_int_equal(parse(&list[k], same[i][k], wrong), 0);
        assert_memory_equal(&list[0], &list[1], sizeof list[0]);
        clientip_net_format(&list[0].net[0], text);
        assert_string_equal(text, same[i][1]);
    }
}

static void what_is_meant_as_a_network_and_is_none_is_named(void **state)
{
    (void)state;
    static const char *const bad[] = {"10.0.0.0/33", "10.0.0",     "::/129",    "10.0.0.256",
                                      "10.0.0.0/",   "10.0.0.0/x", "1.2.3.4.5", "10.0.0.0/8/8",
                                      "fe80::/1234", "/8",         ""};
    struct exempt list;
    char wrong[64], text[64];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "good,%s,10.0.0.0/8", bad[i]);
        /* "10.0.0.0/x" has a letter no address has: a value, as in the file */
        const int wanted = strchr(bad[i], 'x') ? 0 : -EINVAL;
        assert_int_equal(parse(&list, text, wrong), wanted);
        if (wanted)
            assert_string_equal(wrong, bad[i]);
    }
    assert_int_equal(parse(&list, "a,", wrong), -EINVAL);
    assert_int_equal(parse(&list, "a\\", wrong), 0); /* nothing to escape: itself */
    assert_true(has(&list, "::1", "a\\"));
    assert_int_equal(parse(&list, "1.5,12", wrong), 0);
}

static void a_list_is_bounded(void **state)
{
    (void)state;
    static char text[1 << 16];
    struct exempt list;
    char wrong[64];
    for (int i = 0; i < EXEMPT_NETS_MAX; i++)
        sprintf(text + strlen(text), "%s10.%d.0.0/16", i ? "," : "", i);
    assert_int_equal(parse(&list, text, wrong), 0);
    assert_int_equal(list.n_nets, EXEMPT_NETS_MAX);
    strcat(text, ",fe80::/10");
    assert_int_equal(parse(&list, text, wrong), -ENOSPC);
    assert_string_equal(wrong, "fe80::/10");
    memset(text, 'v', EXEMPT_TEXT_BYTES - 1);
    text[EXEMPT_TEXT_BYTES - 1] = 0;
    assert_int_equal(parse(&list, text, wrong), 0);
    assert_int_equal(list.text_len, EXEMPT_TEXT_BYTES);
    assert_true(has(&list, "::1", text));
    strcpy(text + EXEMPT_TEXT_BYTES - 1, "v");
    assert_int_equal(parse(&list, text, wrong), -ENOSPC);
    memset(text, 'v', sizeof text - 1);
    assert_int_equal(parse(&list, text, wrong), -ENOSPC);
    memset(text, ',', sizeof text - 1);
    assert_int_equal(parse(&list, text, wrong), -EINVAL);
}

static void a_network_is_written_as_it_is_read(void **state)
{
    (void)state;
    static const char *const same[] = {"10.0.0.0/8", "192.0.2.7", "0.0.0.0/0",
                                       "::/0",       "::1",       "2001:db8::/33"};
    static const char *const told[][2] = {{"10.1.2.3/8", "10.0.0.0/8"},
                                          {"2001:db8::1/127", "2001:db8::/127"},
                                          {"::ffff:10.0.0.0/104", "10.0.0.0/8"},
                                          {"::ffff:10.0.0.0/64", "::/64"},
                                          {"192.0.2.7/32", "192.0.2.7"}};
    struct clientip_net net, again;
    char text[64];
    for (size_t i = 0; i < sizeof same / sizeof *same + sizeof told / sizeof *told; i++) {
        const size_t k = i - sizeof same / sizeof *same;
        const bool plain = i < sizeof same / sizeof *same;
        assert_int_equal(clientip_net_parse(plain ? same[i] : told[k][0], &net), 0);
        const size_t len = clientip_net_format(&net, text);
        assert_int_equal(len, strlen(text));
        assert_string_equal(text, plain ? same[i] : told[k][1]);
        assert_int_equal(clientip_net_parse(text, &again), 0);
        assert_int_equal(again.bits, net.bits);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks_and_values_are_told_apart),
        cmocka_unit_test(a_network_has_one_form),
        cmocka_unit_test(what_is_meant_as_a_network_and_is_none_is_named),
        cmocka_unit_test(a_list_is_bounded),
        cmocka_unit_test(a_network_is_written_as_it_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
