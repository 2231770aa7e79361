/* SPDX-License-Identifier: BSD-2-Clause */
/* dns: see dns.h. */
#include "dns.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAMES      32
#define ANSWER     8192
#define UDP_MAX    512
#define TYPE_A     1
#define TYPE_CNAME 5
#define TYPE_AAAA  28

struct dns_name {
    char name[128], addresses[2048], target[128];
    unsigned ttl, asked;
    enum dns_manner manner;
};
struct dns {
    int udp, tcp;
    unsigned port;
    atomic_bool stop;
    pthread_t thread;
    pthread_mutex_t lock;
    struct dns_name name[NAMES];
    size_t n;
    unsigned seed;
};

/* ---- the zone ---- */

static struct dns_name *find(struct dns *d, const char *name)
{
    for (size_t i = 0; i < d->n; i++)
        if (!strcasecmp(d->name[i].name, name))
            return &d->name[i];
    return NULL;
}

static struct dns_name *find_or_add(struct dns *d, const char *name)
{
    struct dns_name *found = find(d, name);
    if (!found) {
        assert_true(d->n < NAMES);
        found = &d->name[d->n++];
        *found = (struct dns_name){.manner = DNS_NXDOMAIN};
        snprintf(found->name, sizeof found->name, "%s", name);
    }
    return found;
}

void dns_has(struct dns *d, const char *name, unsigned ttl, const char *addresses)
{
    pthread_mutex_lock(&d->lock);
    struct dns_name *n = find_or_add(d, name);
    n->ttl = ttl;
    n->manner = DNS_PROPER;
    n->target[0] = 0;
    snprintf(n->addresses, sizeof n->addresses, "%s", addresses);
    pthread_mutex_unlock(&d->lock);
}

void dns_alias(struct dns *d, const char *name, unsigned ttl, const char *target)
{
    pthread_mutex_lock(&d->lock);
    struct dns_name *n = find_or_add(d, name);
    n->ttl = ttl;
    n->manner = DNS_PROPER;
    n->addresses[0] = 0;
    snprintf(n->target, sizeof n->target, "%s", target);
    pthread_mutex_unlock(&d->lock);
}

void dns_behaves(struct dns *d, const char *name, enum dns_manner manner)
{
    pthread_mutex_lock(&d->lock);
    find_or_add(d, name)->manner = manner;
    pthread_mutex_unlock(&d->lock);
}

unsigned dns_asked(struct dns *d, const char *name)
{
    pthread_mutex_lock(&d->lock);
    const struct dns_name *n = find(d, name);
    const unsigned asked = n ? n->asked : 0;
    pthread_mutex_unlock(&d->lock);
    return asked;
}

/* ---- messages ---- */

struct text {
    unsigned char at[ANSWER];
    size_t len;
};

static void put8(struct text *t, unsigned n)
{
    if (t->len < sizeof t->at)
        t->at[t->len++] = (unsigned char)n;
}

static void put16(struct text *t, unsigned n)
{
    put8(t, n >> 8);
    put8(t, n & 255);
}

static void put_name(struct text *t, const char *name)
{
    while (*name) {
        const size_t len = strcspn(name, ".");
        put8(t, (unsigned)len);
        for (size_t i = 0; i < len; i++)
            put8(t, (unsigned char)name[i]);
        name += len + (name[len] == '.');
    }
    put8(t, 0);
}

static void put_record(struct text *t, const char *name, unsigned type, unsigned ttl,
                       const void *data, size_t len)
{
    put_name(t, name);
    put16(t, type);
    put16(t, 1);
    put16(t, ttl >> 16);
    put16(t, ttl & 65535);
    put16(t, (unsigned)len);
    for (size_t i = 0; i < len; i++)
        put8(t, ((const unsigned char *)data)[i]);
}

/* The name of a question, and where its type is; 0: it is none. */
static size_t read_question(const unsigned char *at, size_t len, char *name, size_t size)
{
    size_t i = 12, out = 0;
    while (i < len && at[i]) {
        const size_t label = at[i++];
        if (label > 63 || i + label >= len || out + label + 2 > size)
            return 0;
        if (out)
            name[out++] = '.';
        memcpy(name + out, at + i, label);
        out += label;
        i += label;
    }
    name[out] = 0;
    return i + 5 <= len ? i + 1 : 0;
}

