/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of clients and sessions that stay at one server: by address, by Polder's cookie, by a
 * session that a backend has named; through steps, deaths and WebSockets. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct house house;
static struct backend *blue, *green;

/* Each tells its name, the cookies it got, and gives a session where it is asked for one. */
static bool answers(struct asked *a, const char *name)
{
    char lines[512];
    const char *cookie = field_of(&a->m, "Cookie");
    snprintf(lines, sizeof lines, "X-Server: %s\r\nX-Cookies: %s\r\n%s%s", name,
             cookie ? cookie : "none", !strcmp(a->target, "/begin") ? "Mcp-Session-Id: of-" : "",
             strcmp(a->target, "/begin") ? "" : name);
    if (!strcmp(a->target, "/begin"))
        strcat(lines, "\r\n");
    if (!strncmp(a->target, "/cached", 7))
        strcat(lines, "Cache-Control: max-age=60\r\nVary: Cookie\r\n");
    if (!strcmp(a->target, "/shared"))
        strcat(lines, "Cache-Control: public, max-age=60\r\n");
    if (!strcmp(a->target, "/ws"))
        return reply(a, "HTTP/1.1 403 No\r\nX-Server: %s\r\nContent-Length: 0\r\n\r\n", name);
    return reply_ok(a, lines, name);
}

static _Atomic(const char *) wants = ""; /* green's answer to a check says so */

static bool is_blue(struct asked *a)
{
    return answers(a, "blue");
}

static bool is_green(struct asked *a)
{
    if (!strcmp(a->target, "/check"))
        return reply_ok(a, atomic_load(&wants), "green");
    return answers(a, "green");
}

static int begin(void **state)
{
    (void)state;
    blue = backend_start(is_blue, NULL);
    green = backend_start(is_green, NULL);
    return 0;
}

static int end(void **state)
{
    (void)state;
    house_remove(&house);
    backend_stop(blue);
    backend_stop(green);
    return 0;
}

static void start(const char *sticky)
{
    house_start(&house, 2,
                "trusted_proxies = {\"127.0.0.1\"}\n"
                "upstream \"app\" { server \"127.0.0.1:%u\" { } server \"127.0.0.1:%u\" { weight = "
                "0 }\nsticky = \"%s\" }\n"
                "route \"/cached*\" { upstream = \"app\" cache { } }\n"
                "route \"/ws\" { upstream = \"app\" websocket { } }\n"
                "route \"/*\" { upstream = \"app\" }\n",
                backend_port(blue), backend_port(green), sticky);
}

static void shift(unsigned percent)
{
    assert_int_equal(
        ctl(&house, NULL, "upstream shift app 127.0.0.1:%u %u", backend_port(green), percent), 0);
}

/* Which server answers, 'b' or 'g', to a request with these lines? */
static char asks(const char *target, const char *lines)
{
    struct message m;
    get_with(house.port, target, lines, &m);
    const char *name = field_of(&m, "X-Server");
    const char c = name ? *name : '-';
    message_free(&m);
    return c;
}

/* ---- by address ---- */

enum { CLIENTS = 300 };

static void ask_as_all(char sides[CLIENTS])
{
    char line[64];
    struct message m;
    const int fd = client_connect(house.port);
    for (int i = 0; i < CLIENTS; i++) {
        snprintf(line, sizeof line, "198.51.%d.%d", 100 + i / 200, 1 + i % 200);
        client_send(fd, "GET /x HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: %s\r\n\r\n", line);
        client_read(fd, &m, false);
        sides[i] = m.body ? m.body[0] : '-';
        message_free(&m);
    }
    close(fd);
}

static int greens(const char sides[CLIENTS])
{
    int n = 0;
    for (int i = 0; i < CLIENTS; i++)
        n += sides[i] == 'g';
    return n;
}

