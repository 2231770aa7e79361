/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_limits: see fleet_limits.h. */
#include "daemons/control/model/fleet_limits.h"
#include "daemons/control/model/fleet.h"
#include "polder/clock.h"
#include "polder/fleet.h"
#include "polder/fleet_grants.h"
#include "polder/random.h"
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
#define KEY_SIZE   160
#define TERMS_SIZE 192

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
    uint32_t n_back; /* of these there is something to be given back */
    struct fleet_want back[BATCH];
    bool is_reporting;
    uint32_t report_at;     /* the next row */
    uint64_t report_epoch;  /* which it is reported to; 0: none */
    uint64_t renew_sent_ms; /* 0: none is under way */
    uint64_t renewed_ms;    /* when the last one was sent */
    /* When the last lease was asked for, at the earliest; the store's clock. 0: there is none. */
    uint64_t held;
    char epoch_key[96], shares_key[96], run[20];
};

/* ---- the share ---- */

/* Until then hosts say what they know. */
static uint64_t learned_ms(uint64_t epoch)
{
    return fleet_epoch_ms(epoch) + FLEET_LEASE_MS;
}

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

/* It could use its share from then on; when it has done so last, in the order in which a death does no
 * harm. */
static void note_alone(struct fleet_grants *g, uint64_t from_ms, uint64_t now_ms)
{
    const uint64_t before_ms = atomic_load(&g->alone_until_ms), was_ms = atomic_load(&g->alone_ms),
                   used_ms = atomic_load(&g->share_used_ms);
    const uint32_t share = atomic_load(&g->share), was = atomic_load(&g->alone_share);
    const bool matters = before_ms && now_ms <= before_ms + was_ms;
    uint64_t ms = used_ms + CLOCK_COARSE_MS - from_ms;
    if (!from_ms || used_ms < from_ms)
        return;
    if (matters && was_ms > ms)
        ms = was_ms;
    atomic_store(&g->alone_share, matters && was > share ? was : share);
    atomic_store(&g->alone_ms, ms);
    atomic_store(&g->alone_until_ms, used_ms + CLOCK_COARSE_MS);
}

static struct fleet_page *page_of(const struct fleet_limits *l)
{
    return l->shared->fleet;
}

/* One that has never had any keeps what a host has of which the fleet does not know. The page is first:
 * a death in between leaves what the store knows, too. */
static void set_share(struct fleet_limits *l, uint32_t share)
{
    struct fleet_page *page = page_of(l);
    if (!share && !atomic_load(&page->limits_share))
        return;
    if (share + 1 != atomic_load(&page->limits_share))
        atomic_store(&page->limits_share, share + 1);
    atomic_store(&l->grants->share, share);
}

static void on_share(void *arg, const redisReply *r)
{
    struct fleet_limits *l = arg;
    struct fleet_grants *g = l->grants;
    uint64_t epoch, now, offered, hosts, learning;
    const uint64_t sent_ms = l->renew_sent_ms, now_ms = clock_mono_ms();
    l->renew_sent_ms = 0;
    if (!r || r->type != REDIS_REPLY_ARRAY || !number_at(r, 0, &epoch) || !number_at(r, 1, &now) ||
        !number_at(r, 2, &offered) || !number_at(r, 3, &hosts) || !number_at(r, 4, &learning) ||
        !epoch || epoch != fleet_epoch(l->fleet) || epoch != atomic_load(&g->epoch) ||
        offered > FLEET_SHARE_WHOLE) {
        lose(l);
        return;
    }
    note_alone(g, atomic_load(&g->share_from_ms), now_ms);
    const uint64_t from_ms = fleet_share_from(g, sent_ms + LEASE_MS);
    note_alone(g, from_ms, now_ms); /* what was used meanwhile */
    atomic_store(&g->hosts, hosts ? (uint32_t)hosts : 1);
    set_share(l, (uint32_t)offered);
    if (learning) {
        fleet_share_from(g, from_ms);
        lose(l); /* others may not be known yet */
        return;
    }
    atomic_store(&g->has_been_member, 1);
    atomic_store(&g->until_ms, sent_ms + LEASE_MS);
    l->held = now > now_ms - sent_ms ? now - (now_ms - sent_ms) : 0;
}

