/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_slots: see fleet_slots.h. */
#include "daemons/control/model/fleet_slots.h"
#include "daemons/control/model/fleet.h"
#include "polder/clock.h"
#include "polder/fleet.h"
#include "polder/fleet_slots.h"
#include "polder/limit.h"
#include "polder/random.h"
#include "polder/shared.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RENEW_MS   250
#define LOOK_MS    50
#define LOOK_ROWS  256 /* at each turn of the timer */
#define BATCH      100 /* rows of one call */
#define IDLE_MS    1000
#define FAST_MS    150 /* what is in use so soon was too little */
#define SETTLE_MS  50  /* in which what was waited for is used, or not any more */
#define LEASE_TEXT "3000"
#define ROWS       (FLEET_SLOT_KINDS * FLEET_SLOT_ROWS)
_Static_assert(FLEET_LEASE_MS == 3000, "LEASE_TEXT");

struct fleet_holder {
    struct ev_loop *loop;
    struct fleet *fleet;
    const struct config_fleet *config;
    struct shared *shared;
    struct fleet_slots *page;
    struct limit_caller caller;
    ev_timer timer;
    bool wanted, websockets;
    uint32_t keep_ms;
    uint64_t epoch;         /* in which this host is a holder; 0: in none */
    uint64_t renew_sent_ms; /* 0: none is under way */
    uint64_t renewed_ms;
    bool reported_sent;
    uint64_t counts;     /* of the page, as it was seen last */
    uint32_t unreported; /* the rows from here on have still to be reported; ROWS: none */
    uint32_t looked;     /* rows below that were looked at in this turn */
    unsigned turn;       /* the queue that is heard first */
    bool is_calling;
    int n;
    struct row_terms {
        uint32_t row, have, want;
    } row[BATCH];
    uint64_t woken[2]; /* workers to be woken, bits by slot */
    char instance[20], id[48];
    char epoch_key[96], holders_key[120], all_key[120], of_prefix[120], of_key[180];
};

/* ---- this host as a holder ---- */

static void lose(struct fleet_holder *h)
{
    atomic_store(&h->page->until_ms, 0);
    h->epoch = 0;
}

static void name_keys(struct fleet_holder *h, uint64_t epoch)
{
    char prefix[100];
    snprintf(prefix, sizeof prefix, "polder:{%.48s}:slots:%" PRIu64 ":", h->config->name, epoch);
    snprintf(h->holders_key, sizeof h->holders_key, "%sholders", prefix);
    snprintf(h->all_key, sizeof h->all_key, "%sall", prefix);
    snprintf(h->of_prefix, sizeof h->of_prefix, "%sof:", prefix);
    snprintf(h->of_key, sizeof h->of_key, "%s%s", h->of_prefix, h->id);
}

/* What the store knows of the rows is not known. */
static void report_all(struct fleet_holder *h)
{
    for (uint32_t row = 0; fleet_slot_each(h->page, &row); row++)
        h->page->row[row].reported = FLEET_SLOT_UNREPORTED;
    h->unreported = 0;
}

/* The store has given to others what this host held: it holds what is in use, and that is nothing
 * where its time has ended. False: a row cannot be changed just now. */
static bool strip(struct fleet_holder *h)
{
    bool all = true;
    for (uint32_t row = 0; fleet_slot_each(h->page, &row); row++) {
        const uint32_t used = fleet_slot_in_use(&h->caller, h->page, row);
        all = fleet_slot_lower(&h->caller, h->page, row, 0) <= used && all;
    }
    return all;
}

static bool number_at(const redisReply *r, size_t i, uint64_t *out)
{
    char *end;
    if (i >= r->elements || r->element[i]->type != REDIS_REPLY_STRING || !r->element[i]->len)
        return false;
    *out = strtoull(r->element[i]->str, &end, 10);
    return !*end;
}