/* The answer section; how many records. */
static unsigned put_answers(struct dns *d, struct text *t, const struct dns_name *n, unsigned type)
{
    char copy[sizeof n->addresses], *rest = NULL;
    unsigned records = 0;
    for (unsigned hops = 0; *n->target && hops < 20; hops++) {
        struct text target = {.len = 0};
        put_name(&target, n->target);
        put_record(t, n->name, TYPE_CNAME, n->ttl, target.at, target.len);
        records++;
        const struct dns_name *next = find(d, n->target);
        if (!next)
            return records;
        n = next;
    }
    memcpy(copy, n->addresses, sizeof copy);
    for (char *a = strtok_r(copy, " ", &rest); a; a = strtok_r(NULL, " ", &rest)) {
        unsigned char bytes[16];
        const bool v6 = strchr(a, ':') != NULL;
        if (v6 != (type == TYPE_AAAA))
            continue;
        assert_int_equal(inet_pton(v6 ? AF_INET6 : AF_INET, a, bytes), 1);
        put_record(t, n->name, type, n->ttl, bytes, v6 ? 16 : 4);
        records++;
    }
    return records;
}

static void set16(struct text *t, size_t at, unsigned n)
{
    t->at[at] = (unsigned char)(n >> 8);
    t->at[at + 1] = (unsigned char)n;
}

static void spoil(struct dns *d, struct text *t, enum dns_manner manner, size_t question_end)
{
    if (manner == DNS_NOISE)
        for (t->len = 2; t->len < 200;)
            put8(t, (unsigned)rand_r(&d->seed) & 255);
    if (manner == DNS_LOOP) { /* answers whose names point at themselves, and at each other */
        t->len = question_end;
        for (unsigned i = 0; i < 2; i++) {
            put16(t, 0xc000 | (unsigned)(i ? question_end : t->len));
            put16(t, TYPE_A);
            put16(t, 1);
            put16(t, 0);
            put16(t, 60);
            put16(t, 4);
            put16(t, 0x7f00);
            put16(t, 1);
        }
        set16(t, 6, 2);
    }
    if (manner == DNS_LIES) {
        t->len = question_end;
        put_record(t, "a", TYPE_A, 60, "\177\0\0\1", 4);
        set16(t, t->len - 6, 60000); /* the record's length */
        set16(t, 6, 65535);
    }
}

/* The answer to a question; len 0: none. */
static void answer(struct dns *d, const unsigned char *at, size_t len, bool tcp, struct text *t)
{
    char name[256];
    const size_t type_at = len >= 17 ? read_question(at, len, name, sizeof name) : 0;
    t->len = 0;
    if (!type_at)
        return;
    const unsigned type = (unsigned)at[type_at] << 8 | at[type_at + 1];
    struct dns_name *n = find(d, name);
    const enum dns_manner manner = n ? n->manner : DNS_NXDOMAIN;
    if (n && type == TYPE_A)
        n->asked++;
    if (manner == DNS_SILENT || (manner == DNS_SILENT_V6 && type == TYPE_AAAA))
        return;
    const size_t question_end = type_at + 4;
    memcpy(t->at, at, question_end);
    t->len = question_end;
    t->at[2] = 0x81; /* an answer; recursion was desired, ... */
    t->at[3] = (unsigned char)(0x80 | (manner == DNS_NXDOMAIN   ? 3
                                       : manner == DNS_SERVFAIL ? 2
                                       : manner == DNS_REFUSED  ? 5
                                                                : 0)); /* ... and is available */
    set16(t, 4, 1);
    memset(t->at + 6, 0, 6);
    if (t->at[3] == 0x80)
        set16(t, 6, put_answers(d, t, n, type));
    spoil(d, t, manner, question_end);
    const bool cut = manner == DNS_CUT || manner == DNS_CUT_TWICE;
    if (!tcp && (cut || t->len > UDP_MAX)) {
        t->len = question_end;
        t->at[2] |= 2;
        set16(t, 6, 0);
    }
    if (tcp && manner == DNS_CUT_TWICE)
        t->len /= 2;
    if (manner == DNS_EMPTY)
        t->len = (size_t)rand_r(&d->seed) & 1;
}

/* ---- sockets ---- */

