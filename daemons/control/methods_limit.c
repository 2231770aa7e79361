/* SPDX-License-Identifier: BSD-2-Clause */
/* methods_limit: limit.list, show, top, set, confirm and reset. */
#include "daemons/control/control.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/limit.h"
#include "polder/limit_top.h"
#include "polder/limitkey.h"
#include "polder/log.h"

#include <errno.h>
#include <string.h>

#define NAME_MAX_BYTES 256
#define TRIAL_MIN_MS   1000
#define TRIAL_MAX_MS   (UINT64_C(7) * 24 * 3600 * 1000)
#define VALUE_MAX      4096 /* of KEY=VALUE: a list of the exempt with all its \'s and commas */
#define SHOWN_MAX      64   /* of the items of a file's exempt list */

static const struct config_limit *find(const struct config *config, const char *name)
{
    for (uint32_t i = 0; i < config->n_limits; i++)
        if (!strcmp(config->limits[i].name, name))
            return &config->limits[i];
    return NULL;
}

const struct config_limit *limit_named(struct control *c, const struct rpc_call *call)
{
    char name[NAME_MAX_BYTES], known[512] = "";
    const bool text = rpc_in_text(call->params, "name", name, sizeof name) > 0;
    const struct config_limit *l = text ? find(c->config, name) : NULL;
    if (l)
        return l;
    for (uint32_t i = 0; i < c->config->n_limits && strlen(known) + 80 < sizeof known; i++) {
        strcat(known, i ? ", " : "; there is ");
        strncat(known, c->config->limits[i].name, 64);
    }
    admin_error(c, call->reply, RPC_NOT_FOUND, "there is no limit \"%s\"%s", text ? name : "",
                known);
    return NULL;
}

static struct pending_change *trial_of(const struct control *c, const struct config_limit *l)
{
    return &c->shared->region[c->region]->runtime.trial[l->index];
}

/* ---- what a limit looks like ---- */

void limit_put_values(struct rpc_out *o, const struct runtime_limit *v)
{
    rpc_out_u64(o, "requests", v->requests);
    rpc_out_u64(o, "window_ms", v->window_ms);
    rpc_out_str(o, "algorithm", runtime_algorithm_name((enum runtime_algorithm)v->algorithm));
    rpc_out_bool(o, "dry_run", v->dry_run != 0);
    rpc_out_u64(o, "concurrent", v->concurrent);
}

static void put_net(struct rpc_out *o, const struct clientip_net *net)
{
    char text[64];
    clientip_net_format(net, text);
    rpc_out_str(o, NULL, text);
}

void limit_put_exempt(struct rpc_out *o, const struct config_limit *l, const struct exempt *list)
{
    rpc_out_list(o, "exempt");
    for (uint32_t i = 0; list && i < list->n_nets; i++)
        put_net(o, &list->net[i]);
    for (const char *v = NULL; list && (v = exempt_next(list, v));)
        rpc_out_str(o, NULL, v);
    for (uint32_t i = 0; !list && i < l->n_exempt_nets && i < SHOWN_MAX; i++)
        put_net(o, &l->exempt_nets[i]);
    for (uint32_t i = 0; !list && i < l->n_exempt_values && i < SHOWN_MAX; i++)
        rpc_out_str(o, NULL, l->exempt_values[i]);
    if (!list && (l->n_exempt_nets > SHOWN_MAX || l->n_exempt_values > SHOWN_MAX))
        rpc_out_str(o, NULL, "...");
    rpc_out_end(o);
}

static void put_wish(struct rpc_out *o, const char *key, const struct config_limit *l,
                     const struct limit_wish *w)
{
    rpc_out_map(o, key);
    limit_put_values(o, &w->value);
    limit_put_exempt(o, l, w->exempts ? &w->exempt : NULL);
    rpc_out_end(o);
}

static bool same(const struct runtime_limit *a, const struct runtime_limit *b)
{
    return a->requests == b->requests && a->window_ms == b->window_ms &&
           a->algorithm == b->algorithm && !a->dry_run == !b->dry_run &&
           a->concurrent == b->concurrent;
}

