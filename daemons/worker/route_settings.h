/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * route_settings: what the routes and limits of a worker go by now: the configuration, with the values
 * that were changed while it runs (polder/runtime.h) in place of its own where it does not state
 * them for the route.
 */
#ifndef POLDER_WORKER_ROUTE_SETTINGS_H
#define POLDER_WORKER_ROUTE_SETTINGS_H

struct worker;

/* At the start, and when there is a new generation of running values. Ends all repeats. */
void route_settings_read(struct worker *w);

#endif
