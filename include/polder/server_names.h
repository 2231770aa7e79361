/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * server_names: servers that are written as NAME:PORT, and the addresses of their names in the
 * table of servers.
 *
 * A name is resolved when the configuration is read, and again when its records have expired; never
 * by a process that serves. The child of the master that loads a configuration does the one, the
 * resolver (daemons/resolver) the other, which is stopped meanwhile: so a row's addresses have one
 * writer. A name that does not resolve keeps the addresses that it had, and is asked for again
 * after a growing pause.
 */
#ifndef POLDER_SERVER_NAMES_H
#define POLDER_SERVER_NAMES_H
#include "polder/config.h"
#include "polder/resolve.h"

#define SERVER_NAMES_MS          3500 /* the longest wait at a start or reload */
#define SERVER_NAMES_TTL_MIN_S   1
#define SERVER_NAMES_TTL_MAX_S   300
#define SERVER_NAMES_AGAIN_MAX_S 30 /* after failures: 1, 2, 4, ... seconds up to this */
#define SERVER_NAMES_STALE                                                                         \
    3 /* failures in a row that are a condition although addresses are known */

struct condition_table;
struct server_table;

/* How many servers have a name; out (NULL: only counted) gets them. */
size_t server_names(const struct config *config, const struct config_server **out);
/* The name servers that the configuration states, for resolver_new(). */
void server_names_servers(const struct config *config, char *out, size_t size);
/* Resolves all names, and stores the addresses in their rows. Blocks for at most SERVER_NAMES_MS. */
void server_names_resolve(const struct config *config, struct server_table *table,
                          struct condition_table *conditions);
/* Stores what a lookup has brought; logs a change; raises or clears COND_NAME_UNRESOLVED. Returns
 * when the next one is due, which the row tells too. row NULL: the table is full. */
uint64_t server_names_store(const struct config_server *server, struct server_row *row,
                            const struct resolve_answer *answer, struct condition_table *conditions,
                            uint64_t now_ms);
/* Only reports names that do not resolve, a line each. */
void server_names_check(const struct config *config, config_error_fn on_missing, void *arg);
/* "api/backend.example:8000", as conditions name a server */
void server_subject(const struct config_server *server, char *out, size_t size);

#endif
