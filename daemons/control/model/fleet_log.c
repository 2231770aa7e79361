/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_log: see fleet_log.h. */
#include "daemons/control/model/fleet_log.h"
#include "daemons/control/model/fleet_marks.h"
#include "polder/inval.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fleet_log_note_strange(struct fleet_log *l, const char *what)
{
    l->strange++;
    l->base->ops->strange(l->base->arg, what);
}

void fleet_log_forget(struct fleet_log *l, uint64_t epoch, uint64_t applied, uint64_t remembered,
                      const char *why)
{
    struct fleet_page *page = l->base->page;
    l->gaps++;
    l->ops->forgot(l->arg);
    atomic_store(&page->until_ms, 0); /* before anything else is known to be newer */
    l->base->ops->apply_all(l->base->arg, why);
    *l->log_id = 0;
    fleet_marks_begin(page, applied);
    atomic_store(&page->remembered, remembered);
    atomic_store(&page->applied, applied);
    atomic_store(&page->epoch, epoch);
}

/* ---- entries ---- */

/* An entry of another version may have invalidated anything. */
static void take_bytes(struct fleet_log *l, uint64_t id, const uint8_t *bytes, size_t len,
                       uint64_t *before)
{
    struct fleet_entry e;
    const int rc = fleet_entry_read(bytes, len, &l->base->key, &e);
    if (rc == -EPERM) {
        fleet_log_note_strange(l, "an entry of the log is not signed with this fleet's secret");
        return;
    }
    if (rc) {
        l->gaps++;
        l->waited = true; /* it does not say */
        l->base->ops->apply_all(l->base->arg,
                                "a host writes entries of a version that is not known here");
        return;
    }
    if (fleet_base_is_self(l->base, e.instance)) { /* our own: it holds already */
        *before = e.before < *before ? e.before : *before;
        return;
    }
    if (id <= atomic_load(&l->base->page->remembered)) {
        l->base->ops->remember(l->base->arg, &e);
        return;
    }
    l->received++;
    l->waited |= e.waited;
    const uint64_t seq = l->base->ops->apply(l->base->arg, &e);
    if (seq)
        fleet_note_cause(l->base->page, seq, id, e.host);
}

static void move_on(struct fleet_log *l, uint64_t id, uint64_t before)
{
    *l->log_id = 0;
    fleet_marks_note(l->base->page, id, before);
    atomic_store(&l->base->page->applied, id);
}

/* [ID, [FIELD, VALUE...]] */
static bool take_entry(struct fleet_log *l, const redisReply *r)
{
    const char *id_text = fleet_reply_text(r, 0);
    const redisReply *fields = id_text && r->elements == 2 ? r->element[1] : NULL;
    char *end;
    if (!fields || fields->type != REDIS_REPLY_ARRAY)
        return false;
    const uint64_t id = strtoull(id_text, &end, 10);
    uint64_t before = inval_seq(l->base->shared->inval);
    const bool ours = !strcmp(end, "-0") && fields->elements == 2 && fleet_reply_text(fields, 0) &&
                      !strcmp(fleet_reply_text(fields, 0), "e") && fleet_reply_text(fields, 1);
    if (!ours) {
        fleet_log_note_strange(l, "an entry of the log was not written by a Polder");
        if (strcmp(end, "-0") != 0) { /* between two numbers */
            snprintf(l->log_id, sizeof l->log_id, "%s", id_text);
            return true;
        }
    } else {
        take_bytes(l, id, (const uint8_t *)fields->element[1]->str, fields->element[1]->len,
                   &before);
    }
    if (id != fleet_base_applied(l->base) + 1)
        fleet_log_forget(l, fleet_base_epoch(l->base), id, atomic_load(&l->base->page->remembered),
                         "entries of the log are missing");
    else
        move_on(l, id, before);
    return true;
}

/* Whoever wrote it: it only lets those that wait look again. */
static bool take_stored(struct fleet_log *l, const redisReply *r)
{
    const char *id = fleet_reply_text(r, 0);
    const redisReply *fields = id && r->elements == 2 ? r->element[1] : NULL;
    if (!fields)
        return false;
    snprintf(l->stored_id, sizeof l->stored_id, "%s", id);
    if (fleet_reply_text(fields, 1))
        l->base->ops->stored(l->base->arg, fleet_reply_text(fields, 1));
    return true;
}

/* [STREAM, [ENTRY...]] */
static bool take_stream(struct fleet_log *l, const redisReply *r)
{
    const char *name = fleet_reply_text(r, 0);
    if (!name || r->elements != 2 || r->element[1]->type != REDIS_REPLY_ARRAY)
        return false;
    const redisReply *list = r->element[1];
    const bool is_log = !strcmp(name, l->base->log);
    bool good = true;
    for (size_t i = 0; good && i < list->elements; i++)
        good = is_log ? take_entry(l, list->element[i]) : take_stored(l, list->element[i]);
    return good;
}

/* ---- following ---- */

static bool take_streams(struct fleet_log *l, const redisReply *r)
{
    bool good = r->type == REDIS_REPLY_NIL || (r->type == REDIS_REPLY_ARRAY && r->elements);
    for (size_t i = 0; good && i < r->elements; i++)
        good = take_stream(l, r->element[i]);
    return good;
}

static void follow_soon(struct fleet_log *l)
{
    const uint64_t wait_ms = fleet_pace(&l->pacer);
    if (!wait_ms) {
        fleet_log_follow(l);
        return;
    }
    ev_timer_stop(l->base->loop, &l->pause);
    ev_timer_set(&l->pause, (double)wait_ms / 1000, 0.);
    ev_timer_start(l->base->loop, &l->pause);
}

/* [[STREAM, [ENTRY...]]...], or nil after a while without any. */
static void on_entries(void *arg, const redisReply *r)
{
    struct fleet_log *l = arg;
    const uint64_t applied = fleet_base_applied(l->base);
    l->following = l->waited = false;
    if (!r)
        return;
    if (r->type == REDIS_REPLY_ERROR) {
        fleet_store_fail(l->base->store, r->str);
        return;
    }
    if (!take_streams(l, r)) {
        fleet_store_fail(l->base->store, "it answers XREAD as no Redis does");
        return;
    }
    follow_soon(l);
    l->ops->read(l->arg, fleet_base_applied(l->base) != applied, l->waited);
}

static void on_pause(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    fleet_log_follow(w->data);
}

void fleet_log_follow(struct fleet_log *l)
{
    char after[32];
    snprintf(after, sizeof after, "%" PRIu64 "-0", fleet_base_applied(l->base));
    const struct fleet_streams from = {{l->base->log, l->base->stored},
                                       {*l->log_id ? l->log_id : after, l->stored_id}};
    ev_timer_stop(l->base->loop, &l->pause);
    if (!l->following)
        l->following = fleet_store_follow(l->base->store, &from, on_entries, l);
}

/* ---- life ---- */

void fleet_log_init(struct fleet_log *l, const struct fleet_base *base,
                    const struct fleet_log_ops *ops, void *arg)
{
    *l = (struct fleet_log){.base = base, .ops = ops, .arg = arg};
    ev_timer_init(&l->pause, on_pause, 0., 0.);
    l->pause.data = l;
}

void fleet_log_begin(struct fleet_log *l)
{
    *l->log_id = 0;
    strcpy(l->stored_id, "$"); /* an id of another history may never come */
}

void fleet_log_stop(struct fleet_log *l)
{
    ev_timer_stop(l->base->loop, &l->pause);
    l->following = false;
}
