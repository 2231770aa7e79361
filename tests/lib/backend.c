/* SPDX-License-Identifier: BSD-2-Clause */
/* backend: see backend.h. */
#include "backend.h"
#include "source.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* A listening socket on *port, or on one that the kernel chooses if that is 0. */
static int backend_listen(const char *address, unsigned *port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)*port)};
    socklen_t len = sizeof sa;
    const int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(inet_pton(AF_INET, address, &sa.sin_addr), 1);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(fd, 1024), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    *port = ntohs(sa.sin_port);
    return fd;
}

struct backend {
    int fd;
    const char *address;
    unsigned port;
    backend_fn fn; /* or */
    backend_raw_fn raw;
    void *arg;
    pthread_t acceptor;
    atomic_uint calls, broken, connections, running;
    atomic_bool stop;
    pthread_mutex_t lock;
    struct bytes transcript;
};
struct visit {
    struct backend *b;
    int fd;
};

static bool visit_once(struct backend *b, struct source *s, void *arg)
{
    struct asked ask = {.fd = s->fd, .arg = arg};
    bool keep = false;
    while (s->at == s->end) { /* idle: look at the stop flag now and then */
        struct pollfd p = {s->fd, POLLIN, 0};
        if (atomic_load(&b->stop))
            return false;
        if (poll(&p, 1, 50) > 0)
            break;
    }
    s->deadline = mono_ms() + 60000;
    if (!source_head(s, &ask.m)) {
        if (ask.m.head_len)
            atomic_fetch_add(&b->broken, 1);
        message_free(&ask.m);
        return false;
    }
    sscanf(ask.m.head, "%15s %8299s", ask.method, ask.target);
    const char *expect = field_of(&ask.m, "Expect");
    if (expect && !strcasecmp(expect, "100-continue"))
        reply(&ask, "HTTP/1.1 100 Continue\r\n\r\n");
    source_body(s, &ask.m, false, false);
    if (!ask.m.complete) {
        atomic_fetch_add(&b->broken, 1);
    } else {
        pthread_mutex_lock(&b->lock);
        char line[8400];
        int n = snprintf(line, sizeof line, "%s %s\n", ask.method, ask.target);
        for (int i = 0; i < n; i++)
            bytes_add(&b->transcript, line[i]);
        pthread_mutex_unlock(&b->lock);
        ask.number = atomic_fetch_add(&b->calls, 1) + 1;
        keep = b->fn(&ask);
    }
    message_free(&ask.m);
    return keep;
}

static void visit_requests(struct visit *v)
{
    struct source *s = calloc(1, sizeof *s);
    s->fd = v->fd;
    while (visit_once(v->b, s, v->b->arg) && !s->closed)
        ;
    free(s);
}

static void *visit_run(void *arg)
{
    struct visit *v = arg;
    if (v->b->raw)
        v->b->raw(v->fd);
    else
        visit_requests(v);
    shutdown(v->fd, SHUT_WR);
    close(v->fd);
    atomic_fetch_sub(&v->b->running, 1);
    free(v);
    return NULL;
}

static void *accept_run(void *arg)
{
    struct backend *b = arg;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 256 << 10);
    while (!atomic_load(&b->stop)) {
        struct pollfd p = {b->fd, POLLIN, 0};
        if (poll(&p, 1, 50) <= 0)
            continue;
        int fd = accept4(b->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct visit *v = calloc(1, sizeof *v);
        pthread_t t;
        v->b = b, v->fd = fd;
        atomic_fetch_add(&b->connections, 1);
        atomic_fetch_add(&b->running, 1);
        if (pthread_create(&t, &attr, visit_run, v)) {
            atomic_fetch_sub(&b->running, 1);
            close(fd);
            free(v);
        }
    }
    pthread_attr_destroy(&attr);
    return NULL;
}

static struct backend *backend_run(struct backend like)
{
    struct backend *b = calloc(1, sizeof *b);
    *b = like;
    b->fd = backend_listen(b->address ? b->address : "127.0.0.1", &b->port);
    pthread_mutex_init(&b->lock, NULL);
    bytes_add(&b->transcript, 0), b->transcript.len = 0;
    assert_int_equal(pthread_create(&b->acceptor, NULL, accept_run, b), 0);
    return b;
}

