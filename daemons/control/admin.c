/* SPDX-License-Identifier: BSD-2-Clause */
/* admin: the admin socket. Each row of methods.def has its handler here; keeper and supervisor
 * answer what only they know. */
#include "daemons/control/control.h"
#include "polder/clientip.h"
#include "polder/config.h"
#include "polder/log.h"

#include <errno.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- dispatch ---- */

static void ask_supervisor(struct control *c, const struct rpc_call *call)
{
    struct rpc_out params;
    char method[32];
    rpc_out_init(&params);
    rpc_out_object(&params, NULL, call->params);
    snprintf(method, sizeof method, "%.*s", (int)call->method_len, call->method);
    admin_forward(c, call->reply, &c->peers.supervisor, method, &params);
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
    [RPC_METHOD_WS_BROADCAST] = ask_supervisor,
    [RPC_METHOD_WS_SET] = ws_set,
    [RPC_METHOD_WS_REVERT] = ws_revert,
    [RPC_METHOD_UPSTREAM_LIST] = upstream_list,
    [RPC_METHOD_UPSTREAM_WEIGHT] = upstream_weight,
    [RPC_METHOD_UPSTREAM_REVERT] = upstream_revert,
    [RPC_METHOD_LOG_LEVEL] = log_level_run, /* or only a question */
    [RPC_METHOD_LOG_REOPEN] = log_reopen_run,
    [RPC_METHOD_RELOAD] = reload_run,
    [RPC_METHOD_DRAIN] = drain_run,
    [RPC_METHOD_STOP] = stop_run,
};
/* clang-format on */

void admin_error(struct control *c, struct rpc_reply *reply, enum rpc_error code,
                 const char *format, ...)
{
    char message[2048];
    va_list ap;
    va_start(ap, format);
    vsnprintf(message, sizeof message, format, ap);
    va_end(ap);
    stats_add(c->stats, STATS_ADMIN_ERRORS, 1);
    rpc_reply_error(reply, code, "%s", message);
}

/* limit.try without anything to be tried, and log.level without a level, only ask. */
static bool changes(int method, const msgpack_object *params)
{
    return rpc_methods[method].changes &&
           (method != RPC_METHOD_LIMIT_TRY || rpc_in_get(params, "set")) &&
           (method != RPC_METHOD_LOG_LEVEL || rpc_in_get(params, "level"));
}

static void on_call(void *arg, const struct rpc_call *call)
{
    struct control *c = arg;
    char text[1024];
    const int method = rpc_method_find(call->method, call->method_len);
    stats_add(c->stats, STATS_ADMIN_CALLS, 1);
    if (method < 0 || !handler[method]) {
        admin_error(c, call->reply, RPC_NO_METHOD, "there is no method %.*s",
                    (int)(call->method_len < 64 ? call->method_len : 64), call->method);
        return;
    }
    if (rpc_in_check((enum rpc_method)method, call->params, text, sizeof text)) {
        admin_error(c, call->reply, RPC_BAD_ARGUMENT, "%.*s: %s", (int)call->method_len,
                    call->method, text);
        return;
    }
    if (changes(method, call->params)) {
        admin_describe((enum rpc_method)method, call->params, text, sizeof text);
        log_info("admin: %.*s%s by uid %u, pid %d", (int)call->method_len, call->method, text,
                 (unsigned)call->peer.uid, (int)call->peer.pid);
    }
    handler[method](c, call);
}

/* ---- for the log ---- */

/* One line, whatever bytes came. */
static void make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || (unsigned char)*text >= 0x7f)
            *text = '?';
}

/* Keys of clients, texts and queries of URLs may be secrets: they are not logged. */
static void describe_value(enum rpc_method method, const char *name, char *value)
{
    struct clientip ip;
    if (method == RPC_METHOD_LIMIT_RESET && !strcmp(name, "client") &&
        clientip_parse(value, strlen(value), &ip))
        strcpy(value, "...");
    const bool sets_limit = method == RPC_METHOD_LIMIT_SET || method == RPC_METHOD_LIMIT_TRY;
    if (method == RPC_METHOD_WS_BROADCAST || (sets_limit && !strcmp(name, "exempt") && *value))
        strcpy(value, "...");
    char *query = strchr(value, '?');
    if (query && method == RPC_METHOD_CACHE_INVALIDATE)
        strcpy(query, "?");
}

