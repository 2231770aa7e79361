/* SPDX-License-Identifier: BSD-2-Clause */
/* shift: see shift.h. Real time, for what is kept outlives a boot. */
#include "daemons/control/model/shift.h"
#include "daemons/control/control.h"
#include "daemons/control/model/events.h"
#include "daemons/control/model/servers.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/log.h"
#include "polder/server_state.h"
#include "polder/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t walk_steps[] = {10, 50, 100};

uint32_t shift_next_percent(uint32_t percent)
{
    for (size_t i = 0; i < sizeof walk_steps / sizeof *walk_steps; i++)
        if (walk_steps[i] > percent)
            return walk_steps[i];
    return 100;
}

/* ---- its upstream in the configuration ---- */

static const struct config_upstream *upstream_of(const struct control *c, const char *name)
{
    for (uint32_t i = 0; i < c->config->n_upstreams; i++)
        if (!strcmp(c->config->upstreams[i].name, name))
            return &c->config->upstreams[i];
    return NULL;
}

/* Its place in the upstream; u->n_servers: it is not there. */
static uint32_t slot_of(const struct config_upstream *u, const char *server)
{
    uint32_t i = 0;
    while (i < u->n_servers && strcmp(u->servers[i].address.text, server))
        i++;
    return i;
}

/* ---- weights ---- */

/* What is not known from before the shift has its weight of the file. */
static uint32_t base_of(const struct shift_state *s, const struct config_server *server)
{
    const uint64_t id = stats_server_id(server);
    for (uint32_t i = 0; i < s->n_base; i++)
        if (s->base[i].id == id)
            return s->base[i].weight;
    return server->weight;
}

static void weights_of(const struct shift_state *s, const struct config_upstream *u, uint32_t at,
                       uint32_t weight[SHIFT_SERVERS])
{
    uint32_t base[SHIFT_SERVERS];
    uint64_t others = 0;
    for (uint32_t i = 0; i < u->n_servers; i++) {
        base[i] = base_of(s, &u->servers[i]);
        others += i == at ? 0 : base[i];
    }
    for (uint32_t i = 0; i < u->n_servers && !others; i++)
        base[i] = 100;
    shift_weights(base, u->n_servers, at, s->percent, weight);
}

/* 0 or a negative errno. */
static int save(const struct control *c, const struct config_upstream *u, const uint32_t *weight)
{
    struct setting *list = calloc(u->n_servers, sizeof *list);
    if (!list)
        return -ENOMEM;
    for (uint32_t i = 0; i < u->n_servers; i++) {
        snprintf(list[i].section, sizeof list[i].section, "upstream %.*s", SETTINGS_SECTION - 16,
                 u->name);
        snprintf(list[i].key, sizeof list[i].key, "%s", u->servers[i].address.text);
        snprintf(list[i].value, sizeof list[i].value, "%u", weight[i]);
        settings_base(c->config, &list[i]);
    }
    const int code = settings_save(c->config->state_dir, list, u->n_servers);
    free(list);
    return code;
}

/* Saves and publishes a pending step. must: also where it cannot be saved; that is tried again. */
static int settle(struct control *c, struct shift_state *s, const struct config_upstream *u,
                  uint32_t at, bool must)
{
    uint32_t weight[SHIFT_SERVERS];
    weights_of(s, u, at, weight);
    const int code = save(c, u, weight);
    if (code && !must)
        return code;
    if (code && !s->unsaved)
        log_error("upstream %s: cannot write %s/settings.mp: %s; its weights hold until a restart, "
                  "and writing them is tried again",
                  s->upstream, c->config->state_dir, strerror(-code));
    if (s->pending)
        servers_set_weights(c, u, weight);
    s->pending = 0;
    s->unsaved = code != 0;
    shift_write(c->shared->shift, s);
    return 0;
}

/* ---- moves ---- */

static void move(struct shift_state *s, enum shift_phase phase, const char *reason)
{
    s->phase = phase;
    s->moved_ms = clock_real_ms();
    snprintf(s->reason, sizeof s->reason, "%s", reason);
}

static void begin_step(const struct control *c, struct shift_state *s,
                       const struct config_upstream *u, uint32_t at, uint32_t percent)
{
    struct shift_counts sides[SHIFT_SIDES];
    s->percent = percent;
    s->pending = 1;
    shift_count(c, u, at, sides);
    shift_watch_begin(&s->watch, sides, clock_real_ms());
}

