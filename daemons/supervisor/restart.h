/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * restart: leaves everything that this process owns to another one, which the service manager starts
 * when we have ended (survive/restart.c), and takes over what such a process has left.
 */
#ifndef POLDER_SUPERVISOR_RESTART_H
#define POLDER_SUPERVISOR_RESTART_H
#include "daemons/supervisor/supervisor.h"

struct custodian;

/* The custodian asks: a block for the next program to look at. */
void restart_pack(struct supervisor *s);
/* It wants all of it there (takes fd). Ends this process; or says why that failed. */
void restart_hand_over(struct supervisor *s, int fd);

/* The custodian, before it forks: the listening sockets of the process before us: that of workers, and
 * that of the admin socket. -1: it had none of its own. */
void restart_take_listeners(const struct custodian *c, int listening[2]);
/* In a process that has its sockets: goes on with what that one has left in the box (-1: there is none);
 * give_up: it lets go of it instead. False: there was nothing. */
bool restart_resume(struct supervisor *s, int box, bool give_up);
#endif
