/* SPDX-License-Identifier: BSD-2-Clause */
/* limits_slots: see limits_slots.h. */
#include "daemons/worker/request/limits_slots.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/message/key_text.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "polder/clock.h"
#include "polder/log.h"
#include "polder/shared.h"

#define OF_SLOTS UINT64_C(0x736c6f74736c6f74) /* in keys: apart from the rates of the same limit */

static struct fleet_slots *slots_of(const struct worker *w)
{
    return w->shared->fleet_slots;
}

static bool key_of(const struct worker *w, const struct request *r, const struct config_limit *l,
                   struct fleet_slot_key *key)
{
    char text[KEY_TEXT_MAX];
    const int len = key_text_of_limit(r, l, text);
    if (len >= 0)
        fleet_grants_hash(w->limits->waiters.secret, l->id ^ OF_SLOTS, text, (size_t)len,
                          key->hash);
    return len >= 0;
}

static bool enter(struct worker *w, struct fleet_slot *s, uint64_t id, uint32_t max)
{
    if (!limit_enter_held(&w->limit_caller, id, max, &s->id, &s->word))
        return false;
    fleet_slot_entered(s);
    return true;
}

/* The store cannot be reached, or does not answer in time. */
static bool enter_alone(struct worker *w, struct fleet_slot *s, uint64_t id,
                        const struct config_limit *l, uint32_t max, uint64_t now_ms)
{
    struct fleet_slots *p = slots_of(w);
    bool admitted = false;
    if (l->cut_off == CONFIG_LIMIT_OPEN)
        admitted = limit_enter(&w->limit_caller, id, max);
    else if (l->cut_off == CONFIG_LIMIT_SHARE && s && fleet_slots_last(p, now_ms))
        admitted = enter(w, s, id, max);
    atomic_fetch_add(admitted ? &p->cut_admitted : &p->cut_refused, 1);
    return admitted;
}

static enum limits_slots decide(struct worker *w, struct fleet_slot *s, uint64_t id,
                                const struct config_limit *l, uint32_t max, struct limit_bill *bill)
{
    struct fleet_slots *p = slots_of(w);
    const uint64_t now_ms = clock_mono_ms(); /* what has ended must not be used */
    const bool comes = fleet_slots_come(p, now_ms);
    if (s && comes && enter(w, s, id, max))
        return LIMITS_SLOTS_ENTERED;
    if (s && comes && (fleet_slot_is_refused(s, now_ms) || fleet_slot_held(s) >= max))
        return LIMITS_SLOTS_REFUSES;
    if (s && comes && !bill->last) {
        bill->awaited_answers = atomic_load(&s->answers);
        if (fleet_slot_ask(p, w->number, s))
            shared_wake_control(w->shared);
        return LIMITS_SLOTS_WAITS;
    }
    if (comes)
        atomic_fetch_add(&p->late, 1);
    return enter_alone(w, s, id, l, max, now_ms) ? LIMITS_SLOTS_ENTERED : LIMITS_SLOTS_REFUSES;
}

enum limits_slots limits_slots_enter(struct worker *w, const struct request *r,
                                     const struct config_limit *l,
                                     const struct runtime_limit *value, bool known,
                                     struct limit_bill *bill)
{
    struct client *c = r->client;
    struct fleet_slot_key key;
    if (known)
        return LIMITS_SLOTS_WAITS;
    if (!key_of(w, r, l, &key))
        return LIMITS_SLOTS_REFUSES;
    struct fleet_slot *s =
        fleet_slot_claim(&w->limit_caller, slots_of(w), &key, l->id, value->concurrent);
    const uint64_t id = fleet_slot_id(&key);
    const enum limits_slots result = decide(w, s, id, l, value->concurrent, bill);
    if (result == LIMITS_SLOTS_WAITS) {
        bill->awaited = id;
        bill->awaits_slot = true;
    }
    if (result == LIMITS_SLOTS_ENTERED) {
        c->inside_fleet |= (uint8_t)(1u << c->n_inside);
        c->inside[c->n_inside++] = id;
    }
    return result;
}

bool limits_slots_is_due(const struct worker *w, uint64_t id, uint32_t answers, uint64_t now_ms)
{
    const struct fleet_slot_key key = {{id, 0}};
    const struct fleet_slot *s = fleet_slot_find(slots_of(w), FLEET_SLOT_REQUEST, &key);
    return !s || !fleet_slots_come(slots_of(w), now_ms) || atomic_load(&s->answers) != answers;
}

/* ---- the end of what is held ---- */

/* Limits that are open do not end anything. */
static bool ends_anything(const struct worker *w)
{
    for (uint32_t i = 0; i < w->config->n_limits; i++) {
        const struct config_limit *l = &w->config->limits[i];
        if (l->scope == CONFIG_SCOPE_FLEET && l->cut_off != CONFIG_LIMIT_OPEN &&
            w->runtime.limit[l->index].concurrent)
            return true;
    }
    return false;
}

void limits_slots_follow(struct worker *w)
{
    uint32_t n = 0;
    if (!fleet_slots_ended(slots_of(w), clock_mono_ms()) || !ends_anything(w))
        return;
    for (struct client *c = LIST_FIRST(&w->clients->all), *next; c; c = next) {
        next = LIST_NEXT(c, entry);
        if (!c->inside_fleet)
            continue;
        c->resets = true;
        c->note.cut = "fleet";
        client_close(c);
        n++;
    }
    if (!n)
        return;
    atomic_fetch_add(&slots_of(w)->ended, n);
    log_warning("limit: %u requests under way were cut: this host has not reached the store of the "
                "fleet for fleet.slots_keep, and others may have their places",
                n);
}
