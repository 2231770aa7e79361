/* SPDX-License-Identifier: BSD-2-Clause */
/* announce: what is said of the service where a program of it has come up, by a start or in place of
 * another: its unit, its sockets, and what its configuration warns of. */
#include "daemons/master/master.h"
#include "polder/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-login.h>

/* "" where no systemd would start us again. */
static void unit_find(char *out, size_t size)
{
    char *unit = NULL;
    const char *dot = NULL;
    if (!getenv("NOTIFY_SOCKET"))
        return;
    if (sd_pid_get_unit(0, &unit) >= 0)
        dot = strrchr(unit, '.');
    snprintf(out, size, "%s", dot && !strcmp(dot, ".service") ? unit : "polder.service");
    free(unit);
}

void master_announce(const struct master *m)
{
    const struct config *config = master_config(m);
    unit_find(m->shared.proc->unit, sizeof m->shared.proc->unit);
    listeners_publish(m);
    listeners_tell(&m->listeners, config);
    privileges_tell_files(m->shared.conditions, config);
    char listening[1024];
    listeners_describe(&m->listeners, listening, sizeof listening);
    log_info("service: polderd " POLDER_VERSION " with %u workers listens on %s", config->workers,
             listening[0] ? listening : "nothing");
    for (uint32_t i = 0; i < config->n_warnings; i++)
        log_warning("config: %s", config->warnings[i]);
}
