/* SPDX-License-Identifier: BSD-2-Clause */
/* reload: reload, which is answered when the new configuration serves or was refused. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/model/settings.h"
#include "polder/clock.h"

#include <string.h>

#define RELOAD_PATIENCE_MS 90000

static void put_lines(struct rpc_out *o, const char *key, unsigned n,
                      const char (*line)[SETTINGS_REPORT_LINE])
{
    rpc_out_list(o, key);
    for (unsigned i = 0; i < n; i++)
        rpc_out_str(o, NULL, line[i]);
    rpc_out_end(o);
}

static void reloaded(struct control *c, struct rpc_reply *reply)
{
    struct rpc_out *o = rpc_reply_result(reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "reloaded", true);
    rpc_out_u64(o, "generation", atomic_load(&c->shared->proc->generation));
    put_lines(o, "kept", c->report ? c->report->n_kept : 0, c->report ? c->report->kept : NULL);
    put_lines(o, "reset", c->report ? c->report->n_reset : 0, c->report ? c->report->reset : NULL);
    rpc_out_end(o);
    rpc_reply_send(reply);
}

/* The caller waits for that one. */
static void upgrades(struct control *c, struct rpc_reply *reply)
{
    struct rpc_out *o = rpc_reply_result(reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "upgrade", "asked");
    rpc_out_u64(o, "number", atomic_load(&c->shared->proc->upgrade_requested));
    rpc_out_end(o);
    rpc_reply_send(reply);
}

/* true: it is over, and answered */
static bool reload_look(struct control *c, const struct call_wait *w)
{
    struct proc_table *proc = c->shared->proc;
    const int32_t past = (int32_t)(atomic_load(&proc->reload_done) - w->requested);
    const uint32_t state = atomic_load(&proc->reload_state);
    if (past >= 0 && state == PROC_RELOAD_OK) {
        reloaded(c, w->reply);
    } else if (past >= 0 && state == PROC_RELOAD_UPGRADES) {
        upgrades(c, w->reply);
    } else if (past >= 0 && state == PROC_RELOAD_FAILED) {
        char why[sizeof proc->reload_message];
        memcpy(why, proc->reload_message, sizeof why);
        why[sizeof why - 1] = 0;
        for (size_t n = strlen(why); n && why[n - 1] == '\n';)
            why[--n] = 0;
        call_error(c, w->reply, RPC_FAILED, "%s", why);
    } else if (clock_mono_ms() > w->until_ms) {
        call_error(c, w->reply, RPC_FAILED, "the reload is not over yet; see the log");
    } else {
        return false;
    }
    return true;
}

void reload_follow(struct control *c)
{
    call_waits_follow(c, &c->reloads, reload_look);
}

void reload_run(struct control *c, const struct rpc_call *call)
{
    if (!rpc_in_flag(call->params, "no-wait")) {
        call_wait(c, &c->reloads, call->reply, &c->shared->proc->reload_requested,
                  RELOAD_PATIENCE_MS);
        return;
    }
    atomic_fetch_add(&c->shared->proc->reload_requested, 1);
    shared_wake_master(c->shared);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "asked", true);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}
