/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * probe: requests of `polderctl verify` (polder/verify.h). They are handled like all requests, but
 * apart: they have their own client addresses (192.0.2.N), limit counts and stored copies, and
 * their statistics go to a slab that is not read. Only GET can be one.
 */
#ifndef POLDER_WORKER_REQUEST_PROBE_H
#define POLDER_WORKER_REQUEST_PROBE_H
#include "daemons/worker/message/request.h"
#include "daemons/worker/message/messages.h"

/* The request carries a Polder-Verify field: is it a probe? */
void probe_recognise(struct worker *w, struct request *r);
/* Its URL differs from that of clients: w->texts->url, of len bytes. The new length, or
 * -ENOBUFS. */
int probe_url(struct worker *w, const struct request *r, int len);
/* Its limits have admitted it, and that was the question: 204. */
void probe_admitted(const struct request *r);
#endif
