/* SPDX-License-Identifier: BSD-2-Clause */
/* identify: what a head says by itself: the client and the target. */
#include "daemons/http/h1.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/message/request_id.h"
#include "daemons/worker/request/probe.h"
#include "daemons/worker/request/steps.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/clientip.h"
#include "polder/config.h"

/* All that a head can hold: without it the client would be the proxy, which may be exempt. */
#define FORWARDED_MAX H1_HEAD_MAX

/* Not inlined: of its stack all but few requests have no use. */
__attribute__((noinline)) static void take_forwarded(const struct config *config,
                                                     const struct h1_head *head, struct request *r)
{
    char xff[FORWARDED_MAX], forwarded[FORWARDED_MAX];
    const size_t xff_len = h1_join(head, H1_X_FORWARDED_FOR, xff, sizeof xff);
    const size_t forwarded_len = h1_join(head, H1_FORWARDED, forwarded, sizeof forwarded);
    clientip_forwarded(&r->peer, config->trusted_proxies, config->n_trusted_proxies,
                       xff_len ? xff : NULL, xff_len, forwarded_len ? forwarded : NULL,
                       forwarded_len, &r->ip);
}

/* The peer, or the address that a trusted proxy names. */
static void identify(struct worker *w, const struct clientip *peer, struct request *r)
{
    const struct h1_head *head = r->head;
    const struct config *config = w->config;
    if (r->client)
        r->peer = r->client->peer;
    else if (peer)
        r->peer = *peer;
    else
        clientip_parse("127.0.0.1", 9, &r->peer); /* Polder itself asks */
    r->ip = r->peer;
    r->trusted_peer = config->n_trusted_proxies &&
                      clientip_in(&r->peer, config->trusted_proxies, config->n_trusted_proxies);
    if (!r->trusted_peer || (!head->first[H1_X_FORWARDED_FOR] && !head->first[H1_FORWARDED]))
        return;
    take_forwarded(config, head, r);
}

/* The origin-form target: the client's own bytes, an absolute form without scheme and authority. */
static struct str origin_form(struct worker *w, const struct h1_head *head)
{
    if (head->target.len && head->target.at[0] == '/')
        return head->target;
    if (!head->path.len)
        return (struct str){"/", 1};
    if (head->query.at && head->path.at + head->path.len + 1 != head->query.at) {
        struct h1_out o = {w->texts->target, w->texts->target + sizeof w->texts->target, false};
        h1_puts(&o, "/?"); /* it had no path; the query is shorter than the target */
        h1_put(&o, head->query.at, head->query.len);
        return (struct str){w->texts->target, (size_t)(o.at - w->texts->target)};
    }
    const char *end =
        head->query.at ? head->query.at + head->query.len : head->path.at + head->path.len;
    return (struct str){head->path.at, (size_t)(end - head->path.at)};
}

void request_identify(struct worker *w, struct client *c, const struct h1_head *head,
                      const struct clientip *peer, struct request *r)
{
    *r = (struct request){
        .worker = w, .client = c, .head = head, .url = "", .partition = "", .limit_lines = ""};
    r->number = request_id_next(&w->messages->ids);
    r->is_head = head->is_head;
    r->http10 = head->minor == 0;
    r->target = origin_form(w, head);
    r->path = head->path.len ? head->path.at : "/";
    r->path_len = head->path.len ? head->path.len : 1;
    identify(w, peer, r);
    if (__builtin_expect(head->first[H1_POLDER_VERIFY], 0))
        probe_recognise(w, r);
}
