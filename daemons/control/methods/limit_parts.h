/* SPDX-License-Identifier: BSD-2-Clause */
/* limit_parts: shared by the methods of the noun limit. */
#ifndef POLDER_CONTROL_LIMIT_PARTS_H
#define POLDER_CONTROL_LIMIT_PARTS_H
#include "daemons/control/model/limits.h"
#include "daemons/rpc/server.h"
#include "polder/limit_try.h"

struct control;

/* The limit that the call names, or NULL and the call is answered. */
const struct config_limit *limit_named(struct control *c, const struct rpc_call *call);
/* Changes what the call's "set" says. False: the call is answered. */
bool limit_read_terms(struct control *c, const struct rpc_call *call, struct limit_terms *terms);

void limit_put_values(struct rpc_out *o, const struct runtime_limit *value);
/* list NULL: the list of the file, or its first items. */
void limit_put_exempt(struct rpc_out *o, const struct config_limit *l, const struct exempt *list);
/* What a candidate is; its exempt list, where it has one of its own. */
void limit_put_candidate(struct rpc_out *o, const struct config_limit *l,
                         const struct limit_try_terms *terms);
/* A client, as the limit's key names it, and its count under that name; n_name of "requests" or
 * "refused". */
struct limit_top_row;
void limit_put_client(struct rpc_out *o, const struct config_limit *l, struct limit_top_row *row,
                      const char *count_name);
#endif
