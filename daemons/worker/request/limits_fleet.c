/* SPDX-License-Identifier: BSD-2-Clause */
/* limits_fleet: see limits_fleet.h. */
#include "daemons/worker/request/limits_fleet.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/message/key_text.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "polder/clock.h"
#include "polder/shared.h"

#include <string.h>

#define ANY_NUMBER    UINT32_MAX /* the store is not asked: only `concurrent` counts over the fleet */
#define AGAIN_MS      1000       /* when a client may ask again */
#define SLIDING_MAX   65535
#define SHARE_OF_HOST UINT64_C(0x5bd1e9955bd1e995) /* in keys: apart from the limit's own counts */

static struct fleet_grants *grants_of(const struct worker *w)
{
    return w->shared->fleet_grants;
}

/* Of other terms, after a change: what was refused under the former ones is asked for again. */
static uint64_t grant_key(const struct limit_charge *charge)
{
    const struct runtime_limit *l = charge->limit;
    return charge->key ^
           (((uint64_t)l->requests << 2 | l->algorithm) * UINT64_C(0x9e3779b97f4a7c15) +
            l->window_ms * UINT64_C(0xc2b2ae3d27d4eb4f));
}

/* ---- one limit ---- */

static void ask_store(struct worker *w, const struct request *r, const struct config_limit *l,
                      const struct limit_charge *charge, uint64_t now_ms)
{
    char text[KEY_TEXT_MAX];
    const int len = key_text_of_limit(r, l, text);
    struct fleet_want ask = {.key = grant_key(charge),
                             .window_ms = charge->limit->window_ms,
                             .requests = charge->limit->requests,
                             .algorithm = charge->limit->algorithm,
                             .cost = charge->cost,
                             .limit = l->index};
    if (len < 0)
        return;
    struct limit_verdict own;
    limit_peek(&w->limit_caller, charge, now_ms, &own);
    if (own.remaining < ask.requests)
        ask.had = ask.requests - own.remaining;
    fleet_grants_hash(w->limits->waiters.secret, l->id, text, (size_t)len, ask.hash);
    if (fleet_grant_ask(grants_of(w), w->number, &ask, now_ms))
        shared_wake_control(w->shared);
}

static bool share_admits(struct worker *w, const struct limit_charge *charge, uint64_t now_ms,
                         struct limit_verdict *v)
{
    uint64_t wait_ms;
    const struct fleet_terms terms = {.window_ms = charge->limit->window_ms,
                                      .requests = charge->limit->requests,
                                      .algorithm = charge->limit->algorithm};
    const uint32_t n = fleet_share_of(grants_of(w), &terms, now_ms, &wait_ms);
    const struct runtime_limit part = {.requests = n < SLIDING_MAX ? n : SLIDING_MAX,
                                       .algorithm = RUNTIME_SLIDING,
                                       .window_ms = charge->limit->window_ms};
    const struct limit_charge of_share = {
        .key = charge->key ^ SHARE_OF_HOST, .limit = &part, .cost = charge->cost};
    if (n >= charge->cost && of_share.key)
        return limit_charge(&w->limit_caller, &of_share, 1, now_ms, v);
    /* The store may be there again, or answer, long before the share may be used. */
    v->retry_ms = v->reset_ms = wait_ms ? AGAIN_MS : charge->limit->window_ms;
    v->admitted = false;
    return false;
}

/* The store cannot be reached, or does not answer in time. */
static void decide_alone(struct worker *w, const struct config_limit *l,
                         const struct limit_charge *charge, uint64_t now_ms, struct fleet_bill *fb,
                         size_t i)
{
    struct limit_verdict *v = &fb->verdict[i];
    if (l->cut_off == CONFIG_LIMIT_OPEN) {
        fb->open[i] = true;
        v->admitted = true;
    } else if (l->cut_off == CONFIG_LIMIT_CLOSED) {
        *v = (struct limit_verdict){.retry_ms = AGAIN_MS, .reset_ms = AGAIN_MS};
    } else {
        share_admits(w, charge, now_ms, v);
    }
    atomic_fetch_add(v->admitted ? &grants_of(w)->cut_admitted : &grants_of(w)->cut_refused, 1);
}

