/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * accesslog: a line a response, collected over an iteration.
 */
#ifndef POLDER_WORKER_ACCESSLOG_H
#define POLDER_WORKER_ACCESSLOG_H
#include <stdint.h>

struct request;
struct worker;

struct access_entry {
    const struct request *request;
    unsigned status;
    uint64_t bytes;
    const char *cache; /* "hit", "miss", "pass", "refused", "error" */
};
int accesslog_open(struct worker *w);
void accesslog_line(struct worker *w, const struct access_entry *entry);
void accesslog_flush(struct worker *w);
void accesslog_reopen(struct worker *w);

#endif
