/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * policy: what RFC 9111 (and 5861, 9213) allow a shared cache, as pure functions over parsed heads.
 * No sockets, no clock, no store: everything is passed in, so every rule has a unit test.
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
    bool swr_is_stated;                /* stale_while_revalidate is not just the default */
    bool partitioned_by_authorization; /* it is in the partition: the key meets RFC 9111 3.5 */
    bool rfc;                          /* share = "rfc": RFC 9111 alone decides what is shared */
    uint64_t min_interval_ms; /* of poll: the backend is asked at most this often; 0: no poll */
};

/* The class of a request's identity: which stored responses it may use and make. */
enum policy_identity {
    POLICY_ANONYMOUS, /* anonymous: shared ones */
    POLICY_PARTITION, /* all identity fields are in the key: its own */
    POLICY_SHARED,    /* identified: shared ones, if the response allows it */
    POLICY_OPEN,      /* identified, on a route with share = true: shared ones */
};

struct policy_request {
    bool is_get, is_head, is_post;
    uint8_t identity; /* enum policy_identity */
    bool has_authorization;
    bool has_range;
    bool has_origin; /* cross-origin request of a script, which needs CORS fields */
    /* Request directives are advisory (RFC 9111 5.2.1). A cache that lets any client force a
     * backend request stops no polling storm, so they count only where this is set. only-if-cached
     * always counts; the caller answers it (504). */
    bool obey_directives;
    struct field_cc cc; /* Pragma: no-cache without Cache-Control counts as no-cache */
};

struct policy_response {
    uint16_t status;
    struct field_cc cc;
    bool has_cdn_cc; /* a valid targeted field (RFC 9213): Cache-Control and Expires do not count */
    struct field_cc cdn_cc;
    bool has_date, has_expires, expires_valid, has_last_modified, has_age, has_set_cookie,
        vary_star, vary_unreadable;
    bool cdn_cc_unreadable;          /* there is a targeted field, which is ignored */
    bool has_etag;                   /* the backend's own */
    bool varies_by_identity;         /* Vary names each identity field of the request */
    bool omits_set_cookie;           /* it is stored without its cookies */
    bool content_location_is_target; /* for answers to POST (RFC 9110 9.3.3) */
    /* Unix seconds. A response without a valid Date has the time of its receipt there (RFC 9110
     * 6.6.1). */
    int64_t date, expires, last_modified;
    uint32_t age;
    bool complete_length_known;
    uint64_t length; /* where known */
};

enum policy_store {
    POLICY_STORE,
    POLICY_NO_METHOD,
    POLICY_NO_STATUS,
    POLICY_NO_ERROR, /* one that states no lifetime */
    POLICY_NO_STORE,
    POLICY_NO_PRIVATE,
    POLICY_NO_AUTHORIZATION,
    POLICY_NO_IDENTITY,
    POLICY_NO_SET_COOKIE,
    POLICY_NO_VARY_STAR,
    POLICY_NO_UNREADABLE, /* Vary or Cache-Control: what it forbids is not known */
    POLICY_NO_FRESHNESS,  /* neither freshness nor a validator: useless */
    POLICY_NO_TOO_LARGE,
    POLICY_NO_ROOM, /* the store does not take bodies of that length */
    POLICY_NO_EVENTS,
    POLICY_NO_TAGS,
    POLICY_NO_VARY,
};
const char *
policy_store_reason(enum policy_store why); /* "response says no-store", for `why` and logs */

struct policy_freshness {
    uint64_t fresh_until_ms, swr_until_ms, sie_until_ms; /* real ms */
    uint32_t age_s;                                      /* corrected_initial_age */
    uint32_t flags; /* CACHE_MUST_REVALIDATE, CACHE_NO_CACHE, CACHE_AUTH_OK, CACHE_FOR_OTHERS */
};

/* Does it state itself that shared caches may serve it to others, and for how long? */
bool policy_states_shared_lifetime(const struct policy_response *resp, uint64_t response_ms);
enum policy_store policy_may_store(const struct policy_request *req,
                                   const struct policy_response *resp,
                                   const struct policy_settings *settings);
