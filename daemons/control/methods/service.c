/* SPDX-License-Identifier: BSD-2-Clause */
/* service: drain and stop. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/model/health.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

void drain_run(struct control *c, const struct rpc_call *call)
{
    const bool off = rpc_in_flag(call->params, "off");
    atomic_store(&c->shared->proc->drained, off ? 0 : 1);
    shared_wake_workers(c->shared);
    health_follow(c);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "drained", !off);
    rpc_out_u64(o, "connections_open",
                stats_gauge_total(c->shared->stats, STATS_GAUGE_CONNECTIONS_OPEN));
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* A unit would be started again, by Restart= or by the next connection to its socket. */
static bool is_a_unit(struct control *c, const struct rpc_call *call)
{
    const struct proc_table *proc = c->shared->proc;
    char name[sizeof proc->unit];
    snprintf(name, sizeof name, "%s", proc->unit);
    if (!*name)
        return false;
    char *dot = strrchr(name, '.');
    const bool sockets = dot && proc->sockets_from_systemd;
    if (dot)
        *dot = 0;
    call_error(c, call->reply, RPC_FAILED,
               "systemd runs this service and would start it again; what stops it is:\n"
               "systemctl stop %s%s%s.service",
               sockets ? name : "", sockets ? ".socket " : "", name);
    return true;
}

void stop_run(struct control *c, const struct rpc_call *call)
{
    if (is_a_unit(c, call))
        return;
    if (kill(c->process->master_pid, SIGTERM) < 0) {
        call_error(c, call->reply, RPC_FAILED, "cannot signal the master: %s", strerror(errno));
        return;
    }
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "stopping", true);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}
