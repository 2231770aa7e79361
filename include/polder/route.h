/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * route: which route a request takes. The exact path wins, then the longest prefix before '*'.
 *
 * Paths have two spellings. route_path_normal() makes the one that cache keys are made of: paths
 * that RFC 3986 calls equivalent become the same bytes. Backends treat more paths as equal: most
 * decode every escape, many merge slashes ("/api/quota%2Fstatus", "//api/quota/status"). A limit
 * must not be evaded like that, so route_find() compares patterns and paths as such a backend
 * would: every escape decoded once, runs of slashes as one, then without dot segments.
 *
 * An escaped slash is where backends differ: one reads "/account/..%2Fstatic/x" as a path below
 * /account, the next one as /static/x. If the two readings lead to different routes, the wrong
 * route's rules might be applied: route_is_ambiguous() detects that, and such a path is refused
 * (url_normalise()).
 *
 * config_load() builds an index into its arena (route_index_build): a tree of the patterns' bytes,
 * so a lookup costs no more than comparing the matching part of the path, however many routes there
 * are.
 */
#ifndef POLDER_ROUTE_H
#define POLDER_ROUTE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;
struct config_arena;
struct config_route;
struct route_index;

/* path: as route_path_normal() left it, without the query. NULL: no route matches (404). */
const struct config_route *route_find(const struct config *config, const char *path, size_t len);
/* Would a backend that leaves escaped slashes alone take another route than found, which is what
 * route_find() says? */
bool route_is_ambiguous(const struct config *config, const char *path, size_t len,
                        const struct config_route *found);
/* The route of the raw bytes, as seen by a backend that decodes nothing. */
const struct config_route *route_find_as_sent(const struct config *config, const char *path,
                                              size_t len);
/* For config_load, when config->routes is complete. Two routes that match the same requests are
 * returned in twins[] (else NULL). NULL: the arena is full. */
const struct route_index *route_index_build(struct config_arena *arena, const struct config *config,
                                            const struct config_route *twins[2]);

/* The one spelling of a path (RFC 3986 section 6.2.2): escapes of unreserved characters decoded,
 * the hexadecimal digits of others in upper case, dot segments removed. Double slashes stay. A path
 * that does not begin with '/' ("*") stays as it is. Returns the length written, which is never
 * more than len; -EINVAL for a malformed escape or a NUL; -ENOBUFS if len > size. */
int route_path_normal(const char *path, size_t len, char *out, size_t size);
#endif
