/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_offer: see fleet_offer.h. */
#include "daemons/worker/fetch/fleet_offer.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fleet_link.h"
#include "daemons/worker/message/origin.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/message/route_state.h"
#include "daemons/worker/reader.h"
#include "daemons/worker/worker.h"
#include "polder/ring.h"

#define FOR_ONE_MS 2000 /* so long other hosts do not wait for each other */
#define FAILED_MS  1000

/* Or for all that have no identity: the rest of a partition's key is the origin, behind a proxy. */
static bool is_for_all(const struct config_cache *cache)
{
    return !cache->n_partition ||
           (cache->n_partition == 1 && cache->partition[0].kind == CONFIG_KEY_IDENTITY);
}

bool fleet_offer_may_take(const struct fetch *ex)
{
    const struct request *r = &ex->req;
    const struct config_cache *cache = r->route ? r->route->cache : NULL;
    return ex->worker->config->fleet.n_store && cache && cache->shared && is_for_all(cache) &&
           !r->post && r->policy.identity != POLICY_PARTITION && !request_is_quarantined(r);
}

bool fleet_offer_may(const struct fetch *ex)
{
    const struct request *r = &ex->req;
    return fleet_offer_may_take(ex) && ex->for_store && !r->has_identity &&
           !r->policy.has_authorization && r->policy.identity == POLICY_ANONYMOUS;
}

bool fleet_offer_tell(struct fetch *ex, enum fleet_share_note kind, uint64_t stream,
                      const struct iovec *iov, int n)
{
    struct worker *w = ex->worker;
    size_t len = 0;
    for (int i = 0; i < n; i++)
        len += iov[i].iov_len;
    const struct ring_record head = {.len = (uint32_t)len,
                                     .type = RING_SWEEP,
                                     .flags = (uint16_t)kind,
                                     .incarnation = w->process->incarnation,
                                     .stream = stream,
                                     .permit = ex->fleet_permit};
    return len <= RING_RECORD_MAX && ring_push(shared_fleet_ring(w->shared, w->number), &head, iov,
                                               n, w->shared->control_event) == 0;
}

static struct iovec bytes(const void *at, size_t len)
{
    return (struct iovec){(void *)(uintptr_t)at, len};
}

/* ---- what it has brought ---- */

static bool is_wanted(const struct worker *w)
{
    return atomic_load(&w->shared->fleet->shared_is_quick) && !fleet_link_is_cut_off(w);
}

bool fleet_offer_chunk(struct fetch *ex, uint64_t stream, uint64_t from, const char *at, size_t len)
{
    const struct iovec iov[] = {bytes(&from, sizeof from), bytes(at, len)};
    return fleet_offer_tell(ex, FLEET_SHARE_CHUNK, stream, iov, 2);
}

void fleet_offer_put(struct fetch *ex, const struct fleet_offer *o)
{
    char origin[ORIGIN_MAX];
    struct worker *w = ex->worker;
    const struct fleet_put note = {.epoch = ex->fleet_epoch,
                                   .applied = ex->fleet_applied,
                                   .interval_ms = (uint32_t)request_interval_ms(&ex->req),
                                   .marks = o->marks,
                                   .partition_len = ex->req.partition_len,
                                   .origin_len = (uint32_t)origin_text(&ex->req, origin)};
    struct iovec iov[] = {bytes(&note, sizeof note),
                          bytes(o->record, sizeof *o->record),
                          bytes(o->text.at, o->text.len),
                          bytes(o->body.at, o->body.len),
                          bytes(ex->req.partition, ex->req.partition_len),
                          bytes(origin, note.origin_len)};
    if (o->record->body_len > ex->req.route->cache->shared_max_body || !note.epoch || !is_wanted(w))
        return;
    if (fleet_offer_tell(ex, FLEET_SHARE_PUT, o->stream, iov, sizeof iov / sizeof *iov))
        ex->fleet_claims = false;
}

/* The body of the stored copy; they are pinned. */
static bool send_chunks(struct fetch *ex, uint64_t stream)
{
    struct worker *w = ex->worker;
    const struct cache_record *rec = ex->stale->view.record;
    uint64_t sent = 0;
    const char *at;
    size_t len;
    if (!ex->stale->pinned || !reader_ready(w))
        return false;
    for (uint32_t n = 0; sent < rec->body_len; n++, sent += len)
        if (cache_reader_chunk(w->reader, rec->obj_id, n, &at, &len) != 1 ||
            !fleet_offer_chunk(ex, stream, sent, at, len))
            break;
    cache_reader_release(w->reader);
    return sent == rec->body_len;
}

void fleet_offer_renewed(struct fetch *ex)
{
    struct worker *w = ex->worker;
    const struct cache_view *v = &ex->stale->view;
    const struct cache_record *rec = v->record;
    const bool chunks = rec->flags & CACHE_CHUNKED_BODY;
    const size_t text_len = rec->url_len + rec->vary_len + rec->head_len;
    const struct fleet_offer o = {.record = rec,
                                  .text = {v->url, text_len},
                                  .body = {v->body, v->body ? rec->inline_len : 0},
                                  .stream = chunks ? ++w->keeper.stream : 0};
    if (fleet_offer_may(ex) && is_wanted(w) && rec->status != 206 &&
        rec->body_len <= ex->req.route->cache->shared_max_body &&
        (!chunks || send_chunks(ex, o.stream)))
        fleet_offer_put(ex, &o);
    fleet_offer_end(ex, FETCH_LOCK_NOSHARE);
}

/* What a request has brought for one client alone it brings others, too; and what has failed is not
 * tried by one host after the other. */
static uint32_t nothing_ms(const struct fetch *ex, enum fetch_lock_result result)
{
    if (result == FETCH_LOCK_NOSHARE)
        return FOR_ONE_MS;
    return ex->failed || ex->answered ? FAILED_MS : 0;
}

void fleet_offer_end(struct fetch *ex, enum fetch_lock_result result)
{
    const struct fleet_end note = {.nothing_ms = nothing_ms(ex, result)};
    const struct iovec iov = bytes(&note, sizeof note);
    if (ex->fleet_claims)
        fleet_offer_tell(ex, FLEET_SHARE_END, 0, &iov, 1);
    ex->fleet_claims = false;
}

void fleet_offer_release(struct fetch *ex, enum fetch_lock_result result)
{
    fleet_offer_end(ex, result);
    permit_release(ex->worker, &ex->permit, result);
}
