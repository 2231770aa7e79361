/* SPDX-License-Identifier: BSD-2-Clause */
/* tenants: counts requests by tenant, as configured by cost { by } (polder/tenants.h). */
#ifndef POLDER_WORKER_MESSAGE_TENANTS_H
#define POLDER_WORKER_MESSAGE_TENANTS_H
#include "daemons/worker/message/request.h"
#include "polder/tenants.h"

void tenants_count_now(const struct request *r, enum tenants_count what);

/* r: of a client. One branch where `by` is not configured. */
static inline void tenants_count(const struct request *r, enum tenants_count what)
{
    if (__builtin_expect(r->worker->config->n_cost_by != 0, 0))
        tenants_count_now(r, what);
}
#endif
