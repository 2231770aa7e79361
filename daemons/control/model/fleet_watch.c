/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_watch: see fleet_watch.h. */
#include "daemons/control/model/fleet_watch.h"
#include "daemons/control/model/fleet.h"
#include "daemons/control/model/fleet_object.h"
#include "polder/conditions.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void fleet_watch_begin(struct fleet_watch *w, uint64_t epoch)
{
    *w = (struct fleet_watch){.epoch = epoch};
}

/* ---- how late ---- */

static void note_last(struct fleet_watch *w, uint64_t last, uint64_t now_ms)
{
    const struct fleet_known *newest = &w->known[(w->n_known - 1) % FLEET_WATCH_KNOWN];
    if (w->n_known && newest->last >= last)
        return;
    w->known[w->n_known++ % FLEET_WATCH_KNOWN] = (struct fleet_known){now_ms, last};
}

uint64_t fleet_watch_late_ms(const struct fleet_watch *w, uint64_t applied, uint64_t now_ms)
{
    const uint32_t n = w->n_known < FLEET_WATCH_KNOWN ? w->n_known : FLEET_WATCH_KNOWN;
    for (uint32_t i = w->n_known - n; i != w->n_known; i++) {
        const struct fleet_known *k = &w->known[i % FLEET_WATCH_KNOWN];
        if (k->last > applied)
            return now_ms > k->at_ms ? now_ms - k->at_ms : 0;
    }
    return 0;
}

struct late {
    const struct fleet_watch *watch;
    const struct fleet_view *view;
    uint64_t now_ms;
};

/* This host knows its own place best. */
static uint64_t late_ms(const struct late *l, const struct fleet_host *h)
{
    if (!l->view->connected || !h->alive || h->foreign)
        return 0; /* that is another condition, there */
    return fleet_watch_late_ms(l->watch, h->self ? l->view->applied : h->applied, l->now_ms);
}

static bool is_late(void *arg, const char *subject)
{
    const struct late *l = arg;
    for (uint32_t i = 0; i < l->view->n; i++)
        if (condition_subject_is(subject, l->view->at[i].name) &&
            late_ms(l, &l->view->at[i]) > FLEET_LATE_MS)
            return true;
    return false;
}

static void look_for_late_hosts(const struct late *l, struct condition_table *table,
                                uint64_t real_ms)
{
    condition_clear_except(table, COND_FLEET_LAG, is_late, (void *)(uintptr_t)l, real_ms);
    for (uint32_t i = 0; i < l->view->n; i++) {
        const struct fleet_host *h = &l->view->at[i];
        const uint64_t applied = h->self ? l->view->applied : h->applied;
        char reason[80];
        if (late_ms(l, h) <= FLEET_LATE_MS)
            continue;
        snprintf(reason, sizeof reason,
                 "%" PRIu64 " entries are not applied, the oldest for %" PRIu64 " s",
                 l->view->last - applied, late_ms(l, h) / 1000);
        condition_raise(table, COND_FLEET_LAG, h->name, reason, real_ms);
    }
}

/* ---- versions ---- */

/* False: it is as this host's, or not known. */
static bool differs(const struct fleet_host *h, char *out, size_t size)
{
    if (h->self || h->foreign || !h->entry)
        return false;
    if (h->format != FLEET_FORMAT)
        snprintf(out, size, "polderd %s has format %u of the store, this host %d: it cannot enter",
                 h->program, h->format, FLEET_FORMAT);
    else if (h->entry != FLEET_ENTRY_VERSION)
        snprintf(out, size,
                 "polderd %s writes entries of version %u, this host %d: what one "
                 "invalidates empties the other's whole cache",
                 h->program, h->entry, FLEET_ENTRY_VERSION);
    else if (h->object != FLEET_OBJECT_VERSION)
        snprintf(out, size,
                 "polderd %s shares objects of version %u, this host %d: neither takes the other's",
                 h->program, h->object, FLEET_OBJECT_VERSION);
    else
        return false;
    return true;
}

static bool is_of_other_version(void *arg, const char *subject)
{
    const struct late *l = arg;
    char reason[160];
    if (l->view->other_format)
        return condition_subject_is(subject, l->view->host);
    for (uint32_t i = 0; i < l->view->n; i++)
        if (condition_subject_is(subject, l->view->at[i].name) &&
            differs(&l->view->at[i], reason, sizeof reason))
            return true;
    return false;
}

