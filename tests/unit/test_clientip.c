/* SPDX-License-Identifier: BSD-2-Clause */
/* Addresses, networks, who the client is, and the PROXY protocol's bounds. */
#include "polder/clientip.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct clientip ip_of(const char *text)
{
    struct clientip ip;
    assert_int_equal(clientip_parse(text, strlen(text), &ip), 0);
    return ip;
}

static void addresses_are_read_and_written(void **state)
{
    (void)state;
    static const char *const good[] = {"192.0.2.1",   "0.0.0.0", "255.100.99.10",
                                       "2001:db8::1", "::1",     "::"};
    static const char *const bad[] = {"",
                                      "1.2.3",
                                      "1.2.3.4.5",
                                      "1.2.3.256",
                                      "01.2.3.4x",
                                      ":::",
                                      "g::1",
                                      "1.2.3.4 ",
                                      "[::1]",
                                      "1.2.3.4:80",
                                      "2001:db8:1:2:3:4:5:6:7:8:9:a:b:c:d:e:f:1:2:3"};
    char out[46];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        const struct clientip ip = ip_of(good[i]);
        assert_int_equal(clientip_format(&ip, out), strlen(good[i]));
        assert_string_equal(out, good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct clientip ip;
        assert_int_not_equal(clientip_parse(bad[i], strlen(bad[i]), &ip), 0);
    }
    struct clientip v4 = ip_of("1.2.3.4"), mapped = ip_of("::ffff:1.2.3.4");
    assert_memory_equal(&v4, &mapped, sizeof v4);
}

/* For backends that know X-Forwarded-* alone. */
static void forwarded_is_told_in_other_words(void **state)
{
    (void)state;
    static const struct {
        const char *forwarded, *chain, *proto, *host;
    } c[] = {
        {"for=192.0.2.60;proto=https", "192.0.2.60", "https", ""},
        {"For=\"[2001:db8::1]:4711\"; Proto=HTTPS ;host=\"a.example:443\"", "2001:db8::1", "HTTPS",
         "a.example:443"},
        {"for=192.0.2.1, for=10.0.0.9;proto=http;host=b", "192.0.2.1, 10.0.0.9", "", ""},
        {"for=6.6.6.6;proto=https;host=evil, for=192.0.2.1;host=good", "6.6.6.6, 192.0.2.1", "",
         "good"},
        {"for=_hidden;proto=https", "unknown", "https", ""},
        {"for=6.6.6.6;proto=https, for=unknown;proto=http", "6.6.6.6, unknown", "http", ""},
        {"proto=gopher;host=\"a b\";for=1.2.3.4", "1.2.3.4", "", ""},
        {"for=\"1.2.3.4", "unknown", "", ""},
        {",", "unknown", "", ""},
    };
    struct clientip_net trusted[1];
    assert_int_equal(clientip_net_parse("10.0.0.0/8", &trusted[0]), 0);
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        char chain[256];
        struct clientip_origin origin;
        const size_t len = strlen(c[i].forwarded);
        const size_t n = clientip_forwarded_chain(c[i].forwarded, len, chain, sizeof chain);
        assert_int_equal(n, strlen(c[i].chain));
        assert_memory_equal(chain, c[i].chain, n);
        clientip_forwarded_origin(c[i].forwarded, len, trusted, 1, &origin);
        assert_int_equal(origin.proto.len, strlen(c[i].proto));
        assert_memory_equal(origin.proto.len ? origin.proto.at : "", c[i].proto, origin.proto.len);
        assert_int_equal(origin.host.len, strlen(c[i].host));
        assert_memory_equal(origin.host.len ? origin.host.at : "", c[i].host, origin.host.len);
    }
    char small[12];
    assert_int_equal(clientip_forwarded_chain("for=192.0.2.60", 14, small, sizeof small), 10);
    assert_int_equal(
        clientip_forwarded_chain("for=192.0.2.60,for=1.2.3.4", 26, small, sizeof small), 0);
}

/* Neighbours are different clients; the addresses of one IPv6 /64 are one. */
static void clients_of_one_network_spread_over_a_table(void **state)
{
    (void)state;
    static const uint8_t secret[32] = {1, 2, 3}, other[32] = {1, 2, 4};
    static bool seen[16384];
    unsigned cells = 0, same = 0;
    char text[32];
    for (unsigned i = 0; i < 256; i++) {
        snprintf(text, sizeof text, "203.0.113.%u", i);
        const struct clientip ip = ip_of(text);
        const uint64_t hash = clientip_hash(&ip, secret);
        cells += !seen[hash % 16384];
        seen[hash % 16384] = true;
        same += hash == clientip_hash(&ip, other);
    }
    assert_in_range(cells, 245, 256); /* 254 are expected */
    assert_int_equal(same, 0);
    const struct clientip a = ip_of("2001:db8::1"), b = ip_of("2001:db8::2:3"),
                          c = ip_of("2001:db8:0:1::1");
    assert_true(clientip_hash(&a, secret) == clientip_hash(&b, secret));
    assert_true(clientip_hash(&a, secret) != clientip_hash(&c, secret));
}

