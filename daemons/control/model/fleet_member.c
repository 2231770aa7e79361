/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_member: see fleet_member.h. */
#include "daemons/control/model/fleet_member.h"
#include "daemons/control/control.h"
#include "daemons/control/model/events.h"
#include "daemons/control/model/fleet_remember.h"
#include "daemons/control/model/fleet_share.h"
#include "daemons/control/model/fleet_limits.h"
#include "daemons/control/model/fleet_slots.h"
#include "daemons/control/model/fleet_watch.h"
#include "daemons/control/model/invalidation.h"
#include "polder/cache.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/fleet_grants.h"
#include "polder/fleet_slots.h"
#include "polder/inval.h"
#include "polder/limit.h"
#include "polder/log.h"
#include "polder/shared.h"

#include <stdlib.h>
#include <string.h>

#define CUT_OFF_NOTIFIED_MS 1000  /* an election, or a restart of the store, may be shorter */
#define STRANGE_MS          60000 /* since the last one */
#define WATCH_MS            250
#define LOG_AGAIN_MS        10000
#define LEARNING_MS         (FLEET_LEASE_MS + 1000) /* till a share is renewed */

struct fleet_member {
    struct control *control;
    struct fleet *fleet;
    struct fleet_share *share;
    struct fleet_limits *limits;
    struct fleet_holder *holder;
    struct config_fleet config; /* a copy: configurations come and go */
    struct config_store stores[CONFIG_STORES_MAX];
    const char *store[CONFIG_STORES_MAX];
    char *texts[CONFIG_STORES_MAX * 6 + 3];
    size_t n_texts;
    uint64_t strange_ms; /* of the last one; 0: none */
    uint64_t alone_ms;   /* since when the store grants nothing of limits; 0: not looked yet */
    struct fleet_watch watch;
    uint64_t watched_ms;
    char why[320];
    const char *logged_why; /* why everything was invalidated last, as the log says, and when */
    uint64_t logged_ms;
};

/* ---- the copy of the configuration ---- */

static const char *keep(struct fleet_member *m, const char *text)
{
    char *copy = text ? strdup(text) : NULL;
    if (text && !copy)
        abort(); /* a few bytes: control begins anew */
    return m->texts[m->n_texts++] = copy;
}

static void copy_config(struct fleet_member *m, const struct config_fleet *from)
{
    m->config = *from;
    m->config.name = keep(m, from->name);
    m->config.host = keep(m, from->host);
    m->config.secret = keep(m, from->secret);
    m->config.store = m->store;
    m->config.stores = m->stores;
    for (uint32_t i = 0; i < from->n_store; i++) {
        const struct config_store *s = &from->stores[i];
        m->store[i] = keep(m, from->store[i]);
        m->stores[i] = *s;
        m->stores[i].text = keep(m, s->text);
        m->stores[i].host = keep(m, s->host);
        m->stores[i].path = keep(m, s->path);
        m->stores[i].user = keep(m, s->user);
        m->stores[i].password = keep(m, s->password);
    }
}

static bool is_same(const struct config_fleet *a, const struct config_fleet *b)
{
    bool same = a->n_store == b->n_store && !strcmp(a->name, b->name) &&
                !strcmp(a->host, b->host) && !strcmp(a->secret, b->secret);
    for (uint32_t i = 0; same && i < a->n_store; i++)
        same = !strcmp(a->store[i], b->store[i]);
    return same;
}

/* ---- what entries do ---- */

/* For one reason it may come with each entry. */
static void tell_everything(struct fleet_member *m, const char *why)
{
    struct invalidation in = {.soft = false};
    const uint64_t now_ms = clock_mono_ms();
    invalidate_all(m->control, &in);
    if (m->logged_why && !strcmp(m->logged_why, why) && now_ms < m->logged_ms + LOG_AGAIN_MS)
        return;
    m->logged_why = why;
    m->logged_ms = now_ms;
    log_warning("fleet: everything was invalidated: %s", why);
}

static void apply_all(void *arg, const char *why)
{
    tell_everything(arg, why);
}