/* False: it has to wait. */
static bool take_one(struct worker *w, const struct request *r, const struct config_limit *l,
                     const struct limit_charge *charge, bool known, bool last, uint64_t now_ms,
                     struct fleet_bill *fb, size_t i)
{
    struct fleet_grants *g = grants_of(w);
    struct limit_verdict *v = &fb->verdict[i];
    struct fleet_took *took = &fb->took[i];
    *took = fleet_grant_take(g, grant_key(charge), charge->cost, now_ms);
    if (took->result == FLEET_TAKE_NONE) {
        const bool comes = fleet_grants_come(g, now_ms);
        if (comes && !last) {
            if (!known)
                ask_store(w, r, l, charge, now_ms);
            return false;
        }
        if (comes)
            atomic_fetch_add(&g->late, 1);
        decide_alone(w, l, charge, now_ms, fb, i);
        return true;
    }
    if (took->result == FLEET_TAKE_LOW) {
        if (known) {
            fleet_grant_return(g, grant_key(charge), charge->cost, took);
            took->result = FLEET_TAKE_NONE;
            return false;
        }
        if (fleet_grants_come(g, now_ms))
            ask_store(w, r, l, charge, now_ms);
    }
    const uint64_t rest_ms = took->end_ms - now_ms;
    *v = (struct limit_verdict){.admitted = took->result != FLEET_TAKE_REFUSED,
                                .remaining = took->left,
                                .reset_ms = rest_ms,
                                .retry_ms = rest_ms};
    return true;
}

/* ---- all ---- */

void limits_fleet_return(struct worker *w, const struct charged *ch, const struct fleet_bill *fb)
{
    for (size_t i = 0; i < ch->n; i++)
        if (fb->of_fleet[i] &&
            (fb->took[i].result == FLEET_TAKE_DONE || fb->took[i].result == FLEET_TAKE_LOW))
            fleet_grant_return(grants_of(w), grant_key(&ch->charge[i]), ch->charge[i].cost,
                               &fb->took[i]);
}

enum limits_fleet limits_fleet_take(struct worker *w, const struct request *r,
                                    const struct charged *ch, bool known, struct limit_bill *bill,
                                    struct fleet_bill *fb)
{
    const uint64_t now_ms = clock_mono_ms(); /* what has ended must not be used */
    bool refused = false;
    memset(fb, 0, sizeof *fb);
    for (size_t i = 0; i < ch->n; i++) {
        const struct limit_charge *charge = &ch->charge[i];
        if (ch->limit[i]->scope != CONFIG_SCOPE_FLEET || charge->limit->requests == ANY_NUMBER)
            continue;
        fb->of_fleet[i] = true;
        if (!take_one(w, r, ch->limit[i], charge, known, bill->last, now_ms, fb, i)) {
            bill->awaited = grant_key(charge);
            bill->awaited_cost = charge->cost;
            bill->awaits_slot = false;
            bill->awaited_answers = 0;
            limits_fleet_return(w, ch, fb);
            return LIMITS_FLEET_WAITS;
        }
        refused = refused || (!fb->verdict[i].admitted && !charge->limit->dry_run);
    }
    if (refused)
        limits_fleet_return(w, ch, fb);
    return refused ? LIMITS_FLEET_REFUSES : LIMITS_FLEET_ADMITS;
}

bool limits_fleet_charge(struct worker *w, struct charged *ch, struct fleet_bill *fb)
{
    struct runtime_limit warm[CONFIG_ROUTE_LIMITS_MAX];
    const struct runtime_limit *own[CONFIG_ROUTE_LIMITS_MAX];
    for (size_t i = 0; i < ch->n; i++) {
        own[i] = ch->charge[i].limit;
        if (!fb->of_fleet[i] || fb->open[i])
            continue;
        warm[i] = *own[i];
        warm[i].dry_run = 1;
        ch->charge[i].limit = &warm[i];
    }
    const bool admitted =
        limit_charge(&w->limit_caller, ch->charge, ch->n, w->mono_ms, ch->verdict);
    for (size_t i = 0; i < ch->n; i++) {
        ch->charge[i].limit = own[i];
        if (fb->of_fleet[i] && !fb->open[i])
            ch->verdict[i] = fb->verdict[i];
    }
    if (!admitted)
        limits_fleet_return(w, ch, fb);
    return admitted;
}

void limits_fleet_look(struct worker *w, struct charged *ch, const struct fleet_bill *fb)
{
    for (size_t i = 0; i < ch->n; i++)
        if (fb->of_fleet[i] && !fb->open[i])
            ch->verdict[i] = fb->verdict[i];
        else
            limit_peek(&w->limit_caller, &ch->charge[i], w->mono_ms, &ch->verdict[i]);
}
