/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limits: a request is charged to all limits of its route, or to none, before anything else is done
 * for it (a hit counts too); and its client gets RateLimit fields (IETF draft).
 *
 * Keys: the parts joined by 0x1f; an address is its 16 bytes (IPv6: the /64), parameters and
 * cookies are decoded, everything else is the value as received.
 */
#include "daemons/worker/request/limits_fleet.h"
#include "daemons/worker/request/limits_slots.h"
#include "daemons/http/h1.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/message/cors.h"
#include "daemons/worker/message/key_text.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "polder/clientip.h"
#include "polder/exempt.h"
#include "polder/field.h"
#include "polder/limit_top.h"
#include "polder/limitkey.h"
#include "polder/stats.h"
#include "polder/verify.h"

#include <errno.h>
#include <string.h>

#define EXEMPT UINT64_C(0)

/* ---- keys ---- */

static bool exempt(const struct worker *w, const struct request *r, const struct config_limit *l,
                   const char *text, size_t len)
{
    const struct exempt *list = w->limits->state[l->index].exempt;
    if (list)
        return exempt_has(list, &r->ip, text, len);
    if (l->n_exempt_nets && clientip_in(&r->ip, l->exempt_nets, l->n_exempt_nets))
        return true;
    for (uint32_t i = 0; i < l->n_exempt_values; i++)
        if (strlen(l->exempt_values[i]) == len && !memcmp(l->exempt_values[i], text, len))
            return true;
    return false;
}

/* The hashed key; EXEMPT: not charged; -ENOENT: as above. */
static int key_of(struct worker *w, const struct request *r, const struct config_limit *l,
                  uint64_t *key)
{
    char text[KEY_TEXT_MAX];
    const int len = key_text_of_limit(r, l, text);
    *key = EXEMPT;
    if (len < 0)
        return len == -ENODATA ? 0 : len;
    if (!exempt(w, r, l, text, (size_t)len)) {
        *key = limit_key(w->shared->limits, l->id, text, (size_t)len);
        if (r->probe) /* counted apart, separately in each run */
            *key = *key == r->probe_run ? 1 : *key ^ r->probe_run;
    }
    return 0;
}

/* ---- what the client is told ---- */

static uint64_t seconds_up(uint64_t ms)
{
    return (ms + 999) / 1000;
}

static void put_legacy(struct h1_out *o, const struct runtime_limit *v,
                       const struct limit_verdict *verdict)
{
    h1_puts(o, "X-RateLimit-Limit: ");
    h1_put_u64(o, v->requests);
    h1_puts(o, "\r\nX-RateLimit-Remaining: ");
    h1_put_u64(o, verdict->remaining);
    h1_puts(o, "\r\nX-RateLimit-Reset: ");
    h1_put_u64(o, seconds_up(verdict->reset_ms));
    h1_puts(o, "\r\n");
}

/* RateLimit-Policy and RateLimit, a member a limit; the older fields for the first that wants them.
 */
static void put_lists(struct worker *w, const struct charged *ch, struct h1_out *o)
{
    const struct limit_verdict *legacy = NULL;
    const struct runtime_limit *legacy_limit = NULL;
    for (int kind = 0; kind < 2; kind++) {
        bool first = true;
        for (size_t i = 0; i < ch->n; i++) {
            if (ch->charge[i].limit->dry_run) /* it never refuses: not shown to clients */
                continue;
            const struct limit_state *s = &w->limits->state[ch->limit[i]->index];
            if (first)
                h1_puts(o, kind ? "RateLimit: " : "RateLimit-Policy: ");
            else
                h1_puts(o, ", ");
            first = false;
            if (kind == 0) {
                h1_put(o, s->policy, s->policy_len);
                continue;
            }
            h1_put(o, s->name, s->name_len);
            h1_puts(o, ";r=");
            h1_put_u64(o, ch->verdict[i].remaining);
            h1_puts(o, ";t=");
            h1_put_u64(o, seconds_up(ch->verdict[i].reset_ms));
            if (ch->limit[i]->legacy_headers && !legacy) {
                legacy = &ch->verdict[i];
                legacy_limit = ch->charge[i].limit;
            }
        }
        if (!first)
            h1_puts(o, "\r\n");
    }
    if (legacy)
        put_legacy(o, legacy_limit, legacy);
}

