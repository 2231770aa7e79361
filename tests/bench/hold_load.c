/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hold_load: many clients that would rather wait for a change (Prefer: wait), and when each of them
 * is told.
 * usage: hold_load PORT CLIENTS TARGET ETAG. Prints "asked" when all have asked; then reads a line
 * with the monotonic time, in seconds, from which to count; prints
 * "answered OTHERS FIRST MEDIAN P99 LAST" in ms, OTHERS being answers that are not 200 or do not
 * come within 10 s.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_S 10.0

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int connected(unsigned port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0)
        return fd;
    perror("hold_load: connect");
    exit(1);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Takes one answer, whole in one read for a body as small as ours. */
static int is_good(int fd)
{
    char text[4096];
    const ssize_t n = recv(fd, text, sizeof text, MSG_DONTWAIT);
    return n > 12 && !memcmp(text, "HTTP/1.1 200", 12);
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    const unsigned port = (unsigned)atoi(argv[1]), n = (unsigned)atoi(argv[2]);
    const int ep = epoll_create1(EPOLL_CLOEXEC);
    char request[1024];
    double *told = calloc(n, sizeof *told), from = 0;
    const int len = snprintf(request, sizeof request,
                             "GET %s HTTP/1.1\r\nHost: bench\r\nIf-None-Match: %s\r\nPrefer: "
                             "wait=300\r\n\r\n",
                             argv[3], argv[4]);
    for (unsigned i = 0; i < n; i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.fd = connected(port)};
        if (send(e.data.fd, request, (size_t)len, MSG_NOSIGNAL) != len ||
            epoll_ctl(ep, EPOLL_CTL_ADD, e.data.fd, &e) < 0)
            return 1;
    }
    printf("asked\n");
    fflush(stdout);
    if (scanf("%lf", &from) != 1)
        return 1;
    unsigned answered = 0, others = 0;
    struct epoll_event event[256];
    while (answered + others < n && now() < from + PATIENCE_S) {
        const int got = epoll_wait(ep, event, 256, 100);
        for (int i = 0; i < got; i++) {
            if (is_good(event[i].data.fd))
                told[answered++] = (now() - from) * 1e3;
            else
                others++;
            epoll_ctl(ep, EPOLL_CTL_DEL, event[i].data.fd, NULL);
        }
    }
    qsort(told, answered, sizeof *told, by_size);
    if (answered)
        printf("%u %u %.1f %.1f %.1f %.1f\n", answered, n - answered, told[0], told[answered / 2],
               told[(size_t)(0.99 * answered)], told[answered - 1]);
    else
        printf("0 %u 0 0 0 0\n", n);
    return 0;
}
