/* SPDX-License-Identifier: BSD-2-Clause */
/* events: see events.h. */
#include "daemons/control/model/events.h"
#include "daemons/control/control.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/inval.h"
#include "polder/recent.h"
#include "polder/server_names.h"
#include "polder/server_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What was seen a second ago. */
struct events {
    bool begun;
    uint32_t generation, reload_done, upgrade_done;
    uint64_t invalidations; /* of all processes */
    struct peers_websockets ws;
    size_t n_conditions;
    struct condition condition[CONDITION_ROWS];
    uint32_t n_limits;
    struct limit_seen {
        uint64_t id, refused;
    } limit[RUNTIME_LIMITS_MAX];
    uint32_t n_servers;
    struct server_seen {
        uint64_t id;
        bool down;
    } server[RUNTIME_SERVERS_MAX];
    struct process_seen {
        uint32_t pid, crashes, hung;
    } process[PROC_SLOTS];
};

struct events *events_new(void)
{
    return calloc(1, sizeof(struct events));
}

void events_free(struct events *e)
{
    free(e);
}

static void put_text(char *out, size_t size, const char *text)
{
    recent_text(out, size, (struct str){text, text ? strlen(text) : 0});
}

void events_add(const struct control *c, const char *noun, const char *what, const char *subject,
                uint64_t count, const char *format, ...)
{
    struct recent_event event = {.real_ms = clock_real_ms(), .count = count};
    char text[512];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    put_text(event.noun, sizeof event.noun, noun);
    put_text(event.what, sizeof event.what, what);
    put_text(event.subject, sizeof event.subject, subject);
    put_text(event.detail, sizeof event.detail, text);
    recent_put_event(c->shared->recent, &event);
}

/* ---- conditions ---- */

static bool same_condition(const struct condition *a, const struct condition *b)
{
    return a->id == b->id && a->since_ms == b->since_ms && !strcmp(a->subject, b->subject);
}

static bool is_among(const struct condition *one, const struct condition *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (same_condition(one, &list[i]))
            return true;
    return false;
}

static void add_condition(const struct control *c, const char *what, const struct condition *one)
{
    const struct condition_kind *kind = condition_kind(one->id);
    events_add(c, "conditions", what, one->subject, 1, "%s (%s)%s%s", kind->name,
               condition_severity_name(kind->severity), *one->reason ? ": " : "", one->reason);
}

static void look_at_conditions(const struct control *c, struct events *e)
{
    struct condition now[CONDITION_ROWS];
    const size_t n = conditions_list(c->shared->conditions, clock_real_ms(), now);
    for (size_t i = 0; i < e->n_conditions && e->begun; i++)
        if (!is_among(&e->condition[i], now, n))
            add_condition(c, "cleared", &e->condition[i]);
    for (size_t i = 0; i < n && e->begun; i++)
        if (!is_among(&now[i], e->condition, e->n_conditions))
            add_condition(c, "raised", &now[i]);
    memcpy(e->condition, now, n * sizeof *now);
    e->n_conditions = n;
}

/* ---- limits ---- */

static const struct limit_seen *limit_before(const struct events *e, uint64_t id)
{
    for (uint32_t i = 0; i < e->n_limits; i++)
        if (e->limit[i].id == id)
            return &e->limit[i];
    return NULL;
}

static void look_at_limits(const struct control *c, struct events *e)
{
    struct limit_seen now[RUNTIME_LIMITS_MAX];
    for (uint32_t i = 0; i < c->config->n_limits; i++) {
        const struct config_limit *l = &c->config->limits[i];
        const struct limit_seen *before = limit_before(e, l->id);
        struct stats_limit sums;
        stats_limit_of(c->shared->stats, l->id, l->index, &sums);
        now[i] = (struct limit_seen){l->id, sums.refused};
        if (before && sums.refused > before->refused)
            events_add(c, "limits", "refused", l->name, sums.refused - before->refused,
                       "%" PRIu64 " request%s", sums.refused - before->refused,
                       sums.refused - before->refused == 1 ? "" : "s");
    }
    e->n_limits = c->config->n_limits;
    memcpy(e->limit, now, e->n_limits * sizeof *now);
}

/* ---- servers ---- */

static const struct server_seen *server_before(const struct events *e, uint64_t id)
{
    for (uint32_t i = 0; i < e->n_servers; i++)
        if (e->server[i].id == id)
            return &e->server[i];
    return NULL;
}

static struct server_seen look_at_server(const struct control *c, const struct events *e,
                                         const struct config_server *s)
{
    char subject[CONDITION_SUBJECT], why[SERVER_WHY];
    const uint64_t id = stats_server_id(s);
    const struct server_row *row = server_find(c->shared->servers, id);
    const bool down = row && !server_is_up(row);
    const struct server_seen *before = server_before(e, id);
    if (before && before->down != down) {
        server_subject(s, subject, sizeof subject);
        events_add(c, "upstreams", down ? "down" : "up", subject, 1, "%s",
                   down ? server_why_down(row, why) : "it answers");
    }
    return (struct server_seen){id, down};
}

