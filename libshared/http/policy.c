/* SPDX-License-Identifier: BSD-2-Clause */
/* policy: RFC 9111 for a shared cache, with the windows of RFC 5861 and the fields of RFC 9213. */
#include "polder/policy.h"
#include <string.h>

/* A heuristic lifetime is at most a day (RFC 9111 4.2.2 leaves the bound to us). */
#define HEURISTIC_MAX_S 86400

const char *policy_store_reason(enum policy_store why)
{
    static const char *const text[] = {
        [POLICY_STORE] = "stored",
        [POLICY_NO_METHOD] = "only answers to GET are stored",
        [POLICY_NO_STATUS] = "responses with this status are not stored",
        [POLICY_NO_ERROR] = "response is an error and states no lifetime",
        [POLICY_NO_STORE] = "response or request says no-store",
        [POLICY_NO_PRIVATE] = "response says private",
        [POLICY_NO_AUTHORIZATION] =
            "request had Authorization; response lacks public, must-revalidate, s-maxage",
        [POLICY_NO_IDENTITY] =
            "request is identified; response states no lifetime for shared caches",
        [POLICY_NO_SET_COOKIE] = "response sets a cookie and does not say public or s-maxage",
        [POLICY_NO_VARY_STAR] = "response says Vary: *",
        [POLICY_NO_UNREADABLE] = "response has a Vary or Cache-Control that cannot be read",
        [POLICY_NO_FRESHNESS] = "response states no freshness and has no validator",
        [POLICY_NO_TOO_LARGE] = "response is larger than max_body",
        [POLICY_NO_EVENTS] = "response is a stream of events",
        [POLICY_NO_TAGS] = "response has more than 32 tags",
        [POLICY_NO_VARY] = "response varies by too much, or by a field that Polder writes",
        [POLICY_NO_ROOM] = "response is larger than the store takes",
    };
    return (unsigned)why < sizeof text / sizeof *text ? text[why] : "";
}

/* The directives that count: a targeted field replaces Cache-Control (RFC 9213 2.1). */
static const struct field_cc *directives(const struct policy_response *resp)
{
    return resp->has_cdn_cc ? &resp->cdn_cc : &resp->cc;
}

/* ---- statuses ---- */

/* RFC 9110 15.1, without 206: where it may be stored it is judged as the 200 that it is a part of.
 */
static bool is_heuristically_cacheable(uint16_t status)
{
    switch (status) {
    case 200:
    case 203:
    case 204:
    case 300:
    case 301:
    case 308:
    case 404:
    case 405:
    case 410:
    case 414:
    case 501:
        return true;
    default:
        return false;
    }
}

/* Registered, so that we know what it means for a cache (RFC 9111 5.2.2.3). */
static bool is_understood(uint16_t status)
{
    return (status >= 200 && status <= 208) || status == 226 || (status >= 300 && status <= 308) ||
           (status >= 400 && status <= 417) || (status >= 421 && status <= 426) || status == 428 ||
           status == 429 || status == 431 || status == 451 || (status >= 500 && status <= 508) ||
           status == 510 || status == 511;
}

/* Interim and partial responses, answers to a condition or a range of one request, and what RFC
 * 6585 forbids to store. */
static bool is_never_stored(uint16_t status)
{
    return status < 200 || status == 206 || status == 304 || status == 412 || status == 416 ||
           status == 428 || status == 429 || status == 431 || status == 511;
}

/* ---- freshness (4.2) ---- */

struct lifetime {
    int64_t ms;
    bool is_explicit; /* the response states it */
    bool is_ours;     /* the route's ttl */
    bool is_negative; /* its ttl_negative: nothing stale behind it */
    bool known;
};

static int64_t date_of(const struct policy_response *resp, uint64_t response_ms)
{
    return resp->has_date ? resp->date : (int64_t)(response_ms / 1000);
}

/* What the response states (4.2.1): s-maxage, max-age, Expires, in this order. */
static struct lifetime stated_lifetime(const struct policy_response *resp, uint64_t response_ms)
{
    const struct field_cc *cc = directives(resp);
    struct lifetime life = {.known = true, .is_explicit = true};
    if (cc->flags & FIELD_CC_INVALID)
        return life;
    if (cc->flags & FIELD_CC_S_MAXAGE) {
        life.ms = (int64_t)cc->s_maxage * 1000;
    } else if (cc->flags & FIELD_CC_MAX_AGE) {
        life.ms = (int64_t)cc->max_age * 1000;
    } else if (resp->has_expires && !resp->has_cdn_cc) {
        if (resp->expires_valid)
            life.ms = (resp->expires - date_of(resp, response_ms)) * 1000;
        if (life.ms < 0)
            life.ms = 0;
    } else {
        life = (struct lifetime){0};
    }
    return life;
}

