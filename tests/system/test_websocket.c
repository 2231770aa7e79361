/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of WebSockets: handed over, admitted, relayed, beating, closed rightly, and never leaked.
 */
#include "ws_client.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t echo_pid;
static struct backend *writer;
static unsigned echo_port;

static bool accept_writes(struct asked *ask)
{
    return reply_ok(ask, "", "done");
}

static int set_up(void **state)
{
    (void)state;
    writer = backend_start(accept_writes, NULL);
    echo_port = free_port();
    echo_pid = peer_start("/usr/bin/python3", "tests/clients/echo_server.py", echo_port);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    peer_stop(echo_pid);
    backend_stop(writer);
    return 0;
}

static void start(struct house *h, unsigned workers, const char *websocket)
{
    house_start(
        h, workers,
        "upstream \"writer\" { server \"127.0.0.1:%u\" { } }\n"
        "websocket { heartbeat = off %s %s "
        "}\nupstream \"u\" { server \"127.0.0.1:%u\" { } "
        "connect_timeout = 500ms }\n"
        "upstream \"gone\" { server \"127.0.0.1:%u\" { } connect_timeout = 500ms }\n"
        "route \"/ws/*\" { upstream = \"u\" websocket { } }\nroute \"/gone/*\" { upstream "
        "= \"gone\" websocket { } }\n"
        "route \"/events/*\" { websocket { } }\nroute \"/picky/*\" { upstream = \"u\" "
        "websocket { origins = {\"https://good.example\"} } }\n"
        "route \"/api/*\" { upstream = \"writer\" cache { } }\n"
        "route \"/*\" { upstream = \"u\" }\n",
        backend_port(writer),
        strstr(websocket, "max_connections =") ? "" : "max_connections = 100 max_per_client = 100",
        websocket, echo_port, free_port());
    wait_for_supervisor(h);
}

/* ---- stories ---- */

static void messages_pass_both_ways(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2, "");
    int fd = open_ws(h.port, "/ws/a");
    say(fd, "hello");
    expect_text(fd, "hello");
    static char big[100000];
    memset(big, 'x', sizeof big - 1);
    say(fd, big);
    expect_text(fd, big);
    send_frame(fd, 0x01, "frag", 4); /* fragments, with a ping between */
    send_frame(fd, 0x89, "probe", 5);
    send_frame(fd, 0x80, "ments", 5);
    bool pong = false, text = false;
    while (!(pong && text) && read_frame(fd, &frame)) {
        pong = pong || (frame.opcode == 10 && !strcmp(frame.text, "probe"));
        text = text || (frame.opcode == 1 && !strcmp(frame.text, "fragments"));
    }
    assert_true(pong && text);
    say(fd, "headers");
    expect_text(fd, "127.0.0.1");
    say(fd, "bye"); /* the backend's code and reason pass */
    assert_int_equal(expect_close(fd), 4001);
    assert_string_equal(frame.text + 2, "as asked");
    send_frame(fd, 0x88, frame.text, 2);
    assert_true(client_closed(fd, 5000));
    close(fd);
    fd = open_ws(h.port, "/ws/b"); /* the client's code passes, and comes back */
    send_frame(fd, 0x88, "\x0b\xb8over", 6);
    assert_int_equal(expect_close(fd), 3000);
    assert_true(client_closed(fd, 5000));
    close(fd);
    fd = open_ws(h.port, "/ws/c"); /* the backend vanishes */
    say(fd, "die");
    assert_int_equal(expect_close(fd), 1011);
    close(fd);
    house_remove(&h);
}

