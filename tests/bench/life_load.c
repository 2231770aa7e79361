/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * life_load: clients that notice everything: kept-alive and short-lived ones which compare each
 * byte, WebSockets whose messages are numbered, and some that ask for more than a limit admits.
 *
 *   life_load PORT KEPT SHORT SOCKETS LIMITED QUOTA [THINK_MS]
 *
 * Its backend is ws_echo: the body of TARGET is that target and a newline, eight times. The
 * limited ones ask for /limited/... with X-Key, of which QUOTA are to be admitted. Each line on
 * standard input ends a count: one line of "name value" pairs is printed, and the next count
 * begins, with another key. Ends with its input. What failed is told on standard error, 20 lines
 * a count.
 *
 * failed: any answer but the right one, a refused connection, an end on a new connection or
 * within an answer, no answer for 10 s. race: a kept connection was closed before a byte of the
 * answer came; the request, a GET, is sent again, as browsers do. unsound: messages that came
 * twice, out of order, changed, or did not come for 10 s though the WebSocket stayed. cut:
 * messages under way when a WebSocket ended.
 */
#include "ws.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM       8192u
#define PATIENCE_S 10.0
#define AHEAD      40u /* messages without an echo at most */
#define COPIES     8

enum kind { KEPT, SHORT, SOCKET, LIMITED, KINDS };
enum phase { IDLE, CONNECTING, ASKED, OPEN };

struct client {
    enum kind kind;
    enum phase phase;
    int fd;
    unsigned id, answers; /* on this connection */
    double due, begun, at;
    unsigned key; /* of the count in which it asked */
    char target[64];
    uint32_t said, heard;
    bool behind; /* was told unsound for what does not come */
    size_t len;
    char in[ROOM + 1];
};

static struct {
    uint64_t requests, failed, races, handshakes, refused, dropped, messages, unsound, cut,
        admitted, limited;
    double worst_s, worst_message_s;
    unsigned told;
    uint32_t took[10001]; /* answers by milliseconds */
} count;
static struct client *clients;
static unsigned n_clients, n_open, key;
static int ep, port;
static double started, think_s = 0.1;
static uint64_t chance = 88172645463325252u;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double about(double s) /* half to one and a half of it */
{
    chance ^= chance << 13, chance ^= chance >> 7, chance ^= chance << 17;
    return s * (0.5 + (double)(chance % 1000) / 1000.0);
}