/* The same for one limit, as most routes have it. */
static void put_alone(struct h1_out *o, const struct limit_state *s, const struct limit_verdict *v)
{
    h1_put(o, s->alone, s->alone_len);
    h1_put_u64(o, v->remaining);
    h1_put(o, ";t=", 3);
    h1_put_u64(o, seconds_up(v->reset_ms));
    h1_put(o, "\r\n", 2);
}

static void put_lines(struct worker *w, const struct charged *ch, struct limit_answer *answer)
{
    struct h1_out o = {w->limits->text, w->limits->text + sizeof w->limits->text, false};
    if (ch->n == 1 && !ch->charge[0].limit->dry_run && !ch->limit[0]->legacy_headers) {
        put_alone(&o, &w->limits->state[ch->limit[0]->index], &ch->verdict[0]);
        answer->lines = w->limits->text;
        answer->len = (uint32_t)(o.at - w->limits->text);
        return;
    }
    put_lists(w, ch, &o);
    answer->lines = w->limits->text;
    answer->len = o.overflow ? 0 : (uint32_t)(o.at - w->limits->text);
}

static void refuse(struct worker *w, const struct charged *ch, struct limit_answer *answer)
{
    struct h1_out o = {answer->violated, answer->violated + sizeof answer->violated - 2, false};
    uint64_t retry_ms = 1;
    bool first = true;
    answer->refused = true;
    h1_puts(&o, ",\"violated-policies\":[");
    for (size_t i = 0; i < ch->n; i++) {
        const struct limit_verdict *v = &ch->verdict[i];
        if (v->admitted || ch->charge[i].limit->dry_run)
            continue;
        const struct limit_state *s = &w->limits->state[ch->limit[i]->index];
        if (first)
            answer->refused_by = ch->limit[i]->name;
        else
            h1_puts(&o, ",");
        h1_put(&o, s->name, s->name_len);
        first = false;
        if (v->retry_ms > retry_ms)
            retry_ms = v->retry_ms;
    }
    strcpy(o.at, "]");
    if (o.overflow)
        answer->violated[0] = 0;
    answer->retry_s = (uint32_t)seconds_up(retry_ms);
}

static struct stats_limit_row *limit_stats(const struct worker *w, const struct config_limit *l)
{
    return &w->stats->limit[w->limits->state[l->index].stats_row];
}

static void count(struct worker *w, const struct charged *ch, bool admitted)
{
    stats_add(w->stats, STATS_LIMIT_CHECKS, ch->n);
    for (size_t i = 0; i < ch->n; i++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign) */
        const bool dry = ch->charge[i].limit->dry_run, ok = ch->verdict[i].admitted;
        struct stats_limit_row *row = limit_stats(w, ch->limit[i]);
        stats_bump(&row->checked, 1);
        if (!ok && dry) {
            stats_bump(&row->dry_refused, 1);
            stats_add(w->stats, STATS_LIMIT_DRY_REFUSED, 1);
        } else if (!ok) {
            stats_bump(&row->refused, 1);
        } else if (admitted) {
            stats_bump(&row->admitted, 1);
        }
    }
    if (!admitted)
        stats_add(w->stats, STATS_LIMIT_REFUSED, 1);
}

/* The remaining quota, without charging. A request refused already may be over this limit, too.
 */
static void look(struct worker *w, struct charged *ch)
{
    for (size_t i = 0; i < ch->n; i++) {
        const bool inside = ch->verdict[i].admitted;
        limit_peek(&w->limit_caller, &ch->charge[i], w->mono_ms, &ch->verdict[i]);
        ch->verdict[i].admitted = ch->verdict[i].admitted && inside;
    }
}

enum entered { ENTERED, NO_ROOM, WAITS };

