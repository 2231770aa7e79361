/* SPDX-License-Identifier: BSD-2-Clause */
/* invalidation: see invalidation.h. */
#include "daemons/control/model/invalidation.h"
#include "daemons/control/control.h"
#include "daemons/control/model/events.h"
#include "polder/inval.h"
#include "polder/recent.h"
#include "polder/ring.h"

#include <errno.h>

/* It holds already; this only lets the keeper delete soon what is of no use any more. A full ring
 * costs nothing but room. */
static void tell_keeper(struct control *c, const struct invalidation *in)
{
    const struct ring_record head = {.type = RING_SWEEP, .incarnation = c->process->incarnation};
    struct ring_sweep sweep = {
        .seq = in->seq, .kind = in->kind, .soft = in->soft, .len = (uint32_t)in->len};
    struct iovec iov[2] = {{&sweep, sizeof sweep}, {(void *)(uintptr_t)in->text, (size_t)in->len}};
    ring_push(c->shared->ring[SHARED_RING_CONTROL], &head, iov, 2, c->shared->keeper_event);
}

/* For clients of routes that Polder answers alone: they would rather be told than poll. */
static void tell_supervisor(struct control *c, const struct invalidation *in)
{
    const size_t len = (size_t)in->len;
    if (in->kind == SWEEP_TAG)
        peers_tell_invalidated(&c->peers, "tag", in->text, len);
    else if (len)
        peers_tell_invalidated(&c->peers, in->kind == SWEEP_PREFIX ? "prefix" : "url", in->text,
                               len);
    else
        peers_tell_invalidated(&c->peers, "prefix", "/", 1);
}

static void add_event(struct control *c, const struct invalidation *in)
{
    char text[CACHE_URL_SIZE];
    recent_mask_target(text, sizeof text, (struct str){in->text, (size_t)in->len});
    events_add(c, "cache", "invalidated", in->len ? text : "everything", 1, "%s%s", in->what,
               in->soft ? ", soft" : "");
}

static void invalidation_tell(struct control *c, const struct invalidation *in)
{
    add_event(c, in);
    stats_add(c->stats, STATS_CACHE_INVALIDATIONS, 1);
    shared_wake_holders(c->shared);
    tell_keeper(c, in);
    tell_supervisor(c, in);
}

void invalidate_url(struct control *c, struct invalidation *in)
{
    struct inval_page *page = c->shared->inval;
    const bool all_hosts = in->text[0] == '/'; /* the keeper has to look at all to find it */
    in->what = all_hosts ? "path" : "url";
    in->kind = all_hosts ? SWEEP_ALL : SWEEP_URL;
    in->seq = all_hosts ? inval_mark_path(page, in->text, (size_t)in->len, in->soft)
                        : inval_mark_url(page, in->text, (size_t)in->len, in->soft);
    invalidation_tell(c, in);
}

void invalidate_tag(struct control *c, struct invalidation *in)
{
    in->what = "tag";
    in->kind = SWEEP_TAG;
    in->seq = inval_mark_tag(c->shared->inval, in->text, (size_t)in->len, in->soft);
    invalidation_tell(c, in);
}

void invalidate_all(struct control *c, struct invalidation *in)
{
    in->what = "all";
    in->kind = SWEEP_ALL;
    in->len = 0;
    in->seq = inval_mark_all(c->shared->inval, in->soft);
    invalidation_tell(c, in);
}

int invalidate_prefix(struct control *c, struct invalidation *in)
{
    in->what = "prefix";
    in->kind = SWEEP_PREFIX;
    if (in->len <= 0)
        return -EINVAL;
    const int code =
        inval_mark_prefix(c->shared->inval, in->text, (size_t)in->len, in->soft, &in->seq);
    if (code == 0)
        invalidation_tell(c, in);
    return code;
}

int invalidate_probes(struct control *c, struct invalidation *in, bool prefix)
{
    struct inval_page *page = c->shared->inval;
    int code = 0;
    in->kind = prefix ? SWEEP_PREFIX : SWEEP_URL;
    if (prefix)
        code = inval_mark_prefix(page, in->text, (size_t)in->len, false, &in->seq);
    else
        in->seq = inval_mark_url(page, in->text, (size_t)in->len, false);
    if (code == 0)
        tell_keeper(c, in);
    return code;
}

void invalidate_below(struct control *c, const char *path)
{
    struct invalidation in = {.soft = false};
    in.len = cache_prefix_normal(path, in.text, sizeof in.text);
    if (invalidate_prefix(c, &in))
        invalidate_all(c, &in);
}
