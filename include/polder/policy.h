/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * policy: what RFC 9111 (and 5861, 9213) lets a shared cache do, as pure functions over parsed
 * heads. No sockets, no clock, no store: everything is passed in, so every rule has a unit test.
 */
#ifndef POLDER_POLICY_H
#define POLDER_POLICY_H
#include "polder/cache.h"
#include "polder/field.h"
#include "polder/runtime.h"

/* The settings that apply on a route, merged from route, runtime page and defaults. */
struct policy_settings {
    struct runtime_cache value;
    bool store_set_cookie;
    bool partitioned_by_authorization; /* the partition contains it: RFC 9111 3.5 is met by the key
                                        */
    bool partitioned_by_cookie;
};

struct policy_request {
    bool is_get, is_head;
    bool has_authorization;
    bool has_range;
    struct field_cc cc; /* Pragma: no-cache without Cache-Control counts as no-cache */
};

struct policy_response {
    uint16_t status;
    struct field_cc cc;
    bool has_cdn_cc;
    struct field_cc cdn_cc;
    bool has_date, has_expires, expires_valid, has_last_modified, has_age, has_set_cookie,
        vary_star;
    int64_t date, expires, last_modified; /* Unix seconds */
    uint32_t age;
    bool complete_length_known;
};

enum policy_store {
    POLICY_STORE,
    POLICY_NO_METHOD,
    POLICY_NO_STATUS,
    POLICY_NO_STORE,
    POLICY_NO_PRIVATE,
    POLICY_NO_AUTHORIZATION,
    POLICY_NO_SET_COOKIE,
    POLICY_NO_VARY_STAR,
    POLICY_NO_FRESHNESS, /* neither freshness nor a validator: of no use */
    POLICY_NO_TOO_LARGE,
};
const char *
policy_store_reason(enum policy_store why); /* "response says no-store", for `why` and logs */

struct policy_freshness {
    uint64_t fresh_until_ms, swr_until_ms, sie_until_ms; /* real ms */
    uint32_t age_s;                                      /* corrected_initial_age */
    uint32_t flags; /* CACHE_MUST_REVALIDATE, CACHE_NO_CACHE, CACHE_AUTH_OK */
};

enum policy_store policy_may_store(const struct policy_request *req,
                                   const struct policy_response *resp,
                                   const struct policy_settings *settings);
/* request_ms, response_ms: when the request was sent and its response head received, real ms. */
void policy_freshness_of(const struct policy_response *resp, const struct policy_settings *settings,
                         uint64_t request_ms, uint64_t response_ms, struct policy_freshness *out);

enum policy_use {
    POLICY_FRESH,      /* answer from the store */
    POLICY_STALE_OK,   /* answer from the store (stale-while-revalidate or max-stale) and revalidate
                          behind */
    POLICY_REVALIDATE, /* ask the backend first (conditionally if there is a validator) */
    POLICY_UNUSABLE,   /* as if it were not there (Authorization without permission) */
};
enum policy_use policy_use_of(const struct policy_request *req, const struct cache_record *record,
                              bool soft_invalidated, uint64_t now_ms);
/* May a stale response replace a failed backend now? */
bool policy_stale_if_error(const struct policy_request *req, const struct cache_record *record,
                           uint64_t now_ms);
/* RFC 9111 4.4: unsafe and not an error */
bool policy_invalidates(const char *method, size_t method_len, uint16_t status);
#endif