struct backend *backend_start(backend_fn fn, void *arg)
{
    return backend_run((struct backend){.fn = fn, .arg = arg});
}

struct backend *backend_start_at(backend_fn fn, void *arg, const char *address, unsigned port)
{
    return backend_run((struct backend){.fn = fn, .arg = arg, .address = address, .port = port});
}

struct backend *backend_start_raw(backend_raw_fn raw, unsigned port)
{
    return backend_run((struct backend){.raw = raw, .port = port});
}

void backend_stop(struct backend *b)
{
    atomic_store(&b->stop, true);
    pthread_join(b->acceptor, NULL);
    close(b->fd);
    uint64_t end = mono_ms() + 15000;
    while (atomic_load(&b->running) && mono_ms() < end)
        nap_ms(5);
    if (atomic_load(&b->running))
        return; /* a visitor hangs: rather leak than free under its feet */
    free(b->transcript.at);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

unsigned backend_port(const struct backend *b)
{
    return b->port;
}
unsigned backend_calls(const struct backend *b)
{
    return atomic_load(&b->calls);
}
unsigned backend_broken(const struct backend *b)
{
    return atomic_load(&b->broken);
}
unsigned backend_connections(const struct backend *b)
{
    return atomic_load(&b->connections);
}

unsigned backend_open(const struct backend *b)
{
    return atomic_load(&b->running);
}

void backend_forget(struct backend *b)
{
    pthread_mutex_lock(&b->lock);
    b->transcript.len = 0;
    b->transcript.at[0] = 0;
    pthread_mutex_unlock(&b->lock);
    atomic_store(&b->calls, 0);
    atomic_store(&b->broken, 0);
    atomic_store(&b->connections, 0);
}

char *backend_transcript(struct backend *b)
{
    pthread_mutex_lock(&b->lock);
    char *copy = strdup(b->transcript.at);
    pthread_mutex_unlock(&b->lock);
    return copy;
}

bool reply_bytes(struct asked *ask, const void *bytes, size_t len)
{
    return send_bytes(ask->fd, bytes, len);
}

bool reply(struct asked *ask, const char *fmt, ...)
{
    va_list ap;
    char *text;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    bool ok = n >= 0 && send_bytes(ask->fd, text, (size_t)n);
    free(text);
    return ok;
}

bool reply_ok(struct asked *ask, const char *lines, const char *body)
{
    return reply(ask,
                 "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n%s\r\n%s",
                 strlen(body), lines, strcmp(ask->method, "HEAD") ? body : "");
}

/* ---- what stories share ---- */

static struct backend **shared;
_Atomic unsigned backend_version = 1;

bool backend_tells_version(struct asked *ask)
{
    char body[32];
    snprintf(body, sizeof body, "%u", atomic_load(&backend_version));
    return reply_ok(ask, "Cache-Control: max-age=300\r\n", body);
}

static backend_fn shared_fn;

void harness_share(struct backend **b, backend_fn fn)
{
    shared = b;
    shared_fn = fn;
}

int harness_set_up(void **state)
{
    (void)state;
    *shared = backend_start(shared_fn, NULL);
    return 0;
}

int harness_tear_down(void **state)
{
    (void)state;
    backend_stop(*shared);
    return 0;
}

/* ---- by hand ---- */

void scripted_open_at(struct scripted *b, unsigned port)
{
    b->port = port;
    b->fd = backend_listen("127.0.0.1", &b->port);
}

void scripted_open(struct scripted *b)
{
    scripted_open_at(b, 0);
}

int scripted_accept(struct scripted *b)
{
    size_t n = 0;
    struct pollfd p = {b->fd, POLLIN, 0};
    assert_int_equal(poll(&p, 1, (int)harness_patience(10000)), 1);
    const int fd = accept(b->fd, NULL, NULL);
    assert_true(fd >= 0);
    while (n < sizeof b->head - 1 && (b->head[n] = 0, !strstr(b->head, "\r\n\r\n"))) {
        const ssize_t k = recv(fd, b->head + n, sizeof b->head - 1 - n, 0);
        assert_true(k > 0);
        n += (size_t)k;
    }
    return fd;
}

int scripted_answer(struct scripted *b, const char *bytes, size_t len)
{
    const int fd = scripted_accept(b);
    client_send_bytes(fd, bytes, len);
    return fd;
}
