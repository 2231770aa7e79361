/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * quarantine: what follows when the leak guard has quarantined a route.
 *
 * The quarantine is the worker's word in the page (polder/leak_guard.h) and holds without control.
 * Here it is said in the log, once a start; what is stored of the route is invalidated, so that the
 * keeper deletes it and those who wait for a change of it are told; and it ends here.
 */
#ifndef POLDER_CONTROL_QUARANTINE_H
#define POLDER_CONTROL_QUARANTINE_H
#include "polder/leak_guard.h"
#include <stdbool.h>

struct config_route;
struct control;

/* Each second, and when a worker has quarantined a route: says so once, ends what is stored of it,
 * and releases routes whose partition now holds what the content differs by. */
void quarantine_follow(struct control *c);
void quarantine_release(struct control *c, const struct config_route *route);
/* What the guard has seen of a route; NULL: nothing yet. */
struct guard_route *quarantine_find(const struct control *c, const struct config_route *route);
bool quarantine_holds(const struct control *c, const struct config_route *route);
/* What its responses differ by; false: it is not quarantined. */
bool quarantine_names(const struct control *c, const struct config_route *route,
                      char names[GUARD_NAMES + 1]);
#endif
