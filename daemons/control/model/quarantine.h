/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * quarantine: what follows when the leak guard has quarantined a URL or more.
 *
 * The quarantine is the worker's word in the page (polder/leak_guard.h) and holds without control.
 * Here it is said in the log, once a start; what is stored of it is invalidated, so that the
 * keeper deletes it and those who wait for a change of it are told; and it ends here.
 */
#ifndef POLDER_CONTROL_QUARANTINE_H
#define POLDER_CONTROL_QUARANTINE_H
#include "polder/leak_guard.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config_route;
struct control;

/* Each second, and when a worker has quarantined something: says so once, ends what is stored of
 * it, and releases it where the route's partition now holds what the content differs by. */
void quarantine_follow(struct control *c);
/* Of a route all, or (route NULL) the part that is named: "host/path", or "host/directory/" with or
 * without '*', as it is shown, or as a URL. False: nothing of that name is quarantined. */
bool quarantine_release(struct control *c, const struct config_route *route, const char *text);
/* What the guard has seen of a route; NULL: nothing yet. */
struct guard_route *quarantine_find(const struct control *c, const struct config_route *route);
/* The nth (0..) quarantine of a route, or of a part of it; NULL: there are no more. */
struct guard_scope *quarantine_nth(const struct control *c, const struct config_route *route,
                                   uint32_t n);
/* What covers a URL; NULL: nothing. */
const struct guard_scope *quarantine_of(const struct control *c, const struct config_route *route,
                                        const char *url, size_t len);
/* What the responses differ by. */
void quarantine_names(const struct guard_scope *s, char names[GUARD_NAMES + 1]);
#endif
