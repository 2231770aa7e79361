/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host: whether a request for the ops pages names this service.
 *
 * A foreign web page can point a name of its own at this address, and then read the ops pages with
 * the browser of its visitor (DNS rebinding). Such a request has that name in Host. Accepted are:
 * any IP address, because rebinding needs a name; localhost; the host of ops.listen; and the names
 * of ops.hosts.
 */
#ifndef POLDER_CONTROL_OPS_HOST_H
#define POLDER_CONTROL_OPS_HOST_H
#include "polder/field.h"
#include <stdbool.h>

struct config;

/* host: of Host, with a port or without; empty: none, as HTTP/1.0 may. */
bool host_is_ours(const struct config *config, struct str host);
#endif