static void bad_handshakes_are_refused(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 1, "");
    static const struct {
        const char *request;
        int status;
    } bad[] = {
        {"GET /ws/a HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: "
         "Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
         400},
        {"GET /ws/a HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: "
         "Upgrade\r\nSec-WebSocket-Key: c2hvcnQ=\r\nSec-WebSocket-Version: 13\r\n\r\n",
         400},
        {"POST /ws/a HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: "
         "Upgrade\r\nSec-WebSocket-Key: " WS_KEY
         "\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n",
         400},
        {"GET /ws/a HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: "
         "Upgrade\r\nSec-WebSocket-Key: " WS_KEY "\r\nSec-WebSocket-Version: 8\r\n\r\n",
         426},
        {"GET /ws/a HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: "
         "Upgrade\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n",
         426},
        {"GET /picky/a HTTP/1.1\r\nHost: h\r\nOrigin: https://evil.example\r\nUpgrade: "
         "websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " WS_KEY
         "\r\nSec-WebSocket-Version: 13\r\n\r\n",
         403},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int fd = client_connect(h.port);
        client_send(fd, "%s", bad[i].request);
        client_read(fd, &m, false);
        if (m.status != bad[i].status)
            fail_msg("handshake %zu: %d instead of %d", i, m.status, bad[i].status);
        if (m.status == 426)
            assert_string_equal(field_of(&m, "Sec-WebSocket-Version"), "13");
        message_free(&m);
        close(fd);
    }
    close(ask(h.port, "/picky/a", "Origin: https://good.example\r\n", &m));
    assert_int_equal(m.status, 101);
    message_free(&m);
    close(ask(h.port, "/gone/a", "", &m));
    assert_int_equal(m.status, 502);
    message_free(&m);
    house_remove(&h);
}

static void one_too_many_waits_for_one_to_leave(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    int fd[50];
    start(&h, 2, "max_connections = 50 max_per_client = 50 timeout = 2s");
    for (int i = 0; i < 50; i++)
        fd[i] = open_ws(h.port, "/ws/x");
    close(ask(h.port, "/ws/x", "", &m));
    assert_int_equal(m.status, 503);
    assert_in_range(atoi(field_of(&m, "Retry-After")), 1, 60);
    message_free(&m);
    for (int i = 0; i < 50; i++) { /* all of them still work */
        say(fd[i], "here");
        expect_text(fd[i], "here");
    }
    struct linger reset = {1, 0};
    setsockopt(fd[0], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd[0]);
    int again = -1;
    wait_until((again = ask(h.port, "/ws/x", "", &m),
                m.status == 101 || (close(again), message_free(&m), false)),
               5000);
    message_free(&m);
    close(again);
    for (int i = 1; i < 50; i++)
        close(fd[i]);
    house_remove(&h);
}

static void who_breaks_the_rules_hears_which(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "max_message = \"1K\"");
    static const struct {
        const char *bytes;
        size_t len;
        unsigned code;
    } bad[] = {
        {"\x81\x05hello", 7, 1002},                        /* not masked */
        {"\xc1\x80\x01\x02\x03\x04", 6, 1002},             /* RSV1 without an extension */
        {"\x83\x80\x01\x02\x03\x04", 6, 1002},             /* unknown opcode */
        {"\x09\x80\x01\x02\x03\x04", 6, 1002},             /* fragmented ping */
        {"\x80\x80\x01\x02\x03\x04", 6, 1002},             /* continuation of nothing */
        {"\x81\xfe\x00\x05\x01\x02\x03\x04", 8, 1002},     /* length not in its shortest form */
        {"\x89\xfe\x00\x7e\x01\x02\x03\x04", 8, 1002},     /* ping of 126 bytes */
        {"\x81\x81\x00\x00\x00\x00\xff", 7, 1007},         /* no UTF-8 */
        {"\x81\x82\x00\x00\x00\x00\xc0\x80", 8, 1007},     /* overlong UTF-8 */
        {"\x81\x83\x00\x00\x00\x00\xed\xa0\x80", 9, 1007}, /* a surrogate */
        {"\x88\x81\x00\x00\x00\x00\x03", 7, 1002},         /* close with one byte */
        {"\x88\x82\x00\x00\x00\x00\x03\xed", 8, 1002},     /* close with 1005 */
        {"\x88\x83\x00\x00\x00\x00\x03\xe8\xff", 9, 1007}, /* a reason that is no UTF-8 */
        {"\x82\xfe\x04\x01\x01\x02\x03\x04", 8, 1009},     /* longer than max_message */
        {"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04", 14, 1009},
    };
    int good = open_ws(h.port, "/ws/good");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int fd = open_ws(h.port, "/ws/bad");
        client_send_bytes(fd, bad[i].bytes, bad[i].len);
        unsigned code = expect_close(fd);
        if (code != bad[i].code)
            fail_msg("frame %zu: closed with %u instead of %u", i, code, bad[i].code);
        close(fd);
        say(good, "still here");
        expect_text(good, "still here");
    }
    close(good);
    house_remove(&h);
}

