/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cut: what a worker has not finished when it must leave.
 *
 * A client whose answer has not begun gets 503, one whose long poll is held its answer. An answer
 * that has begun ends after what the backend has sent so far, in a way that its client cannot take
 * for its end: without the last chunk, short of Content-Length, or by a reset where only the end of
 * the connection would be the end of the body.
 */
#ifndef POLDER_WORKER_CLIENT_CUT_H
#define POLDER_WORKER_CLIENT_CUT_H
#include <stdbool.h>

struct client;
struct worker;

#define CUT_LOOK_MS 20

void cut_begin(struct worker *w);
/* One of them, before. */
void cut_client(struct client *c);
/* Closes it if it was cut and its last bytes are out. */
void cut_finish(struct client *c);
/* Each turn from then on: closes those whose last bytes are out. True: no more is waited for. */
bool cut_is_over(struct worker *w);
/* The connection is about to be closed, whatever it has. */
void cut_count(struct worker *w, const struct client *c);
#endif
