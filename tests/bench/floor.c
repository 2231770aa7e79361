/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * floor: the least a one-process server can cost. An edge-triggered epoll loop that answers fixed
 * bytes for each blank line it sees. usage: floor PORT BODY_BYTES [close]
 * With "close" it closes the connection behind each answer.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

struct peer {
    int fd;
    uint32_t tail; /* the last four bytes seen */
};

static bool closes;
static char *answer;
static size_t answer_len;

static void serve(struct peer *p)
{
    char buf[65536];
    for (;;) {
        ssize_t n = recv(p->fd, buf, sizeof buf, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            close(p->fd);
            free(p);
            return;
        }
        if (n < 0)
            return;
        for (ssize_t i = 0; i < n; i++) {
            p->tail = p->tail << 8 | (uint8_t)buf[i];
            if (p->tail == 0x0d0a0d0a && send(p->fd, answer, answer_len, MSG_NOSIGNAL) < 0)
                return;
            if (p->tail == 0x0d0a0d0a && closes) {
                close(p->fd);
                free(p);
                return;
            }
        }
        if (n < (ssize_t)sizeof buf)
            return;
    }
}

static void greet(int listener, int ep)
{
    for (int fd, one = 1;
         (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        struct peer *p = calloc(1, sizeof *p);
        struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.ptr = p};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        p->fd = fd;
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    closes = argc > 3;
    size_t body = strtoul(argv[2], NULL, 10);
    answer = malloc(body + 256);
    answer_len = (size_t)sprintf(
        answer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
        body);
    memset(answer + answer_len, 'x', body);
    answer_len += body;
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)atoi(argv[1]))};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&sa, sizeof sa) || listen(listener, 1024))
        return 1;
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, got[256];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int n = epoll_wait(ep, got, 256, -1);
        for (int i = 0; i < n; i++)
            if (got[i].data.ptr)
                serve(got[i].data.ptr);
            else
                greet(listener, ep);
    }
}
