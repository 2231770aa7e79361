/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * quarantine: acts when the leak guard has quarantined a URL or more.
 *
 * A worker sets the quarantine in the page (polder/leak_guard.h), and it holds without control.
 * Here it is logged, once per start; its stored objects are invalidated, so that the keeper deletes
 * them and long polls are woken; and it is ended here.
 */
#ifndef POLDER_CONTROL_QUARANTINE_H
#define POLDER_CONTROL_QUARANTINE_H
#include "polder/leak_guard.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config_route;
struct control;

/* Each second, and when a worker has quarantined something: logs it once, ends its stored objects,
 * and releases it if the route's partition now has the fields that the content differs by. */
void quarantine_follow(struct control *c);
/* Of a route all, or (route NULL) the part that is named: "host/path", or "host/directory/" with or
 * without '*', as it is shown, or as a URL. False: nothing of that name is quarantined. */
bool quarantine_release(struct control *c, const struct config_route *route, const char *text);
/* The guard's state of a route; NULL: none yet. */
struct guard_route *quarantine_find(const struct control *c, const struct config_route *route);
/* The nth (0..) quarantine of a route, or of a part of it; NULL: there are no more. */
struct guard_scope *quarantine_nth(const struct control *c, const struct config_route *route,
                                   uint32_t n);
/* The quarantine that covers a URL; NULL: none. */
const struct guard_scope *quarantine_of(const struct control *c, const struct config_route *route,
                                        const char *url, size_t len);
/* The fields that the responses differ by. */
void quarantine_names(const struct guard_scope *s, char names[GUARD_NAMES + 1]);
#endif
