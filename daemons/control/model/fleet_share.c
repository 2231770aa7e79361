/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_share: see fleet_share.h. */
#include "daemons/control/model/fleet_share.h"
#include "daemons/control/control.h"
#include "daemons/control/model/fleet_bodies.h"
#include "daemons/control/model/fleet_import.h"
#include "daemons/control/model/fleet_calls.h"
#include "daemons/control/model/fleet_object.h"
#include "daemons/control/model/fleet_quick.h"
#include "daemons/control/model/fleet_store.h"
#include "polder/clock.h"
#include "polder/fetch_lock.h"
#include "polder/shared.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#define RENEW_MS      500
#define NO_ROOM_MS    1000 /* so long other hosts do not wait for each other */
#define LOOK_MS       250  /* where the stream is silent */
#define TICK_MS       50
#define VARIANTS_TEXT "64" /* of one URL, the most */
#define QUESTIONS_MAX FETCH_LOCK_SLOTS
#define TRIES         4
#define HELD_MS       200

enum state {
    QUERIED, /* the store's reply is under way */
    WAITING, /* another host fetches it */
    HELD,    /* it is there; entries of the log before it are not here yet, or the ring is full */
    CLAIMED, /* this host does */
    OVER,    /* QUERIED, and what comes of it is of no use any more */
};

struct question {
    TAILQ_ENTRY(question) entry;
    struct fleet_share *share;
    struct fetch_permit permit;
    struct fleet_ask ask;
    struct fleet_object_name name;
    enum state state;
    uint64_t until_ms, look_ms; /* mono */
    uint64_t held_ms;           /* HELD until then, at most; 0: it was not yet */
    uint8_t useless[FLEET_MAC]; /* the object that is there and cannot be used */
    uint8_t tries;
    uint32_t nothing_ms; /* OVER: of struct fleet_end */
    struct fleet_object_of what;
    char text[];
};

struct fleet_share {
    struct control *control;
    struct fleet *fleet;
    struct fleet_key key;
    struct fleet_calls calls;
    struct fleet_quick quick;
    ev_timer timer;
    TAILQ_HEAD(, question) questions;
    uint32_t n;
    struct fleet_bodies *bodies; /* that workers have begun to hand over */
    uint64_t hits, misses, waits, puts, rejected, overtaken, left_out;
};

/* ---- questions ---- */

static bool is_pending(const struct question *q)
{
    return fetch_lock_pending(q->share->control->shared->fetch_locks, &q->permit, clock_mono_ms());
}

static void forget(struct question *q)
{
    struct fleet_share *s = q->share;
    TAILQ_REMOVE(&s->questions, q, entry);
    s->n--;
    free(q);
}

static void set_answer(const struct question *q, enum fleet_share_answer what)
{
    atomic_store(&q->share->control->shared->fleet->shared_answer[q->permit.slot],
                 fleet_share_word(&q->permit, what));
}

static void tell(struct control *c, const struct fetch_permit *permit, uint32_t worker,
                 enum fleet_share_answer what)
{
    static const uint64_t one = 1;
    atomic_store(&c->shared->fleet->shared_answer[permit->slot], fleet_share_word(permit, what));
    const ssize_t n = write(c->shared->worker_event[worker], &one, sizeof one);
    (void)n; /* EAGAIN: it wakes anyway */
}

static void answer(const struct question *q, enum fleet_share_answer what)
{
    tell(q->share->control, &q->permit, q->ask.worker, what);
}

/* ---- what is given to the store ---- */

static void on_put(void *arg, const redisReply *r)
{
    struct fleet_share *s = arg;
    if (r && r->type == REDIS_REPLY_ARRAY)
        s->puts++;
}

static void on_done(void *arg, const redisReply *r)
{
    (void)arg, (void)r; /* the lease of the claim ends by itself */
}

/* e: NULL where there is nothing. claim: that ends. */
static void put(struct fleet_share *s, const struct fleet_object_name *claim,
                const struct fleet_exported *e, uint32_t nothing_ms)
{
    fleet_calls_put(&s->calls, claim, e, nothing_ms, e ? on_put : on_done, s);
}

static void end_claim(struct fleet_share *s, const struct fleet_object_name *name,
                      uint32_t nothing_ms)
{
    put(s, name, NULL, nothing_ms);
}

/* ---- asking the store ---- */

