/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of open WebSockets: what passes, what is ours, and that what was said arrives. */
#include "ws_client.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

static void start(struct house *h, const struct scripted *b, const char *websocket)
{
    house_start(h, 1,
                "websocket { %s }\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/ws/*\" { upstream = \"u\" websocket { } }\n",
                websocket, b->port);
    wait_for_supervisor(h);
}

/* A frame of a server. */
static size_t put_frame(char *out, unsigned first, const void *payload, size_t len)
{
    size_t n = 0;
    out[n++] = (char)first;
    if (len < 126) {
        out[n++] = (char)len;
    } else {
        const unsigned bytes = len < 65536 ? 2 : 8;
        out[n++] = bytes == 2 ? 126 : 127;
        for (unsigned i = bytes; i-- > 0;)
            out[n++] = (char)((unsigned long long)len >> (8 * i));
    }
    memcpy(out + n, payload, len);
    return n + len;
}

static void serve(int fd, unsigned first, const void *payload, size_t len)
{
    char *f = malloc(len + 14);
    client_send_bytes(fd, f, put_frame(f, first, payload, len));
    free(f);
}

/* One frame of a masking peer, as a backend sees it. */
static bool take_masked(int fd, struct ws_frame *f)
{
    unsigned char h[8], mask[4];
    if (!take(fd, h, 2))
        return false;
    f->opcode = h[0] & 15;
    f->len = h[1] & 127;
    assert_int_equal(h[1] & 0x80, 0x80);
    if (f->len == 126) {
        assert_true(take(fd, h, 2));
        f->len = (size_t)h[0] << 8 | h[1];
    }
    assert_true(f->len < sizeof f->text && take(fd, mask, 4) && take(fd, f->text, f->len));
    for (size_t i = 0; i < f->len; i++)
        f->text[i] = (char)(f->text[i] ^ mask[i & 3]);
    f->text[f->len] = 0;
    f->code = f->opcode == 8 && f->len >= 2
                  ? (unsigned)(unsigned char)f->text[0] << 8 | (unsigned char)f->text[1]
                  : 0;
    return true;
}

static unsigned backend_close_code(int fd)
{
    static struct ws_frame f;
    while (take_masked(fd, &f))
        if (f.opcode == 8)
            return f.code;
    return 1006;
}

/* Two of us in a row: each has pings of its own, and neither takes the other's pongs for its. */
static void a_chain_keeps_idle_connections(void **state)
{
    (void)state;
    struct house inner, outer;
    const unsigned echo_port = free_port();
    const pid_t echo = peer_start("/usr/bin/python3", "tests/clients/echo_server.py", echo_port);
    struct scripted at_echo = {.port = echo_port};
    start(&inner, &at_echo, "heartbeat = off");
    struct scripted at_inner = {.port = inner.port};
    start(&outer, &at_inner, "heartbeat = ping interval = 300ms timeout = 900ms");
    const int fd = open_ws(outer.port, "/ws/x");
    unsigned pings = 0;
    const uint64_t end = mono_ms() + 4000;
    while (mono_ms() < end && read_frame(fd, &frame)) {
        if (frame.opcode == 8)
            fail_msg("closed with %u after %u pings", frame.code, pings);
        if (frame.opcode == 9) {
            pings++;
            send_frame(fd, 0x8a, frame.text, frame.len);
        }
    }
    assert_true(pings >= 3);
    say(fd, "still there");
    do
        assert_true(read_frame(fd, &frame));
    while (frame.opcode == 9);
    assert_string_equal(frame.text, "still there");
    close(fd);
    house_remove(&outer);
    house_remove(&inner);
    peer_stop(echo);
}

/* What a peer calls its own ping is answered by its own pong, whatever it says. */
static void pongs_that_nobody_asked_for_pass(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    int client;
    static struct ws_frame got;
    scripted_open(&b);
    start(&h, &b, "heartbeat = off");
    const int fd = scripted_agree(&b, &client, h.port, "/ws/x", "");
    static const char old[] = "PLDR\1\0\0\0";
    send_frame(client, 0x8a, old, 8);
    assert_true(take_masked(fd, &got));
    assert_int_equal(got.opcode, 10);
    assert_memory_equal(got.text, old, 8);
    close(fd);
    close(client);
    close(b.fd);
    house_remove(&h);
}

