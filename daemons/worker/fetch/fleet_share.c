/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_share: see fleet_share.h. */
#include "daemons/worker/fetch/fleet_share.h"
#include "daemons/net/timer_wheel.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/fleet_offer.h"
#include "daemons/worker/fetch/miss.h"
#include "daemons/worker/fleet_link.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/message/route_state.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/reader.h"
#include "polder/fleet.h"
#include "polder/inval.h"

#define LOOK_MS    500 /* the permit is renewed */
#define SILENT_MAX 4   /* looks at which control has not said again that another host fetches */

static void leave(struct fetch *ex)
{
    TAILQ_REMOVE(&ex->worker->fetches->askers, ex, entry);
    ex->queue = NULL;
    timer_stop(&ex->worker->wheel, &ex->timer);
}

static void go_on(struct fetch *ex, void (*resume)(struct fetch *ex))
{
    leave(ex);
    ex->resume = resume;
    fetch_move(ex, FETCH_NEW);
    fetch_resume(ex);
}

/* The object has come, or may have. */
static void look_again(struct fetch *ex)
{
    ex->fleet_claims = false;
    permit_release(ex->worker, &ex->permit, FETCH_LOCK_FAILED); /* it has been */
    if (!ex->req.client) {
        miss_lead_again(ex);
        return;
    }
    ex->rounds++;
    ex->worker->fetches->look_again(ex);
}

static uint64_t wait_max_ms(const struct fetch *ex)
{
    return ex->upstream->timeout_ms;
}

/* Does control still say so? It may have died, or lost the store, since. */
static bool waits_on(struct fetch *ex)
{
    struct worker *w = ex->worker;
    uint64_t answer = fleet_share_word(&ex->permit.lock, FLEET_SHARE_WAIT);
    if (atomic_compare_exchange_strong(&w->shared->fleet->shared_answer[ex->permit.lock.slot],
                                       &answer, 0))
        ex->fleet_silent = 0;
    return ++ex->fleet_silent <= SILENT_MAX && !fleet_link_is_cut_off(w) &&
           w->mono_ms < ex->fleet_since_ms + wait_max_ms(ex);
}

/* It is not there: to the backend. */
static void ask_backend(struct fetch *ex)
{
    go_on(ex, fleet_offer_may(ex) ? fetch_start : miss_looked_in_vain);
}

/* Of the wheel, whose ticks are long: for those that wait for another host. */
static void timeout(struct fetch *ex)
{
    struct worker *w = ex->worker;
    if (!waits_on(ex)) {
        ask_backend(ex);
        return;
    }
    permit_renew(w, &ex->permit);
    timer_set(&w->wheel, &ex->timer, w->mono_ms + LOOK_MS);
}

/* What control says of it; false: nothing yet. */
static bool follow_answer(struct fetch *ex)
{
    struct worker *w = ex->worker;
    const struct fetch_permit lock = ex->permit.lock;
    const uint64_t answer = atomic_load(&w->shared->fleet->shared_answer[lock.slot]);
    if (!permit_wait_pending(w, &lock) || !permit_wait_again(w, &lock)) {
        go_on(ex, look_again);
        return true;
    }
    if (answer == fleet_share_word(&lock, FLEET_SHARE_FETCH)) {
        ask_backend(ex);
        return true;
    }
    if ((answer == fleet_share_word(&lock, FLEET_SHARE_WAIT) ||
         answer == fleet_share_word(&lock, FLEET_SHARE_COMES)) &&
        !ex->fleet_waits) {
        ex->fleet_waits = true;
        timer_set(&w->wheel, &ex->timer, w->mono_ms + LOOK_MS);
    }
    return false;
}

static void wait_in_vain(struct fetch *ex)
{
    struct fleet_page *page = ex->worker->shared->fleet;
    atomic_fetch_add(&page->shared_late, 1);
    atomic_store(&page->shared_is_quick, 0);
    ask_backend(ex);
}

/* For the first that has no answer yet; 0 where all have. */
static void set_alarm(struct worker *w, uint64_t until_ms)
{
    ev_timer *timer = &w->fetches->askers_timer;
    ev_timer_stop(w->loop, timer);
    if (!until_ms)
        return;
    ev_timer_set(timer, until_ms > w->mono_ms ? (double)(until_ms - w->mono_ms) / 1000 : 0., 0.);
    ev_timer_start(w->loop, timer);
}

static void on_alarm(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct worker *w = timer->data;
    struct fetch *next;
    uint64_t first_ms = 0;
    (void)loop, (void)revents;
    for (struct fetch *ex = TAILQ_FIRST(&w->fetches->askers); ex; ex = next) {
        next = TAILQ_NEXT(ex, entry);
        if (follow_answer(ex) || ex->fleet_waits)
            continue;
        if (w->mono_ms >= ex->fleet_until_ms)
            wait_in_vain(ex);
        else if (!first_ms || ex->fleet_until_ms < first_ms)
            first_ms = ex->fleet_until_ms;
    }
    set_alarm(w, first_ms);
}