static void send_as_stranger(const struct dns *d, struct text *t, const struct sockaddr_in *to)
{
    t->at[0] ^= 0x55; /* another number */
    sendto(d->udp, t->at, t->len, MSG_NOSIGNAL, (const struct sockaddr *)to, sizeof *to);
    t->at[0] ^= 0x55;
    t->at[13] ^= 1; /* another question */
    sendto(d->udp, t->at, t->len, MSG_NOSIGNAL, (const struct sockaddr *)to, sizeof *to);
}

static void serve_udp(struct dns *d)
{
    unsigned char question[2048];
    static struct text t;
    struct sockaddr_in from;
    socklen_t from_len = sizeof from;
    char name[256];
    const ssize_t n = recvfrom(d->udp, question, sizeof question, MSG_DONTWAIT,
                               (struct sockaddr *)&from, &from_len);
    if (n <= 0)
        return;
    pthread_mutex_lock(&d->lock);
    answer(d, question, (size_t)n, false, &t);
    const bool readable = read_question(question, (size_t)n, name, sizeof name);
    const struct dns_name *known = readable ? find(d, name) : NULL;
    const enum dns_manner manner = known ? known->manner : DNS_NXDOMAIN;
    pthread_mutex_unlock(&d->lock);
    if (manner == DNS_STRANGER && t.len)
        send_as_stranger(d, &t, &from);
    else if (t.len || manner == DNS_EMPTY)
        sendto(d->udp, t.at, t.len, MSG_NOSIGNAL, (struct sockaddr *)&from, from_len);
}

static bool receive(int fd, unsigned char *to, size_t len)
{
    for (size_t have = 0; have < len;) {
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, 2000) <= 0)
            return false;
        const ssize_t n = recv(fd, to + have, len - have, MSG_DONTWAIT);
        if (n <= 0)
            return false;
        have += (size_t)n;
    }
    return true;
}

static void serve_tcp(struct dns *d)
{
    unsigned char question[2048], head[2];
    static struct text t;
    const int fd = accept(d->tcp, NULL, NULL);
    if (fd < 0)
        return;
    while (receive(fd, head, 2)) {
        const size_t len = (size_t)head[0] << 8 | head[1];
        if (len > sizeof question || !receive(fd, question, len))
            break;
        pthread_mutex_lock(&d->lock);
        answer(d, question, len, true, &t);
        pthread_mutex_unlock(&d->lock);
        if (!t.len)
            break;
        const unsigned char out[2] = {(unsigned char)(t.len >> 8), (unsigned char)t.len};
        if (send(fd, out, 2, MSG_NOSIGNAL) != 2 ||
            send(fd, t.at, t.len, MSG_NOSIGNAL) != (ssize_t)t.len)
            break;
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, 20) <= 0) /* others wait */
            break;
    }
    close(fd);
}

static void *dns_run(void *arg)
{
    struct dns *d = arg;
    while (!atomic_load(&d->stop)) {
        struct pollfd p[2] = {{d->udp, POLLIN, 0}, {d->tcp, POLLIN, 0}};
        poll(p, 2, 50);
        if (p[0].revents)
            serve_udp(d);
        if (p[1].revents)
            serve_tcp(d);
    }
    return NULL;
}

/* The same port for both. */
static bool dns_bind(struct dns *d)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    d->udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    d->tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(d->tcp, (struct sockaddr *)&sa, sizeof sa) == 0 && listen(d->tcp, 64) == 0 &&
        getsockname(d->tcp, (struct sockaddr *)&sa, &len) == 0 &&
        bind(d->udp, (struct sockaddr *)&sa, sizeof sa) == 0) {
        d->port = ntohs(sa.sin_port);
        return true;
    }
    close(d->udp);
    close(d->tcp);
    return false;
}

struct dns *dns_start(void)
{
    struct dns *d = calloc(1, sizeof *d);
    unsigned tries = 0;
    while (!dns_bind(d))
        assert_true(++tries < 20);
    d->seed = 1;
    pthread_mutex_init(&d->lock, NULL);
    assert_int_equal(pthread_create(&d->thread, NULL, dns_run, d), 0);
    return d;
}

void dns_stop(struct dns *d)
{
    atomic_store(&d->stop, true);
    pthread_join(d->thread, NULL);
    close(d->udp);
    close(d->tcp);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

unsigned dns_port(const struct dns *d)
{
    return d->port;
}
