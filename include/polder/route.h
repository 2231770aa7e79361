/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * route: which route a request takes. The exact path wins, then the longest prefix before '*'.
 */
#ifndef POLDER_ROUTE_H
#define POLDER_ROUTE_H
#include <stddef.h>

struct config;
struct config_route;

/* path: decoded as the cache key sees it, without the query. NULL: no route matches (404). */
const struct config_route *route_find(const struct config *config, const char *path, size_t len);
#endif