/* Negative answers: useful for a moment, and wrong once the resource is created. */
static bool is_negative(uint16_t status)
{
    return status == 404 || status == 410;
}

/* What we suppose where it states nothing (4.2.2): the route's ttl, or a tenth of its age. With a
 * ttl errors are not taken for content, which it is meant for. */
static struct lifetime supposed_lifetime(const struct policy_response *resp,
                                         const struct policy_settings *settings,
                                         uint64_t response_ms)
{
    struct lifetime life = {0};
    if (!is_heuristically_cacheable(resp->status) && !(directives(resp)->flags & FIELD_CC_PUBLIC))
        return life;
    if (settings->value.ttl_ms != RUNTIME_TTL_HEURISTIC) {
        life.is_negative = is_negative(resp->status);
        if (life.is_negative)
            life.ms = (int64_t)settings->value.ttl_negative_ms;
        else if (resp->status < 400)
            life.ms = (int64_t)settings->value.ttl_ms;
        life.known = life.is_ours = life.ms > 0;
        return life;
    }
    int64_t age = date_of(resp, response_ms) - resp->last_modified;
    if (!resp->has_last_modified || age <= 0)
        return life;
    life.ms = (age / 10 > HEURISTIC_MAX_S ? HEURISTIC_MAX_S : age / 10) * 1000;
    life.known = true;
    return life;
}

/* A heuristic lifetime is only for anonymous requests. A copy of one identity lives for the poll's
 * interval, and a response that others share has to state its own lifetime. */
static struct lifetime lifetime_of(const struct policy_request *req,
                                   const struct policy_response *resp,
                                   const struct policy_settings *settings, uint64_t response_ms)
{
    struct lifetime life = stated_lifetime(resp, response_ms);
    if (life.known || req->identity == POLICY_SHARED)
        return life;
    life = supposed_lifetime(resp, settings, response_ms);
    if (req->identity != POLICY_PARTITION || settings->rfc)
        return life;
    if (life.ms > (int64_t)settings->min_interval_ms)
        life.ms = (int64_t)settings->min_interval_ms;
    life.is_ours = false; /* no window behind it */
    life.known = life.known && life.ms > 0;
    return life;
}

bool policy_states_shared_lifetime(const struct policy_response *resp, uint64_t response_ms)
{
    const struct field_cc *cc = directives(resp);
    const bool meant = resp->has_cdn_cc || cc->flags & (FIELD_CC_S_MAXAGE | FIELD_CC_PUBLIC);
    const uint32_t without =
        FIELD_CC_INVALID | FIELD_CC_TOO_MANY | FIELD_CC_UNREADABLE | FIELD_CC_NO_CACHE;
    if (!meant || cc->flags & without)
        return false;
    const struct lifetime life = stated_lifetime(resp, response_ms);
    return life.known && life.ms > 0;
}

/* corrected_initial_age (4.2.3), in seconds. */
static uint32_t initial_age(const struct policy_response *resp, uint64_t request_ms,
                            uint64_t response_ms)
{
    int64_t apparent = (int64_t)(response_ms / 1000) - date_of(resp, response_ms);
    uint64_t delay = response_ms > request_ms ? (response_ms - request_ms) / 1000 : 0;
    int64_t corrected = (int64_t)((resp->has_age ? resp->age : 0) + delay);
    int64_t age = apparent > corrected ? apparent : corrected;
    return age > INT32_MAX ? INT32_MAX : (uint32_t)age;
}

/* Directives after which nothing stale may be served (4.2.4; s-maxage implies proxy-revalidate,
 * 5.2.2.10). */
static bool forbids_stale(const struct field_cc *cc)
{
    return cc->flags & (FIELD_CC_MUST_REVALIDATE | FIELD_CC_PROXY_REVALIDATE | FIELD_CC_S_MAXAGE |
                        FIELD_CC_NO_CACHE);
}

