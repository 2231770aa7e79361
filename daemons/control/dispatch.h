/* SPDX-License-Identifier: BSD-2-Clause */
/* dispatch: which method answers a call; checks its arguments and logs what changes something. */
#ifndef POLDER_CONTROL_DISPATCH_H
#define POLDER_CONTROL_DISPATCH_H
#include "daemons/rpc/server.h"

void dispatch_call(void *arg, const struct rpc_call *call); /* an rpc_handler; arg: the control */
#endif
