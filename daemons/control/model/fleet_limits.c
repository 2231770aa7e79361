/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_limits: see fleet_limits.h. */
#include "daemons/control/model/fleet_limits.h"
#include "daemons/control/model/fleet.h"
#include "polder/clock.h"
#include "polder/fleet.h"
#include "polder/fleet_grants.h"
#include "polder/runtime.h"
#include "polder/shared.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RENEW_MS   250
#define LOOK_MS    50
#define LEASE_MS   2000 /* of a share; the store is told */
#define LEASE_TEXT "2000"
#define BATCH      100 /* keys of one call */
#define FIRST      3   /* arguments before those of the keys */

/* One call. */
struct taking {
    struct fleet_limits *limits;
    uint64_t sent_ms;
    int n;
    struct fleet_want ask[BATCH];
    unsigned worker[BATCH];
};

struct fleet_limits {
    struct ev_loop *loop;
    struct fleet *fleet;
    const struct config_fleet *config;
    struct shared *shared;
    struct fleet_grants *grants;
    ev_timer timer;
    bool wanted;
    unsigned turn; /* the worker that is heard first */
    bool is_taking;
    struct taking taking;
    uint64_t renew_sent_ms; /* 0: none is under way */
    uint64_t renewed_ms;    /* when the last one was sent */
    bool gap_sent;
    uint64_t
        held; /* when the last lease was asked for, at the earliest; the store's clock. 0: none */
    char epoch_key[96], shares_key[96], instance[20];
};

/* ---- the share ---- */

static void lose(struct fleet_limits *l)
{
    atomic_store(&l->grants->until_ms, 0);
    l->held = 0;
}

/* Element i of a list, as a number; false: it is none. */
static bool number_at(const redisReply *r, size_t i, uint64_t *out)
{
    char *end;
    if (i >= r->elements || r->element[i]->type != REDIS_REPLY_STRING || !r->element[i]->len)
        return false;
    *out = strtoull(r->element[i]->str, &end, 10);
    return !*end;
}

static void set_leased(struct fleet_limits *l, uint64_t sent_ms, uint64_t now_ms)
{
    struct fleet_grants *g = l->grants;
    const uint64_t from_ms = atomic_load(&g->share_from_ms);
    if (now_ms >= from_ms) /* its share may have been used until now; first, in case we die here */
        atomic_store(&g->gap, 1);
    atomic_store(&g->share_from_ms, sent_ms + LEASE_MS);
    atomic_store(&g->until_ms, sent_ms + LEASE_MS);
}

static void on_share(void *arg, const redisReply *r)
{
    struct fleet_limits *l = arg;
    struct fleet_grants *g = l->grants;
    uint64_t epoch, now, offered, hosts;
    const uint64_t sent_ms = l->renew_sent_ms, now_ms = clock_mono_ms();
    l->renew_sent_ms = 0;
    if (!r || r->type != REDIS_REPLY_ARRAY || !number_at(r, 0, &epoch) || !number_at(r, 1, &now) ||
        !number_at(r, 2, &offered) || !number_at(r, 3, &hosts) || !epoch ||
        epoch != fleet_epoch(l->fleet) || offered > FLEET_SHARE_WHOLE) {
        lose(l);
        return;
    }
    if (l->gap_sent)
        atomic_store(&g->gap, 0);
    atomic_store(&g->hosts, hosts ? (uint32_t)hosts : 1);
    atomic_store(&g->share, (uint32_t)offered);
    if (now < fleet_epoch_ms(epoch) + FLEET_LEASE_MS) {
        lose(l); /* learning: others may not be known yet */
        return;
    }
    set_leased(l, sent_ms, now_ms);
    l->held = now > now_ms - sent_ms ? now - (now_ms - sent_ms) : 0;
}

