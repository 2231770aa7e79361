/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_offer: see fleet_offer.h. */
#include "daemons/worker/fetch/fleet_offer.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fleet_link.h"
#include "daemons/worker/message/origin.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/message/route_state.h"
#include "daemons/worker/worker.h"
#include "polder/ring.h"

bool fleet_offer_may(const struct fetch *ex)
{
    const struct request *r = &ex->req;
    const struct config_cache *cache = r->route ? r->route->cache : NULL;
    return ex->worker->config->fleet.n_store && cache && cache->shared && !cache->n_partition &&
           ex->for_store && !r->post && !r->has_identity && !r->policy.has_authorization &&
           r->policy.identity == POLICY_ANONYMOUS && !r->partition_len &&
           !request_is_quarantined(r);
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
                                     .permit = permit_is_held(&ex->permit) ? ex->permit.lock
                                                                           : FETCH_LOCK_NONE};
    return len <= RING_RECORD_MAX && ring_push(shared_fleet_ring(w->shared, w->number), &head, iov,
                                               n, w->shared->control_event) == 0;
}

static struct iovec bytes(const void *at, size_t len)
{
    return (struct iovec){(void *)(uintptr_t)at, len};
}

/* ---- what it has brought ---- */

bool fleet_offer_chunk(struct fetch *ex, uint64_t stream, const char *at, size_t len)
{
    const struct iovec iov = bytes(at, len);
    return fleet_offer_tell(ex, FLEET_SHARE_CHUNK, stream, &iov, 1);
}

void fleet_offer_put(struct fetch *ex, const struct fleet_offer *o)
{
    char origin[ORIGIN_MAX];
    struct worker *w = ex->worker;
    const struct fleet_put note = {.epoch = ex->fleet_epoch,
                                   .applied = ex->fleet_applied,
                                   .names_len = (uint32_t)o->names.len,
                                   .origin_len = (uint32_t)origin_text(&ex->req, origin)};
    struct iovec iov[] = {bytes(&note, sizeof note),        bytes(o->record, sizeof *o->record),
                          bytes(o->text.at, o->text.len),   bytes(o->body.at, o->body.len),
                          bytes(o->names.at, o->names.len), bytes(origin, note.origin_len)};
    if (o->record->body_len > ex->req.route->cache->shared_max_body || !note.epoch ||
        !atomic_load(&w->shared->fleet->shared_is_quick) || fleet_link_is_cut_off(w))
        return;
    if (fleet_offer_tell(ex, FLEET_SHARE_PUT, o->stream, iov, sizeof iov / sizeof *iov))
        ex->fleet_claims = false;
}

void fleet_offer_end(struct fetch *ex, enum fetch_lock_result result)
{
    const struct fleet_end note = {.for_one = result == FETCH_LOCK_NOSHARE};
    struct iovec iov[] = {bytes(&note, sizeof note), bytes(ex->req.url, ex->req.url_len)};
    if (ex->fleet_claims)
        fleet_offer_tell(ex, FLEET_SHARE_END, 0, iov, 2);
    ex->fleet_claims = false;
}

void fleet_offer_release(struct fetch *ex, enum fetch_lock_result result)
{
    fleet_offer_end(ex, result);
    permit_release(ex->worker, &ex->permit, result);
}
