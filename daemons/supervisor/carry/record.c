/* SPDX-License-Identifier: BSD-2-Clause */
/* record: see record.h. */
#include "daemons/supervisor/carry/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- from a live session ---- */

/* The bytes of a chain in one piece. */
static bool flatten(const struct chain *c, struct bytes *to, uint8_t **space)
{
    const struct buffer *b;
    uint8_t *at;
    if (!c->len)
        return true;
    if (!(at = *space = malloc(c->len)))
        return false;
    *to = (struct bytes){at, c->len};
    STAILQ_FOREACH (b, &c->list, next) {
        memcpy(at, b->data + b->start, b->end - b->start);
        at += b->end - b->start;
    }
    return true;
}

static bool describe_leg(const struct leg *leg, struct leg_record *r,
                         struct inflate_packed *expanded, uint8_t **out)
{
    *r = (struct leg_record){.fd = leg->io.fd,
                             .in = leg->in,
                             .pinged_ms = leg->pinged_ms,
                             .pings_out = leg->pings_out,
                             .cut = leg->cut,
                             .fin = leg->fin};
    if (leg->stash)
        r->stash = (struct bytes){leg->stash->data, leg->stash->end};
    if (leg->expanded) {
        inflate_count_pack(leg->expanded, expanded);
        r->expanded = expanded;
    }
    return flatten(&leg->out, &r->out, out);
}

static void describe_pending(const struct session *x, struct pending_record *r)
{
    const struct pending *p = x->pending;
    const struct config_upstream *u = x->route->upstream;
    *r = (struct pending_record){.servers = servers_digest(u),
                                 .tried = p->tried,
                                 .server =
                                     p->server ? (uint32_t)(p->server - u->servers) : UINT32_MAX,
                                 .address = p->address,
                                 .place = p->place,
                                 .anyway = p->anyway,
                                 .sticky = p->sticky,
                                 .failed_attempts = p->failed_attempts,
                                 .until_ms = p->until_ms,
                                 .lease_ms = p->lease_ms,
                                 .failed_with = p->failed_with,
                                 .failed_why = p->failed_why,
                                 .limits = {p->bytes, p->limit_len},
                                 .head = {pending_head(p), p->head_len},
                                 .pipelined = {pending_pipelined(p), p->pipelined_len},
                                 .answer = {p->answer, p->answer_len},
                                 .body = p->body};
    memcpy(r->accept_key, p->accept_key, sizeof r->accept_key);
}

bool session_describe(const struct session *x, struct session_record *r,
                      struct session_space *space)
{
    space->out[0] = space->out[1] = NULL;
    *r = (struct session_record){.route = x->route->pattern,
                                 .ip = x->count->ip,
                                 .id = x->id,
                                 .opened_ms = x->opened_ms,
                                 .to_client_ms = x->to_client_ms,
                                 .from_client_ms = x->from_client_ms,
                                 .deadline_ms = x->deadline_ms,
                                 .moved_ms = x->moved_ms,
                                 .due_ms = timer_is_armed(&x->timer) ? x->timer.due_ms : 0,
                                 .undelivered = x->undelivered,
                                 .begun_ns = x->begun_ns,
                                 .requested_ns = x->requested_ns,
                                 .bytes = x->bytes,
                                 .messages_in = x->messages_in,
                                 .messages_out = x->messages_out,
                                 .refused_with = x->refused_with,
                                 .close_code = x->close_code,
                                 .state = x->state,
                                 .end = x->end,
                                 .probe = x->probe,
                                 .goodbye = x->goodbye,
                                 .untold = x->untold,
                                 .client_id = x->client_id ? x->client_id : "",
                                 .line = x->line};
    if (x->pending) {
        describe_pending(x, &space->pending);
        r->pending = &space->pending;
    }
    if (x->subscription) {
        local_describe(x, &space->subscription);
        r->subscription = &space->subscription;
    }
    if (describe_leg(&x->client, &r->client, &space->expanded[0], &space->out[0]) &&
        describe_leg(&x->backend, &r->backend, &space->expanded[1], &space->out[1]))
        return true;
    session_forget(space);
    return false;
}

void session_forget(struct session_space *space)
{
    free(space->out[0]);
    free(space->out[1]);
    space->out[0] = space->out[1] = NULL;
}

bool session_record_survives(const struct session_record *r, const struct config_route *to)
{
    const struct pending_record *p = r->pending;
    if (!to || !p)
        return to != NULL;
    return to->upstream && servers_digest(to->upstream) == p->servers &&
           p->server < to->upstream->n_servers;
}

/* ---- a live session again ---- */

