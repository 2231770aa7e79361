/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * reader: this worker's reader of the store (worker.reader), opened when there is a store, and
 * checked once per iteration of the loop.
 */
#ifndef POLDER_WORKER_READER_H
#define POLDER_WORKER_READER_H
#include <stdbool.h>
#include <stdint.h>

struct worker;

struct reader_state {
    bool ready, checked; /* this iteration */
    uint64_t again_ms;
};

/* May worker.reader be read from, until the next iteration? */
bool reader_ready(struct worker *w);

#endif
