/* SPDX-License-Identifier: BSD-2-Clause */
/* limits: see limits.h. */
#include "daemons/control/model/limits.h"
#include "daemons/control/control.h"
#include "daemons/control/regions.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/config_keys.h"
#include "polder/limit.h"
#include "polder/limit_try.h"
#include "polder/log.h"
#include "polder/running.h"

#include <string.h>

const struct config_limit *limits_find(const struct config *config, const char *name)
{
    for (uint32_t i = 0; i < config->n_limits; i++)
        if (!strcmp(config->limits[i].name, name))
            return &config->limits[i];
    return NULL;
}

void limits_terms(const struct control *c, const struct config_limit *l,
                  const struct runtime_limit *value, struct limit_terms *out)
{
    const struct exempt *list = runtime_exempt_of(c->runtime, l->index, value);
    out->value = *value;
    out->exempts = list != NULL;
    if (list)
        out->exempt = *list;
}

/* ---- the file's values ---- */

static bool exempt_equal(const struct config_limit *l, const struct exempt *list)
{
    struct exempt file;
    return running_file_exempt(l, &file) && !memcmp(&file, list, sizeof file);
}

bool limits_is_as_file(const struct control *c, const struct config_limit *l,
                       const struct runtime_limit *running)
{
    const struct exempt *list = runtime_exempt_of(c->runtime, l->index, running);
    return config_live_equal(CONFIG_SECTION_LIMIT, running, &l->value) &&
           (!list || exempt_equal(l, list));
}

/* ---- changes ---- */

struct change {
    const char *name;
    const struct limit_terms *terms;
};

static bool change_limit(void *arg, struct config_region *region, struct runtime_values *values)
{
    const struct change *change = arg;
    const struct limit_terms *t = change->terms;
    const struct config_limit *l = limits_find(region->config, change->name);
    if (!l)
        return false;
    values->limit[l->index] = t->value;
    values->limit[l->index].exempt =
        t->exempts ? runtime_exempt_put(&region->runtime, l->index, &t->exempt) : 0;
    return true;
}

void limits_publish(const struct control *c, const char *name, const struct limit_terms *terms)
{
    struct change change = {name, terms};
    regions_publish(c, change_limit, &change);
}

bool limits_forget_client(const struct control *c, const struct config_limit *l, const char *who,
                          int len)
{
    const struct limit_caller caller = {.table = c->shared->limits,
                                        .proc = c->shared->proc,
                                        .slot = c->process->slot,
                                        .incarnation = c->process->incarnation};
    return len >= 0 &&
           limit_reset_key(&caller, limit_key(c->shared->limits, l->id, who, (size_t)len));
}

/* ---- changes that wait to be confirmed ---- */

static struct pending_change *pending_of(const struct control *c, const struct config_limit *l)
{
    return &c->shared->region[c->region]->runtime.trial[l->index];
}

uint64_t limits_pending_until_ms(const struct control *c, const struct config_limit *l)
{
    return atomic_load(&pending_of(c, l)->until_ms);
}

void limits_pending_begin(const struct control *c, const struct config_limit *l, uint64_t ms,
                          const struct runtime_limit *before)
{
    struct pending_change *t = pending_of(c, l);
    if (ms && !atomic_load(&t->until_ms))
        t->before = *before;
    atomic_store(&t->until_ms, ms ? clock_mono_ms() + ms : 0);
}

static void end_pending(struct control *c, const struct config_limit *l, uint64_t now_ms)
{
    struct pending_change *t = pending_of(c, l);
    const uint64_t until_ms = atomic_load(&t->until_ms);
    struct limit_terms before;
    if (!until_ms || now_ms < until_ms)
        return;
    limits_terms(c, l, &t->before, &before);
    limits_publish(c, l->name, &before); /* once more, if we die before the next line: harmless */
    atomic_store(&t->until_ms, 0);
    log_warning("limit \"%s\": the change was not confirmed in time; the old values are restored",
                l->name);
}

/* ---- candidates ---- */

static void end_try(struct control *c, struct limit_try *t, uint64_t now_ms)
{
    struct limit_try_counts n;
    if (!atomic_load(&t->run) || atomic_load(&t->ended) || now_ms < t->terms.until_ms)
        return;
    regions_publish(c, NULL, NULL); /* once more, if we die before the next line: harmless */
    atomic_store(&t->ended, 1);
    limit_try_counts(t, &n);
    log_info("limit \"%s\": the try is over: of %llu requests the limit refused %llu, the "
             "candidate would have refused %llu",
             t->terms.name, (unsigned long long)n.requests, (unsigned long long)n.live_refused,
             (unsigned long long)n.refused);
}

void limits_follow(struct control *c)
{
    const uint64_t now_ms = clock_mono_ms();
    for (uint32_t i = 0; i < c->config->n_limits; i++)
        end_pending(c, &c->config->limits[i], now_ms);
    for (int i = 0; i < LIMIT_TRY_SLOTS; i++)
        end_try(c, &c->shared->shadow_limits->slot[i], now_ms);
}