/* RFC 9111 3.5 */
static bool permits_authorization(const struct field_cc *cc)
{
    return cc->flags & (FIELD_CC_PUBLIC | FIELD_CC_MUST_REVALIDATE | FIELD_CC_S_MAXAGE);
}

/* The windows behind freshness (RFC 5861). A response that states a lifetime of nothing wants to be
 * asked about each time: the settings' stale-while-revalidate is not for it. Where an operator has
 * not asked for it, it only stretches lifetimes that are ours too: a backend that says how long its
 * content is good has permitted nothing more (RFC 9111 4.2.4). */
static void set_windows(const struct field_cc *cc, const struct policy_settings *settings,
                        const struct lifetime *life, struct policy_freshness *out)
{
    uint64_t swr = 0, sie = 0;
    if (!forbids_stale(cc)) {
        if (cc->flags & FIELD_CC_SWR)
            swr = (uint64_t)cc->swr * 1000;
        else if (life->ms > 0 && !life->is_negative && (settings->swr_is_stated || life->is_ours))
            swr = settings->value.stale_while_revalidate_ms;
        if (cc->flags & FIELD_CC_SIE)
            sie = (uint64_t)cc->sie * 1000;
        else if (!life->is_negative)
            sie = settings->value.stale_if_error_ms;
    }
    out->swr_until_ms = out->fresh_until_ms + swr;
    out->sie_until_ms = out->fresh_until_ms + sie;
}

/* The record has to be there for the whole interval of a poll. */
static void keep_for_poll(const struct policy_settings *settings, uint64_t response_ms,
                          struct policy_freshness *out)
{
    const uint64_t end = response_ms + settings->min_interval_ms;
    if (settings->min_interval_ms && out->sie_until_ms < end)
        out->sie_until_ms = end;
}

void policy_freshness_of(const struct policy_request *req, const struct policy_response *resp,
                         const struct policy_settings *settings, uint64_t request_ms,
                         uint64_t response_ms, struct policy_freshness *out)
{
    const struct field_cc *cc = directives(resp);
    struct lifetime life = lifetime_of(req, resp, settings, response_ms);
    *out = (struct policy_freshness){.age_s = initial_age(resp, request_ms, response_ms)};
    if (cc->flags & FIELD_CC_NO_CACHE)
        life.ms = 0;
    int64_t left_ms = life.ms - (int64_t)out->age_s * 1000;
    int64_t until = (int64_t)response_ms + left_ms;
    out->fresh_until_ms = until > 0 ? (uint64_t)until : 0;
    set_windows(cc, settings, &life, out);
    keep_for_poll(settings, response_ms, out);
    if (forbids_stale(cc))
        out->flags |= CACHE_MUST_REVALIDATE;
    if (cc->flags & FIELD_CC_NO_CACHE)
        out->flags |= CACHE_NO_CACHE;
    if (permits_authorization(cc) || settings->partitioned_by_authorization)
        out->flags |= CACHE_AUTH_OK;
    if (policy_states_shared_lifetime(resp, response_ms))
        out->flags |= CACHE_FOR_OTHERS;
}

/* ---- storing (3) ---- */

/* no-store, but for must-understand with a status that we understand (5.2.2.3); and
 * must-understand with one that we do not. */
static bool says_no_store(const struct policy_response *resp)
{
    const struct field_cc *cc = directives(resp);
    if (cc->flags & FIELD_CC_MUST_UNDERSTAND)
        return !is_understood(resp->status);
    return cc->flags & FIELD_CC_NO_STORE;
}

/* What it forbids is not known. A targeted field that cannot be read is ignored (RFC 9213 2.1),
 * but then the response has to say itself how long it is good. */
static bool is_unreadable(const struct policy_response *resp, const struct lifetime *life)
{
    return resp->vary_unreadable ||
           directives(resp)->flags & (FIELD_CC_TOO_MANY | FIELD_CC_UNREADABLE) ||
           (resp->cdn_cc_unreadable && !life->is_explicit);
}

static bool may_keep_cookie(const struct policy_response *resp,
                            const struct policy_settings *settings, bool is_explicit)
{
    if (policy_omits(resp, (struct str){"set-cookie", 10}))
        return true; /* the cookie itself is not kept */
    if (directives(resp)->flags & (FIELD_CC_PUBLIC | FIELD_CC_S_MAXAGE))
        return true;
    return settings->store_set_cookie && is_explicit;
}