/* request_ms, response_ms: when the request was sent and its response head received, real ms. */
void policy_freshness_of(const struct policy_request *req, const struct policy_response *resp,
                         const struct policy_settings *settings, uint64_t request_ms,
                         uint64_t response_ms, struct policy_freshness *out);

/* A clock that was set back must not extend any lifetime: a response received later than now, with
 * this tolerance, is validated before it is used. */
#define POLICY_CLOCK_SLACK_MS 1000
static inline bool policy_is_of_the_past(const struct cache_record *record, uint64_t now_ms)
{
    return record->received_ms <= now_ms + POLICY_CLOCK_SLACK_MS;
}

enum policy_use {
    POLICY_FRESH,      /* answer from the store */
    POLICY_STALE_OK,   /* answer from the store (stale-while-revalidate or max-stale) and
                          revalidate in the background */
    POLICY_REVALIDATE, /* ask the backend first (conditionally if there is a validator) */
    POLICY_UNUSABLE,   /* as if it were not there (Authorization without permission; Origin) */
};
/* Many backends send Access-Control-Allow-Origin only to requests with Origin, and Vary there or
 * nowhere. A response without it, fetched without Origin, is not served to scripts of other
 * origins: one of them asks the backend once, and its response is stored for all. */
static inline bool policy_suits_origin(const struct policy_request *req,
                                       const struct cache_record *record)
{
    return !req->has_origin || record->flags & CACHE_ORIGIN_OK;
}
enum policy_use policy_use_of(const struct policy_request *req, const struct cache_record *record,
                              bool soft_invalidated, uint64_t now_ms);
/* Within a poll's interval the stored response is served, whatever its directives say, unless it
 * was invalidated, softly or not. */
bool policy_poll_holds(const struct policy_request *req, const struct cache_record *record,
                       uint64_t min_interval_ms, uint64_t now_ms);
/* After how many ms it makes sense for a client of a polled route to ask again. */
uint64_t policy_poll_rest_ms(const struct cache_record *record, uint64_t min_interval_ms,
                             uint64_t now_ms);
/* May a stale response replace a failed backend now? */
bool policy_stale_if_error(const struct policy_request *req, const struct cache_record *record,
                           uint64_t now_ms);
/* Does this status count as the error of stale-if-error (RFC 5861 4)? */
static inline bool policy_stale_replaces(uint16_t status)
{
    return status == 500 || status == 502 || status == 503 || status == 504;
}
/* The backend has failed: its answer does not describe the current content. */
static inline bool policy_is_failure(uint16_t status)
{
    return status >= 500;
}
/* Must this field of the response be left out of the stored head (RFC 9111 3.1: named by a
 * qualified no-cache or private)? Hop-by-hop fields are h1_is_hop_by_hop()'s. */
bool policy_omits(const struct policy_response *resp, struct str name);
/* The fields by which a stored response and a newer one identify their representation. */
struct policy_validators {
    struct str etag; /* at NULL: none; of a stored response the backend's own alone */
    bool has_last_modified;
    int64_t last_modified;
    bool has_length; /* of the content, as Content-Length says */
    uint64_t length;
};
/* RFC 9111 4.3.4: is this 304 about that stored response? One without validators is: only that
 * response was asked about. */
bool policy_304_agrees(const struct policy_validators *stored, const struct policy_validators *got);
/* 4.3.5: does a 200 to HEAD describe the stored response? Only if it has a validator. */
bool policy_head_agrees(const struct policy_validators *stored,
                        const struct policy_validators *got);
/* Does a 304 (or a HEAD response) that validates the stored response replace this stored field (RFC
 * 9111 3.2)? All but those that describe the stored bytes and their connection. */
bool policy_freshens(struct str name);
/* RFC 9111 4.4: unsafe and not an error */
bool policy_invalidates(const char *method, size_t method_len, uint16_t status);
#endif