static enum entered enter_one(struct worker *w, const struct request *r, struct charged *ch,
                              size_t i, bool known, struct limit_bill *bill)
{
    static const enum entered of[] = {[LIMITS_SLOTS_ENTERED] = ENTERED,
                                      [LIMITS_SLOTS_REFUSES] = NO_ROOM,
                                      [LIMITS_SLOTS_WAITS] = WAITS};
    const struct runtime_limit *l = ch->charge[i].limit;
    struct client *c = r->client;
    if (ch->limit[i]->scope == CONFIG_SCOPE_FLEET && !r->probe)
        return of[limits_slots_enter(w, r, ch->limit[i], l, known, bill)];
    if (!limit_enter(&w->limit_caller, ch->charge[i].key, l->concurrent))
        return NO_ROOM;
    c->inside[c->n_inside++] = ch->charge[i].key;
    return ENTERED;
}

static void no_room(struct worker *w, const struct charged *ch, size_t i)
{
    struct stats_limit_row *row = limit_stats(w, ch->limit[i]);
    if (!ch->charge[i].limit->dry_run) {
        stats_bump(&row->refused, 1);
        return;
    }
    stats_bump(&row->dry_refused, 1);
    stats_add(w->stats, STATS_LIMIT_DRY_REFUSED, 1);
}

static void refuse_entry(struct worker *w, struct charged *ch, struct limit_answer *answer)
{
    for (size_t i = 0; i < ch->n; i++)
        stats_bump(&limit_stats(w, ch->limit[i])->checked, 1);
    stats_add(w->stats, STATS_LIMIT_CHECKS, ch->n);
    stats_add(w->stats, STATS_LIMIT_REFUSED, 1);
    look(w, ch);
    put_lines(w, ch, answer);
    refuse(w, ch, answer);
}

/* Takes a place among the requests under way, for all limits that bound them or for none. What is
 * refused here has not been charged. */
static bool enter(struct worker *w, const struct request *r, struct charged *ch, bool known,
                  struct limit_bill *bill)
{
    enum entered result = ENTERED;
    for (size_t i = 0; i < ch->n && result != WAITS; i++) {
        ch->verdict[i] = (struct limit_verdict){.admitted = true};
        if (!ch->charge[i].limit->concurrent)
            continue;
        const enum entered one = enter_one(w, r, ch, i, known, bill);
        ch->verdict[i].admitted = one == ENTERED;
        if (one == NO_ROOM)
            no_room(w, ch, i);
        if (one == WAITS || (one == NO_ROOM && !ch->charge[i].limit->dry_run))
            result = one;
    }
    if (result == ENTERED)
        return true;
    client_leave_limits(r->client);
    if (result == NO_ROOM) {
        refuse_entry(w, ch, &bill->answer);
        return false;
    }
    bill->paid = false;
    bill->waits = true;
    return false;
}

/* For `limit top`: each request while there are few, then one in some. */
static void note_top(struct worker *w, const struct request *r, const struct charged *ch)
{
    char text[KEY_TEXT_MAX];
    for (size_t i = 0; i < ch->n; i++) {
        const int len = key_text_of_limit(r, ch->limit[i], text);
        const struct limit_top_list list = {ch->limit[i]->index, ch->limit[i]->id};
        if (len >= 0)
            limit_top_note(&w->limit_caller, list, ch->charge[i].key, text, (size_t)len,
                           !ch->verdict[i].admitted, w->limits->top.weight, w->mono_ms);
    }
}

static bool another_refuses(const struct charged *ch, size_t i)
{
    for (size_t k = 0; k < ch->n; k++)
        if (k != i && !ch->verdict[k].admitted && !ch->charge[k].limit->dry_run)
            return true;
    return false;
}

/* A request that another limit refuses is charged to neither. */
static void charge_shadows(struct worker *w, const struct request *r, const struct charged *ch)
{
    const struct config_route *route = r->route;
    size_t k = 0; /* of those that are charged, in the same order */
    for (uint32_t i = 0; i < route->n_limits; i++) {
        const bool charged = k < ch->n && ch->limit[k] == route->limits[i];
        if (!another_refuses(ch, charged ? k : ch->n))
            limit_shadow_charge(w, r, route->limits[i], charged ? ch->charge[k].key : EXEMPT,
                                !charged || ch->verdict[k].admitted);
        k += charged;
    }
}

static bool bounds_concurrency(const struct charged *ch)
{
    for (size_t i = 0; i < ch->n; i++)
        if (ch->charge[i].limit->concurrent)
            return true;
    return false;
}