/* Whether the list says what the file says. */
static bool same_exempt(const struct config_limit *l, const struct exempt *list)
{
    struct exempt file = {0};
    const char *why;
    char text[64];
    for (uint32_t i = 0; i < l->n_exempt_nets; i++) {
        clientip_net_format(&l->exempt_nets[i], text);
        if (exempt_add(&file, text, &why))
            return false;
    }
    for (uint32_t i = 0; i < l->n_exempt_values; i++)
        if (exempt_add(&file, l->exempt_values[i], &why))
            return false;
    return !memcmp(&file, list, sizeof file);
}

static void put_counts(const struct control *c, struct rpc_out *o, const struct config_limit *l)
{
    struct stats_limit sums;
    stats_limit_of(c->shared->stats, l->id, &sums);
    rpc_out_u64(o, "admitted", sums.admitted);
    rpc_out_u64(o, "refused", sums.refused);
    rpc_out_u64(o, "dry_run_refused", sums.dry_refused);
}

static void put_routes(const struct control *c, struct rpc_out *o, const struct config_limit *l)
{
    rpc_out_list(o, "routes");
    for (uint32_t i = 0; i < c->config->n_routes; i++)
        for (uint32_t k = 0; k < c->config->routes[i].n_limits; k++)
            if (c->config->routes[i].limits[k] == l)
                rpc_out_str(o, NULL, c->config->routes[i].pattern);
    rpc_out_end(o);
}

static void put_limit(const struct control *c, struct rpc_out *o, const struct config_limit *l,
                      const struct runtime_values *values, bool persisted)
{
    const struct runtime_limit *running = &values->limit[l->index];
    const struct exempt *list = runtime_exempt_of(c->runtime, l->index, running);
    char key[512];
    limitkey_describe(l, key, sizeof key);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "name", l->name);
    limit_put_values(o, running);
    limit_put_exempt(o, l, list);
    rpc_out_str(o, "key", key);
    put_counts(c, o, l);
    rpc_out_bool(o, "changed", !same(running, &l->value) || (list && !same_exempt(l, list)));
    rpc_out_bool(o, "persisted", persisted);
    const uint64_t until_ms = atomic_load(&trial_of(c, l)->until_ms), now_ms = clock_mono_ms();
    if (until_ms) /* on trial */
        rpc_out_u64(o, "confirm_within_ms", until_ms > now_ms ? until_ms - now_ms : 0);
    put_routes(c, o, l);
    limit_put_try(c, o, l);
    rpc_out_map(o, "file");
    limit_put_values(o, &l->value);
    limit_put_exempt(o, l, NULL);
    rpc_out_end(o);
    rpc_out_end(o);
}

void limit_list(struct control *c, const struct rpc_call *call)
{
    struct runtime_values values;
    bool persisted[RUNTIME_LIMITS_MAX];
    runtime_read(c->runtime, &values);
    runtime_persist_which(c->config->state_dir, c->config, persisted);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_list(o, NULL);
    for (uint32_t i = 0; i < c->config->n_limits; i++)
        put_limit(c, o, &c->config->limits[i], &values, persisted[i]);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

void limit_show(struct control *c, const struct rpc_call *call)
{
    struct runtime_values values;
    const struct config_limit *l = limit_named(c, call);
    if (!l)
        return;
    runtime_read(c->runtime, &values);
    put_limit(c, rpc_reply_result(call->reply), l, &values,
              runtime_persist_has(c->config->state_dir, l->name) > 0);
    rpc_reply_send(call->reply);
}

/* ---- top ---- */

#define TOP_ROWS 10

static void put_top(const struct control *c, struct rpc_out *o, const struct config_limit *l,
                    enum limit_top_by by, const char *name)
{
    struct limit_top_row row[TOP_ROWS];
    char who[3 * LIMIT_TOP_WHO];
    const struct limit_top_list list = {l->index, l->id};
    const size_t n = limit_top_read(c->shared->limits, list, by, row, TOP_ROWS);
    rpc_out_list(o, name);
    for (size_t i = 0; i < n; i++) {
        const size_t len =
            limitkey_to_text(l, row[i].who, sizeof row[i].who, row[i].who_len, who, sizeof who);
        rpc_out_map(o, NULL);
        rpc_out_strn(o, "client", who, len);
        rpc_out_u64(o, "requests", row[i].requests);
        rpc_out_u64(o, "error", row[i].error);
        rpc_out_end(o);
    }
    rpc_out_end(o);
}

void limit_top(struct control *c, const struct rpc_call *call)
{
    const struct config_limit *l = limit_named(c, call);
    if (!l)
        return;
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "name", l->name);
    put_top(c, o, l, LIMIT_TOP_HEAVIEST, "heaviest");
    put_top(c, o, l, LIMIT_TOP_REFUSED, "refused");
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- set ---- */

static bool parse_flag(const char *text, uint32_t *out)
{
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no",
                                                                                "off", "0"};
    for (size_t i = 0; i < 4; i++) {
        if (!strcmp(text, yes[i]) || !strcmp(text, no[i])) {
            *out = !strcmp(text, yes[i]);
            return true;
        }
    }
    return false;
}

