/* SPDX-License-Identifier: BSD-2-Clause */
/* cache_set: cache.set and revert. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/methods/persist.h"
#include "daemons/control/regions.h"
#include "polder/config.h"
#include "polder/config_keys.h"
#include "polder/rpc_values.h"

#include <string.h>
#include <unistd.h>

#define SET_MAX 16

static bool set_one(struct control *c, const struct rpc_call *call, const msgpack_object_kv *kv,
                    struct runtime_cache *cache, struct setting *setting)
{
    memset(setting, 0, sizeof *setting);
    strcpy(setting->section, "cache");
    if (rpc_in_object_text(&kv->key, setting->key, 64) < 0 ||
        rpc_in_object_text(&kv->val, setting->value, 64) < 0) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "set is a map of short texts and numbers");
        return false;
    }
    const struct config_row *row = config_live_row(CONFIG_SECTION_CACHE, setting->key);
    const char *right = row ? config_live_set(row, cache, setting->value) : NULL;
    char keys[256];
    if (!row) {
        config_live_keys(CONFIG_SECTION_CACHE, keys, sizeof keys);
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "unknown key %s; there are %s", setting->key,
                   keys);
    } else if (right) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "%s = \"%s\" is wrong; expected %s",
                   setting->key, setting->value, right);
    }
    return row && !right;
}

static void put_cache(struct rpc_out *o, const char *key, const struct runtime_cache *cache)
{
    rpc_out_map(o, key);
    rpc_put_values(o, CONFIG_SECTION_CACHE, cache, true);
    rpc_out_end(o);
}

static bool change_cache(void *arg, struct config_region *region, struct runtime_values *values)
{
    (void)region;
    values->cache = *(const struct runtime_cache *)arg;
    return true;
}

static void cache_publish(struct control *c, struct runtime_cache cache)
{
    const uint64_t one = 1;
    regions_publish(c, change_cache, &cache);
    const ssize_t written = write(c->shared->keeper_event, &one, sizeof one);
    (void)written; /* EAGAIN: it wakes anyway */
}

static void answer_change(const struct rpc_call *call, bool persisted,
                          const struct runtime_cache *before, const struct runtime_cache *after)
{
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "persisted", persisted);
    put_cache(o, "before", before);
    put_cache(o, "after", after);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

void cache_set(struct control *c, const struct rpc_call *call)
{
    const msgpack_object *set = rpc_in_get(call->params, "set");
    const bool persist = rpc_in_flag(call->params, "persist");
    struct setting setting[SET_MAX];
    struct runtime_values values;
    runtime_read(c->runtime, &values);
    const struct runtime_cache before = values.cache;
    if (set->via.map.size > SET_MAX) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "at most %d keys at once", SET_MAX);
        return;
    }
    for (uint32_t i = 0; i < set->via.map.size; i++)
        if (!set_one(c, call, &set->via.map.ptr[i], &values.cache, &setting[i]))
            return;
    if (values.cache.max_body > config_max_body_of(values.cache.max_bytes)) {
        char body[CONFIG_NUMBER_TEXT], store[CONFIG_NUMBER_TEXT];
        config_number_text(&config_rows[CONFIG_CACHE_max_body], values.cache.max_body, body);
        config_number_text(&config_rows[CONFIG_CACHE_max_bytes], values.cache.max_bytes, store);
        call_error(c, call->reply, RPC_BAD_ARGUMENT,
                   "max_body (%s) is more than a quarter of max_bytes (%s), which is the longest "
                   "body that the store takes; set both",
                   body, store);
        return;
    }
    if (persist && !persist_settings(c, call, setting, set->via.map.size))
        return;
    cache_publish(c, values.cache);
    answer_change(call, persist, &before, &values.cache);
}

void cache_revert(struct control *c, const struct rpc_call *call)
{
    struct runtime_values values;
    if (!persist_forget(c, call, "cache", NULL))
        return;
    runtime_read(c->runtime, &values);
    cache_publish(c, c->config->cache.value);
    answer_change(call, false, &values.cache, &c->config->cache.value);
}
