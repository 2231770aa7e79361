/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * survive: what the working process does so that its successor can go on where it was killed.
 *
 *   custodian.c  the other process
 *   held.c       what it holds for its child
 *   child.c      how it forks and watches that
 *   note.c       what the two say to each other
 *   segment.c    the shared memory, and what lies in it
 *   positions.c  how far the kernel is with the bytes of a connection
 *   protect.c    the working process writes down what it is about to do
 *   recover.c    its successor takes that up
 *   renew.c      another program in place of the custodian's
 *   restart.c    another process in place of both
 *   manager.c    what the service manager is asked for that
 *
 * A turn of a WebSocket: what is to be read is written down; recv() into the shared buffer; the
 * frames are looked at; one store commits the new state with what is to be written; send(). Killed
 * between recv() and the commit, the kernel's position of reading says how many bytes lie in the
 * buffer that no point has; killed after it, its position of writing says how many are missing.
 *
 * Without a custodian all of these do nothing.
 */
#ifndef POLDER_SUPERVISOR_SURVIVE_H
#define POLDER_SUPERVISOR_SURVIVE_H
#include "daemons/supervisor/supervisor.h"
#include "daemons/supervisor/survive/die.h"

struct custodian;

/* Before the loop runs: buffers come from the shared memory from then on. False: no memory. */
bool survive_begin(struct supervisor *s, struct custodian *c);
/* The handlers of the loop are there: from now on only the custodian calls them. */
void survive_signals(const struct supervisor *s);
void survive_end(struct supervisor *s);
/* All is open that the loop needs: takes up what a predecessor has left, and says so. */
void survive_recover(struct supervisor *s);
void survive_ready(struct supervisor *s);

/* The session waits for its handshake. */
void survive_asking(struct supervisor *s, struct session *x);
/* From here on the client is answered in HTTP. */
void survive_answered(struct session *x);
/* Nothing is under way on either leg but what the kernel knows of. */
void survive_opened(struct supervisor *s, struct session *x);
/* A session that another program has left in this process: the same for it, as it is. */
void survive_adopt(struct supervisor *s, struct session *x);
/* What is about to be read, behind `have` bytes of a stash. */
void survive_reading(struct supervisor *s, const struct leg *leg, size_t have);
/* The session as it is now is what a successor takes up. */
void survive_commit(struct supervisor *s, struct session *x);
/* What was read has not killed this process. */
void survive_taken(const struct session *x);
void survive_ended(struct supervisor *s, struct session *x);
/* The session goes on without it; fd: what it had. */
void survive_leg_closed(struct supervisor *s, const struct leg *leg, int fd);
/* Closes a descriptor at once for this process, also where the custodian has it too. */
void survive_close(struct supervisor *s, int fd);

/* Links to polderd, and the table of its servers. */
void survive_link(struct supervisor *s, int fd);
void survive_link_closed(struct supervisor *s, int fd);
void survive_servers(struct supervisor *s, int fd);
/* For the service manager. */
void survive_say(const struct supervisor *s, const char *text);
void survive_heartbeat(const struct supervisor *s);
void survive_read_again(const struct supervisor *s);
/* Answers of this process, that is to leave all to another one: its block, or why there is none (-1);
 * and that all is there (""), or why it is not. */
void survive_packed(const struct supervisor *s, int block, const char *why);
void survive_handed_over(const struct supervisor *s, const char *why);
#endif
