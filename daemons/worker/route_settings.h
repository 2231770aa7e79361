/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * route_settings: the settings that routes and limits of a worker use: the configuration, overlaid
 * with running values (polder/runtime.h) that the route does not state itself.
 */
#ifndef POLDER_WORKER_ROUTE_SETTINGS_H
#define POLDER_WORKER_ROUTE_SETTINGS_H

struct worker;

/* At the start, and when there is a new generation of running values. Ends all repeats. */
void route_settings_read(struct worker *w);

#endif