static uint64_t apply_group(struct control *c, const struct fleet_entry *e)
{
    struct inval_page *page = c->shared->inval;
    const char *newline = memchr(e->text, '\n', e->len);
    if (!newline)
        return 0;
    const size_t len = (size_t)(newline - e->text), group = e->len - len - 1;
    const uint64_t seq =
        inval_mark_group(page, inval_origin(page, e->text, len), newline + 1, group);
    shared_wake_holders(c->shared);
    peers_tell_invalidated(&c->peers, "tag", newline + 1, group);
    stats_add(c->stats, STATS_CACHE_INVALIDATIONS, 1);
    return seq;
}

static uint64_t apply_text(struct control *c, const struct fleet_entry *e)
{
    switch (e->kind) {
    case FLEET_GROUP:
        return apply_group(c, e);
    case FLEET_TEXT:
        peers_tell_text(&c->peers, e->text, e->len);
        return 0;
    default:
        return 0;
    }
}

static uint64_t apply(void *arg, const struct fleet_entry *e)
{
    struct control *c = ((const struct fleet_member *)arg)->control;
    struct invalidation in = {.soft = e->soft, .len = (int)e->len};
    if (e->kind == FLEET_GROUP || e->kind == FLEET_TEXT)
        return apply_text(c, e);
    const bool fits = e->len < sizeof in.text && !memchr(e->text, 0, e->len);
    if (fits)
        memcpy(in.text, e->text, e->len);
    if (!fits || !e->len || e->kind == FLEET_ALL) {
        invalidate_all(c, &in);
    } else if (e->kind == FLEET_TAG) {
        invalidate_tag(c, &in);
    } else if (e->kind == FLEET_PREFIX) {
        if (invalidate_prefix(c, &in))
            invalidate_all(c, &in); /* too many are being swept */
    } else {
        invalidate_url(c, &in);
        if (e->kind == FLEET_CHANGE)
            cache_negative_mark(c->shared->inval, e->text, e->len);
    }
    return in.seq;
}

static void remember(void *arg, const struct fleet_entry *e)
{
    fleet_remember(((const struct fleet_member *)arg)->control, e);
}

/* ---- conditions ---- */

static void look(struct fleet_member *m)
{
    const uint64_t now_ms = clock_mono_ms();
    struct fleet_view v;
    m->watched_ms = now_ms;
    fleet_view(m->fleet, &v);
    fleet_watch_look(&m->watch, &v, m->control->shared->conditions, now_ms, clock_real_ms());
}

static void changed(void *arg, bool connected, const char *why)
{
    struct fleet_member *m = arg;
    snprintf(m->why, sizeof m->why, "%s", why);
    if (connected)
        log_info("fleet: %s: this host, %s, is a member", m->config.name, m->config.host);
    else
        log_warning("fleet: %s: cut off: %s", m->config.name, why);
    events_add(m->control, "fleet", connected ? "member" : "cut off", m->config.name, 1, "%s", why);
    look(m); /* it may change again soon */
}

static void strange(void *arg, const char *what)
{
    struct fleet_member *m = arg;
    m->strange_ms = clock_mono_ms();
    condition_raise(m->control->shared->conditions, COND_FLEET_STRANGERS, m->config.name, what,
                    clock_real_ms());
}

static bool limits_come(const struct control *c, uint64_t now_ms)
{
    return !fleet_member_has_limits(c->config) ||
           fleet_grants_come(c->shared->fleet_grants, now_ms);
}

static bool websockets_come(const struct control *c, uint64_t now_ms)
{
    return !config_has_fleet_websockets(c->config) ||
           fleet_slots_come(c->shared->fleet_slots, now_ms);
}

