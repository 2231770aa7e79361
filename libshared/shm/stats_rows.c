/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stats_rows: what each route, limit and server did, over respawns and reloads.
 *
 * A row is found by its id. It never moves: a worker takes the rows that its predecessors have left
 * under the same names, and free ones for what is new. Only where these do not suffice are rows
 * given up that its configuration does not name: the id first, then the numbers. A reader takes
 * numbers only if their id is the same before and behind them, so a worker killed on any line
 * leaves rows with their own numbers, or free ones.
 */
#include "polder/config.h"
#include "polder/stats.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

_Static_assert(STATS_ROUTES_MAX > RUNTIME_ROUTES_MAX, "a row for each route, one for none");
_Static_assert(STATS_LIMITS_MAX >= RUNTIME_LIMITS_MAX, "a row for each limit");
_Static_assert(STATS_SERVERS_MAX > RUNTIME_SERVERS_MAX, "a row for each server, one for ops");

#define NO_ROW UINT32_MAX

/* The rows of one kind in one slab. */
struct rows {
    _Atomic uint32_t *used;
    _Atomic uint64_t *id;
    char *row;
    size_t size; /* of a row */
    uint32_t max;
};

static uint64_t load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

#define ROWS(slab, kind, n)                                                                        \
    (struct rows)                                                                                  \
    {                                                                                              \
        .used = &(slab)->kind##s, .id = (slab)->kind##_id, .row = (char *)(slab)->kind,            \
        .size = sizeof *(slab)->kind, .max = (n)                                                   \
    }
static struct rows rows_of_routes(const struct stats_slab *slab)
{
    struct stats_slab *s = (struct stats_slab *)(uintptr_t)slab;
    return ROWS(s, route, STATS_ROUTES_MAX);
}
static struct rows rows_of_limits(const struct stats_slab *slab)
{
    struct stats_slab *s = (struct stats_slab *)(uintptr_t)slab;
    return ROWS(s, limit, STATS_LIMITS_MAX);
}
static struct rows rows_of_servers(const struct stats_slab *slab)
{
    struct stats_slab *s = (struct stats_slab *)(uintptr_t)slab;
    return ROWS(s, server, STATS_SERVERS_MAX);
}

static void *row_at(const struct rows *rows, uint32_t i)
{
    return rows->row + i * rows->size;
}

static uint32_t row_find(const struct rows *rows, uint64_t id, uint32_t at)
{
    const uint32_t used = atomic_load_explicit(rows->used, memory_order_acquire);
    if (at < used && load(&rows->id[at]) == id)
        return at;
    for (uint32_t i = 0; i < used && i < rows->max; i++)
        if (load(&rows->id[i]) == id)
            return i;
    return NO_ROW;
}

/* ---- the owner ---- */

static bool is_wanted(const uint64_t *wanted, uint32_t n, uint64_t id)
{
    for (uint32_t i = 0; i < n; i++)
        if (wanted[i] == id)
            return true;
    return false;
}

