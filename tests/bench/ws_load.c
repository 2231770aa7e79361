/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ws_load: a raw-socket WebSocket client of many connections in one epoll loop.
 *
 *   ws_load echo PORT TARGET CONNECTIONS SECONDS SIZE
 *       each connection has one message under way; the echo must be the very message, so that none
 *       is lost, repeated, reordered or changed unseen
 *   ws_load hold PORT TARGET CONNECTIONS SECONDS
 *       opens, says "ready", answers pings, counts heartbeats
 *   ws_load churn PORT TARGET CONNECTIONS COUNT
 *       opens and closes COUNT times, in turn with a close frame, FIN and RST
 *
 * Prints one line of "name value" pairs. Exit status 1 where an echo was wrong, a connection was
 * dropped, or one could not be opened.
 */
#include "ws.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM    (80u << 10)
#define AT_ONCE 64 /* handshakes under way */

enum phase { CLOSED, CONNECTING, ASKED, OPEN, LEAVING };
struct peer {
    int fd;
    enum phase phase;
    uint64_t said, heard; /* numbers of the last message and the last echo */
    double at;            /* when it was said */
    size_t kept;
    uint8_t *keep;
};

static struct {
    uint64_t opened, refused, failed, messages, wrong, lost, dropped, heartbeats, pings, closed;
    double latency_sum, latency_max;
} total;
static struct peer *peers;
static unsigned n_peers, under_way;
static size_t size;
static bool echo, churn, stopping;
static int ep, port;
static const char *target;
static uint8_t in[ROOM * 2], frame[ROOM + 64], want[ROOM];
static double clock_s;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void set_events(struct peer *p, uint32_t events, int op)
{
    struct epoll_event e = {.events = events, .data.ptr = p};
    epoll_ctl(ep, op, p->fd, &e);
}

static void hang_up(struct peer *p, bool reset)
{
    const struct linger l = {1, 0};
    if (reset)
        setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    close(p->fd);
    under_way -= p->phase == CONNECTING || p->phase == ASKED;
    free(p->keep);
    p->keep = NULL;
    p->kept = 0;
    p->phase = CLOSED;
}

static void begin(struct peer *p)
{
    const struct sockaddr_in sa = {.sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                   .sin_port = htons((uint16_t)port)};
    const int one = 1;
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (p->fd < 0) {
        total.failed++;
        return;
    }
    setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(p->fd, (const struct sockaddr *)&sa, sizeof sa) && errno != EINPROGRESS) {
        total.failed++;
        close(p->fd);
        return;
    }
    p->phase = CONNECTING;
    p->said = p->heard = 0;
    under_way++;
    set_events(p, EPOLLOUT, EPOLL_CTL_ADD);
}

static void fill(const struct peer *p, uint8_t *out)
{
    char head[32];
    const int n = snprintf(head, sizeof head, "%08lx %016llx ", (unsigned long)(p - peers),
                           (unsigned long long)p->said);
    for (size_t i = 0; i < size; i++)
        out[i] = i < (size_t)n ? (uint8_t)head[i] : (uint8_t)('a' + (i + p->said) % 26);
}