static void on_got(void *arg, const redisReply *r);

static bool run_get(struct question *q, fleet_reply_fn done, void *arg)
{
    return fleet_calls_get(&q->share->calls, &q->name, q->useless, !q->ask.looks, done, arg);
}

static void ask_store(struct question *q)
{
    q->state = QUERIED;
    if (run_get(q, on_got, q))
        return;
    answer(q, FLEET_SHARE_FETCH);
    forget(q);
}

/* Looks again then, or when more of the log is here. False: it has been held for long enough. */
static bool hold(struct question *q, uint64_t look_ms)
{
    const uint64_t now_ms = clock_mono_ms();
    if (!q->held_ms) {
        q->held_ms = now_ms + HELD_MS;
        answer(q, FLEET_SHARE_WAIT);
    }
    q->state = HELD;
    q->look_ms = now_ms + look_ms;
    return now_ms < q->held_ms;
}

static void got_object(struct question *q, const redisReply *r)
{
    struct fleet_share *s = q->share;
    const struct fleet_question what = {q->what, &q->ask, &q->permit, &q->name};
    switch (fleet_import(s->control, s->fleet, &s->key, &what, (const uint8_t *)r->str, r->len)) {
    case FLEET_IMPORT_TAKEN:
        s->hits++;
        answer(q, FLEET_SHARE_COMES);
        forget(q);
        return;
    case FLEET_IMPORT_VARIES:
    case FLEET_IMPORT_STALE:
        answer(q, FLEET_SHARE_COMES);
        forget(q);
        return;
    case FLEET_IMPORT_OLD:
        break;
    case FLEET_IMPORT_AHEAD:
        if (hold(q, HELD_MS))
            return;
        s->overtaken++;
        break;
    case FLEET_IMPORT_OVERTAKEN:
        s->overtaken++;
        break;
    case FLEET_IMPORT_STRANGE:
        s->rejected++;
        fleet_note_strange(s->fleet,
                           "a shared object is damaged, or not signed with this fleet's secret");
        break;
    case FLEET_IMPORT_FULL:
        if (hold(q, TICK_MS))
            return;
        q->tries = TRIES;
        break;
    }
    if (r->len >= FLEET_MAC)
        memcpy(q->useless, r->str + r->len - FLEET_MAC, FLEET_MAC);
    if (r->len >= FLEET_MAC && ++q->tries < TRIES) {
        ask_store(q);
        return;
    }
    answer(q, FLEET_SHARE_FETCH);
    forget(q);
}

static void got_wait(struct question *q, uint64_t left_ms)
{
    const uint64_t now_ms = clock_mono_ms();
    if (!q->until_ms) {
        q->until_ms = now_ms + q->ask.wait_ms;
        q->share->waits++;
        answer(q, FLEET_SHARE_WAIT);
    }
    set_answer(q, FLEET_SHARE_WAIT); /* each time: that this process lives */
    q->state = WAITING;
    q->look_ms = now_ms + (left_ms < LOOK_MS ? left_ms : LOOK_MS);
}

/* What a script says in one letter; 0: it is none of ours. */
static char verdict_of(const redisReply *r)
{
    const bool good = r && r->type == REDIS_REPLY_ARRAY && r->elements &&
                      r->element[0]->type == REDIS_REPLY_STRING && r->element[0]->len == 1;
    const char what = good ? *r->element[0]->str : 0;
    const bool has_more = good && r->elements == 2 && r->element[1]->type == REDIS_REPLY_STRING;
    return (what == 'o' || what == 'w') && !has_more ? 0 : what;
}

static void on_got(void *arg, const redisReply *r)
{
    struct question *q = arg;
    struct fleet_share *s = q->share;
    const char what = verdict_of(r);
    if (q->state == OVER || !is_pending(q)) {
        if (what == 'c')
            end_claim(s, &q->name, q->nothing_ms);
        forget(q);
    } else if (what == 'o') {
        got_object(q, r->element[1]);
    } else if (what == 'w') {
        got_wait(q, strtoull(r->element[1]->str, NULL, 10));
    } else {
        s->misses++;
        answer(q, FLEET_SHARE_FETCH);
        q->state = CLAIMED;
        q->look_ms = clock_mono_ms() + RENEW_MS;
        if (what != 'c')
            forget(q);
    }
}

/* ---- what workers note ---- */

