/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_servers: see fleet_servers.h. */
#include "daemons/control/model/fleet_servers.h"
#include "daemons/control/model/fleet_scripts.h"
#include "polder/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUND_MS  500
#define ANSWER_MS 800 /* the longest a server may take */
#define QUORUM    3   /* servers of which a part can tell that it is the smaller one */

/* ---- which is better ---- */

/* Under two names of the list. */
static bool is_same(const struct fleet_server *a, const struct fleet_server *b)
{
    return *a->run_id && !strcmp(a->run_id, b->run_id);
}

/* A server that is not known to be a master is as one without hosts. */
static bool is_better(const struct fleet_server *a, const struct fleet_server *b)
{
    if (!a->adopted || !b->adopted)
        return a->adopted;
    const uint64_t ours = strtoull(a->epoch, NULL, 10), other = strtoull(b->epoch, NULL, 10);
    return ours > other || (ours == other && a < b);
}

static bool is_rival(const struct fleet_server *s, const struct fleet_server *followed)
{
    return s != followed && s->role == FLEET_ROLE_MASTER && !is_same(s, followed);
}

int fleet_servers_better(const struct fleet_servers *s, uint32_t at)
{
    const struct fleet_server *best = &s->at[at];
    for (uint32_t i = 0; i < s->n; i++)
        if (is_rival(&s->at[i], best) && is_better(&s->at[i], best))
            best = &s->at[i];
    return best == &s->at[at] ? -1 : (int)(best - s->at);
}

int fleet_servers_rival(const struct fleet_servers *s, uint32_t at)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (is_rival(&s->at[i], &s->at[at]))
            return (int)i;
    return -1;
}

/* ---- fencing ---- */

static void hold(struct fleet_server *s)
{
    s->hold_ms = clock_mono_ms() + FLEET_LEASE_MS;
}

bool fleet_servers_are_replicas(const struct fleet_servers *s, uint32_t at)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (i != at && s->at[i].role != FLEET_ROLE_REPLICA && !is_same(&s->at[i], &s->at[at]))
            return false;
    return true;
}

static bool is_fenced(const struct fleet_server *s)
{
    return s->fenced_ms && clock_mono_ms() <= s->fenced_ms + FLEET_LEASE_MS;
}

static void on_fenced(void *arg, const redisReply *r)
{
    struct fleet_server *s = arg;
    if (!r)
        return;
    /* one that cannot be written gives no leases, either */
    if (r->type != REDIS_REPLY_ERROR &&
        (r->type != REDIS_REPLY_STRING || strcmp(r->str, "fenced") != 0))
        return;
    if (!is_fenced(s))
        hold(s); /* for leases of before */
    s->fenced_ms = clock_mono_ms();
}

static void fence(struct fleet_server *s, const struct fleet_server *by)
{
    const struct fleet_base *b = s->all->base;
    char lease[16];
    snprintf(lease, sizeof lease, "%d", FLEET_LEASE_MS);
    const char *argv[] = {"EVAL",   fleet_script_fence, "2",  b->epoch, b->fence,
                          s->epoch, by->config->text,   lease};
    if (!is_fenced(s))
        hold(s);
    store_link_ask(&s->link, sizeof argv / sizeof *argv, argv, NULL, on_fenced, s);
}

const char *fleet_servers_state(const struct fleet_servers *s, uint32_t at)
{
    static const char *const names[] = {"unknown", "unreachable", "replica", "master"};
    const struct fleet_server *server = &s->at[at];
    return server->role == FLEET_ROLE_MASTER && is_fenced(server) ? "fenced" : names[server->role];
}

bool fleet_servers_needs_replica(const struct fleet_servers *s, uint32_t at)
{
    return s->n && s->at[at].needs_replica;
}

const char *fleet_servers_why(const struct fleet_servers *s, uint32_t at)
{
    const struct fleet_server *server = &s->at[at];
    return server->role == FLEET_ROLE_MASTER && !server->needs_replica && s->n >= QUORUM
               ? "takes writes without a replica: min-replicas-to-write is not set"
               : server->why;
}

void fleet_servers_fence(struct fleet_servers *s, uint32_t at)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (is_rival(&s->at[i], &s->at[at]) && !is_better(&s->at[i], &s->at[at]))
            fence(&s->at[i], &s->at[at]);
}

uint64_t fleet_servers_hold_ms(const struct fleet_servers *s)
{
    uint64_t until_ms = 0;
    for (uint32_t i = 0; i < s->n; i++)
        if (s->at[i].hold_ms > until_ms)
            until_ms = s->at[i].hold_ms;
    return until_ms;
}

/* ---- asking ---- */

static void end_round(struct fleet_servers *all)
{
    for (uint32_t i = 0; i < all->n; i++)
        if (all->at[i].pending)
            return;
    ev_timer_stop(all->loop, &all->timer);
    ev_timer_set(&all->timer, all->again ? 0. : ROUND_MS / 1000., 0.);
    ev_timer_start(all->loop, &all->timer);
    all->again = false;
    all->ops->looked(all->arg, all->round);
}

