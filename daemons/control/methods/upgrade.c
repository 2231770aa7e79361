/* SPDX-License-Identifier: BSD-2-Clause */
/* upgrade: upgrade. Control is replaced on the way, so it cannot answer at the end: the caller asks for
 * the state until its number is done. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"

#include <string.h>

static const char *state_name(uint32_t state)
{
    static const char *const name[] = {"none", "running", "ok", "failed", "running"};
    return state < sizeof name / sizeof *name ? name[state] : "unknown";
}

static void state_show(const struct control *c, struct rpc_reply *reply)
{
    const struct proc_table *proc = c->shared->proc;
    const uint32_t done = atomic_load(&proc->upgrade_done);
    char message[sizeof proc->upgrade_message];
    memcpy(message, proc->upgrade_message, sizeof message);
    message[sizeof message - 1] = 0;
    struct rpc_out *o = rpc_reply_result(reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "upgrade", state_name(atomic_load(&proc->upgrade_state)));
    rpc_out_str(o, "version", POLDER_VERSION);
    rpc_out_str(o, "message", message);
    rpc_out_u64(o, "number", done);
    rpc_out_u64(o, "begun", atomic_load(&proc->upgrade_requested));
    rpc_out_end(o);
    rpc_reply_send(reply);
}

void upgrade_run(struct control *c, const struct rpc_call *call)
{
    if (rpc_in_flag(call->params, "state")) {
        state_show(c, call->reply);
        return;
    }
    const uint32_t number = atomic_fetch_add(&c->shared->proc->upgrade_requested, 1) + 1;
    shared_wake_master(c->shared);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "upgrade", "asked");
    rpc_out_u64(o, "number", number);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}
