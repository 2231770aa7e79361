/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_hosts: see fleet_hosts.h. */
#include "daemons/control/model/fleet_hosts.h"
#include "polder/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void fleet_hosts_init(struct fleet_hosts *h, const struct fleet_base *base)
{
    *h = (struct fleet_hosts){.base = base};
    fleet_record_key(&base->key, &h->key);
}

bool fleet_hosts_is_self(const struct fleet_hosts *h, const struct fleet_known_host *host)
{
    return fleet_base_is_self(h->base, host->is.instance);
}

bool fleet_hosts_lives(const struct fleet_hosts *h, const struct fleet_known_host *host)
{
    return host->ours && host->lives_ms > clock_mono_ms() && !fleet_hosts_is_self(h, host);
}

/* ---- the list ---- */

/* Names are anybody's. */
static void note_wrong(struct fleet_hosts *h, const redisReply *name, const char *what)
{
    char shown[41];
    size_t n = 0;
    for (; n < sizeof shown - 1 && n < name->len; n++)
        shown[n] = name->str[n] > ' ' && name->str[n] < 0x7f ? name->str[n] : '?';
    shown[n] = 0;
    snprintf(h->wrong, sizeof h->wrong, "%s: %s", shown, what);
}

static struct fleet_known_host *find(struct fleet_hosts *h, const char *name, uint64_t instance)
{
    for (uint32_t i = 0; i < h->n; i++)
        if (h->at[i].is.instance == instance && !strcmp(h->at[i].name, name))
            return &h->at[i];
    return NULL;
}

static struct fleet_known_host *add(struct fleet_hosts *h, const char *name, size_t len)
{
    if (h->n == FLEET_HOSTS_MAX)
        return NULL;
    struct fleet_known_host *host = &h->at[h->n++];
    *host = (struct fleet_known_host){.listed = true};
    snprintf(host->name, sizeof host->name, "%.*s", (int)len, name);
    return host;
}

/*
 * Until when a host may have a lease that is seen to have renewed it. It did so since the last look, at
 * which it had not. So what the store says is believed in between: a store whose clock was set,
 * and strangers, can say what they want.
 */
static uint64_t lease_end(const struct fleet_hosts *h, const struct fleet_record *r,
                          uint64_t store_now_ms, bool is_new)
{
    const uint64_t now_ms = clock_mono_ms();
    if (!r->epoch || r->format != FLEET_FORMAT)
        return now_ms; /* it was refused one */
    const uint64_t gap_ms = is_new ? 0 : now_ms - h->looked_ms,
                   min_ms = gap_ms < FLEET_LEASE_MS ? FLEET_LEASE_MS - gap_ms : 0;
    uint64_t left_ms = r->until_ms > store_now_ms ? r->until_ms - store_now_ms : 0;
    if (left_ms > FLEET_LEASE_MS)
        left_ms = FLEET_LEASE_MS;
    return now_ms + (left_ms > min_ms ? left_ms : min_ms);
}

static void take_ours(struct fleet_hosts *h, const redisReply *name, const struct fleet_record *r,
                      uint64_t store_now_ms)
{
    struct fleet_known_host *host = find(h, name->str, r->instance);
    const bool is_new = !host;
    if (is_new)
        host = add(h, name->str, name->len);
    if (!host) {
        h->crowded = true;
        return;
    }
    host->listed = true;
    if (!is_new && r->seq == host->is.seq && r->until_ms != host->is.until_ms)
        note_wrong(h, name, "its lease was changed by another program");
    if (r->seq < host->listed_seq)
        note_wrong(h, name, "an earlier record of it was put back by another program");
    else
        host->listed_seq = r->seq;
    if (!is_new && r->seq <= host->is.seq)
        return;
    host->lives_ms = lease_end(h, r, store_now_ms, is_new);
    host->is = *r;
    host->ours = true;
}

static void take(struct fleet_hosts *h, const redisReply *name, const redisReply *value,
                 uint64_t store_now_ms, bool ours)
{
    struct fleet_record r;
    const int rc = fleet_record_read(name->str, name->len, value->str, value->len, &h->key, &r);
    if (!rc && ours)
        take_ours(h, name, &r, store_now_ms);
    if (!rc || ours)
        return;
    struct fleet_known_host *host = rc == -EPERM ? add(h, name->str, name->len) : NULL;
    if (host)
        host->is = r;
    note_wrong(h, name, "a host that is not signed with this fleet's secret");
}

static void take_all(struct fleet_hosts *h, const redisReply *r, size_t from, uint64_t store_now_ms,
                     bool ours)
{
    for (size_t i = from; i + 1 < r->elements; i += 2) {
        const redisReply *name = r->element[i], *value = r->element[i + 1];
        if (name->type == REDIS_REPLY_STRING && value->type == REDIS_REPLY_STRING)
            take(h, name, value, store_now_ms, ours);
    }
}

static void keep_those(struct fleet_hosts *h, bool (*wanted)(const struct fleet_known_host *))
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < h->n; i++)
        if (wanted(&h->at[i]))
            h->at[n++] = h->at[i];
    h->n = n;
}

static bool is_ours(const struct fleet_known_host *host)
{
    return host->ours;
}

static void check_own(struct fleet_hosts *h, const redisReply *before)
{
    const char *host = h->base->config->host, *what = NULL;
    struct fleet_record r;
    if (!h->seq)
        return;
    if (!before->len)
        what = "this host was taken out of the list by another program, or evicted";
    else if (fleet_record_read(host, strlen(host), before->str, before->len, &h->key, &r) ||
             !fleet_base_is_self(h->base, r.instance) || r.seq != h->seq)
        what = "this host's record was changed by another program";
    if (what)
        note_wrong(h, &(redisReply){.str = (char *)(uintptr_t)host, .len = strlen(host)}, what);
}

/* The fleet's own hosts come first. */
void fleet_hosts_take(struct fleet_hosts *h, const redisReply *r, size_t from,
                      const redisReply *before, uint64_t store_now_ms)
{
    *h->wrong = 0;
    h->crowded = false;
    keep_those(h, is_ours);
    for (uint32_t i = 0; i < h->n; i++)
        h->at[i].listed = false;
    take_all(h, r, from, store_now_ms, true);
    take_all(h, r, from, store_now_ms, false);
    check_own(h, before);
    h->looked_ms = clock_mono_ms();
}

void fleet_hosts_begin(struct fleet_hosts *h)
{
    h->seq = 0;
    for (uint32_t i = 0; i < h->n; i++)
        h->at[i].listed_seq = 0;
}

static bool is_of_use(const struct fleet_known_host *host)
{
    return host->listed || host->lives_ms > clock_mono_ms();
}

void fleet_hosts_drop(struct fleet_hosts *h)
{
    keep_those(h, is_of_use);
}
