/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * resolve: resolves names to addresses, all at once, within a time limit.
 *
 * getaddrinfo() may block for as long as a name server is silent, so no process with an event loop
 * calls it: the child that reads the configuration does, and a helper of control while names are
 * missing. Both are processes that end soon after: resolve_all() leaves threads behind that still
 * wait.
 */
#ifndef POLDER_RESOLVE_H
#define POLDER_RESOLVE_H
#include "polder/server_state.h"

struct resolve_name {
    const char *text;             /* "NAME:PORT" */
    struct server_addresses list; /* both families, in the resolver's order; n 0: none */
    char why[64];                 /* not, where n is 0 */
};
/* Resolves all of them in parallel; those without an answer within timeout_ms have n 0. */
void resolve_all(struct resolve_name *names, size_t n, unsigned timeout_ms);

#endif