static bool say(struct peer *p)
{
    const uint8_t mask[4] = {(uint8_t)p->said, 0x5a, (uint8_t)(p->said >> 8), 0xc3};
    p->said++;
    fill(p, want);
    const size_t n = ws_write(frame, WS_TEXT, want, size, mask);
    p->at = clock_s;
    return send(p->fd, frame, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static bool opened(struct peer *p)
{
    static unsigned turn;
    static const uint8_t mask[4] = {1, 2, 3, 4}, code[2] = {0x03, 0xe8};
    p->phase = OPEN;
    under_way--;
    total.opened++;
    if (echo)
        return say(p);
    if (!churn)
        return true;
    switch (turn++ % 3) {
    case 0:
        send(p->fd, frame, ws_write(frame, WS_CLOSE, code, 2, mask), MSG_NOSIGNAL);
        p->phase = LEAVING;
        return true;
    case 1:
        hang_up(p, false);
        break;
    default:
        hang_up(p, true);
    }
    total.closed++;
    return true;
}

/* false: hang up */
static bool take_frame(struct peer *p, const struct ws_frame *f, const uint8_t *payload)
{
    static const uint8_t mask[4] = {9, 8, 7, 6};
    if (f->opcode == WS_PING) {
        total.pings++;
        const size_t n = ws_write(frame, WS_PONG, payload, f->payload, mask);
        return send(p->fd, frame, n, MSG_NOSIGNAL) == (ssize_t)n;
    }
    if (f->opcode == WS_CLOSE)
        return false;
    if (f->opcode == WS_PONG)
        return true;
    if (f->payload > 20 && !memcmp(payload, "{\"type\":\"heartbeat\"", 19)) {
        total.heartbeats++;
        return true;
    }
    if (!echo)
        return true;
    fill(p, want);
    total.wrong += f->payload != size || memcmp(payload, want, size);
    total.messages++;
    p->heard = p->said;
    const double took = clock_s - p->at;
    total.latency_sum += took;
    total.latency_max = took > total.latency_max ? took : total.latency_max;
    return stopping || say(p);
}

static ssize_t take(struct peer *p, const uint8_t *at, size_t len)
{
    size_t used = 0;
    if (p->phase == ASKED) {
        const uint8_t *end = memmem(at, len, "\r\n\r\n", 4);
        if (!end)
            return 0;
        if (len < 12 || memcmp(at, "HTTP/1.1 101", 12)) {
            if (!total.refused++)
                fprintf(stderr, "ws_load: refused first: %.*s\n", (int)(end - at),
                        (const char *)at);
            return -1;
        }
        used = (size_t)(end - at) + 4;
        if (!opened(p))
            return -1;
        if (p->phase == CLOSED)
            return (ssize_t)len;
    }
    struct ws_frame f;
    while (ws_read(at + used, len - used, &f)) {
        if (!take_frame(p, &f, at + used + f.head))
            return -1;
        used += f.head + f.payload;
    }
    return (ssize_t)used;
}

static void ended(struct peer *p)
{
    if (p->phase == OPEN)
        total.dropped++;
    else if (p->phase == LEAVING)
        total.closed++;
    else if (p->phase == CONNECTING)
        total.failed++;
    hang_up(p, false);
}

static void readable(struct peer *p)
{
    if (p->kept)
        memcpy(in, p->keep, p->kept);
    const ssize_t n = recv(p->fd, in + p->kept, ROOM - p->kept, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0 && p->phase == ASKED)
        total.failed++;
    const ssize_t used = n <= 0 ? -1 : take(p, in, p->kept + (size_t)n);
    if (p->phase == CLOSED)
        return;
    const size_t left = used < 0 ? 0 : p->kept + (size_t)n - (size_t)used;
    if (used < 0 || left == ROOM) {
        ended(p);
        return;
    }
    if (left && !p->keep && !(p->keep = malloc(ROOM)))
        exit(3);
    if (left)
        memcpy(p->keep, in + used, left);
    if (!left) {
        free(p->keep);
        p->keep = NULL;
    }
    p->kept = left;
}

static void writable(struct peer *p)
{
    char head[1024];
    int error = 0;
    socklen_t len = sizeof error;
    getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    const int n =
        snprintf(head, sizeof head,
                 "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: "
                 "Upgrade\r\nSec-WebSocket-Key: " WS_KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n",
                 target);
    if (error || send(p->fd, head, (size_t)n, MSG_NOSIGNAL) != n) {
        ended(p);
        return;
    }
    p->phase = ASKED;
    set_events(p, EPOLLIN, EPOLL_CTL_MOD);
}

static void turn(int wait_ms)
{
    struct epoll_event got[256];
    const int k = epoll_wait(ep, got, 256, wait_ms);
    clock_s = now();
    for (int i = 0; i < k; i++) {
        struct peer *p = got[i].data.ptr;
        if (p->phase == CONNECTING)
            writable(p);
        else if (p->phase != CLOSED)
            readable(p);
    }
}

static void open_all(double until)
{
    for (unsigned i = 0; i < n_peers && clock_s < until;) {
        while (i < n_peers && under_way < AT_ONCE)
            begin(&peers[i++]);
        turn(10);
    }
    while (under_way && clock_s < until)
        turn(10);
}

static unsigned unheard(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < n_peers; i++)
        n += peers[i].phase == OPEN && peers[i].heard < peers[i].said;
    return n;
}

static void churn_all(uint64_t count)
{
    for (uint64_t begun = 0;
         begun < count || total.closed + total.refused + total.failed < begun;) {
        for (unsigned i = 0; i < n_peers && begun < count; i++)
            if (peers[i].phase == CLOSED) {
                begin(&peers[i]);
                begun++;
            }
        turn(1000);
        total.closed += total.dropped; /* a close in the middle of ours */
        total.dropped = 0;
    }
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return 2;
    echo = !strcmp(argv[1], "echo"), churn = !strcmp(argv[1], "churn");
    port = atoi(argv[2]), target = argv[3], n_peers = (unsigned)atoi(argv[4]);
    size = argc > 6 ? (size_t)atoi(argv[6]) : 64;
    if ((echo && (size < 26 || size > ROOM - 64)) || !n_peers)
        return 2;
    peers = calloc(n_peers, sizeof *peers);
    ep = epoll_create1(EPOLL_CLOEXEC);
    const double start = clock_s = now();
    if (churn) {
        churn_all(strtoull(argv[5], NULL, 10));
    } else {
        open_all(clock_s + 120);
        printf("ready\n");
        fflush(stdout);
        const double end = clock_s + atof(argv[5]);
        while (clock_s < end)
            turn(100);
        stopping = true;
        for (const double patience = clock_s + 10; (total.lost = unheard()) && clock_s < patience;)
            turn(10);
    }
    const double took = clock_s - start;
    printf("opened %llu refused %llu failed %llu messages %llu wrong %llu lost %llu dropped %llu "
           "heartbeats "
           "%llu pings %llu latency_us %.0f latency_max_us %.0f seconds %.1f\n",
           (unsigned long long)total.opened, (unsigned long long)total.refused,
           (unsigned long long)total.failed, (unsigned long long)total.messages,
           (unsigned long long)total.wrong, (unsigned long long)total.lost,
           (unsigned long long)total.dropped, (unsigned long long)total.heartbeats,
           (unsigned long long)total.pings,
           total.messages ? total.latency_sum / (double)total.messages * 1e6 : 0,
           total.latency_max * 1e6, took);
    return total.wrong || total.lost || total.dropped || total.failed || (!churn && total.refused);
}