static void give_up(const struct rows *rows, uint32_t i)
{
    atomic_store_explicit(&rows->id[i], 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* a reader that sees a 0 below sees this 0 too */
    memset(row_at(rows, i), 0, rows->size);
}

/* So many rows are free, or those that are not wanted are given up. */
static void make_room(const struct rows *rows, const uint64_t *wanted, uint32_t n)
{
    const uint32_t used = atomic_load(rows->used);
    uint32_t missing = 0, taken = 0;
    for (uint32_t i = 0; i < n; i++)
        missing += row_find(rows, wanted[i], i) == NO_ROW;
    for (uint32_t i = 0; i < used; i++)
        taken += load(&rows->id[i]) != 0;
    if (taken + missing <= rows->max)
        return;
    for (uint32_t i = 0; i < used; i++)
        if (load(&rows->id[i]) && !is_wanted(wanted, n, load(&rows->id[i])))
            give_up(rows, i);
}

static void rows_adopt(const struct rows *rows, const uint64_t *wanted, uint32_t n)
{
    uint32_t free_from = 0;
    make_room(rows, wanted, n);
    for (uint32_t i = 0; i < n; i++) {
        if (row_find(rows, wanted[i], i) != NO_ROW)
            continue;
        while (load(&rows->id[free_from]))
            free_from++;
        /* a process killed in give_up() has left numbers without an id */
        memset(row_at(rows, free_from), 0, rows->size);
        atomic_store_explicit(&rows->id[free_from], wanted[i], memory_order_release);
        if (free_from >= atomic_load(rows->used))
            atomic_store_explicit(rows->used, free_from + 1, memory_order_release);
    }
}

uint64_t stats_server_id(const struct config_server *server)
{
    const char *upstream = server->upstream->name, *address = server->address.text;
    const uint64_t of_upstream = XXH3_64bits(upstream, strlen(upstream));
    const uint64_t id = XXH3_64bits_withSeed(address, strlen(address), of_upstream);
    return id > STATS_OPS ? id : STATS_OPS + 1;
}

void stats_adopt(struct stats_slab *slab, const struct config *config)
{
    uint64_t route[STATS_ROUTES_MAX], limit[STATS_LIMITS_MAX], server[STATS_SERVERS_MAX];
    const struct rows routes = rows_of_routes(slab), limits = rows_of_limits(slab),
                      servers = rows_of_servers(slab);
    for (uint32_t i = 0; i < config->n_routes; i++)
        route[config->routes[i].index] = config->routes[i].id;
    for (uint32_t i = 0; i < config->n_limits; i++)
        limit[config->limits[i].index] = config->limits[i].id;
    for (uint32_t u = 0; u < config->n_upstreams; u++)
        for (uint32_t i = 0; i < config->upstreams[u].n_servers; i++) {
            const struct config_server *s = &config->upstreams[u].servers[i];
            server[s->index] = stats_server_id(s);
        }
    route[config->n_routes] = STATS_NO_ROUTE;
    server[config->n_servers] = STATS_OPS;
    rows_adopt(&routes, route, config->n_routes + 1);
    rows_adopt(&limits, limit, config->n_limits);
    rows_adopt(&servers, server, config->n_servers + 1);
}

static void *own_row(const struct rows *rows, uint64_t id)
{
    const uint32_t i = row_find(rows, id, 0);
    assert(i != NO_ROW);
    return row_at(rows, i);
}

struct stats_route_row *stats_route_row(struct stats_slab *slab, uint64_t id)
{
    const struct rows rows = rows_of_routes(slab);
    return own_row(&rows, id);
}

struct stats_limit_row *stats_limit_row(struct stats_slab *slab, uint64_t id)
{
    const struct rows rows = rows_of_limits(slab);
    return own_row(&rows, id);
}

struct stats_server_row *stats_server_row(struct stats_slab *slab, uint64_t id)
{
    const struct rows rows = rows_of_servers(slab);
    return own_row(&rows, id);
}

/* ---- readers ---- */

/* The row as it is now; what was read of it counts if row_is() says so afterwards. NULL: none. */
static const void *row_begin(const struct rows *rows, uint64_t id, uint32_t at, uint32_t *i)
{
    *i = row_find(rows, id, at);
    if (*i == NO_ROW)
        return NULL;
    atomic_thread_fence(memory_order_acquire);
    return row_at(rows, *i);
}

static bool row_is(const struct rows *rows, uint64_t id, uint32_t i)
{
    atomic_thread_fence(memory_order_acquire);
    return load(&rows->id[i]) == id;
}

static void add_route(struct stats_route *sum, const struct stats_route_row *row)
{
    const uint64_t last_ms = load(&row->last_hit_ms);
    for (int i = 0; i < STATS_CLASSES; i++)
        sum->answers[i] += load(&row->answers[i]);
    for (int i = 0; i < STATS_LOOKUPS; i++)
        sum->lookup[i] += load(&row->lookup[i]);
    sum->bytes += load(&row->bytes);
    sum->refused += load(&row->refused);
    sum->calls += load(&row->calls);
    sum->background += load(&row->background);
    sum->last_hit_ms = last_ms > sum->last_hit_ms ? last_ms : sum->last_hit_ms;
    distribution_add(&sum->latency, &row->latency);
}

void stats_route_of(const struct stats_slab *slabs, uint64_t route_id, uint32_t at,
                    struct stats_route *out)
{
    *out = (struct stats_route){.latency = distribution_empty(HISTOGRAM_LATENCY)};
    for (unsigned slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++) {
        uint32_t i;
        const struct rows rows = rows_of_routes(&slabs[slot]);
        const struct stats_route_row *row = row_begin(&rows, route_id, at, &i);
        if (!row)
            continue;
        const struct stats_route before = *out;
        add_route(out, row);
        if (!row_is(&rows, route_id, i))
            *out = before;
    }
}

void stats_limit_of(const struct stats_slab *slabs, uint64_t limit_id, uint32_t at,
                    struct stats_limit *out)
{
    *out = (struct stats_limit){0};
    for (unsigned slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++) {
        uint32_t i;
        const struct rows rows = rows_of_limits(&slabs[slot]);
        const struct stats_limit_row *row = row_begin(&rows, limit_id, at, &i);
        if (!row)
            continue;
        const struct stats_limit before = *out;
        out->checked += load(&row->checked);
        out->admitted += load(&row->admitted);
        out->refused += load(&row->refused);
        out->dry_refused += load(&row->dry_refused);
        if (!row_is(&rows, limit_id, i))
            *out = before;
    }
}

void stats_server_of(const struct stats_slab *slabs, uint64_t server_id, uint32_t at,
                     struct stats_server *out)
{
    *out = (struct stats_server){.latency = distribution_empty(HISTOGRAM_LATENCY)};
    for (unsigned slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++) {
        uint32_t i;
        const struct rows rows = rows_of_servers(&slabs[slot]);
        const struct stats_server_row *row = row_begin(&rows, server_id, at, &i);
        if (!row)
            continue;
        const struct stats_server before = *out;
        out->requests += load(&row->requests);
        out->bytes_in += load(&row->bytes_in);
        out->bytes_out += load(&row->bytes_out);
        out->connects += load(&row->connects);
        out->reuses += load(&row->reuses);
        distribution_add(&out->latency, &row->latency);
        if (!row_is(&rows, server_id, i))
            *out = before;
    }
}
