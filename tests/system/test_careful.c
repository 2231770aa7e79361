/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of fields that two readers could read in two ways: Polder takes the reading that shares
 * less, whatever the backend meant. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct backend *backend;
static atomic_bool may_stray;

#define ALICE    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9."
#define MALLORY  "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYWxsb3J5In0."
#define MODIFIED "Sun, 06 Nov 1994 08:49:37 GMT"

/* The answer's own lines are the query: "?V" is "Vary: V" with '+' for a blank. */
static void lines_of_query(const char *target, const char *name, char *out, size_t size)
{
    const char *query = strchr(target, '?');
    int n = snprintf(out, size, "Cache-Control: max-age=60\r\n%s: ", name);
    for (const char *at = query ? query + 1 : ""; *at && (size_t)n + 3 < size; at++)
        out[n++] = *at == '+' ? ' ' : *at;
    memcpy(out + n, "\r\n", 3);
}

static bool answers(struct asked *a)
{
    char lines[512], body[256];
    const char *t = a->target;
    if (!strncmp(t, "/vary", 5)) {
        const char *user = field_of(&a->m, "X-V");
        lines_of_query(t, "Vary", lines, sizeof lines);
        snprintf(body, sizeof body, "for %.100s", user ? user : "nobody");
        return reply_ok(a, lines, body);
    }
    if (!strncmp(t, "/secret", 7)) {
        lines_of_query(t, "X-Secret: s\r\nCache-Control", lines, sizeof lines);
        return reply_ok(a, lines, "secret");
    }
    if (!strncmp(t, "/many", 5)) { /* no-store behind more directives than anybody has */
        char many[4096];
        int n = snprintf(many, sizeof many, "Cache-Control: max-age=60");
        for (int i = 0; i < 300; i++)
            n += snprintf(many + n, sizeof many - (size_t)n, ", d%d=1", i);
        snprintf(many + n, sizeof many - (size_t)n, ", no-store\r\n");
        return reply_ok(a, many, "many");
    }
    if (!strncmp(t, "/jwt", 4) || !strncmp(t, "/limited", 8)) {
        const char *all = field_of(&a->m, "Authorization");
        const char *last = all ? strrchr(all, ' ') : NULL; /* of several lines the last one */
        snprintf(body, sizeof body, "for %s",
                 !last                   ? "nobody"
                 : strstr(last, MALLORY) ? "mallory"
                                         : "alice");
        return reply_ok(a, "Cache-Control: public, max-age=60\r\n", body);
    }
    if (!strncmp(t, "/tagged", 7))
        return reply_ok(
            a, "Cache-Control: max-age=60\r\nETag: \"v1\"\r\nLast-Modified: " MODIFIED "\r\n",
            "0123456789");
    if (!strncmp(t, "/stray", 6)) { /* and more, when nobody asks any more */
        const bool ok = reply_ok(a, "Cache-Control: max-age=60\r\n", "stray");
        const uint64_t end = mono_ms() + harness_patience(5000);
        while (!atomic_load(&may_stray) && mono_ms() < end)
            nap_ms(5);
        return ok && reply_ok(a, "Cache-Control: max-age=60\r\n", "nobody asked for this");
    }
    if (!strncmp(t, "/empty", 6))
        return reply(a, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n");
    if (!strncmp(t, "/twice", 6))
        return reply_ok(a, "Cache-Control: max-age=60\r\nETag: \"v1\"\r\nETag: \"v2\"\r\n", "two");
    if (!strncmp(t, "/move", 5))
        return !strcmp(a->method, "POST")
                   ? reply(a, "HTTP/1.1 201 Created\r\nLocation: /tagged/a\r\n"
                              "Location: /tagged/b\r\nContent-Length: 0\r\n\r\n")
                   : reply_ok(a, "", "moved");
    return reply_ok(a, "", "plain");
}

static struct house house;

static int open_house(void **state)
{
    (void)state;
    house_start(&house, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"two\" { requests = 2 window = \"60s\" key = \"jwt:sub\" }\n"
                "route \"/*\" { upstream = \"u\" cache { leak_guard = 0 } }\n"
                "route \"/jwt/*\" { upstream = \"u\" cache { partition = \"jwt:sub\" } }\n"
                "route \"/limited/*\" { upstream = \"u\" limits = {\"two\"} }\n"
                "route \"/ws/*\" { upstream = \"u\" websocket { } }\n",
                backend_port(backend));
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    house_remove(&house);
    return 0;
}

static void a_vary_that_is_no_list_of_names_varies_by_everything(void **state)
{
    static const char *const values[] = {"X-V:",  "X-V+X-W", "\"X-V\"",       "X-V;X-W", "@",
                                         ":+foo", "X-V,+,@", "Accept,+(X-V)", "X-V=1",   "X-V/1"};
    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char target[128];
        struct message m;
        snprintf(target, sizeof target, "/vary/%zu?%s", i, values[i]);
        assert_int_equal(get_with(house.port, target, "X-V: alice\r\n", &m), 200);
        assert_string_equal(m.body, "for alice");
        assert_null(strstr(field_of(&m, "Cache-Status"), "stored"));
        message_free(&m);
        assert_int_equal(get_with(house.port, target, "X-V: bob\r\n", &m), 200);
        assert_string_equal(m.body, "for bob");
        assert_non_null(strstr(field_of(&m, "Cache-Status"), "cannot be read"));
        message_free(&m);
    }
}