static void tell(struct control *c, const struct shift_state *s, const char *what)
{
    log_info("upstream %s: shift to %s: %s, %u %%%s%s", s->upstream, s->server, what, s->percent,
             *s->reason ? ": " : "", s->reason);
    events_add(c, "upstreams", "shift", s->upstream, 1, "%s: %s, %u %%", s->server, what,
               s->percent);
}

static void walk(struct control *c, struct shift_state *s, const struct config_upstream *u,
                 uint32_t at)
{
    char text[SHIFT_REASON];
    shift_explain(&s->watch, text, sizeof text);
    begin_step(c, s, u, at, shift_next_percent(s->percent));
    move(s, SHIFT_WALKING, text);
    if (shift_write(c->shared->shift, s))
        settle(c, s, u, at, true);
    tell(c, s, "the step before has passed");
}

static void roll_back(struct control *c, struct shift_state *s, const struct config_upstream *u,
                      uint32_t at)
{
    char text[SHIFT_REASON];
    const uint32_t percent = s->percent;
    const int n = snprintf(text, sizeof text, "at %u %%: ", percent);
    shift_explain(&s->watch, text + n, sizeof text - (size_t)n);
    s->percent = 0;
    s->pending = 1;
    move(s, SHIFT_ROLLED_BACK, text);
    if (shift_write(c->shared->shift, s))
        settle(c, s, u, at, true);
    log_warning("upstream %s: the shift to %s was rolled back: %s", s->upstream, s->server, text);
    events_add(c, "upstreams", "rolled back", s->upstream, 1, "%s, %s", s->server, text);
}

/* It is at 100 percent: there is no other side to compare it with, and the time of a step ends it. */
static void finish(struct control *c, struct shift_state *s, uint64_t now_ms)
{
    if (now_ms < s->watch.begun_ms + s->hold_ms)
        return;
    move(s, SHIFT_DONE, "");
    tell(c, s, "done");
}

static void follow_watched(struct control *c, struct shift_state *s,
                           const struct config_upstream *u, uint32_t at)
{
    const uint64_t now_ms = clock_real_ms();
    struct shift_counts sides[SHIFT_SIDES];
    shift_count(c, u, at, sides);
    if (shift_watch_look(&s->watch, sides, now_ms) == SHIFT_WORSE) {
        roll_back(c, s, u, at);
        return;
    }
    if (s->percent == 100) {
        finish(c, s, now_ms);
    } else if (s->phase == SHIFT_WALKING && shift_watch_passes(&s->watch, s->hold_ms, now_ms)) {
        walk(c, s, u, at);
        return;
    } else if (s->phase == SHIFT_WALKING && s->max_ms && now_ms >= s->begun_ms + s->max_ms) {
        move(s, SHIFT_STALLED, "the time of --max is over");
        tell(c, s, "stalled");
    }
    shift_write(c->shared->shift, s);
}

/* The others get their weights from before back, or nobody would be asked. */
static void follow_gone(struct control *c, const struct shift_state *s,
                        const struct config_upstream *u)
{
    uint32_t weight[SHIFT_SERVERS];
    log_warning("upstream %s: %s, to which %u %% were shifted, is not in the configuration any "
                "more; the shift is over",
                s->upstream, s->server, s->percent);
    if (u && u->n_servers && u->n_servers <= SHIFT_SERVERS) {
        struct shift_state rest = *s;
        rest.percent = 0;
        weights_of(&rest, u, u->n_servers, weight);
        save(c, u, weight);
        servers_set_weights(c, u, weight);
    }
    shift_forget(c->shared->shift, s->upstream);
}

static void follow(struct control *c, const struct shift_state *found)
{
    const struct config_upstream *u = upstream_of(c, found->upstream);
    const uint32_t at = u ? slot_of(u, found->server) : 0;
    struct shift_state s = *found;
    if (!u || at == u->n_servers || u->n_servers > SHIFT_SERVERS) {
        follow_gone(c, &s, u);
        return;
    }
    if (s.pending || s.unsaved)
        settle(c, &s, u, at, true);
    if (shift_is_watched(&s)) {
        follow_watched(c, &s, u, at);
    } else if (!shift_is_over(&s)) {
        struct shift_counts sides[SHIFT_SIDES];
        shift_count(c, u, at, sides);
        shift_watch_count(&s.watch, sides);
        shift_write(c->shared->shift, &s);
    }
}

