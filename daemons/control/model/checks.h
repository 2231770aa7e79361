/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * checks: active checks of the servers of upstreams with `health`: when each is made, and what its
 * result makes of the server's shared row (polder/server_check.h).
 *
 * A server is checked each health_interval, a tenth more or less, so that checks do not come in
 * step; at least each CHECKS_FAST_MS from a first failure on until it has passed or is down, and
 * while it is down. Where no upstream has `health` nothing runs.
 */
#ifndef POLDER_CONTROL_CHECKS_H
#define POLDER_CONTROL_CHECKS_H

#define CHECKS_FAST_MS 500

struct checks;
struct control;

struct checks *checks_new(void);
void checks_free(struct checks *checks);
/* Checks what the configuration says, from now on. */
void checks_follow(struct control *c);
#endif