/* Each limit that does what its cut_off says. */
static void follow_limits(struct control *c, struct fleet_member *m)
{
    static const char *const modes[] = {"it admits this host's share",
                                        "each host admits the whole limit", "it refuses all"};
    struct condition_table *table = c->shared->conditions;
    const uint64_t now_ms = clock_mono_ms(), real_ms = clock_real_ms();
    if (!m->alone_ms || (limits_come(c, now_ms) && websockets_come(c, now_ms)))
        m->alone_ms = now_ms;
    if (m->alone_ms == now_ms)
        condition_clear_except(table, COND_FLEET_LIMIT_CUT_OFF, NULL, NULL, real_ms);
    if (now_ms < m->alone_ms + CUT_OFF_NOTIFIED_MS + FLEET_LEASE_MS)
        return; /* a new store is learned for so long */
    for (uint32_t i = 0; i < c->config->n_limits; i++) {
        const struct config_limit *l = &c->config->limits[i];
        if (l->scope == CONFIG_SCOPE_FLEET)
            condition_raise(table, COND_FLEET_LIMIT_CUT_OFF, l->name, modes[l->cut_off], real_ms);
    }
    if (!websockets_come(c, now_ms))
        condition_raise(table, COND_FLEET_LIMIT_CUT_OFF, "websocket",
                        "each section does what its cut_off says", real_ms);
}

static void follow_conditions(struct control *c, struct fleet_member *m)
{
    struct condition_table *table = c->shared->conditions;
    const uint64_t now_ms = clock_mono_ms(), real_ms = clock_real_ms(),
                   since_ms = atomic_load(&c->shared->fleet->since_ms);
    if (fleet_is_connected(c->shared->fleet, now_ms))
        condition_clear_except(table, COND_FLEET_CUT_OFF, NULL, NULL, real_ms);
    else if (now_ms > since_ms + CUT_OFF_NOTIFIED_MS)
        condition_raise(table, COND_FLEET_CUT_OFF, m->config.name, m->why, real_ms);
    if (!m->strange_ms || now_ms > m->strange_ms + STRANGE_MS)
        condition_clear_except(table, COND_FLEET_STRANGERS, NULL, NULL, real_ms);
}

/* ---- life ---- */

static void take_note(void *arg, unsigned worker, const struct ring_record *head,
                      const char *payload)
{
    const struct fleet_member *m = arg;
    if (m->share) /* else a worker waits in vain, for a moment */
        fleet_share_note(m->share, worker, head, payload);
}

static void stored(void *arg, const char *name)
{
    const struct fleet_member *m = arg;
    if (m->share)
        fleet_share_stored(m->share, name);
}

static void renewed(void *arg, uint64_t took_ms)
{
    const struct fleet_member *m = arg;
    if (m->share)
        fleet_share_renewed(m->share, took_ms);
}

static void moved(void *arg)
{
    const struct fleet_member *m = arg;
    if (m->share)
        fleet_share_moved(m->share);
}

static const struct fleet_ops ops = {apply,     remember, apply_all, changed, strange,
                                     take_note, stored,   renewed,   moved};

void fleet_member_free(struct control *c)
{
    struct fleet_member *m = c->fleet;
    c->fleet = NULL;
    if (!m)
        return;
    fleet_free(m->fleet);
    fleet_share_free(m->share);
    fleet_limits_free(m->limits); /* its replies have been called */
    fleet_holder_free(m->holder);
    for (size_t i = 0; i < m->n_texts; i++)
        free(m->texts[i]);
    free(m);
}

static struct limit_caller caller_of(const struct control *c)
{
    return (struct limit_caller){.table = c->shared->limits,
                                 .proc = c->shared->proc,
                                 .slot = c->process->slot,
                                 .incarnation = c->process->incarnation};
}

static void begin(struct control *c)
{
    const struct limit_caller caller = caller_of(c);
    struct fleet_member *m = calloc(1, sizeof *m);
    if (!m)
        return; /* at the next look */
    m->control = c;
    copy_config(m, &c->config->fleet);
    c->fleet = m;
    fleet_watch_begin(&m->watch, atomic_load(&c->shared->fleet->epoch));
    m->fleet = fleet_new(c->loop, &m->config, c->shared, &ops, m);
    if (m->fleet) {
        m->share = fleet_share_new(c, m->fleet);
        m->limits = fleet_limits_new(c->loop, m->fleet, &m->config, c->shared);
        m->holder = fleet_holder_new(c->loop, m->fleet, &m->config, c->shared, &caller);
    }
    if (!m->share || !m->limits || !m->holder)
        fleet_member_free(c);
}