static void silence_is_answered_by_heartbeats_and_ends_in_reaping(void **state)
{
    (void)state;
    struct house h;
    house_start(
        &h, 1,
        "websocket { heartbeat = both interval = 500ms timeout = 1500ms }\nupstream \"u\" { server "
        "\"127.0.0.1:%u\" { } }\nroute \"/ws/*\" { upstream = \"u\" websocket { } }\n",
        echo_port);
    int fd = -1;
    struct message m;
    wait_until((fd = ask(h.port, "/ws/dash-7", "", &m),
                m.status == 101 || (close(fd), message_free(&m), false)),
               5000);
    message_free(&m);
    bool json = false, ping = false;
    for (uint64_t end = mono_ms() + harness_patience(4000);
         !(json && ping) && mono_ms() < end && read_frame(fd, &frame);) {
        json = json || (frame.opcode == 1 &&
                        strstr(frame.text, "{\"type\":\"heartbeat\",\"timestamp\":\"20") &&
                        strstr(frame.text, "\"client_id\":\"dash-7\"}"));
        if (frame.opcode == 9) {
            ping = true;
            send_frame(fd, 0x8a, frame.text, frame.len);
        }
    }
    assert_true(json && ping);
    assert_int_equal(expect_close(fd), 1001); /* it answers no further ping: dead */
    assert_true(client_closed(fd, 5000));
    close(fd);
    house_remove(&h);
}

static void no_socket_notices_that_workers_die_or_a_reload(void **state)
{
    (void)state;
    struct house h;
    int fd[20];
    start(&h, 3, "");
    for (int i = 0; i < 20; i++)
        fd[i] = open_ws(h.port, "/ws/x");
    pid_t supervisor = supervisor_of(&h);
    for (int round = 0; round < 15; round++) {
        pid_t pid[8];
        char text[64];
        size_t n = house_children(&h, "polderd: worker", pid, 8);
        for (size_t i = 0; i < n; i++)
            kill(pid[i], SIGKILL);
        if (round == 7)
            kill(h.pid, SIGHUP);
        for (int i = 0; i < 20; i++) {
            snprintf(text, sizeof text, "round %d socket %d", round, i);
            say(fd[i], text);
            expect_text(fd[i], text);
        }
        nap_ms(50);
    }
    assert_int_equal(supervisor_of(&h), supervisor);
    for (int i = 0; i < 20; i++)
        close(fd[i]);
    house_remove(&h);
}

static void every_way_to_end_returns_everything(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 1, "max_message = \"64K\"");
    const size_t before = supervisor_descriptors_at_rest(&h, "/ws/x");
    const pid_t pid = supervisor_of(&h);
    for (int round = 0; round < 10; round++)
        for (int way = 0; way < 9; way++) {
            struct linger reset = {1, 0};
            int fd = way == 8 ? ask(h.port, "/gone/x", "", &m)
                              : open_ws(h.port, way == 7 ? "/events/x" : "/ws/x");
            switch (way) {
            case 1: /* RST */
                setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
                break;
            case 2: /* half-close */
                shutdown(fd, SHUT_WR);
                client_closed(fd, 5000);
                break;
            case 3:
                send_frame(fd, 0x88, "\x03\xe8", 2);
                expect_close(fd);
                break;
            case 4:
                say(fd, "die");
                expect_close(fd);
                break;
            case 5:
                client_send_bytes(fd, "\xff\x80\x01\x02\x03\x04", 6);
                expect_close(fd);
                break;
            case 6: /* in the middle of a frame, with answers unread */
                say(fd, "flood 300");
                client_send_bytes(fd, "\x82\xfe\x10\x00\x01\x02\x03\x04half", 12);
                break;
            case 8:
                message_free(&m);
                break;
            default: /* FIN */
                break;
            }
            close(fd);
        }
    wait_until(supervisor_descriptors(pid) <= before, 8000);
    house_remove(&h);
}