/* NULL: no memory, or too many ask. */
static struct question *question_of(struct fleet_share *s, const struct ring_record *head,
                                    const struct fleet_ask *ask, const char *text)
{
    const uint32_t len = head->len - (uint32_t)sizeof *ask;
    struct question *q =
        fleet_is_member(s->fleet) && s->n < QUESTIONS_MAX ? calloc(1, sizeof *q + len) : NULL;
    if (!q)
        return NULL;
    memcpy(q->text, text, len);
    q->share = s;
    q->permit = head->permit;
    q->ask = *ask;
    const uint32_t before = ask->url_len + ask->partition_len;
    q->what = (struct fleet_object_of){.url = {q->text, ask->url_len},
                                       .partition = {q->text + ask->url_len, ask->partition_len},
                                       .vary = {q->text + before, len - before}};
    fleet_object_name_of(&s->key, &q->what, &q->name);
    TAILQ_INSERT_TAIL(&s->questions, q, entry);
    s->n++;
    return q;
}

static void take_ask(struct fleet_share *s, const struct ring_record *head, const char *payload)
{
    struct fleet_ask ask;
    if (head->len <= sizeof ask || head->permit.slot >= FETCH_LOCK_SLOTS)
        return;
    memcpy(&ask, payload, sizeof ask);
    if (ask.worker >= PROC_WORKER_SLOTS ||
        (uint64_t)ask.url_len + ask.partition_len > head->len - sizeof ask)
        return;
    struct question *q = question_of(s, head, &ask, payload + sizeof ask);
    if (!q) {
        tell(s->control, &head->permit, ask.worker, FLEET_SHARE_FETCH);
        return;
    }
    if (!ev_is_active(&s->timer))
        ev_timer_again(s->control->loop, &s->timer);
    ask_store(q);
}

/* NULL: there is none, or an earlier control has had it; then the lease of its claim ends by itself. */
static struct question *find(const struct fleet_share *s, const struct fetch_permit *permit)
{
    struct question *q;
    TAILQ_FOREACH (q, &s->questions, entry)
        if (permit->word && q->permit.word == permit->word && q->permit.slot == permit->slot &&
            q->state != OVER)
            return q;
    return NULL;
}

/* What comes of it is of no use any more. */
static void end_question(struct question *q, uint32_t nothing_ms)
{
    if (q->state == QUERIED) {
        q->state = OVER;
        q->nothing_ms = nothing_ms;
    } else {
        forget(q);
    }
}

static void take_end(struct fleet_share *s, const struct ring_record *head, const char *payload)
{
    struct fleet_end end;
    struct question *q = find(s, &head->permit);
    if (head->len < sizeof end || !q)
        return;
    memcpy(&end, payload, sizeof end);
    if (q->state == CLAIMED)
        end_claim(s, &q->name, end.nothing_ms);
    end_question(q, end.nothing_ms);
}

static void take_put(struct fleet_share *s, unsigned worker, const struct ring_record *head,
                     const char *payload)
{
    const struct str body = fleet_bodies_get(s->bodies, worker, head);
    struct question *q = find(s, &head->permit);
    struct fleet_exported e;
    fleet_export(s->fleet, &s->key, &(struct fleet_handed){payload, head->len, body}, &e);
    fleet_bodies_drop(s->bodies, worker, head->stream);
    const struct fleet_object_name claim = q ? q->name : e.name;
    const bool has_room = fleet_store_has_room(fleet_link(s->fleet), e.len);
    s->left_out += e.len && !has_room;
    if (e.len && has_room)
        put(s, &claim, &e, 0);
    else if (*claim.hex)
        end_claim(s, &claim, e.len ? NO_ROOM_MS : 0);
    if (q)
        end_question(q, 0);
}

void fleet_share_note(struct fleet_share *s, unsigned worker, const struct ring_record *head,
                      const char *payload)
{
    switch ((enum fleet_share_note)head->flags) {
    case FLEET_SHARE_ASK:
        take_ask(s, head, payload);
        break;
    case FLEET_SHARE_END:
        take_end(s, head, payload);
        break;
    case FLEET_SHARE_CHUNK:
        fleet_bodies_add(s->bodies, worker, head, payload);
        break;
    case FLEET_SHARE_PUT:
        take_put(s, worker, head, payload);
        break;
    }
}

