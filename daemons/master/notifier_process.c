/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * notifier_process: runs the notifier where on_alert names a program. The path is copied when the
 * configuration becomes the current one; the notifier and what it runs have it from here alone.
 */
#include "daemons/master/master.h"
#include "polder/config.h"
#include <stdio.h>
#include <string.h>

#define GRACE_MS 2000

void notifier_process_step(struct master *m)
{
    const struct master_child *c = &m->child[PROC_SLOT_NOTIFIER];
    const char *wanted = master_config(m)->on_alert;
    if (m->phase > MASTER_RUNNING)
        return;
    if (strncmp(m->on_alert, wanted, sizeof m->on_alert - 1)) {
        if (c->wanted)
            child_stop(m, PROC_SLOT_NOTIFIER, GRACE_MS);
        if (c->pid)
            return;
        snprintf(m->on_alert, sizeof m->on_alert, "%s", wanted);
    }
    if (*m->on_alert && !c->wanted)
        child_start(m, PROC_SLOT_NOTIFIER, m->current, 0);
}

void notifier_process_stop(struct master *m, bool now)
{
    if (m->child[PROC_SLOT_NOTIFIER].wanted)
        child_stop(m, PROC_SLOT_NOTIFIER, now ? 0 : GRACE_MS);
}
