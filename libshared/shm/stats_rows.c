/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stats_rows: what each limit and each server did, over respawns and reloads.
 *
 * A row has two or three numbers and an id. Workers write a row by its index; readers look for its
 * id. A slab is rearranged only by a worker that starts with other rows than its predecessor had;
 * killed in the middle of it, rows of that slab are lost, never mixed up: an id stands only beside
 * numbers of its own.
 */
#include "polder/config.h"
#include "polder/stats.h"

#include <string.h>
#include <xxhash.h>

_Static_assert(STATS_LIMITS_MAX >= RUNTIME_LIMITS_MAX, "a row for each limit");
_Static_assert(STATS_SERVERS_MAX > RUNTIME_SERVERS_MAX, "a row for each server, one for ops");

#define LIMIT_WORDS  3
#define SERVER_WORDS 2
#define WORDS_MAX    3
#define OPS_ID       UINT64_C(1)

struct rows {
    _Atomic uint64_t *id;
    _Atomic uint64_t *word; /* `words` a row */
    uint32_t words, n;
};

static uint64_t load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static _Atomic uint64_t *word_of(const struct rows *rows, uint32_t i, uint32_t w)
{
    return &rows->word[(size_t)i * rows->words + w];
}

static void row_clear(const struct rows *rows, uint32_t i)
{
    atomic_store(&rows->id[i], 0);
    for (uint32_t w = 0; w < rows->words; w++)
        atomic_store(word_of(rows, i, w), 0);
}

static void row_set(const struct rows *rows, uint32_t i, uint64_t id,
                    const uint64_t number[WORDS_MAX])
{
    for (uint32_t w = 0; w < rows->words; w++)
        atomic_store(word_of(rows, i, w), number[w]);
    atomic_store(&rows->id[i], id);
}

static void rows_adopt(const struct rows *rows, const uint64_t *wanted, uint32_t n)
{
    uint64_t id[STATS_SERVERS_MAX], number[STATS_SERVERS_MAX][WORDS_MAX];
    bool same = true;
    for (uint32_t i = 0; i < rows->n; i++)
        same = same && load(&rows->id[i]) == (i < n ? wanted[i] : 0);
    if (same)
        return;
    for (uint32_t i = 0; i < rows->n; i++) {
        id[i] = load(&rows->id[i]);
        for (uint32_t w = 0; w < rows->words; w++)
            number[i][w] = load(word_of(rows, i, w));
        row_clear(rows, i);
    }
    static const uint64_t none[WORDS_MAX];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t from = 0;
        while (from < rows->n && id[from] != wanted[i])
            from++;
        row_set(rows, i, wanted[i], from < rows->n ? number[from] : none);
    }
}

static struct rows limit_rows(const struct stats_slab *slab)
{
    struct stats_slab *s = (struct stats_slab *)(uintptr_t)slab;
    return (struct rows){s->limit_id, (void *)s->limit, LIMIT_WORDS, STATS_LIMITS_MAX};
}

static struct rows server_rows(const struct stats_slab *slab)
{
    struct stats_slab *s = (struct stats_slab *)(uintptr_t)slab;
    return (struct rows){s->server_id, (void *)s->server, SERVER_WORDS, STATS_SERVERS_MAX};
}

uint64_t stats_server_id(const struct config_server *server)
{
    const char *upstream = server->upstream->name, *address = server->address.text;
    const uint64_t of_upstream = XXH3_64bits(upstream, strlen(upstream));
    const uint64_t id = XXH3_64bits_withSeed(address, strlen(address), of_upstream);
    return id > OPS_ID ? id : OPS_ID + 1;
}

void stats_adopt(struct stats_slab *slab, const struct config *config)
{
    uint64_t limit[STATS_LIMITS_MAX], server[STATS_SERVERS_MAX];
    const struct rows limits = limit_rows(slab), servers = server_rows(slab);
    for (uint32_t i = 0; i < config->n_limits; i++)
        limit[config->limits[i].index] = config->limits[i].id;
    for (uint32_t u = 0; u < config->n_upstreams; u++)
        for (uint32_t i = 0; i < config->upstreams[u].n_servers; i++) {
            const struct config_server *s = &config->upstreams[u].servers[i];
            server[s->index] = stats_server_id(s);
        }
    server[config->n_servers] = OPS_ID;
    rows_adopt(&limits, limit, config->n_limits);
    rows_adopt(&servers, server, config->n_servers + 1);
}

/* Rows are dense: the first without an id is behind the last. */
static void rows_add(const struct rows *rows, uint64_t id, uint64_t sum[WORDS_MAX])
{
    for (uint32_t i = 0; i < rows->n && load(&rows->id[i]); i++)
        if (load(&rows->id[i]) == id)
            for (uint32_t w = 0; w < rows->words; w++)
                sum[w] += load(word_of(rows, i, w));
}

void stats_limit_of(const struct stats_slab *slabs, uint64_t limit_id, struct stats_limit *out)
{
    uint64_t sum[WORDS_MAX] = {0};
    for (unsigned slot = 0; slot < PROC_SLOTS; slot++) {
        const struct rows rows = limit_rows(&slabs[slot]);
        rows_add(&rows, limit_id, sum);
    }
    *out = (struct stats_limit){sum[0], sum[1], sum[2]};
}

void stats_server_of(const struct stats_slab *slabs, uint64_t server_id, struct stats_server *out)
{
    uint64_t sum[WORDS_MAX] = {0};
    for (unsigned slot = 0; slot < PROC_SLOTS; slot++) {
        const struct rows rows = server_rows(&slabs[slot]);
        rows_add(&rows, server_id, sum);
    }
    *out = (struct stats_server){sum[0], sum[1]};
}