__attribute__((format(printf, 2, 3))) static void tell(const struct client *c, const char *format,
                                                       ...)
{
    static const char *const kinds[KINDS] = {"kept", "short", "socket", "limited"};
    va_list args;
    if (count.told++ >= 20)
        return;
    fprintf(stderr, "%8.3f %s %u, answers %u, %s: ", now() - started, kinds[c->kind], c->id,
            c->answers, c->target);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

static void hang_up(struct client *c, double due)
{
    if (c->fd >= 0)
        close(c->fd);
    n_open -= c->phase == OPEN;
    c->fd = -1;
    c->phase = IDLE;
    c->len = c->answers = 0;
    c->due = due;
}

static void failed(struct client *c, double t, const char *why)
{
    tell(c, "%s after %.0f ms", why, (t - c->begun) * 1e3);
    count.failed++;
    c->target[0] = 0;
    hang_up(c, t + 0.05);
}

/* The handshake of a WebSocket was not answered with 101. */
static void refused(struct client *c, double t, const char *why)
{
    tell(c, "%s after %.0f ms", why, (t - c->begun) * 1e3);
    count.refused++;
    hang_up(c, t + 0.2);
}

static void put(struct client *c, const void *bytes, size_t len)
{
    const ssize_t n = send(c->fd, bytes, len, MSG_NOSIGNAL);
    /* An error is seen in reading, too. A full buffer is not in what is sent here. */
    if (n >= 0 && (size_t)n != len) {
        fprintf(stderr, "life_load: a socket's buffer is full\n");
        exit(2);
    }
}

static void ask(struct client *c, double t)
{
    static const char *const paths[KINDS] = {"d", "c", "ws", "limited"};
    char head[512];
    if (!c->target[0]) {
        const unsigned n = (unsigned)(about(1000) * 10);
        snprintf(c->target, sizeof c->target, "/%s/%u",
                 n % 2              ? paths[c->kind]
                 : c->kind == KEPT  ? "c"
                 : c->kind == SHORT ? "d"
                                    : paths[c->kind],
                 n % 2 ? n : n % 400);
        c->begun = t;
        c->key = key;
    }
    const int n =
        c->kind == SOCKET
            ? snprintf(head, sizeof head,
                       "GET /ws/%u HTTP/1.1\r\nHost: life\r\nUpgrade: websocket\r\nConnection: "
                       "Upgrade\r\n"
                       "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n",
                       c->id)
            : snprintf(head, sizeof head,
                       "GET %s HTTP/1.1\r\nHost: life\r\nX-Key: life-%d-%u\r\n%s\r\n", c->target,
                       (int)getpid(), c->key, c->kind == SHORT ? "Connection: close\r\n" : "");
    c->at = t;
    c->phase = ASKED;
    c->len = 0;
    put(c, head, (size_t)n);
}

static void begin(struct client *c, double t)
{
    const struct sockaddr_in sa = {.sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                   .sin_port = htons((uint16_t)port)};
    const int one = 1;
    struct epoll_event e = {.events = EPOLLOUT, .data.ptr = c};
    c->at = t;
    if (!c->target[0] || c->kind == SOCKET)
        c->begun = t;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->phase = CONNECTING;
    if (c->fd < 0 ||
        (connect(c->fd, (const struct sockaddr *)&sa, sizeof sa) && errno != EINPROGRESS)) {
        (c->kind == SOCKET ? refused : failed)(c, t, "cannot connect");
        return;
    }
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
}

static size_t text_of(const struct client *c, uint32_t number, char *out, size_t room)
{
    static const char fill[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    return (size_t)snprintf(out, room, "%u:%u:%.*s", c->id, number, (int)(number % 60), fill);
}

static void say(struct client *c, double t)
{
    const uint8_t mask[4] = {(uint8_t)c->said, 0x5a, (uint8_t)c->id, 0xc3};
    char text[128];
    uint8_t frame[160];
    const size_t n = text_of(c, ++c->said, text, sizeof text);
    put(c, frame, ws_write(frame, WS_TEXT, text, n, mask));
    if (c->said == c->heard + 1)
        c->at = t;
    c->due = t + about(think_s * 2.5);
}

static void ended_socket(struct client *c, double t, unsigned code)
{
    tell(c, "ended with %u, %u messages, %u echoes", code, c->said, c->heard);
    count.dropped++;
    count.cut += c->said - c->heard;
    hang_up(c, t + 0.2);
}

static void echo(struct client *c, double t, const char *text, size_t len)
{
    char want[128];
    if (len > 19 && !memcmp(text, "{\"type\":\"heartbeat\"", 19))
        return;
    if (text_of(c, c->heard + 1, want, sizeof want) != len || memcmp(want, text, len)) {
        tell(c, "wants %s, has %.*s", want, (int)(len > 90 ? 90 : len), text);
        count.unsound++;
        const char *number = memchr(text, ':', len); /* go on from there */
        if (number && (uint32_t)atoi(number + 1) > c->heard)
            c->heard = (uint32_t)atoi(number + 1);
        return;
    }
    c->heard++;
    count.messages++;
    if (t - c->at > count.worst_message_s)
        count.worst_message_s = t - c->at;
    c->at = t;
    c->behind = false;
}

static void read_frames(struct client *c, double t)
{
    static const uint8_t mask[4] = {9, 8, 7, 6};
    struct ws_frame f;
    uint8_t out[256];
    size_t used = 0;
    while (ws_read((uint8_t *)c->in + used, c->len - used, &f)) {
        uint8_t *payload = (uint8_t *)c->in + used + f.head;
        if (f.opcode == WS_CLOSE) {
            const unsigned code = f.payload >= 2 ? payload[0] * 256u + payload[1] : 1005;
            put(c, out, ws_write(out, WS_CLOSE, payload, f.payload >= 2 ? 2 : 0, mask));
            ended_socket(c, t, code);
            return;
        }
        if (f.opcode == WS_PING && f.payload < 126)
            put(c, out, ws_write(out, WS_PONG, payload, f.payload, mask));
        else if (f.opcode == WS_TEXT)
            echo(c, t, (char *)payload, f.payload);
        used += f.head + f.payload;
    }
    memmove(c->in, c->in + used, c->len -= used);
}

static void accepted(struct client *c, double t)
{
    const char *end = memmem(c->in, c->len, "\r\n\r\n", 4);
    if (!end)
        return;
    if (memcmp(c->in, "HTTP/1.1 101", 12)) {
        c->in[c->len] = 0;
        c->in[strcspn(c->in, "\r")] = 0;
        refused(c, t, c->in);
        return;
    }
    const size_t head = (size_t)(end - c->in) + 4;
    memmove(c->in, c->in + head, c->len -= head);
    c->phase = OPEN;
    c->said = c->heard = 0;
    c->due = t + about(think_s);
    count.handshakes++;
    n_open++;
    read_frames(c, t);
}

static void answered(struct client *c, double t, bool closes)
{
    const double took = t - c->begun;
    count.requests++;
    count.took[took >= 10 ? 10000 : (unsigned)(took * 1e3)]++;
    if (took > count.worst_s)
        count.worst_s = took;
    c->answers++;
    c->target[0] = 0;
    c->phase = IDLE;
    c->len = 0;
    c->due = t + about(think_s);
    if (closes || c->kind == SHORT)
        hang_up(c, c->due);
}

static void read_answer(struct client *c, double t)
{
    char want[COPIES * sizeof c->target + 1];
    c->in[c->len] = 0;
    char *body = strstr(c->in, "\r\n\r\n"), *length = strcasestr(c->in, "\ncontent-length:");
    if (!body)
        return;
    body += 4;
    const size_t head = (size_t)(body - c->in),
                 n = length && length < body ? strtoul(length + 16, NULL, 10) : 0;
    if (c->len < head + n)
        return;
    const unsigned status = c->len > 12 ? (unsigned)atoi(c->in + 9) : 0;
    const char *close_line = strcasestr(c->in, "\nconnection: close");
    const bool closes = close_line && close_line < body;
    if (c->kind == LIMITED && status == 429) {
        count.limited++;
        answered(c, t, closes);
        return;
    }
    size_t len = 0;
    for (int i = 0; i < COPIES; i++)
        len += (size_t)snprintf(want + len, sizeof want - len, "%s\n", c->target);
    if (status != 200 || c->len != head + n || n != len || memcmp(body, want, n)) {
        c->in[strcspn(c->in, "\r")] = 0;
        failed(c, t, status == 200 ? "another body" : c->in);
        return;
    }
    count.admitted += c->kind == LIMITED && c->key == key;
    answered(c, t, closes);
}

static void ended(struct client *c, double t)
{
    if (c->phase == IDLE)
        hang_up(c, c->due);
    else if (c->phase == OPEN)
        ended_socket(c, t, 1006);
    else if (c->kind == SOCKET)
        refused(c, t, c->phase == CONNECTING ? "no connection" : "an end instead of an answer");
    else if (c->phase == ASKED && c->answers && !c->len) {
        count.races++;
        hang_up(c, t); /* the same target again */
    } else
        failed(c, t,
               c->phase == CONNECTING ? "no connection"
               : c->len               ? "an end within the answer"
                                      : "an end instead of an answer");
}

static void serve(struct client *c, uint32_t events, double t)
{
    if (c->fd < 0)
        return;
    if (c->phase == CONNECTING) {
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        if (events & (EPOLLERR | EPOLLHUP)) {
            ended(c, t);
            return;
        }
        epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
        ask(c, t);
        return;
    }
    const ssize_t n = recv(c->fd, c->in + c->len, ROOM - c->len, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        ended(c, t);
        return;
    }
    c->len += (size_t)n;
    if (c->phase == OPEN)
        read_frames(c, t);
    else if (c->kind == SOCKET)
        accepted(c, t);
    else if (c->phase == IDLE)
        failed(c, t, "an answer to nothing");
    else
        read_answer(c, t);
}

static void tick(struct client *c, double t)
{
    if (c->phase == OPEN) {
        if (t >= c->due && c->said - c->heard < AHEAD)
            say(c, t);
        if (c->said != c->heard && t - c->at > PATIENCE_S && !c->behind) {
            tell(c, "%u messages without an echo", c->said - c->heard);
            count.unsound++;
            c->behind = true;
        }
    } else if (c->phase == IDLE && t >= c->due) {
        if (c->fd < 0)
            begin(c, t);
        else
            ask(c, t);
    } else if (c->phase != IDLE && t - c->at > PATIENCE_S)
        (c->kind == SOCKET ? refused : failed)(c, t, "no answer");
}

static unsigned percentile(double share)
{
    uint64_t all = 0, sum = 0;
    unsigned ms = 0;
    for (unsigned i = 0; i <= 10000; i++)
        all += count.took[i];
    while (ms < 10000 && (double)(sum += count.took[ms]) < share * (double)all)
        ms++;
    return ms;
}

static void print(uint64_t quota)
{
    printf("requests %llu failed %llu races %llu worst_ms %.0f p99_ms %u open %u handshakes %llu "
           "refused %llu "
           "dropped %llu messages %llu unsound %llu cut %llu worst_message_ms %.0f admitted %llu "
           "limited %llu over %llu\n",
           (unsigned long long)count.requests, (unsigned long long)count.failed,
           (unsigned long long)count.races, count.worst_s * 1e3, percentile(0.99), n_open,
           (unsigned long long)count.handshakes, (unsigned long long)count.refused,
           (unsigned long long)count.dropped, (unsigned long long)count.messages,
           (unsigned long long)count.unsound, (unsigned long long)count.cut,
           count.worst_message_s * 1e3, (unsigned long long)count.admitted,
           (unsigned long long)count.limited,
           (unsigned long long)(count.admitted > quota ? count.admitted - quota : 0));
    fflush(stdout);
    memset(&count, 0, sizeof count);
    key++;
}

static void make_clients(char **numbers, double t)
{
    unsigned n[KINDS];
    for (unsigned i = 0; i < KINDS; i++)
        n_clients += n[i] = (unsigned)atoi(numbers[i]);
    clients = calloc(n_clients, sizeof *clients);
    for (unsigned i = 0, kind = 0, left = n[0]; i < n_clients; i++, left--) {
        while (!left)
            left = n[++kind];
        clients[i] = (struct client){.kind = kind, .fd = -1, .id = i, .due = t + about(0.5)};
    }
}

/* true: a line has come. Ends the program with the input. */
static bool line_came(void)
{
    char byte;
    const ssize_t n = read(0, &byte, 1);
    if (n <= 0)
        exit(0);
    return byte == '\n';
}

int main(int argc, char **argv)
{
    struct epoll_event got[256], input = {.events = EPOLLIN, .data.ptr = NULL};
    if (argc < 7) {
        fprintf(stderr, "usage: life_load PORT KEPT SHORT SOCKETS LIMITED QUOTA [THINK_MS]\n");
        return 2;
    }
    port = atoi(argv[1]);
    started = now();
    if (argc > 7)
        think_s = atof(argv[7]) / 1e3;
    make_clients(argv + 2, started);
    ep = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(ep, EPOLL_CTL_ADD, 0, &input);
    for (;;) {
        const int k = epoll_wait(ep, got, 256, 4);
        for (int i = 0; i < k; i++) {
            if (got[i].data.ptr)
                serve(got[i].data.ptr, got[i].events, now());
            else if (line_came())
                print(strtoull(argv[6], NULL, 10));
        }
        const double t = now();
        for (unsigned i = 0; i < n_clients; i++)
            tick(&clients[i], t);
    }
}
