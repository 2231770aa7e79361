/* SPDX-License-Identifier: BSD-2-Clause */
/* resolve: see resolve.h. */
#include "polder/resolve.h"
#include "polder/clock.h"

#include <ares.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

struct resolver {
    ares_channel channel;
    bool closing; /* what is called back now has not been answered */
};
struct question {
    struct resolver *resolver;
    resolve_fn fn;
    void *arg;
};

struct resolver *resolver_new(const char *servers)
{
    struct resolver *r = calloc(1, sizeof *r);
    struct ares_options options = {.timeout = RESOLVE_TIMEOUT_MS, .tries = RESOLVE_TRIES};
    if (!r || ares_library_init(ARES_LIB_INIT_ALL)) {
        free(r);
        return NULL;
    }
    if (ares_init_options(&r->channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES)) {
        free(r);
        return NULL;
    }
    if (*servers && ares_set_servers_ports_csv(r->channel, servers)) {
        resolver_free(r);
        return NULL;
    }
    return r;
}

void resolver_free(struct resolver *r)
{
    if (!r)
        return;
    r->closing = true;
    ares_destroy(r->channel);
    free(r);
}

/* ---- answers ---- */

static bool has(const struct resolve_answer *answer, const struct server_address *a)
{
    for (uint32_t i = 0; i < answer->n; i++)
        if (!memcmp(&answer->at[i], a, sizeof *a))
            return true;
    return false;
}

static void take_addresses(struct resolve_answer *answer, const struct ares_addrinfo *found)
{
    uint32_t ttl_s = UINT32_MAX;
    struct server_address a;
    for (const struct ares_addrinfo_cname *c = found->cnames; c; c = c->next)
        if (c->ttl >= 0 && (uint32_t)c->ttl < ttl_s)
            ttl_s = (uint32_t)c->ttl;
    for (const struct ares_addrinfo_node *n = found->nodes; n; n = n->ai_next) {
        if (!server_address_from(n->ai_addr, &a))
            continue;
        if (n->ai_ttl >= 0 && (uint32_t)n->ai_ttl < ttl_s)
            ttl_s = (uint32_t)n->ai_ttl;
        if (answer->n < RESOLVE_FOUND_MAX && !has(answer, &a))
            answer->at[answer->n++] = a;
    }
    answer->ttl_s = ttl_s == UINT32_MAX ? 0 : ttl_s;
    server_addresses_in_turn(answer->at, answer->n);
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *found)
{
    struct question *q = arg;
    struct resolve_answer answer = {0};
    (void)timeouts;
    if (found) {
        take_addresses(&answer, found);
        ares_freeaddrinfo(found);
    }
    if (!answer.n)
        snprintf(answer.why, sizeof answer.why, "%s",
                 status ? ares_strerror(status) : "it has no address");
    if (!q->resolver->closing)
        q->fn(q->arg, &answer);
    free(q);
}

void resolver_ask(struct resolver *r, const char *text, resolve_fn fn, void *arg)
{
    static const struct resolve_answer no_memory = {.why = "no memory is left to ask for it"};
    static const struct ares_addrinfo_hints hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = ARES_AI_NUMERICSERV};
    const char *colon = strrchr(text, ':');
    struct question *q = malloc(sizeof *q);
    char host[256];
    if (!q) {
        fn(arg, &no_memory);
        return;
    }
    *q = (struct question){r, fn, arg};
    snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    ares_getaddrinfo(r->channel, host, colon + 1, &hints, on_answer, q);
}

/* ---- waiting ---- */

static nfds_t sockets_of(const struct resolver *r, struct pollfd p[ARES_GETSOCK_MAXNUM])
{
    ares_socket_t fd[ARES_GETSOCK_MAXNUM];
    const unsigned bits = (unsigned)ares_getsock(r->channel, fd, ARES_GETSOCK_MAXNUM);
    nfds_t n = 0;
    for (unsigned i = 0; i < ARES_GETSOCK_MAXNUM; i++) {
        const bool readable = bits >> i & 1; /* ARES_GETSOCK_WRITABLE() shifts into a sign bit */
        const bool writable = bits >> (i + ARES_GETSOCK_MAXNUM) & 1;
        if (readable || writable)
            p[n++] = (struct pollfd){
                .fd = fd[i], .events = (short)((readable ? POLLIN : 0) | (writable ? POLLOUT : 0))};
    }
    return n;
}

/* Until the next time-out of a name server, at most. */
static int bounded_wait_ms(const struct resolver *r, unsigned wait_ms)
{
    struct timeval max = {(time_t)(wait_ms / 1000), (suseconds_t)(wait_ms % 1000) * 1000}, next;
    const struct timeval *t = ares_timeout(r->channel, &max, &next);
    return (int)(t->tv_sec * 1000 + (t->tv_usec + 999) / 1000);
}

void resolver_step(struct resolver *r, unsigned wait_ms)
{
    struct pollfd p[ARES_GETSOCK_MAXNUM];
    const nfds_t n = sockets_of(r, p);
    poll(p, n, bounded_wait_ms(r, wait_ms));
    ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD); /* time-outs */
    for (nfds_t i = 0; i < n; i++) {
        const bool reads = p[i].revents & (POLLIN | POLLHUP | POLLERR);
        const bool writes = p[i].revents & POLLOUT;
        if (reads || writes)
            ares_process_fd(r->channel, reads ? p[i].fd : ARES_SOCKET_BAD,
                            writes ? p[i].fd : ARES_SOCKET_BAD);
    }
}

/* ---- all at once ---- */

struct batch_name {
    struct resolve_answer *answer;
    size_t *missing;
};

static void on_one(void *arg, const struct resolve_answer *answer)
{
    const struct batch_name *one = arg;
    *one->answer = *answer;
    (*one->missing)--;
}

static void wait_for_all(struct resolver *r, const size_t *missing, unsigned timeout_ms)
{
    const uint64_t end_ms = clock_mono_ms() + timeout_ms;
    for (uint64_t now_ms; *missing && (now_ms = clock_mono_ms()) < end_ms;)
        resolver_step(r, (unsigned)(end_ms - now_ms));
}

void resolve_all(const char *servers, struct resolve_name *names, size_t n, unsigned timeout_ms)
{
    struct resolver *r = n ? resolver_new(servers) : NULL;
    struct batch_name *batch = calloc(n + 1, sizeof *batch);
    size_t missing = n;
    for (size_t i = 0; i < n; i++) {
        names[i].answer = (struct resolve_answer){0};
        snprintf(names[i].answer.why, sizeof names[i].answer.why, "%s",
                 r ? "the name server does not answer in time" : "no resolver can be made");
        if (!r || !batch)
            continue;
        batch[i] = (struct batch_name){&names[i].answer, &missing};
        resolver_ask(r, names[i].text, on_one, &batch[i]);
    }
    if (r && batch)
        wait_for_all(r, &missing, timeout_ms);
    resolver_free(r);
    free(batch);
}
