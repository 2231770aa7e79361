/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * why: what decides about a URL, for `cache why`: its route; each variant that is stored, with what
 * it was invalidated by, whether it is being fetched, whether it will be refreshed; what became of
 * what is not there any more; and what the next plain GET would get, in words and as Cache-Status
 * will say it. Workers decide by the same functions.
 */
#include "daemons/keeper/inspect/inspect.h"
#include "polder/identity.h"
#include "polder/fetch_lock.h"
#include "polder/fleet.h"
#include "polder/policy.h"
#include "polder/refresh.h"
#include "polder/route.h"
#include "polder/units.h"
#include "polder/url.h"
#include "polder/access_bits.h"
#include "polder/cache_status.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NEXT_TEXT 200

/* ---- the route ---- */

static bool is_warm(const struct config *config, const char *url, size_t len)
{
    char text[QUERY_URL_SHOWN];
    const char *path = memchr(url, '/', len);
    const struct config_route *route;
    for (uint32_t i = 0; path && i < config->cache.n_warm; i++) {
        const char *warm = config->cache.warm[i];
        const bool bare = warm[0] == '/'; /* then for the hosts of all listeners */
        const char *end = url + len;
        char full[QUERY_URL_SHOWN];
        const int n = snprintf(full, sizeof full, "%s%s", bare ? "host" : "", warm);
        const int m = n > 0 && (size_t)n < sizeof full
                          ? url_normalise_text(config, full, (size_t)n, text, sizeof text, &route)
                          : 0;
        const char *from = bare ? text + 4 : text, *wanted = bare ? path : url;
        if (m > 0 && (size_t)(text + m - from) == (size_t)(end - wanted) &&
            !memcmp(from, wanted, (size_t)(end - wanted)))
            return true;
    }
    return false;
}

void why_route(const struct keeper *k, struct job *j)
{
    const struct config *config = k->shared->region[k->region]->config;
    const char *path = memchr(j->text, '/', j->len);
    const size_t rest = path ? j->len - (size_t)(path - j->text) : 0;
    const char *mark = path ? memchr(path, '?', rest) : NULL;
    const struct config_route *route =
        path ? route_find(config, path, mark ? (size_t)(mark - path) : rest) : NULL;
    struct query_route *out = &j->route;
    if (!route)
        return;
    snprintf(out->pattern, sizeof out->pattern, "%s", route->pattern);
    out->n_limits = route->n_limits;
    for (uint32_t i = 0; i < route->n_limits; i++)
        snprintf(out->limit[i], sizeof out->limit[i], "%s", route->limits[i]->name);
    out->interval_ms = route->poll ? route->poll->min_interval_ms : 0;
    out->refreshes = route->upstream && route->upstream->refresh_share;
    out->warm = is_warm(config, j->text, j->len);
    if (!route->cache)
        return;
    out->share = route->cache->share;
    out->rules = identity_rules_number(config, route->cache);
    out->partitioned = identity_covers_all(route->cache);
    memcpy(out->compress, route->cache->compress, sizeof out->compress);
    out->n_compress = route->cache->n_compress;
}

/* ---- fetches under way ---- */

static void put_fetch_lock(const struct keeper *k, struct rpc_out *o, const struct cache_key *key)
{
    struct fetch_lock_table *table = k->shared->fetch_locks;
    rpc_out_bool(o, "being_fetched", fetch_lock_is_claimed(table, key, k->mono_ms));
    rpc_out_u64(o, "hit_for_miss_ms", fetch_lock_noshare_ms(table, key, k->mono_ms));
}

void why_put_url(const struct keeper *k, const struct job *j)
{
    struct rpc_out *o = j->out;
    struct cache_key key;
    rpc_out_strn(o, "url", j->text, j->len < QUERY_URL_SHOWN ? j->len : QUERY_URL_SHOWN);
    rpc_out_str(o, "route", j->route.pattern);
    rpc_out_bool(o, "cache", true);
    rpc_out_f64(o, "poll_seconds", (double)j->route.interval_ms / 1000);
    rpc_out_list(o, "limits");
    for (uint32_t i = 0; i < j->route.n_limits; i++)
        rpc_out_str(o, NULL, j->route.limit[i]);
    rpc_out_end(o);
    rpc_out_bool(o, "in_warm_list", j->route.warm);
    if (j->all_hosts)
        return; /* no key: it is as many URLs as there are hosts */
    cache_key_of(inval_secret(k->shared->inval), j->text, j->len, "", 0, &key);
    put_fetch_lock(k, o, &key);
}

