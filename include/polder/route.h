/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * route: which route a request takes. The exact path wins, then the longest prefix before '*'.
 *
 * config_load() builds an index into its arena (route_index_build), so that a look-up costs a hash
 * for the exact path and one for each length of prefix that exists, however many routes there are.
 */
#ifndef POLDER_ROUTE_H
#define POLDER_ROUTE_H
#include <stddef.h>
#include <stdint.h>

struct config;
struct config_arena;
struct config_route;
struct route_index;

/* path: as route_path_normal() left it, without the query. NULL: no route matches (404). */
const struct config_route *route_find(const struct config *config, const char *path, size_t len);
/* For config_load, when config->routes is complete. NULL: the arena is full. */
const struct route_index *route_index_build(struct config_arena *arena,
                                            const struct config *config);

/* The one spelling of a path (RFC 3986 section 6.2.2): escapes of unreserved characters decoded,
 * the hexadecimal digits of others in upper case, dot segments removed. Malformed escapes stay as
 * they are, and so do double slashes. Returns the length written; 0: out is too small (it never has
 * to be larger than len). */
size_t route_path_normal(const char *path, size_t len, char *out, size_t size);
#endif