static void networks_contain_what_they_should(void **state)
{
    (void)state;
    static const struct {
        const char *net, *ip;
        bool in;
    } c[] = {
        {"10.0.0.0/8", "10.255.0.1", true},         {"10.0.0.0/8", "11.0.0.1", false},
        {"10.0.0.0/9", "10.128.0.0", false},        {"0.0.0.0/0", "1.2.3.4", true},
        {"0.0.0.0/0", "2001:db8::1", false},        {"::/0", "1.2.3.4", false},
        {"192.0.2.7", "192.0.2.7", true},           {"192.0.2.7", "192.0.2.6", false},
        {"2001:db8::/33", "2001:db8:7fff::", true}, {"2001:db8::/33", "2001:db8:8000::", false}};
    static const char *const bad[] = {"",       "/8",          "10.0.0.0/",   "10.0.0.0/33",
                                      "::/129", "10.0.0.0/8x", "10.0.0.0/-1", "10.0.0.0/0008",
                                      "x/8"};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        struct clientip_net net;
        const struct clientip ip = ip_of(c[i].ip);
        assert_int_equal(clientip_net_parse(c[i].net, &net), 0);
        if (clientip_in(&ip, &net, 1) != c[i].in)
            fail_msg("%s in %s", c[i].ip, c[i].net);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct clientip_net net;
        assert_int_not_equal(clientip_net_parse(bad[i], &net), 0);
    }
}

static void an_ipv6_64_is_one_client(void **state)
{
    (void)state;
    struct clientip a, b, x = ip_of("2001:db8:1:2:3::4"), y = ip_of("2001:db8:1:2::"),
                          v4 = ip_of("1.2.3.4");
    clientip_group(&x, &a);
    clientip_group(&y, &b);
    assert_memory_equal(&a, &b, sizeof a);
    clientip_group(&v4, &a);
    assert_memory_equal(&a, &v4, sizeof a);
}

static void expect_client(const char *peer, const char *xff, const char *forwarded,
                          const char *want)
{
    struct clientip_net trusted[2];
    struct clientip p = ip_of(peer), out;
    char text[46];
    clientip_net_parse("10.0.0.0/8", &trusted[0]);
    clientip_net_parse("2001:db8:ffff::/48", &trusted[1]);
    clientip_forwarded(&p, trusted, 2, xff, xff ? strlen(xff) : 0, forwarded,
                       forwarded ? strlen(forwarded) : 0, &out);
    clientip_format(&out, text);
    if (strcmp(text, want))
        fail_msg("peer %s, xff %s, forwarded %s: %s instead of %s", peer, xff ? xff : "-",
                 forwarded ? forwarded : "-", text, want);
}

static void only_trusted_proxies_are_believed(void **state)
{
    (void)state;
    expect_client("192.0.2.1", "198.51.100.1", NULL, "192.0.2.1");
    expect_client("10.0.0.1", NULL, NULL, "10.0.0.1");
    expect_client("10.0.0.1", "198.51.100.1", NULL, "198.51.100.1");
    expect_client("10.0.0.1", "6.6.6.6, 198.51.100.1", NULL, "198.51.100.1");
    expect_client("10.0.0.1", "198.51.100.1, 10.1.1.1 ,10.2.2.2", NULL, "198.51.100.1");
    expect_client("10.0.0.1", "10.3.3.3, 10.1.1.1", NULL, "10.3.3.3");
    expect_client("10.0.0.1", "198.51.100.1:4711", NULL, "198.51.100.1");
    expect_client("10.0.0.1", "[2001:db8::7]:80, 2001:db8:ffff::1", NULL, "2001:db8::7");
    expect_client("10.0.0.1", "198.51.100.1, garbage", NULL, "10.0.0.1");
    expect_client("10.0.0.1", "198.51.100.1, garbage, 10.9.9.9", NULL, "10.9.9.9");
    expect_client("10.0.0.1", "", NULL, "10.0.0.1");
    expect_client("10.0.0.1", ",,,", NULL, "10.0.0.1");
}

static void the_forwarded_field_is_read_as_rfc_7239_says(void **state)
{
    (void)state;
    expect_client("10.0.0.1", NULL, "for=198.51.100.1", "198.51.100.1");
    expect_client("10.0.0.1", NULL, "for=1.1.1.1;proto=http, For=\"198.51.100.2:80\";by=10.0.0.1",
                  "198.51.100.2");
    expect_client("10.0.0.1", NULL, "for=\"[2001:db8::5]:4711\"", "2001:db8::5");
    expect_client("10.0.0.1", NULL, "proto=https;for=198.51.100.3, for=10.1.1.1", "198.51.100.3");
    expect_client("10.0.0.1", NULL, "for=_hidden, for=10.1.1.1", "10.1.1.1");
    expect_client("10.0.0.1", NULL, "for=unknown", "10.0.0.1");
    expect_client("10.0.0.1", NULL, "by=\"a,b\";for=198.51.100.4", "198.51.100.4");
    expect_client("10.0.0.1", NULL, "proto=http", "10.0.0.1");
}

