/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * server_names: servers that are written as NAME:PORT, and the addresses of their names in the
 * table of servers.
 *
 * A name is resolved when the configuration is read, and retried while it has no address; never by
 * a process that serves. Children of the master do it, one at a time: the one that loads a
 * configuration, and one that retries missing names. So a row's addresses have one writer. A name
 * that fails to resolve at a reload keeps the addresses that it had.
 */
#ifndef POLDER_SERVER_NAMES_H
#define POLDER_SERVER_NAMES_H
#include "polder/config.h"

#define SERVER_NAMES_MS 3000 /* the longest wait for the resolver */

struct condition_table;
struct server_table;

/* Is any name of the configuration still without an address? */
bool server_names_missing(const struct config *config, struct server_table *table);
/* Resolves all names, or the missing ones, and stores the addresses in their rows; raises
 * and clears COND_NAME_UNRESOLVED. Blocks for at most SERVER_NAMES_MS, and leaves threads behind.
 */
void server_names_resolve(const struct config *config, struct server_table *table,
                          struct condition_table *conditions, bool missing_only);
/* Only reports names that do not resolve, a line each. */
void server_names_check(const struct config *config, config_error_fn on_missing, void *arg);
/* "api/backend.example:8000", as conditions name a server */
void server_subject(const struct config_server *server, char *out, size_t size);

#endif
