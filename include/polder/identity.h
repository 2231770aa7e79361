/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * identity: which parts of a request identify the caller: Authorization, Proxy-Authorization,
 * cookies that `ignore_cookies` does not name, the fields of libshared/tables/identity_fields.def
 * and of `identity_headers`, and the header, cookie and jwt parts of any limit or partition.
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

/* Does a field of that name identify the caller? Case is ignored, and '_' equals '-', as CGI-like
 * gateways take it. Not for Cookie, whose parts are judged one by one. */
bool identity_names_header(const struct config *config, const struct config_cache *cache,
                           struct str name);
/* A quick filter that most fields of a request do not pass: for each first byte a bit for each
 * third byte that such a name may have. */
struct identity_filter {
    uint32_t third[32];
};
void identity_filter_make(const struct config *config, const struct config_cache *cache,
                          struct identity_filter *out);
static inline bool identity_filter_lets(const struct identity_filter *f, struct str name)
{
    return name.len < 3 || f->third[name.at[0] & 31] >> (name.at[2] & 31) & 1;
}

/* A fingerprint of these rules, of what the route shares, and of what its keys are made of: a
 * response that was stored under other rules may belong to one identity. Never 0. */
uint32_t identity_rules_number(const struct config *config, const struct config_cache *cache);

/* One part of a Cookie field, without the blanks around it. */
struct identity_cookie {
    struct str part;
    struct str name; /* of a readable name alone; else len 0 */
    bool readable;   /* name and value are as RFC 6265 has them */
};
/* Parts between ';', empty ones skipped. False at the end. *rest starts as the whole value. */
bool identity_cookie_next(struct str *rest, struct identity_cookie *out);
/* True if it does not identify the caller. A cookie that cannot be parsed does. */
bool identity_ignores_cookie(const struct config *config, const struct config_cache *cache,
                             const struct identity_cookie *cookie);

/* Is all of it part of the partition's key? */
bool identity_covers_header(const struct config_cache *cache, struct str name);
bool identity_covers_cookie(const struct config_cache *cache, const struct identity_cookie *cookie);
bool identity_covers_all(const struct config_cache *cache); /* partition = "identity" */
#endif