/* Everything is reported, and nothing in use is still to be counted. */
static bool is_reported(const struct fleet_holder *h)
{
    return h->unreported == ROWS && (!h->websockets || h->counts);
}

static void set_times(struct fleet_holder *h, uint64_t sent_ms, bool learning)
{
    atomic_store(&h->page->end_ms, sent_ms + h->keep_ms - FLEET_SLOTS_MARGIN_MS);
    atomic_store(&h->page->until_ms, learning ? 0 : sent_ms + FLEET_LEASE_MS);
}

static void on_renewed(void *arg, const redisReply *r)
{
    struct fleet_holder *h = arg;
    struct fleet_slots *p = h->page;
    uint64_t epoch, hosts, fresh, learning;
    const uint64_t sent_ms = h->renew_sent_ms, now_ms = clock_mono_ms();
    h->renew_sent_ms = 0;
    if (!r || r->type != REDIS_REPLY_ARRAY || !number_at(r, 0, &epoch) ||
        !number_at(r, 1, &hosts) || !number_at(r, 2, &fresh) || !number_at(r, 3, &learning) ||
        !epoch || epoch != fleet_epoch(h->fleet)) {
        lose(h);
        return;
    }
    atomic_store(&p->hosts, hosts && hosts < UINT32_MAX ? (uint32_t)hosts : 1);
    const bool forgotten = fresh && atomic_load(&p->epoch) == epoch;
    if ((forgotten || fleet_slots_ended(p, now_ms)) && !strip(h)) {
        lose(h); /* once more: until then nothing is this host's */
        return;
    }
    if (fresh || h->epoch != epoch)
        report_all(h);
    h->epoch = epoch;
    atomic_store(&p->epoch, epoch);
    set_times(h, sent_ms, learning);
    fleet_holder_take(h);
}

static void renew(struct fleet_holder *h)
{
    char epoch_text[24], began[24], keep[16];
    const uint64_t epoch = fleet_epoch(h->fleet);
    if (h->renew_sent_ms || !epoch)
        return;
    name_keys(h, epoch);
    h->reported_sent = h->epoch == epoch && is_reported(h);
    snprintf(epoch_text, sizeof epoch_text, "%" PRIu64, epoch);
    snprintf(began, sizeof began, "%" PRIu64, fleet_epoch_ms(epoch));
    snprintf(keep, sizeof keep, "%" PRIu32, h->keep_ms);
    const char *reported = h->reported_sent ? "1" : "0";
    const char *argv[] = {h->epoch_key, h->holders_key, h->all_key, epoch_text,
                          h->id,        h->instance,    keep,       reported,
                          reported,     h->of_prefix,   began,      LEASE_TEXT};
    const uint64_t now_ms = clock_mono_ms();
    if (fleet_run(h->fleet, FLEET_SCRIPT_SLOTS_RENEW, 3, 12, argv, on_renewed, h))
        h->renew_sent_ms = h->renewed_ms = now_ms;
}

/* ---- rows ---- */

/* How many at once: more where they are in use soon. */
static uint32_t wanted(const struct fleet_holder *h, struct fleet_slot *s, uint32_t need,
                       uint64_t now_ms)
{
    const uint32_t block = fleet_slots_block(h->page, atomic_load(&s->limit));
    const uint64_t age_ms = now_ms - s->grown_ms;
    s->grow = !s->grow ? 1 : age_ms < FAST_MS ? s->grow * 2 : age_ms > IDLE_MS ? 1 : s->grow;
    if (s->grow > block)
        s->grow = block;
    return need > s->grow ? need : s->grow;
}

/* What was given to those that waited is not used yet. */
static bool is_settling(const struct fleet_slot *s, uint64_t now_ms)
{
    return (int32_t)(atomic_load(&s->entered) - s->expected) < 0 &&
           now_ms < s->grown_ms + SETTLE_MS;
}