static void an_argument_that_cannot_be_read_leaves_the_directive_alone(void **state)
{
    static const char *const values[] = {"private=\"x-secret",     "no-cache=\"x-secret",
                                         "private=x-secret\"",     "private=\"x-secret\"x",
                                         "private=\"x secret\"",   "no-cache=\"x-secret:\"",
                                         "private=\"x-\\secret\"", "no-cache='x-secret"};
    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char target[128];
        snprintf(target, sizeof target, "/secret/%zu?max-age=60,+%s", i, values[i]);
        for (char *at = target; *at; at++)
            *at = *at == ' ' ? '+' : *at;
        for (int k = 0; k < 3; k++) { /* long enough for the store to have it, if it may */
            struct message m;
            assert_int_equal(get(house.port, target, &m), 200);
            if (!field_of(&m, "X-Secret") || strstr(field_of(&m, "Cache-Status"), "stored") ||
                strstr(field_of(&m, "Cache-Status"), "hit"))
                fail_msg("%s: %s", values[i], m.head);
            message_free(&m);
        }
    }
    /* By its grammar the field alone is left out. */
    wait_until(served_from_store(house.port, "/secret/ok?max-age=60,+private=\"x-secret\""), 5000);
    struct message m;
    assert_int_equal(get(house.port, "/secret/ok?max-age=60,+private=\"x-secret\"", &m), 200);
    assert_non_null(strstr(field_of(&m, "Cache-Status"), "hit"));
    assert_null(field_of(&m, "X-Secret"));
    message_free(&m);
}

static void what_is_no_directive_may_forbid_storing(void **state)
{
    static const char *const values[] = {
        "private;max-age=60", "max-age=60;+private",  "no-store;", "private+max-age=60",
        "\"no-store\"",       "'private',max-age=60", "[no-store]"};
    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char target[128];
        snprintf(target, sizeof target, "/secret/junk%zu?%s", i, values[i]);
        for (int k = 0; k < 3; k++) {
            struct message m;
            assert_int_equal(get(house.port, target, &m), 200);
            if (!strstr(field_of(&m, "Cache-Status"), "cannot be read"))
                fail_msg("%s: %s", values[i], m.head);
            message_free(&m);
        }
    }
}

static void more_directives_than_anybody_has_are_not_looked_through(void **state)
{
    (void)state;
    assert_false(served_from_store(house.port, "/many"));
    assert_false(served_from_store(house.port, "/many"));
}

static void two_lines_of_authorization_name_nobody(void **state)
{
    struct message m;
    (void)state;
    assert_int_equal(get_with(house.port, "/jwt/x",
                              "Authorization: Bearer " ALICE "\r\n"
                              "Authorization: Bearer " MALLORY "\r\n",
                              &m),
                     200);
    assert_string_equal(m.body, "for mallory");
    assert_non_null(strstr(field_of(&m, "Cache-Status"), "fwd=bypass"));
    message_free(&m);
    assert_int_equal(get_with(house.port, "/jwt/x", "Authorization: Bearer " ALICE "\r\n", &m),
                     200);
    assert_string_equal(m.body, "for alice");
    message_free(&m);
    unsigned admitted = 0;
    for (int i = 0; i < 4; i++) {
        char lines[512]; /* {"sub":"<i>"} first, the real one behind it */
        static const char *const made_up[] = {"eyJzdWIiOiIwIn0", "eyJzdWIiOiIxIn0",
                                              "eyJzdWIiOiIyIn0", "eyJzdWIiOiIzIn0"};
        snprintf(lines, sizeof lines,
                 "Authorization: Bearer e30.%s.\r\nAuthorization: Bearer " MALLORY "\r\n",
                 made_up[i]);
        admitted += get_with(house.port, "/limited/x", lines, NULL) == 200;
    }
    assert_int_equal(admitted, 2);
}

