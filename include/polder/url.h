/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * url: the one spelling of a URL that cache keys, invalidation and listings use:
 * "host/path?query" with the host in lower case and without port 80 or an empty one, the path
 * normalised as routes see it, the query without the parameters that the route ignores. Workers and
 * control must agree on every byte of it, so both call this.
 */
#ifndef POLDER_URL_H
#define POLDER_URL_H
#include "polder/field.h"

struct config;
struct config_route;

/* path starts with '/'; query without '?', .at NULL where there is none. Returns the length written
 * to out, -ENOBUFS, or -EINVAL for a malformed escape in the path, or one that decodes to another
 * route (route.h). *route: the route of the path, NULL if none matches. */
int url_normalise(const struct config *config, struct str host, struct str path, struct str query,
                  char *out, size_t size, const struct config_route **route);
/* The same from text as an operator writes it: "http://host/path?query", "host/path?query".
 * -EINVAL: it has no path or no host, or a malformed escape; -ENOBUFS. */
int url_normalise_text(const struct config *config, const char *text, size_t len, char *out,
                       size_t size, const struct config_route **route);
#endif
