/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stop: a worker that goes on serving while the service stops, until it lets go.
 *
 *   stop_begin()   Each answer ends its connection from now on, and new connections are accepted as
 *                  before. Waited for are only those that were there: a request under way until
 *                  worker.drain_until_ms, an event stream for STOP_STREAM_MS, an idle connection
 *                  for a second, half a head not at all once it is STOP_HEAD_MS old.
 *   stop_let_go()  Nothing is accepted any more. What has been accepted is answered until
 *                  worker.drain_until_ms, which the master has moved near; event streams and
 *                  connections on which nothing comes end at once.
 *
 * The master tells both by SIGTERM (proc_table.draining says which), and lets go when all workers
 * have settled: nothing that was there at the beginning is left.
 */
#ifndef POLDER_WORKER_CLIENT_STOP_H
#define POLDER_WORKER_CLIENT_STOP_H
#include <stdbool.h>

struct worker;

#define STOP_STREAM_MS 5000
#define STOP_HEAD_MS   200 /* a head on its way may come in several segments */
#define STOP_NEW_MS    100 /* after letting go: for the request of a new connection to come */
#define STOP_LOOK_MS   20

void stop_begin(struct worker *w);
void stop_let_go(struct worker *w);
/* Each turn from stop_begin() on. */
void stop_look(struct worker *w);
#endif