static void conditions_in_two_lines_are_one_list_or_nothing(void **state)
{
    struct message m;
    (void)state;
    wait_until(served_from_store(house.port, "/tagged"), 5000);
    assert_int_equal(
        get_with(house.port, "/tagged", "If-None-Match: \"x\"\r\nIf-None-Match: \"v1\"\r\n", &m),
        304);
    message_free(&m);
    assert_int_equal(
        get_with(house.port, "/tagged", "If-None-Match: \"x\"\r\nIf-None-Match: \"y\"\r\n", NULL),
        200);
    assert_int_equal(get_with(house.port, "/tagged", "If-Modified-Since: " MODIFIED "\r\n", &m),
                     304);
    message_free(&m);
    assert_int_equal(get_with(house.port, "/tagged",
                              "If-Modified-Since: " MODIFIED "\r\n"
                              "If-Modified-Since: " MODIFIED "\r\n",
                              NULL),
                     200);
    /* A miss that waits for the backend has the conditions of a hit. */
    assert_int_equal(get_with(house.port, "/tagged/miss",
                              "If-None-Match: \"x\"\r\nIf-None-Match: \"v1\"\r\n", &m),
                     304);
    message_free(&m);
    assert_int_equal(
        get_with(house.port, "/tagged", "Range: bytes=0-1\r\nRange: bytes=2-3\r\n", &m), 200);
    assert_string_equal(m.body, "0123456789");
    message_free(&m);
    assert_int_equal(get_with(house.port, "/tagged",
                              "Range: bytes=0-1\r\nIf-Range: \"v1\"\r\nIf-Range: \"v2\"\r\n", NULL),
                     200);
    assert_int_equal(
        get_with(house.port, "/tagged", "Range: bytes=0-1\r\nIf-Range: \"v1\"\r\n", &m), 206);
    message_free(&m);
}

/* The same again on one connection, where an answer may come from what is remembered of it. */
static void a_list_in_two_lines_is_not_remembered_as_one(void **state)
{
    (void)state;
    wait_until(served_from_store(house.port, "/tagged"), 5000);
    const int fd = client_connect(house.port);
    for (int i = 0; i < 4; i++) {
        struct message m;
        client_send(fd, "GET /tagged HTTP/1.1\r\nHost: h\r\nIf-None-Match: \"x\"\r\n"
                        "If-None-Match: \"v1\"\r\n\r\n");
        client_read(fd, &m, false);
        assert_int_equal(m.status, 304);
        message_free(&m);
    }
    close(fd);
}

static void tags_in_two_lines_are_no_validator(void **state)
{
    struct message m;
    (void)state;
    wait_until(served_from_store(house.port, "/twice"), 5000);
    assert_int_equal(get_with(house.port, "/twice", "If-None-Match: \"v1\"\r\n", &m), 200);
    message_free(&m);
}

static void upgrade_in_two_lines_is_one_list(void **state)
{
    struct message m;
    (void)state;
    /* Without a key: that it is refused as a handshake shows that it was taken for one. */
    assert_int_equal(get_with(house.port, "/ws/x",
                              "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n"
                              "Sec-WebSocket-Version: 13\r\n",
                              &m),
                     400);
    assert_non_null(strstr(m.body, "Sec-WebSocket-Key"));
    message_free(&m);
}

static void every_location_is_invalidated(void **state)
{
    (void)state;
    wait_until(served_from_store(house.port, "/tagged/a"), 5000);
    wait_until(served_from_store(house.port, "/tagged/b"), 5000);
    assert_int_equal(request(house.port, "POST", "/move", "", "x", NULL), 201);
    assert_false(served_from_store(house.port, "/tagged/a"));
    assert_false(served_from_store(house.port, "/tagged/b"));
}

/* The first line that `cache why` prints. */
static const char *why(const char *target)
{
    static char line[600];
    const char *out;
    assert_int_equal(ctl(&house, &out, "cache why http://test.example%s", target), 0);
    snprintf(line, sizeof line, "%.*s", (int)strcspn(out, "\n"), out);
    return line;
}