static void renew(struct fleet_limits *l)
{
    struct fleet_grants *g = l->grants;
    char epoch_text[24], held[24], acked[16], ago[24], alone[24], was[16], learned[24], free[24];
    const uint64_t epoch = fleet_epoch(l->fleet), now_ms = clock_mono_ms();
    if (l->renew_sent_ms || !epoch)
        return;
    const uint64_t from_ms = atomic_load(&g->share_from_ms);
    note_alone(g, from_ms, now_ms);
    const uint64_t until_ms = atomic_load(&g->alone_until_ms);
    snprintf(epoch_text, sizeof epoch_text, "%" PRIu64, epoch);
    snprintf(held, sizeof held, "%" PRIu64, l->held);
    snprintf(acked, sizeof acked, "%" PRIu32,
             atomic_load(&page_of(l)->limits_share) ? atomic_load(&g->share) : 0);
    snprintf(ago, sizeof ago, "%" PRIu64, now_ms > until_ms ? now_ms - until_ms : 0);
    snprintf(alone, sizeof alone, "%" PRIu64, until_ms ? atomic_load(&g->alone_ms) : 0);
    snprintf(was, sizeof was, "%" PRIu32, until_ms ? atomic_load(&g->alone_share) : 0);
    snprintf(learned, sizeof learned, "%" PRIu64, learned_ms(epoch));
    snprintf(free, sizeof free, "%" PRIu64, now_ms > from_ms ? now_ms - from_ms : 0);
    const char *argv[] = {l->epoch_key,
                          l->shares_key,
                          epoch_text,
                          l->config->host,
                          l->run,
                          held,
                          acked,
                          ago,
                          alone,
                          was,
                          learned,
                          LEASE_TEXT,
                          atomic_load(&g->has_been_member) ? "0" : "1",
                          free};
    if (fleet_run(l->fleet, FLEET_SCRIPT_LIMIT_SHARE, 2, 14, argv, on_share, l))
        l->renew_sent_ms = l->renewed_ms = now_ms;
}

/* ---- reporting to a store what is known here ---- */

static void key_name(const struct fleet_limits *l, const uint64_t hash[2], char out[KEY_SIZE])
{
    snprintf(out, KEY_SIZE, "polder:{%s}:limit:%016" PRIx64 "%016" PRIx64, l->config->name, hash[1],
             hash[0]);
}

static void report_next(struct fleet_limits *l);

static void on_reported(void *arg, const redisReply *r)
{
    struct fleet_limits *l = arg;
    uint64_t epoch;
    l->is_reporting = false;
    if (r && r->type == REDIS_REPLY_ARRAY && number_at(r, 0, &epoch) && epoch == l->report_epoch &&
        epoch == fleet_epoch(l->fleet))
        report_next(l);
    else
        l->report_epoch = 0; /* again from the first */
}

/* Names what this run of the host holds under that key of its cells, to the store. */
static uint64_t out_id(const struct fleet_limits *l, uint64_t key)
{
    return atomic_load(&l->grants->run) ^ key;
}

static void report_gcra(struct fleet_limits *l, const struct fleet_grant *row, uint64_t age_ms,
                        uint64_t now_ms, char *out, size_t size)
{
    const struct fleet_want ask = {.key = __atomic_load_n(&row->cell[0], __ATOMIC_RELAXED)};
    snprintf(out, size, "%" PRIu32 " 0 %" PRIu32 " %" PRIu64 " %" PRIu64 " %" PRIu32 " %" PRIu64,
             row->sub_ms, row->requests, age_ms, row->level,
             fleet_grant_out(l->grants, &ask, now_ms).n, out_id(l, ask.key));
}

static void report_row(struct fleet_limits *l, const struct fleet_grant *row, uint64_t now_ms,
                       char *out, size_t size)
{
    const int64_t ms = (int64_t)(row->ends_ms - now_ms);
    const uint32_t *c = row->count;
    const uint32_t format = atomic_load(&row->format);
    if (format == FLEET_FORMAT_GCRA)
        report_gcra(l, row, ms < 0 ? (uint64_t)-ms : 0, now_ms, out, size);
    else if (format == FLEET_FORMAT_FIXED)
        snprintf(out, size, "%" PRIu32 " 1 0 %" PRId64 " %" PRIu32, row->sub_ms, ms, c[0]);
    else
        snprintf(out, size,
                 "%" PRIu32 " 6 0 %" PRId64 " %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu32
                 " %" PRIu32 " %" PRIu32,
                 row->sub_ms, ms, c[0], c[1], c[2], c[3], c[4], c[5]);
}

/* It has no share before all is reported. */
static void report_next(struct fleet_limits *l)
{
    static char keys[BATCH][KEY_SIZE], terms[BATCH][TERMS_SIZE];
    const char *argv[3 + 2 * BATCH];
    char epoch_text[24];
    const struct fleet_grant *row;
    const uint64_t now_ms = clock_mono_ms();
    int n = 0;
    while (n < BATCH && (row = fleet_grant_heard(l->grants, &l->report_at, now_ms))) {
        key_name(l, row->hash, keys[n]);
        report_row(l, row, now_ms, terms[n++], sizeof terms[0]);
    }
    if (!n) {
        atomic_store(&l->grants->epoch, l->report_epoch);
        l->report_epoch = 0;
        return;
    }
    snprintf(epoch_text, sizeof epoch_text, "%" PRIu64, l->report_epoch);
    argv[0] = l->epoch_key;
    argv[1] = l->shares_key;
    argv[n + 2] = epoch_text;
    for (int i = 0; i < n; i++) {
        argv[2 + i] = keys[i];
        argv[n + 3 + i] = terms[i];
    }
    l->is_reporting =
        fleet_run(l->fleet, FLEET_SCRIPT_LIMIT_REPORT, n + 2, 2 * n + 3, argv, on_reported, l);
    if (!l->is_reporting)
        l->report_epoch = 0;
}

