/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ws_echo: a WebSocket backend that costs next to nothing: one epoll loop, whole messages of at
 * most 64 KiB go back as they came. A request that asks for no WebSocket is answered with its
 * target and a newline, eight times, which may be cached under /c/. usage: ws_echo PORT
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
#include <unistd.h>

#define ROOM (128u << 10)

struct peer {
    int fd;
    bool open; /* the handshake is done */
    size_t kept;
    uint8_t *keep; /* an unfinished head or frame */
};

static const char answer[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
    "Upgrade\r\nSec-WebSocket-Accept: " WS_ACCEPT "\r\n\r\n";
static uint8_t in[ROOM * 2], out[ROOM * 2 + 64];
static int ep;

static int put(int fd, const void *bytes, size_t len)
{
    for (size_t at = 0; at < len;) {
        const ssize_t n = send(fd, (const uint8_t *)bytes + at, len - at, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) { /* rare in what this is for: wait a little */
            usleep(100);
            continue;
        }
        if (n < 0)
            return -1;
        at += (size_t)n;
    }
    return 0;
}

static void gone(struct peer *p)
{
    close(p->fd);
    free(p->keep);
    free(p);
}

/* Answers a request of head bytes at `at`. Returns what put() does. */
static int answer_plain(int fd, char *at, size_t head)
{
    char body[8 * 1024], text[sizeof body + 256];
    size_t n = 0;
    at[head - 1] = 0;
    const char *target = strchr(at, ' ');
    const size_t len = target ? strcspn(++target, " ") : 1024;
    if (len > 1000)
        return -1;
    for (int i = 0; i < 8; i++) {
        memcpy(body + n, target, len);
        body[n + len] = '\n';
        n += len + 1;
    }
    const int k = snprintf(text, sizeof text,
                           "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nContent-Type: "
                           "text/plain\r\nCache-Control: %s\r\n%s\r\n",
                           n, strncmp(target, "/c/", 3) ? "no-store" : "max-age=60",
                           strcasestr(at, "\nconnection: close") ? "Connection: close\r\n" : "");
    memcpy(text + k, body, n);
    return put(fd, text, (size_t)k + n) || strcasestr(at, "\nconnection: close") ? -1 : 0;
}

/* Bytes used of at[0..len); -1: end. */
static ssize_t take(struct peer *p, uint8_t *at, size_t len)
{
    size_t used = 0, ready = 0;
    if (!p->open) {
        const uint8_t *end = memmem(at, len, "\r\n\r\n", 4);
        if (!end)
            return 0;
        used = (size_t)(end - at) + 4;
        const char *upgrade = memmem(at, used, "Sec-WebSocket-Key", 17);
        if (!upgrade && !memmem(at, used, "sec-websocket-key", 17))
            return answer_plain(p->fd, (char *)at, used) ? -1 : (ssize_t)used;
        if (put(p->fd, answer, sizeof answer - 1))
            return -1;
        p->open = true;
    }
    struct ws_frame f;
    while (ws_read(at + used, len - used, &f)) {
        uint8_t *payload = at + used + f.head;
        for (size_t i = 0; f.mask && i < f.payload; i++)
            payload[i] ^= f.mask[i & 3];
        const unsigned opcode = f.opcode == WS_PING ? WS_PONG : f.opcode;
        if (opcode != WS_PONG || f.opcode == WS_PING)
            ready += ws_write(out + ready, opcode, payload, f.payload, NULL);
        used += f.head + f.payload;
        if (f.opcode == WS_CLOSE) {
            put(p->fd, out, ready);
            return -1;
        }
    }
    if (ready && put(p->fd, out, ready))
        return -1;
    return (ssize_t)used;
}

static void serve(struct peer *p)
{
    if (p->kept)
        memcpy(in, p->keep, p->kept);
    const ssize_t n = recv(p->fd, in + p->kept, ROOM - p->kept, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    const ssize_t used = n <= 0 ? -1 : take(p, in, p->kept + (size_t)n);
    const size_t left = used < 0 ? 0 : p->kept + (size_t)n - (size_t)used;
    if (used < 0 || left == ROOM) {
        gone(p);
        return;
    }
    if (left && !p->keep && !(p->keep = malloc(ROOM))) {
        gone(p);
        return;
    }
    if (left)
        memcpy(p->keep, in + used, left);
    if (!left) {
        free(p->keep);
        p->keep = NULL;
    }
    p->kept = left;
}

int main(int argc, char **argv)
{
    const int port = argc > 1 ? atoi(argv[1]) : 0, one = 1;
    const struct sockaddr_in sa = {.sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                   .sin_port = htons((uint16_t)port)};
    const int l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(l, (const struct sockaddr *)&sa, sizeof sa) || listen(l, 4096)) {
        perror("ws_echo");
        return 1;
    }
    struct epoll_event got[256], e = {.events = EPOLLIN, .data.ptr = NULL};
    ep = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(ep, EPOLL_CTL_ADD, l, &e);
    for (;;) {
        const int k = epoll_wait(ep, got, 256, -1);
        for (int i = 0; i < k; i++) {
            if (got[i].data.ptr) {
                serve(got[i].data.ptr);
                continue;
            }
            int fd;
            while ((fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                struct peer *p = calloc(1, sizeof *p);
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                p->fd = fd;
                e.data.ptr = p;
                epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
            }
        }
    }
}