/* Two connections in the same state are asked with different words. */
static void pings_cannot_be_guessed(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    int client;
    char first[125];
    static struct ws_frame got;
    scripted_open(&b);
    start(&h, &b, "heartbeat = ping interval = 200ms timeout = 30s");
    const int fd = scripted_agree(&b, &client, h.port, "/ws/x", "");
    assert_true(read_frame(client, &frame));
    assert_int_equal(frame.opcode, 9);
    assert_true(frame.len >= 8);
    memcpy(first, frame.text, 8);
    assert_true(take_masked(fd, &got));
    assert_int_equal(got.opcode, 9);
    assert_memory_not_equal(got.text, first, 8);
    serve(fd, 0x8a, got.text, got.len); /* swallowed: the client sees none of it */
    serve(fd, 0x81, "hello", 5);
    do
        assert_true(read_frame(client, &frame) && frame.opcode != 10);
    while (frame.opcode == 9);
    assert_string_equal(frame.text, "hello");
    close(fd);
    close(client);
    close(b.fd);
    house_remove(&h);
}

static void small_window(int fd)
{
    const int size = 65536;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
}

static size_t queued(struct house *h)
{
    const char *out;
    assert_int_equal(ctl(h, &out, "--json ws list"), 0);
    const char *at = strstr(out, "\"queued\":");
    return at ? strtoul(at + 9, NULL, 10) : 0;
}

/* Sends messages until some of them wait in the supervisor, then a close frame, which it can still
 * read; returns how many there were. */
static unsigned send_until_some_wait(struct house *h, int fd, bool masked)
{
    static char message[10000], f[10100];
    unsigned n = 0;
    size_t len = put_frame(f, 0x82, message, sizeof message);
    if (masked) { /* a mask of zeros */
        memmove(f + 8, f + 4, sizeof message);
        f[1] = (char)(f[1] | (char)0x80);
        memset(f + 4, 0, 4);
        len += 4;
    }
    while (queued(h) < 60000 && n < 3000)
        for (int i = 0; i < 5; i++, n++)
            client_send_bytes(fd, f, len);
    client_send_bytes(fd, masked ? "\x88\x82\0\0\0\0\x03\xe8" : "\x88\x02\x03\xe8", masked ? 8 : 4);
    return n;
}

/* A thread-less reader: a child stands still for a while, then counts what comes. */
static pid_t count_later(int fd, unsigned pause_ms, bool masked, int *result)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        unsigned n = 0;
        static struct ws_frame f;
        for (uint64_t end = mono_ms() + pause_ms; mono_ms() < end;)
            nap_ms(20);
        while (masked ? take_masked(fd, &f) : read_frame(fd, &f)) {
            n += f.opcode == 2;
            if (f.opcode == 8) {
                n |= 1u << 31;
                break;
            }
        }
        if (write(ends[1], &n, sizeof n) != sizeof n)
            _exit(1);
        _exit(0);
    }
    close(ends[1]);
    *result = ends[0];
    return pid;
}

/* Who reads nothing for longer than a close takes still gets all that was said, and the close. */
static void an_orderly_close_delivers_what_was_said(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) { /* to the client, to the backend */
        struct house h;
        struct scripted b;
        int client, result;
        unsigned got = 0;
        scripted_open(&b);
        small_window(b.fd);
        start(&h, &b, "heartbeat = off timeout = 30s");
        const int fd = scripted_agree(&b, &client, h.port, "/ws/x", "");
        small_window(client);
        const pid_t reader = way ? count_later(fd, 12000, true, &result)
                                 : count_later(client, 12000, false, &result);
        const unsigned sent = send_until_some_wait(&h, way ? client : fd, way);
        assert_int_equal(read(result, &got, sizeof got), sizeof got);
        if ((got & ~(1u << 31)) != sent || !(got >> 31))
            fail_msg("%s: %u of %u messages, %s close frame",
                     way ? "to the backend" : "to the client", got & ~(1u << 31), sent,
                     got >> 31 ? "with" : "without");
        peer_stop(reader);
        close(result);
        close(fd);
        close(client);
        close(b.fd);
        house_remove(&h);
    }
}