static void end_question(struct fleet_server *s)
{
    if (!s->pending)
        return;
    s->pending = false;
    end_round(s->all);
}

static void forget(struct fleet_server *s, enum fleet_role role, const char *why)
{
    s->role = role;
    snprintf(s->why, sizeof s->why, "%s", why);
    *s->run_id = *s->epoch = 0;
    s->adopted = false;
}

static void on_failed(void *arg, const char *why)
{
    struct fleet_server *s = arg;
    forget(s, FLEET_ROLE_UNREACHABLE, why);
    end_question(s);
}

/* "NAME:VALUE" of a line; "" where there is none. */
static void take_field(const redisReply *r, const char *name, char out[FLEET_ID_SIZE])
{
    const char *at = strstr(r->str, name);
    *out = 0;
    if (at)
        snprintf(out, FLEET_ID_SIZE, "%.*s", (int)strcspn(at + strlen(name), "\r\n"),
                 at + strlen(name));
}

static bool is_text(struct fleet_server *s, const redisReply *r)
{
    if (!r)
        return false;
    if (r->type != REDIS_REPLY_STRING)
        store_link_fail(&s->link,
                        r->type == REDIS_REPLY_ERROR ? r->str : "it answers INFO as no Redis does");
    return r->type == REDIS_REPLY_STRING;
}

static void on_run(void *arg, const redisReply *r)
{
    struct fleet_server *s = arg;
    if (is_text(s, r))
        take_field(r, "run_id:", s->run_id);
}

static void on_role(void *arg, const redisReply *r)
{
    struct fleet_server *s = arg;
    char role[FLEET_ID_SIZE], good[FLEET_ID_SIZE];
    if (!is_text(s, r))
        return;
    take_field(r, "role:", role);
    take_field(r, "min_slaves_good_slaves:", good); /* is there where it matters */
    s->needs_replica = *good;
    s->lacks_replica = !strcmp(good, "0");
    s->role = !strcmp(role, "master") ? FLEET_ROLE_MASTER : FLEET_ROLE_REPLICA;
    *s->why = 0;
}

/* [RUN, EPOCH], or an error of a replica without its master. */
static void on_epoch(void *arg, const redisReply *r)
{
    struct fleet_server *s = arg;
    if (!r)
        return;
    const char *run = fleet_reply_text(r, 0), *epoch = fleet_reply_text(r, 1);
    snprintf(s->epoch, sizeof s->epoch, "%s", epoch ? epoch : "");
    s->adopted = s->role == FLEET_ROLE_MASTER && !s->lacks_replica && run && epoch &&
                 !strcmp(run, s->run_id) && *epoch && strspn(epoch, "0123456789") == strlen(epoch);
    end_question(s);
}

static void ask(struct fleet_server *s)
{
    const struct fleet_base *b = s->all->base;
    struct store_link *l = &s->link;
    store_link_ask(l, 2, (const char *[]){"INFO", "server"}, NULL, on_run, s);
    store_link_ask(l, 2, (const char *[]){"INFO", "replication"}, NULL, on_role, s);
    store_link_ask(l, 3, (const char *[]){"MGET", b->run, b->epoch}, NULL, on_epoch, s);
}

static void on_opened(void *arg)
{
    ask(arg);
}

/* A link that has failed says so, and then the round ends. */
static void begin_round(struct fleet_servers *all)
{
    all->round++;
    for (uint32_t i = 0; i < all->n; i++)
        all->at[i].pending = true;
    for (uint32_t i = 0; i < all->n; i++) {
        struct fleet_server *s = &all->at[i];
        if (s->link.open)
            ask(s);
        else
            store_link_open(&s->link, s->config, NULL);
    }
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    begin_round(w->data);
}

uint64_t fleet_servers_look(struct fleet_servers *s)
{
    if (ev_is_active(&s->timer)) { /* no round is under way */
        ev_timer_stop(s->loop, &s->timer);
        ev_timer_set(&s->timer, 0., 0.);
        ev_timer_start(s->loop, &s->timer);
    } else {
        s->again = true;
    }
    return s->round + 1;
}

/* ---- life ---- */

void fleet_servers_init(struct fleet_servers *s, struct ev_loop *loop,
                        const struct fleet_base *base, const struct fleet_servers_ops *ops,
                        void *arg)
{
    static const struct store_link_ops link_ops = {on_opened, on_failed};
    *s = (struct fleet_servers){.base = base, .loop = loop, .ops = ops, .arg = arg};
    ev_timer_init(&s->timer, on_timer, 0., 0.);
    s->timer.data = s;
    if (base->config->n_store < 2)
        return;
    s->n = base->config->n_store;
    for (uint32_t i = 0; i < s->n; i++) {
        s->at[i].all = s;
        s->at[i].config = &base->config->stores[i];
        store_link_init(&s->at[i].link, loop, ANSWER_MS, &link_ops, &s->at[i]);
    }
    ev_timer_start(loop, &s->timer);
}

void fleet_servers_free(struct fleet_servers *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        store_link_close(&s->at[i].link);
    ev_timer_stop(s->loop, &s->timer);
    s->n = 0;
}
