/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * log: log.level, and log.reopen, which ends when every process writes to the new file, so
 * that the old one can be compressed or removed.
 *
 * The master opens the files, also where a SIGUSR1 asks for it; the supervisor, which has a log of
 * its own, is told here each time that has happened.
 */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "polder/access_log.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/log.h"

#include <string.h>

#define REOPEN_PATIENCE_MS 10000

/* ---- log.level ---- */

void log_level_run(struct control *c, const struct rpc_call *call)
{
    _Atomic uint32_t *shared = &c->shared->proc->log_level;
    enum log_level level = (enum log_level)atomic_load(shared);
    char word[16];
    if (rpc_in_get(call->params, "level")) {
        if (rpc_in_text(call->params, "level", word, sizeof word) < 0 ||
            !log_level_parse(word, &level)) {
            call_error(c, call->reply, RPC_BAD_ARGUMENT,
                       "level: expected error, warning, info or debug");
            return;
        }
        atomic_store(shared, (uint32_t)level);
        peers_tell_log_level(&c->peers, log_level_word(level));
    }
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "level", log_level_word(level));
    rpc_out_str(o, "configured", log_level_word((enum log_level)c->config->log_level));
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- log.reopen ---- */

static void on_supervisor(void *arg, enum rpc_error code, const char *message,
                          const msgpack_object *result)
{
    struct control *c = arg;
    (void)result;
    c->reopen.supervisor_requested = false;
    c->reopen.supervisor_failed = code != 0;
    if (code)
        log_warning("log: polder-supervisor has not opened its log again: %s", message);
    log_reopen_follow(c);
}

static void ask_supervisor(struct control *c)
{
    c->reopen.supervisor_there = peers_has_supervisor(&c->peers);
    c->reopen.supervisor_failed = false;
    if (!c->reopen.supervisor_there || c->reopen.supervisor_requested)
        return;
    c->reopen.supervisor_requested = true;
    rpc_client_call(&c->peers.supervisor, "log.reopen", NULL, PEERS_ANSWER_MS, on_supervisor, c);
}

/* Workers that still write to the old file. */
static uint32_t workers_behind(const struct control *c)
{
    const struct proc_table *proc = c->shared->proc;
    const uint32_t now = atomic_load(&proc->log_opening);
    uint32_t n = 0;
    for (unsigned i = PROC_SLOT_WORKER0; i < PROC_SLOTS; i++) {
        const struct proc_slot *slot = &proc->slot[i];
        const uint32_t state = atomic_load(&slot->state), at = atomic_load(&slot->log_opening);
        n += (state == PROC_READY || state == PROC_DRAINING) && at != PROC_NO_LOG && at != now;
    }
    return n;
}

static void reopened(struct control *c, struct rpc_reply *reply)
{
    static const char *const names[] = {[CONFIG_LOG_OFF] = "off", [CONFIG_LOG_STDERR] = "stderr"};
    const struct config *config = c->config;
    struct rpc_out *o = rpc_reply_result(reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "reopened", true);
    rpc_out_str(o, "access_log",
                config->access_log_path[0] ? config->access_log_path : names[config->access_log]);
    rpc_out_str(o, "supervisor",
                !c->reopen.supervisor_there   ? "none"
                : c->reopen.supervisor_failed ? "failed"
                                              : "reopened");
    rpc_out_end(o);
    rpc_reply_send(reply);
}

/* True: it is over, and answered. */
static bool reopen_look(struct control *c, const struct call_wait *w)
{
    const struct proc_table *proc = c->shared->proc;
    const bool done = (int32_t)(atomic_load(&proc->log_reopen_done) - w->requested) >= 0;
    const int error = done ? atomic_load(&proc->log_reopen_error) : 0;
    char why[512];
    if (error) {
        access_log_explain(c->config, -error, why, sizeof why);
        call_error(c, w->reply, RPC_FAILED, "%s; going on with the old file", why);
        return true;
    }
    const uint32_t behind = workers_behind(c);
    if (done && !behind && !c->reopen.supervisor_requested) {
        reopened(c, w->reply);
        return true;
    }
    if (clock_mono_ms() < w->until_ms)
        return false;
    call_error(c, w->reply, RPC_FAILED, "%u workers have not changed to the new file in time",
               behind);
    return true;
}

void log_reopen_follow(struct control *c)
{
    const uint32_t opening = atomic_load(&c->shared->proc->log_opening);
    if (opening != c->reopen.opening) {
        c->reopen.opening = opening;
        ask_supervisor(c);
    }
    call_waits_follow(c, &c->reopen.waits, reopen_look);
}

void log_reopen_run(struct control *c, const struct rpc_call *call)
{
    call_wait(c, &c->reopen.waits, call->reply, &c->shared->proc->log_reopen_requested,
              REOPEN_PATIENCE_MS);
}