/* What the request is charged. False: it lacks a key, and that means refusal. */
static bool collect(struct worker *w, const struct request *r, uint64_t *keys, bool known,
                    struct charged *ch)
{
    const struct config_route *route = r->route;
    ch->n = 0;
    if (r->probe && r->probe != VERIFY_LIMIT)
        return true;
    const bool preflight = r->head && route->n_limits && cors_is_preflight(r->head);
    for (uint32_t i = 0; i < route->n_limits; i++) {
        const struct config_limit *l = route->limits[i];
        if (preflight && !l->preflights)
            continue;
        if (!known && key_of(w, r, l, &keys[i]) < 0)
            return false;
        if (keys[i] == EXEMPT)
            continue;
        ch->limit[ch->n] = l;
        ch->verdict[ch->n] = (struct limit_verdict){0};
        ch->charge[ch->n++] = (struct limit_charge){
            .key = keys[i], .limit = &w->runtime.limit[l->index], .cost = route->cost};
    }
    return true;
}

void limits_tell(struct worker *w, const struct request *r, struct limit_answer *answer)
{
    uint64_t keys[CONFIG_ROUTE_LIMITS_MAX];
    struct charged ch;
    *answer = (struct limit_answer){.lines = ""};
    if (!collect(w, r, keys, false, &ch) || !ch.n)
        return;
    look(w, &ch);
    put_lines(w, &ch, answer);
}

/* False: a limit of the fleet refuses, or the request has to wait. */
static __attribute__((noinline)) bool take_fleet(struct worker *w, const struct request *r,
                                                 bool known, struct charged *ch,
                                                 struct limit_bill *bill, struct fleet_bill *fb)
{
    switch (limits_fleet_take(w, r, ch, known, bill, fb)) {
    case LIMITS_FLEET_WAITS:
        bill->paid = false;
        bill->waits = true;
        return false;
    case LIMITS_FLEET_REFUSES:
        limits_fleet_look(w, ch, fb);
        count(w, ch, false);
        put_lines(w, ch, &bill->answer);
        refuse(w, ch, &bill->answer);
        return false;
    default:
        return true;
    }
}

static bool charge(struct worker *w, struct charged *ch, struct fleet_bill *fb)
{
    return fb ? limits_fleet_charge(w, ch, fb)
              : limit_charge(&w->limit_caller, ch->charge, ch->n, w->mono_ms, ch->verdict);
}

/* For one that takes what the fleet has granted already, where fb is not NULL. */
static void charge_all(struct worker *w, const struct request *r, struct charged *ch, bool known,
                       struct fleet_bill *fb, struct limit_bill *bill)
{
    struct limit_answer *answer = &bill->answer;
    if (bounds_concurrency(ch) && !enter(w, r, ch, known, bill)) {
        if (fb)
            limits_fleet_return(w, ch, fb);
        return;
    }
    const bool admitted = charge(w, ch, fb);
    count(w, ch, admitted);
    put_lines(w, ch, answer);
    if (!admitted)
        refuse(w, ch, answer); /* its answer leaves again */
}

void limits_charge(struct worker *w, const struct request *r, uint64_t *keys, bool known,
                   struct limit_bill *bill)
{
    struct limit_answer *answer = &bill->answer;
    struct charged ch;
    struct fleet_bill fb;
    bill->paid = true;
    answer->lines = "";
    answer->len = 0;
    answer->refused = answer->no_key = !collect(w, r, keys, known, &ch);
    if (answer->refused)
        return;
    const bool of_fleet = ch.n && __builtin_expect(r->route->has_fleet_limits, 0) && !r->probe;
    if (ch.n && (!of_fleet || take_fleet(w, r, known, &ch, bill, &fb)))
        charge_all(w, r, &ch, known, of_fleet ? &fb : NULL, bill);
    if (r->probe || bill->waits)
        return;
    if (__builtin_expect(w->limits->n_shadows, 0))
        charge_shadows(w, r, &ch);
    if (ch.n && (bill->top_due || (!known && limit_top_due(&w->limits->top))))
        note_top(w, r, &ch);
}
