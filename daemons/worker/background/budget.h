/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * budget: background fetches, made before a client waits for them.
 *
 *   refresh.c  entries that are read often and soon expire
 *   warm.c     the URLs of `warm`
 *   warm_rpc.c the URLs of `polderctl cache warm`
 *
 * budget.c bounds them together, for each upstream: at most refresh_share percent of the requests
 * that this worker has under way there, or one; none while the backend is in trouble. The sources
 * take turns, a step each, so a long list of one cannot starve the others.
 */
#ifndef POLDER_WORKER_BACKGROUND_BUDGET_H
#define POLDER_WORKER_BACKGROUND_BUDGET_H
#include "polder/cache.h"
#include "polder/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fetch;
struct request;
struct worker;

struct background {
    struct budget *budget;
    struct refresh *refresh;   /* NULL: nothing was due yet */
    struct warm *warm;         /* NULL: not this worker's */
    struct warm_rpc *warm_rpc; /* NULL: not this worker's, or not open yet */
    uint64_t warm_rpc_again_ms;
};

/* ---- budget.c ---- */
bool budget_open(struct worker *w);
void budget_close(struct worker *w);
/* A source of such fetches. step: starts what may be started; true: it has to be called again. */
typedef bool (*background_step_fn)(struct worker *w);
void budget_source(struct worker *w, background_step_fn step);
uint32_t budget_fetching(const struct worker *w);

/* ---- refresh.c ---- */
/* A hit on an entry that is due: refresh_from_ms(). Never blocks, allocates only at the first call.
 */
void refresh_note(const struct request *r, const struct cache_record *rec);
void refresh_close(struct worker *w);

/* ---- warm.c ---- */
int warm_start(struct worker *w);
void warm_stop(struct worker *w);

/* ---- warm_rpc.c: `polderctl cache warm` ---- */
void warm_rpc_open(struct worker *w); /* the socket on which control asks; retried until it is */
void warm_rpc_close(struct worker *w);

/* ---- between them ---- */

/* May one more background fetch start there now? */
bool budget_may(const struct worker *w, const struct config_upstream *u);
/* A server of it is down, requests wait for it, a fetch has failed just now, or fetches have lately
 * taken twice as long as those before them. */
bool budget_in_trouble(const struct worker *w, const struct config_upstream *u);
void budget_wake(struct worker *w); /* there is something to do */

/* warm.c: the hosts of a URL: its own, or for a bare path those that clients of each listener
 * use. */
typedef void (*warm_host_fn)(void *arg, const char *host, size_t host_len, const char *path);
void warm_each_host(const struct config *config, const char *url, warm_host_fn each, void *arg);
/* The head of a request made up by the worker; the caller frees it. NULL: no memory. */
char *warm_head(const char *host, size_t host_len, const char *path, uint32_t *len);

/* The sources, for budget_source(). */
bool refresh_step(struct worker *w);
bool warm_step(struct worker *w);
bool warm_rpc_step(struct worker *w);

#endif
