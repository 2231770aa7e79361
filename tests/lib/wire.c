/* SPDX-License-Identifier: BSD-2-Clause */
/* harness: messages on the wire; the backend thread; clients. Deliberately shares no code with the
 * daemon. */
#include "harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- reading messages -------------------------------------------------------------------- */

/* A small buffered reader, a byte source with a deadline. */
struct source {
    int fd;
    uint64_t deadline;
    char buf[65536];
    size_t at, end;
    bool closed, late;
};

static int next_byte(struct source *s)
{
    if (s->at < s->end)
        return (unsigned char)s->buf[s->at++];
    for (;;) {
        uint64_t now = mono_ms();
        struct pollfd p = {s->fd, POLLIN, 0};
        if (now >= s->deadline || poll(&p, 1, (int)(s->deadline - now)) <= 0) {
            s->late = true;
            return -1;
        }
        ssize_t n = recv(s->fd, s->buf, sizeof s->buf, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            s->closed = true;
            return -1;
        }
        s->at = 1, s->end = (size_t)n;
        return (unsigned char)s->buf[0];
    }
}

struct bytes {
    char *at;
    size_t len, room;
    uint64_t total; /* of a body, kept or not */
};

static void grow(struct bytes *b, char c)
{
    if (b->len + 1 >= b->room) {
        b->room = b->room ? b->room * 2 : 1024;
        b->at = realloc(b->at, b->room);
    }
    b->at[b->len++] = c;
    b->at[b->len] = 0;
}

static bool read_head(struct source *s, struct message *m)
{
    struct bytes b = {0};
    int c;
    grow(&b, 0), b.len = 0;
    while ((c = next_byte(s)) >= 0) {
        if (b.len == 0 && (c == '\r' || c == '\n'))
            continue;
        grow(&b, (char)c);
        if (b.len >= 4 && !memcmp(b.at + b.len - 4, "\r\n\r\n", 4))
            break;
    }
    m->head = b.at, m->head_len = b.len;
    return c >= 0;
}

#define KEEP_MOST ((size_t)16 << 20) /* of a longer body only the length is known */

static bool take(struct source *s, struct bytes *b, uint64_t n)
{
    while (n) {
        int c = next_byte(s);
        if (c < 0)
            return false;
        s->at--;
        size_t part = s->end - s->at < n ? s->end - s->at : (size_t)n;
        for (size_t i = 0; i < part && b->len < KEEP_MOST; i++)
            grow(b, s->buf[s->at + i]);
        b->total += part;
        s->at += part, n -= part;
    }
    return true;
}

static bool take_line(struct source *s, char *line, size_t size)
{
    size_t n = 0;
    int c;
    while ((c = next_byte(s)) >= 0 && c != '\n')
        if (n + 1 < size && c != '\r')
            line[n++] = (char)c;
    line[n] = 0;
    return c >= 0;
}

static bool read_chunks(struct source *s, struct bytes *b)
{
    char line[8192], *end;
    for (;;) {
        if (!take_line(s, line, sizeof line))
            return false;
        uint64_t n = strtoull(line, &end, 16);
        if (end == line)
            return false;
        if (n == 0)
            break;
        if (!take(s, b, n) || !take_line(s, line, sizeof line) || line[0])
            return false;
    }
    do {
        if (!take_line(s, line, sizeof line))
            return false;
    } while (line[0]);
    return true;
}

static void read_body(struct source *s, struct message *m, bool none, bool to_close)
{
    struct bytes b = {0};
    const char *te = field_of(m, "Transfer-Encoding"), *cl;
    grow(&b, 0), b.len = 0;
    m->chunked = te && strcasestr(te, "chunked");
    if (none) {
        m->complete = true;
    } else if (m->chunked) {
        m->complete = read_chunks(s, &b);
    } else if ((cl = field_of(m, "Content-Length"))) {
        m->complete = take(s, &b, strtoull(cl, NULL, 10));
    } else if (to_close) {
        int c;
        while ((c = next_byte(s)) >= 0)
            grow(&b, (char)c);
        m->complete = s->closed;
    } else {
        m->complete = true;
    }
    m->body = b.at, m->body_len = b.total > b.len ? (size_t)b.total : b.len, m->closed = s->closed;
}

const char *field_of(const struct message *m, const char *name)
{
    static _Thread_local char value[16384];
    size_t len = strlen(name), n = 0;
    bool found = false;
    value[0] = 0;
    for (const char *line = m->head ? strstr(m->head, "\r\n") : NULL; line;
         line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, len) || line[len] != ':')
            continue;
        const char *v = line + len + 1, *e = strstr(v, "\r\n");
        v += strspn(v, " \t");
        n += (size_t)snprintf(value + n, sizeof value - n, "%s%.*s", found ? ", " : "",
                              (int)(e - v), v);
        found = true;
    }
    return found ? value : NULL;
}