/* NULL, or what would be right. */
static const char *set_value(struct runtime_limit *v, const msgpack_object *map, const char *key,
                             const char *text)
{
    uint64_t n = 0;
    if (!strcmp(key, "requests")) {
        if (rpc_in_u64(map, key, UINT32_MAX, &n))
            return "a whole number up to 4294967295";
        v->requests = (uint32_t)n;
    } else if (!strcmp(key, "concurrent")) {
        if (rpc_in_u64(map, key, UINT32_MAX, &n))
            return "a whole number up to 1000000, where 0 is no bound";
        v->concurrent = (uint32_t)n;
    } else if (!strcmp(key, "window")) {
        if (config_parse_duration(text, &n))
            return "a duration such as 500ms, 60s or 5m";
        v->window_ms = n;
    } else if (!strcmp(key, "algorithm")) {
        const int algorithm = runtime_algorithm_parse(text);
        if (algorithm < 0)
            return "sliding, fixed or gcra";
        v->algorithm = (uint32_t)algorithm;
    } else if (!strcmp(key, "dry_run")) {
        if (!parse_flag(text, &v->dry_run))
            return "true or false";
    } else {
        return "unknown; there are requests, window, algorithm, dry_run, concurrent and exempt";
    }
    return NULL;
}

static bool set_exempt(struct control *c, const struct rpc_call *call, struct limit_wish *w,
                       const char *text)
{
    char wrong[64];
    const char *why;
    w->exempts = true;
    if (exempt_parse(&w->exempt, text, wrong, sizeof wrong, &why) == 0)
        return true;
    admin_error(c, call->reply, RPC_BAD_ARGUMENT, "exempt: \"%s\" is wrong; %s would be right",
                wrong, why);
    return false;
}

static bool set_one(struct control *c, const struct rpc_call *call, struct limit_wish *w,
                    const msgpack_object *set, const msgpack_object_kv *kv)
{
    char key[64], text[VALUE_MAX];
    if (rpc_in_object_text(&kv->key, key, sizeof key) < 0 ||
        rpc_in_object_text(&kv->val, text, sizeof text) < 0) {
        admin_error(c, call->reply, RPC_BAD_ARGUMENT, "set is a map of short texts and numbers");
        return false;
    }
    if (!strcmp(key, "exempt"))
        return set_exempt(c, call, w, text);
    const char *why = set_value(&w->value, set, key, text);
    const bool unknown = why && !strncmp(why, "unknown", 7);
    if (why)
        admin_error(c, call->reply, RPC_BAD_ARGUMENT, unknown ? "%s: %s" : "%s: %s, not \"%.64s\"",
                    key, why, text);
    return !why;
}

bool limit_read_wish(struct control *c, const struct rpc_call *call, struct limit_wish *w)
{
    const msgpack_object *set = rpc_in_get(call->params, "set");
    const char *why;
    for (uint32_t i = 0; i < set->via.map.size; i++)
        if (!set_one(c, call, w, set, &set->via.map.ptr[i]))
            return false;
    if (runtime_limit_check(&w->value, &why) == 0)
        return true;
    admin_error(c, call->reply, RPC_BAD_ARGUMENT, "%s", why);
    return false;
}

