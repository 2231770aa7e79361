/* SPDX-License-Identifier: BSD-2-Clause */
/* caching: a second read is a hit, and an invalidation takes effect at once. */
#include "admin/verify/verify.h"
#include "polder/clock.h"

#include <string.h>

#define STORED_MS 2000 /* storing takes place behind the answer */
#define PAUSE_MS  20

/* Can it be asked for at all? A statement about that is made if not. */
static bool answers(struct verify *v, const struct route_plan *r, const char *path,
                    const struct reply *reply)
{
    if (reply->status >= 200 && reply->status < 300)
        return true;
    if (!reply->status)
        report(v, CACHING, r->pattern, "second read", SEEN_FAILED, "GET %s: %s", path, reply->why);
    else if (reply->status >= 500)
        report(v, CACHING, r->pattern, "second read", SEEN_FAILED, "GET %s: the answer is %u", path,
               reply->status);
    else
        report(v, CACHING, r->pattern, "second read", NOT_PROBED, "GET %s: the answer is %u; %s",
               path, reply->status, plan_advice(r));
    return false;
}

/* Reads until it is a hit. */
static bool becomes_hit(struct verify *v, const struct ask *ask, struct reply *reply,
                        unsigned *reads)
{
    const uint64_t until_ms = clock_mono_ms() + STORED_MS;
    for (*reads = 1;; ++*reads) {
        http_get(v, ask, reply);
        if (!reply->status || (reply->hit && *reads > 1))
            return reply->hit;
        if (clock_mono_ms() > until_ms || !verify_wait(v, PAUSE_MS))
            return false;
    }
}

static void check_invalidation(struct verify *v, const struct route_plan *r, const struct ask *ask)
{
    struct reply reply;
    if (!verify_forget(v, ask->path)) {
        report(v, CACHING, r->pattern, "invalidation", SEEN_FAILED, "control did not invalidate %s",
               ask->path);
        return;
    }
    http_get(v, ask, &reply);
    report(v, CACHING, r->pattern, "invalidation",
           reply.status && !reply.hit ? SEEN_OK : SEEN_FAILED,
           reply.hit ? "the next read still got the old copy: %s" : "the next read: %s",
           reply.status ? reply.cache_status : reply.why);
}

static void check_route(struct verify *v, const struct route_plan *r)
{
    char path[VERIFY_PATH];
    struct reply reply;
    unsigned reads;
    plan_path(v, r, path);
    const struct ask ask = {.path = path, .kind = ""};
    report_progress(v, "caching: %s", path);
    http_get(v, &ask, &reply);
    if (!answers(v, r, path, &reply))
        return;
    if (!becomes_hit(v, &ask, &reply, &reads)) {
        report(v, CACHING, r->pattern, "second read", SEEN_FAILED,
               "GET %s: no hit after %u reads in %d s: %s", path, reads, STORED_MS / 1000,
               reply.status ? reply.cache_status : reply.why);
        return;
    }
    report(v, CACHING, r->pattern, "second read", SEEN_OK, "GET %s: %s", path, reply.cache_status);
    check_invalidation(v, r, &ask);
}

void check_caching(struct verify *v)
{
    unsigned n = 0, more = 0;
    for (uint32_t i = 0; i < v->n_routes && verify_goes_on(v); i++) {
        if (!v->routes[i].cache || v->routes[i].poll)
            continue;
        if (n == VERIFY_ROUTES) {
            more++;
            continue;
        }
        check_route(v, &v->routes[i]);
        n++;
    }
    for (uint32_t i = 0; n == 0 && i < v->n_routes; i++) /* those are polled too */
        if (v->routes[i].cache && verify_goes_on(v)) {
            check_route(v, &v->routes[i]);
            n++;
        }
    report_more(v, CACHING, more);
    if (n == 0)
        report(v, CACHING, "", "", NOT_CONFIGURED, "no route has a cache section");
}
