/* SPDX-License-Identifier: BSD-2-Clause */
/* replay: requests that are looked at once more, by themselves: one that is held when its client goes,
 * and the same one without a client, for a fetch in the background. */
#include "daemons/http/h1.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/request/steps.h"
#include "daemons/worker/worker.h"

const struct h1_head *request_parse_again(struct worker *w, const struct request_replay *again)
{
    enum problem problem;
    size_t scanned = 0;
    return h1_parse_request(again->bytes, again->len, &scanned, &w->head, &problem) == H1_DONE
               ? &w->head
               : NULL;
}

bool request_held(struct client *c, const char *bytes, size_t len, struct request *r)
{
    static struct h1_head head; /* used until its client is gone */
    enum problem problem;
    size_t scanned = 0;
    if (h1_parse_request(bytes, len, &scanned, &head, &problem) != H1_DONE)
        return false;
    request_identify(c->worker, c, &head, NULL, r);
    return request_locate(c->worker, r) == 0;
}

bool request_background(struct worker *w, struct client *c, const struct request_replay *again,
                        struct request *r)
{
    const struct h1_head *head = request_parse_again(w, again);
    if (!head)
        return false;
    request_identify(w, c, head, again->peer, r);
    if (request_locate(w, r) < 0 || !r->route || !r->route->cache || !request_prepare_lookup(w, r))
        return false;
    if (again->anonymous && r->has_identity && r->policy.identity != POLICY_PARTITION) {
        identity_strip(r, &w->head);
        if (!request_prepare_lookup(w, r))
            return false;
    }
    r->wait_s = 0;
    r->cacheable = true;
    return true;
}