/* Reaped, closed by an operator, shed. */
static void what_polder_ends_returns_everything_too(void **state)
{
    (void)state;
    enum { N = 12 };
    struct house h;
    struct message m;
    const char *out;
    int fd[N];
    house_start(&h, 1,
                "websocket { heartbeat = ping interval = 30s timeout = 1s max_per_client = 50 }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/ws/*\" { upstream = \"u\" websocket { } }\n"
                "route \"/events/*\" { websocket { } }\n",
                echo_port);
    const size_t before = supervisor_descriptors_at_rest(&h, "/ws/x");
    const pid_t pid = supervisor_of(&h);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++)
            fd[i] = open_ws(h.port, i % 3 ? "/ws/x" : "/events/x");
        if (round == 0) { /* asked, they do not answer */
            assert_int_equal(ctl(&h, &out, "ws set interval=500ms"), 0);
        } else if (round == 1) {
            for (int i = 0; i < N; i++) {
                assert_int_equal(ctl(&h, &out, "--json ws list"), 0);
                const char *id = strstr(out, "\"id\":");
                if (!id) /* those that are closing have left meanwhile */
                    break;
                ctl(&h, &out, "ws close %llu", strtoull(id + 5, NULL, 10));
            }
            assert_int_equal(ctl(&h, &out, "ws set max_connections=0 --shed"), 0);
        } else {
            assert_int_equal(ctl(&h, &out, "ws set max_connections=0 --shed"), 0);
        }
        for (int i = 0; i < N; i++) {
            assert_true(client_closed(fd[i], 15000));
            close(fd[i]);
        }
        wait_until(supervisor_descriptors(pid) <= before, 10000);
        assert_int_equal(ctl(&h, &out, "ws set max_connections=50 interval=30s"), 0);
    }
    assert_int_equal(get(h.ops_port, "/metrics", &m), 200);
    assert_non_null(strstr(m.body, "polder_websocket_ends_total{reason=\"timeout\"} 12\n"));
    assert_non_null(strstr(m.body, "polder_websocket_connections{route=\"/ws/*\"} 0\n"));
    message_free(&m);
    house_remove(&h);
}

static void a_reader_that_stops_is_waited_for_in_bounded_memory(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "max_message = \"64K\"");
    pid_t pid = supervisor_of(&h);
    int good = open_ws(h.port, "/ws/good");
    long before = resident_kib(pid);
    int fd[10];
    for (int i = 0; i < 10; i++) {
        fd[i] = open_ws(h.port, "/ws/slow");
        say(fd[i], "flood 20000"); /* 20 MB that nobody reads */
    }
    nap_ms(1500);
    if (!harness_sanitized())
        assert_true(resident_kib(pid) - before < 8 * 1024);
    say(good, "quick");
    expect_text(good, "quick");
    for (int i = 0; i < 3; i++) { /* and when it reads again, all is there, in order */
        char want[32];
        snprintf(want, sizeof want, "%d ", i);
        assert_true(read_frame(fd[0], &frame));
        assert_memory_equal(frame.text, want, strlen(want));
    }
    for (int i = 0; i < 10; i++)
        close(fd[i]);
    close(good);
    house_remove(&h);
}

