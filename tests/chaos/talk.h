/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * talk: many WebSockets that say things of which each byte is known beforehand, and a server that
 * says them back. Messages of many lengths, binary and text, in one frame or several, with pings
 * between them; readers that are slow. What comes back is compared frame by frame: one that is
 * lost, repeated, out of order or changed is seen at once.
 */
#ifndef POLDER_TEST_TALK_H
#define POLDER_TEST_TALK_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Listens on that port; ends with this process. */
pid_t talk_server(unsigned port);

struct talk_count {
    uint64_t frames, messages, bytes; /* that came back right */
    uint64_t wrong;                   /* frames that are not the next one */
    uint64_t lost;                    /* connections that ended */
    char what[160];                   /* of the first of those */
};
struct talk;
/* n of them, open; fails the test where one is refused. */
struct talk *talk_open(unsigned port, const char *target, unsigned n, uint64_t seed);
/* Talks for about so long. */
void talk_step(struct talk *t, int ms);
/* Says no more, and waits until all has come back; closes with a close handshake. */
void talk_end(struct talk *t, struct talk_count *count);
const struct talk_count *talk_counted(const struct talk *t);
#endif