/* A proxy that writes one of the fields passes the other on as its client sent it. */
static void fields_that_disagree_are_not_believed(void **state)
{
    (void)state;
    expect_client("10.0.0.1", "198.51.100.1", "for=6.6.6.6", "10.0.0.1");
    expect_client("10.0.0.1", "6.6.6.6", "for=198.51.100.1", "10.0.0.1");
    expect_client("10.0.0.1", "198.51.100.1", "nonsense", "10.0.0.1");
    expect_client("10.0.0.1", "198.51.100.1", "for=198.51.100.1", "198.51.100.1");
    expect_client("10.0.0.1", "6.6.6.6, 198.51.100.1", "for=7.7.7.7, for=198.51.100.1",
                  "198.51.100.1");
}

static void a_thousand_hops_are_bounded(void **state)
{
    (void)state;
    char *xff = malloc(20000);
    xff[0] = 0;
    strcat(xff, "198.51.100.1");
    for (int i = 0; i < 1000; i++)
        strcat(xff, ",10.1.1.1");
    expect_client("10.0.0.1", xff, NULL, "10.1.1.1");
    free(xff);
}

static int proxy(const void *bytes, size_t len, char *text, uint16_t *port)
{
    struct clientip ip = ip_of("9.9.9.9");
    *port = 9;
    const int n = clientip_proxy_parse(bytes, len, &ip, port);
    clientip_format(&ip, text);
    return n;
}

static void proxy_v1_is_exact(void **state)
{
    (void)state;
    static const char *const good = "PROXY TCP4 198.51.100.7 203.0.113.1 4242 80\r\n";
    char text[46];
    uint16_t port;
    for (size_t i = 0; i < strlen(good); i++)
        assert_int_equal(proxy(good, i, text, &port), 0);
    assert_int_equal(proxy(good, strlen(good), text, &port), strlen(good));
    assert_string_equal(text, "198.51.100.7");
    assert_int_equal(port, 4242);
    static const char *const v6 = "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\nGET";
    assert_int_equal(proxy(v6, strlen(v6), text, &port), strlen(v6) - 3);
    assert_string_equal(text, "2001:db8::1");
    static const char *const unknown = "PROXY UNKNOWN whatever it says, in any number of words\r\n";
    assert_int_equal(proxy(unknown, strlen(unknown), text, &port), strlen(unknown));
    assert_string_equal(text, "9.9.9.9");
    static const char *const bad[] = {"GET / HTTP/1.1\r\n",
                                      "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
                                      "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
                                      "PROXY TCP4 ::1 ::1 1 2\r\n",
                                      "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
                                      "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
                                      "PROXY TCP4 1.2.3.4 1.2.3.4 x 2\r\n",
                                      "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
                                      "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
                                      "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
                                      "PROXY\r\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (proxy(bad[i], strlen(bad[i]), text, &port) != -EPROTO)
            fail_msg("taken: %s", bad[i]);
    char endless[200];
    memset(endless, 'x', sizeof endless);
    memcpy(endless, "PROXY ", 6);
    assert_int_equal(proxy(endless, 107, text, &port), -EPROTO);
}

static void proxy_v2_is_exact(void **state)
{
    (void)state;
    static const uint8_t v4[] =
        "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x08\xcb\0\x71\x01\x10\x92\0\x50";
    uint8_t copy[600];
    char text[46];
    uint16_t port;
    const size_t len = sizeof v4 - 1;
    for (size_t i = 0; i < len; i++)
        assert_int_equal(proxy(v4, i, text, &port), 0);
    assert_int_equal(proxy(v4, len, text, &port), len);
    assert_string_equal(text, "198.51.100.8");
    assert_int_equal(port, 4242);
    memcpy(copy, v4, len);
    copy[12] = 0x20; /* LOCAL: whoever is connected */
    assert_int_equal(proxy(copy, len, text, &port), len);
    assert_string_equal(text, "9.9.9.9");
    static const struct {
        size_t at;
        uint8_t value;
    } bad[] = {{12, 0x11}, {12, 0x22}, {15, 11}, {14, 3}, {13, 0x41}, {13, 0x13}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memset(copy, 0, sizeof copy);
        memcpy(copy, v4, len);
        copy[bad[i].at] = bad[i].value;
        assert_int_equal(proxy(copy, sizeof copy, text, &port), -EPROTO);
    }
    memcpy(copy, v4, len);
    copy[13] = 0x31; /* a UNIX socket */
    assert_int_equal(proxy(copy, len, text, &port), len);
    assert_string_equal(text, "9.9.9.9");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_read_and_written),
        cmocka_unit_test(forwarded_is_told_in_other_words),
        cmocka_unit_test(clients_of_one_network_spread_over_a_table),
        cmocka_unit_test(networks_contain_what_they_should),
        cmocka_unit_test(an_ipv6_64_is_one_client),
        cmocka_unit_test(only_trusted_proxies_are_believed),
        cmocka_unit_test(the_forwarded_field_is_read_as_rfc_7239_says),
        cmocka_unit_test(fields_that_disagree_are_not_believed),
        cmocka_unit_test(a_thousand_hops_are_bounded),
        cmocka_unit_test(proxy_v1_is_exact),
        cmocka_unit_test(proxy_v2_is_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
