/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of handshakes: who comes in, what the others are told, and that it arrives. */
#include "ws_client.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void start(struct house *h, const struct scripted *b, const char *rest)
{
    house_start(h, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } timeout = 2s }\n"
                "route \"/ws/*\" { upstream = \"u\" websocket { heartbeat = off } }\n%s",
                b->port, rest);
    wait_for_supervisor(h);
}

/* All that comes until the end of the connection; -errno at a reset. */
static ssize_t read_all(int fd, char *to, size_t size)
{
    size_t n = 0;
    for (;;) {
        struct pollfd p = {fd, POLLIN, 0};
        assert_int_equal(poll(&p, 1, (int)harness_patience(10000)), 1);
        const ssize_t k = recv(fd, to + n, size - 1 - n, 0);
        if (k < 0)
            return -errno;
        if (k == 0) {
            to[n] = 0;
            return (ssize_t)n;
        }
        n += (size_t)k;
        assert_true(n < size - 1);
    }
}

#define BODY_MOST (2u << 20)

static char answer[BODY_MOST + 4096], body[BODY_MOST];

/* A refusal, however long, in whatever pieces, arrives whole and with its own framing. */
static void refusals_arrive_whole(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    struct message m;
    char head[200];
    scripted_open(&b);
    start(&h, &b, "");
    memset(body, 'r', sizeof body);
    static const unsigned sizes[] = {0, 1, 300, 16000, 66000, 200000, 1048576};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int chunked = 0; chunked < 2; chunked++) {
            const int client = ask_only(h.port, "/ws/x", "");
            int n = snprintf(head, sizeof head, "HTTP/1.1 403 Forbidden\r\nX-Why: because\r\n");
            if (chunked)
                n += snprintf(head + n, sizeof head - (size_t)n,
                              "Transfer-Encoding: chunked\r\n\r\n%s", sizes[i] ? "" : "0\r\n\r\n");
            else
                n += snprintf(head + n, sizeof head - (size_t)n, "Content-Length: %u\r\n\r\n",
                              sizes[i]);
            const int fd = scripted_answer(&b, head, (size_t)n);
            const pid_t writer = fork(); /* the client reads meanwhile */
            if (writer == 0) {
                for (unsigned at = 0; at < sizes[i];) {
                    const unsigned part = sizes[i] - at < 50000 ? sizes[i] - at : 50000;
                    if (at == 0)
                        nap_ms(100);
                    if (chunked)
                        client_send(fd, "%x\r\n", part);
                    client_send_bytes(fd, body, part);
                    at += part;
                    if (chunked)
                        client_send(fd, "\r\n%s", at == sizes[i] ? "0\r\n\r\n" : "");
                }
                _exit(0);
            }
            close(fd);
            client_read(client, &m, false);
            assert_int_equal(m.status, 403);
            assert_string_equal(field_of(&m, "X-Why"), "because");
            assert_string_equal(field_of(&m, "Connection"), "close");
            assert_int_equal(m.chunked, chunked);
            assert_true(m.complete);
            assert_int_equal(m.body_len, sizes[i]);
            message_free(&m);
            assert_true(client_closed(client, 5000));
            close(client);
            peer_stop(writer);
        }
    close(b.fd);
    house_remove(&h);
}

