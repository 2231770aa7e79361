/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_host: a host of a fleet that is there in the store's list alone, as far as the others can tell. */
#ifndef POLDER_TEST_FLEET_HOST_H
#define POLDER_TEST_FLEET_HOST_H
#include "redis.h"

struct fleet_host_is {
    const char *fleet, *secret, *host;
    unsigned instance, applied;
    unsigned format, entry, object; /* 0: those of today */
};
/* Renews its lease, in the epoch of now. */
void fleet_host_put(struct redis *r, const struct fleet_host_is *is);
#endif
