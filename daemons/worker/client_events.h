/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * client_events: dispatches the events of a client's connection (client_ops) to the parts of a
 * request. The one place where the parts above a connection are known by name.
 */
#ifndef POLDER_WORKER_CLIENT_EVENTS_H
#define POLDER_WORKER_CLIENT_EVENTS_H

struct worker;

void client_events_init(struct worker *w);

#endif
