/* SPDX-License-Identifier: BSD-2-Clause */
/* checks: see checks.h. */
#include "daemons/control/model/checks.h"
#include "daemons/control/control.h"
#include "daemons/control/model/check.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/log.h"
#include "polder/random.h"
#include "polder/server_check.h"

#include <stdlib.h>

#define SPREAD_MS 1000 /* first checks are spread over so long */

struct checked {
    struct control *control;
    const struct config_server *server;
    struct server_row *row;
    uint64_t id;
    struct server_check_trend trend;
    bool weight_bad; /* as it was last, for the log */
    struct check *check;
    ev_timer next;
};

struct checks {
    const struct config *config; /* that these are of */
    struct checked *list;
    uint32_t n;
    struct random_numbers random;
};

struct checks *checks_new(void)
{
    return calloc(1, sizeof(struct checks));
}

/* ---- one server ---- */

static uint64_t interval_ms(const struct checked *k)
{
    const uint64_t all_ms = k->server->upstream->health_interval_ms;
    const bool fast = server_check_read(k->row).down || k->trend.failed;
    return fast && all_ms > CHECKS_FAST_MS ? CHECKS_FAST_MS : all_ms;
}

static void next_in(struct checked *k, uint64_t ms)
{
    ev_timer_stop(k->control->loop, &k->next);
    ev_timer_set(&k->next, (double)ms / 1000., 0.);
    ev_timer_start(k->control->loop, &k->next);
}

static uint64_t random_below(struct checks *c, uint64_t n)
{
    return n ? random_next(&c->random) % n : 0;
}

static void schedule(struct checked *k)
{
    const uint64_t ms = interval_ms(k);
    next_in(k, ms - ms / 10 + random_below(k->control->checks, ms / 5 + 1));
}

static void say_state(const struct checked *k, const struct check_outcome *o)
{
    const char *upstream = k->server->upstream->name, *server = k->server->address.text;
    char status[32] = "";
    if (o->status)
        snprintf(status, sizeof status, " (status %u)", o->status);
    if (server_check_read(k->row).down)
        log_warning("upstream %s: server %s fails its checks and gets no more requests: %s%s",
                    upstream, server, server_check_text(o->result), status);
    else
        log_info("upstream %s: server %s passes its checks again", upstream, server);
}

/* An answer without the field takes back what an earlier one has said; one that could not be had
 * says nothing. */
static void take_weight(struct checked *k, const struct check_outcome *o)
{
    const char *upstream = k->server->upstream->name, *server = k->server->address.text;
    uint32_t percent = 100;
    bool drain = false;
    if (!o->status)
        return;
    const bool bad = o->weight.at && !server_check_parse_weight(o->weight, &percent, &drain);
    if (bad)
        atomic_fetch_add_explicit(&k->row->bad_weights, 1, memory_order_relaxed);
    if (bad && !k->weight_bad)
        log_warning("upstream %s: server %s answers its checks with a Polder-Weight that is "
                    "neither 0 to 100 nor \"drain\"; it is ignored",
                    upstream, server);
    k->weight_bad = bad;
    if (bad || !server_check_set_weight(k->row, percent, drain))
        return;
    if (drain)
        log_info("upstream %s: server %s asks for no more requests", upstream, server);
    else
        log_info("upstream %s: server %s asks for %u %% of its weight", upstream, server, percent);
}

static void state_changed(struct checked *k, const struct check_outcome *o)
{
    say_state(k, o);
    if (!server_check_read(k->row).down)
        server_hurry(k->row, clock_mono_ms());
}

static void on_done(void *arg, const struct check_outcome *o)
{
    struct checked *k = arg;
    const struct config_upstream *u = k->server->upstream;
    k->check = NULL;
    take_weight(k, o);
    if (server_check_note(k->row, &k->trend, o->result, u->health_rise, u->health_fall,
                          clock_mono_ms()))
        state_changed(k, o);
    schedule(k);
}

static void on_next(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct checked *k = timer->data;
    (void)events;
    k->check = check_start(loop, k->server, k->row, on_done, k);
    if (!k->check)
        schedule(k);
}

/* ---- all of a configuration ---- */

static void stop_all(struct checks *c)
{
    for (uint32_t i = 0; i < c->n; i++) {
        check_stop(c->list[i].check);
        ev_timer_stop(c->list[i].control->loop, &c->list[i].next);
    }
}

void checks_free(struct checks *c)
{
    if (!c)
        return;
    stop_all(c);
    free(c->list);
    free(c);
}

static bool is_checked(const struct config_server *s)
{
    return *s->upstream->health && s->upstream->health_interval_ms;
}

/* What it has shown so far, under the configuration before. */
static struct server_check_trend trend_before(const struct checks *c, uint64_t id)
{
    for (uint32_t i = 0; i < c->n; i++)
        if (c->list[i].id == id)
            return c->list[i].trend;
    return (struct server_check_trend){0};
}

static bool begin(struct control *c, struct checked *k, const struct config_server *s)
{
    *k = (struct checked){.control = c, .server = s, .id = stats_server_id(s)};
    k->row = server_claim(c->shared->servers, k->id, clock_mono_ms());
    if (!k->row)
        return false;
    k->trend = trend_before(c->checks, k->id);
    ev_timer_init(&k->next, on_next, 0., 0.);
    k->next.data = k;
    return true;
}

static void leave_unchecked(const struct control *c, const struct config_server *s)
{
    struct server_row *row = server_find(c->shared->servers, stats_server_id(s));
    if (row)
        server_check_end(row);
}

static uint32_t begin_all(struct control *c, struct checked *list)
{
    uint32_t n = 0;
    for (uint32_t u = 0; u < c->config->n_upstreams; u++)
        for (uint32_t i = 0; i < c->config->upstreams[u].n_servers; i++) {
            const struct config_server *s = &c->config->upstreams[u].servers[i];
            if (!is_checked(s))
                leave_unchecked(c, s);
            else if (begin(c, &list[n], s))
                n++;
        }
    return n;
}

void checks_follow(struct control *c)
{
    struct checks *all = c->checks;
    if (!all || all->config == c->config)
        return;
    struct checked *list = calloc(c->config->n_servers + 1, sizeof *list);
    if (!list)
        return;
    const uint32_t n = begin_all(c, list);
    stop_all(all);
    free(all->list);
    all->config = c->config;
    all->list = list;
    all->n = n;
    for (uint32_t i = 0; i < n; i++)
        next_in(&list[i],
                random_below(all, interval_ms(&list[i]) < SPREAD_MS ? interval_ms(&list[i])
                                                                    : SPREAD_MS));
}