/* One that the backend cuts is seen to be cut. */
static void refusals_are_not_cut_without_a_sign(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    static const char *const cut[] = {
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 300\r\n\r\nonly this",
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\nxyz\r\n",
    };
    scripted_open(&b);
    start(&h, &b, "");
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++)
        for (int silent = 0; silent < 2; silent++) { /* it closes, or says nothing for too long */
            const int client = ask_only(h.port, "/ws/x", "");
            const int fd = scripted_answer(&b, cut[i], strlen(cut[i]));
            if (!silent)
                close(fd);
            const ssize_t n = read_all(client, answer, sizeof answer);
            assert_true(n == -ECONNRESET || n > 0);
            if (n > 0 && !strstr(answer, "Content-Length: 300\r\n") &&
                !(strstr(answer, "Transfer-Encoding: chunked\r\n") && !strstr(answer, "\n0\r\n")))
                fail_msg("case %zu: it looks whole:\n%s", i, answer);
            close(client);
            if (silent)
                close(fd);
        }
    /* what ends with the connection ends with it; and where it is broken off, so is ours */
    static const char open_end[] = "HTTP/1.1 403 Forbidden\r\n\r\nuntil the end";
    int client = ask_only(h.port, "/ws/x", "");
    int fd = scripted_answer(&b, open_end, sizeof open_end - 1);
    close(fd);
    assert_true(read_all(client, answer, sizeof answer) > 0);
    assert_non_null(strstr(answer, "\r\n\r\nuntil the end"));
    close(client);
    client = ask_only(h.port, "/ws/x", "");
    fd = scripted_answer(&b, open_end, sizeof open_end - 1);
    assert_int_equal(read_all(client, answer, sizeof answer), -ECONNRESET);
    close(client);
    close(fd);
    /* nor is it taken for whole where Polder stops */
    char part[64];
    client = ask_only(h.port, "/ws/x", "");
    fd = scripted_answer(&b, open_end, sizeof open_end - 1);
    assert_true(take(client, part, sizeof open_end - 1));
    kill(supervisor_of(&h), SIGTERM);
    assert_int_equal(read_all(client, answer, sizeof answer), -ECONNRESET);
    close(client);
    close(fd);
    close(b.fd);
    house_remove(&h);
}

/* Frames that are on their way turn no answer into a reset. */
static void who_talks_early_still_reads_the_refusal(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    struct message m;
    scripted_open(&b);
    start(&h, &b, "route \"/full/*\" { upstream = \"u\" websocket { max_connections = 0 } }\n");
    for (int i = 0; i < 2; i++) {
        static const char no[] = "HTTP/1.1 403 Forbidden\r\nContent-Length: 12000\r\n\r\n";
        const int client = ask_only(h.port, i ? "/full/x" : "/ws/x", "");
        say(client, "hello");
        if (!i) {
            const int fd = scripted_answer(&b, no, sizeof no - 1);
            say(client, "are you there?");
            client_send_bytes(fd, body, 12000);
            close(fd);
        }
        nap_ms(200); /* the answer is there, and so is more of ours */
        say(client, "hello?");
        nap_ms(100);
        client_read(client, &m, false);
        assert_int_equal(m.status, i ? 503 : 403);
        assert_true(m.complete);
        message_free(&m);
        assert_true(client_closed(client, 5000));
        close(client);
    }
    close(b.fd);
    house_remove(&h);
}

