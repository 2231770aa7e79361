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

static bool has(const struct fleet_lease *l, const struct fleet_known_host *h,
                const struct fleet_waiter *w)
{
    return h->is.epoch == fleet_base_epoch(l->base) && h->is.applied >= w->id;
}

/* Has every other host that lives what w waits for? */
static bool is_known(const struct fleet_lease *l, const struct fleet_waiter *w)
{
    for (uint32_t i = 0; i < l->hosts.n; i++)
        if (fleet_hosts_lives(&l->hosts, &l->hosts.at[i]) && !has(l, &l->hosts.at[i], w))
            return false;
    return true;
}

static void answer_known(struct fleet_lease *l, struct fleet_waiter *w)
{
    struct fleet_result r = {.connected = true};
    char names[512] = "";
    for (uint32_t i = 0; i < l->hosts.n; i++) {
        const struct fleet_known_host *h = &l->hosts.at[i];
        const size_t at = strlen(names);
        if (!h->ours || fleet_hosts_is_self(&l->hosts, h))
            continue;
        if (has(l, h, w)) {
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

static bool take_hosts(struct fleet_lease *l, const redisReply *r)
{
    struct fleet_hosts *h = &l->hosts;
    fleet_hosts_take(h, r, 5, r->element[3], l->store_now_ms);
    h->seq = l->sent_seq;
    if (*h->wrong)
        l->ops->strange(l->arg, h->wrong);
    if (h->crowded) /* one of them would not be waited for */
        fleet_store_fail(l->base->store, "the fleet has too many hosts");
    return !h->crowded;
}

/* [EPOCH, COUNT, NOW, BEFORE, MISSING, NAME, VALUE...] */
static bool take_renewed(struct fleet_lease *l, const redisReply *r)
{
    uint64_t count, now, missing;
    if (!fleet_reply_is_list(l->base->store, r) || l->ops->refused(l->arg, r) ||
        !fleet_reply_is_of_epoch(l->base, r))
        return false;
    if (!fleet_reply_number(r, 1, &count) || !fleet_reply_number(r, 2, &now) ||
        !fleet_reply_text(r, 3) || !fleet_reply_number(r, 4, &missing)) {
        fleet_store_fail(l->base->store, "its keys of this fleet hold something else");
        return false;
    }
    fleet_lease_note_last(l, count);
    l->store_now_ms = now;
    if (!take_hosts(l, r))
        return false;
    /* what was read meanwhile was not missing */
    if (missing && fleet_base_applied(l->base) == l->sent_applied)
        l->ops->missing(l->arg, count);
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
    if (!r || !take_renewed(l, r))
        return;
    l->renewed_ms = sent_ms;
    fleet_lease_look(l);
    l->base->ops->renewed(l->base->arg, clock_mono_ms() - sent_ms);
    answer_waiters(l, sent_ms);
    fleet_hosts_drop(&l->hosts);
}

void fleet_lease_tail(struct fleet_lease *l, uint64_t epoch, uint64_t applied,
                      char out[FLEET_TAIL_SIZE])
{
    const uint64_t now_ms = clock_mono_ms();
    l->sent_seq = now_ms > l->sent_seq ? now_ms : l->sent_seq + 1;
    const struct fleet_record r = {.instance = atomic_load(&l->base->page->instance),
                                   .epoch = epoch,
                                   .applied = applied,
                                   .seq = l->sent_seq};
    fleet_record_tail(&r, l->base->config->host, &l->hosts.key, out);
}

bool fleet_lease_renew(struct fleet_lease *l)
{
    const struct fleet_base *b = l->base;
    char epoch[24], applied[24], lease[16], digits[8], tail[FLEET_TAIL_SIZE], format[16];
    if (l->sent_ms)
        return false;
    const uint64_t now_ms = clock_mono_ms();
    l->sent_applied = fleet_base_applied(b);
    snprintf(epoch, sizeof epoch, "%" PRIu64, fleet_base_epoch(b));
    snprintf(applied, sizeof applied, "%" PRIu64, l->sent_applied);
    snprintf(lease, sizeof lease, "%d", FLEET_LEASE_MS);
    snprintf(format, sizeof format, "%d", FLEET_FORMAT);
    fleet_epoch_digits(digits);
    fleet_lease_tail(l, fleet_base_epoch(b), l->sent_applied, tail);
    const char *argv[] = {b->log, b->count, b->epoch, b->hosts, b->config->host, b->instance,
                          epoch,  applied,  lease,    digits,   format,          tail};
    if (!fleet_store_run(b->store, FLEET_SCRIPT_RENEW, 4, 12, argv, NULL, on_renewed, l))
        return false;
    l->sent_ms = now_ms;
    return true;
}

/* ---- life, and for display ---- */

void fleet_lease_init(struct fleet_lease *l, const struct fleet_base *base,
                      struct fleet_waiters *waiters, const struct fleet_lease_ops *ops, void *arg)
{
    *l = (struct fleet_lease){
        .base = base, .ops = ops, .arg = arg, .waiters = waiters, .why = "not connected yet"};
    fleet_hosts_init(&l->hosts, base);
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
    fleet_hosts_begin(&l->hosts);
}

uint64_t fleet_lease_store_now_ms(const struct fleet_lease *l)
{
    return l->store_now_ms + (clock_mono_ms() - l->renewed_ms);
}

/* By what the store says, while it does. */
static int64_t lease_left(const struct fleet_lease *l, const struct fleet_known_host *h)
{
    const uint64_t now_ms = clock_mono_ms();
    if (!l->renewed_ms)
        return 0; /* cut off: it is not known */
    const int64_t seen = (int64_t)(h->lives_ms - now_ms),
                  said = (int64_t)(h->is.until_ms - l->store_now_ms) -
                         (int64_t)(now_ms - l->renewed_ms);
    return h->ours && (!h->listed || seen < said) ? seen : said;
}

void fleet_lease_host(const struct fleet_lease *l, uint32_t i, struct fleet_host *out)
{
    const struct fleet_known_host *h = &l->hosts.at[i];
    *out = (struct fleet_host){.self = fleet_hosts_is_self(&l->hosts, h),
                               .foreign = !h->ours,
                               .applied = h->is.applied,
                               .lease_ms = lease_left(l, h),
                               .format = h->is.format,
                               .entry = h->is.entry,
                               .object = h->is.object};
    out->alive = out->lease_ms > 0;
    memcpy(out->name, h->name, sizeof out->name);
    memcpy(out->program, h->is.program, sizeof out->program);
}