/* Pings, each of which asks for a pong, from who reads none. */
static void floods_of_pings_are_bounded(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "");
    const pid_t pid = supervisor_of(&h);
    static unsigned char pings[131 * 500];
    for (size_t i = 0; i < 500; i++)
        memcpy(pings + i * 131, "\x89\xfd\1\2\3\4", 6);
    static const char *const paths[] = {"/ws/x", "/events/x"};
    for (size_t k = 0; k < 2; k++) {
        int good = open_ws(h.port, "/ws/good"), fd = open_ws(h.port, paths[k]);
        const long before = resident_kib(pid);
        size_t at = 0, sent = 0;
        for (uint64_t end = mono_ms() + harness_patience(2000), last = mono_ms();
             sent < 64u << 20 && mono_ms() < end && mono_ms() - last < 500;) {
            const ssize_t n = send(fd, pings + at, sizeof pings - at, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n > 0) {
                at = (at + (size_t)n) % sizeof pings;
                sent += (size_t)n;
                last = mono_ms();
            }
        }
        if (!harness_sanitized())
            assert_true(resident_kib(pid) - before < 4 * 1024);
        say(good, "quick");
        expect_text(good, "quick");
        close(fd);
        close(good);
    }
    house_remove(&h);
}

static void opening_and_closing_leaves_no_trace(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2, "");
    for (int i = 0; i < 100; i++)
        close(open_ws(h.port, "/events/x"));
    pid_t pid = supervisor_of(&h);
    nap_ms(300);
    size_t before = descriptors(pid);
    long memory = resident_kib(pid);
    for (int i = 0; i < 3000; i++)
        close(open_ws(h.port, "/events/x"));
    wait_until(descriptors(pid) <= before, 5000);
    if (!harness_sanitized())
        assert_true(resident_kib(pid) - memory < 1024);
    house_remove(&h);
}

static void the_admin_sees_and_ends_them(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    struct message m;
    char text[32];
    start(&h, 1, "max_connections_total = 5");
    int a = open_ws(h.port, "/ws/alpha"), b = open_ws(h.port, "/events/beta");
    assert_int_equal(ctl(&h, &out, "--json ws list"), 0);
    assert_non_null(strstr(out, "\"alpha\""));
    assert_non_null(strstr(out, "\"/events/*\""));
    const char *id = strstr(out, "\"id\":");
    assert_non_null(id);
    assert_int_equal(get(h.ops_port, "/api/telemetry/websocket-health", &m), 200);
    assert_non_null(strstr(m.body, "\"activeConnections\":2"));
    assert_non_null(strstr(m.body, "\"maxConnections\":5"));
    message_free(&m);
    assert_int_equal(ctl(&h, &out, "ws broadcast hello-all"), 0);
    expect_text(a, "hello-all");
    expect_text(b, "hello-all");
    /* a front end is told instead of polling */
    say(b, "{\"type\":\"subscribe\",\"tags\":[\"item-7\"],\"prefix\":\"/api/items/\"}");
    expect_text(b, "{\"type\":\"subscribed\"}");
    assert_int_equal(ctl(&h, &out, "cache invalidate --tag other"), 0);
    assert_int_equal(ctl(&h, &out, "cache invalidate --tag item-7"), 0);
    assert_true(read_frame(b, &frame));
    assert_non_null(strstr(frame.text, "\"invalidated\""));
    assert_non_null(strstr(frame.text, "item-7"));
    assert_int_equal(ctl(&h, &out, "cache invalidate --prefix /api/items/7"), 0);
    assert_true(read_frame(b, &frame));
    assert_non_null(strstr(frame.text, "/api/items/7"));
    /* an unsafe method through a worker invalidates too */
    const int written = request(h.port, "PUT", "/api/items/9", "", "x", &m);
    message_free(&m);
    assert_int_equal(written, 200);
    assert_true(read_frame(b, &frame));
    assert_non_null(strstr(frame.text, "\"prefix\":\"/api/items/9\""));
    assert_int_equal(ctl(&h, &out, "ws set max_connections_total=2"), 0);
    close(ask(h.port, "/ws/x", "", &m));
    assert_int_equal(m.status, 503);
    message_free(&m);
    assert_int_equal(ctl(&h, &out, "ws set max_connections_total=1 --shed"), 0);
    bool a_left = expect_close(a) == 1013;
    if (!a_left)
        assert_int_equal(expect_close(b), 1013);
    assert_int_equal(ctl(&h, &out, "ws close 999999"), 1);
    assert_int_equal(ctl(&h, &out, "--json ws list"), 0);
    snprintf(text, sizeof text, "%llu", strtoull(strstr(out, "\"id\":") + 5, NULL, 10));
    assert_int_equal(ctl(&h, &out, "ws close %s", text), 0);
    close(a);
    close(b);
    house_remove(&h);
}

