/* SPDX-License-Identifier: BSD-2-Clause */
/* limits_refuse: the answer to a request that limits refuse. */
#include "daemons/worker/client/client.h"
#include "daemons/http/h1.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/request/limits.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/message/route_stats.h"
#include "daemons/worker/message/tenants.h"
#include "daemons/worker/worker.h"
#include "polder/clock.h"
#include "polder/problem.h"
#include "polder/stats.h"

void limits_refuse(struct worker *w, const struct request *r, const struct limit_answer *answer)
{
    char extra[64];
    r->client->note.limit = answer->refused_by;
    const uint64_t start_ns = clock_mono_ns();
    if (answer->no_key) {
        response_problem(r, r->client, PROBLEM_BAD_REQUEST, "",
                         ",\"reason\":\"the request lacks what a limit of this route counts by\"",
                         true);
        return;
    }
    tenants_count(r, TENANTS_REFUSED);
    struct h1_out o = {extra, extra + sizeof extra - 1, false};
    h1_puts(&o, "Retry-After: ");
    h1_put_u64(&o, answer->retry_s);
    h1_puts(&o, "\r\n");
    *o.at = 0;
    response_problem(r, r->client, PROBLEM_QUOTA_EXCEEDED, extra, answer->violated, true);
    stats_bump(&route_stats(w, r->route)->refused, 1);
    stats_observe(w->stats, STATS_LATENCY_REFUSED, NULL, clock_mono_ns() - start_ns);
}
