/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host: whether a request for the ops pages names this service.
 *
 * A page of somebody else's can lead a name of its own to this address, and then read the ops pages
 * with the browser of whoever looks at it (DNS rebinding). Such a request says that name in Host.
 * What is taken: an IP address of any kind, for it takes a name to rebind; localhost; the host of
 * ops.listen; and the names of ops.hosts.
 */
#ifndef POLDER_CONTROL_OPS_HOST_H
#define POLDER_CONTROL_OPS_HOST_H
#include "polder/field.h"
#include <stdbool.h>

struct config;

/* host: of Host, with a port or without; empty: none, as HTTP/1.0 may. */
bool host_is_ours(const struct config *config, struct str host);
#endif
