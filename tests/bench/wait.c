/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wait: one connection, one request after the other, and how long each answer was waited for. In C,
 * for an interpreter's own pauses are longer than what is to be measured.
 * usage: wait PORT TARGET SECONDS [PAUSE_US]
 * prints: requests, and in microseconds the median, 99 %, 99.9 % and the longest wait
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WAITS_MAX (1u << 22)

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int connect_to(int port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)port)};
    const int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* One whole answer that says 200. */
static int answered(int fd)
{
    static char buffer[65536];
    size_t have = 0;
    while (have < sizeof buffer - 1) {
        const ssize_t n = recv(fd, buffer + have, sizeof buffer - 1 - have, 0);
        if (n <= 0)
            return -1;
        have += (size_t)n;
        buffer[have] = 0;
        const char *end = strstr(buffer, "\r\n\r\n");
        const char *length = strcasestr(buffer, "\nContent-Length:");
        if (end && length && have >= (size_t)(end + 4 - buffer) + strtoull(length + 16, NULL, 10))
            return strncmp(buffer + 9, "200", 3) ? -1 : 0;
    }
    return -1;
}

static int by_size(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    char request[1024];
    if (argc < 4)
        return 2;
    const int len =
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", argv[2]);
    const int fd = connect_to(atoi(argv[1]));
    const useconds_t pause_us = argc > 4 ? (useconds_t)atoi(argv[4]) : 0;
    uint32_t *wait_ns = malloc(WAITS_MAX * sizeof *wait_ns), n = 0;
    if (fd < 0 || !wait_ns)
        return 1;
    memset(wait_ns, 1, WAITS_MAX * sizeof *wait_ns); /* its page faults are not to be measured */
    const uint64_t end_ns = now_ns() + (uint64_t)(atof(argv[3]) * 1e9);
    for (uint64_t at = now_ns(); at < end_ns && n < WAITS_MAX; at = now_ns()) {
        if (send(fd, request, (size_t)len, MSG_NOSIGNAL) != len || answered(fd) < 0)
            return 1;
        wait_ns[n++] = (uint32_t)(now_ns() - at);
        if (pause_us)
            usleep(pause_us);
    }
    qsort(wait_ns, n, sizeof *wait_ns, by_size);
    printf("%u %.1f %.1f %.1f %.1f\n", n, wait_ns[n / 2] / 1e3,
           wait_ns[(uint64_t)n * 99 / 100] / 1e3, wait_ns[(uint64_t)n * 999 / 1000] / 1e3,
           wait_ns[n - 1] / 1e3);
    return 0;
}