/* ---- a variant ---- */

struct judged {
    const struct cache_record *r;
    struct cache_view v;
    enum inval_state state;
    struct inval_cause cause[INVAL_CAUSES_MAX];
    unsigned n_causes;
};

static void judge(const struct keeper *k, const struct cache_record *r, struct judged *out)
{
    const struct inval_page *page = k->shared->inval;
    out->r = r;
    cache_view_of(r, &out->v);
    out->n_causes = cache_record_causes(page, r, out->cause);
    out->state = cache_record_state(page, r, r->fetch_seq);
}

/* Of a fleet, where another one has done it. */
static void put_host(const struct keeper *k, struct rpc_out *o, uint64_t seq)
{
    char host[FLEET_HOST_SIZE];
    uint64_t id;
    if (!fleet_cause_of(k->shared->fleet, seq, &id, host))
        return;
    rpc_out_str(o, "host", host);
    rpc_out_u64(o, "fleet_id", id);
}

static void put_causes(const struct keeper *k, struct rpc_out *o, const struct judged *x)
{
    const struct inval_page *page = k->shared->inval;
    char text[INVAL_PREFIX_MAX + 16];
    rpc_out_list(o, "invalidated_by");
    for (unsigned i = 0; i < x->n_causes; i++) {
        const struct inval_cause *c = &x->cause[i];
        explain_cause(page, &x->v, c, text, sizeof text);
        rpc_out_map(o, NULL);
        rpc_out_str(o, "by", text);
        rpc_out_bool(o, "hard", !c->soft);
        if (c->by == INVAL_BY_TAG || c->by == INVAL_BY_GROUP)
            rpc_out_u64(o, "slot", inval_slot_alone(x->r->tag_slot[c->tag % CACHE_TAGS_MAX]));
        else if (c->by == INVAL_BY_URL)
            rpc_out_u64(o, "slot", x->r->url_slot);
        else
            rpc_out_nil(o, "slot");
        rpc_out_u64(o, "sequence", c->seq);
        if (c->when_s)
            rpc_out_u64(o, "when", c->when_s);
        else
            rpc_out_nil(o, "when");
        put_host(k, o, c->seq);
        rpc_out_end(o);
    }
    rpc_out_end(o);
}

static void put_tags(const struct keeper *k, struct rpc_out *o, const struct judged *x)
{
    char name[256];
    rpc_out_list(o, "tag_slots");
    for (uint32_t i = 0; i < x->r->n_tags && i < CACHE_TAGS_MAX; i++)
        rpc_out_u64(o, NULL, inval_slot_alone(x->r->tag_slot[i]));
    rpc_out_end(o);
    rpc_out_list(o, "tag_names");
    for (uint32_t i = 0; i < x->r->n_tags && i < CACHE_TAGS_MAX; i++) {
        const size_t n = explain_tag(k->shared->inval, &x->v, x->r->tag_slot[i], name, sizeof name);
        rpc_out_strn(o, NULL, n ? name : "?", n ? n : 1);
    }
    rpc_out_end(o);
}

/* ---- what comes next ---- */

struct next {
    char words[NEXT_TEXT], status[NEXT_TEXT];
};

static void next_hit(const struct keeper *k, const struct job *j, const struct judged *x,
                     const char *why, struct next *out)
{
    const bool soft = x->state == INVAL_SOFT;
    const int64_t ttl_s = cache_status_ttl_s(x->r, soft, k->real_ms);
    const char *detail = cache_status_detail(x->r, soft, j->route.interval_ms, k->real_ms);
    snprintf(out->status, sizeof out->status, "hit; ttl=%" PRId64 "%s%s", ttl_s,
             detail ? "; detail=" : "", detail ? detail : "");
    if (!detail)
        snprintf(out->words, sizeof out->words, "hit; ttl=%" PRId64, ttl_s);
    else if (!strcmp(detail, "poll-interval"))
        snprintf(out->words, sizeof out->words,
                 "hit: within the poll's interval, %" PRIu64 " s of it left",
                 policy_poll_rest_ms(x->r, j->route.interval_ms, k->real_ms) / 1000);
    else
        snprintf(out->words, sizeof out->words, "a stale hit, and a background fetch: %s", why);
}

