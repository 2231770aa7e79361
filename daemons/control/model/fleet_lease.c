/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_lease: see fleet_lease.h. */
#include "daemons/control/model/fleet_lease.h"
#include "polder/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- connected or not ---- */

static void set_connected(struct fleet_lease *l, uint64_t until_ms, const char *why)
{
    struct fleet_page *page = l->base->page;
    const uint64_t now_ms = clock_mono_ms();
    const bool was = l->connected_before, is = until_ms > now_ms;
    atomic_store(&page->until_ms, until_ms);
    l->connected_before = is;
    if (was == is && !strcmp(l->why, why))
        return;
    snprintf(l->why, sizeof l->why, "%s", why);
    if (was != is || !atomic_load(&page->since_ms))
        atomic_store(&page->since_ms, now_ms);
    l->base->ops->changed(l->base->arg, is, why);
}

void fleet_lease_look(struct fleet_lease *l)
{
    if (l->renewed_ms && fleet_base_applied(l->base) >= l->goal)
        set_connected(l, l->renewed_ms + FLEET_LEASE_MS, "");
}

void fleet_lease_check(struct fleet_lease *l)
{
    if (l->connected_before && !fleet_is_connected(l->base->page, clock_mono_ms()))
        set_connected(l, 0, "the store does not answer in time");
}

bool fleet_lease_has_lapsed(const struct fleet_lease *l)
{
    return l->renewed_ms && clock_mono_ms() > l->renewed_ms + FLEET_LEASE_MS;
}

void fleet_lease_end(struct fleet_lease *l, const char *why)
{
    l->sent_ms = l->renewed_ms = 0;
    set_connected(l, 0, why);
}

/* ---- what others have ---- */

static void take_host(struct fleet_lease *l, const char *name, const char *value)
{
    struct fleet_lease_host *h = &l->host[l->n_hosts];
    if (l->n_hosts == sizeof l->host / sizeof *l->host ||
        sscanf(value, "%" SCNx64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &h->instance, &h->epoch,
               &h->applied, &h->until_ms) != 4)
        return;
    snprintf(h->name, sizeof h->name, "%.*s", FLEET_HOST_SIZE - 1, name);
    l->n_hosts++;
}

/* Has every other host that lives what w waits for? */
static bool is_known(const struct fleet_lease *l, const struct fleet_waiter *w)
{
    for (uint32_t i = 0; i < l->n_hosts; i++) {
        const struct fleet_lease_host *h = &l->host[i];
        if (h->until_ms > l->store_now_ms && !fleet_base_is_self(l->base, h->instance) &&
            (h->epoch != fleet_base_epoch(l->base) || h->applied < w->id))
            return false;
    }
    return true;
}

static void answer_known(struct fleet_lease *l, struct fleet_waiter *w)
{
    struct fleet_result r = {.connected = true};
    char names[512] = "";
    for (uint32_t i = 0; i < l->n_hosts; i++) {
        const struct fleet_lease_host *h = &l->host[i];
        const size_t at = strlen(names);
        if (fleet_base_is_self(l->base, h->instance))
            continue;
        if (h->epoch == fleet_base_epoch(l->base) && h->applied >= w->id) {
            r.hosts++;
            continue;
        }
        r.missing++;
        snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "", h->name);
    }
    r.missing_names = names;
    fleet_waiter_answer(l->waiters, w, &r);
}

static void answer_waiters(struct fleet_lease *l, uint64_t sent_ms)
{
    /* Hosts of the epoch before may not have seen that it has ended. */
    const uint64_t began_ms = fleet_epoch_ms(fleet_base_epoch(l->base)),
                   young_ms = FLEET_LEASE_MS * (l->elsewhere ? 2 : 1);
    if (l->store_now_ms < began_ms + young_ms || sent_ms < l->hold_ms)
        return;
    for (struct fleet_waiter *w = TAILQ_FIRST(l->waiters), *next; w; w = next) {
        next = TAILQ_NEXT(w, entry);
        if (w->id && w->since_ms <= sent_ms && is_known(l, w))
            answer_known(l, w);
    }
}

