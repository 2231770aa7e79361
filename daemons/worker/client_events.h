/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * client_events: which part of a request takes what the client's connection tells (client_ops). The
 * one place where the parts above a connection are known by name.
 */
#ifndef POLDER_WORKER_CLIENT_EVENTS_H
#define POLDER_WORKER_CLIENT_EVENTS_H

struct worker;

void client_events_init(struct worker *w);

#endif
