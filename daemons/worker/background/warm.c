/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * warm: the URLs of `warm` are fetched when the first worker starts, and again shortly before they
 * are stale or after they were invalidated, so that no client waits for them. As many at a time as
 * budget.h allows; failed ones are retried after a while. The worker serves meanwhile: readiness
 * does not wait for them.
 *
 * An entry is the head of a request made up by the worker. It is handled like a background
 * revalidation: one fetch over all workers, conditions if something is stored.
 */
#include "daemons/worker/background/budget.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/fetch/miss.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/permit.h"
#include "daemons/worker/reader.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/request/steps.h"
#include "polder/fetch_lock.h"
#include "polder/stats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_MS   1000 /* how often an entry is looked at */
#define RETRY_MS  5000
#define IDLE_MS   60000
#define LOOKS     64 /* entries looked at in a step */
#define HEAD_ROOM 128

struct warm_entry {
    char *head;
    uint32_t len;
    uint64_t look_ms;
    struct fetch_permit awaited;
};
struct warm {
    struct worker *worker;
    uint32_t n, next, fetching;
    struct warm_entry entry[];
};

/* Clients of a listener on all addresses of the host: those that ask for localhost. */
static void each_listener(const char *listen, const char *path, warm_host_fn each, void *arg)
{
    static const char *const any[] = {"0.0.0.0:", "[::]:", "*:"};
    char host[80];
    if (!strncmp(listen, "unix:", 5))
        return;
    for (size_t i = 0; i < sizeof any / sizeof *any; i++)
        if (!strncmp(listen, any[i], strlen(any[i]))) {
            snprintf(host, sizeof host, "localhost:%s", listen + strlen(any[i]));
            each(arg, host, strlen(host), path);
            return;
        }
    each(arg, listen, strlen(listen), path);
}

void warm_each_host(const struct config *config, const char *url, warm_host_fn each, void *arg)
{
    const char *path = strchr(url, '/');
    if (path > url) {
        each(arg, url, (size_t)(path - url), path);
        return;
    }
    for (uint32_t i = 0; i < config->n_listen; i++)
        each_listener(config->listen[i].text, url, each, arg);
}

char *warm_head(const char *host, size_t host_len, const char *path, uint32_t *len)
{
    const size_t size = host_len + strlen(path) + HEAD_ROOM;
    char *head = malloc(size);
    if (head)
        *len = (uint32_t)snprintf(head, size, "GET %s HTTP/1.1\r\nHost: %.*s\r\n\r\n", path,
                                  (int)host_len, host);
    return head;
}

static void add(void *arg, const char *host, size_t host_len, const char *path)
{
    struct warm *warm = arg;
    struct warm_entry *e = &warm->entry[warm->n];
    if (!(e->head = warm_head(host, host_len, path, &e->len)))
        return;
    e->awaited = FETCH_LOCK_NONE;
    warm->n++;
}

/* Soon stale? The last tenth of its life, give or take a half of that; on a polled route not before
 * the interval is over. */
static bool is_due(const struct warm_entry *e, const struct request *r, uint64_t left,
                   uint64_t life)
{
    if (r->route->poll)
        return left == 0;
    const uint64_t jitter = (uintptr_t)e / sizeof *e % 10;
    return left * 100 <= life * (5 + jitter);
}

/* Looks at an entry; fetches it if it is due. False: there is no room, later. */
static bool look(struct warm *warm, struct warm_entry *e)
{
    struct worker *w = warm->worker;
    const struct request_replay what = {.bytes = e->head, .len = e->len};
    struct hit_found found = {0};
    struct request r;
    uint64_t left = 0, life = 0;
    e->look_ms = w->mono_ms + RETRY_MS;
    if (!request_background(w, NULL, &what, &r))
        return true; /* its route has no cache */
    const bool there = stored_left_ms(&r, &found, &left, &life);
    const bool due = !there || (life && is_due(e, &r, left, life)); /* no life: never fresh */
    const struct config_upstream *u = r.route->upstream;
    const bool room = due && budget_may(w, u), trouble = due && budget_in_trouble(w, u);
    if (!due || trouble) {
        e->look_ms = w->mono_ms + (life || trouble ? LOOK_MS : IDLE_MS);
    } else if (!room) {
        e->look_ms = 0;
    } else if (miss_collapsible(&r, &found)) {
        const enum fetch_lock_claim got = fetch_background(&r, &found, &e->awaited, NULL);
        if (got == FETCH_LOCK_FULL)
            e->awaited = FETCH_LOCK_NONE;
        else
            warm->fetching++;
        stats_add(w->stats, STATS_CACHE_REFRESHED, there && got == FETCH_LOCK_LEAD);
    }
    stored_copy_free(w, found.stale); /* if it was not taken */
    return !due || room || trouble;
}

static void forget_fetched(struct warm *warm)
{
    struct worker *w = warm->worker;
    uint32_t fetching = 0;
    for (uint32_t i = 0; warm->fetching && i < warm->n; i++) {
        struct warm_entry *e = &warm->entry[i];
        if (!e->awaited.word)
            continue;
        if (permit_wait_pending(w, &e->awaited))
            fetching++;
        else
            e->awaited = FETCH_LOCK_NONE;
    }
    warm->fetching = fetching;
}

bool warm_step(struct worker *w)
{
    struct warm *warm = w->background->warm;
    if (!warm || w->draining)
        return false;
    if (!reader_ready(w))
        return true;
    forget_fetched(warm);
    for (uint32_t i = 0; i < LOOKS && i < warm->n; i++) {
        struct warm_entry *e = &warm->entry[warm->next];
        if (!e->awaited.word && w->mono_ms >= e->look_ms && !look(warm, e))
            break;
        warm->next = (warm->next + 1) % warm->n;
    }
    return warm->n > 0;
}

int warm_start(struct worker *w)
{
    const struct config *config = w->config;
    if (w->process->index != 0 || !config->cache.n_warm)
        return 0;
    const size_t max = (size_t)config->cache.n_warm * (config->n_listen + 1);
    struct warm *warm = calloc(1, sizeof *warm + max * sizeof(struct warm_entry));
    if (!warm)
        return -1;
    warm->worker = w;
    for (uint32_t i = 0; i < config->cache.n_warm; i++)
        warm_each_host(config, config->cache.warm[i], add, warm);
    w->background->warm = warm;
    budget_wake(w);
    return 0;
}

void warm_stop(struct worker *w)
{
    struct warm *warm = w->background->warm;
    w->background->warm = NULL;
    for (uint32_t i = 0; warm && i < warm->n; i++)
        free(warm->entry[i].head);
    free(warm);
}
