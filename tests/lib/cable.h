/* SPDX-License-Identifier: BSD-2-Clause */
/* cable: a port of its own in front of another one, with a way to cut what lies between; for any amount of
 * bytes and connections, of which it keeps nothing (relay.h does). */
#ifndef POLDER_TEST_CABLE_H
#define POLDER_TEST_CABLE_H

struct cable;
struct cable *cable_start(unsigned to_port);
unsigned cable_port(const struct cable *r);
/* Ends all connections, and accepts none that is passed on; and the way back. Returns when it is so. */
void cable_cut(struct cable *r);
void cable_mend(struct cable *r);
void cable_stop(struct cable *r);
#endif