/* True: the store knows what was known here. */
static bool has_reported(struct fleet_limits *l)
{
    const uint64_t epoch = fleet_epoch(l->fleet);
    if (epoch && epoch == atomic_load(&l->grants->epoch))
        return true;
    if (!epoch || l->is_reporting)
        return false;
    lose(l);
    if (l->report_epoch != epoch) {
        fleet_grants_renounce(l->grants);
        l->n_back = 0;
        l->report_epoch = epoch;
        l->report_at = 0;
    }
    report_next(l);
    return false;
}

/* ---- taking ---- */

/* So much that with what it has the host holds no more than a lease, or enough for a request that costs
 * more; 0: it has that, as it had asked twice. */
static uint32_t wanted_by(const struct fleet_limits *l, const struct fleet_want *ask, uint32_t left)
{
    const uint32_t lease = fleet_lease_for(l->grants, ask);
    const uint32_t max = left + ask->cost <= lease ? lease - left
                         : left < ask->cost        ? ask->cost
                                                   : 0;
    return max < ask->want ? max : ask->want;
}

/* "GRANTED LEFT MS NUMBER TILL COUNT..." */
static bool put_grant(struct fleet_limits *l, const struct taking *t, int i, const redisReply *r)
{
    uint64_t v[11] = {0};
    const struct fleet_want *ask = &t->ask[i];
    const uint64_t now_ms = clock_mono_ms();
    int n = 0;
    if (r->type != REDIS_REPLY_STRING)
        return false;
    for (char *at = r->str, *end; n < 11; at = end, n++) {
        v[n] = strtoull(at, &end, 10);
        if (end == at)
            break;
    }
    if (n < 5 || v[0] > ask->want || v[1] > UINT32_MAX ||
        v[2] > 4 * ask->window_ms + 2 * FLEET_LEASE_MS)
        return false;
    if (!ask->want)
        return false;
    /* It ends no later than it does in the store, whose clock has whole ms and ours steps; a refusal no
     * earlier. */
    if (v[0])
        v[2] -= v[2] > CLOCK_COARSE_MS ? CLOCK_COARSE_MS + 1 : v[2];
    struct fleet_answer a = {.n = (uint32_t)v[0],
                             .rest = (uint32_t)v[1],
                             .sent_ms = t->sent_ms,
                             .end_ms = t->sent_ms + v[2] + (v[0] ? 0 : CLOCK_COARSE_MS + 1),
                             .number = v[3],
                             .ends_ms = now_ms + CLOCK_COARSE_MS + v[4]};
    memcpy(a.state, v + 5, sizeof a.state);
    if (fleet_grant_put(l->grants, ask, &a, now_ms) && l->n_back < BATCH) {
        l->back[l->n_back] = *ask;
        l->back[l->n_back].want = l->back[l->n_back].cost = 0;
        l->n_back++;
    }
    atomic_fetch_add(a.n ? &l->grants->taken : &l->grants->refused, a.n ? a.n : 1);
    return true;
}