static void renew(struct fleet_limits *l)
{
    char epoch_text[24], held[24], acked[24];
    const uint64_t epoch = fleet_epoch(l->fleet);
    if (l->renew_sent_ms || !epoch)
        return;
    l->gap_sent = atomic_load(&l->grants->gap) != 0;
    snprintf(epoch_text, sizeof epoch_text, "%" PRIu64, epoch);
    snprintf(held, sizeof held, "%" PRIu64, l->held);
    snprintf(acked, sizeof acked, "%" PRIu32, atomic_load(&l->grants->share));
    /* Its own history has just begun, as far as can be told before the answer. */
    const bool learning = !l->held;
    const char *argv[] = {l->epoch_key,         l->shares_key, epoch_text, l->config->host,
                          l->instance,          held,          acked,      l->gap_sent ? "1" : "0",
                          learning ? "1" : "0", LEASE_TEXT};
    const uint64_t now_ms = clock_mono_ms();
    if (fleet_run(l->fleet, FLEET_SCRIPT_LIMIT_SHARE, 2, 10, argv, on_share, l))
        l->renew_sent_ms = l->renewed_ms = now_ms;
}

/* ---- taking ---- */

static uint32_t wanted_by(const struct fleet_limits *l, const struct fleet_want *ask)
{
    uint32_t max = fleet_lease_of(l->grants, ask->requests);
    if (max < ask->cost)
        max = ask->cost;
    return max < ask->want ? max : ask->want;
}

/* "GRANTED LEFT MS" */
static bool put_grant(struct fleet_limits *l, const struct taking *t, int i, const redisReply *r)
{
    uint64_t n, left, ms;
    const struct fleet_want *ask = &t->ask[i];
    if (r->type != REDIS_REPLY_STRING ||
        sscanf(r->str, "%" SCNu64 " %" SCNu64 " %" SCNu64, &n, &left, &ms) != 3 || n > ask->want ||
        left > UINT32_MAX || ms > 4 * ask->window_ms + 2 * FLEET_LEASE_MS)
        return false;
    /* It ends no later than it does in the store, whose clock has whole ms; a refusal no earlier. */
    const uint64_t end_ms = n ? t->sent_ms + (ms ? ms - 1 : 0) : t->sent_ms + ms + 1;
    fleet_grant_put(l->grants, ask, (uint32_t)n, (uint32_t)left, end_ms, clock_mono_ms());
    atomic_fetch_add(n ? &l->grants->taken : &l->grants->refused, n ? n : 1);
    return true;
}

static void on_taken(void *arg, const redisReply *r)
{
    struct taking *t = arg;
    struct fleet_limits *l = t->limits;
    uint64_t epoch = 0;
    const bool good = r && r->type == REDIS_REPLY_ARRAY && number_at(r, 0, &epoch) &&
                      epoch == fleet_epoch(l->fleet) && r->elements == (size_t)t->n + 1;
    l->is_taking = false;
    if (!good)
        lose(l);
    for (int i = 0; i < t->n; i++) {
        if (!good || !put_grant(l, t, i, r->element[i + 1]))
            fleet_grant_forget(l->grants, &t->ask[i]);
        if (!i || t->worker[i] != t->worker[i - 1])
            shared_wake_worker(l->shared, t->worker[i]);
    }
    if (r)
        fleet_limits_take(l);
}

