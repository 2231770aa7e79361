/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * parcel: a state block with all descriptors that stand in it, for a process that does not run yet.
 *
 * It waits in the queue of a socket (the box), of which the service manager keeps the end to read
 * from: one descriptor there, however many WebSockets there are. The kernel holds what is in flight,
 * and closes all of it with that end.
 *
 *   box     one message: a head; the block, listening sockets, trays
 *   tray    the same kind of socket: messages with up to 253 descriptors, and which number each has
 *           had in the block
 *
 * So a parcel is there whole or not at all: one sendmsg() makes it, and one recvmsg() takes it away.
 * A reader looks at it without taking anything, as often as it wants, and its copies are its own;
 * it takes the parcel away when it has all that was in it, before it moves a byte.
 *
 * A reader that does not understand the block still says goodbye where that is certain: a socket
 * whose item is flagged PARCEL_AT_REST is a WebSocket's client that has been sent whole frames, all
 * of them. This part of the format never changes but with PARCEL_FORMAT.
 */
#ifndef POLDER_SUPERVISOR_PARCEL_H
#define POLDER_SUPERVISOR_PARCEL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PARCEL_FORMAT    1
#define PARCEL_TRAYS_MAX 240
#define PARCEL_AT_REST   1u

/* ---- making one ---- */

/* box[0] to read from, box[1] to write to. 0 or a negative errno. */
int parcel_box(int box[2]);

struct parcel_sending {
    int block;       /* its descriptors are sent */
    int intake, rpc; /* listening sockets; -1: not ours to pass on */
    bool (*at_rest)(const void *arg, int fd);
    const void *arg;
};
/* Everything into the box, through its end to write to. 0, or a negative errno: nothing is in it. */
int parcel_send(int box, const struct parcel_sending *p);

/* ---- reading it ---- */

struct parcel {
    int block, intake, rpc; /* -1 */
    uint32_t n_trays, n_items;
    int tray[PARCEL_TRAYS_MAX];
};
/* 1: there is one, and it stays in the box; 0: there is none, or it was taken; -EPROTO and why. */
int parcel_look(int box, struct parcel *p, char *why, size_t size);
/* Closes the descriptors of p. */
void parcel_close(struct parcel *p);

struct parcel_items {
    int *moved; /* by the number in the block; -1: none */
    size_t n;
    uint8_t *flags; /* the same */
};
/* Copies of all descriptors in its trays. 0, or a negative errno and why: then there are none. */
int parcel_open(const struct parcel *p, struct parcel_items *to, char *why, size_t size);
/* The descriptors belong to others. */
void parcel_forget(struct parcel_items *items);
/* Nothing comes of it: clients at rest are told 1012, and all is closed. How many were told. */
unsigned parcel_refuse(struct parcel_items *items);
/* Takes it out of the box: others will not find it. */
void parcel_take(int box);
bool parcel_is_there(int box);

#endif