static void next_forward(const struct judged *x, const char *why, struct next *out)
{
    const uint32_t flags = x->r->flags;
    const bool validator =
        (flags & CACHE_HAS_ETAG && !(flags & CACHE_ETAG_OURS)) || flags & CACHE_HAS_LAST_MODIFIED;
    snprintf(out->status, sizeof out->status, "fwd=stale");
    snprintf(out->words, sizeof out->words, "the backend is asked%s: %s%s",
             validator ? " whether it is still good" : "", why,
             flags & CACHE_MUST_REVALIDATE ? ", and must not be used so" : "");
}

/* What the next plain GET would get of this record; as workers decide it. */
static void next_of(const struct keeper *k, const struct job *j, const struct judged *x,
                    struct next *out)
{
    const struct policy_request get = {.is_get = true};
    const struct cache_record *r = x->r;
    char by[INVAL_PREFIX_MAX + 16] = "", why[NEXT_TEXT / 2];
    if (x->n_causes)
        explain_cause(k->shared->inval, &x->v, &x->cause[0], by, sizeof by);
    if (x->state == INVAL_SOFT)
        snprintf(why, sizeof why, "it was invalidated softly, by %.60s", by);
    else
        snprintf(why, sizeof why, "%s",
                 r->flags & CACHE_NO_CACHE   ? "the response says no-cache"
                 : r->flags & CACHE_SOFTENED ? "a soft invalidation has ended its freshness"
                                             : "it is stale");
    if (x->state == INVAL_HARD) {
        snprintf(out->status, sizeof out->status, "fwd=uri-miss");
        snprintf(out->words, sizeof out->words, "miss: it was invalidated by %.100s", by);
    } else if (r->rules && r->rules != j->route.rules) {
        snprintf(out->status, sizeof out->status, "fwd=uri-miss");
        snprintf(out->words, sizeof out->words, "miss: it was stored under other rules of sharing");
    } else if (r->flags & CACHE_VARY_RECORD) {
        out->status[0] = 0;
        snprintf(out->words, sizeof out->words, "the variant that the request's fields select");
    } else if (r->status == 206) {
        out->status[0] = 0;
        snprintf(out->words, sizeof out->words,
                 "this is a part: a hit for ranges within it, while it is fresh");
    } else if (j->route.interval_ms && x->state == INVAL_VALID &&
               policy_poll_holds(&get, r, j->route.interval_ms, k->real_ms)) {
        next_hit(k, j, x, why, out);
    } else {
        switch (policy_use_of(&get, r, x->state == INVAL_SOFT, k->real_ms)) {
        case POLICY_FRESH:
        case POLICY_STALE_OK:
            next_hit(k, j, x, why, out);
            break;
        default:
            next_forward(x, why, out);
            break;
        }
    }
}

/* ---- refreshing ---- */

static void put_refresh(const struct keeper *k, const struct job *j, const struct cache_record *r)
{
    struct rpc_out *o = j->out;
    const uint64_t from_ms = refresh_from_ms(r);
    const uint64_t reads =
        access_bits_reads(atomic_load_explicit(&k->shared->ref[r->slot], memory_order_relaxed));
    const char *text;
    if (j->route.interval_ms)
        text = "no: the route is polled";
    else if (!j->route.refreshes)
        text = "no: refresh_share is 0";
    else if (from_ms == UINT64_MAX)
        text = "no: its lifetime is less than a second, or it must be validated first";
    else if (k->real_ms >= r->fresh_until_ms)
        text = "no: it is stale already";
    else if (k->real_ms < from_ms)
        text = "not yet: a read from then on starts a background fetch, if it is read often";
    else if (reads < REFRESH_READS)
        text = "due, but it was hardly read";
    else
        text = "due: a read now starts a background fetch, if there is room";
    rpc_out_str(o, "refresh", text);
    if (from_ms == UINT64_MAX)
        rpc_out_nil(o, "refresh_from");
    else
        rpc_out_u64(o, "refresh_from", from_ms / 1000);
    rpc_out_f64(o, "refresh_value_seconds", (double)refresh_value_ns(r, reads) / 1e9);
}