void message_free(struct message *m)
{
    free(m->head);
    free(m->body);
    memset(m, 0, sizeof *m);
}

/* ---- the backend ------------------------------------------------------------------------- */

struct backend {
    int fd;
    unsigned port;
    backend_fn fn;
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
    if (!read_head(s, &ask.m)) {
        if (ask.m.head_len)
            atomic_fetch_add(&b->broken, 1);
        message_free(&ask.m);
        return false;
    }
    sscanf(ask.m.head, "%15s %8299s", ask.method, ask.target);
    const char *expect = field_of(&ask.m, "Expect");
    if (expect && !strcasecmp(expect, "100-continue"))
        reply(&ask, "HTTP/1.1 100 Continue\r\n\r\n");
    read_body(s, &ask.m, false, false);
    if (!ask.m.complete) {
        atomic_fetch_add(&b->broken, 1);
    } else {
        pthread_mutex_lock(&b->lock);
        char line[8400];
        int n = snprintf(line, sizeof line, "%s %s\n", ask.method, ask.target);
        for (int i = 0; i < n; i++)
            grow(&b->transcript, line[i]);
        pthread_mutex_unlock(&b->lock);
        ask.number = atomic_fetch_add(&b->calls, 1) + 1;
        keep = b->fn(&ask);
    }
    message_free(&ask.m);
    return keep;
}

