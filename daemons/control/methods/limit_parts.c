/* SPDX-License-Identifier: BSD-2-Clause */
/* limit_parts: see limit_parts.h. */
#include "daemons/control/methods/limit_parts.h"
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "polder/config.h"
#include "polder/config_keys.h"
#include "polder/limit_top.h"
#include "polder/limitkey.h"
#include "polder/rpc_values.h"

#include <string.h>

#define NAME_MAX_BYTES 256
#define VALUE_MAX      4096 /* of KEY=VALUE: a list of the exempt with all its \'s and commas */
#define SHOWN_MAX      64   /* of the items of a file's exempt list */

const struct config_limit *limit_named(struct control *c, const struct rpc_call *call)
{
    char name[NAME_MAX_BYTES], known[512] = "";
    const bool text = rpc_in_text(call->params, "name", name, sizeof name) > 0;
    const struct config_limit *l = text ? limits_find(c->config, name) : NULL;
    if (l)
        return l;
    for (uint32_t i = 0; i < c->config->n_limits && strlen(known) + 80 < sizeof known; i++) {
        strcat(known, i ? ", " : "; there is ");
        strncat(known, c->config->limits[i].name, 64);
    }
    call_error(c, call->reply, RPC_NOT_FOUND, "there is no limit \"%s\"%s", text ? name : "",
               known);
    return NULL;
}

/* ---- what a call asks for ---- */

static bool set_exempt(struct control *c, const struct rpc_call *call, struct limit_terms *terms,
                       const char *text)
{
    char wrong[64];
    const char *why;
    terms->exempts = true;
    if (exempt_parse(&terms->exempt, text, wrong, sizeof wrong, &why) == 0)
        return true;
    call_error(c, call->reply, RPC_BAD_ARGUMENT, "exempt: \"%s\" is wrong; expected %s", wrong,
               why);
    return false;
}

static bool set_one(struct control *c, const struct rpc_call *call, struct limit_terms *terms,
                    const msgpack_object_kv *kv)
{
    char key[64], text[VALUE_MAX];
    if (rpc_in_object_text(&kv->key, key, sizeof key) < 0 ||
        rpc_in_object_text(&kv->val, text, sizeof text) < 0) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "set is a map of short texts and numbers");
        return false;
    }
    if (!strcmp(key, "exempt"))
        return set_exempt(c, call, terms, text);
    const struct config_row *row = config_live_row(CONFIG_SECTION_LIMIT, key);
    const char *right = row ? config_live_set(row, &terms->value, text) : NULL;
    char keys[256];
    if (!row) {
        config_live_keys(CONFIG_SECTION_LIMIT, keys, sizeof keys);
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "%s: unknown; there are %s", key, keys);
    } else if (right) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "%s: %s, not \"%.64s\"", key, right, text);
    }
    return row && !right;
}

bool limit_read_terms(struct control *c, const struct rpc_call *call, struct limit_terms *terms)
{
    const msgpack_object *set = rpc_in_get(call->params, "set");
    const char *why;
    for (uint32_t i = 0; i < set->via.map.size; i++)
        if (!set_one(c, call, terms, &set->via.map.ptr[i]))
            return false;
    if (runtime_limit_check(&terms->value, &why) == 0)
        return true;
    call_error(c, call->reply, RPC_BAD_ARGUMENT, "%s", why);
    return false;
}

/* ---- what a limit looks like ---- */

void limit_put_values(struct rpc_out *o, const struct runtime_limit *v)
{
    rpc_put_values(o, CONFIG_SECTION_LIMIT, v, true);
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

void limit_put_candidate(struct rpc_out *o, const struct config_limit *l,
                         const struct limit_try_terms *terms)
{
    limit_put_values(o, &terms->candidate);
    if (terms->exempts)
        limit_put_exempt(o, l, &terms->exempt);
}

void limit_put_client(struct rpc_out *o, const struct config_limit *l, struct limit_top_row *row,
                      const char *count_name)
{
    char who[3 * LIMIT_TOP_WHO];
    const size_t len =
        limitkey_to_text(l, row->who, sizeof row->who, row->who_len, who, sizeof who);
    rpc_out_map(o, NULL);
    rpc_out_strn(o, "client", who, len);
    rpc_out_u64(o, count_name, row->requests);
    rpc_out_u64(o, "overcount", row->error);
    rpc_out_end(o);
}
