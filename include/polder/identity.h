/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * identity: what of a request says who asks: Authorization, Proxy-Authorization, cookies that
 * `ignore_cookies` does not name, the fields of libshared/tables/identity_fields.def and of
 * `identity_headers`, and the header, cookie and jwt parts of any limit or partition.
 *
 * Names and parts of values only; which requests may share what: polder/policy.h. Pure functions
 * over the configuration: any process may call them.
 */
#ifndef POLDER_IDENTITY_H
#define POLDER_IDENTITY_H
#include "polder/config.h"
#include "polder/field.h"

#include <stdbool.h>
#include <stdint.h>

/* Does a field of that name say who asks? Case does not matter, and '_' is '-', as gateways of the
 * CGI kind take it. Not for Cookie, whose parts are looked at one by one. */
bool identity_names_header(const struct config *config, const struct config_cache *cache,
                           struct str name);
/* What such names look like, so that most fields of a request need no closer look: by their first
 * byte the third ones that they may have, a bit each. */
struct identity_filter {
    uint32_t third[32];
};
void identity_filter_make(const struct config *config, const struct config_cache *cache,
                          struct identity_filter *out);
static inline bool identity_filter_lets(const struct identity_filter *f, struct str name)
{
    return name.len < 3 || f->third[name.at[0] & 31] >> (name.at[2] & 31) & 1;
}

/* A number that is another one where any of this, what the route shares, or what its keys are made
 * of is configured otherwise: what was stored under other rules may be somebody's. Never 0. */
uint32_t identity_rules_number(const struct config *config, const struct config_cache *cache);

/* One part of a Cookie field, without the blanks around it. */
struct identity_cookie {
    struct str part;
    struct str name; /* of a readable name alone; else len 0 */
    bool readable;   /* name and value are as RFC 6265 has them */
};
/* Parts between ';', empty ones skipped. False at the end. *rest starts as the whole value. */
bool identity_cookie_next(struct str *rest, struct identity_cookie *out);
/* Does it not say who asks? One that cannot be read does. */
bool identity_ignores_cookie(const struct config *config, const struct config_cache *cache,
                             const struct identity_cookie *cookie);

/* Is the whole of it in the key of the partition? */
bool identity_covers_header(const struct config_cache *cache, struct str name);
bool identity_covers_cookie(const struct config_cache *cache, const struct identity_cookie *cookie);
bool identity_covers_all(const struct config_cache *cache); /* partition = "identity" */
#endif
