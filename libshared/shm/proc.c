/* SPDX-License-Identifier: BSD-2-Clause */
/* proc: names of slots and states, for logs, status and metrics. */
#include "polder/proc.h"

_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2,
               "atomics in shared memory must be lock-free");
_Static_assert(offsetof(struct proc_table, slot) % 128 == 0, "slots on their own cache lines");

const char *proc_slot_name(unsigned slot)
{
    switch (slot) {
    case PROC_SLOT_MASTER:
        return "master";
    case PROC_SLOT_KEEPER:
        return "keeper";
    case PROC_SLOT_CONTROL:
        return "control";
    case PROC_SLOT_SUPERVISOR:
        return "supervisor";
    case PROC_SLOT_NOTIFIER:
        return "notifier";
    case PROC_SLOT_RESOLVER:
        return "resolver";
    default:
        return slot < PROC_SLOTS ? "worker" : "unknown";
    }
}

const char *proc_state_name(enum proc_state state)
{
    switch (state) {
    case PROC_FREE:
        return "free";
    case PROC_STARTING:
        return "starting";
    case PROC_READY:
        return "ready";
    case PROC_DRAINING:
        return "draining";
    case PROC_DEAD:
        return "dead";
    }
    return "unknown";
}