static void *visit_run(void *arg)
{
    struct visit *v = arg;
    struct source *s = calloc(1, sizeof *s);
    s->fd = v->fd;
    while (visit_once(v->b, s, v->b->arg) && !s->closed)
        ;
    shutdown(v->fd, SHUT_WR);
    close(v->fd);
    atomic_fetch_sub(&v->b->running, 1);
    free(s);
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

struct backend *backend_start(backend_fn fn, void *arg)
{
    struct backend *b = calloc(1, sizeof *b);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    int one = 1;
    b->fn = fn, b->arg = arg;
    b->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(b->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    assert_int_equal(bind(b->fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(b->fd, 1024), 0);
    getsockname(b->fd, (struct sockaddr *)&sa, &len);
    b->port = ntohs(sa.sin_port);
    pthread_mutex_init(&b->lock, NULL);
    grow(&b->transcript, 0), b->transcript.len = 0;
    assert_int_equal(pthread_create(&b->acceptor, NULL, accept_run, b), 0);
    return b;
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

static bool send_all(int fd, const char *at, size_t len)
{
    while (len) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n, len -= (size_t)n;
    }
    return true;
}

bool reply_bytes(struct asked *ask, const void *bytes, size_t len)
{
    return send_all(ask->fd, bytes, len);
}

bool reply(struct asked *ask, const char *fmt, ...)
{
    va_list ap;
    char *text;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    bool ok = n >= 0 && send_all(ask->fd, text, (size_t)n);
    free(text);
    return ok;
}

bool reply_ok(struct asked *ask, const char *lines, const char *body)
{
    return reply(ask,
                 "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n%s\r\n%s",
                 strlen(body), lines, strcmp(ask->method, "HEAD") ? body : "");
}

/* ---- clients ----------------------------------------------------------------------------- */

int client_connect(unsigned port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa)) {
        close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

void client_send_bytes(int fd, const void *bytes, size_t len)
{
    send_all(fd, bytes, len);
}

void client_send(int fd, const char *fmt, ...)
{
    va_list ap;
    char *text;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    assert_true(n >= 0);
    send_all(fd, text, (size_t)n);
    free(text);
}

/* Bytes of the next response may arrive with those of this one (pipelining), so they are peeked:
 * only what belongs to the message is taken from the socket. */
static void read_response(int fd, struct message *m, bool to_head, unsigned ms)
{
    struct source *s = calloc(1, sizeof *s);
    memset(m, 0, sizeof *m);
    s->fd = fd;
    s->deadline = mono_ms() + harness_patience(ms);
    /* byte-wise head: never past its end */
    struct bytes b = {0};
    grow(&b, 0), b.len = 0;
    for (;;) {
        char c;
        struct pollfd p = {fd, POLLIN, 0};
        uint64_t now = mono_ms();
        if (now >= s->deadline || poll(&p, 1, (int)(s->deadline - now)) <= 0) {
            s->late = true;
            break;
        }
        char peek[4096];
        ssize_t n = recv(fd, peek, sizeof peek, MSG_PEEK);
        if (n <= 0) {
            s->closed = true;
            break;
        }
        ssize_t use = 0;
        bool done = false;
        while (use < n && !done) {
            c = peek[use++];
            grow(&b, c);
            done = b.len >= 4 && !memcmp(b.at + b.len - 4, "\r\n\r\n", 4);
        }
        if (recv(fd, peek, (size_t)use, 0) != use || done)
            break;
    }
    m->head = b.at, m->head_len = b.len;
    if (sscanf(m->head, "HTTP/1.%*d %d", &m->status) != 1)
        m->status = 0;
    bool none = to_head || m->status / 100 == 1 || m->status == 204 || m->status == 304;
    if (m->status && !none) {
        const bool chunked = field_of(m, "Transfer-Encoding") != NULL;
        const char *cl = field_of(m, "Content-Length");
        if (cl && !chunked) { /* exact: leave what follows */
            struct bytes body = {0};
            uint64_t left = strtoull(cl, NULL, 10);
            grow(&body, 0), body.len = 0;
            while (left) {
                char part[65536];
                struct pollfd p = {fd, POLLIN, 0};
                uint64_t now = mono_ms();
                if (now >= s->deadline || poll(&p, 1, (int)(s->deadline - now)) <= 0)
                    break;
                ssize_t n = recv(fd, part, left < sizeof part ? (size_t)left : sizeof part, 0);
                if (n <= 0) {
                    s->closed = true;
                    break;
                }
                for (ssize_t i = 0; i < n; i++)
                    grow(&body, part[i]);
                left -= (uint64_t)n;
            }
            m->body = body.at, m->body_len = body.len, m->complete = left == 0,
            m->closed = s->closed;
        } else {
            read_body(s, m, false,
                      true); /* chunked or to close: must be the last of what was pipelined */
        }
    } else {
        m->body = calloc(1, 1);
        m->complete = m->status != 0;
        m->closed = s->closed;
    }
    free(s);
}

void client_read(int fd, struct message *m, bool to_head)
{
    read_response(fd, m, to_head, 10000);
}

bool client_closed(int fd, unsigned ms)
{
    uint64_t end = mono_ms() + harness_patience(ms), now;
    char sink[4096];
    while ((now = mono_ms()) < end) {
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, (int)(end - now)) <= 0)
            return false;
        if (recv(fd, sink, sizeof sink, 0) <= 0)
            return true;
    }
    return false;
}

int request(unsigned port, const char *method, const char *target, const char *lines,
            const char *body, struct message *m)
{
    struct message own;
    int fd = client_connect(port), status;
    if (fd < 0) {
        if (m)
            memset(m, 0, sizeof *m);
        return 0;
    }
    client_send(fd, "%s %s HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n%s", method,
                target, lines);
    if (body)
        client_send(fd, "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    else
        client_send(fd, "\r\n");
    client_read(fd, m ? m : &own, !strcmp(method, "HEAD"));
    status = (m ? m : &own)->status;
    if (!m)
        message_free(&own);
    close(fd);
    return status;
}

int get_with(unsigned port, const char *target, const char *lines, struct message *m)
{
    return request(port, "GET", target, lines, NULL, m);
}

int get(unsigned port, const char *target, struct message *m)
{
    return get_with(port, target, "", m);
}

bool served_from_store(unsigned port, const char *target)
{
    struct message m;
    get(port, target, &m);
    const char *status = m.status ? field_of(&m, "Cache-Status") : NULL;
    const bool hit = status && strstr(status, "polder; hit");
    message_free(&m);
    return hit;
}

struct storm {
    unsigned port, share;
    const char *target, *forbidden;
    unsigned counts[1000];
};

static void *storm_run(void *arg)
{
    struct storm *s = arg;
    int fd = -1;
    for (unsigned i = 0; i < s->share; i++) {
        struct message m;
        if (fd < 0 && (fd = client_connect(s->port)) < 0) {
            s->counts[0]++;
            nap_ms(2);
            continue;
        }
        client_send(fd, "GET %s HTTP/1.1\r\nHost: test.example\r\n\r\n", s->target);
        client_read(fd, &m, false);
        s->counts[m.status > 0 && m.status < 999 && m.complete ? m.status : 0]++;
        if (s->forbidden && m.body && strstr(m.body, s->forbidden))
            s->counts[999]++;
        const char *connection = m.status ? field_of(&m, "Connection") : "close";
        if (!m.complete || (connection && !strcasecmp(connection, "close"))) {
            close(fd);
            fd = -1;
        }
        message_free(&m);
    }
    if (fd >= 0)
        close(fd);
    return NULL;
}

void storm(unsigned port, const char *target, unsigned n, unsigned parallel, unsigned counts[1000],
           const char *forbidden)
{
    struct storm *s = calloc(parallel, sizeof *s);
    pthread_t *t = calloc(parallel, sizeof *t);
    for (unsigned i = 0; i < parallel; i++) {
        s[i] = (struct storm){.port = port, .target = target, .forbidden = forbidden};
        s[i].share = n / parallel + (i < n % parallel);
        assert_int_equal(pthread_create(&t[i], NULL, storm_run, &s[i]), 0);
    }
    for (unsigned i = 0; i < parallel; i++) {
        pthread_join(t[i], NULL);
        for (unsigned c = 0; c < 1000; c++)
            counts[c] += s[i].counts[c];
    }
    free(s);
    free(t);
}
