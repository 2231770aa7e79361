/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of what a gateway owes HTTP in the small: loops, hops, forms of targets, old methods. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
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

static bool passed_twice(const struct message *m)
{
    const char *via = strcasestr(m->body, "Via: 1.1 polder-");
    return via && strcasestr(via + 1, "Via: 1.1 polder-");
}

static void two_in_a_row_are_no_loop_and_two_in_a_circle_are(void **state)
{
    (void)state;
    struct house front, behind;
    struct message m;
    start(&behind, "");
    start(&front, "");
    lead_to(&front, "", behind.port);
    char target[32]; /* workers of before may answer for a while */
    unsigned n = 0;
    bool twice = false;
    wait_until((snprintf(target, sizeof target, "/a%u", n++), get(front.port, target, &m) == 200) &&
                   (twice = passed_twice(&m), message_free(&m), twice),
               10000);
    lead_to(&behind, "", front.port);
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

/* ---- forms of targets, methods, hops ---- */

/* Sends these bytes, whose answer shows the head that the backend got. */
static int ask_raw(struct house *h, const char *bytes, struct message *m)
{
    int fd = client_connect(h->port);
    client_send_bytes(fd, bytes, strlen(bytes));
    client_read(fd, m, false);
    close(fd);
    return m->status;
}

static void targets_mean_what_they_say(void **state)
{
    (void)state;
    static const struct {
        const char *sent, *got;
    } c[] = {
        {"GET http://h.test?a=b HTTP/1.1\r\nHost: h.test\r\n\r\n", "GET /?a=b HTTP/1.1\r\n"},
        {"GET http://h.test HTTP/1.1\r\nHost: h.test\r\n\r\n", "GET / HTTP/1.1\r\n"},
        {"GET http://h.test:/x HTTP/1.1\r\nHost: h.test\r\n\r\n", "GET /x HTTP/1.1\r\n"},
        {"GET http://h.test/x HTTP/1.1\r\nHost: h.test:\r\n\r\n", "GET /x HTTP/1.1\r\n"},
        {"QUERY /q HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody", "QUERY /q HTTP/1.1\r\n"},
        {"OPTIONS /x HTTP/1.1\r\nHost: h\r\nMax-Forwards: 5\r\n\r\n", "Max-Forwards: 4\r\n"},
        {"OPTIONS /x HTTP/1.1\r\nHost: h\r\nMax-Forwards: x\r\n\r\n", "Max-Forwards: x\r\n"},
        {"GET /x HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n", "Max-Forwards: 0\r\n"}};
    static const char *const here[] = {"OPTIONS http://h.test HTTP/1.1\r\nHost: h.test\r\n\r\n",
                                       "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
                                       "OPTIONS /x HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n"};
    struct house h;
    struct message m;
    start(&h, "");
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        assert_int_equal(ask_raw(&h, c[i].sent, &m), 200);
        if (!strstr(m.body, c[i].got))
            fail_msg("%s became %s", c[i].sent, m.body);
        message_free(&m);
    }
    backend_forget(backend);
    for (size_t i = 0; i < sizeof here / sizeof *here; i++) {
        assert_int_equal(ask_raw(&h, here[i], &m), 204);
        assert_non_null(field_of(&m, "Allow"));
        message_free(&m);
    }
    assert_int_equal(backend_calls(backend), 0);
    house_remove(&h);
}

/* What some clients send behind a body, however it is cut up. */
static void empty_lines_before_a_request_are_skipped(void **state)
{
    (void)state;
    static const char *const pieces[][4] = {
        {"\r", "\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", "", ""},
        {"\r\n\r", "\n", "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", ""},
        {"\r", "\n", "\r", "\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n"}};
    struct house h;
    struct message m;
    start(&h, "");
    for (size_t i = 0; i < 3; i++) {
        int fd = client_connect(h.port);
        for (int round = 0; round < 2; round++) {
            for (size_t k = 0; k < 4; k++) {
                client_send_bytes(fd, pieces[i][k], strlen(pieces[i][k]));
                nap_ms(20); /* so that they are most probably read one by one */
            }
            client_read(fd, &m, false);
            assert_int_equal(m.status, 200);
            message_free(&m);
        }
        close(fd);
    }
    /* but a lone CR is no line */
    assert_int_equal(ask_raw(&h, "\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", &m), 400);
    message_free(&m);
    house_remove(&h);
}

static bool wants_another_protocol(struct asked *a)
{
    return reply(a, "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.3, websocket\r\n"
                    "Connection: upgrade\r\nContent-Length: 0\r\n\r\n");
}

