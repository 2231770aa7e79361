/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shares: cost and savings shared out to tenants: cost { by }.
 *
 * Each tenant's share is computed from its counts, at the prices of the file. The rest is the share
 * named "unassigned": requests without the value, fetches that no client waited for, reaped
 * WebSockets. Those beyond the first TENANTS_MAX are "other". So the shares add up to the whole;
 * where `by` was configured or changed after the start, what was counted before is unassigned.
 */
#ifndef POLDER_CONTROL_SHARES_H
#define POLDER_CONTROL_SHARES_H
#include "daemons/control/model/savings.h"
#include "polder/tenants.h"

struct control;

struct share {
    char name[TENANTS_NAME];
    struct cost_counts counts;
    struct cost_money money;
};
#define SHARES_MAX (TENANTS_ROWS + 2)

/* Those with the most money first, then "other" and "unassigned" where there are such. NULL: `by`
 * is not configured, or no memory. The caller frees it. */
struct share *shares_find(const struct control *c, const struct savings *whole, size_t *n);
/* Rows follow the configuration. Each second. */
void shares_follow(struct control *c);
#endif
