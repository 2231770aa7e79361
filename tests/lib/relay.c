/* SPDX-License-Identifier: BSD-2-Clause */
/* relay: see relay.h. A thread takes connections, and each has two more. */
#include "relay.h"
#include "patience.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PIECE (64u << 10)
#define LINKS 64

struct relay {
    struct sockaddr_un to;
    int listening;
    unsigned port;
    _Atomic bool ends, holds, refuses;
    _Atomic unsigned delay_ms;
    pthread_t acceptor, pump[2 * LINKS];
    unsigned n;
    pthread_mutex_t lock;
    char *seen;
    size_t len, room;
};

struct pump {
    struct relay *relay;
    int from, to;
    bool answers;
};

static void keep(struct relay *r, const char *bytes, size_t len)
{
    pthread_mutex_lock(&r->lock);
    if (r->len + len > r->room) {
        r->room = 2 * (r->len + len);
        r->seen = realloc(r->seen, r->room);
        if (!r->seen)
            abort();
    }
    memcpy(r->seen + r->len, bytes, len);
    r->len += len;
    pthread_mutex_unlock(&r->lock);
}

static bool is_over(const struct relay *r)
{
    return atomic_load(&r->ends) || atomic_load(&r->refuses);
}

static void wait_as_told(const struct relay *r)
{
    nap_ms(atomic_load(&r->delay_ms));
    while (atomic_load(&r->holds) && !is_over(r))
        nap_ms(2);
}

static bool write_all(int fd, const char *at, size_t len)
{
    while (len) {
        const ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static void *pump(void *arg)
{
    const struct pump p = *(struct pump *)arg;
    char *bytes = malloc(PIECE);
    ssize_t n = 0;
    free(arg);
    while (bytes && !is_over(p.relay)) {
        struct pollfd fd = {.fd = p.from, .events = POLLIN};
        if (poll(&fd, 1, 20) == 0)
            continue;
        if ((n = recv(p.from, bytes, PIECE, 0)) <= 0)
            break;
        if (p.answers)
            wait_as_told(p.relay);
        keep(p.relay, bytes, (size_t)n);
        if (!write_all(p.to, bytes, (size_t)n))
            break;
    }
    shutdown(p.from, SHUT_RDWR);
    shutdown(p.to, SHUT_RDWR);
    close(p.from); /* each has its own */
    close(p.to);
    free(bytes);
    return NULL;
}

static void begin(struct relay *r, int from, int to, bool answers)
{
    struct pump *p = malloc(sizeof *p);
    assert_non_null(p);
    *p = (struct pump){r, dup(from), dup(to), answers};
    assert_int_equal(pthread_create(&r->pump[r->n++], NULL, pump, p), 0);
}

static void take(struct relay *r, int client)
{
    const int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (!is_over(r) && r->n + 2 <= 2 * LINKS &&
        connect(server, (struct sockaddr *)&r->to, sizeof r->to) == 0) {
        begin(r, client, server, false);
        begin(r, server, client, true);
    }
    close(server);
}

static void *accept_all(void *arg)
{
    struct relay *r = arg;
    while (!atomic_load(&r->ends)) {
        struct pollfd fd = {.fd = r->listening, .events = POLLIN};
        if (poll(&fd, 1, 20) <= 0)
            continue;
        const int client = accept4(r->listening, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0)
            continue;
        take(r, client);
        close(client);
    }
    return NULL;
}

struct relay *relay_start(const char *to)
{
    struct relay *r = calloc(1, sizeof *r);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    assert_non_null(r);
    assert_true(strlen(to) < sizeof r->to.sun_path);
    r->to.sun_family = AF_UNIX;
    strcpy(r->to.sun_path, to);
    pthread_mutex_init(&r->lock, NULL);
    r->listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(r->listening, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(r->listening, 64), 0);
    assert_int_equal(getsockname(r->listening, (struct sockaddr *)&at, &len), 0);
    r->port = ntohs(at.sin_port);
    assert_int_equal(pthread_create(&r->acceptor, NULL, accept_all, r), 0);
    return r;
}

void relay_stop(struct relay *r)
{
    atomic_store(&r->ends, true);
    pthread_join(r->acceptor, NULL);
    for (unsigned i = 0; i < r->n; i++)
        pthread_join(r->pump[i], NULL);
    close(r->listening);
    pthread_mutex_destroy(&r->lock);
    free(r->seen);
    free(r);
}

unsigned relay_port(const struct relay *r)
{
    return r->port;
}

void relay_delay(struct relay *r, unsigned ms)
{
    atomic_store(&r->delay_ms, ms);
}

void relay_hold(struct relay *r, bool hold)
{
    atomic_store(&r->holds, hold);
}

void relay_refuse(struct relay *r, bool refuse)
{
    atomic_store(&r->refuses, refuse);
}

bool relay_has_seen(struct relay *r, const void *bytes, size_t len)
{
    pthread_mutex_lock(&r->lock);
    const bool seen = r->len && memmem(r->seen, r->len, bytes, len);
    pthread_mutex_unlock(&r->lock);
    return seen;
}

size_t relay_bytes(struct relay *r)
{
    pthread_mutex_lock(&r->lock);
    const size_t len = r->len;
    pthread_mutex_unlock(&r->lock);
    return len;
}
