/* SPDX-License-Identifier: BSD-2-Clause */
/* history: see history.h. */
#include "daemons/control/model/history.h"
#include "daemons/control/control.h"
#include "daemons/control/model/snapshot.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/log.h"
#include "polder/server_names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MINUTE      7 /* snapshots, ten seconds apart */
#define SHORTEST_MS 9500
#define LATE_S      3 /* seconds that one sample may cover: the loop was late */
#define MEMORY_MS   10000

struct history {
    struct usage_cpu cpu;
    struct usage_memory memory;
    uint64_t memory_ms; /* when it was looked at; 0: never */
    uint64_t second;    /* of the last sample, Unix time; 0: none yet */
    struct snapshot last;
    struct snapshot past[MINUTE]; /* one each ten seconds */
    unsigned taken;               /* of them */
};

static void load(struct control *c)
{
    struct history_page *page = c->shared->history;
    if (atomic_exchange(&page->loaded, 1))
        return;
    const int code = history_load(page, c->config->state_dir, clock_real_ms() / 1000);
    if (code == -ESTALE)
        log_info("history: %s/" HISTORY_FILE " is of another version: starting a new one",
                 c->config->state_dir);
    else if (code)
        log_warning("history: cannot use %s/" HISTORY_FILE ": %s; starting a new one",
                    c->config->state_dir, code == -EPROTO ? "it is damaged" : strerror(-code));
}

struct history *history_new(struct control *c)
{
    load(c);
    return calloc(1, sizeof(struct history));
}

void history_free(struct history *h)
{
    free(h);
}

/* ---- snapshots ---- */

static void find_servers(struct control *c, struct snapshot *s, uint64_t now_s)
{
    uint64_t id[HISTORY_SERVERS];
    char subject[HISTORY_SERVERS][HISTORY_SUBJECT];
    size_t row[HISTORY_SERVERS];
    for (uint32_t u = 0; u < c->config->n_upstreams; u++)
        for (uint32_t i = 0; i < c->config->upstreams[u].n_servers; i++) {
            const struct config_server *server = &c->config->upstreams[u].servers[i];
            if (s->n_servers == HISTORY_SERVERS)
                continue;
            id[s->n_servers] = stats_server_id(server);
            server_subject(server, subject[s->n_servers++], HISTORY_SUBJECT);
        }
    history_servers_put(c->shared->history, id, subject, s->n_servers, now_s, row);
    for (size_t i = 0; i < s->n_servers; i++) {
        s->server[i].id = id[i];
        s->server[i].row = row[i];
    }
}

static void look_at_machine(struct control *c, struct history *h)
{
    const uint64_t now_ms = clock_mono_ms();
    usage_look_at_cpu(&h->cpu, c->shared->proc, c->peers.websockets.pid);
    if (h->memory_ms && now_ms - h->memory_ms < MEMORY_MS)
        return;
    h->memory_ms = now_ms;
    usage_look_at_memory(&h->memory, "/proc", "/sys/fs/cgroup");
}

static void look(struct control *c, struct history *h, uint64_t now_s, struct snapshot *out)
{
    look_at_machine(c, h);
    *out = (struct snapshot){
        .ws = c->peers.websockets, .cpu_ns = h->cpu.total_ns, .memory = h->memory};
    find_servers(c, out, now_s);
    snapshot_take(c, out);
}

/* The n-th before the last. */
static const struct snapshot *past(const struct history *h, unsigned n)
{
    return &h->past[(h->taken - 1 - n) % MINUTE];
}

static const struct snapshot *minute_ago(const struct history *h)
{
    const unsigned kept = h->taken < MINUTE ? h->taken : MINUTE;
    return kept ? past(h, kept - 1) : &h->last;
}

/* ---- samples ---- */

static void put_fine(struct control *c, struct history *h, const struct snapshot *now,
                     uint64_t now_s)
{
    float values[HISTORY_WIDTH];
    uint64_t at = now_s - h->second > LATE_S ? now_s : h->second + 1;
    interval_values(&h->last, now, minute_ago(h), &c->config->cost, values);
    for (; at <= now_s; at++)
        history_put(c->shared->history, HISTORY_FINE, at, values);
}

static void put_coarse(struct control *c, struct history *h, const struct snapshot *now,
                       uint64_t now_s)
{
    float values[HISTORY_WIDTH];
    const uint64_t at = now_s / HISTORY_COARSE_STEP * HISTORY_COARSE_STEP;
    if (h->taken && h->second / HISTORY_COARSE_STEP == now_s / HISTORY_COARSE_STEP)
        return;
    if (h->taken) {
        interval_values(past(h, 0), now, minute_ago(h), &c->config->cost, values);
        history_put(c->shared->history, HISTORY_COARSE, at, values);
    }
    h->past[h->taken++ % MINUTE] = *now;
}

void history_follow(struct control *c)
{
    struct history *h = c->history;
    const uint64_t now_s = clock_real_ms() / 1000;
    struct snapshot now;
    if (now_s == h->second)
        return;
    look(c, h, now_s, &now);
    if (h->second && now_s > h->second) /* else the first one, or the clock was set back */
        put_fine(c, h, &now, now_s);
    put_coarse(c, h, &now, now_s);
    h->last = now;
    h->second = now_s;
}

bool history_minute(const struct control *c, float *values)
{
    const struct history *h = c->history;
    const struct snapshot *then = minute_ago(h);
    if (!h->second || h->last.mono_ms < then->mono_ms + SHORTEST_MS)
        return false;
    interval_values(then, &h->last, then, &c->config->cost, values);
    return true;
}