static void describe_map(enum rpc_method method, const msgpack_object *map, char *out, size_t size)
{
    char name[64], value[256];
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_kv *kv = &map->via.map.ptr[i];
        const size_t at = strlen(out);
        if (rpc_in_object_text(&kv->key, name, sizeof name) < 0)
            strcpy(name, "?");
        if (kv->val.type == MSGPACK_OBJECT_MAP) {
            describe_map(method, &kv->val, out, size);
            continue;
        }
        if (rpc_in_object_text(&kv->val, value, sizeof value - 4) < 0)
            strcpy(value, "...");
        describe_value(method, name, value);
        make_printable(name);
        make_printable(value);
        snprintf(out + at, size - at, " %s=%s", name, value);
    }
}

void admin_describe(enum rpc_method method, const msgpack_object *params, char *out, size_t size)
{
    *out = 0;
    describe_map(method, params, out, size);
}

/* ---- what others answer ---- */

struct forwarded {
    struct control *control;
    struct rpc_reply *reply;
    const char *who;
};

static void on_forwarded(void *arg, enum rpc_error code, const char *message,
                         const msgpack_object *result)
{
    struct forwarded *f = arg;
    if (code == RPC_UNAVAILABLE) {
        admin_error(f->control, f->reply, code, "no %s answers (%s)", f->who, message);
    } else if (code) {
        admin_error(f->control, f->reply, code, "%s", message);
    } else {
        rpc_out_object(rpc_reply_result(f->reply), NULL, result);
        rpc_reply_send(f->reply);
    }
    free(f);
}

void admin_forward_for(struct control *c, struct rpc_reply *reply, struct rpc_client *to,
                       const char *method, struct rpc_out *params, unsigned timeout_ms)
{
    struct forwarded *f = malloc(sizeof *f);
    if (!f) {
        rpc_out_fini(params);
        admin_error(c, reply, RPC_FAILED, "out of memory");
        return;
    }
    *f = (struct forwarded){c, reply, peers_name(&c->peers, to)};
    rpc_client_call(to, method, params, timeout_ms, on_forwarded, f);
}

void admin_forward(struct control *c, struct rpc_reply *reply, struct rpc_client *to,
                   const char *method, struct rpc_out *params)
{
    admin_forward_for(c, reply, to, method, params, PEERS_ANSWER_MS);
}

/* ---- the socket ---- */

static gid_t group_id(const struct control *c)
{
    const char *name = c->config->admin_group;
    const struct group *group = name[0] ? getgrnam(name) : NULL;
    if (name[0] && !group)
        log_warning("admin: there is no group \"%s\" (admin group in %s): only root and uid %u get "
                    "in",
                    name, c->config->path, (unsigned)geteuid());
    return group ? group->gr_gid : (gid_t)-1;
}

/* Said once, not each second. */
static void complain(struct control *c, const char *path, int code)
{
    char text[sizeof c->admin_complaint];
    snprintf(text, sizeof text, "admin: cannot listen on %s: %s%s", path, strerror(-code),
             code == -EADDRINUSE ? "; another Polder answers there" : "");
    if (!strcmp(text, c->admin_complaint))
        return;
    strcpy(c->admin_complaint, text);
    log_error("%s", text);
}

void admin_follow(struct control *c)
{
    char path[128];
    if (c->admin && c->admin_config == c->config)
        return;
    snprintf(path, sizeof path, "%s/admin.sock", c->config->runtime_dir);
    if (c->admin) {
        rpc_server_permit(c->admin, c->config->admin_mode, group_id(c));
    } else {
        const int code = rpc_server_new(&c->admin, c->loop, path, c->config->admin_mode,
                                        group_id(c), on_call, c);
        if (code) {
            complain(c, path, code);
            return;
        }
        c->admin_complaint[0] = 0;
    }
    c->admin_config = c->config;
}

void admin_close(struct control *c)
{
    rpc_server_free(c->admin);
    c->admin = NULL;
}
