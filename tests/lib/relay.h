/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * relay: stands between clients on a TCP port and a server on a UNIX socket. It passes on what they say,
 * as it is told: late, not at all, or with no connection taken. And keeps all bytes for who wants to see
 * what was on the wire.
 */
#ifndef POLDER_TEST_RELAY_H
#define POLDER_TEST_RELAY_H
#include <stdbool.h>
#include <stddef.h>

struct relay;
struct relay *relay_start(const char *to); /* path of the socket */
void relay_stop(struct relay *r);
unsigned relay_port(const struct relay *r);
void relay_delay(struct relay *r, unsigned ms);  /* each piece of an answer comes so much later */
void relay_hold(struct relay *r, bool hold);     /* nothing comes back until it is false again */
void relay_refuse(struct relay *r, bool refuse); /* connections end, and none is taken */
/* Was that on the wire, in either direction? */
bool relay_has_seen(struct relay *r, const void *bytes, size_t len);
size_t relay_bytes(struct relay *r); /* in both directions */
#endif
