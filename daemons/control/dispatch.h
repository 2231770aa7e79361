/* SPDX-License-Identifier: BSD-2-Clause */
/* dispatch: finds the method of a call; checks its arguments and logs changes. */
#ifndef POLDER_CONTROL_DISPATCH_H
#define POLDER_CONTROL_DISPATCH_H
#include "daemons/rpc/server.h"

void dispatch_call(void *arg, const struct rpc_call *call); /* an rpc_handler; arg: the control */
#endif