static bool resume_leg(struct supervisor *s, struct leg *leg, const struct leg_record *r)
{
    leg->in = r->in;
    leg->pinged_ms = r->pinged_ms;
    leg->pings_out = r->pings_out;
    leg->cut = r->cut;
    leg->fin = r->fin;
    if (r->stash.len) {
        if (!(leg->stash = buffer_get(&s->buffers)))
            return false;
        memcpy(leg->stash->data, r->stash.at, r->stash.len);
        leg->stash->end = (uint32_t)r->stash.len;
    }
    if (r->expanded && !(leg->expanded = inflate_count_unpack(r->expanded)))
        return false;
    return chain_append(&s->buffers, &leg->out, r->out.at, r->out.len);
}

static bool resume_pending(struct session *x, const struct pending_record *r)
{
    struct pending *p = x->pending =
        calloc(1, sizeof *p + r->limits.len + r->head.len + r->pipelined.len);
    if (!p)
        return false;
    memcpy(p->accept_key, r->accept_key, sizeof p->accept_key);
    p->tried = r->tried;
    p->server = r->server == UINT32_MAX ? NULL : &x->route->upstream->servers[r->server];
    p->address = r->address;
    p->place = r->place;
    p->anyway = r->anyway;
    p->sticky = r->sticky;
    p->failed_attempts = r->failed_attempts;
    p->until_ms = r->until_ms;
    p->lease_ms = r->lease_ms;
    p->failed_with = r->failed_with;
    snprintf(p->failed_why, sizeof p->failed_why, "%s", r->failed_why);
    p->limit_len = (uint32_t)r->limits.len;
    p->head_len = (uint32_t)r->head.len;
    p->pipelined_len = (uint32_t)r->pipelined.len;
    p->answer_len = (uint32_t)r->answer.len;
    h1_body_resume(&p->body, &r->body);
    char *at = p->bytes;
    const struct bytes *const part[] = {&r->limits, &r->head, &r->pipelined};
    for (int i = 0; i < 3; at += part[i]->len, i++)
        if (part[i]->len)
            memcpy(at, part[i]->at, part[i]->len);
    if (r->answer.len)
        memcpy(p->answer, r->answer.at, r->answer.len);
    return true;
}

static bool resume_parts(struct supervisor *s, struct session *x, const struct session_record *r)
{
    if (*r->client_id && !(x->client_id = strdup(r->client_id)))
        return false;
    if (r->line)
        x->line = access_line_copy(r->line);
    return resume_leg(s, &x->client, &r->client) && resume_leg(s, &x->backend, &r->backend) &&
           (!r->pending || resume_pending(x, r->pending)) &&
           (!r->subscription || local_resume(x, r->subscription));
}

static void resume_numbers(struct session *x, const struct session_record *r)
{
    x->id = r->id;
    x->opened_ms = r->opened_ms;
    x->to_client_ms = r->to_client_ms;
    x->from_client_ms = r->from_client_ms;
    x->deadline_ms = r->deadline_ms;
    x->moved_ms = r->moved_ms;
    x->undelivered = r->undelivered;
    x->begun_ns = r->begun_ns;
    x->requested_ns = r->requested_ns;
    x->bytes = r->bytes;
    x->messages_in = r->messages_in;
    x->messages_out = r->messages_out;
    x->refused_with = r->refused_with;
    x->close_code = r->close_code;
    x->state = r->state;
    x->end = r->end;
    x->goodbye = r->goodbye;
    x->untold = r->untold;
}

/* From here on events move it. */
static void resume_watching(struct supervisor *s, struct session *x)
{
    if (x->state == SESSION_CONNECTING || x->state == SESSION_ASKING)
        backend_resume(s, x);
    else if (x->state == SESSION_REFUSING)
        refuse_resume(s, x);
    else
        relay_watch(s, x);
}

struct session *session_resume(struct supervisor *s, const struct config_route *route,
                               const struct session_record *r)
{
    struct session *x = session_new(s, r->client.fd, route, &r->ip, r->probe);
    if (!x) {
        close(r->client.fd);
        close(r->backend.fd);
        return NULL;
    }
    s->held -= r->client.fd < 0;
    ev_io_set(&x->backend.io, r->backend.fd, 0);
    s->held += r->backend.fd >= 0;
    resume_numbers(x, r);
    if (!resume_parts(s, x, r)) {
        session_end(s, x, END_FAILED);
        return NULL;
    }
    if (r->due_ms)
        timer_set(&s->wheel, &x->timer, r->due_ms);
    resume_watching(s, x);
    return x->state == SESSION_ENDED ? NULL : x;
}
