/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * repeat: pollers send the same bytes again and again. A connection remembers its last head and the
 * results (route, keys of limits and cache); equal bytes skip parsing, routing and hashing. Nothing
 * about the answer is remembered: limits, invalidation and freshness are checked as always. Their
 * number and size are bounded; the oldest is dropped first, and idle connections lose theirs.
 */
#include "daemons/worker/request/repeat.h"
#include "daemons/http/h1.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/message/key_text.h"
#include "daemons/worker/request/limits.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/limit.h"
#include "polder/limit_top.h"
#include "polder/stats.h"

#include <stdlib.h>
#include <string.h>

#define REPEAT_SIZE 2048 /* whole allocation */
#define REPEAT_MAX  1024 /* of a worker */

#define IDLE_MS     5000
#define SWEEP_COUNT 64

void repeat_forget(struct client *c)
{
    struct worker *w = c->worker;
    if (!c->repeat)
        return;
    TAILQ_REMOVE(&w->repeats->all, c->repeat, entry);
    TAILQ_INSERT_TAIL(&w->repeats->dead, c->repeat, entry);
    c->repeat = NULL;
    w->repeats->n--;
}

void repeat_sweep(struct worker *w)
{
    struct repeat *m;
    for (int i = 0; i < SWEEP_COUNT && (m = TAILQ_FIRST(&w->repeats->all)); i++) {
        if (m->used_ms + IDLE_MS < w->mono_ms) {
            repeat_forget(m->client);
        } else {
            TAILQ_REMOVE(&w->repeats->all, m, entry);
            TAILQ_INSERT_TAIL(&w->repeats->all, m, entry);
        }
    }
}

void repeat_free_the_dead(struct worker *w)
{
    struct repeat *m;
    while ((m = TAILQ_FIRST(&w->repeats->dead))) {
        TAILQ_REMOVE(&w->repeats->dead, m, entry);
        free(m);
    }
}

static struct repeat *repeat_make(struct client *c)
{
    struct worker *w = c->worker;
    if (c->repeat)
        return c->repeat;
    if (w->repeats->n >= REPEAT_MAX)
        repeat_forget(TAILQ_FIRST(&w->repeats->all)->client);
    struct repeat *m = malloc(REPEAT_SIZE);
    if (!m)
        return NULL;
    w->repeats->n++;
    m->client = c;
    c->repeat = m;
    TAILQ_INSERT_TAIL(&w->repeats->all, m, entry);
    return m;
}

/* Only what depends on the head's bytes alone: a plain GET or HEAD without directives. */
static bool memorable(const struct worker *w, const struct request *r)
{
    const struct h1_head *head = r->head;
    return w->config->access_log == CONFIG_LOG_OFF && !w->draining && !w->drained &&
           sizeof(struct repeat) + head->head_len + r->url_len <= REPEAT_SIZE &&
           head->framing == H1_NO_BODY && !r->policy.has_authorization && !r->policy.cc.flags &&
           !r->policy.has_range && !r->if_modified_since.at && !r->collapsed && !r->wait_s &&
           !r->waited_s && !head->first[H1_POLDER_VERIFY] && head->method.at != NULL &&
           !request_id_is_given(r) &&
           r->if_none_match.at != w->texts->joined_tags; /* whose bytes are not the head's */
}

void repeat_remember(struct client *c, const struct request *r, const struct hit_found *found,
                     const uint64_t *limit_keys)
{
    struct worker *w = c->worker;
    const struct h1_head *head = r->head;
    if (c->state == CLIENT_CLOSED || !memorable(w, r)) {
        repeat_forget(c);
        return;
    }
    struct repeat *m = repeat_make(c);
    if (!m)
        return;
    m->generation = w->generation;
    m->used_ms = w->mono_ms;
    m->len = head->head_len;
    m->url_len = r->url_len;
    m->key = r->key;
    m->variant = found->key;
    m->vary_record = found->vary_record;
    m->route = r->route;
    memcpy(m->limit_key, limit_keys, sizeof m->limit_key);
    m->peer = r->peer;
    m->ip = r->ip;
    m->trusted_peer = r->trusted_peer;
    m->is_head = r->is_head;
    m->http10 = r->http10;
    m->coding = r->coding;
    m->identity = r->policy.identity;
    m->keep_alive = head->keep_alive;
    m->tenant = c->tenant;
    m->has_origin = r->policy.has_origin;
    m->inm_len = (uint32_t)r->if_none_match.len;
    m->inm_at = m->inm_len ? (uint32_t)(r->if_none_match.at - head->method.at) : 0;
    memcpy(m->bytes, head->method.at, m->len);
    memcpy(m->bytes + m->len, r->url, m->url_len);
}

bool repeat_answer(struct client *c, const char *bytes, size_t len, struct limit_bill *bill)
{
    struct worker *w = c->worker;
    struct repeat *m = c->repeat;
    struct hit_found found = {0};
    if (len < m->len || m->generation != w->generation || memcmp(bytes, m->bytes, m->len))
        return false;
    struct request r = {.worker = w,
                        .client = c,
                        .route = m->route,
                        .url = m->bytes + m->len,
                        .url_len = m->url_len,
                        .key = m->key,
                        .variant = m->variant,
                        .vary_record = m->vary_record,
                        .peer = m->peer,
                        .ip = m->ip,
                        .trusted_peer = m->trusted_peer,
                        .is_head = m->is_head,
                        .http10 = m->http10,
                        .coding = m->coding,
                        .cacheable = true,
                        .number = request_id_next(&w->messages->ids),
                        .limit_lines = ""};
    r.policy.is_get = !m->is_head;
    r.policy.is_head = m->is_head;
    r.policy.identity = m->identity;
    r.policy.has_origin = m->has_origin;
    if (m->inm_len)
        r.if_none_match = (struct str){m->bytes + m->inm_at, m->inm_len};
    if (m->route->n_limits) {
        bill->top_due = limit_top_due(&w->limits->top);
        if ((bill->top_due || w->limits->n_shadows) && key_text_needs_head(m->route))
            return false; /* what counts it stands there: the long way */
        limits_charge(w, &r, m->limit_key, true, bill);
        if (bill->answer.refused || bill->waits) {
            bill->waits = false; /* not yet: the long way first */
            return false;
        }
        r.limit_lines = bill->answer.lines;
        r.limit_len = bill->answer.len;
    }
    m->used_ms = w->mono_ms;
    c->keep_alive = m->keep_alive;
    c->tenant = m->tenant;
    c->seen_request = true;
    client_move(c, CLIENT_BUSY);
    if (hit_try(&r, &found)) {
        stats_add(w->stats, STATS_REQUESTS, 1);
        return true;
    }
    client_move(c, CLIENT_IDLE);
    return false;
}