static void on_taken(void *arg, const redisReply *r)
{
    struct taking *t = arg;
    struct fleet_limits *l = t->limits;
    uint64_t epoch = 0;
    const bool good = r && r->type == REDIS_REPLY_ARRAY && number_at(r, 0, &epoch) &&
                      epoch == fleet_epoch(l->fleet) && epoch == atomic_load(&l->grants->epoch) &&
                      r->elements == (size_t)t->n + 1;
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

/* Where the store is slow, a key is asked for again, perhaps in the same call: its worker is woken. */
static bool is_repeated(const struct taking *t, const struct fleet_want *a)
{
    for (const struct fleet_want *b = t->ask; b < a; b++)
        if (b->key == a->key && b->want)
            return true;
    return false;
}

static void take_terms(struct fleet_limits *l, struct fleet_want *a, char *out, size_t size)
{
    uint64_t number;
    const uint64_t now_ms = l->taking.sent_ms;
    const uint32_t back = fleet_grant_back(l->grants, a, now_ms, &number);
    const bool sliding = a->algorithm == RUNTIME_SLIDING;
    struct fleet_out held = {.n = fleet_grant_left(l->grants, a->key, now_ms)};
    if (a->algorithm == RUNTIME_GCRA)
        held = fleet_grant_out(l->grants, a, now_ms);
    a->want = a->want && !is_repeated(&l->taking, a) ? wanted_by(l, a, held.n) : 0;
    snprintf(out, size,
             "%" PRIu64 " %d %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu64 " %" PRIu32
             " %" PRIu32 " %" PRIu64 " %" PRIu64 " %" PRIu64,
             sliding ? (a->window_ms + 4) / 5 : a->window_ms,
             sliding                        ? 6
             : a->algorithm == RUNTIME_GCRA ? 0
                                            : 1,
             a->requests, a->want, a->cost, back, number, fleet_grant_had(l->grants, a, now_ms),
             held.n, held.ago_ms, held.after_ms, out_id(l, a->key));
}

static bool call_take(struct fleet_limits *l)
{
    static char keys[BATCH][KEY_SIZE], terms[BATCH][TERMS_SIZE];
    struct taking *t = &l->taking;
    const char *argv[2 + BATCH + FIRST + BATCH];
    char epoch_text[24], learned[24], hosts[16];
    const uint64_t epoch = fleet_epoch(l->fleet);
    int n = 0;
    t->sent_ms = clock_mono_ms();
    if (!has_reported(l) || !fleet_grants_come(l->grants, t->sent_ms))
        return false;
    snprintf(epoch_text, sizeof epoch_text, "%" PRIu64, epoch);
    snprintf(learned, sizeof learned, "%" PRIu64, learned_ms(epoch));
    snprintf(hosts, sizeof hosts, "%" PRIu32, atomic_load(&l->grants->hosts));
    argv[n++] = l->epoch_key;
    argv[n++] = l->shares_key;
    for (int i = 0; i < t->n; i++) {
        key_name(l, t->ask[i].hash, keys[i]);
        argv[n++] = keys[i];
    }
    argv[n++] = epoch_text;
    argv[n++] = learned;
    argv[n++] = hosts;
    for (int i = 0; i < t->n; i++) {
        take_terms(l, &t->ask[i], terms[i], sizeof terms[i]);
        argv[n++] = terms[i];
    }
    return fleet_run(l->fleet, FLEET_SCRIPT_LIMIT_TAKE, 2 + t->n, n, argv, on_taken, t);
}

static bool collect(struct fleet_limits *l)
{
    struct taking *t = &l->taking;
    t->n = 0;
    for (; l->n_back; t->n++) {
        t->ask[t->n] = l->back[--l->n_back];
        t->worker[t->n] = l->turn;
    }
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

void fleet_limits_look(struct fleet_limits *l)
{
    if (!l->wanted)
        return;
    if (!fleet_epoch(l->fleet))
        lose(l);
    if (has_reported(l) && l->renew_sent_ms == 0 &&
        clock_mono_ms() >= l->renewed_ms + (l->held ? RENEW_MS : 0))
        renew(l);
    fleet_limits_take(l);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    fleet_limits_look(w->data);
}

static bool was_own(const struct config *before, uint64_t id)
{
    for (uint32_t i = 0; i < before->n_limits; i++)
        if (before->limits[i].id == id)
            return before->limits[i].scope != CONFIG_SCOPE_FLEET;
    return false;
}

void fleet_limits_carry_over(struct shared *shared, const struct config *before,
                             const struct config *config)
{
    for (uint32_t i = 0; i < config->n_limits; i++) {
        const struct config_limit *l = &config->limits[i];
        atomic_store(&shared->fleet_grants->own_until_ms[i],
                     l->scope == CONFIG_SCOPE_FLEET && was_own(before, l->id) ? clock_mono_ms()
                                                                              : 0);
    }
}

void fleet_limits_use(struct fleet_limits *l, bool wanted)
{
    if (l->wanted && !wanted)
        lose(l);
    l->wanted = wanted;
}

/* Whether the store can be reached or not: what an earlier run has used is over with the windows that
 * have begun by now; and the store knows that it has no lease when one that it had then has ended. */
static void begin_run(struct fleet_limits *l)
{
    const uint32_t share = atomic_load(&page_of(l)->limits_share);
    uint64_t run = atomic_load(&l->grants->run);
    if (run)
        return;
    random_fill(&run, sizeof run);
    atomic_store(&l->grants->share, share ? share - 1 : FLEET_SHARE_UNKNOWN);
    atomic_store(&l->grants->hosts, 1);
    atomic_store(&l->grants->share_from_ms, clock_mono_ms() + (share ? LEASE_MS : 0));
    atomic_store(&l->grants->run, run | 1);
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
    begin_run(l);
    snprintf(l->run, sizeof l->run, "%" PRIx64, atomic_load(&l->grants->run));
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