enum policy_store policy_may_store(const struct policy_request *req,
                                   const struct policy_response *resp,
                                   const struct policy_settings *settings)
{
    const struct field_cc *cc = directives(resp);
    const uint64_t date_ms = resp->date > 0 ? (uint64_t)resp->date * 1000 : 0;
    struct lifetime life = lifetime_of(req, resp, settings, date_ms);
    bool post = req->is_post && life.is_explicit && resp->content_location_is_target;
    if (!req->is_get && !post)
        return POLICY_NO_METHOD;
    if (is_never_stored(resp->status))
        return POLICY_NO_STATUS;
    if (says_no_store(resp) || (req->obey_directives && req->cc.flags & FIELD_CC_NO_STORE))
        return POLICY_NO_STORE;
    if (cc->flags & FIELD_CC_PRIVATE)
        return POLICY_NO_PRIVATE;
    if (req->has_authorization && !permits_authorization(cc) &&
        !settings->partitioned_by_authorization)
        return POLICY_NO_AUTHORIZATION;
    if (req->identity == POLICY_SHARED && !resp->varies_by_identity &&
        !policy_states_shared_lifetime(resp, date_ms))
        return POLICY_NO_IDENTITY;
    if (resp->has_set_cookie && !may_keep_cookie(resp, settings, life.is_explicit))
        return POLICY_NO_SET_COOKIE;
    if (resp->vary_star)
        return POLICY_NO_VARY_STAR;
    if (is_unreadable(resp, &life))
        return POLICY_NO_UNREADABLE;
    if (resp->complete_length_known && resp->length > settings->value.max_body)
        return POLICY_NO_TOO_LARGE;
    /* Without a stated lifetime only some statuses are cacheable (3, last item). */
    if (!life.known && !is_heuristically_cacheable(resp->status) && !(cc->flags & FIELD_CC_PUBLIC))
        return POLICY_NO_STATUS;
    if (resp->status >= 400 && !life.known && settings->value.ttl_ms != RUNTIME_TTL_HEURISTIC)
        return POLICY_NO_ERROR;
    bool fresh = life.known && life.ms > 0 && !(cc->flags & FIELD_CC_NO_CACHE);
    if (!fresh && !settings->min_interval_ms && !resp->has_etag && !resp->has_last_modified)
        return POLICY_NO_FRESHNESS;
    return POLICY_STORE;
}

static bool is_listed(struct str list, struct str name)
{
    struct str element;
    while (field_list_next(&list, &element)) {
        if (element.len != name.len)
            continue;
        size_t i = 0;
        while (i < name.len && (element.at[i] | 0x20) == (name.at[i] | 0x20))
            i++;
        if (i == name.len)
            return true;
    }
    return false;
}

bool policy_omits(const struct policy_response *resp, struct str name)
{
    const struct field_cc *cc = directives(resp);
    if (resp->omits_set_cookie && field_is(name, "set-cookie"))
        return true;
    if (cc->flags & FIELD_CC_NO_CACHE_FIELDS && is_listed(cc->no_cache_fields, name))
        return true;
    return cc->flags & FIELD_CC_PRIVATE_FIELDS && is_listed(cc->private_fields, name);
}