static void look_at_servers(const struct control *c, struct events *e)
{
    struct server_seen now[RUNTIME_SERVERS_MAX];
    uint32_t n = 0;
    for (uint32_t u = 0; u < c->config->n_upstreams; u++)
        for (uint32_t i = 0; i < c->config->upstreams[u].n_servers && n < RUNTIME_SERVERS_MAX; i++)
            now[n++] = look_at_server(c, e, &c->config->upstreams[u].servers[i]);
    memcpy(e->server, now, n * sizeof *now);
    e->n_servers = n;
}

/* ---- processes and their configuration ---- */

static void look_at_process(const struct control *c, struct events *e, unsigned slot)
{
    const struct proc_slot *p = &c->shared->proc->slot[slot];
    struct process_seen *before = &e->process[slot];
    const struct process_seen now = {atomic_load(&p->pid), atomic_load(&p->crashes),
                                     atomic_load(&p->hung)};
    char name[40];
    if (slot >= PROC_SLOT_WORKER0)
        snprintf(name, sizeof name, "worker %u", atomic_load(&p->index));
    else
        snprintf(name, sizeof name, "%s", proc_slot_name(slot));
    if (e->begun && now.hung != before->hung)
        events_add(c, "processes", "hung", name, now.hung - before->hung,
                   "its heartbeat stopped; aborted; %u times so far", now.hung);
    if (e->begun && now.crashes != before->crashes)
        events_add(c, "processes", "died", name, now.crashes - before->crashes,
                   "pid %u; %u deaths so far", before->pid, now.crashes);
    else if (e->begun && before->pid && now.pid != before->pid)
        events_add(c, "processes", "ended", name, 1, "pid %u", before->pid);
    if (now.pid && now.pid != before->pid && (e->begun || slot == PROC_SLOT_CONTROL))
        events_add(c, "processes", "started", name, 1, "pid %u", now.pid);
    *before = now;
}

static void look_at_reload(const struct control *c, struct events *e)
{
    const struct proc_table *proc = c->shared->proc;
    const uint32_t generation = atomic_load(&proc->generation),
                   done = atomic_load(&proc->reload_done);
    if (e->begun && generation != e->generation)
        events_add(c, "config", "reloaded", NULL, 1, "generation %u", generation);
    else if (e->begun && done != e->reload_done &&
             atomic_load(&proc->reload_state) == PROC_RELOAD_FAILED)
        events_add(c, "config", "refused", NULL, 1, "%.*s",
                   (int)strcspn(proc->reload_message, "\n"), proc->reload_message);
    e->generation = generation;
    e->reload_done = done;
}

/* The control that sees its end is one that began on the way: it tells of one that is under way. */
static void look_at_upgrade(const struct control *c, struct events *e)
{
    const struct proc_table *proc = c->shared->proc;
    const uint32_t done = atomic_load(&proc->upgrade_done);
    if (e->begun && done != e->upgrade_done)
        events_add(
            c, "config",
            atomic_load(&proc->upgrade_state) == PROC_UPGRADE_OK ? "upgraded" : "upgrade_failed",
            NULL, 1, "%.*s", (int)strcspn(proc->upgrade_message, "\n"), proc->upgrade_message);
    e->upgrade_done = done;
}

/* ---- what is counted elsewhere ---- */

/* Those of control are added one by one. */
static void look_at_invalidations(const struct control *c, struct events *e)
{
    const uint64_t own = atomic_load(&c->stats->counter[STATS_CACHE_INVALIDATIONS]),
                   all = stats_total(c->shared->stats, STATS_CACHE_INVALIDATIONS),
                   others = all > own ? all - own : 0;
    if (e->begun && others > e->invalidations)
        events_add(c, "cache", "invalidated", NULL, others - e->invalidations,
                   "%" PRIu64 " by answers to unsafe requests", others - e->invalidations);
    e->invalidations = others;
}

static void add_ws(const struct control *c, const char *what, uint64_t before, uint64_t now)
{
    if (now > before)
        events_add(c, "ws", what, NULL, now - before, "%" PRIu64 " connection%s", now - before,
                   now - before == 1 ? "" : "s");
}

static void look_at_websockets(const struct control *c, struct events *e)
{
    const struct peers_websockets now = c->peers.websockets;
    if (e->ws.known && now.known) {
        add_ws(c, "opened", (uint64_t)e->ws.opened, (uint64_t)now.opened);
        add_ws(c, "refused", (uint64_t)e->ws.refused, (uint64_t)now.refused);
        add_ws(c, "reaped", (uint64_t)e->ws.reaped, (uint64_t)now.reaped);
    }
    e->ws = now;
}

void events_follow(struct control *c)
{
    struct events *e = c->events;
    if (!e)
        return;
    for (unsigned slot = 0; slot < PROC_SLOTS; slot++)
        look_at_process(c, e, slot);
    look_at_reload(c, e);
    look_at_upgrade(c, e);
    look_at_conditions(c, e);
    look_at_limits(c, e);
    look_at_servers(c, e);
    look_at_invalidations(c, e);
    look_at_websockets(c, e);
    e->begun = true;
}