static void why_knows_why_nothing_is_stored(void **state)
{
    static const struct {
        const char *target, *reason;
    } rows[] = {{"/secret/w?private", "response says private"},
                {"/secret/w?no-store", "no-store"},
                {"/vary/w?*", "Vary: *"},
                {"/vary/w?a+b", "cannot be read"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_non_null(strstr(why(rows[i].target), "miss: nothing is stored under it"));
        assert_null(strstr(why(rows[i].target), rows[i].reason));
        get(house.port, rows[i].target, NULL);
        if (!strstr(why(rows[i].target), rows[i].reason))
            fail_msg("%s: %s", rows[i].target, why(rows[i].target));
    }
    const char *out;
    assert_int_equal(ctl(&house, &out, "cache why ftp://test.example/x"), 2);
    assert_int_equal(ctl(&house, &out, "cache invalidate --prefix ftp://test.example/x"), 2);
    wait_until(served_from_store(house.port, "/tagged"), 5000);
    if (strncmp(why("/tagged"), "the next GET is a hit; fresh for ", 33) ||
        !strstr(why("/tagged"), "; stored "))
        fail_msg("%s", why("/tagged"));
}

static bool is_stored(const char *target)
{
    const char *out;
    return ctl(&house, &out, "--json cache show http://test.example%s", target) == 0 &&
           strstr(out, target);
}

/* Whose answer was the one before them? */
static void bytes_that_nobody_asked_for_end_what_was_stored_last(void **state)
{
    (void)state;
    atomic_store(&may_stray, false);
    assert_int_equal(get(house.port, "/stray", NULL), 200);
    wait_until(served_from_store(house.port, "/stray"), 5000);
    atomic_store(&may_stray, true);
    wait_until(house_logged(&house, "bytes that were not asked for"), 5000);
    wait_until(!is_stored("/stray"), 5000);
}

static void a_body_that_is_announced_and_cannot_be_ends_the_connection(void **state)
{
    (void)state;
    assert_int_equal(get(house.port, "/plain", NULL), 200);
    const unsigned before = backend_connections(backend);
    assert_int_equal(get(house.port, "/empty/1", NULL), 204);
    assert_int_equal(get(house.port, "/empty/2", NULL), 204);
    assert_in_range(backend_connections(backend), before + 1, before + 2);
    assert_int_equal(request(house.port, "HEAD", "/plain/2", "", NULL, NULL), 200);
    const unsigned then = backend_connections(backend);
    assert_int_equal(get(house.port, "/plain/3", NULL), 200);
    assert_int_equal(backend_connections(backend), then + 1);
}

static void chunk_extensions_are_read_by_their_grammar(void **state)
{
    static const char *const bad[] = {"0;a=\"",  "0;a=",      "0;",      "0;;",
                                      "0;a;",    "0;a=(b)",   "0;a=\"b", "0;a=\"b\"c",
                                      "0;a=b c", "0;a=\"b\\", "0;=b",    "0;a= "};
    static const char *const good[] = {"0;a", "0;a=b", "0 ; a = \"x;=\\\"\"", "0;a;b=\"\";c=d"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const int fd = client_connect(house.port);
        struct message m;
        client_send(fd,
                    "POST /q HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                    "%s\r\n\r\nGET /evil HTTP/1.1\r\nHost: h\r\n\r\n",
                    bad[i]);
        client_read(fd, &m, false);
        if (m.status != 400)
            fail_msg("%s: %d", bad[i], m.status);
        message_free(&m);
        assert_true(client_closed(fd, 5000));
        close(fd);
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        const int fd = client_connect(house.port);
        struct message m;
        client_send(fd,
                    "POST /q HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                    "%s\r\n\r\n",
                    good[i]);
        client_read(fd, &m, false);
        if (m.status != 200)
            fail_msg("%s: %d", good[i], m.status);
        message_free(&m);
        close(fd);
    }
    char *asked = backend_transcript(backend);
    assert_null(strstr(asked, "/evil"));
    free(asked);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test_setup_teardown(a_vary_that_is_no_list_of_names_varies_by_everything,
                                        open_house, close_house),
        cmocka_unit_test_setup_teardown(an_argument_that_cannot_be_read_leaves_the_directive_alone,
                                        open_house, close_house),
        cmocka_unit_test_setup_teardown(what_is_no_directive_may_forbid_storing, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(more_directives_than_anybody_has_are_not_looked_through,
                                        open_house, close_house),
        cmocka_unit_test_setup_teardown(two_lines_of_authorization_name_nobody, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(conditions_in_two_lines_are_one_list_or_nothing, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(a_list_in_two_lines_is_not_remembered_as_one, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(tags_in_two_lines_are_no_validator, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(upgrade_in_two_lines_is_one_list, open_house, close_house),
        cmocka_unit_test_setup_teardown(every_location_is_invalidated, open_house, close_house),
        cmocka_unit_test_setup_teardown(why_knows_why_nothing_is_stored, open_house, close_house),
        cmocka_unit_test_setup_teardown(bytes_that_nobody_asked_for_end_what_was_stored_last,
                                        open_house, close_house),
        cmocka_unit_test_setup_teardown(a_body_that_is_announced_and_cannot_be_ends_the_connection,
                                        open_house, close_house),
        cmocka_unit_test_setup_teardown(chunk_extensions_are_read_by_their_grammar, open_house,
                                        close_house),
    };
    return run_with_backend(stories, &backend, answers);
}
