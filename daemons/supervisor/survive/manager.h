/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * manager: what the service manager is asked and given when polder-supervisor is told to stop.
 *
 * systemd sends the same signal for a stop and for a restart. Which one it is says the job of the
 * unit, over D-Bus (for whose answer no privilege is needed). A descriptor is given to the store of
 * the unit, which lasts over a restart and ends with a stop.
 *
 * Each call takes at most MANAGER_WAIT_MS.
 */
#ifndef POLDER_SUPERVISOR_MANAGER_H
#define POLDER_SUPERVISOR_MANAGER_H
#include <stdbool.h>
#include <stddef.h>

#define MANAGER_WAIT_MS 1000

/* Was this process started by one? */
bool manager_is_there(void);

/* The type of the job that its unit has now ("stop", "restart"); "": it has none. 0, or a negative
 * errno and why. */
int manager_job(char *type, size_t type_size, char *why, size_t size);

/* Puts pair[0] into the store under that name and closes it. 0; or a negative errno and why: it is
 * not there. What is stored stays there also if the other end is closed. */
int manager_keep(int pair[2], const char *name, char *why, size_t size);
void manager_remove(const char *name);

#endif
