/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * names: runs the resolver where a server of the current configuration has a name. It is stopped
 * while another child resolves the names of a new one (config_compile.c), and begins then with the
 * names of the one that is current.
 */
#include "daemons/master/master.h"
#include "polder/server_names.h"

#define GRACE_MS 500 /* it ends at SIGTERM, wherever it is */

void names_again(struct master *m)
{
    m->names_wanted = true;
}

void names_stop(struct master *m)
{
    m->names_wanted = false;
    if (m->child[PROC_SLOT_RESOLVER].wanted)
        child_stop(m, PROC_SLOT_RESOLVER, GRACE_MS);
}

void names_step(struct master *m)
{
    const struct master_child *c = &m->child[PROC_SLOT_RESOLVER];
    if (m->phase >= MASTER_STOPPING || m->stop_signals > 1) {
        names_stop(m);
        return;
    }
    if (!m->names_wanted || c->wanted || c->pid)
        return;
    if (server_names(master_config(m), NULL))
        child_start(m, PROC_SLOT_RESOLVER, m->current, 0);
    else
        m->names_wanted = false;
}