static void clients_stay_on_their_side(void **state)
{
    char before[CLIENTS], now[CLIENTS];
    (void)state;
    start("client");
    shift(10);
    ask_as_all(before);
    assert_in_range(greens(before), 12, 50);
    ask_as_all(now); /* another connection, perhaps another worker */
    assert_memory_equal(before, now, CLIENTS);
    shift(50);
    ask_as_all(now);
    assert_in_range(greens(now), 110, 190);
    for (int i = 0; i < CLIENTS; i++)
        assert_false(before[i] == 'g' && now[i] == 'b');
    memcpy(before, now, CLIENTS);
    backend_stop(green); /* they go elsewhere, and come back */
    ask_as_all(now);
    assert_int_equal(greens(now), 0);
    green = backend_start(is_green, NULL);
}

static void a_server_that_asks_for_less_keeps_a_part_of_its_clients(void **state)
{
    char before[CLIENTS], now[CLIENTS];
    (void)state;
    start("client\" health = \"/check\" health_interval = \"50ms");
    shift(50);
    ask_as_all(before);
    atomic_store(&wants, "Polder-Weight: 25\r\n");
    wait_until(house_logged(&house, "asks for 25 % of its weight"), 10000);
    ask_as_all(now);
    assert_in_range(greens(now), 36, 84); /* 25 of 125 */
    for (int i = 0; i < CLIENTS; i++)
        assert_false(before[i] == 'b' && now[i] == 'g');
    atomic_store(&wants, "");
    wait_until(house_logged(&house, "asks for 100 % of its weight"), 10000);
    ask_as_all(now);
    assert_memory_equal(before, now, CLIENTS);
}

/* ---- by cookie ---- */

static bool cookie_of(const struct message *m, char out[64])
{
    const char *set = field_of(m, "Set-Cookie");
    if (!set || strncmp(set, "polder_side=", 12))
        return false;
    snprintf(out, 64, "%.*s", (int)strcspn(set, ";"), set);
    return true;
}

static void a_cookie_of_polders_own_keeps_a_client(void **state)
{
    char cookie[64], line[128];
    struct message m;
    (void)state;
    start("cookie");
    shift(50);
    unsigned on_green = 0;
    for (int i = 0; i < 12; i++) {
        get(house.port, "/x", &m);
        assert_true(cookie_of(&m, cookie));
        assert_non_null(strstr(m.head, "; Path=/; HttpOnly; SameSite=Lax\r\n"));
        const char side = m.body[0];
        message_free(&m);
        on_green += side == 'g';
        snprintf(line, sizeof line, "Cookie: a=1; %s; b=2\r\n", cookie);
        for (int k = 0; k < 4; k++) {
            get_with(house.port, "/x", line, &m);
            assert_int_equal(m.body[0], side);
            assert_null(field_of(&m, "Set-Cookie"));
            assert_string_equal(field_of(&m, "X-Cookies"), "a=1; b=2"); /* not the backend's */
            message_free(&m);
        }
        snprintf(line, sizeof line, "Cookie: %s\r\n", cookie);
        get_with(house.port, "/x", line, &m);
        assert_string_equal(field_of(&m, "X-Cookies"), "none");
        message_free(&m);
    }
    assert_in_range(on_green, 1, 11);
    get_with(house.port, "/x", "Cookie: polder_side=made-up\r\n", &m);
    assert_true(cookie_of(&m, cookie)); /* one that is none is replaced */
    message_free(&m);
}

static void its_cookie_is_in_no_stored_answer_and_identifies_nobody(void **state)
{
    char cookie[64], line[128];
    struct message m;
    (void)state;
    start("cookie");
    get(house.port, "/x", &m);
    assert_true(cookie_of(&m, cookie));
    message_free(&m);
    get(house.port, "/cached/1", &m);
    assert_null(field_of(&m, "Set-Cookie"));
    message_free(&m);
    wait_until(served_from_store(house.port, "/cached/1"), 5000);
    snprintf(line, sizeof line, "Cookie: %s\r\n", cookie);
    get_with(house.port, "/cached/1", line, &m); /* although it varies by Cookie */
    assert_non_null(strstr(field_of(&m, "Cache-Status"), "hit"));
    message_free(&m);
    get_with(house.port, "/cached/2", line, &m); /* and what is stored for one is for all */
    message_free(&m);
    wait_until(served_from_store(house.port, "/cached/2"), 5000);
    get(house.port, "/shared", &m);
    assert_null(field_of(&m, "Set-Cookie"));
    message_free(&m);
}

