/* SPDX-License-Identifier: BSD-2-Clause */
/* rpc_values: the values that commands change (polder/config_keys.h), as answers show them. */
#ifndef POLDER_RPC_VALUES_H
#define POLDER_RPC_VALUES_H
#include "polder/config_keys.h"
#include "polder/rpc_out.h"

/* Puts them into the open map, each under its key, with _ms or _bytes appended for a time or a
 * size. Lists are left out. top: includes those that only the top level has. */
void rpc_put_values(struct rpc_out *o, enum config_section section, const void *live, bool top);
#endif