static bool is_rolled_back(void *arg, const char *subject)
{
    const struct control *c = arg;
    for (uint32_t i = 0; i < SHIFT_ROWS; i++) {
        const struct shift_state *s = shift_at(c->shared->shift, i);
        if (s && s->phase == SHIFT_ROLLED_BACK && condition_subject_is(subject, s->upstream))
            return true;
    }
    return false;
}

static bool is_stalled(void *arg, const char *subject)
{
    const struct control *c = arg;
    for (uint32_t i = 0; i < SHIFT_ROWS; i++) {
        const struct shift_state *s = shift_at(c->shared->shift, i);
        if (s && s->phase == SHIFT_STALLED && condition_subject_is(subject, s->upstream))
            return true;
    }
    return false;
}

static void follow_conditions(struct control *c)
{
    struct condition_table *t = c->shared->conditions;
    const uint64_t now_ms = clock_real_ms();
    for (uint32_t i = 0; i < SHIFT_ROWS; i++) {
        const struct shift_state *s = shift_at(c->shared->shift, i);
        if (s && s->phase == SHIFT_ROLLED_BACK)
            condition_raise(t, COND_SHIFT_ROLLED_BACK, s->upstream, s->reason, now_ms);
        if (s && s->phase == SHIFT_STALLED)
            condition_raise(t, COND_SHIFT_STALLED, s->upstream, s->reason, now_ms);
    }
    condition_clear_except(t, COND_SHIFT_ROLLED_BACK, is_rolled_back, c, now_ms);
    condition_clear_except(t, COND_SHIFT_STALLED, is_stalled, c, now_ms);
}

void shift_follow(struct control *c)
{
    for (uint32_t i = 0; i < SHIFT_ROWS; i++) {
        const struct shift_state *s = shift_at(c->shared->shift, i);
        if (s)
            follow(c, s);
    }
    follow_conditions(c);
}

/* The file has got another weight for one of them, which wins over what runs. */
static bool is_overruled(const struct shift_state *s, const struct config_upstream *u)
{
    for (uint32_t i = 0; i < u->n_servers; i++)
        for (uint32_t k = 0; k < s->n_base; k++)
            if (s->base[k].id == stats_server_id(&u->servers[i]) &&
                s->base[k].file != u->servers[i].weight)
                return true;
    return false;
}

/* Counts of servers that have come or gone are no traffic of this step; new servers of the other
 * side get their part. */
static void adopt(struct control *c, const struct shift_state *found,
                  const struct config_upstream *u, uint32_t at)
{
    struct shift_state s = *found;
    struct shift_counts sides[SHIFT_SIDES];
    shift_count(c, u, at, sides);
    shift_watch_rebase(&s.watch, sides);
    s.pending = 1;
    if (shift_write(c->shared->shift, &s))
        settle(c, &s, u, at, true);
}

void shift_adopt(struct control *c)
{
    for (uint32_t i = 0; i < SHIFT_ROWS; i++) {
        const struct shift_state *s = shift_at(c->shared->shift, i);
        const struct config_upstream *u = s ? upstream_of(c, s->upstream) : NULL;
        const uint32_t at = u ? slot_of(u, s->server) : 0;
        if (s && (!u || at == u->n_servers || u->n_servers > SHIFT_SERVERS))
            follow_gone(c, s, u);
        else if (s && is_overruled(s, u))
            shift_override(c, s->upstream);
        else if (s && !shift_is_over(s))
            adopt(c, s, u, at);
    }
}

/* ---- orders ---- */

/* What the others share the rest by: their weights before the shift; those that run, if it begins
 * now; those of the file, if none has any. */
static void keep_base(const struct control *c, struct shift_state *s,
                      const struct shift_state *before, const struct config_upstream *u,
                      uint32_t at)
{
    struct runtime_values values;
    uint64_t others = 0;
    const bool goes_on = before && before->percent && !strcmp(before->server, s->server);
    runtime_read(c->runtime, &values);
    s->n_base = u->n_servers;
    for (uint32_t i = 0; i < u->n_servers; i++) {
        const struct config_server *server = &u->servers[i];
        s->base[i].id = stats_server_id(server);
        s->base[i].file = server->weight;
        s->base[i].weight = goes_on ? base_of(before, server) : values.server[server->index].weight;
        others += i == at ? 0 : s->base[i].weight;
    }
    for (uint32_t i = 0; i < u->n_servers && !others; i++)
        s->base[i].weight = u->servers[i].weight;
}

