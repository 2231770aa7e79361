/* SPDX-License-Identifier: BSD-2-Clause */
/* access: see access.h. */
#include "daemons/worker/message/access.h"
#include "daemons/worker/message/recent_note.h"
#include "daemons/http/h1.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/message/request_id.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/access_log.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/log.h"
#include "polder/proc.h"
#include "polder/stats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- the file ---- */

static void on_channel(EV_P_ ev_io *watcher, int events)
{
    struct worker *w = watcher->data;
    struct process_message message;
    int fd, code;
    (void)events;
    while ((code = process_receive(watcher->fd, &message, &fd)) != 0) {
        if (code == -EMFILE) {
            log_error("access log: cannot take the new file: %s; going on with the old one",
                      strerror(EMFILE));
        } else if (code < 0) { /* the master is gone, and so will we be */
            ev_io_stop(EV_A_ watcher);
            return;
        } else if (message.kind == PROCESS_ACCESS_LOG && access_log_is_on(&w->messages->log)) {
            access_log_change(&w->messages->log, fd);
            atomic_store(&w->slot->log_opening, message.number);
            shared_wake_control(w->shared);
        } else {
            close(fd);
        }
    }
}

int access_open(struct worker *w)
{
    const struct process *p = w->process;
    const int code = access_log_start(&w->messages->log, w->config->access_log, p->access_log);
    if (code < 0)
        return code;
    /* a worker before this one may have raised it, and died */
    condition_clear(w->shared->conditions, COND_ACCESS_LOG_FAILED, w->config->access_log_path,
                    w->real_ms);
    atomic_store(&w->slot->log_opening,
                 access_log_is_on(&w->messages->log) ? p->log_opening : PROC_NO_LOG);
    if (p->channel < 0)
        return 0;
    ev_io_init(&w->messages->channel, on_channel, p->channel, EV_READ);
    w->messages->channel.data = w;
    ev_io_start(w->loop, &w->messages->channel);
    return 0;
}

void access_close(struct worker *w)
{
    access_log_stop(&w->messages->log);
}

void access_flush(struct worker *w)
{
    if (!w->messages->log.len && !w->messages->log.raised)
        return;
    access_log_flush(&w->messages->log);
    const uint64_t lost = access_log_report(&w->messages->log, w->shared->conditions,
                                            w->config->access_log_path, w->real_ms);
    if (lost)
        stats_add(w->stats, STATS_ACCESS_LOG_LOST, lost);
}

/* ---- a line ---- */

static struct str text_of(const char *text)
{
    return (struct str){text, text ? strlen(text) : 0};
}

static struct str value_of(const struct h1_head *head, enum h1_field_id id)
{
    const struct h1_field *f = h1_find(head, id);
    return f ? f->value : (struct str){0};
}

static void describe_request(struct access_line *l, const struct request *r)
{
    l->client = r->ip;
    l->target = r->target;
    l->protocol = text_of(r->http10 ? "HTTP/1.0" : "HTTP/1.1");
    if (r->route)
        l->route = text_of(r->route->pattern);
    if (!r->head)
        return;
    l->method = r->head->method;
    l->host = r->head->host;
    l->user_agent = value_of(r->head, H1_USER_AGENT);
    l->referer = value_of(r->head, H1_REFERER);
}

/* Of a head that is not understood, or never came: what was read of it. */
static void describe_bytes(struct access_line *l, const struct client *c)
{
    l->client = c->peer;
    if (c->note.raw.len)
        access_line_guess(l, c->note.raw.at, c->note.raw.len);
    else if (c->state != CLIENT_PROXY && c->in)
        access_line_guess(l, c->in->data + c->in->start, c->in->end - c->in->start);
}

static void describe_note(struct access_line *l, const struct client *c)
{
    const struct worker *w = c->worker;
    const struct access_note *n = &c->note;
    l->real_ms = w->real_ms;
    l->cache = n->cache ? n->cache : "none";
    l->limit = text_of(n->limit);
    l->cut = n->cut;
    if (n->began_ns) {
        const uint64_t us = (clock_mono_ns() - n->began_ns) / 1000;
        l->us = us ? us : 1;
    }
    if (n->server && n->server->index < w->config->n_servers) {
        l->upstream = text_of(n->server->address.text);
        l->upstream_us = n->upstream_ns / 1000;
    }
}

