/* SPDX-License-Identifier: BSD-2-Clause */
/* tenants: see tenants.h. */
#include "daemons/worker/message/tenants.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/message/key_text.h"
#include "daemons/worker/worker.h"

/* For a request without a head, which repeats the one before, the client has it. */
static uint32_t row_of(const struct request *r)
{
    const struct config *config = r->worker->config;
    char text[KEY_TEXT_MAX];
    if (!r->head)
        return r->client->tenant;
    const int len = key_text_join(r, config->cost_by, config->n_cost_by, false, text, sizeof text);
    return len <= 0 ? TENANTS_NONE
                    : tenants_row(r->worker->shared->tenants, config->cost_by_id,
                                  (struct str){text, (size_t)len}, config->cost_by_is_secret);
}

void tenants_count_now(const struct request *r, enum tenants_count what)
{
    struct worker *w = r->worker;
    if (!r->client || r->probe)
        return;
    r->client->tenant = (uint16_t)row_of(r);
    tenants_add(w->shared->tenants, w->process->slot, r->client->tenant, what);
}
