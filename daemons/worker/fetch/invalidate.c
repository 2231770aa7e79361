/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * invalidate: a successful answer to an unsafe method ends what is stored for its own URL, for
 * Location and Content-Location on the same host (RFC 9111 4.4), for the Destination of MOVE and
 * COPY, and for the groups of its origin that it names (RFC 9875), before the client sees that
 * answer. What says that something is not there ends for all that it may have made.
 */
#include "daemons/worker/fetch/invalidate.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/supervisor_link.h"
#include "daemons/worker/fetch/store.h"
#include "daemons/worker/fleet_link.h"
#include "daemons/worker/keeper_link.h"
#include "daemons/worker/message/origin.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/cache.h"
#include "polder/field.h"
#include "polder/inval.h"
#include "polder/policy.h"
#include "polder/shared.h"
#include "polder/stats.h"
#include "polder/url.h"

#include <string.h>

struct marking {
    struct worker *worker;
    uint64_t count;
    uint32_t origin;                  /* that the groups belong to */
    char origin_name[ORIGIN_MAX + 1]; /* its text, and a newline */
    size_t origin_len;
};

/* An URL has changed; what was not there may be there now. */
static void mark_url(struct marking *m, const char *url, size_t len)
{
    struct worker *w = m->worker;
    struct cache_key key;
    fleet_link_tell(w, FLEET_CHANGE, (struct str){url, len}, (struct str){"", 0});
    inval_mark_url(w->shared->inval, url, len, false);
    m->count++;
    stats_add(w->stats, STATS_CACHE_INVALIDATIONS, 1);
    supervisor_link_tell(w, (struct str){url, len}, (struct str){"", 0});
    cache_key_of(inval_secret(w->shared->inval), url, len, "", 0, &key);
    keeper_link_delete(w, &key);
    m->count += cache_negative_mark(w->shared->inval, url, len);
}

static void mark_group(void *arg, struct str group)
{
    struct marking *m = arg;
    struct worker *w = m->worker;
    fleet_link_tell(w, FLEET_GROUP, (struct str){m->origin_name, m->origin_len}, group);
    inval_mark_group(w->shared->inval, m->origin, group.at, group.len);
    supervisor_link_tell(w, (struct str){"", 0}, group);
    m->count++;
    stats_add(w->stats, STATS_CACHE_INVALIDATIONS, 1);
}

static size_t host_len(const char *url, size_t len)
{
    const char *slash = memchr(url, '/', len);
    return slash ? (size_t)(slash - url) : len;
}

/* The reference as an absolute one, "host/path?query"; 0 where it does not fit. */
static size_t resolve(const struct request *r, struct str ref, char *out, size_t size)
{
    struct h1_out o = {out, out + size, false};
    const size_t host = host_len(r->url, r->url_len);
    if (ref.len > 2 && ref.at[0] == '/' && ref.at[1] == '/') {
        h1_put(&o, ref.at + 2, ref.len - 2);
    } else if (memmem(ref.at, ref.len, "://", 3)) {
        h1_put(&o, ref.at, ref.len);
    } else {
        size_t base = host;
        if (ref.at[0] != '/') { /* relative to the directory of the request's path */
            const char *mark = memchr(r->url, '?', r->url_len);
            const size_t path_end = mark ? (size_t)(mark - r->url) : r->url_len;
            for (base = path_end; ref.at[0] != '?' && base > host && r->url[base - 1] != '/';)
                base--;
        }
        h1_put(&o, r->url, base);
        h1_put(&o, ref.at, ref.len);
    }
    return o.overflow ? 0 : (size_t)(o.at - out);
}

/* The URL that a Location field means, as in cache keys, in w->texts->reference; 0: none that we know. */
static size_t reference(struct worker *w, const struct request *r, const struct h1_field *f)
{
    char text[WORKER_URL_MAX];
    const struct config_route *route;
    if (!f || !f->value.len)
        return 0;
    const size_t n = resolve(r, f->value, text, sizeof text);
    const int len = n ? url_normalise_text(w->config, text, n, w->texts->reference,
                                           sizeof w->texts->reference, &route)
                      : 0;
    return len > 0 ? (size_t)len : 0;
}

static void mark_reference(struct marking *m, const struct request *r, const struct h1_field *f)
{
    const char *url = m->worker->texts->reference;
    const size_t len = reference(m->worker, r, f), host = host_len(r->url, r->url_len);
    if (len && host_len(url, len) == host && !memcmp(url, r->url, host))
        mark_url(m, url, len);
}

/* All lines: with two of them it is unknown which one is meant. */
static void mark_references(struct marking *m, const struct request *r, const struct h1_head *head,
                            enum h1_field_id id)
{
    for (uint32_t i = 0; head->first[id] && i < head->n_fields; i++)
        if (head->field[i].id == id)
            mark_reference(m, r, &head->field[i]);
}

bool invalidate_is_target(struct worker *w, const struct request *r, const struct h1_field *f)
{
    const size_t len = reference(w, r, f);
    return len == r->url_len && len && !memcmp(w->texts->reference, r->url, len);
}

/* True if the response was not invalidated after its request was sent, up to *seq. */
static bool is_untouched(const struct fetch *ex, const struct h1_head *head, uint64_t *seq)
{
    const struct worker *w = ex->worker;
    const struct request *r = &ex->req;
    const struct inval_page *page = w->shared->inval;
    struct cache_record tags = {0};
    return inval_settled(page, seq) && tags_read(r, head, &tags) &&
           inval_check_held(page, ex->fetch_seq, ex->fetch_seq,
                            inval_url_slot(page, r->url, r->url_len), tags.tag_slot, tags.n_tags,
                            r->url, r->url_len) == INVAL_VALID;
}

void invalidate_after(struct fetch *ex, const struct h1_head *head)
{
    struct worker *w = ex->worker;
    const struct request *r = &ex->req;
    const struct str method = r->head->method;
    struct marking m = {.worker = w};
    if (!w->fetches->any_cache || !r->url_len ||
        !policy_invalidates(method.at, method.len, head->status))
        return;
    uint64_t before;
    const bool untouched = r->post && is_untouched(ex, head, &before);
    mark_url(&m, r->url, r->url_len);
    if (field_is(method, "move") || field_is(method, "copy"))
        mark_references(&m, r, r->head, H1_DESTINATION); /* RFC 4918 9.8, 9.9 */
    mark_references(&m, r, head, H1_LOCATION);
    mark_references(&m, r, head, H1_CONTENT_LOCATION);
    char groups[H1_HEAD_MAX];
    const size_t n = h1_join(head, H1_CACHE_GROUP_INVALIDATION, groups, sizeof groups);
    if (n) {
        m.origin = tags_origin(r);
        m.origin_len = origin_text(r, m.origin_name);
        m.origin_name[m.origin_len++] = '\n';
        field_sf_strings((struct str){groups, n}, mark_group, &m);
    }
    shared_wake_holders(w->shared);
    /* The response itself is newer than its own invalidation, unless there was another one. */
    if (untouched && inval_seq(w->shared->inval) == before + m.count)
        ex->fetch_seq = before + m.count;
}