/* ---- renewing ---- */

/* [EPOCH, COUNT, NOW, NAME, VALUE...] */
static bool take_renewed(struct fleet_lease *l, const redisReply *r)
{
    uint64_t count, now;
    if (!fleet_reply_is_of_epoch(l->base, r))
        return false;
    if (!fleet_reply_number(r, 1, &count) || !fleet_reply_number(r, 2, &now)) {
        fleet_store_fail(l->base->store, "its keys of this fleet hold something else");
        return false;
    }
    fleet_lease_note_last(l, count);
    l->store_now_ms = now;
    l->n_hosts = 0;
    for (size_t i = 3; i + 1 < r->elements; i += 2)
        if (fleet_reply_text(r, i) && fleet_reply_text(r, i + 1))
            take_host(l, fleet_reply_text(r, i), fleet_reply_text(r, i + 1));
    /* Without a lease others have not waited for this host: what they have done since is in the log up to
     * count. With one they have. */
    if (!fleet_is_connected(l->base->page, clock_mono_ms()))
        l->goal = count;
    return true;
}

static void on_renewed(void *arg, const redisReply *r)
{
    struct fleet_lease *l = arg;
    const uint64_t sent_ms = l->sent_ms;
    l->sent_ms = 0;
    if (!take_renewed(l, r))
        return;
    l->renewed_ms = sent_ms;
    fleet_lease_look(l);
    l->base->ops->renewed(l->base->arg, clock_mono_ms() - sent_ms);
    answer_waiters(l, sent_ms);
}

bool fleet_lease_renew(struct fleet_lease *l)
{
    const struct fleet_base *b = l->base;
    char epoch[24], applied[24], lease[16], digits[8];
    if (l->sent_ms)
        return false;
    snprintf(epoch, sizeof epoch, "%" PRIu64, fleet_base_epoch(b));
    snprintf(applied, sizeof applied, "%" PRIu64, fleet_base_applied(b));
    snprintf(lease, sizeof lease, "%d", FLEET_LEASE_MS);
    fleet_epoch_digits(digits);
    const char *argv[] = {b->log,      b->count, b->epoch, b->hosts, b->config->host,
                          b->instance, epoch,    applied,  lease,    digits};
    const uint64_t now_ms = clock_mono_ms();
    if (!fleet_store_run(b->store, FLEET_SCRIPT_RENEW, 4, 10, argv, NULL, on_renewed, l))
        return false;
    l->sent_ms = now_ms;
    return true;
}

/* ---- life, and for display ---- */

void fleet_lease_init(struct fleet_lease *l, const struct fleet_base *base,
                      struct fleet_waiters *waiters)
{
    *l = (struct fleet_lease){.base = base, .waiters = waiters, .why = "not connected yet"};
    atomic_store(&base->page->until_ms, 0);
    atomic_store(&base->page->since_ms, clock_mono_ms());
}

void fleet_lease_hold(struct fleet_lease *l, uint64_t until_ms, bool elsewhere)
{
    l->hold_ms = until_ms;
    l->elsewhere = elsewhere;
}

void fleet_lease_note_last(struct fleet_lease *l, uint64_t last)
{
    l->last = last > l->last ? last : l->last;
}

void fleet_lease_begin(struct fleet_lease *l, uint64_t last)
{
    l->goal = l->last = last;
}

uint64_t fleet_lease_store_now_ms(const struct fleet_lease *l)
{
    return l->store_now_ms + (clock_mono_ms() - l->renewed_ms);
}

void fleet_lease_host(const struct fleet_lease *l, uint32_t i, struct fleet_host *out)
{
    const struct fleet_lease_host *h = &l->host[i];
    memcpy(out->name, h->name, sizeof out->name);
    out->self = fleet_base_is_self(l->base, h->instance);
    out->applied = h->applied;
    out->lease_ms = l->renewed_ms ? (int64_t)(h->until_ms - l->store_now_ms) -
                                        (int64_t)(clock_mono_ms() - l->renewed_ms)
                                  : 0; /* cut off: it is not known */
    out->alive = out->lease_ms > 0;
}
