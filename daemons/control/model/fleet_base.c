/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_base: see fleet_base.h. */
#include "daemons/control/model/fleet_base.h"
#include "polder/clock.h"
#include "polder/random.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PACE_MS      16
#define PACE_AT_ONCE 3

static void name_key(char out[96], const char *fleet, const char *what)
{
    snprintf(out, 96, "polder:{%s}:%s", fleet, what);
}

void fleet_base_set(struct fleet_base *b, struct ev_loop *loop, const struct config_fleet *config,
                    struct shared *shared, const struct fleet_ops *ops, void *arg)
{
    *b = (struct fleet_base){.loop = loop,
                             .config = config,
                             .shared = shared,
                             .page = shared->fleet,
                             .ops = ops,
                             .arg = arg};
    fleet_key_make(&b->key, config->name, config->secret);
    name_key(b->log, config->name, "log");
    name_key(b->count, config->name, "count");
    name_key(b->epoch, config->name, "epoch");
    name_key(b->hosts, config->name, "hosts");
    name_key(b->run, config->name, "run");
    name_key(b->stored, config->name, "stored");
    name_key(b->fence, config->name, "fence");
    snprintf(b->instance, sizeof b->instance, "%" PRIx64, atomic_load(&b->page->instance));
}

uint64_t fleet_pace(struct fleet_pacer *p)
{
    const uint64_t now_ms = clock_mono_ms();
    if (now_ms >= p->began_ms + PACE_MS)
        *p = (struct fleet_pacer){.began_ms = now_ms};
    return p->n++ < PACE_AT_ONCE ? 0 : p->began_ms + PACE_MS - now_ms;
}

uint64_t fleet_epoch_ms(uint64_t epoch)
{
    return epoch / 1000000;
}

void fleet_epoch_digits(char out[8])
{
    uint32_t n;
    random_fill(&n, sizeof n);
    snprintf(out, 8, "%06u", n % 1000000);
}

const char *fleet_reply_text(const redisReply *r, size_t i)
{
    return r->type == REDIS_REPLY_ARRAY && i < r->elements &&
                   r->element[i]->type == REDIS_REPLY_STRING
               ? r->element[i]->str
               : NULL;
}

bool fleet_reply_number(const redisReply *r, size_t i, uint64_t *out)
{
    const char *text = fleet_reply_text(r, i);
    if (!text || !*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 20)
        return false;
    errno = 0;
    *out = strtoull(text, NULL, 10);
    return errno == 0;
}

bool fleet_reply_is_list(struct fleet_store *store, const redisReply *r)
{
    if (!r)
        return false; /* the link ends, and says why itself */
    if (r->type == REDIS_REPLY_ERROR)
        fleet_store_fail(store, r->str);
    else if (r->type != REDIS_REPLY_ARRAY)
        fleet_store_fail(store, "it answers a script with something else");
    return r->type == REDIS_REPLY_ARRAY;
}

bool fleet_reply_is_of_epoch(const struct fleet_base *b, const redisReply *r)
{
    uint64_t epoch;
    if (!fleet_reply_is_list(b->store, r))
        return false;
    if (fleet_reply_number(r, 0, &epoch) && epoch == fleet_base_epoch(b))
        return true;
    const char *text = fleet_reply_text(r, 0);
    fleet_store_fail(b->store, text && !strcmp(text, "fenced")
                                   ? "hosts of this fleet follow another master"
                                   : "the store has lost its data");
    return false;
}