static void a_backend_may_say_what_it_likes_unless_told_otherwise(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    int client;
    const char *out;
    static char big[100001];
    scripted_open(&b);
    start(&h, &b, "heartbeat = off max_message = 1K");
    int fd = scripted_agree(&b, &client, h.port, "/ws/x", "");
    memset(big, 'x', sizeof big - 1);
    serve(fd, 0x81, big, sizeof big - 1); /* max_message is for clients */
    expect_text(client, big);
    close(fd);
    close(client);

    assert_int_equal(ctl(&h, &out, "ws set max_message_backend=64K"), 0);
    fd = scripted_agree(&b, &client, h.port, "/ws/x", "");
    serve(fd, 0x81, "short", 5);
    expect_text(client, "short");
    serve(fd, 0x01, big, 40000);
    serve(fd, 0x80, big, 40000);
    assert_int_equal(expect_close(client), 1009);
    assert_non_null(strstr(frame.text + 2, "backend"));
    assert_int_equal(backend_close_code(fd), 1009);
    close(fd);
    close(client);
    wait_until(
        (assert_int_equal(ctl(&h, &out, "--json ws stats"), 0), strstr(out, "\"too-big\": 1")),
        10000);
    wait_until(house_logged(&h, "longer than max_message_backend (65536)"), 5000);

    /* another rule: the client hears that the backend failed, the backend which rule */
    fd = scripted_agree(&b, &client, h.port, "/ws/x", "");
    client_send_bytes(fd, "\xc1\x02hi", 4); /* RSV1, and no extension */
    assert_int_equal(expect_close(client), 1011);
    assert_int_equal(backend_close_code(fd), 1002);
    close(fd);
    close(client);
    close(b.fd);
    house_remove(&h);
}

/* A heartbeat is for silence. What was due within a message is not put behind its last piece. */
static void a_message_is_as_good_as_a_heartbeat(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    int client;
    scripted_open(&b);
    start(&h, &b, "heartbeat = json interval = 2s");
    const int fd = scripted_agree(&b, &client, h.port, "/ws/x", "");
    const uint64_t begin = mono_ms();
    serve(fd, 0x01, "a", 1);
    while (mono_ms() < begin + 4000) /* twice the interval: it was due, and there was no place */
        nap_ms(20);
    serve(fd, 0x80, "z", 1);
    const uint64_t ended = mono_ms();
    assert_true(read_frame(client, &frame));
    assert_string_equal(frame.text, "a");
    assert_true(read_frame(client, &frame));
    assert_string_equal(frame.text, "z");
    assert_true(read_frame(client, &frame));
    assert_non_null(strstr(frame.text, "heartbeat"));
    assert_true(mono_ms() - ended >= 800); /* the wheel turns in quarters of a second */
    close(fd);
    close(client);
    close(b.fd);
    house_remove(&h);
}

static void nobody_is_reset_for_reading_slowly_where_no_reaping_was_asked_for(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    int client, result;
    unsigned got = 0;
    scripted_open(&b);
    start(&h, &b, "heartbeat = json interval = 30s timeout = 1s");
    const int fd = scripted_agree(&b, &client, h.port, "/ws/x", "");
    small_window(client);
    const pid_t reader = count_later(client, 6000, false, &result);
    static char message[10000];
    unsigned sent = 0;
    for (; sent < 800; sent++) /* it takes them when the reader reads */
        serve(fd, 0x82, message, sizeof message);
    serve(fd, 0x88, "\x03\xe8", 2);
    assert_int_equal(read(result, &got, sizeof got), sizeof got);
    assert_int_equal(got, 1u << 31 | sent);
    peer_stop(reader);
    close(result);
    close(fd);
    close(client);
    close(b.fd);
    house_remove(&h);
}

static void only_known_extensions_are_negotiated(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    struct message m;
    scripted_open(&b);
    start(&h, &b, "heartbeat = off");
    int client = ask_only(h.port, "/ws/x",
                          "Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n"
                          "Sec-WebSocket-Extensions: permessage-bzip2; a=\"b,c\", "
                          "permessage-deflate; client_max_window_bits\r\n");
    static const char yes[] =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: " WS_ACCEPT "\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    int fd = scripted_answer(&b, yes, sizeof yes - 1);
    assert_null(strstr(b.head, "x-webkit-deflate-frame"));
    assert_null(strstr(b.head, "bzip2"));
    assert_non_null(strstr(b.head, "\r\nSec-WebSocket-Extensions: permessage-deflate; "
                                   "client_max_window_bits\r\n"));
    client_read(client, &m, false);
    assert_int_equal(m.status, 101);
    message_free(&m);
    close(fd);
    close(client);
    /* and a backend that insists is not believed */
    client = ask_only(h.port, "/ws/x", "Sec-WebSocket-Extensions: x-other\r\n");
    static const char other[] =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: " WS_ACCEPT "\r\nSec-WebSocket-Extensions: x-other\r\n\r\n";
    fd = scripted_answer(&b, other, sizeof other - 1);
    assert_null(strstr(b.head, "Extensions"));
    client_read(client, &m, false);
    assert_int_equal(m.status, 502);
    message_free(&m);
    close(fd);
    close(client);
    close(b.fd);
    house_remove(&h);
}