static uint32_t others_up(const struct control *c, const struct config_upstream *u, uint32_t at)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < u->n_servers; i++) {
        const struct server_row *row =
            server_find(c->shared->servers, stats_server_id(&u->servers[i]));
        n += i != at && (!row || server_is_up(row));
    }
    return n;
}

static const char *refusal(const struct control *c, const struct shift_order *o, uint32_t at)
{
    static char text[1024];
    const struct config_upstream *u = o->server->upstream;
    const struct server_row *row = server_find(c->shared->servers, stats_server_id(o->server));
    const struct shift_state *s = shift_find(c->shared->shift, u->name);
    if (u->n_servers < 2)
        snprintf(text, sizeof text, "upstream %s has no other server", u->name);
    else if (u->n_servers > SHIFT_SERVERS || strlen(u->name) >= SETTINGS_SECTION - 16)
        snprintf(text, sizeof text, "upstream %s has more than %d servers, or too long a name",
                 u->name, SHIFT_SERVERS);
    else if (s && shift_is_watched(s) && strcmp(s->server, o->server->address.text))
        snprintf(text, sizeof text,
                 "a shift to %s is under way (%u %%); end it first: polderctl upstream shift %s "
                 "--stop",
                 s->server, s->percent, u->name);
    else if (o->percent && row && !server_is_up(row))
        snprintf(text, sizeof text, "%s is down: %s", o->server->address.text,
                 server_reason_text(server_view(row).reason));
    else if (o->percent < 100 && !others_up(c, u, at))
        snprintf(text, sizeof text, "no other server of upstream %s is up", u->name);
    else
        return NULL;
    return text;
}

static enum shift_phase phase_of(const struct shift_order *o)
{
    return !o->percent || !o->guarded ? SHIFT_SET : o->walks ? SHIFT_WALKING : SHIFT_WATCHED;
}

const char *shift_begin(struct control *c, const struct shift_order *o)
{
    static char text[256];
    const struct config_upstream *u = o->server->upstream;
    const uint32_t at = (uint32_t)(o->server - u->servers);
    const struct shift_state *found = shift_find(c->shared->shift, u->name);
    const struct shift_state before = found ? *found : (struct shift_state){0};
    struct shift_state s = {.hold_ms = o->hold_ms, .max_ms = o->max_ms};
    const char *why = refusal(c, o, at);
    if (why)
        return why;
    snprintf(s.upstream, sizeof s.upstream, "%s", u->name);
    snprintf(s.server, sizeof s.server, "%s", o->server->address.text);
    keep_base(c, &s, found ? &before : NULL, u, at);
    begin_step(c, &s, u, at, o->percent);
    s.begun_ms = s.watch.begun_ms;
    move(&s, phase_of(o), "");
    if (!shift_write(c->shared->shift, &s))
        return "too many shifts are under way";
    const int code = settle(c, &s, u, at, false);
    if (code) {
        if (found)
            shift_write(c->shared->shift, &before);
        else
            shift_forget(c->shared->shift, s.upstream);
        snprintf(text, sizeof text, "cannot write %.120s/settings.mp: %s", c->config->state_dir,
                 strerror(-code));
        return text;
    }
    tell(c, &s, "set");
    follow_conditions(c);
    return NULL;
}

bool shift_stop(struct control *c, const char *upstream)
{
    const struct shift_state *found = shift_find(c->shared->shift, upstream);
    if (!found || !(shift_is_watched(found) || found->phase == SHIFT_ROLLED_BACK))
        return false;
    struct shift_state s = *found;
    move(&s, SHIFT_STOPPED, "");
    shift_write(c->shared->shift, &s);
    tell(c, &s, "stopped");
    follow_conditions(c);
    return true;
}

void shift_override(struct control *c, const char *upstream)
{
    const struct shift_state *s = shift_find(c->shared->shift, upstream);
    if (!s)
        return;
    if (!shift_is_over(s))
        log_info("upstream %s: its weights were set otherwise; the shift to %s is over", upstream,
                 s->server);
    shift_forget(c->shared->shift, upstream);
    follow_conditions(c);
}
