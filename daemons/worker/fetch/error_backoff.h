/* SPDX-License-Identifier: BSD-2-Clause */
/* error_backoff: remembers recent failures of fetches (error_backoff.c). */
#ifndef POLDER_WORKER_FETCH_ERROR_BACKOFF_H
#define POLDER_WORKER_FETCH_ERROR_BACKOFF_H
#include "polder/cache.h"

#include <stdbool.h>
#include <stdint.h>

struct fetch;
struct request;
struct stored_copy;
struct worker;

#define ERROR_BACKOFF_PLACES 256
struct failed {
    struct cache_key key;
    uint64_t until_ms; /* mono */
    uint64_t since;    /* inval_seq() when it was asked for */
};
void error_backoff_note(const struct fetch *ex); /* it has failed, and has something stale */
/* For how long the backend is not asked for this response; 0: it may be. */
uint64_t error_backoff_rest_ms(const struct worker *w, const struct stored_copy *copy);
#endif