/* What a limit is, so that it can be wished for again. */
static void wish_of(const struct control *c, const struct config_limit *l,
                    const struct runtime_limit *value, struct limit_wish *w)
{
    const struct exempt *list = runtime_exempt_of(c->runtime, l->index, value);
    w->value = *value;
    w->exempts = list != NULL;
    if (list)
        w->exempt = *list;
}

/* In every configuration that is served: workers that drain keep the limit too. */
static void publish(const struct control *c, const char *name, const struct limit_wish *w)
{
    struct config_region *region[SHARED_REGIONS];
    struct runtime_values values;
    const size_t n = control_live_regions(c, region);
    for (size_t i = 0; i < n; i++) {
        const struct config_limit *l = find(region[i]->config, name);
        struct runtime_page *page = &region[i]->runtime;
        if (!l)
            continue;
        runtime_read(page, &values);
        values.limit[l->index] = w->value;
        values.limit[l->index].exempt =
            w->exempts ? runtime_exempt_put(page, l->index, &w->exempt) : 0;
        runtime_publish(page, &values);
    }
}

/* ---- trials ---- */

/* False: answered. *ms 0: no trial. */
static bool trial_asked(struct control *c, const struct rpc_call *call, bool persist, uint64_t *ms)
{
    char text[64];
    *ms = 0;
    if (!rpc_in_get(call->params, "confirm-within"))
        return true;
    const int len = rpc_in_text(call->params, "confirm-within", text, sizeof text);
    if (len < 0 || config_parse_duration(text, ms) || *ms < TRIAL_MIN_MS || *ms > TRIAL_MAX_MS)
        admin_error(c, call->reply, RPC_BAD_ARGUMENT,
                    "confirm-within is a duration between 1s and 7d");
    else if (persist)
        admin_error(
            c, call->reply, RPC_BAD_ARGUMENT,
            "what is on trial is not made permanent; confirm it, then set it with --persist");
    else
        return true;
    return false;
}

/* A change while another one is on trial goes back to before both; one that is not on trial ends
 * it. */
static void trial_note(const struct control *c, const struct config_limit *l, uint64_t ms,
                       const struct runtime_limit *before)
{
    struct pending_change *t = trial_of(c, l);
    if (ms && !atomic_load(&t->until_ms))
        t->before = *before;
    atomic_store(&t->until_ms, ms ? clock_mono_ms() + ms : 0);
}

void limit_trials_end(struct control *c)
{
    const uint64_t now_ms = clock_mono_ms();
    for (uint32_t i = 0; i < c->config->n_limits; i++) {
        const struct config_limit *l = &c->config->limits[i];
        struct pending_change *t = trial_of(c, l);
        const uint64_t until_ms = atomic_load(&t->until_ms);
        if (!until_ms || now_ms < until_ms)
            continue;
        struct limit_wish before;
        wish_of(c, l, &t->before, &before);
        publish(c, l->name, &before); /* once more, if we die before the next line: harmless */
        atomic_store(&t->until_ms, 0);
        log_warning("limit \"%s\": nobody confirmed what was changed; it is as before", l->name);
    }
}

void limit_confirm(struct control *c, const struct rpc_call *call)
{
    const struct config_limit *l = limit_named(c, call);
    if (!l)
        return;
    if (!atomic_load(&trial_of(c, l)->until_ms)) {
        admin_error(c, call->reply, RPC_FAILED, "nothing of limit \"%s\" is on trial", l->name);
        return;
    }
    atomic_store(&trial_of(c, l)->until_ms, 0);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "name", l->name);
    rpc_out_bool(o, "confirmed", true);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

static void answer_change(const struct rpc_call *call, const struct config_limit *l, bool persisted,
                          uint64_t trial_ms, const struct limit_wish *before,
                          const struct limit_wish *after)
{
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "name", l->name);
    rpc_out_bool(o, "persisted", persisted);
    if (trial_ms)
        rpc_out_u64(o, "confirm_within_ms", trial_ms);
    put_wish(o, "before", l, before);
    put_wish(o, "after", l, after);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

