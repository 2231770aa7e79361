/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit_shadow: candidates (limit try) are charged like the limits of that name, under keys of
 * their own, and never refuse. Without a candidate none of this is called.
 */
#include "daemons/worker/request/limits.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/message/key_text.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "polder/limit_top.h"

#include <errno.h>

static const struct config_limit *limit_by_id(const struct config *config, uint64_t id)
{
    for (uint32_t i = 0; i < config->n_limits; i++)
        if (config->limits[i].id == id)
            return &config->limits[i];
    return NULL; /* this configuration has it no more */
}

void limit_shadow_read(struct worker *w)
{
    struct limit_try_board *board = w->shared->shadow_limits;
    w->limits->n_shadows = 0;
    for (uint32_t i = 0; board && i < LIMIT_TRY_SLOTS; i++) {
        struct limit_shadow *t = &w->limits->shadows[w->limits->n_shadows];
        t->slot = &board->slot[i];
        t->run = limit_try_read(t->slot, w->mono_ms, &t->terms);
        const struct config_limit *l = t->run ? limit_by_id(w->config, t->terms.limit_id) : NULL;
        if (!l)
            continue;
        t->limit = l->index;
        t->list = (struct limit_top_list){LIMIT_TOP_TRY + i, 0};
        w->limits->n_shadows++;
    }
}

static struct limit_shadow *try_of(struct worker *w, const struct config_limit *l)
{
    for (uint32_t i = 0; i < w->limits->n_shadows; i++)
        if (w->limits->shadows[i].limit == l->index &&
            w->mono_ms < w->limits->shadows[i].terms.until_ms)
            return &w->limits->shadows[i];
    return NULL;
}

/* A place among the requests under way. A client remembers eight of them; those of one request more
 * than that are not bounded. */
static bool try_enter(struct worker *w, struct client *c, const struct limit_charge *candidate)
{
    if (!candidate->limit->concurrent || c->n_inside == CONFIG_ROUTE_LIMITS_MAX)
        return true;
    if (!limit_enter(&w->limit_caller, candidate->key, candidate->limit->concurrent))
        return false;
    c->inside[c->n_inside++] = candidate->key;
    return true;
}

static bool try_admits(struct worker *w, struct client *c, const struct limit_charge *candidate)
{
    struct limit_verdict verdict;
    const uint8_t before = c->n_inside;
    if (!try_enter(w, c, candidate))
        return false;
    const bool admitted = limit_charge(&w->limit_caller, candidate, 1, w->mono_ms, &verdict);
    if (!admitted && c->n_inside > before) /* refused, it would be over by now */
        limit_leave(&w->limit_caller, c->inside[--c->n_inside]);
    return admitted;
}

static void try_note(struct worker *w, const struct request *r, const struct config_limit *l,
                     const struct limit_shadow *t, uint64_t key)
{
    char who[KEY_TEXT_MAX];
    const int len = key_text_of_limit(r, l, who);
    if (len >= 0)
        limit_top_note(&w->limit_caller, t->list, key, who, (size_t)len, true, 1,
                       t->terms.started_ms);
}

/* Does the candidate's own list exempt the request? *key: the key for clients that the limit itself
 * exempts; stays 0 if neither of them counts the request. */
static bool try_exempts(struct worker *w, const struct request *r, const struct config_limit *l,
                        const struct limit_shadow *t, uint64_t *key)
{
    char who[KEY_TEXT_MAX];
    const int len = t->terms.exempts ? key_text_of_limit(r, l, who) : -ENODATA;
    if (len < 0)
        return false;
    const bool exempt = exempt_has(&t->terms.exempt, &r->ip, who, (size_t)len);
    if (!*key && !exempt)
        *key = limit_key(w->shared->limits, l->id, who, (size_t)len);
    return exempt;
}

void limit_shadow_charge(struct worker *w, const struct request *r, const struct config_limit *l,
                         uint64_t key, bool admitted)
{
    struct limit_shadow *t = try_of(w, l);
    if (!t)
        return;
    const bool exempt = try_exempts(w, r, l, t, &key);
    if (!key)
        return;
    const struct limit_charge candidate = {.key = limit_try_key(w->shared->limits, t->run, key),
                                           .limit = &t->terms.candidate,
                                           .cost = r->route->cost};
    const bool refused = !exempt && !try_admits(w, r->client, &candidate);
    const struct limit_try_counts more = {1, !admitted, refused};
    if (limit_try_add(t->slot, t->run, w->limit_caller.slot, &more) && refused)
        try_note(w, r, l, t, candidate.key);
}
