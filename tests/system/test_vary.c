/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of backends that say Vary with some answers to a URL and not with others, as those do
 * that add CORS fields only for requests with Origin. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct backend *backend;

#define APP   "https://app.example.org"
#define OTHER "https://other.example.org"

static bool answers(struct asked *a)
{
    char lines[512], body[256];
    const char *origin = field_of(&a->m, "Origin"), *t = a->target;
    snprintf(body, sizeof body, "for %.100s", origin ? origin : "nobody");
    if (!strncmp(t, "/none", 5)) /* knows nothing of CORS */
        return reply_ok(a, "Cache-Control: max-age=60\r\n", body);
    if (!strncmp(t, "/any", 4)) /* allow_origins = ["*"] */
        return reply_ok(a,
                        origin ? "Cache-Control: max-age=60\r\nAccess-Control-Allow-Origin: *\r\n"
                               : "Cache-Control: max-age=60\r\n",
                        body);
    if (!origin)
        return reply_ok(a, "Cache-Control: max-age=60\r\n", body);
    snprintf(lines, sizeof lines,
             "Cache-Control: max-age=60\r\nAccess-Control-Allow-Origin: %.100s\r\nVary: Origin\r\n",
             origin);
    return reply_ok(a, lines, body);
}

static struct house house;

static int open_house(void **state)
{
    (void)state;
    house_start(&house, 2,
                "cache { stale_while_revalidate = 0 stale_if_error = 0 leak_guard = 0 }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(backend));
    backend_forget(backend);
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    house_remove(&house);
    return 0;
}

/* Asks as a script of that origin does (NULL: as curl). Is it a hit, and may the script read it? */
static bool is_hit(const char *target, const char *origin)
{
    char lines[256] = "";
    struct message m;
    if (origin)
        snprintf(lines, sizeof lines, "Origin: %s\r\n", origin);
    assert_int_equal(get_with(house.port, target, lines, &m), 200);
    const char *allowed = field_of(&m, "Access-Control-Allow-Origin");
    if (origin && strncmp(target, "/none", 5) &&
        (!allowed || (strcmp(allowed, origin) && strcmp(allowed, "*"))))
        fail_msg("%s for %s: allowed is %s\n%s", target, origin, allowed ? allowed : "nobody",
                 m.head);
    const bool hit = strstr(field_of(&m, "Cache-Status"), "hit") != NULL;
    message_free(&m);
    return hit;
}

static void a_plain_get_does_not_take_cors_from_browsers(void **state)
{
    (void)state;
    wait_until(is_hit("/a", APP), 5000);
    wait_until(is_hit("/a", NULL), 5000);
    assert_true(is_hit("/a", APP));
    assert_true(is_hit("/a", NULL));
    wait_until(is_hit("/a", OTHER), 5000);
    assert_true(is_hit("/a", APP));
    assert_true(is_hit("/a", NULL));
}

static void nor_does_one_that_was_there_first(void **state)
{
    (void)state;
    wait_until(is_hit("/b", NULL), 5000);
    wait_until(is_hit("/b", APP), 5000);
    wait_until(is_hit("/b", NULL), 5000);
    assert_true(is_hit("/b", APP));
}

/* The same request again on its connection is answered from what is remembered of it. */
static void nor_one_that_comes_between_on_a_connection_that_stays(void **state)
{
    (void)state;
    const int fd = client_connect(house.port);
    for (int i = 0; i < 20; i++) {
        struct message m;
        client_send(fd, "GET /any/kept HTTP/1.1\r\nHost: test.example\r\nOrigin: " APP "\r\n\r\n");
        client_read(fd, &m, false);
        assert_non_null(field_of(&m, "Access-Control-Allow-Origin"));
        message_free(&m);
        if (i % 5 == 4) {
            const char *out;
            assert_int_equal(ctl(&house, &out, "cache invalidate --all"), 0);
            wait_until(is_hit("/any/kept", NULL), 5000);
        }
    }
    close(fd);
}

static void a_copy_that_any_origin_may_read_is_one_for_all(void **state)
{
    (void)state;
    wait_until(is_hit("/any", NULL), 5000);
    backend_forget(backend);
    wait_until(is_hit("/any", APP), 5000);
    assert_true(is_hit("/any", OTHER));
    assert_true(is_hit("/any", NULL));
    assert_in_range(backend_calls(backend), 1, 2); /* the keeper may take a moment */
}

static void where_nobody_speaks_of_origins_one_more_fetch_is_enough(void **state)
{
    (void)state;
    wait_until(is_hit("/none", NULL), 5000);
    wait_until(is_hit("/none", APP), 5000);
    backend_forget(backend);
    for (int i = 0; i < 5; i++) {
        assert_true(is_hit("/none", APP));
        assert_true(is_hit("/none", OTHER));
        assert_true(is_hit("/none", NULL));
    }
    assert_int_equal(backend_calls(backend), 0);
}

static void many_browsers_at_once_behind_a_plain_copy_are_one_fetch(void **state)
{
    (void)state;
    wait_until(is_hit("/any/many", NULL), 5000);
    backend_forget(backend);
    for (int i = 0; i < 20; i++)
        is_hit("/any/many", APP);
    assert_in_range(backend_calls(backend), 1, 2);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test_setup_teardown(a_plain_get_does_not_take_cors_from_browsers, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(nor_does_one_that_was_there_first, open_house, close_house),
        cmocka_unit_test_setup_teardown(nor_one_that_comes_between_on_a_connection_that_stays,
                                        open_house, close_house),
        cmocka_unit_test_setup_teardown(a_copy_that_any_origin_may_read_is_one_for_all, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(where_nobody_speaks_of_origins_one_more_fetch_is_enough,
                                        open_house, close_house),
        cmocka_unit_test_setup_teardown(many_browsers_at_once_behind_a_plain_copy_are_one_fetch,
                                        open_house, close_house),
    };
    return run_with_backend(stories, &backend, answers);
}
