/* SPDX-License-Identifier: BSD-2-Clause */
/* cable: see cable.h. One thread for all connections. */
#include "cable.h"
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAIRS 64

struct cable {
    int fd;
    unsigned port, to_port;
    pthread_t thread;
    atomic_bool stop, cut;
    atomic_uint open;
    int pair[PAIRS][2]; /* -1: free */
};

static void close_pair(struct cable *r, int i)
{
    if (r->pair[i][0] < 0)
        return;
    close(r->pair[i][0]);
    close(r->pair[i][1]);
    r->pair[i][0] = r->pair[i][1] = -1;
    atomic_fetch_sub(&r->open, 1);
}

static void take(struct cable *r)
{
    const int fd = accept4(r->fd, NULL, NULL, SOCK_CLOEXEC);
    const struct sockaddr_in to = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)r->to_port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (int i = 0; i < PAIRS; i++) {
        if (r->pair[i][0] >= 0 || atomic_load(&r->cut) || fd < 0 || other < 0 ||
            connect(other, (const struct sockaddr *)&to, sizeof to))
            continue;
        r->pair[i][0] = fd;
        r->pair[i][1] = other;
        atomic_fetch_add(&r->open, 1);
        return;
    }
    close(fd);
    close(other);
}

static void pass(struct cable *r, int i, int side)
{
    char bytes[65536];
    const ssize_t n = recv(r->pair[i][side], bytes, sizeof bytes, 0);
    for (ssize_t at = 0, wrote; n > 0 && at < n; at += wrote)
        if ((wrote = send(r->pair[i][!side], bytes + at, (size_t)(n - at), MSG_NOSIGNAL)) < 0) {
            close_pair(r, i);
            return;
        }
    if (n <= 0)
        close_pair(r, i);
}

static void turn(struct cable *r)
{
    struct pollfd p[1 + PAIRS * 2];
    p[0] = (struct pollfd){.fd = r->fd, .events = POLLIN};
    for (int i = 0; i < PAIRS * 2; i++)
        p[1 + i] = (struct pollfd){.fd = r->pair[i / 2][i % 2], .events = POLLIN};
    poll(p, 1 + PAIRS * 2, 10);
    for (int i = 0; i < PAIRS * 2; i++)
        if (p[1 + i].revents && r->pair[i / 2][i % 2] == p[1 + i].fd)
            pass(r, i / 2, i % 2);
    if (p[0].revents)
        take(r);
}

static void *run(void *arg)
{
    struct cable *r = arg;
    while (!atomic_load(&r->stop)) {
        for (int i = 0; i < PAIRS && atomic_load(&r->cut); i++)
            close_pair(r, i);
        turn(r);
    }
    for (int i = 0; i < PAIRS; i++)
        close_pair(r, i);
    return NULL;
}

struct cable *cable_start(unsigned to_port)
{
    struct cable *r = calloc(1, sizeof *r);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    assert_non_null(r);
    memset(r->pair, -1, sizeof r->pair);
    r->to_port = to_port;
    r->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(r->fd, (const struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(r->fd, 64), 0);
    assert_int_equal(getsockname(r->fd, (struct sockaddr *)&at, &len), 0);
    r->port = ntohs(at.sin_port);
    assert_int_equal(pthread_create(&r->thread, NULL, run, r), 0);
    return r;
}

unsigned cable_port(const struct cable *r)
{
    return r->port;
}

void cable_cut(struct cable *r)
{
    atomic_store(&r->cut, true);
    wait_until(!atomic_load(&r->open), 5000);
}

void cable_mend(struct cable *r)
{
    atomic_store(&r->cut, false);
}

void cable_stop(struct cable *r)
{
    atomic_store(&r->stop, true);
    pthread_join(r->thread, NULL);
    close(r->fd);
    free(r);
}