/* ---- identity ---- */

/* What an identified request without a copy of its own gets on the route; NULL: that depends on the
 * response. */
static const char *identities_of_route(const struct job *j)
{
    return j->route.share == CONFIG_SHARE_ALL   ? "share it: the route says share = true"
           : j->route.share == CONFIG_SHARE_RFC ? "share it as RFC 9111 allows: share = rfc"
           : j->route.partitioned               ? "have copies of their own: partition = identity"
                                                : NULL;
}

static void put_identities(const struct job *j, const struct cache_record *r)
{
    struct rpc_out *o = j->out;
    const char *text = identities_of_route(j);
    rpc_out_str(o, "made_by",
                r->flags & CACHE_FROM_FLEET    ? "an anonymous request to another host of the fleet"
                : r->flags & CACHE_OF_IDENTITY ? "one identity, for itself"
                : r->flags & CACHE_BY_IDENTITY ? "an identified request"
                                               : "an anonymous request");
    if (r->flags & CACHE_OF_IDENTITY)
        text = "do not find it, except the one it belongs to";
    else if (!text)
        text = r->flags & CACHE_FOR_OTHERS
                   ? "share it while it is fresh: the response states a lifetime for shared caches"
               : r->vary_len ? "bypass it, unless Vary names all identity fields"
                             : "bypass it (fwd=bypass): the response states no lifetime for shared "
                               "caches; partition = identity, share = true and ignore_cookies help";
    rpc_out_str(o, "requests_with_an_identity", text);
}

/* ---- in one sentence ---- */

/* What the next GET gets, as one says it: "hit: ...", "a stale hit, ...", "the backend is ...". */
static size_t put_sentence(const char *words, char *out, size_t size)
{
    const bool noun = !strncmp(words, "hit", 3) || !strncmp(words, "miss", 4);
    const char *verb = noun ? " is a " : !strncmp(words, "a ", 2) ? " is " : ": ";
    return (size_t)snprintf(out, size, "the next GET%s%s", verb, words);
}

static size_t add_tags(const struct keeper *k, const struct judged *x, char *out, size_t size)
{
    char name[64];
    size_t n = 0;
    for (uint32_t i = 0; i < x->r->n_tags && i < 3; i++)
        if (explain_tag(k->shared->inval, &x->v, x->r->tag_slot[i], name, sizeof name))
            n += (size_t)snprintf(out + n, size - n, "%s%s", n ? ", " : "; tags ", name);
    if (x->r->n_tags > 3)
        n += (size_t)snprintf(out + n, size - n, ", ...");
    return n;
}

static void summarise(const struct keeper *k, const struct judged *x, const struct next *next,
                      char *out, size_t size)
{
    const struct cache_record *r = x->r;
    const uint64_t now = k->real_ms, got = r->received_ms;
    char left[UNITS_TEXT], ago[UNITS_TEXT];
    size_t n;
    units_seconds(now > got ? (double)((now - got) / 1000) : 0, ago);
    if (!strncmp(next->words, "hit; ttl", 8)) {
        units_seconds(r->fresh_until_ms > now ? (double)((r->fresh_until_ms - now) / 1000) : 0,
                      left);
        n = (size_t)snprintf(out, size, "the next GET is a hit; fresh for %s", left);
    } else {
        n = put_sentence(next->words, out, size);
    }
    n += (size_t)snprintf(out + n, size - n, "; stored %s ago", ago);
    add_tags(k, x, out + n, size - n);
}

