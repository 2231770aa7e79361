/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_forget: takes a host out of the store's list that does not come back. */
#ifndef POLDER_CONTROL_FLEET_FORGET_H
#define POLDER_CONTROL_FLEET_FORGET_H
#include "daemons/control/model/fleet.h"

enum fleet_forgotten {
    FLEET_FORGOTTEN,
    FLEET_FORGET_LIVES, /* it has a lease */
    FLEET_FORGET_UNKNOWN,
    FLEET_FORGET_FAILED, /* this host is cut off */
};
/* n: processes of that host whose slots are free then; ms of the lease that are left. */
typedef void (*fleet_forgot_fn)(void *arg, enum fleet_forgotten what, uint64_t n);

/* done: once, from the loop, or from within this call. */
void fleet_forget(struct fleet *f, const char *host, fleet_forgot_fn done, void *arg);
#endif
