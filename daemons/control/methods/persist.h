/* SPDX-License-Identifier: BSD-2-Clause */
/* persist: --persist for upstreams, cache and WebSockets; see settings.h. False: it
 * failed, and the call is answered. */
#ifndef POLDER_CONTROL_PERSIST_H
#define POLDER_CONTROL_PERSIST_H
#include "daemons/rpc/server.h"
#include "polder/settings.h"

struct control;

bool persist_settings(struct control *c, const struct rpc_call *call, struct setting *setting,
                      size_t n);
/* key NULL: the whole section. */
bool persist_forget(struct control *c, const struct rpc_call *call, const char *section,
                    const char *key);
#endif