/* What of a row is not in use, and not to be kept, is no longer held. */
static uint32_t keep_of(struct fleet_holder *h, uint32_t row, uint32_t used, uint32_t need,
                        uint64_t now_ms)
{
    struct fleet_slot *s = &h->page->row[row];
    const uint32_t held = fleet_slot_held(s),
                   spare = fleet_slots_spare(h->page, atomic_load(&s->limit));
    if (used || need || !s->used_ms)
        s->used_ms = now_ms;
    const uint32_t keep = now_ms > s->used_ms + IDLE_MS ? used : used + spare;
    if (held < used || (!need && held > keep && !is_settling(s, now_ms)))
        return fleet_slot_lower(&h->caller, h->page, row, keep < held ? keep : held);
    return held;
}

static bool is_over(const struct fleet_slot *s, uint64_t now_ms)
{
    return !atomic_load(&s->word) && s->reported == 0 && !atomic_load(&s->need) &&
           !atomic_load(&s->due) && now_ms > s->used_ms + IDLE_MS;
}

/* Those that wait look themselves. */
static void wake(struct fleet_slot *s, uint64_t workers[2])
{
    atomic_store(&s->requested, 0);
    atomic_fetch_add(&s->answers, 1);
    for (unsigned i = 0; i < 2; i++)
        workers[i] |= atomic_exchange(&s->waiting[i], 0);
}

static bool is_waited_for(const struct fleet_slot *s)
{
    return atomic_load(&s->waiting[0]) || atomic_load(&s->waiting[1]);
}

static bool is_in_call(const struct fleet_holder *h, uint32_t row)
{
    for (int i = 0; i < h->n; i++)
        if (h->row[i].row == row)
            return true;
    return false;
}

static void look_at(struct fleet_holder *h, uint32_t row, uint64_t now_ms)
{
    struct fleet_slot *s = &h->page->row[row];
    if (is_in_call(h, row))
        return; /* it is looked at behind the call */
    atomic_store(&s->due, 0);
    if (!atomic_load(&s->id))
        return;
    if (is_over(s, now_ms)) {
        fleet_slot_free(&h->caller, h->page, row);
        return;
    }
    const bool comes = fleet_slots_come(h->page, now_ms);
    const uint32_t need = comes ? atomic_exchange(&s->need, 0) : 0,
                   used = fleet_slot_in_use(&h->caller, h->page, row),
                   have = keep_of(h, row, used, need, now_ms);
    const uint32_t vacant = have > used ? have - used : 0;
    struct row_terms t = {.row = row, .have = have};
    if (need > vacant)
        t.want = wanted(h, s, need - vacant, now_ms);
    if (t.want || have != s->reported)
        h->row[h->n++] = t;
    else if (need || (comes && is_waited_for(s)))
        wake(s, h->woken);
}

/* At each turn a part of all rows, and of those that are still to be reported as many as there is room
 * for. */
static void look_around(struct fleet_holder *h, uint32_t *from, int rows, uint64_t now_ms)
{
    uint32_t row = *from;
    while (rows-- && h->n < BATCH && fleet_slot_each(h->page, &row))
        look_at(h, row++, now_ms);
    *from = fleet_slot_each(h->page, &row) ? row : ROWS;
}

static void collect(struct fleet_holder *h, uint64_t now_ms)
{
    uint32_t row, before[BATCH];
    const int n_before = h->n;
    for (int i = 0; i < n_before; i++)
        before[i] = h->row[i].row;
    h->n = 0;
    for (int i = 0; i < n_before; i++) /* of the last call */
        if (atomic_load(&h->page->row[before[i]].due))
            look_at(h, before[i], now_ms);
    for (unsigned k = 0; k < FLEET_SLOT_QUEUES; k++) {
        const unsigned queue = (h->turn + k) % FLEET_SLOT_QUEUES;
        while (h->n < BATCH && fleet_slot_next(h->page, queue, &row))
            look_at(h, row, now_ms);
    }
    h->turn = (h->turn + 1) % FLEET_SLOT_QUEUES;
    if (h->unreported < ROWS)
        look_around(h, &h->unreported, BATCH, now_ms);
    else if (h->looked < ROWS)
        look_around(h, &h->looked, LOOK_ROWS, now_ms);
}