static void look_for_other_versions(const struct late *l, struct condition_table *table,
                                    uint64_t real_ms)
{
    char reason[160];
    condition_clear_except(table, COND_FLEET_VERSIONS, is_of_other_version, (void *)(uintptr_t)l,
                           real_ms);
    if (l->view->other_format)
        condition_raise(table, COND_FLEET_VERSIONS, l->view->host, l->view->refusal, real_ms);
    for (uint32_t i = 0; !l->view->other_format && i < l->view->n; i++)
        if (differs(&l->view->at[i], reason, sizeof reason))
            condition_raise(table, COND_FLEET_VERSIONS, l->view->at[i].name, reason, real_ms);
}

/* ---- the store ---- */

static void note_epoch(struct fleet_watch *w, uint64_t epoch, uint64_t now_ms)
{
    if (epoch == w->epoch)
        return;
    if (w->epoch)
        w->anew_ms = now_ms;
    w->epoch = epoch;
    w->n_known = 0; /* numbers of another history */
}

static void note_store(struct fleet_watch *w, const char *store, uint64_t now_ms)
{
    if (!strcmp(w->store, store))
        return;
    if (*w->store) {
        snprintf(w->moved, sizeof w->moved, "%.50s, before %.50s", store, w->store);
        w->moved_ms = now_ms;
    }
    snprintf(w->store, sizeof w->store, "%s", store);
}

static bool is_recent(uint64_t at_ms, uint64_t span_ms, uint64_t now_ms)
{
    return at_ms && now_ms <= at_ms + span_ms;
}

/* Mono, of when it was raised. */
static uint64_t raised_ms(const struct condition *c, uint64_t now_ms, uint64_t real_ms)
{
    const uint64_t ago_ms = real_ms > c->since_ms ? real_ms - c->since_ms : 0;
    return ago_ms < now_ms ? now_ms - ago_ms : 1;
}

/* What an earlier control has seen of the store stands in the table. */
static void take_up(struct fleet_watch *w, const struct condition_table *table, uint64_t now_ms,
                    uint64_t real_ms)
{
    static struct condition raised[CONDITION_ROWS]; /* large; used within this call alone */
    const size_t n = table ? conditions_list(table, real_ms, raised) : 0;
    for (size_t i = 0; i < n; i++) {
        if (raised[i].id == COND_FLEET_STORE_CHANGED) {
            w->moved_ms = raised_ms(&raised[i], now_ms, real_ms);
            snprintf(w->moved, sizeof w->moved, "%s", raised[i].reason);
        } else if (raised[i].id == COND_FLEET_LEARNING) {
            w->anew_ms = raised_ms(&raised[i], now_ms, real_ms);
        }
    }
}

void fleet_watch_look(struct fleet_watch *w, const struct fleet_view *v,
                      struct condition_table *table, uint64_t now_ms, uint64_t real_ms)
{
    if (!w->looked)
        take_up(w, table, now_ms, real_ms);
    w->looked = true;
    note_epoch(w, v->epoch, now_ms);
    if (v->connected) {
        note_store(w, v->store, now_ms);
        note_last(w, v->last, now_ms);
    } else {
        w->n_known = 0; /* what others do now is not known */
    }
    look_for_late_hosts(&(struct late){w, v, now_ms}, table, real_ms);
    look_for_other_versions(&(struct late){w, v, now_ms}, table, real_ms);
    condition_set(table, COND_FLEET_NAME_TAKEN, v->host, v->name_taken, v->store, real_ms);
    condition_set(table, COND_FLEET_LEARNING, v->name, is_recent(w->anew_ms, FLEET_ANEW_MS, now_ms),
                  v->store, real_ms);
    condition_set(table, COND_FLEET_STORE_CHANGED, v->name,
                  is_recent(w->moved_ms, FLEET_MOVED_MS, now_ms), w->moved, real_ms);
    condition_set(table, COND_FLEET_TWO_MASTERS, v->name, v->rival != NULL,
                  v->rival ? v->rival : "", real_ms);
}

void fleet_watch_end(struct condition_table *table, uint64_t real_ms)
{
    static const enum condition_id all[] = {COND_FLEET_LAG,         COND_FLEET_NAME_TAKEN,
                                            COND_FLEET_LEARNING,    COND_FLEET_STORE_CHANGED,
                                            COND_FLEET_TWO_MASTERS, COND_FLEET_VERSIONS};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        condition_clear_except(table, all[i], NULL, NULL, real_ms);
}