static void a_drain_tells_everybody_over_a_while(void **state)
{
    (void)state;
    struct house h;
    enum { N = 60 };
    int fd[N];
    uint64_t first = 0, last = 0;
    start(&h, 1, "");
    for (int i = 0; i < N; i++)
        fd[i] = open_ws(h.port, "/ws/x");
    kill(supervisor_of(&h), SIGTERM);
    bool open[N];
    memset(open, 1, sizeof open);
    for (int left = N; left;) {
        struct pollfd p[N];
        for (int i = 0; i < N; i++)
            p[i] = (struct pollfd){open[i] ? fd[i] : -1, POLLIN, 0};
        assert_true(poll(p, N, (int)harness_patience(10000)) > 0);
        for (int i = 0; i < N; i++)
            if (p[i].revents) {
                assert_int_equal(expect_close(fd[i]), 1012);
                last = mono_ms();
                first = first ? first : last;
                close(fd[i]);
                open[i] = false;
                left--;
            }
    }
    assert_true(last - first >= 100); /* not all at one instant */
    assert_true(house_logged(&h, "60 WebSockets are told to reconnect"));
    house_remove(&h);
}

static void shedding_closes_the_longest_idle_and_no_more(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    int fd[6];
    start(&h, 1, "");
    for (int i = 0; i < 6; i++) {
        fd[i] = open_ws(h.port, "/ws/x");
        say(fd[i], "hello");
        expect_text(fd[i], "hello");
        nap_ms(5); /* so that who has been idle for longest is known */
    }
    say(fd[0], "awake");
    expect_text(fd[0], "awake");
    assert_int_equal(ctl(&h, &out, "ws set route=/ws/* max_connections=4 --shed"), 0);
    assert_int_equal(expect_close(fd[1]), 1013);
    assert_int_equal(expect_close(fd[2]), 1013);
    for (int i = 0; i < 6; i++) {
        if (i != 1 && i != 2) {
            say(fd[i], "still here");
            expect_text(fd[i], "still here");
        }
        close(fd[i]);
    }
    house_remove(&h);
}