/* ---- calls ---- */

static void wake_workers(struct fleet_holder *h)
{
    for (unsigned i = 0; i < PROC_WORKER_SLOTS; i++)
        if (h->woken[i / 64] >> i % 64 & 1)
            shared_wake_worker(h->shared, i);
    memset(h->woken, 0, sizeof h->woken);
}

static void grant(struct fleet_holder *h, const struct row_terms *t, uint32_t n, uint64_t now_ms)
{
    struct fleet_slot *s = &h->page->row[t->row];
    const uint32_t entered = atomic_load(&s->entered);
    s->expected = ((int32_t)(s->expected - entered) > 0 ? s->expected : entered) + n;
    s->grown_ms = now_ms;
    atomic_store(&s->refused_until_ms, 0);
    fleet_slot_raise(h->page, t->row, n);
    atomic_fetch_add(&h->page->taken, n);
}

/* "GRANTED LEFT" */
static bool put(struct fleet_holder *h, const struct row_terms *t, const redisReply *r,
                uint64_t now_ms)
{
    struct fleet_slot *s = &h->page->row[t->row];
    uint64_t granted, left;
    if (r->type != REDIS_REPLY_STRING ||
        sscanf(r->str, "%" SCNu64 " %" SCNu64, &granted, &left) != 2 || granted > t->want)
        return false;
    s->reported = t->have + (uint32_t)granted;
    if (granted) {
        grant(h, t, (uint32_t)granted, now_ms);
    } else if (t->want && fleet_slot_in_use(&h->caller, h->page, t->row) >= t->have) {
        /* else those that wait find a place that was left meanwhile */
        atomic_store(&s->refused_until_ms, now_ms + FLEET_SLOTS_REFUSED_MS);
        atomic_fetch_add(&h->page->refused, 1);
    }
    return true;
}

static void on_taken(void *arg, const redisReply *r)
{
    struct fleet_holder *h = arg;
    uint64_t epoch = 0;
    const uint64_t now_ms = clock_mono_ms();
    bool good = r && r->type == REDIS_REPLY_ARRAY && number_at(r, 0, &epoch) && epoch == h->epoch &&
                r->elements == (size_t)h->n + 1;
    h->is_calling = false;
    for (int i = 0; i < h->n; i++) {
        struct fleet_slot *s = &h->page->row[h->row[i].row];
        good = good && put(h, &h->row[i], r->element[i + 1], now_ms);
        if (!good)
            s->reported = FLEET_SLOT_UNREPORTED;
        wake(s, h->woken);
    }
    wake_workers(h);
    if (!good)
        lose(h);
    else
        fleet_holder_take(h);
}

static bool call_take(struct fleet_holder *h)
{
    static char terms[BATCH][96];
    const char *argv[4 + 3 + BATCH];
    char epoch_text[24], hosts[16];
    int n = 0;
    snprintf(epoch_text, sizeof epoch_text, "%" PRIu64, h->epoch);
    snprintf(hosts, sizeof hosts, "%" PRIu32, atomic_load(&h->page->hosts));
    argv[n++] = h->epoch_key;
    argv[n++] = h->holders_key;
    argv[n++] = h->all_key;
    argv[n++] = h->of_key;
    argv[n++] = epoch_text;
    argv[n++] = h->id;
    argv[n++] = hosts;
    for (int i = 0; i < h->n; i++) {
        const struct row_terms *t = &h->row[i];
        const struct fleet_slot *s = &h->page->row[t->row];
        snprintf(terms[i], sizeof terms[i],
                 "%016" PRIx64 "%016" PRIx64 " %" PRIu32 " %" PRIu32 " %" PRIu32,
                 atomic_load(&s->hash), atomic_load(&s->id), t->have, t->want,
                 atomic_load(&s->limit));
        argv[n++] = terms[i];
    }
    return fleet_run(h->fleet, FLEET_SCRIPT_SLOTS_TAKE, 4, n, argv, on_taken, h);
}

