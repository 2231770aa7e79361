/* SPDX-License-Identifier: BSD-2-Clause */
/* locate: the route of a request, its URL, and the target as a backend is asked for it. */
#include "daemons/http/h1.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/request/probe.h"
#include "daemons/worker/request/steps.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/config.h"
#include "polder/route.h"
#include "polder/url.h"

#include <string.h>

/* What is stored under a URL is the answer to that URL: where the client spells it otherwise (dot
 * segments, escapes of plain letters), the backend is asked as the key says, or one spelling's
 * answer would become the other's (RFC 3986 6.2.2). Parameters that only_query does not list and
 * their order do not reach it either; those of ignore_query do, for they are its own to count. */
static void respell(struct worker *w, struct request *r)
{
    const struct config_cache *cache = r->route->cache;
    const char *path = memchr(r->url, '/', r->url_len);
    const struct str query = r->head->query;
    if (!path)
        return;
    const bool by_key = (cache->n_only_query || cache->sort_query) && query.at;
    const size_t rest = (size_t)(r->url + r->url_len - path);
    const char *mark = memchr(path, '?', rest);
    const size_t len = mark ? (size_t)(mark - path) : rest;
    if (!by_key && len == r->path_len && !memcmp(path, r->path, len) && (!query.at || query.len))
        return;
    struct h1_out o = {w->texts->target, w->texts->target + sizeof w->texts->target, false};
    h1_put(&o, path, by_key ? rest : len);
    if (query.len && !by_key) {
        h1_put(&o, "?", 1);
        h1_put(&o, query.at, query.len);
    }
    if (!o.overflow) /* a normal path is never longer */
        r->target = (struct str){w->texts->target, (size_t)(o.at - w->texts->target)};
}

/* A client's own bytes go to a backend where nothing is stored; but not where a backend that
 * resolves no dot segments would take them for a path of another route. */
static void respell_uncached(struct worker *w, struct request *r)
{
    const char *path = memchr(r->url, '/', r->url_len);
    const struct str query = r->head->query;
    if (!path)
        return;
    const char *mark = memchr(path, '?', (size_t)(r->url + r->url_len - path));
    const size_t len = (size_t)((mark ? mark : r->url + r->url_len) - path);
    if ((len == r->path_len && !memcmp(path, r->path, len)) ||
        route_find_as_sent(w->config, r->path, r->path_len) == r->route)
        return;
    struct h1_out o = {w->texts->target, w->texts->target + sizeof w->texts->target, false};
    h1_put(&o, path, len);
    if (query.at) {
        h1_put(&o, "?", 1);
        h1_put(&o, query.at, query.len);
    }
    if (!o.overflow)
        r->target = (struct str){w->texts->target, (size_t)(o.at - w->texts->target)};
}

int request_locate(struct worker *w, struct request *r)
{
    int n = url_normalise(w->config, r->head->host, (struct str){r->path, r->path_len},
                          r->head->query, w->texts->url, sizeof w->texts->url, &r->route);
    if (n >= 0 && r->probe)
        n = probe_url(w, r, n);
    if (n < 0)
        return n;
    r->url = w->texts->url;
    r->url_len = (uint32_t)n;
    if (r->route && r->route->cache)
        respell(w, r);
    else if (r->route)
        respell_uncached(w, r);
    return 0;
}