static bool call_take(struct fleet_limits *l)
{
    static char keys[BATCH][160], terms[BATCH][96];
    struct taking *t = &l->taking;
    const char *argv[2 + BATCH + FIRST + BATCH];
    char epoch_text[24], learned[24], hosts[16];
    const uint64_t epoch = fleet_epoch(l->fleet);
    int n = 0;
    snprintf(epoch_text, sizeof epoch_text, "%" PRIu64, epoch);
    snprintf(learned, sizeof learned, "%" PRIu64, fleet_epoch_ms(epoch));
    snprintf(hosts, sizeof hosts, "%" PRIu32, atomic_load(&l->grants->hosts));
    argv[n++] = l->epoch_key;
    argv[n++] = l->shares_key;
    for (int i = 0; i < t->n; i++) {
        struct fleet_want *a = &t->ask[i];
        const bool sliding = a->algorithm == RUNTIME_SLIDING;
        const uint64_t sub_ms = sliding ? (a->window_ms + 4) / 5 : a->window_ms;
        a->want = wanted_by(l, a);
        snprintf(keys[i], sizeof keys[i],
                 "polder:{%s}:limit:%016" PRIx64 "%016" PRIx64 ":%" PRIu64 ":%d", l->config->name,
                 a->hash[1], a->hash[0], sub_ms, sliding ? 6 : 1);
        snprintf(terms[i], sizeof terms[i], "%" PRIu64 " %d %" PRIu32 " %" PRIu32 " %" PRIu32,
                 sub_ms, sliding ? 6 : 1, a->requests, a->want, a->cost);
        argv[n++] = keys[i];
    }
    argv[n++] = epoch_text;
    argv[n++] = learned;
    argv[n++] = hosts;
    for (int i = 0; i < t->n; i++)
        argv[n++] = terms[i];
    t->sent_ms = clock_mono_ms();
    return epoch && fleet_grants_come(l->grants, t->sent_ms) &&
           fleet_run(l->fleet, FLEET_SCRIPT_LIMIT_TAKE, 2 + t->n, n, argv, on_taken, t);
}

static bool collect(struct fleet_limits *l)
{
    struct taking *t = &l->taking;
    t->n = 0;
    for (unsigned k = 0; k < PROC_WORKER_SLOTS; k++) {
        const unsigned worker = (l->turn + k) % PROC_WORKER_SLOTS;
        while (t->n < BATCH && fleet_grant_next(l->grants, worker, &t->ask[t->n]))
            t->worker[t->n++] = worker;
    }
    l->turn = (l->turn + 1) % PROC_WORKER_SLOTS;
    return t->n > 0;
}

void fleet_limits_take(struct fleet_limits *l)
{
    while (!l->is_taking && collect(l)) {
        atomic_fetch_add(&l->grants->calls, 1);
        l->is_taking = true;
        if (!call_take(l))
            on_taken(&l->taking, NULL);
    }
}

/* ---- life ---- */

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct fleet_limits *l = w->data;
    (void)loop;
    (void)revents;
    if (!l->wanted)
        return;
    if (!fleet_epoch(l->fleet))
        lose(l);
    if (l->renew_sent_ms == 0 && clock_mono_ms() >= l->renewed_ms + (l->held ? RENEW_MS : 0))
        renew(l);
    fleet_limits_take(l);
}

void fleet_limits_use(struct fleet_limits *l, bool wanted)
{
    if (l->wanted && !wanted)
        lose(l);
    l->wanted = wanted;
}

struct fleet_limits *fleet_limits_new(struct ev_loop *loop, struct fleet *fleet,
                                      const struct config_fleet *config, struct shared *shared)
{
    struct fleet_limits *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->loop = loop;
    l->fleet = fleet;
    l->config = config;
    l->shared = shared;
    l->grants = shared->fleet_grants;
    l->taking.limits = l;
    snprintf(l->epoch_key, sizeof l->epoch_key, "polder:{%s}:epoch", config->name);
    snprintf(l->shares_key, sizeof l->shares_key, "polder:{%s}:shares", config->name);
    snprintf(l->instance, sizeof l->instance, "%" PRIx64, atomic_load(&shared->fleet->instance));
    ev_timer_init(&l->timer, on_timer, 0., LOOK_MS / 1000.);
    l->timer.data = l;
    ev_timer_start(loop, &l->timer);
    return l;
}

void fleet_limits_free(struct fleet_limits *l)
{
    if (!l)
        return;
    ev_timer_stop(l->loop, &l->timer);
    lose(l);
    free(l);
}
