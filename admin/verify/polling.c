/* SPDX-License-Identifier: BSD-2-Clause */
/* polling: a client that polls too fast reaches the backend at most once per interval. */
#include "admin/verify/verify.h"
#include "polder/clock.h"

#include <string.h>

#define POLLS    8
#define PAUSE_MS 120
#define STORE_MS 1500

struct polls {
    unsigned all, backend;
    uint64_t ms;
    struct reply last; /* that reached the backend */
};

/* The first poll goes to the backend; those behind it count when it is stored, or would be. */
static bool first_poll(struct verify *v, const struct ask *ask, struct reply *reply)
{
    const uint64_t until_ms = clock_mono_ms() + STORE_MS;
    do {
        http_get(v, ask, reply);
    } while (reply->status && reply->status < 300 && !reply->hit && clock_mono_ms() < until_ms &&
             verify_wait(v, 50));
    return reply->status >= 200 && reply->status < 300;
}

static bool poll_on(struct verify *v, const struct ask *ask, struct polls *p)
{
    struct reply reply;
    const uint64_t from_ms = clock_mono_ms();
    for (p->all = 0; p->all < POLLS; p->all++) {
        if (p->all && !verify_wait(v, PAUSE_MS))
            return false;
        http_get(v, ask, &reply);
        if (reply.status < 200 || reply.status >= 300)
            return false;
        if (!reply.hit) {
            p->backend++;
            p->last = reply;
        }
    }
    p->ms = clock_mono_ms() - from_ms;
    return true;
}

static void judge(struct verify *v, const struct route_plan *r, const char *path,
                  const struct polls *p)
{
    char interval[32];
    report_time(r->min_interval_ms, interval);
    const uint64_t allowed = p->ms / r->min_interval_ms + 1;
    if (p->backend > allowed)
        report(v, POLLING, r->pattern, "interval", SEEN_FAILED,
               "%u of %u polls of %s in %llu ms reached the backend, for min_interval = %s %llu "
               "may: %s",
               p->backend, p->all, path, (unsigned long long)p->ms, interval,
               (unsigned long long)allowed, p->last.cache_status);
    else if (2 * p->backend > p->all)
        report(v, POLLING, r->pattern, "interval", SEEN_FAILED,
               "min_interval = %s holds nothing back: %u of %u polls of %s, one each %d ms, "
               "reached the backend",
               interval, p->backend, p->all, path, PAUSE_MS);
    else
        report(v, POLLING, r->pattern, "interval", SEEN_OK,
               "%u of %u polls of %s in %llu ms reached the backend; min_interval = %s", p->backend,
               p->all, path, (unsigned long long)p->ms, interval);
}

static void check_route(struct verify *v, const struct route_plan *r)
{
    char path[VERIFY_PATH];
    struct reply reply;
    struct polls p = {0};
    plan_path(v, r, path);
    const struct ask ask = {.path = path, .kind = ""};
    report_progress(v, "polling: %s", path);
    if (first_poll(v, &ask, &reply) && poll_on(v, &ask, &p)) {
        judge(v, r, path, &p);
        return;
    }
    if (!verify_goes_on(v))
        return;
    http_get(v, &ask, &reply);
    const bool elsewhere = reply.status >= 300 && reply.status < 500;
    if (elsewhere)
        report(v, POLLING, r->pattern, "interval", NOT_PROBED, "GET %s: the answer is %u; %s", path,
               reply.status, plan_advice(r));
    else if (reply.status)
        report(v, POLLING, r->pattern, "interval", SEEN_FAILED, "GET %s: the answer is %u", path,
               reply.status);
    else
        report(v, POLLING, r->pattern, "interval", SEEN_FAILED, "GET %s: %s", path, reply.why);
}

void check_polling(struct verify *v)
{
    unsigned n = 0, more = 0;
    for (uint32_t i = 0; i < v->n_routes && verify_goes_on(v); i++) {
        if (!v->routes[i].poll)
            continue;
        if (n == VERIFY_ROUTES) {
            more++;
            continue;
        }
        check_route(v, &v->routes[i]);
        n++;
    }
    report_more(v, POLLING, more);
    if (n == 0)
        report(v, POLLING, "", "", NOT_CONFIGURED, "no route has a poll section");
}