static void an_answer_426_says_to_what(void **state)
{
    (void)state;
    static const char *const asked[] = {
        "GET /ws HTTP/1.1\r\nHost: h\r\n\r\n",
        ("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n\r\n"),
        "GET /backend HTTP/1.1\r\nHost: h\r\n\r\n"};
    struct backend *other = backend_start(wants_another_protocol, NULL);
    struct house h;
    struct message m;
    house_start(&h, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" }\nroute \"/ws\" { websocket { } }\n",
                backend_port(other));
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(ask_raw(&h, asked[i], &m), 426);
        assert_string_equal(field_of(&m, "Upgrade"), i == 2 ? "TLS/1.3, websocket" : "websocket");
        assert_non_null(strstr(field_of(&m, "Connection"), "Upgrade"));
        if (i < 2)
            assert_string_equal(field_of(&m, "Sec-WebSocket-Version"), "13");
        message_free(&m);
    }
    house_remove(&h);
    backend_stop(other);
}

/* ---- browsers ---- */

#define PREFLIGHT "Origin: https://app.example\r\nAccess-Control-Request-Method: PUT\r\n"

static void start_for_browsers(struct house *h)
{
    house_start(
        h, 1,
        "cors { origins = {\"https://app.example\", \"https://*.b.example\"} credentials = true }\n"
        "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
        "limit \"l\" { requests = 2 window = \"60s\" }\n"
        "limit \"all\" { requests = 2 window = \"60s\" preflights = true }\n"
        "limit \"key\" { requests = 2 key = \"header:X-Key\" missing = \"refuse\" }\n"
        "route \"/l/*\" { upstream = \"u\" limits = {\"l\"} }\n"
        "route \"/all/*\" { upstream = \"u\" limits = {\"all\"} }\n"
        "route \"/key/*\" { upstream = \"u\" limits = {\"key\"} }\n"
        "route \"/any/*\" { upstream = \"u\" limits = {\"l\"} cors { origins = {\"*\"} } }\n",
        backend_port(backend));
}

static void preflights_are_not_counted_unless_told(void **state)
{
    (void)state;
    struct house h;
    start_for_browsers(&h);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(request(h.port, "OPTIONS", "/l/a", PREFLIGHT, "", NULL), 200);
        assert_int_equal(request(h.port, "OPTIONS", "/key/a", PREFLIGHT, "", NULL), 200);
        assert_int_equal(request(h.port, "OPTIONS", "/all/a", PREFLIGHT, "", NULL),
                         i < 2 ? 200 : 429);
    }
    /* what only looks a little like one is counted */
    assert_int_equal(
        request(h.port, "OPTIONS", "/l/a", "Origin: https://app.example\r\n", "", NULL), 200);
    assert_int_equal(get_with(h.port, "/l/a", PREFLIGHT, NULL), 200);
    assert_int_equal(get_with(h.port, "/l/a", PREFLIGHT, NULL), 429);
    house_remove(&h);
}

static void scripts_may_read_refusals_where_their_origin_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *target, *origin;
        bool allowed, credentials;
    } c[] = {{"/l/a", "https://app.example", true, true},
             {"/l/a", "https://x.y.b.example", true, true},
             {"/l/a", "https://b.example", false, false},
             {"/l/a", "https://evil-b.example", false, false},
             {"/l/a", "https://app.example.evil", false, false},
             {"/l/a", "null", false, false},
             {"/any/a", "https://evil.example", true, false}};
    struct house h;
    struct message m;
    char lines[128];
    start_for_browsers(&h);
    while (get(h.port, "/l/a", NULL) == 200)
        ;
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        snprintf(lines, sizeof lines, "Origin: %s\r\n", c[i].origin);
        assert_int_equal(get_with(h.port, c[i].target, lines, &m), 429);
        const char *allow = field_of(&m, "Access-Control-Allow-Origin");
        if (c[i].allowed)
            assert_string_equal(allow, c[i].origin);
        else
            assert_null(allow);
        assert_int_equal(field_of(&m, "Access-Control-Allow-Credentials") != NULL,
                         c[i].credentials);
        assert_int_equal(field_of(&m, "Access-Control-Expose-Headers") != NULL, c[i].allowed);
        assert_string_equal(field_of(&m, "Vary"), "Origin");
        assert_non_null(field_of(&m, "RateLimit"));
        message_free(&m);
    }
    assert_int_equal(get_with(h.port, "/nowhere", "Origin: https://app.example\r\n", &m), 404);
    assert_string_equal(field_of(&m, "Access-Control-Allow-Origin"), "https://app.example");
    message_free(&m);
    assert_int_equal(get(h.port, "/l/a", &m), 429);
    assert_null(field_of(&m, "Vary"));
    message_free(&m);
    house_remove(&h);
}

/* ---- hints ---- */