/* ---- by a session ---- */

static void a_session_stays_where_it_was_begun(void **state)
{
    (void)state;
    start("header:Mcp-Session-Id");
    assert_int_equal(asks("/begin", ""), 'b');
    shift(100);
    assert_int_equal(asks("/begin", ""), 'g');
    shift(50);
    for (int i = 0; i < 10; i++) { /* whatever their hashes say */
        assert_int_equal(asks("/x", "Mcp-Session-Id: of-blue\r\n"), 'b');
        assert_int_equal(asks("/x", "mcp-session-id: of-green\r\n"), 'g');
    }
    const char other = asks("/x", "Mcp-Session-Id: of-another\r\n");
    for (int i = 0; i < 6; i++)
        assert_int_equal(asks("/x", "Mcp-Session-Id: of-another\r\n"), other);
    house_kill(&house);
    house_run(&house); /* it is remembered over a restart */
    assert_int_equal(asks("/x", "Mcp-Session-Id: of-blue\r\n"), 'b');
    assert_int_equal(asks("/x", "Mcp-Session-Id: of-green\r\n"), 'g');
    backend_stop(green);
    assert_int_equal(asks("/x", "Mcp-Session-Id: of-green\r\n"), 'b');
    green = backend_start(is_green, NULL);
}

/* ---- WebSockets ---- */

static void websockets_go_to_the_same_side(void **state)
{
    static const char upgrade[] =
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    char lines[512];
    unsigned on_green = 0;
    (void)state;
    start("client");
    shift(50);
    for (int i = 1; i <= 16; i++) {
        snprintf(lines, sizeof lines, "X-Forwarded-For: 203.0.113.%d\r\n", i);
        const char side = asks("/x", lines);
        snprintf(lines, sizeof lines, "X-Forwarded-For: 203.0.113.%d\r\n%s", i, upgrade);
        assert_int_equal(asks("/ws", lines), side); /* its refusal passes */
        on_green += side == 'g';
    }
    assert_in_range(on_green, 1, 15);
}

/* ---- one key ---- */

static bool warns(void)
{
    const char *out;
    return ctl(&house, &out, "status") == 0 && strstr(out, "sticky_key_heavy");
}

static void one_key_with_most_of_the_traffic_is_told(void **state)
{
    const char *out;
    unsigned counts[1000] = {0};
    (void)state;
    start("client");
    storm(house.port, "/x", 200, 2, counts, NULL); /* all from one address */
    house_advance(&house, 61000);
    wait_until(warns(), 5000);
    assert_int_equal(ctl(&house, &out, "--json upstream list"), 0);
    assert_non_null(strstr(out, "\"top_key_percent\": 100"));
    house_advance(&house, 61000);
    wait_until(!warns(), 5000);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test_setup_teardown(clients_stay_on_their_side, begin, end),
        cmocka_unit_test_setup_teardown(a_server_that_asks_for_less_keeps_a_part_of_its_clients,
                                        begin, end),
        cmocka_unit_test_setup_teardown(a_cookie_of_polders_own_keeps_a_client, begin, end),
        cmocka_unit_test_setup_teardown(its_cookie_is_in_no_stored_answer_and_identifies_nobody,
                                        begin, end),
        cmocka_unit_test_setup_teardown(a_session_stays_where_it_was_begun, begin, end),
        cmocka_unit_test_setup_teardown(websockets_go_to_the_same_side, begin, end),
        cmocka_unit_test_setup_teardown(one_key_with_most_of_the_traffic_is_told, begin, end),
    };
    return cmocka_run_group_tests(stories, NULL, NULL);
}