static size_t deflated(size_t zeros, unsigned char *out, size_t size)
{
    z_stream z = {0};
    static unsigned char none[5u << 20];
    assert_true(zeros <= sizeof none);
    deflateInit2(&z, 9, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY);
    z.next_in = none, z.avail_in = (unsigned)zeros;
    z.next_out = out, z.avail_out = (unsigned)size;
    deflate(&z, Z_SYNC_FLUSH);
    deflateEnd(&z);
    return z.total_out - 4;
}

/* max_message is what the other side sees: a few bytes that become many are many. */
static void a_compressed_message_counts_as_what_it_expands_to(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    int client;
    static unsigned char small[16384], large[16384];
    static struct ws_frame got;
    scripted_open(&b);
    start(&h, &b, "heartbeat = off max_message = 1M max_message_backend = 1M");
    const size_t n = deflated(1000000, small, sizeof small),
                 m = deflated(5u << 20, large, sizeof large);
    const char *const deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    for (int way = 0; way < 4; way++) { /* by the client, by the backend; in one frame, in two */
        const int fd = scripted_agree(&b, &client, h.port, "/ws/x", deflate);
        const bool up = way % 2 == 0, parts = way >= 2;
        if (up) {
            send_frame(client, 0xc1, small, n);
            assert_true(take_masked(fd, &got));
            assert_int_equal(got.len, n);
            send_frame(client, parts ? 0x41 : 0xc1, large, parts ? 10 : m);
            if (parts)
                send_frame(client, 0x80, large + 10, m - 10);
        } else {
            serve(fd, 0xc1, small, n);
            assert_true(read_frame(client, &frame));
            assert_int_equal(frame.len, n);
            serve(fd, parts ? 0x41 : 0xc1, large, parts ? 10 : m);
            if (parts)
                serve(fd, 0x80, large + 10, m - 10);
        }
        const unsigned code = expect_close(client);
        if (code != 1009)
            fail_msg("way %d: closed with %u", way, code);
        close(fd);
        close(client);
    }
    close(b.fd);
    house_remove(&h);
}

/* Where Polder answers itself, nobody makes it pile answers up. */
static void nonsense_is_answered_a_few_times(void **state)
{
    (void)state;
    struct house h;
    enum { N = 40 };
    int fd[N];
    static unsigned char empty[6 * 40000];
    house_start(&h, 1, "route \"/live/*\" { websocket { max_per_client = 50 } }\n");
    wait_for_supervisor(&h);
    const pid_t pid = supervisor_of(&h);
    fd[0] = open_ws(h.port, "/live/x");
    for (int i = 0; i < 8; i++) {
        say(fd[0], "?");
        assert_true(read_frame(fd[0], &frame));
        assert_non_null(strstr(frame.text, "error"));
    }
    say(fd[0], "{\"type\":\"subscribe\",\"tags\":[\"a\"]}");
    expect_text(fd[0], "{\"type\":\"subscribed\"}");
    for (int i = 0; i < 9; i++)
        say(fd[0], "?");
    assert_int_equal(expect_close(fd[0]), 1008);
    close(fd[0]);
    const long before = resident_kib(pid);
    for (size_t i = 0; i < sizeof empty; i += 6)
        memcpy(empty + i, "\x81\x80\1\2\3\4", 6);
    for (int i = 0; i < N; i++) {
        fd[i] = open_ws(h.port, "/live/x");
        send(fd[i], empty, sizeof empty, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    nap_ms(300);
    if (!harness_sanitized())
        assert_true(resident_kib(pid) - before < 4 * 1024);
    for (int i = 0; i < N; i++)
        close(fd[i]);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_keeps_idle_connections),
        cmocka_unit_test(pongs_that_nobody_asked_for_pass),
        cmocka_unit_test(pings_cannot_be_guessed),
        cmocka_unit_test(an_orderly_close_delivers_what_was_said),
        cmocka_unit_test(a_backend_may_say_what_it_likes_unless_told_otherwise),
        cmocka_unit_test(a_message_is_as_good_as_a_heartbeat),
        cmocka_unit_test(nobody_is_reset_for_reading_slowly_where_no_reaping_was_asked_for),
        cmocka_unit_test(only_known_extensions_are_negotiated),
        cmocka_unit_test(a_compressed_message_counts_as_what_it_expands_to),
        cmocka_unit_test(nonsense_is_answered_a_few_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