void why_put_variant(const struct keeper *k, struct job *j, struct MDB_txn *txn,
                     const struct cache_record *r)
{
    struct rpc_out *o = j->out;
    char key[2 * sizeof r->key.hash + 1];
    struct judged x;
    struct next next = {"", ""};
    judge(k, r, &x);
    for (size_t i = 0; i < sizeof r->key.hash; i++)
        snprintf(key + 2 * i, 3, "%02x", r->key.hash[i]);
    next_of(k, j, &x, &next);
    rpc_out_str(o, "key", key);
    put_tags(k, o, &x);
    put_causes(k, o, &x);
    put_fetch_lock(k, o, &r->key);
    if (!(r->flags & CACHE_VARY_RECORD)) {
        put_refresh(k, j, r);
        put_identities(j, r);
    }
    rpc_out_str(o, "next", next.words);
    if (next.status[0])
        rpc_out_str(o, "cache_status", next.status);
    if (next.status[0] && j->answers++ == 0)
        summarise(k, &x, &next, j->summary, sizeof j->summary);
    if (!(r->flags & CACHE_VARY_RECORD))
        copies_put(k, j, txn, r, !strncmp(next.status, "hit", 3));
}

/* ---- what is not there ---- */

static void next_of_nothing(const struct removals *g, char *out, size_t size)
{
    static const char *const how[] = {[REMOVED_UNKNOWN] = "removed",
                                      [REMOVED_INVALIDATED] = "removed: invalidated by ",
                                      [REMOVED_EVICTED] = "evicted to make room",
                                      [REMOVED_EXPIRED] = "removed long after it was stale"};
    const size_t n = (size_t)snprintf(out, size, "miss: nothing is stored under it");
    if (g)
        snprintf(out + n, size - n, "; a copy was %s%s", how[g->how], g->by);
}

static void put_gone(const struct keeper *k, struct rpc_out *o, const struct removals *g)
{
    static const char *const how[] = {[REMOVED_UNKNOWN] = "unknown",
                                      [REMOVED_INVALIDATED] = "invalidated",
                                      [REMOVED_EVICTED] = "evicted",
                                      [REMOVED_EXPIRED] = "expired"};
    rpc_out_map(o, "removed");
    rpc_out_str(o, "how", how[g->how]);
    rpc_out_u64(o, "when", g->when_s);
    if (g->how == REMOVED_INVALIDATED) {
        rpc_out_str(o, "by", g->by);
        rpc_out_u64(o, "sequence", g->seq);
        put_host(k, o, g->seq);
    }
    rpc_out_end(o);
}

/* What the last answer was like, where it was not stored. */
static bool put_refusal(const struct keeper *k, const struct job *j, char *text, size_t size)
{
    uint64_t ago_s;
    char ago[UNITS_TEXT];
    const unsigned why = cache_refusal_find(k->shared->cache, inval_secret(k->shared->inval),
                                            j->text, j->len, k->real_ms, &ago_s);
    if (!why)
        return false;
    units_seconds((double)ago_s, ago);
    snprintf(text, size, "miss: nothing is stored under it; the last answer, %s ago, was not: %s",
             ago, policy_store_reason((enum policy_store)why));
    return true;
}

static void put_summary(struct rpc_out *o, const struct job *j)
{
    char text[sizeof j->summary + 64];
    if (j->answers == 1)
        snprintf(text, sizeof text, "%s", j->summary);
    else
        snprintf(text, sizeof text, "%u variants are stored; the first one: %s", j->answers,
                 j->summary);
    rpc_out_str(o, "summary", text);
}

void why_put_end(const struct keeper *k, const struct job *j)
{
    struct rpc_out *o = j->out;
    const struct removals *g = removals_find(k->store.gone, j->text, j->len);
    char text[NEXT_TEXT], sentence[NEXT_TEXT + 32];
    rpc_out_u64(o, "sequence", inval_seq(k->shared->inval));
    if (j->answers)
        put_summary(o, j);
    if (j->found) {
        rpc_out_str(o, "next", "see each variant");
        return;
    }
    if (!put_refusal(k, j, text, sizeof text))
        next_of_nothing(g, text, sizeof text);
    if (g)
        put_gone(k, o, g);
    put_sentence(text, sentence, sizeof sentence);
    rpc_out_str(o, "summary", sentence);
    rpc_out_str(o, "next", text);
    rpc_out_str(o, "cache_status", "fwd=uri-miss");
}