/* id: room for the request's. */
static void describe(struct access_line *l, struct client *c, const struct request *r,
                     char id[REQUEST_ID_LEN])
{
    *l = (struct access_line){0};
    if (r)
        describe_request(l, r);
    else
        describe_bytes(l, c);
    describe_note(l, c);
    if (r) {
        l->request_id = request_id_of(r, id);
        return;
    }
    if (!c->note.number)
        c->note.number = request_id_next(&c->worker->messages->ids);
    request_id_write(&c->worker->messages->ids, c->note.number, id);
    l->request_id = (struct str){id, REQUEST_ID_LEN};
}

bool access_is_wanted(const struct worker *w)
{
    return access_log_is_on(&w->messages->log) || w->messages->recent.watched;
}

void access_begin(struct client *c)
{
    c->note = (struct access_note){.began_ns = access_is_wanted(c->worker) ? clock_mono_ns() : 0};
}

void access_unread(struct client *c, const char *bytes, size_t len)
{
    const struct worker *w = c->worker;
    const uint64_t begun_ms = c->state == CLIENT_HEAD ? w->mono_ms - c->first_ms : 0;
    c->note = (struct access_note){.raw = {bytes, len}};
    if (access_is_wanted(w))
        c->note.began_ns = clock_mono_ns() - begun_ms * 1000000;
}

static bool is_out(const struct client *c)
{
    return !c->out.len && !c->stored && !c->broken;
}

/* Once for each answer. */
static bool may_record(struct client *c, uint32_t *stands_for)
{
    struct worker *w = c->worker;
    if (!w->messages->recent.watched || c->note.recorded ||
        !recent_due(&w->messages->recent.sampler, w->mono_ms, stands_for))
        return false;
    c->note.recorded = true;
    return true;
}

void access_answered(struct client *c, const struct request *r, unsigned status, uint64_t bytes)
{
    struct worker *w = c->worker;
    struct access_line l;
    char id[REQUEST_ID_LEN];
    uint32_t stands_for = 0;
    if (c->note.is_probe || (!may_record(c, &stands_for) && !access_log_is_on(&w->messages->log)))
        return;
    describe(&l, c, r, id);
    l.status = status;
    l.bytes = bytes;
    if (stands_for)
        recent_note(w, r, &c->note, &l, stands_for);
    if (!access_log_is_on(&w->messages->log) || c->line)
        return;
    if (is_out(c) || !(c->line = access_line_copy(&l)))
        access_log_put(&w->messages->log, &l);
}

void access_sent(struct client *c)
{
    struct access_line *l = c->line;
    if (!l)
        return;
    l->real_ms = c->worker->real_ms;
    if (c->note.began_ns)
        l->us = (clock_mono_ns() - c->note.began_ns) / 1000;
    access_log_put(&c->worker->messages->log, l);
    free(l);
    c->line = NULL;
}

/* ---- the connection ends ---- */

static uint64_t less(uint64_t n, uint64_t by)
{
    return n > by ? n - by : 0;
}

/* What was handed over, or lies in the store still, and did not get out. */
static uint64_t unsent(const struct client *c)
{
    return c->out.len + (c->stored ? c->stored->end - c->stored->at : 0);
}

static void close_line(struct client *c, struct access_line *l)
{
    l->bytes = less(l->bytes, unsent(c));
    l->cut = c->note.cut;
    if (!l->cut)
        l->status = ACCESS_LEFT;
    else if (!l->status) /* nothing of an answer had been sent */
        l->status = 503;
}

void access_cut(struct client *c)
{
    close_line(c, c->line);
    access_sent(c);
}

void access_lost(struct client *c, const struct request *r, unsigned status, uint64_t bytes)
{
    struct access_line l;
    char id[REQUEST_ID_LEN];
    uint32_t stands_for = 0;
    if (c->note.is_probe || !access_is_wanted(c->worker))
        return;
    describe(&l, c, r, id);
    l.status = status;
    l.bytes = bytes;
    close_line(c, &l);
    if (may_record(c, &stands_for))
        recent_note(c->worker, r, &c->note, &l, stands_for);
    access_log_put(&c->worker->messages->log, &l);
}