/* A FIN behind the request says only that nothing more is said. */
static void half_a_close_gets_its_answer(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    struct message m;
    scripted_open(&b);
    start(&h, &b, "");
    static const char no[] = "HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\ngo away",
                      yes[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                              "Connection: Upgrade\r\nSec-WebSocket-Accept: " WS_ACCEPT
                              "\r\n\r\n\x81\x02hi";
    int client = ask_only(h.port, "/ws/x", "");
    shutdown(client, SHUT_WR);
    int fd = scripted_accept(&b);
    nap_ms(300); /* it has been noticed */
    client_send_bytes(fd, no, sizeof no - 1);
    close(fd);
    client_read(client, &m, false);
    assert_int_equal(m.status, 403);
    assert_string_equal(m.body, "go away");
    message_free(&m);
    close(client);
    client = ask_only(h.port, "/ws/x", "");
    shutdown(client, SHUT_WR);
    fd = scripted_answer(&b, yes, sizeof yes - 1);
    client_read(client, &m, false);
    assert_int_equal(m.status, 101);
    message_free(&m);
    assert_true(client_closed(client, 10000)); /* an open one that says FIN has gone */
    close(client);
    close(fd);
    close(b.fd);
    house_remove(&h);
}

static void every_answer_says_what_is_left(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    struct message m;
    scripted_open(&b);
    start(&h, &b,
          "limit \"l\" { requests = 100 window = 60s }\n"
          "route \"/lim/*\" { upstream = \"u\" limits = {\"l\"} websocket { } }\n"
          "route \"/here/*\" { limits = {\"l\"} websocket { } }\n"
          "route \"/full/*\" { upstream = \"u\" limits = {\"l\"} websocket { max_connections = 0 "
          "} }\n");
    static const struct {
        const char *target, *answer;
        int status;
    } cases[] = {
        {"/lim/x",
         "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Accept: " WS_ACCEPT "\r\n\r\n",
         101},
        {"/lim/x", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 403},
        {"/lim/x", "garbage\r\n\r\n", 502},
        {"/lim/x", "", 504},
        {"/here/x", NULL, 101},
        {"/full/x", NULL, 503},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int client = ask_only(h.port, cases[i].target, "");
        int fd = -1;
        if (cases[i].answer)
            fd = scripted_answer(&b, cases[i].answer, strlen(cases[i].answer));
        client_read(client, &m, false);
        if (m.status != cases[i].status)
            fail_msg("case %zu: %d instead of %d", i, m.status, cases[i].status);
        if (!field_of(&m, "RateLimit") || !field_of(&m, "RateLimit-Policy"))
            fail_msg("case %zu: no RateLimit:\n%s", i, m.head);
        if ((i == 2 || i >= 4) && !field_of(&m, "Date"))
            fail_msg("case %zu: no Date:\n%s", i, m.head);
        message_free(&m);
        close(client);
        if (fd >= 0)
            close(fd);
    }
    close(b.fd);
    house_remove(&h);
}

static void what_asks_for_an_upgrade_says_to_what(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    struct message m;
    scripted_open(&b);
    start(&h, &b, "");
    static const char no[] = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n"
                             "Connection: Upgrade\r\nContent-Length: 0\r\n\r\n";
    const int client = ask_only(h.port, "/ws/x", "");
    const int fd = scripted_answer(&b, no, sizeof no - 1);
    client_read(client, &m, false);
    assert_int_equal(m.status, 426);
    assert_string_equal(field_of(&m, "Upgrade"), "websocket");
    assert_non_null(strstr(field_of(&m, "Connection"), "Upgrade"));
    assert_non_null(strstr(field_of(&m, "Connection"), "close"));
    message_free(&m);
    close(client);
    close(fd);
    close(b.fd);
    house_remove(&h);
}

static void handshakes_go_on_over_a_reload(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    struct message m;
    scripted_open(&b);
    start(&h, &b, "");
    static const char yes[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                              "Connection: Upgrade\r\nSec-WebSocket-Accept: " WS_ACCEPT "\r\n\r\n";
    const int client = ask_only(h.port, "/ws/x", "");
    const int fd = scripted_accept(&b);
    kill(supervisor_of(&h), SIGHUP);
    wait_until(house_logged(&h, "config: read again"), 5000);
    client_send_bytes(fd, yes, sizeof yes - 1);
    client_read(client, &m, false);
    assert_int_equal(m.status, 101);
    message_free(&m);
    say(client, "hello");
    char got[32];
    assert_true(take(fd, got, 11));
    close(client);
    close(fd);
    close(b.fd);
    house_remove(&h);
}

static unsigned opened(struct house *h, const char *target, unsigned n, int *fd)
{
    struct message m;
    unsigned in = 0;
    for (unsigned i = 0; i < n; i++) {
        fd[in] = ask(h->port, target, "", &m);
        if (m.status == 101)
            in++;
        else
            close(fd[in]);
        message_free(&m);
    }
    return in;
}

static void close_all(int *fd, unsigned n)
{
    while (n)
        close(fd[--n]);
}

/* What a route states goes for it, above what the top level states too; totals go for all. */
static void routes_have_room_of_their_own(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    int fd[4][60];
    house_start(&h, 1,
                "websocket { max_connections = 5 connect_rate = 2 }\n"
                "route \"/big/*\" { websocket { max_connections = 30 max_per_client = 25 "
                "connect_rate = 1000 } }\n"
                "route \"/half/*\" { websocket { connect_rate = 0 max_connections = 12 } }\n"
                "route \"/def/*\" { websocket { connect_rate = 0 } }\n");
    wait_for_supervisor(&h);
    assert_int_equal(opened(&h, "/big/x", 40, fd[0]), 25);
    assert_int_equal(opened(&h, "/half/x", 20, fd[1]), 6);
    assert_int_equal(opened(&h, "/def/x", 20, fd[2]), 3);
    wait_until(house_logged(&h, "route /big/* gets 503: too many WebSockets are open from this "
                                "client on this route; max_per_client is 25"),
               5000);

    /* defaults move those that state nothing; old and new are shown, and who stays */
    assert_int_equal(ctl(&h, &out, "ws set max_per_client=4"), 0);
    assert_non_null(strstr(out, "max per client: 3 -> 4"));
    assert_non_null(strstr(out, "/big/*"));
    assert_null(strstr(out, "/half/*"));
    assert_int_equal(opened(&h, "/big/x", 5, fd[3]), 0);
    assert_int_equal(opened(&h, "/def/x", 5, fd[3]), 1);
    close_all(fd[3], 1);
    assert_int_equal(ctl(&h, &out, "ws set route=/big/* max_per_client=28"), 0);
    assert_non_null(strstr(out, "max per client: 25 -> 28"));
    assert_int_equal(opened(&h, "/big/x", 10, fd[3]), 3);
    assert_int_not_equal(ctl(&h, &out, "ws set route=/big/* max_connections_total=3"), 0);
    assert_int_not_equal(ctl(&h, &out, "ws set max_message=1"), 0);
    assert_non_null(strstr(out, "between 125 and 1G"));
    assert_int_not_equal(ctl(&h, &out, "ws set route=/none max_connections=3"), 0);

    /* pages: nobody twice, nobody left out */
    unsigned seen = 0;
    unsigned long long cursor = 0, last = ~0ull;
    do {
        char more[64] = "";
        if (cursor)
            snprintf(more, sizeof more, " --cursor %llu", cursor);
        assert_int_equal(ctl(&h, &out, "--json ws list --limit 10%s", more), 0);
        for (const char *at = out; (at = strstr(at, "\"id\": ")); seen++) {
            const unsigned long long id = strtoull(at += 6, NULL, 10);
            assert_true(id < last);
            last = id;
        }
        const char *at = strstr(out, "\"cursor\": ");
        assert_non_null(at);
        cursor = strtoull(at + 10, NULL, 10);
    } while (cursor);
    assert_int_equal(seen, 25 + 6 + 3 + 3);
    close_all(fd[0], 25);
    close_all(fd[1], 6);
    close_all(fd[2], 3);
    close_all(fd[3], 3);
    assert_int_equal(ctl(&h, &out, "ws stats"), 0);
    assert_null(strstr(out, "83886"));
    assert_int_equal(ctl(&h, &out, "--json ws stats"), 0);
    assert_non_null(strstr(out, "durationCounts"));
    house_remove(&h);
}

static void origins_are_chosen_while_it_runs(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    struct message m;
    static const char good[] = "Origin: https://a.example\r\n",
                      bad[] = "Origin: https://b.example\r\n";
    house_start(&h, 1, "route \"/live/*\" { websocket { } }\n");
    wait_for_supervisor(&h);
    close(ask(h.port, "/live/x", bad, &m));
    assert_int_equal(m.status, 101);
    message_free(&m);
    assert_int_not_equal(ctl(&h, &out, "ws set origins=nonsense"), 0);
    assert_int_equal(ctl(&h, &out, "ws set origins=https://c.example,https://a.example"), 0);
    for (int i = 0; i < 3; i++) {
        close(ask(h.port, "/live/x", i == 0 ? good : i == 1 ? bad : "", &m));
        assert_int_equal(m.status, i == 0 ? 101 : 403);
        message_free(&m);
    }
    assert_int_equal(ctl(&h, &out, "ws set origins=any"), 0);
    close(ask(h.port, "/live/x", bad, &m));
    assert_int_equal(m.status, 101);
    message_free(&m);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals_arrive_whole),
        cmocka_unit_test(refusals_are_not_cut_without_a_sign),
        cmocka_unit_test(who_talks_early_still_reads_the_refusal),
        cmocka_unit_test(half_a_close_gets_its_answer),
        cmocka_unit_test(every_answer_says_what_is_left),
        cmocka_unit_test(what_asks_for_an_upgrade_says_to_what),
        cmocka_unit_test(handshakes_go_on_over_a_reload),
        cmocka_unit_test(routes_have_room_of_their_own),
        cmocka_unit_test(origins_are_chosen_while_it_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