/* ---- time, and other hosts ---- */

void fleet_share_stored(struct fleet_share *s, const char *name)
{
    struct question *next;
    for (struct question *q = TAILQ_FIRST(&s->questions); q; q = next) {
        next = TAILQ_NEXT(q, entry);
        if (q->state == WAITING && !strcmp(q->name.hex, name))
            ask_store(q);
    }
}

void fleet_share_moved(struct fleet_share *s)
{
    struct question *next;
    for (struct question *q = TAILQ_FIRST(&s->questions); q; q = next) {
        next = TAILQ_NEXT(q, entry);
        if (q->state == HELD)
            ask_store(q);
    }
}

static void follow(struct question *q, uint64_t now_ms)
{
    struct fleet_share *s = q->share;
    if (q->state == QUERIED || q->state == OVER)
        return;
    if (!is_pending(q)) { /* its worker has died, or has nothing to say */
        if (q->state == CLAIMED)
            end_claim(s, &q->name, 0);
        forget(q);
    } else if (q->state == CLAIMED) {
        if (now_ms >= q->look_ms && run_get(q, on_done, NULL))
            q->look_ms = now_ms + RENEW_MS;
    } else if (q->state == WAITING && now_ms >= q->until_ms) {
        answer(q, FLEET_SHARE_FETCH);
        forget(q);
    } else if (now_ms >= q->look_ms) {
        ask_store(q);
    }
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct fleet_share *s = w->data;
    struct question *next;
    const uint64_t now_ms = clock_mono_ms();
    (void)revents;
    fleet_take_notes(s->fleet); /* what was fetched is there before its permit is missed */
    for (struct question *q = TAILQ_FIRST(&s->questions); q; q = next) {
        next = TAILQ_NEXT(q, entry);
        follow(q, now_ms);
    }
    if (!s->n)
        ev_timer_stop(loop, w);
}

void fleet_share_renewed(struct fleet_share *s, uint64_t took_ms)
{
    fleet_quick_look(&s->quick, took_ms, clock_mono_ms());
}

void fleet_share_follow(struct fleet_share *s)
{
    const struct config *config = s->control->config;
    uint64_t limit_ms = 0;
    for (uint32_t i = 0; i < config->n_routes; i++) {
        const struct config_cache *cache = config->routes[i].cache;
        if (cache && cache->shared && (!limit_ms || cache->shared_timeout_ms < limit_ms))
            limit_ms = cache->shared_timeout_ms;
    }
    s->quick.limit_ms = limit_ms;
}

/* ---- life ---- */

struct fleet_share *fleet_share_new(struct control *c, struct fleet *f)
{
    struct fleet_share *s = calloc(1, sizeof *s);
    struct fleet_bodies *bodies = fleet_bodies_new();
    if (!s || !bodies) {
        fleet_bodies_free(bodies);
        free(s);
        return NULL;
    }
    s->bodies = bodies;
    s->control = c;
    s->fleet = f;
    TAILQ_INIT(&s->questions);
    fleet_calls_init(&s->calls, f);
    fleet_quick_init(&s->quick, c->shared->fleet);
    fleet_object_key(s->calls.identity.key, &s->key);
    ev_timer_init(&s->timer, on_timer, 0., TICK_MS / 1000.);
    s->timer.data = s;
    fleet_share_follow(s);
    return s;
}

void fleet_share_free(struct fleet_share *s)
{
    struct question *q;
    if (!s)
        return;
    ev_timer_stop(s->control->loop, &s->timer);
    while ((q = TAILQ_FIRST(&s->questions))) {
        answer(q, FLEET_SHARE_FETCH); /* NOLINT(clang-analyzer-unix.Malloc) */
        forget(q);
    }
    fleet_bodies_free(s->bodies);
    free(s);
}

void fleet_share_view(const struct fleet_share *s, struct fleet_share_view *out)
{
    *out = (struct fleet_share_view){
        .shares = s->quick.limit_ms != 0,
        .quick = fleet_quick_is(&s->quick),
        .hits = s->hits,
        .misses = s->misses,
        .waits = s->waits,
        .late = atomic_load(&s->control->shared->fleet->shared_late),
        .puts = s->puts,
        .left_out = s->left_out,
        .rejected = s->rejected,
        .overtaken = s->overtaken,
        .under_way = s->n,
    };
}
