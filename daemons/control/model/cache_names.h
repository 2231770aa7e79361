/* SPDX-License-Identifier: BSD-2-Clause */
/* cache_names: converts names of stored objects as operators write them to cache keys. */
#ifndef POLDER_CONTROL_CACHE_NAMES_H
#define POLDER_CONTROL_CACHE_NAMES_H
#include <stddef.h>

#define CACHE_URL_SIZE 8400 /* a target of 8 KiB and a host, with the NUL */

struct config;
struct config_route;

/* "http://HOST/…", "HOST/…" or "/…" as prefixes are compared: host in lower case, path normalised,
 * query as it is. Returns the length or a negative errno. */
int cache_prefix_normal(const char *text, char *out, size_t size);
/* "http://HOST/PATH", "HOST/PATH" or, of all hosts, "/PATH". The same; 0: it is none. */
int cache_url_normal(const struct config *config, const char *text, char *out, size_t size);
/* The route of a result of cache_url_normal(), or NULL. */
const struct config_route *cache_url_route(const struct config *config, const char *url,
                                           size_t len);
#endif
