/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of what a gateway owes HTTP in the small: loops, hops, forms of targets, old methods. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static struct backend *backend;

static bool shows_head(struct asked *a)
{
    return reply_ok(a, "", a->m.head);
}

static void start(struct house *h, const char *top)
{
    house_start(h, 1,
                "%s\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                top, backend_port(backend));
    backend_forget(backend);
}

/* ---- loops ---- */

static void lead_to(struct house *h, const char *top, unsigned port)
{
    char conf[512];
    snprintf(conf, sizeof conf,
             "%s\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"u\" "
             "cache { } }\n",
             top, port);
    house_write_conf(h, 1, conf);
    assert_int_equal(ctl(h, NULL, "reload --wait"), 0);
}

static void a_request_that_comes_back_is_508(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    const char *out;
    start(&h, "");
    lead_to(&h, "", h.port); /* to itself */
    assert_int_equal(get(h.port, "/a", &m), 508);
    assert_string_equal(field_of(&m, "Content-Type"), "application/problem+json");
    message_free(&m);
    wait_until(ctl(&h, &out, "status") == 0 && strstr(out, "hint_request_loop"), 5000);
    lead_to(&h, "", backend_port(backend)); /* what is wrong may be put right while it runs */
    wait_until(get(h.port, "/b", NULL) == 200, 5000);
    house_remove(&h);
}

static void two_in_a_row_are_no_loop_and_two_in_a_circle_are(void **state)
{
    (void)state;
    struct house front, behind;
    struct message m;
    start(&behind, "");
    start(&front, "");
    lead_to(&front, "", behind.port);
    assert_int_equal(get(front.port, "/a", &m), 200);
    assert_non_null(strcasestr(m.body, "Via: 1.1 polder-"));
    assert_non_null(strcasestr(strcasestr(m.body, "Via: 1.1 polder-") + 1, "Via: 1.1 polder-"));
    message_free(&m);
    lead_to(&behind, "", front.port);
    char target[32]; /* workers of before may still answer on kept connections */
    unsigned n = 0;
    wait_until(snprintf(target, sizeof target, "/b%u", n++) > 0 &&
                   get(front.port, target, NULL) == 508,
               10000);
    house_remove(&front);
    house_remove(&behind);
}

static void the_name_in_via_can_be_given(void **state)
{
    (void)state;
    static const char *const mine[] = {"Via: 1.1 edge-eu1\r\n",
                                       "Via: HTTP/1.1 other, 1.0 Edge-EU1 (x)\r\n",
                                       "Via: 1.1 a\r\nVia: 1.1\tedge-eu1\r\n"},
                             *const others[] = {"Via: 1.1 edge-eu2\r\n", "Via: edge-eu1\r\n",
                                                "Via: 1.1 x (edge-eu1)\r\n", "Via: \r\n"};
    struct house h;
    struct message m;
    start(&h, "via = \"Edge-eu1\"");
    assert_int_equal(get(h.port, "/a", &m), 200);
    assert_non_null(strcasestr(m.body, "Via: 1.1 edge-eu1\r\n"));
    message_free(&m);
    for (size_t i = 0; i < sizeof mine / sizeof *mine; i++)
        assert_int_equal(get_with(h.port, "/a", mine[i], NULL), 508);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_int_equal(get_with(h.port, "/a", others[i], NULL), 200);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_that_comes_back_is_508),
        cmocka_unit_test(two_in_a_row_are_no_loop_and_two_in_a_circle_are),
        cmocka_unit_test(the_name_in_via_can_be_given),
    };
    return run_with_backend(tests, &backend, shows_head);
}
