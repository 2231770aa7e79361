/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * load: a closed-loop HTTP/1.1 client: each connection has one request under way. Counts whole
 * responses by their Content-Length.
 * usage: load [-s STATUS] [-c] PORT CONNECTIONS SECONDS TARGET [EXTRA_HEAD_LINES [RANGE [each]]]
 * -s: the status that is expected (200); -c: a new connection for each request, which the server
 * closes behind its answer.
 * With a RANGE each request is for TARGET and a random number below it; with "each", for all of
 * them in turn, and then it ends. prints: requests errors other-statuses
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct peer {
    int fd;
    size_t head_len; /* bytes of an unfinished head in head[] */
    uint64_t left;   /* body bytes to come */
    bool answered;   /* -c: its end is awaited */
    char head[4096];
};

static char request[16384];
static const char *target, *lines;
static uint64_t range, next_one, chance = 88172645463325252u;
static bool each, churns;
static const char *status = "200";
static size_t request_len;
static uint64_t done, errors, odd;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void make_request(void)
{
    char number[24] = "";
    if (range) {
        chance ^= chance << 13, chance ^= chance >> 7, chance ^= chance << 17;
        snprintf(number, sizeof number, "%llu",
                 (unsigned long long)(each ? next_one++ % range : chance % range));
    }
    request_len =
        (size_t)snprintf(request, sizeof request, "GET %s%s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n",
                         target, number, lines);
}

static int ask(struct peer *p)
{
    if (range)
        make_request();
    return send(p->fd, request, request_len, MSG_NOSIGNAL) == (ssize_t)request_len ? 0 : -1;
}

/* One complete head at the start of p->head? Sets left; returns the bytes used, 0 if incomplete. */
static size_t read_head(struct peer *p)
{
    char *end = memmem(p->head, p->head_len, "\r\n\r\n", 4), *cl;
    if (!end)
        return 0;
    size_t used = (size_t)(end - p->head) + 4;
    end[2] = 0;
    cl = strcasestr(p->head, "\nContent-Length:");
    const bool has_body = strncmp(p->head + 9, "304", 3) != 0; /* whatever its length says */
    p->left = cl && has_body ? strtoull(cl + 16, NULL, 10) : 0;
    odd += strncmp(p->head + 9, status, 3) != 0;
    return used;
}

/* The answer is whole. */
static int next(struct peer *p)
{
    done++;
    p->answered = churns;
    return churns ? 0 : ask(p);
}

static int take(struct peer *p, const char *at, size_t n)
{
    while (n) {
        if (p->left) {
            size_t part = p->left < n ? (size_t)p->left : n;
            p->left -= part, at += part, n -= part;
            if (p->left == 0 && next(p))
                return -1;
            continue;
        }
        size_t room = sizeof p->head - 1 - p->head_len, part = n < room ? n : room,
               old = p->head_len;
        memcpy(p->head + p->head_len, at, part);
        p->head_len += part;
        p->head[p->head_len] = 0;
        size_t used = read_head(p);
        if (!used && part < n)
            return -1;
        if (!used)
            return 0;
        at += used - old, n -= used - old;
        p->head_len = 0;
        if (p->left == 0 && next(p))
            return -1;
    }
    return 0;
}

static int open_peer(int port, int ep, struct peer *p)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)port)};
    int one = 1;
    memset(p, 0, sizeof *p);
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(p->fd, (struct sockaddr *)&sa, sizeof sa))
        return -1;
    setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(p->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = p};
    epoll_ctl(ep, EPOLL_CTL_ADD, p->fd, &e);
    return ask(p);
}

int main(int argc, char **argv)
{
    for (int option; (option = getopt(argc, argv, "+cs:")) != -1;)
        if (option == 'c')
            churns = true;
        else if (option == 's')
            status = optarg;
        else
            return 2;
    argc -= optind - 1, argv += optind - 1;
    if (argc < 5)
        return 2;
    int port = atoi(argv[1]), n = atoi(argv[2]), ep = epoll_create1(0);
    double end = now() + atof(argv[3]);
    target = argv[4];
    lines = argc > 5 ? argv[5] : "";
    range = argc > 6 ? strtoull(argv[6], NULL, 10) : 0;
    each = argc > 7;
    make_request();
    struct peer *peer = calloc((size_t)n, sizeof *peer);
    static char buf[1 << 18];
    struct epoll_event got[256];
    for (int i = 0; i < n; i++)
        if (open_peer(port, ep, &peer[i]))
            return 1;
    while (now() < end && !(each && done >= range)) {
        int k = epoll_wait(ep, got, 256, 100);
        for (int i = 0; i < k; i++) {
            struct peer *p = got[i].data.ptr;
            ssize_t r = recv(p->fd, buf, sizeof buf, 0);
            if (r > 0 && take(p, buf, (size_t)r) == 0)
                continue;
            errors += !(r == 0 && p->answered);
            close(p->fd);
            if (errors > 1000 || open_peer(port, ep, p))
                return 1;
        }
    }
    printf("%llu %llu %llu\n", (unsigned long long)done, (unsigned long long)errors,
           (unsigned long long)odd);
    return 0;
}