static void cannot_persist(struct control *c, const struct rpc_call *call, int code)
{
    admin_error(c, call->reply, RPC_FAILED, "cannot write %s/runtime.mp: %s; nothing is changed",
                c->config->state_dir, strerror(-code));
}

void limit_set(struct control *c, const struct rpc_call *call)
{
    struct runtime_values values;
    const struct config_limit *l = limit_named(c, call);
    const bool persist = rpc_in_flag(call->params, "persist");
    uint64_t trial_ms;
    if (!l || !trial_asked(c, call, persist, &trial_ms))
        return;
    runtime_read(c->runtime, &values);
    struct limit_wish before, after;
    wish_of(c, l, &values.limit[l->index], &before);
    after = before;
    if (!limit_read_wish(c, call, &after))
        return;
    const int code = persist ? runtime_persist_save(c->config->state_dir, l->name, &after.value,
                                                    after.exempts ? &after.exempt : NULL)
                             : 0;
    if (code) {
        cannot_persist(c, call, code);
        return;
    }
    trial_note(c, l, trial_ms, &before.value); /* first: what if we die between the two? */
    publish(c, l->name, &after);
    answer_change(call, l, persist, trial_ms, &before, &after);
}

void limit_revert(struct control *c, const struct rpc_call *call)
{
    struct runtime_values values;
    const struct config_limit *l = limit_named(c, call);
    const int code = l ? runtime_persist_forget(c->config->state_dir, l->name) : 0;
    if (!l)
        return;
    if (code) {
        cannot_persist(c, call, code);
        return;
    }
    struct limit_wish before, file = {.value = l->value};
    runtime_read(c->runtime, &values);
    wish_of(c, l, &values.limit[l->index], &before);
    publish(c, l->name, &file);
    atomic_store(&trial_of(c, l)->until_ms, 0);
    answer_change(call, l, false, 0, &before, &file);
}

/* ---- reset ---- */

static bool forget(const struct control *c, const struct config_limit *l, const char *who, int len)
{
    const struct limit_caller caller = {.table = c->shared->limits,
                                        .proc = c->shared->proc,
                                        .slot = c->process->slot,
                                        .incarnation = c->process->incarnation};
    return len >= 0 &&
           limit_reset_key(&caller, limit_key(c->shared->limits, l->id, who, (size_t)len));
}

/* A client that sent no key is counted by its address. */
static bool reset_client(struct control *c, const struct rpc_call *call,
                         const struct config_limit *l, bool *forgotten)
{
    char client[1024], who[4096];
    const int given = rpc_in_text(call->params, "client", client, sizeof client);
    const int len = given > 0 ? limitkey_from_text(l, client, who, sizeof who) : -EINVAL;
    char key[512];
    limitkey_describe(l, key, sizeof key);
    *forgotten = forget(c, l, who, len);
    const int address = given > 0 ? limitkey_client(client, who, sizeof who) : -EINVAL;
    *forgotten |= forget(c, l, who, address);
    if (len >= 0 || address >= 0)
        return true;
    admin_error(c, call->reply, RPC_BAD_ARGUMENT,
                "the key of limit \"%s\" is %s: client is its value (of several parts with + "
                "between them; an address for client)",
                l->name, key);
    return false;
}

/* Workers may have remembered what keys hash to: a new generation makes them look again. */
void limit_publish_again(const struct control *c)
{
    struct config_region *region[SHARED_REGIONS];
    struct runtime_values values;
    const size_t n = control_live_regions(c, region);
    for (size_t i = 0; i < n; i++) {
        runtime_read(&region[i]->runtime, &values);
        runtime_publish(&region[i]->runtime, &values);
    }
}

void limit_reset(struct control *c, const struct rpc_call *call)
{
    const struct config_limit *l = limit_named(c, call);
    const bool one = rpc_in_get(call->params, "client") != NULL;
    bool forgotten = true;
    if (!l)
        return;
    if (!one)
        limit_reset_all(c->shared->limits, l->id);
    else if (!reset_client(c, call, l, &forgotten))
        return;
    limit_publish_again(c);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "name", l->name);
    rpc_out_str(o, "reset", one ? "client" : "all");
    rpc_out_bool(o, "had_counts", forgotten);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}
