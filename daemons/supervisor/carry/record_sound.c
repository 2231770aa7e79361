/* SPDX-License-Identifier: BSD-2-Clause */
/* record_sound: whether a record is one that a session could have come to. Nothing later looks again:
 * what is an index or a length is bounded here. */
#include "daemons/supervisor/carry/record.h"

static bool leg_wrong(const struct leg_record *r, bool from_client)
{
    const struct frames *f = &r->in;
    return !frames_sound(f, from_client) || r->stash.len >= FRAMES_CONTROL_MAX ||
           (r->stash.len && f->left) || (r->expanded && !inflate_packed_sound(r->expanded)) ||
           (r->fd < 0 && (r->out.len || r->stash.len));
}

static const char *pending_wrong(const struct session_record *r)
{
    const struct pending_record *p = r->pending;
    struct h1_body body;
    if (p->limits.len > HANDOVER_LINES_MAX || p->head.len > HANDOVER_MAX || !p->head.len ||
        p->pipelined.len > HANDOVER_MAX || p->answer.len >= sizeof((struct pending *)0)->answer)
        return "a handshake is too long";
    if (p->failed_with >= PROBLEMS || !h1_body_resume(&body, &p->body))
        return "the answer to a handshake is in no state that there is";
    return r->client.fd < 0 || r->backend.fd < 0 ? "a handshake has no connection" : NULL;
}

static const char *subscription_wrong(const struct subscription_record *b)
{
    return b->n_tags > SUBSCRIPTION_TAGS_MAX || b->len > SUBSCRIPTION_MESSAGE_MAX ||
                   (b->len && !b->text)
               ? "a subscription is too long"
               : NULL;
}

const char *session_record_wrong(const struct session_record *r)
{
    const bool opens = r->state == SESSION_CONNECTING || r->state == SESSION_ASKING ||
                       r->state == SESSION_REFUSING;
    if (r->state >= SESSION_ENDED || r->end >= END_REASONS || !r->id)
        return "a session is in no state that there is";
    if (leg_wrong(&r->client, true) || leg_wrong(&r->backend, false))
        return "a frame is in no state that there is";
    if (opens != (r->pending != NULL) || (opens && r->subscription))
        return "a session has a handshake that does not belong to its state";
    if (opens)
        return pending_wrong(r);
    if (r->client.fd < 0 && (r->state == SESSION_OPEN || r->backend.fd < 0))
        return "a session has no connection";
    if (r->subscription ? r->backend.fd >= 0 : r->state == SESSION_OPEN && r->backend.fd < 0)
        return "a session has no backend";
    return r->subscription ? subscription_wrong(r->subscription) : NULL;
}
