/* SPDX-License-Identifier: BSD-2-Clause */
/* verify: verify and verify.step: a token for probes, and what there is to be probed. The probes
 * themselves are polderctl's. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/model/fleet_member.h"
#include "daemons/control/model/verification.h"
#include "polder/config_keys.h"
#include "polder/log.h"
#include "polder/rpc_values.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PATH_SIZE 8192

/* ---- what there is ---- */

static void put_key(struct rpc_out *o, const struct config_limit *l)
{
    static const char *const kind[] = {
        [CONFIG_KEY_NONE] = "?",           [CONFIG_KEY_CLIENT] = "client",
        [CONFIG_KEY_HEADER] = "header",    [CONFIG_KEY_COOKIE] = "cookie",
        [CONFIG_KEY_QUERY] = "query",      [CONFIG_KEY_JWT] = "jwt",
        [CONFIG_KEY_ROUTE] = "route",      [CONFIG_KEY_GLOBAL] = "global",
        [CONFIG_KEY_IDENTITY] = "identity"};
    rpc_out_list(o, "key");
    for (uint32_t i = 0; i < l->n_key; i++) {
        rpc_out_map(o, NULL);
        rpc_out_str(o, "kind", kind[l->key[i].kind]);
        rpc_out_str(o, "name", l->key[i].name);
        rpc_out_end(o);
    }
    rpc_out_end(o);
}

/* The running values, and what the file says. */
static void put_limits(const struct control *c, struct rpc_out *o)
{
    struct runtime_values values;
    runtime_read(c->runtime, &values);
    rpc_out_list(o, "limits");
    for (uint32_t i = 0; i < c->config->n_limits; i++) {
        const struct config_limit *l = &c->config->limits[i];
        rpc_out_map(o, NULL);
        rpc_out_str(o, "name", l->name);
        rpc_put_values(o, CONFIG_SECTION_LIMIT, &values.limit[l->index], true);
        rpc_out_u64(o, "file_requests", l->value.requests);
        put_key(o, l);
        rpc_out_end(o);
    }
    rpc_out_end(o);
}

static void put_route(struct rpc_out *o, const struct config_route *r)
{
    rpc_out_map(o, NULL);
    rpc_out_str(o, "route", r->pattern);
    rpc_out_str(o, "verify", r->verify);
    rpc_out_bool(o, "upstream", r->upstream != NULL);
    rpc_out_bool(o, "cache", r->cache != NULL);
    rpc_out_bool(o, "websocket", r->websocket != NULL);
    rpc_out_u64(o, "cost", r->cost);
    if (r->poll)
        rpc_out_u64(o, "min_interval_ms", r->poll->min_interval_ms);
    rpc_out_list(o, "limits");
    for (uint32_t i = 0; i < r->n_limits; i++)
        rpc_out_str(o, NULL, r->limits[i]->name);
    rpc_out_end(o);
    rpc_out_end(o);
}

/* What checks may have failed for. */
static void put_note(const struct control *c, struct rpc_out *o)
{
    const struct config_row *mode = &config_rows[CONFIG_FLEET_cut_off];
    struct fleet_view v;
    char text[600];
    if (!fleet_member_view(c, &v) || v.connected)
        return;
    snprintf(text, sizeof text,
             "this host is cut off from its fleet: cached content is used as cut_off = %s says, "
             "and limits of the fleet as theirs does: %s",
             config_word(mode, c->config->fleet.cut_off), v.why);
    rpc_out_str(o, "note", text);
}

void verify_begin_run(struct control *c, const struct rpc_call *call)
{
    char token[VERIFY_TOKEN_SIZE];
    const int code = verification_begin(c, token);
    if (code) {
        call_error(c, call->reply, RPC_BUSY,
                   "another verify is running; it ends by itself %d seconds after that polderctl",
                   VERIFY_LEASE_MS / 1000);
        return;
    }
    log_info("verify: begun by uid %u, pid %d", (unsigned)call->peer.uid, (int)call->peer.pid);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "token", token);
    rpc_out_u64(o, "lease_ms", VERIFY_LEASE_MS);
    rpc_out_bool(o, "proxy_protocol", c->config->proxy_protocol);
    call_put_listeners(c, o);
    rpc_out_list(o, "routes");
    for (uint32_t i = 0; i < c->config->n_routes; i++)
        put_route(o, &c->config->routes[i]);
    rpc_out_end(o);
    put_limits(c, o);
    put_note(c, o);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

void verify_step_run(struct control *c, const struct rpc_call *call)
{
    char token[VERIFY_TOKEN_SIZE + 1], path[PATH_SIZE];
    if (rpc_in_text(call->params, "token", token, sizeof token) < 0 ||
        !verification_keep(c, token)) {
        call_error(c, call->reply, RPC_NOT_FOUND, "that token is not good, or not any more");
        return;
    }
    const int forgets = rpc_in_text(call->params, "forget", path, sizeof path);
    if (forgets == -EINVAL || (forgets >= 0 && !verification_forget(c, path))) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "forget is a path");
        return;
    }
    if (rpc_in_flag(call->params, "end")) {
        verification_end(c);
        log_info("verify: ended");
    }
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "done", true);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}