bool fleet_member_has_limits(const struct config *config)
{
    for (uint32_t i = 0; i < config->n_limits; i++)
        if (config->limits[i].scope == CONFIG_SCOPE_FLEET)
            return true;
    return false;
}

bool fleet_member_has_slots(const struct control *c)
{
    static struct runtime_values values; /* large; used within this call alone */
    if (config_has_fleet_websockets(c->config))
        return true;
    if (!fleet_member_has_limits(c->config))
        return false;
    runtime_read(c->runtime, &values);
    for (uint32_t i = 0; i < c->config->n_limits; i++)
        if (c->config->limits[i].scope == CONFIG_SCOPE_FLEET && values.limit[i].concurrent)
            return true;
    return false;
}

void fleet_member_follow(struct control *c)
{
    const struct config_fleet *wanted = &c->config->fleet;
    if (c->fleet && !is_same(&c->fleet->config, wanted))
        fleet_member_free(c);
    if (!c->fleet && wanted->n_store) {
        begin(c);
    } else if (!c->fleet) {
        fleet_watch_end(c->shared->conditions, clock_real_ms());
        condition_clear_except(c->shared->conditions, COND_FLEET_CUT_OFF, NULL, NULL,
                               clock_real_ms());
        condition_clear_except(c->shared->conditions, COND_FLEET_STRANGERS, NULL, NULL,
                               clock_real_ms());
        condition_clear_except(c->shared->conditions, COND_FLEET_LIMIT_CUT_OFF, NULL, NULL,
                               clock_real_ms());
    }
    if (!c->fleet)
        return;
    fleet_share_follow(c->fleet->share);
    fleet_take_notes(c->fleet->fleet);
    fleet_limits_use(c->fleet->limits, fleet_member_has_limits(c->config));
    fleet_limits_take(c->fleet->limits);
    fleet_holder_use(c->fleet->holder, fleet_member_has_slots(c),
                     config_has_fleet_websockets(c->config), wanted->slots_keep_ms);
    fleet_holder_take(c->fleet->holder);
    follow_conditions(c, c->fleet);
    follow_limits(c, c->fleet);
    if (clock_mono_ms() >= c->fleet->watched_ms + WATCH_MS)
        look(c->fleet);
}

bool fleet_member_tell(struct control *c, enum fleet_kind kind, bool soft, const char *text,
                       size_t len, uint64_t before, fleet_done_fn done, void *arg)
{
    if (!c->fleet)
        return false;
    fleet_tell(c->fleet->fleet, kind, soft, text, len, before, done, arg);
    return true;
}

bool fleet_member_forget(struct control *c, const char *host, fleet_forgot_fn done, void *arg)
{
    if (!c->fleet)
        return false;
    fleet_forget(c->fleet->fleet, host, done, arg);
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct fleet_host *)a)->name, ((const struct fleet_host *)b)->name);
}

bool fleet_member_view(const struct control *c, struct fleet_view *out)
{
    const struct fleet_member *m = c->fleet;
    const uint64_t now_ms = clock_mono_ms();
    if (!m)
        return false;
    fleet_view(m->fleet, out);
    qsort(out->at, out->n, sizeof *out->at, by_name);
    out->late_ms = fleet_watch_late_ms(&m->watch, out->applied, now_ms);
    for (uint32_t i = 0; i < out->n; i++)
        out->at[i].late_ms = out->at[i].self
                                 ? out->late_ms
                                 : fleet_watch_late_ms(&m->watch, out->at[i].applied, now_ms);
    return true;
}

void fleet_member_share_view(const struct control *c, struct fleet_share_view *out)
{
    *out = (struct fleet_share_view){0};
    if (c->fleet)
        fleet_share_view(c->fleet->share, out);
}

const char *fleet_member_limits_state(const struct control *c)
{
    const struct fleet *f = c->fleet ? c->fleet->fleet : NULL;
    if (fleet_grants_come(c->shared->fleet_grants, clock_mono_ms()))
        return "granted";
    const uint64_t epoch = f && fleet_is_member(f) ? fleet_epoch(f) : 0;
    return epoch && fleet_store_now_ms(f) < fleet_epoch_ms(epoch) + LEARNING_MS ? "learning"
                                                                                : "cut off";
}
