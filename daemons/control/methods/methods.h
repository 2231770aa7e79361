/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * methods: the methods of libshared/tables/methods.def, one file per noun; large nouns have
 * several. A method reads its parameters, lets the model decide, and answers; dispatch.c has
 * checked the parameters against the table and logged changes.
 *
 * Shared by several: limit_parts.c (limits), persist.c (--persist).
 */
#ifndef POLDER_CONTROL_METHODS_H
#define POLDER_CONTROL_METHODS_H
#include "daemons/rpc/server.h"

struct control;

/* ---- status.c ---- */
void status_show(struct control *c, const struct rpc_call *call);

/* ---- service.c ---- */
void drain_run(struct control *c, const struct rpc_call *call);
void stop_run(struct control *c, const struct rpc_call *call);

/* ---- reload.c ---- */
void reload_run(struct control *c, const struct rpc_call *call);
void reload_follow(struct control *c); /* answers callers with a finished reload */

/* ---- log.c ---- */
void log_level_run(struct control *c, const struct rpc_call *call);
void log_reopen_run(struct control *c, const struct rpc_call *call);
void log_reopen_follow(struct control *c); /* after the logs were opened again */

/* ---- cache.c ---- */
void cache_stats(struct control *c, const struct rpc_call *call);
void cache_list(struct control *c, const struct rpc_call *call);
void cache_show(struct control *c, const struct rpc_call *call);
void cache_why(struct control *c, const struct rpc_call *call);
void cache_invalidate(struct control *c, const struct rpc_call *call);

/* ---- fleet.c ---- */
void fleet_show(struct control *c, const struct rpc_call *call);
void fleet_forget_host(struct control *c, const struct rpc_call *call);

/* ---- cache_set.c ---- */
void cache_set(struct control *c, const struct rpc_call *call);
void cache_revert(struct control *c, const struct rpc_call *call);

/* ---- cache_warm.c ---- */
void cache_warm(struct control *c, const struct rpc_call *call);

/* ---- cache_guard.c ---- */
void cache_guard(struct control *c, const struct rpc_call *call);

/* ---- limit.c ---- */
void limit_list(struct control *c, const struct rpc_call *call);
void limit_show(struct control *c, const struct rpc_call *call);
void limit_top(struct control *c, const struct rpc_call *call);
void limit_set(struct control *c, const struct rpc_call *call);
void limit_confirm(struct control *c, const struct rpc_call *call);
void limit_revert(struct control *c, const struct rpc_call *call);
void limit_reset(struct control *c, const struct rpc_call *call);

/* ---- limit_try.c ---- */
void limit_try(struct control *c, const struct rpc_call *call);

/* ---- poll.c ---- */
void poll_top(struct control *c, const struct rpc_call *call);

/* ---- alert.c ---- */
void alert_list(struct control *c, const struct rpc_call *call);

/* ---- history.c ---- */
void history_show(struct control *c, const struct rpc_call *call);

/* ---- cost.c ---- */
void cost_show(struct control *c, const struct rpc_call *call);

/* ---- upstream.c ---- */
void upstream_list(struct control *c, const struct rpc_call *call);
void upstream_weight(struct control *c, const struct rpc_call *call);
void upstream_shift(struct control *c, const struct rpc_call *call);
void upstream_why(struct control *c, const struct rpc_call *call);
void upstream_revert(struct control *c, const struct rpc_call *call);

/* ---- verify.c ---- */
void verify_begin_run(struct control *c, const struct rpc_call *call);
void verify_step_run(struct control *c, const struct rpc_call *call);

/* ---- ws.c ---- */
void ws_broadcast(struct control *c, const struct rpc_call *call);
void ws_set(struct control *c, const struct rpc_call *call);
void ws_revert(struct control *c, const struct rpc_call *call);
void ws_upgrade(struct control *c, const struct rpc_call *call);

/* ---- top.c ---- */
void top_show(struct control *c, const struct rpc_call *call);

/* ---- upgrade.c ---- */
void upgrade_run(struct control *c, const struct rpc_call *call);

/* ---- watch.c ---- */
void watch_run(struct control *c, const struct rpc_call *call);

#endif
