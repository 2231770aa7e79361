/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * server_load: what is under way at each server and upstream, over all processes, and the bounds of
 * it: max_connections of a server, the share of retries and the queue of an upstream.
 *
 * Each process counts in a row of its own (struct server_load in the table of server_state.h); sums
 * are made by reading all rows. A bound is kept exactly: a process counts itself first, then adds
 * up, and takes itself back where the sum is over the bound, so two of them may both go back, but
 * never both go over. What a dead process had counted is dropped with it: the master clears its
 * row (server_load_clear()), as does its successor.
 *
 * The counts of an upstream stand at its first server.
 */
#ifndef POLDER_SERVER_LOAD_H
#define POLDER_SERVER_LOAD_H
#include "polder/server_state.h"

#define SERVER_RETRIES_FREE 3 /* retries at once that a share of requests is added to */

/* Where a process counts for a server. */
struct server_loads {
    struct server_table *table; /* NULL: the server has no row there, and this process is alone */
    uint32_t index, slot;
    struct server_load *own;
};
/* row: of the table, or not; own: where it counts in the latter case. */
void server_load_open(struct server_loads *l, struct server_table *table,
                      const struct server_row *row, uint32_t slot, struct server_load *own);
/* To read sums alone: by a process that has nothing under way. */
void server_load_look(struct server_loads *l, struct server_table *table,
                      const struct server_row *row);
/* The process of that slot has nothing under way: it has died, or begins. */
void server_load_clear(struct server_table *table, uint32_t slot);

/* ---- of a server ---- */
uint32_t server_load_busy(const struct server_loads *l);
/* max 0: any number. False: it has so many. */
bool server_load_enter(const struct server_loads *l, uint32_t max);
void server_load_leave(const struct server_loads *l);

/* ---- of an upstream ---- */
void server_load_begin(const struct server_loads *l); /* a request */
void server_load_end(const struct server_loads *l);
/* One more retry, where there are fewer than SERVER_RETRIES_FREE and percent of the requests. */
bool server_load_retry(const struct server_loads *l, uint32_t percent);
void server_load_retried(const struct server_loads *l);
uint32_t server_load_retries(const struct server_loads *l);
/* One more waits, where fewer than max do. */
bool server_load_wait(const struct server_loads *l, uint32_t max);
void server_load_waited(const struct server_loads *l);
/* The oldest request of this process that waits is so old; 0: none waits. */
void server_load_waits_since(const struct server_loads *l, uint64_t since_ms);
/* The slot whose request waits longest, and since when; 0: none waits anywhere. */
uint64_t server_load_oldest(const struct server_loads *l, uint32_t *slot);
#endif
