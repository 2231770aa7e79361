/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_build: what the builders of the tree share. Private to libshared/config_build*.c.
 *
 * What they make lives in the arena, as long as the configuration does. What is wrong is complained
 * of where it stands, and building goes on, so that all complaints come at once; config_build()
 * gives the tree away only if there were none.
 */
#ifndef POLDER_LIBSHARED_CONFIG_CONFIG_BUILD_H
#define POLDER_LIBSHARED_CONFIG_CONFIG_BUILD_H
#include "libshared/config/config_parse.h"

/* ---- config_values.c: a section that is missing (NULL) states nothing ---- */

/* The section of that name, or NULL. */
cfg_t *config_section(cfg_t *parent, const char *name);
/* As written, or NULL. */
const char *config_stated(cfg_t *section, const char *key);
/* Fills what the section's rows name in its struct with what is stated, or with the initial value;
 * returns which are stated (CONFIG_BIT). Left to the caller are the types at the end of enum
 * config_type, and numbers that are neither stated nor have an initial value. */
uint64_t config_read(struct config_parse *p, cfg_t *section, enum config_section keys, void *out);
/* Then, within a route: takes over from the top level's what the table says, and complains of what
 * belongs there. */
void config_within_route(struct config_parse *p, cfg_t *section, enum config_section keys, void *in,
                         uint64_t stated, const void *top);
/* What the list has; n is 0 where there is no memory. */
const char *const *config_strings_of(struct config_parse *p, cfg_t *section, const char *key,
                                     uint32_t *n);
/* Zeroed memory for n things of that size. NULL, after a complaint: the arena is full. */
void *config_take(struct config_parse *p, size_t n, size_t size);
/* A name of an upstream, limit or alert: it is typed on command lines and shown in metrics. */
void config_check_name(struct config_parse *p, const char *what, const char *name, int line);
/* The name of a header field, or the beginning of names: "x-shop-id", "x-shop-*". */
bool config_is_field_pattern(const char *text);
/* Each value of a list, with its own line. right: what would be, in the complaint. */
void config_check_each(struct config_parse *p, const cfg_t *section, const char *key,
                       const char *const *values, uint32_t n, bool (*good)(const char *),
                       const char *right);

/* ---- a file each, or two functions of one ---- */

void config_build_listen(struct config_parse *p, struct config *c);
void config_build_resolver(struct config_parse *p, struct config *c);
void config_build_process(struct config_parse *p, struct config *c);
void config_build_cache(struct config_parse *p, cfg_t *s, struct config_cache *c);
/* What the store takes at most; where the file says more that is a mistake. */
void config_check_max_body(struct config_parse *p, cfg_t *s, struct config_cache *c,
                           uint64_t max_bytes);
/* Warns of parameters that tell clients apart and are no part of the route's keys. */
void config_check_query_keys(struct config_parse *p, const struct config_route *r,
                             const struct config_key *keys, uint32_t n);
/* A route's cache section: what it does not state comes from the top-level one. polled: the route
 * has a poll section. NULL: no memory. */
struct config_cache *config_build_route_cache(struct config_parse *p, cfg_t *s,
                                              const struct config_cache *top, bool polled);
/* What `compress` of the section lists; how many. None: it states nothing, or "off". */
uint32_t config_codings_of(struct config_parse *p, cfg_t *s, uint8_t codings[CODINGS]);
void config_build_websocket(struct config_parse *p, cfg_t *s, struct config *c);
const struct config_websocket *config_build_route_websocket(struct config_parse *p, cfg_t *s,
                                                            const struct config_websocket *top);
void config_build_cors(struct config_parse *p, cfg_t *s, struct config_cors *c);
void config_build_upstreams(struct config_parse *p, struct config *c);
void config_build_limits(struct config_parse *p, struct config *c);
/* After what they name: upstreams, limits, and the top-level sections. */
void config_build_routes(struct config_parse *p, struct config *c);
/* Those that are built in, as the file changes them, and its own. */
void config_build_alerts(struct config_parse *p, struct config *c);
void config_build_fleet(struct config_parse *p, struct config *c);
/* Of the whole tree, if nothing was wrong. */
void config_check(struct config_parse *p, const struct config *c);

#endif
