/* SPDX-License-Identifier: BSD-2-Clause */
/* child: the process of the WebSockets, as its custodian forks it, watches it and sees it end. */
#ifndef POLDER_SUPERVISOR_CHILD_H
#define POLDER_SUPERVISOR_CHILD_H
#include "daemons/supervisor/survive/custodian.h"

/* True in the child. */
bool child_fork(struct custodian *c);
/* How long the next one waits. */
uint64_t child_pause_ms(const struct custodian *c);
/* It has ended, and all that it has said was heard. -1: another follows; else our exit code. */
int child_ended(struct custodian *c, int status);
/* Aborts one that hangs. */
void child_watch(struct custodian *c, uint64_t now_ms);
#endif