void fleet_holder_take(struct fleet_holder *h)
{
    while (!h->is_calling && h->epoch && h->epoch == fleet_epoch(h->fleet) &&
           fleet_slots_last(h->page, clock_mono_ms())) {
        collect(h, clock_mono_ms());
        wake_workers(h);
        if (!h->n)
            return;
        atomic_fetch_add(&h->page->calls, 1);
        h->is_calling = true;
        if (!call_take(h))
            on_taken(h, NULL);
    }
}

/* ---- life ---- */

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct fleet_holder *h = w->data;
    (void)loop, (void)revents;
    if (!h->wanted)
        return;
    if (fleet_epoch(h->fleet) != h->epoch)
        lose(h);
    if (h->counts != atomic_load(&h->page->counts)) {
        h->counts = atomic_load(&h->page->counts);
        report_all(h);
    }
    if (!h->renew_sent_ms && clock_mono_ms() >= h->renewed_ms + (h->epoch ? RENEW_MS : 0))
        renew(h);
    if (h->looked >= ROWS)
        h->looked = 0;
    fleet_holder_take(h);
}

void fleet_holder_use(struct fleet_holder *h, bool wanted, bool websockets, uint32_t keep_ms)
{
    if (h->wanted && !wanted)
        lose(h);
    h->wanted = wanted;
    h->websockets = websockets;
    h->keep_ms = keep_ms;
}

struct fleet_holder *fleet_holder_new(struct ev_loop *loop, struct fleet *fleet,
                                      const struct config_fleet *config, struct shared *shared,
                                      const struct limit_caller *caller)
{
    struct fleet_holder *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->loop = loop;
    h->fleet = fleet;
    h->config = config;
    h->shared = shared;
    h->page = shared->fleet_slots;
    h->caller = *caller;
    h->keep_ms = config->slots_keep_ms;
    uint64_t run = atomic_load(&h->page->run);
    while (!run)
        random_fill(&run, sizeof run);
    atomic_store(&h->page->run, run);
    snprintf(h->instance, sizeof h->instance, "%" PRIx64, atomic_load(&shared->fleet->instance));
    snprintf(h->id, sizeof h->id, "%s-%" PRIx64, h->instance, run);
    snprintf(h->epoch_key, sizeof h->epoch_key, "polder:{%s}:epoch", config->name);
    ev_timer_init(&h->timer, on_timer, 0., LOOK_MS / 1000.);
    h->timer.data = h;
    ev_timer_start(loop, &h->timer);
    return h;
}

void fleet_holder_free(struct fleet_holder *h)
{
    if (!h)
        return;
    ev_timer_stop(h->loop, &h->timer);
    lose(h);
    free(h);
}

void fleet_slots_view(struct shared *shared, uint64_t of, struct fleet_slots_view *out)
{
    const struct limit_caller caller = {.table = shared->limits, .proc = shared->proc};
    struct fleet_slots *p = shared->fleet_slots;
    const uint64_t now_ms = clock_mono_ms(), end_ms = atomic_load(&p->end_ms);
    *out = (struct fleet_slots_view){.comes = fleet_slots_come(p, now_ms),
                                     .left_ms = end_ms > now_ms ? end_ms - now_ms : 0};
    for (uint32_t row = 0; fleet_slot_each(p, &row); row++) {
        const enum fleet_slot_kind kind = fleet_slot_kind_of(row);
        if (of && atomic_load(&p->row[row].of) != of)
            continue;
        out->keys++;
        out->held[kind] += fleet_slot_held(&p->row[row]);
        out->used[kind] += fleet_slot_in_use(&caller, p, row);
    }
}
#undef LEASE_TEXT
