/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * access: the worker's lines of the access log, one for each answer and for each client that leaves
 * without one; for live views some of them are also recorded in shared memory (recent_note.h).
 *
 * The line of an answer is made when the whole of it has been handed to client_send(), and written
 * when all of it is out: at once for most, later where the socket did not take it (client.line is
 * then a copy). If the client leaves before, its line says 499 and how much of the body it got; if
 * the answer is cut short by something else, its status stays and `cut` names the cause.
 *
 * Facts that are not part of the request are noted in its client on the way (client.note).
 */
#ifndef POLDER_WORKER_MESSAGE_ACCESS_H
#define POLDER_WORKER_MESSAGE_ACCESS_H
#include "polder/field.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;
struct request;
struct worker;

#define ACCESS_LEFT 499 /* status of a client that has gone before its answer was out */

int access_open(struct worker *w);
void access_close(struct worker *w);
/* Flushes buffered lines; lost lines are reported from time to time. */
void access_flush(struct worker *w);

/* Is this answer to be logged, or recorded for live views (recent_note.h)? */
bool access_is_wanted(const struct worker *w);
void access_begin(struct client *c); /* a head is complete */
/* A head is not understood, or does not come: those bytes of it, which are looked at only while it
 * is answered. NULL: what the connection has kept. */
void access_unread(struct client *c, const char *bytes, size_t len);
/* A whole answer has been handed to client_send(). r NULL: to a head that was not understood. */
void access_answered(struct client *c, const struct request *r, unsigned status, uint64_t bytes);
void access_sent(struct client *c); /* all of it is out */
/* The connection ends, by its client unless note.cut says otherwise, before the answer with a
 * pending line is out. */
void access_cut(struct client *c);
/* The same before there is such a line: of a request that is under way. status: 0: nothing of an
 * answer had been sent. r NULL: its head is not understood, or not whole. */
void access_lost(struct client *c, const struct request *r, unsigned status, uint64_t bytes);

#endif
