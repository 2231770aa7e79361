/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * keep_alive: for how long a connection may be used again after a response.
 *
 * A backend may state the time after which it closes a connection without a request: Keep-Alive:
 * timeout=5, in seconds. A request that is sent then is lost: whether the backend has acted on it
 * is unknown, so one that is not idempotent cannot be sent again. Therefore the last tenth of the
 * time, and never less than KEEP_ALIVE_SPARE_MS, is not used. What is no number says nothing.
 */
#ifndef POLDER_WORKER_FETCH_KEEP_ALIVE_H
#define POLDER_WORKER_FETCH_KEEP_ALIVE_H
#include "daemons/http/h1.h"
#include <stdint.h>

#define KEEP_ALIVE_SPARE_MS 500
#define KEEP_ALIVE_MAX_MS   60000 /* of what is stated */

/* 0: it is not used again. idle_ms: where the backend states nothing; 0: it never is. */
uint32_t keep_alive_ms(const struct h1_head *head, uint32_t idle_ms);
#endif
