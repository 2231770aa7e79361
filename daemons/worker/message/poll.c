/* SPDX-License-Identifier: BSD-2-Clause */
/* poll: clients of polled routes, for `poll top`. */
#include "daemons/worker/message/poll.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/message/tenants.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/clientip.h"
#include "polder/limit_top.h"
#include "polder/stats.h"

#include <string.h>
#include <xxhash.h>

/* "ADDRESS /path", as much of it as a row keeps. */
static size_t who_asks(const struct request *r, char out[LIMIT_TOP_WHO])
{
    char text[LIMIT_TOP_WHO + 64];
    size_t n = clientip_format(&r->ip, text);
    const char *path = memchr(r->url, '/', r->url_len);
    size_t len = path ? (size_t)(r->url + r->url_len - path) : 0;
    text[n++] = ' ';
    if (len > LIMIT_TOP_WHO - n)
        len = LIMIT_TOP_WHO - n;
    if (len)
        memcpy(text + n, path, len);
    memcpy(out, text, n + len);
    return n + len;
}

void poll_note(const struct request *r)
{
    struct worker *w = r->worker;
    char who[LIMIT_TOP_WHO];
    if (r->client->held || r->waited_s || r->probe)
        return; /* waiting clients behave as intended */
    stats_add(w->stats, STATS_POLL_KEPT, 1);
    tenants_count(r, TENANTS_POLLS);
    if (!limit_top_due(&w->messages->poll_top))
        return;
    const size_t n = who_asks(r, who);
    limit_top_note(&w->limit_caller, (struct limit_top_list){LIMIT_TOP_POLL, 0},
                   XXH3_64bits(who, n), who, n, false, w->messages->poll_top.weight, w->mono_ms);
}
