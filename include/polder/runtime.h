/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * runtime: the values that can change while Polder runs, one page a configuration region.
 *
 * Written by control alone (and filled by the master's configuration child before any reader):
 * it changes the inactive copy, then stores the next generation number. It is not a seqlock: a
 * writer that is killed half way leaves the active copy untouched. A reader keeps a private copy,
 * compares `generation` with what it has before each request (one relaxed load) and calls
 * runtime_read() when it differs.
 */
#ifndef POLDER_RUNTIME_H
#define POLDER_RUNTIME_H
#include "polder/exempt.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define RUNTIME_LIMITS_MAX  256
#define RUNTIME_SERVERS_MAX 256
#define RUNTIME_ROUTES_MAX  1024

#define RUNTIME_EXEMPT_LISTS 3

enum runtime_algorithm { RUNTIME_SLIDING, RUNTIME_FIXED, RUNTIME_GCRA };

struct runtime_limit {
    uint32_t requests;   /* sliding: 0..65535; fixed, gcra: 0..4294967295. 0 refuses all */
    uint32_t algorithm;  /* enum runtime_algorithm */
    uint64_t window_ms;  /* 100 .. 2 592 000 000 (30 days) */
    uint32_t concurrent; /* requests in flight a key, at most 1 000 000; 0: no bound */
    uint32_t dry_run;    /* 1: count and report, never refuse */
    uint32_t exempt;     /* 0: the file's list; n: runtime_page.exempt[index][n - 1] */
    uint32_t pad_;
};

#define RUNTIME_TTL_HEURISTIC UINT64_MAX
struct runtime_cache {
    uint64_t ttl_ms;          /* RUNTIME_TTL_HEURISTIC: a tenth of the age */
    uint64_t ttl_negative_ms; /* of 404 and 410 */
    uint64_t max_body;
    uint64_t stale_while_revalidate_ms, stale_if_error_ms;
    uint64_t max_items, max_bytes;
};

struct runtime_server {
    uint32_t weight; /* 0: gets no new requests */
    uint32_t pad_;
};

struct runtime_values {
    struct runtime_limit limit[RUNTIME_LIMITS_MAX]; /* by config_limit.index */
    struct runtime_server server[RUNTIME_SERVERS_MAX];
    struct runtime_cache cache; /* the top-level section's running values */
};

/* A limit's new values are pending: unless confirmed, `before` is restored. Written and read by
 * control alone; kept here to survive control. `before` is complete when until_ms is not 0. */
struct pending_change {
    _Atomic uint64_t until_ms; /* mono ms; 0: no change is pending */
    struct runtime_limit before;
};

struct runtime_page {
    _Alignas(64) _Atomic uint64_t generation; /* generation & 1 selects the active copy */
    _Alignas(64) struct runtime_values copy[2];
    struct pending_change trial[RUNTIME_LIMITS_MAX]; /* by config_limit.index */
    /* By config_limit.index: one is running, one is what a pending change is reverted to, and one
     * is free to be written. Not part of the values: few limits have a list, and each copy of the
     * values would be 400 KiB longer. */
    struct exempt exempt[RUNTIME_LIMITS_MAX][RUNTIME_EXEMPT_LISTS];
};

static inline uint64_t runtime_generation(const struct runtime_page *page)
{
    return atomic_load_explicit(&page->generation, memory_order_acquire);
}
/* Copies the active values and returns the generation they belong to. Never waits for a dead
 * writer.
 */
uint64_t runtime_read(const struct runtime_page *page, struct runtime_values *out);
/* The only writer's way to change: edit a private copy, then publish it. */
void runtime_publish(struct runtime_page *page, const struct runtime_values *values);

/* For the only writer: stores the list in an unused place, and returns the value of
 * runtime_limit.exempt for it; publish that. If the limit has an equal list already, that one is
 * used. list: not one of the page's own, unless it is the running one or the one that a pending
 * change is reverted to. */
uint32_t runtime_exempt_put(struct runtime_page *page, uint32_t index, const struct exempt *list);
/* Copies the list of runtime_limit.exempt (not 0) of that generation. False: there is a newer
 * generation meanwhile; read the values again. */
bool runtime_exempt_read(const struct runtime_page *page, uint64_t generation, uint32_t index,
                         uint32_t exempt, struct exempt *out);
/* For the only writer, without a copy; NULL if the file's list applies. */
const struct exempt *runtime_exempt_of(const struct runtime_page *page, uint32_t index,
                                       const struct runtime_limit *limit);

/* 0, or -ERANGE with a text in *why that says what is expected, valid until the next call in this
 * thread. Checks the ranges of config_keys.h, and values against each other. */
int runtime_limit_check(const struct runtime_limit *limit, const char **why);

/* What `limit set --persist` wrote, in state_dir/runtime.mp (msgpack; tmp + fsync + rename). Values
 * for limits by name; lists go into the page, the rest into values. Unreadable or of another
 * format: a logged warning, and nothing is applied. exempt: NULL: the file's list. */
struct config;
int runtime_persist_load(const char *state_dir, const struct config *config,
                         struct runtime_page *page, struct runtime_values *values);
/* file: what the file says now; it holds only while that is so. NULL: always. */
struct config_limit;
int runtime_persist_save(const char *state_dir, const char *limit_name,
                         const struct runtime_limit *value, const struct exempt *exempt,
                         const struct config_limit *file);
/* Takes out what the file has overruled since. 0 or a negative errno. */
int runtime_persist_forget_overruled(const char *state_dir, const struct config *config);
/* 0, also where there was nothing. */
int runtime_persist_forget(const char *state_dir, const char *limit_name);
/* 1 if a persisted value exists for that limit */
int runtime_persist_has(const char *state_dir, const char *limit_name);
/* For all limits at once, by their index: reads the file only once. */
void runtime_persist_which(const char *state_dir, const struct config *config,
                           bool persisted[RUNTIME_LIMITS_MAX]);
#endif