static bool same_text(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

static bool is_weak(struct str etag)
{
    return field_etag_valid(etag) && *etag.at == 'W';
}

static bool same_date(const struct policy_validators *a, const struct policy_validators *b)
{
    return a->has_last_modified && b->has_last_modified && a->last_modified == b->last_modified;
}

bool policy_304_agrees(const struct policy_validators *stored, const struct policy_validators *got)
{
    if (got->etag.at)
        return stored->etag.at &&
               (same_text(stored->etag, got->etag) ||
                (is_weak(got->etag) && field_etag_listed(got->etag, stored->etag, true)));
    return !got->has_last_modified || same_date(stored, got);
}

bool policy_head_agrees(const struct policy_validators *stored, const struct policy_validators *got)
{
    if (got->etag.at && !(stored->etag.at && same_text(stored->etag, got->etag)))
        return false;
    if (got->has_last_modified && !same_date(stored, got))
        return false;
    if (!got->etag.at && !got->has_last_modified)
        return false; /* a length alone is that of many versions */
    return !got->has_length || (stored->has_length && got->length == stored->length);
}

bool policy_freshens(struct str name)
{
    static const char *const kept[] = {
        "content-length", "content-encoding",  "content-range",   "content-md5", "content-digest",
        "etag",           "transfer-encoding", "connection",      "keep-alive",  "te",
        "trailer",        "upgrade",           "proxy-connection"};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (field_is(name, kept[i]))
            return false;
    return true;
}

/* ---- using (4) ---- */

/* Does the client ask for something fresher than this (5.2.1)? */
static bool asks_for_fresher(const struct policy_request *req, const struct cache_record *record,
                             uint64_t now_ms)
{
    if (!req->obey_directives)
        return false;
    if (req->cc.flags & FIELD_CC_NO_CACHE)
        return true;
    uint64_t resident = now_ms > record->received_ms ? (now_ms - record->received_ms) / 1000 : 0;
    if (req->cc.flags & FIELD_CC_MAX_AGE && record->age_s + resident >= req->cc.max_age)
        return true;
    return req->cc.flags & FIELD_CC_MIN_FRESH &&
           now_ms + (uint64_t)req->cc.min_fresh * 1000 > record->fresh_until_ms;
}

static bool accepts_stale(const struct policy_request *req, const struct cache_record *record,
                          uint64_t now_ms)
{
    if (!req->obey_directives || !(req->cc.flags & FIELD_CC_MAX_STALE))
        return false;
    return req->cc.max_stale == UINT32_MAX ||
           now_ms < record->fresh_until_ms + (uint64_t)req->cc.max_stale * 1000;
}

enum policy_use policy_use_of(const struct policy_request *req, const struct cache_record *record,
                              bool soft_invalidated, uint64_t now_ms)
{
    if ((req->has_authorization && !(record->flags & CACHE_AUTH_OK)) ||
        !policy_suits_origin(req, record))
        return POLICY_UNUSABLE;
    if (record->flags & CACHE_NO_CACHE || asks_for_fresher(req, record, now_ms) ||
        !policy_is_of_the_past(record, now_ms))
        return POLICY_REVALIDATE;
    if (now_ms < record->fresh_until_ms && !soft_invalidated)
        return POLICY_FRESH;
    if (record->flags & CACHE_MUST_REVALIDATE || req->identity == POLICY_SHARED)
        return POLICY_REVALIDATE;
    /* Softly invalidated while fresh: the window is still ahead, but an empty one stays empty. */
    const bool window = !soft_invalidated || record->swr_until_ms > record->fresh_until_ms;
    if ((window && now_ms < record->swr_until_ms) || accepts_stale(req, record, now_ms))
        return POLICY_STALE_OK;
    return POLICY_REVALIDATE;
}

bool policy_poll_holds(const struct policy_request *req, const struct cache_record *record,
                       uint64_t min_interval_ms, uint64_t now_ms)
{
    if (req->identity == POLICY_SHARED ||
        (req->has_authorization && !(record->flags & CACHE_AUTH_OK)) ||
        !policy_suits_origin(req, record))
        return false;
    return now_ms < record->received_ms + min_interval_ms && policy_is_of_the_past(record, now_ms);
}

uint64_t policy_poll_rest_ms(const struct cache_record *record, uint64_t min_interval_ms,
                             uint64_t now_ms)
{
    const uint64_t end = record->received_ms + min_interval_ms;
    if (now_ms < end)
        return end - now_ms < min_interval_ms ? end - now_ms : min_interval_ms;
    if (now_ms >= record->fresh_until_ms)
        return 0;
    const uint64_t fresh = record->fresh_until_ms - now_ms;
    return fresh < min_interval_ms ? fresh : min_interval_ms;
}

bool policy_stale_if_error(const struct policy_request *req, const struct cache_record *record,
                           uint64_t now_ms)
{
    if (req->identity == POLICY_SHARED ||
        (req->has_authorization && !(record->flags & CACHE_AUTH_OK)))
        return false;
    if (record->flags & (CACHE_MUST_REVALIDATE | CACHE_NO_CACHE))
        return false;
    return now_ms < record->sie_until_ms;
}

bool policy_invalidates(const char *method, size_t method_len, uint16_t status)
{
    static const char *const safe[] = {"GET",      "HEAD",   "OPTIONS", "TRACE",
                                       "PROPFIND", "REPORT", "SEARCH"};
    for (size_t i = 0; i < sizeof safe / sizeof *safe; i++)
        if (strlen(safe[i]) == method_len && memcmp(safe[i], method, method_len) == 0)
            return false;
    return status >= 200 && status < 400;
}
