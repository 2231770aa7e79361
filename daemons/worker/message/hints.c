/* SPDX-License-Identifier: BSD-2-Clause */
/* hints: see hints.h. */
#include "daemons/worker/message/hints.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/route_state.h"
#include "polder/clientip.h"
#include "polder/conditions.h"
#include "polder/config.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static void hint(struct worker *w, enum condition_id id, const char *subject, const char *reason)
{
    condition_hint(w->shared->conditions, id, subject, reason, w->real_ms);
}

void hints_upgrade(const struct request *r)
{
    struct route_state *route = &r->worker->routes[r->route->index];
    if (!route->hinted_upgrade)
        hint(r->worker, COND_HINT_UPGRADE_REFUSED, r->route->pattern, "");
    route->hinted_upgrade = true;
}

/* "https://host/path?query" of this very request? */
static bool leads_back(const struct request *r, struct str location)
{
    static const char scheme[] = "https://";
    const size_t n = sizeof scheme - 1, host = r->head->host.len, target = r->target.len;
    return location.len == n + host + target && !strncasecmp(location.at, scheme, n) &&
           !strncasecmp(location.at + n, r->head->host.at, host) &&
           !memcmp(location.at + n + host, r->target.at, target);
}

void hints_redirect(const struct request *r, const struct h1_head *head)
{
    const struct h1_field *proto = h1_only(r->head, H1_X_FORWARDED_PROTO),
                          *location = h1_only(head, H1_LOCATION);
    char peer[46];
    if (head->status / 100 != 3 || head->status == 304 || !location || !proto || r->trusted_peer ||
        !field_is(proto->value, "https") || !leads_back(r, location->value))
        return;
    peer[clientip_format(&r->peer, peer)] = 0;
    hint(r->worker, COND_HINT_REDIRECT_LOOP, peer, "it says X-Forwarded-Proto: https");
}

void hints_stream_cut(const struct request *r, const struct config_upstream *of)
{
    const bool own = of->stream_timeout_ms > of->timeout_ms;
    char reason[96];
    snprintf(reason, sizeof reason, "no event for %g s; upstream %s { %s }",
             (own ? of->stream_timeout_ms : of->timeout_ms) / 1000., of->name,
             own ? "stream_timeout" : "timeout");
    hint(r->worker, COND_HINT_STREAM_CUT, r->route ? r->route->pattern : "", reason);
}
