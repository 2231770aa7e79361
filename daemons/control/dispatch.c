/* SPDX-License-Identifier: BSD-2-Clause */
/* dispatch: see dispatch.h. Each row of methods.def has its handler here. */
#include "daemons/control/dispatch.h"
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/model/events.h"
#include "daemons/control/model/settings.h"
#include "polder/log.h"

#include <stdio.h>

static void ask_supervisor(struct control *c, const struct rpc_call *call)
{
    struct rpc_out params;
    char method[32];
    rpc_out_init(&params);
    rpc_out_object(&params, NULL, call->params);
    snprintf(method, sizeof method, "%.*s", (int)call->method_len, call->method);
    call_forward(c, call->reply, &c->peers.supervisor, method, &params);
}

/* A row each, whatever their number. */
/* clang-format off */
static void (*const handler[RPC_METHODS])(struct control *, const struct rpc_call *) = {
    [RPC_METHOD_STATUS] = status_show,
    [RPC_METHOD_CACHE_STATS] = cache_stats,
    [RPC_METHOD_CACHE_LIST] = cache_list,
    [RPC_METHOD_CACHE_SHOW] = cache_show,
    [RPC_METHOD_CACHE_WHY] = cache_why,
    [RPC_METHOD_CACHE_INVALIDATE] = cache_invalidate,
    [RPC_METHOD_CACHE_WARM] = cache_warm, /* asks the first worker */
    [RPC_METHOD_CACHE_GUARD] = cache_guard,
    [RPC_METHOD_CACHE_SET] = cache_set,
    [RPC_METHOD_CACHE_REVERT] = cache_revert,
    [RPC_METHOD_LIMIT_LIST] = limit_list,
    [RPC_METHOD_LIMIT_SHOW] = limit_show,
    [RPC_METHOD_LIMIT_TOP] = limit_top,
    [RPC_METHOD_POLL_TOP] = poll_top,
    [RPC_METHOD_LIMIT_CONFIRM] = limit_confirm,
    [RPC_METHOD_LIMIT_SET] = limit_set,
    [RPC_METHOD_LIMIT_REVERT] = limit_revert,
    [RPC_METHOD_LIMIT_TRY] = limit_try, /* or only a question */
    [RPC_METHOD_LIMIT_RESET] = limit_reset,
    [RPC_METHOD_WS_STATS] = ask_supervisor,
    [RPC_METHOD_WS_LIST] = ask_supervisor,
    [RPC_METHOD_WS_CLOSE] = ask_supervisor,
    [RPC_METHOD_WS_BROADCAST] = ws_broadcast,
    [RPC_METHOD_WS_SET] = ws_set,
    [RPC_METHOD_WS_REVERT] = ws_revert,
    [RPC_METHOD_WS_UPGRADE] = ws_upgrade,
    [RPC_METHOD_UPSTREAM_LIST] = upstream_list,
    [RPC_METHOD_UPSTREAM_WEIGHT] = upstream_weight,
    [RPC_METHOD_UPSTREAM_SHIFT] = upstream_shift,
    [RPC_METHOD_UPSTREAM_WHY] = upstream_why,
    [RPC_METHOD_UPSTREAM_REVERT] = upstream_revert,
    [RPC_METHOD_FLEET] = fleet_show,
    [RPC_METHOD_FLEET_FORGET] = fleet_forget_host,
    [RPC_METHOD_COST] = cost_show,
    [RPC_METHOD_HISTORY] = history_show,
    [RPC_METHOD_VERIFY] = verify_begin_run,
    [RPC_METHOD_VERIFY_STEP] = verify_step_run,
    [RPC_METHOD_ALERT_LIST] = alert_list,
    [RPC_METHOD_LOG_LEVEL] = log_level_run, /* or only a question */
    [RPC_METHOD_LOG_REOPEN] = log_reopen_run,
    [RPC_METHOD_RELOAD] = reload_run,
    [RPC_METHOD_UPGRADE] = upgrade_run, /* or only a question */
    [RPC_METHOD_DRAIN] = drain_run,
    [RPC_METHOD_STOP] = stop_run,
    [RPC_METHOD_WATCH] = watch_run,
    [RPC_METHOD_TOP] = top_show,
};
/* clang-format on */

/* limit.try without anything to be tried, log.level without a level, and upgrade of which the state
 * is wanted only ask. */
static bool changes(int method, const msgpack_object *params)
{
    return rpc_methods[method].changes &&
           (method != RPC_METHOD_LIMIT_TRY || rpc_in_get(params, "set")) &&
           (method != RPC_METHOD_LOG_LEVEL || rpc_in_get(params, "level")) &&
           (method != RPC_METHOD_UPGRADE || !rpc_in_flag(params, "state"));
}

/* What the next program is handed; values of the supervisor are its own. */
static bool sets_values(int method)
{
    switch (method) {
    case RPC_METHOD_CACHE_SET:
    case RPC_METHOD_CACHE_REVERT:
    case RPC_METHOD_LIMIT_SET:
    case RPC_METHOD_LIMIT_TRY:
    case RPC_METHOD_LIMIT_CONFIRM:
    case RPC_METHOD_LIMIT_REVERT:
    case RPC_METHOD_UPSTREAM_WEIGHT:
    case RPC_METHOD_UPSTREAM_SHIFT:
    case RPC_METHOD_UPSTREAM_REVERT:
    case RPC_METHOD_DRAIN:
        return true;
    default:
        return false;
    }
}

void dispatch_call(void *arg, const struct rpc_call *call)
{
    struct control *c = arg;
    char text[1024], name[64];
    const int method = rpc_method_find(call->method, call->method_len);
    stats_add(c->stats, STATS_ADMIN_CALLS, 1);
    if (method < 0 || !handler[method]) {
        call_error(c, call->reply, RPC_NO_METHOD, "there is no method %.*s",
                   (int)(call->method_len < 64 ? call->method_len : 64), call->method);
        return;
    }
    if (rpc_in_check((enum rpc_method)method, call->params, text, sizeof text)) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "%.*s: %s", (int)call->method_len,
                   call->method, text);
        return;
    }
    const bool is_change = changes(method, call->params);
    if (is_change && sets_values(method) && settings_are_handed_on(c)) {
        call_error(c, call->reply, RPC_BUSY,
                   "an upgrade is under way, and would not see the change; try again in a moment");
        return;
    }
    if (is_change) {
        call_describe((enum rpc_method)method, call->params, text, sizeof text);
        log_info("admin: %.*s%s by uid %u, pid %d", (int)call->method_len, call->method, text,
                 (unsigned)call->peer.uid, (int)call->peer.pid);
        snprintf(name, sizeof name, "%.*s", (int)call->method_len, call->method);
        events_add(c, "admin", "called", name, 1, "uid %u,%s", (unsigned)call->peer.uid, text);
    }
    handler[method](c, call);
}
