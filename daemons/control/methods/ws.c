/* SPDX-License-Identifier: BSD-2-Clause */
/* ws: ws.set and ws.revert. The supervisor judges and changes; what is to be kept is
 * written here when it has agreed. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/model/fleet_member.h"
#include "daemons/control/methods/persist.h"
#include "polder/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS_MAX         16
#define UPGRADE_PROOF_MS 10000 /* longer than it may take */

struct ws_change {
    struct control *control;
    struct rpc_reply *reply;
    size_t n;
    struct setting setting[KEYS_MAX];
};

static void ws_forward(struct control *c, const struct rpc_call *call, const char *method)
{
    struct rpc_out params;
    rpc_out_init(&params);
    rpc_out_object(&params, NULL, call->params);
    call_forward(c, call->reply, &c->peers.supervisor, method, &params);
}

static void on_changed(void *arg, enum rpc_error code, const char *message,
                       const msgpack_object *result)
{
    struct ws_change *w = arg;
    const char *state_dir = w->control->config->state_dir;
    int kept = 0;
    for (size_t i = 0; i < w->n; i++)
        settings_base(w->control->config, &w->setting[i]);
    if (code == RPC_OK)
        kept = settings_save(state_dir, w->setting, w->n);
    if (code == RPC_UNAVAILABLE) {
        call_error(w->control, w->reply, code, "no supervisor answers (%s)", message);
    } else if (code) {
        call_error(w->control, w->reply, code, "%s", message);
    } else if (kept) {
        call_error(w->control, w->reply, RPC_FAILED,
                   "changed until a restart, but not kept: cannot write %s/settings.mp: %s",
                   state_dir, strerror(-kept));
    } else {
        rpc_out_object(rpc_reply_result(w->reply), NULL, result);
        rpc_reply_send(w->reply);
    }
    free(w);
}

/* False: the call is answered. */
static bool read_settings(struct control *c, const struct rpc_call *call, struct ws_change *w)
{
    const msgpack_object *set = rpc_in_get(call->params, "set");
    char route[SETTINGS_SECTION - 16] = "";
    const bool of_route = rpc_in_text(set, "route", route, sizeof route) >= 0;
    for (uint32_t i = 0; i < set->via.map.size; i++) {
        struct setting *s = &w->setting[w->n];
        if (w->n == KEYS_MAX || rpc_in_object_text(&set->via.map.ptr[i].key, s->key, 64) < 0 ||
            rpc_in_object_text(&set->via.map.ptr[i].val, s->value, sizeof s->value) < 0 ||
            (!strcmp(s->key, "route") && !of_route)) {
            call_error(c, call->reply, RPC_BAD_ARGUMENT,
                       "at most %d values of at most %d bytes can be kept at once", KEYS_MAX,
                       SETTINGS_VALUE - 1);
            return false;
        }
        if (!strcmp(s->key, "route"))
            continue;
        snprintf(s->section, sizeof s->section, of_route ? "websocket %s" : "websocket", route);
        w->n++;
    }
    return true;
}

/* What other hosts do with it is not waited for. */
static bool tell_fleet(struct control *c, const struct rpc_call *call)
{
    static char text[FLEET_TEXT_MAX + 1];
    const int len = rpc_in_text(call->params, "text", text, sizeof text);
    if (len < 0) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "a text for the fleet has at most %d bytes",
                   FLEET_TEXT_MAX);
        return false;
    }
    if (!fleet_member_tell(c, FLEET_TEXT, false, text, (size_t)len, UINT64_MAX, NULL, NULL)) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT,
                   "this host is in no fleet: the configuration has no section fleet");
        return false;
    }
    return true;
}

void ws_broadcast(struct control *c, const struct rpc_call *call)
{
    if (!rpc_in_flag(call->params, "fleet") || tell_fleet(c, call))
        ws_forward(c, call, "ws.broadcast");
}

void ws_set(struct control *c, const struct rpc_call *call)
{
    struct rpc_out params;
    if (!rpc_in_flag(call->params, "persist")) {
        c->ws_changed = true;
        ws_forward(c, call, "ws.set");
        return;
    }
    struct ws_change *w = calloc(1, sizeof *w);
    if (!w) {
        call_error(c, call->reply, RPC_FAILED, "out of memory");
        return;
    }
    w->control = c;
    w->reply = call->reply;
    if (!read_settings(c, call, w)) {
        free(w);
        return;
    }
    rpc_out_init(&params);
    rpc_out_object(&params, NULL, call->params);
    rpc_client_call(&c->peers.supervisor, "ws.set", &params, PEERS_ANSWER_MS, on_changed, w);
}

/* All of a route, or of what is set for all and of every route. */
static bool ws_forget_settings(struct control *c, const struct rpc_call *call)
{
    char section[SETTINGS_SECTION], route[SETTINGS_SECTION - 16];
    if (rpc_in_text(call->params, "route", route, sizeof route) >= 0) {
        snprintf(section, sizeof section, "websocket %s", route);
        return persist_forget(c, call, section, NULL);
    }
    for (uint32_t i = 0; i < c->config->n_routes; i++) {
        snprintf(section, sizeof section, "websocket %.200s", c->config->routes[i].pattern);
        if (c->config->routes[i].websocket && !persist_forget(c, call, section, NULL))
            return false;
    }
    return persist_forget(c, call, "websocket", NULL);
}

void ws_revert(struct control *c, const struct rpc_call *call)
{
    if (!rpc_in_get(call->params, "route"))
        c->ws_changed = false; /* nothing is left of it */
    if (ws_forget_settings(c, call))
        ws_forward(c, call, "ws.revert");
}

void ws_upgrade(struct control *c, const struct rpc_call *call)
{
    struct rpc_out params;
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    rpc_out_end(&params);
    call_forward_for(c, call->reply, &c->peers.supervisor, "supervisor.upgrade", &params,
                     UPGRADE_PROOF_MS);
}