static void backends_leave_in_every_way_and_only_their_client_notices(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    int client;
    char bytes[256];
    struct scripted frank;
    house_start(
        &h, 1,
        "websocket { heartbeat = off }\nupstream \"frank\" { server \"127.0.0.1:%d\" { } }\n"
        "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
        "route \"/frank/*\" { upstream = \"frank\" websocket { } }\n"
        "route \"/ws/*\" { upstream = \"u\" websocket { } }\n",
        (scripted_open(&frank), frank.port), echo_port);
    wait_for_supervisor(&h);
    const int good = open_ws(h.port, "/ws/good");
    const pid_t pid = supervisor_of(&h);

    /* it says goodbye and hangs up; its client goes on talking for a moment */
    int fd = scripted_agree(&frank, &client, h.port, "/frank/x", "");
    client_send_bytes(fd, "\x88\x02\x03\xe8", 4);
    close(fd);
    assert_int_equal(expect_close(client), 1000);
    say(client, "still talking");
    send_frame(client, 0x89, "", 0);
    send_frame(client, 0x88, "\x03\xe8", 2);
    assert_true(client_closed(client, 5000)); /* and no second goodbye */
    close(client);

    /* it dies within a frame: nothing is put into that frame */
    fd = scripted_agree(&frank, &client, h.port, "/frank/x", "");
    memset(bytes, 'x', sizeof bytes);
    memcpy(bytes, "\x82\x64", 2);
    client_send_bytes(fd, bytes, 80);
    close(fd);
    size_t got = 0;
    for (ssize_t n; (n = recv(client, bytes, sizeof bytes, 0)) > 0;)
        got += (size_t)n;
    assert_int_equal(got, 80);
    close(client);

    /* it refuses, and its words come later */
    static const char no[] = "HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\n";
    client = client_connect(h.port);
    client_send(client,
                "GET /frank/x HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: "
                "Upgrade\r\nSec-WebSocket-Key: " WS_KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n");
    fd = scripted_answer(&frank, no, sizeof no - 1);
    nap_ms(50);
    client_send_bytes(fd, "go away, y", 10);
    client_read(client, &m, false);
    assert_int_equal(m.status, 403);
    assert_string_equal(m.body, "go away, y");
    message_free(&m);
    close(fd);
    close(client);

    say(good, "still here");
    expect_text(good, "still here");
    assert_int_equal(supervisor_of(&h), pid);

    /* a server that is taken out gets no new ones */
    const char *out;
    assert_int_equal(ctl(&h, &out, "upstream weight u 127.0.0.1:%u 0", echo_port), 0);
    wait_until(status_of(h.port, "/ws/x") == 503, 5000);
    assert_int_equal(ctl(&h, &out, "upstream weight u 127.0.0.1:%u 100", echo_port), 0);
    wait_until(status_of(h.port, "/ws/x") == 101, 5000);
    say(good, "still here");
    expect_text(good, "still here");
    close(good);
    close(frank.fd);
    house_remove(&h);
}

static void half_a_subscription_is_none(void **state)
{
    (void)state;
    struct house h;
    char text[2048];
    size_t n = (size_t)snprintf(text, sizeof text, "{\"type\":\"subscribe\",\"tags\":[");
    start(&h, 1, "");
    const int fd = open_ws(h.port, "/events/x");
    for (int i = 0; i < 65; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s\"t%d\"", i ? "," : "", i);
    snprintf(text + n, sizeof text - n, "]}");
    say(fd, text);
    assert_true(read_frame(fd, &frame));
    assert_non_null(strstr(frame.text, "\"error\""));
    /* so it hears of everything, however long */
    struct message m;
    char target[2400] = "/api/";
    memset(target + strlen(target), 'p', 2100);
    assert_int_equal(request(h.port, "PUT", target, "", "x", &m), 200);
    message_free(&m);
    assert_true(read_frame(fd, &frame));
    assert_non_null(strstr(frame.text, "/ppp"));
    close(fd);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_pass_both_ways),
        cmocka_unit_test(bad_handshakes_are_refused),
        cmocka_unit_test(one_too_many_waits_for_one_to_leave),
        cmocka_unit_test(who_breaks_the_rules_hears_which),
        cmocka_unit_test(silence_is_answered_by_heartbeats_and_ends_in_reaping),
        cmocka_unit_test(no_socket_notices_that_workers_die_or_a_reload),
        cmocka_unit_test(every_way_to_end_returns_everything),
        cmocka_unit_test(what_polder_ends_returns_everything_too),
        cmocka_unit_test(a_reader_that_stops_is_waited_for_in_bounded_memory),
        cmocka_unit_test(floods_of_pings_are_bounded),
        cmocka_unit_test(opening_and_closing_leaves_no_trace),
        cmocka_unit_test(the_admin_sees_and_ends_them),
        cmocka_unit_test(a_drain_tells_everybody_over_a_while),
        cmocka_unit_test(backends_leave_in_every_way_and_only_their_client_notices),
        cmocka_unit_test(half_a_subscription_is_none),
        cmocka_unit_test(shedding_closes_the_longest_idle_and_no_more),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
