/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * request_id: a name for each request, the same in the answer (X-Request-Id), at the backend and in
 * the logs.
 *
 * It is made from a counter of the worker, when it is needed: 8 digits that
 * belong to the worker and 16 that belong to the request, in hex. The number is mixed with secrets
 * of the worker, one to one, so that ids never repeat and do not tell how many requests lie between
 * two of them. An id from a trusted proxy is used instead, if it is a token of at most 128 bytes.
 */
#ifndef POLDER_WORKER_MESSAGE_REQUEST_ID_H
#define POLDER_WORKER_MESSAGE_REQUEST_ID_H
#include "polder/field.h"
#include <stdbool.h>
#include <stdint.h>

struct h1_out;
struct request;

#define REQUEST_ID_LEN 24
#define REQUEST_ID_AT  14 /* in its line: behind "X-Request-Id: " */

struct request_ids {
    uint64_t last;                                 /* number of the last request */
    uint64_t before, after;                        /* secrets, around the mixing */
    char line[REQUEST_ID_AT + REQUEST_ID_LEN + 2]; /* with the worker's digits, to be completed */
};

void request_id_init(struct request_ids *ids);
static inline uint64_t request_id_next(struct request_ids *ids)
{
    return ++ids->last;
}
void request_id_write(const struct request_ids *ids, uint64_t number, char out[REQUEST_ID_LEN]);
/* The id of the request: from a trusted proxy, or ours, in space. */
struct str request_id_of(const struct request *r, char space[REQUEST_ID_LEN]);
bool request_id_is_given(const struct request *r); /* by a trusted proxy */
/* "X-Request-Id: …" */
void request_id_put(struct h1_out *o, const struct request *r);

#endif