void fleet_share_init(struct worker *w)
{
    ev_timer_init(&w->fetches->askers_timer, on_alarm, 0., 0.);
    w->fetches->askers_timer.data = w;
}

void fleet_share_wake(struct worker *w)
{
    struct fetch *next;
    for (struct fetch *ex = TAILQ_FIRST(&w->fetches->askers); ex; ex = next) {
        next = TAILQ_NEXT(ex, entry);
        follow_answer(ex);
    }
}

/* The text that selects its variant, where its URL is known to vary. *own: by what identifies the client,
 * so that no other host has it. */
static size_t vary_text(const struct fetch *ex, char text[STORED_VARY_MAX], bool *own)
{
    struct worker *w = ex->worker;
    struct cache_view v;
    size_t len = 0;
    *own = false;
    if (!reader_ready(w))
        return 0;
    if (stored_varies(w, &ex->req, &v)) {
        len = stored_vary_text(&ex->req, v.vary, v.record->vary_len, text, STORED_VARY_MAX);
        *own = identity_varies_by_any(&ex->req, v.vary, v.record->vary_len);
    }
    cache_reader_release(w->reader);
    return len;
}

/* Until when what is here needs no other; 0: it is stale, or invalidated. */
static uint64_t fresh_until_ms(const struct fetch *ex)
{
    const struct cache_record *rec = ex->stale ? ex->stale->view.record : NULL;
    const struct inval_page *page = ex->worker->shared->inval;
    return rec && rec->fresh_until_ms > ex->worker->real_ms &&
                   cache_record_state(page, rec, rec->fetch_seq) == INVAL_VALID
               ? rec->fresh_until_ms
               : 0;
}

/* Each asks once in it: it would be told the same. */
static uint8_t stage_of(const struct fetch *ex, bool varies)
{
    return (uint8_t)(1u << ((ex->stale ? 1 : 0) + (varies ? 2 : 0)));
}

void fleet_share_looked(struct fetch *ex)
{
    char text[STORED_VARY_MAX];
    bool own;
    ex->fleet_stages |= stage_of(ex, vary_text(ex, text, &own) > 0);
}

static bool ask(struct fetch *ex)
{
    struct worker *w = ex->worker;
    char text[STORED_VARY_MAX];
    bool own;
    const size_t len = vary_text(ex, text, &own);
    const uint8_t stage = stage_of(ex, len > 0);
    struct fleet_ask note = {.key = ex->req.key,
                             .newer_ms = fresh_until_ms(ex),
                             .rules = w->routes[ex->req.route->index].identity.number,
                             .worker = w->number,
                             .wait_ms = (uint32_t)wait_max_ms(ex),
                             .interval_ms = (uint32_t)request_interval_ms(&ex->req),
                             .has_stale = ex->stale != NULL,
                             .looks = !fleet_offer_may(ex),
                             .url_len = ex->req.url_len,
                             .partition_len = ex->req.partition_len};
    struct iovec iov[] = {{&note, sizeof note},
                          {(void *)(uintptr_t)ex->req.url, ex->req.url_len},
                          {(void *)(uintptr_t)ex->req.partition, ex->req.partition_len},
                          {text, len}};
    if (own || ex->fleet_stages & stage)
        return false;
    ex->fleet_stages |= stage;
    ex->fleet_permit = ex->permit.lock;
    atomic_store(&w->shared->fleet->shared_answer[ex->permit.lock.slot], 0);
    permit_wait_again(w, &ex->permit.lock);
    return fleet_offer_tell(ex, FLEET_SHARE_ASK, 0, iov, 4);
}

static bool may_ask(const struct fetch *ex)
{
    const struct worker *w = ex->worker;
    return fleet_offer_may_take(ex) && atomic_load(&w->shared->fleet->shared_is_quick) &&
           !fleet_link_is_cut_off(w);
}

bool fleet_share_may_look(const struct fetch *ex)
{
    char text[STORED_VARY_MAX];
    bool own;
    return !fleet_offer_may(ex) && may_ask(ex) &&
           !(ex->fleet_stages & stage_of(ex, vary_text(ex, text, &own) > 0)) && !own;
}

bool fleet_share_ask(struct fetch *ex)
{
    static const struct fetch_queue queue = {leave, timeout};
    struct worker *w = ex->worker;
    ev_timer *alarm = &w->fetches->askers_timer;
    if (!may_ask(ex) || !ask(ex))
        return false;
    ex->fleet_claims = fleet_offer_may(ex);
    ex->fleet_waits = false;
    ex->fleet_silent = 0;
    ex->fleet_since_ms = w->mono_ms;
    const uint64_t timeout_ms = ex->req.route->cache->shared_timeout_ms;
    ex->queue = &queue;
    fetch_move(ex, FETCH_COLLAPSED);
    TAILQ_INSERT_TAIL(&w->fetches->askers, ex, entry);
    ex->fleet_until_ms = w->mono_ms + timeout_ms;
    if (!ev_is_active(alarm) || (double)timeout_ms / 1000 < ev_timer_remaining(w->loop, alarm))
        set_alarm(w, ex->fleet_until_ms);
    return true;
}