static bool needs_hints(struct asked *a)
{
    if (!strncmp(a->target, "/events", 7)) {
        reply(a, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: "
                 "chunked\r\n\r\n6\r\n: hi\n\n\r\n");
        if (strstr(a->target, "rare"))
            nap_ms(1500);
        else
            for (int i = 0; i < 3000 && recv(a->fd, &(char){0}, 1, MSG_DONTWAIT | MSG_PEEK) != 0;
                 i++)
                nap_ms(5);
        return reply(a, "6\r\n: oh\n\n\r\n0\r\n\r\n");
    }
    if (!strncmp(a->target, "/secure", 7)) {
        const char *proto = field_of(&a->m, "X-Forwarded-Proto");
        if (proto && !strcmp(proto, "http"))
            return reply(a,
                         "HTTP/1.1 301 Moved\r\nLocation: https://shop.example%s\r\n"
                         "Content-Length: 0\r\n\r\n",
                         strstr(a->target, "other") ? "/login" : a->target);
    }
    return reply_ok(a, "", "fine");
}

static bool is_hinted(struct house *h, const char *name, const char *subject)
{
    const char *out;
    assert_int_equal(ctl(h, &out, "status"), 0);
    const char *line = strstr(out, name);
    return line && strstr(line, subject) && strstr(line, subject) < strchr(line, '\n');
}

static void start_for_hints(struct house *h, struct backend **other, const char *timeouts)
{
    *other = backend_start(needs_hints, NULL);
    house_start(h, 1,
                "upstream \"shop\" { server \"127.0.0.1:%u\" { } %s }\n"
                "route \"/*\" { upstream = \"shop\" }\n",
                backend_port(*other), timeouts);
}

static void event_streams_may_be_silent_for_longer(void **state)
{
    (void)state;
    struct backend *other;
    struct house h;
    struct message m;
    start_for_hints(&h, &other, "timeout = \"300ms\"");
    assert_int_equal(get(h.port, "/events/rare", &m), 200);
    assert_true(m.complete);
    assert_string_equal(m.body, ": hi\n\n: oh\n\n");
    message_free(&m);
    assert_false(is_hinted(&h, "hint_stream_cut", ""));
    house_remove(&h);
    backend_stop(other);
    start_for_hints(&h, &other, "timeout = \"200ms\" stream_timeout = \"500ms\"");
    assert_int_equal(get(h.port, "/events", &m), 200);
    assert_false(m.complete);
    message_free(&m);
    wait_until(is_hinted(&h, "hint_stream_cut", "/*"), 5000);
    house_remove(&h);
    backend_stop(other);
}

static void what_a_configuration_lacks_is_said_once(void **state)
{
    (void)state;
    static const char https[] = "X-Forwarded-Proto: https\r\n";
    struct backend *other;
    struct house h;
    struct message m;
    char request[512];
    start_for_hints(&h, &other, "");
    /* to another URL, or for one who does not say that it came over https: no loop */
    for (int i = 0; i < 3; i++) {
        static const char *const targets[] = {"/secure/other", "/secure", "/secure?x"};
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: shop.example\r\n%s\r\n",
                 targets[i], i ? "" : https);
        assert_int_equal(ask_raw(&h, request, &m), 301);
        message_free(&m);
    }
    assert_false(is_hinted(&h, "hint_redirect_loop", ""));
    snprintf(request, sizeof request, "GET /secure?x HTTP/1.1\r\nHost: shop.example\r\n%s\r\n",
             https);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ask_raw(&h, request, &m), 301);
        message_free(&m);
    }
    wait_until(is_hinted(&h, "hint_redirect_loop", "127.0.0.1"), 5000);
    assert_false(is_hinted(&h, "hint_upgrade_refused", ""));
    assert_int_equal(get_with(h.port, "/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n", NULL),
                     200);
    wait_until(is_hinted(&h, "hint_upgrade_refused", "/*"), 5000);
    house_remove(&h);
    backend_stop(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_that_comes_back_is_508),
        cmocka_unit_test(two_in_a_row_are_no_loop_and_two_in_a_circle_are),
        cmocka_unit_test(the_name_in_via_can_be_given),
        cmocka_unit_test(targets_mean_what_they_say),
        cmocka_unit_test(empty_lines_before_a_request_are_skipped),
        cmocka_unit_test(an_answer_426_says_to_what),
        cmocka_unit_test(preflights_are_not_counted_unless_told),
        cmocka_unit_test(scripts_may_read_refusals_where_their_origin_is_named),
        cmocka_unit_test(event_streams_may_be_silent_for_longer),
        cmocka_unit_test(what_a_configuration_lacks_is_said_once),
    };
    return run_with_backend(tests, &backend, shows_head);
}
