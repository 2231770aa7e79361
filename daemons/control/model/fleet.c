/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet: see fleet.h. */
#include "daemons/control/model/fleet.h"
#include "daemons/control/model/fleet_base.h"
#include "daemons/control/model/fleet_lease.h"
#include "daemons/control/model/fleet_log.h"
#include "daemons/control/model/fleet_marks.h"
#include "daemons/control/model/fleet_notes.h"
#include "daemons/control/model/fleet_pending.h"
#include "daemons/control/model/fleet_scripts.h"
#include "daemons/control/model/fleet_scripts_slots.h"
#include "daemons/control/model/fleet_servers.h"
#include "daemons/control/model/fleet_store.h"
#include "daemons/control/model/fleet_waiters.h"
#include "polder/clock.h"
#include "polder/inval.h"
#include "polder/shared.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RENEW_MS 500 /* a lease is renewed that often */
#define LOOK_MS  5   /* while somebody waits for others */
#define SHOW_MS  2   /* before that others are not shown what is applied */
#define KNOWN_MS                                                                                   \
    10000 /* that a store has refused this host: others of its list are tried in between */

static const char *const scripts[FLEET_SCRIPTS] = {
    [FLEET_SCRIPT_ENTER] = fleet_script_enter,
    [FLEET_SCRIPT_RENEW] = fleet_script_renew,
    [FLEET_SCRIPT_APPEND] = fleet_script_append,
    [FLEET_SCRIPT_FORGET] = fleet_script_forget,
    [FLEET_SCRIPT_SHARE_GET] = fleet_script_share_get,
    [FLEET_SCRIPT_SHARE_PUT] = fleet_script_share_put,
    [FLEET_SCRIPT_LIMIT_SHARE] = fleet_script_limit_share,
    [FLEET_SCRIPT_LIMIT_REPORT] = fleet_script_limit_report,
    [FLEET_SCRIPT_LIMIT_TAKE] = fleet_script_limit_take,
    [FLEET_SCRIPT_SLOTS_RENEW] = fleet_script_slots_renew,
    [FLEET_SCRIPT_SLOTS_TAKE] = fleet_script_slots_take,
};

enum state { CUT_OFF, COMPARING, ENTERING, MEMBER };

struct fleet {
    struct ev_loop *loop;
    struct fleet_base base;
    enum state state;
    struct fleet_log log;
    struct fleet_lease lease;
    struct fleet_pending pending;
    struct fleet_waiters waiters;
    struct fleet_servers servers;
    ev_timer timer;
    uint64_t round;      /* COMPARING: of the servers, that is waited for */
    uint64_t entered_ms; /* ENTERING: since then */
    bool unconfirmed;    /* ENTERING: no replica has said yet that it is the master of now */
    bool show;           /* others may wait for what is applied by now */
    bool name_taken;     /* by another host, when this one tried to enter last */
    bool other_format;   /* of the members, then */
    uint64_t refused_ms; /* when that was */
    char refusal[160];   /* and why */
    char run_id[48];     /* of the server */
};

static void timer_in(struct fleet *f, uint64_t ms)
{
    ev_timer_stop(f->loop, &f->timer);
    ev_timer_set(&f->timer, (double)ms / 1000, 0.);
    ev_timer_start(f->loop, &f->timer);
}

static bool is_connected(const struct fleet *f)
{
    return fleet_is_connected(f->base.page, clock_mono_ms());
}

/* ---- the states ---- */

/* The store is not as it should be: begins anew with it. */
static void leave(struct fleet *f, const char *why)
{
    fleet_store_fail(f->base.store, why);
}

/* Where the lease has lapsed another server may have become the master: it is entered anew. */
static void look(struct fleet *f)
{
    if (f->state != MEMBER)
        return;
    if (fleet_lease_has_lapsed(&f->lease))
        leave(f, "the lease had run out before it was renewed");
    else if (fleet_lease_renew(&f->lease))
        f->show = false;
}

static void enter_when_caught_up(struct fleet *f)
{
    if (f->unconfirmed || fleet_base_applied(&f->base) < f->lease.goal)
        return;
    if (!fleet_pending_is_empty(&f->pending)) {
        fleet_pending_send(&f->pending);
        return;
    }
    f->state = MEMBER;
    look(f);
}

/* From where the log is read by a host that knows nothing of it: up to its end all has been marked
 * then, and what other hosts have shared since can be judged. */
static uint64_t beginning_of(uint64_t count, uint64_t first)
{
    if (!first || first > count)
        return count;
    return count - first < FLEET_MARKS ? first - 1 : count - FLEET_MARKS;
}

/* What is remembered of the log is worth nothing if it is not of this history, or does not reach it. */
static void compare_log(struct fleet *f, uint64_t epoch, uint64_t count, uint64_t first)
{
    const uint64_t applied = fleet_base_applied(&f->base), ours = fleet_base_epoch(&f->base);
    const char *why = NULL;
    if (ours != epoch)
        why = ours ? "the store is another server, was restarted or has lost its data"
                   : "this host is new in the fleet";
    else if (count < applied)
        why = "the log of the store went backwards";
    else if (count > applied && (!first || first > applied + 1))
        why = "this host was away for longer than the log reaches back";
    if (why)
        fleet_log_forget(&f->log, epoch, beginning_of(count, first), count, why);
}

/* ["format", HOST, FORMAT, PROGRAM] */
static void say_format(const redisReply *r, char *out, size_t size)
{
    uint64_t format = 0;
    const char *host = fleet_reply_text(r, 1), *program = fleet_reply_text(r, 3);
    fleet_reply_number(r, 2, &format);
    snprintf(out, size, "%.40s runs polderd %.20s: upgrade %s (format %" PRIu64 ", here %d)",
             host ? host : "a host", program && *program ? program : "of before 0.1.0",
             format < FLEET_FORMAT ? "all such hosts" : "this one", format, FLEET_FORMAT);
}

static bool is_refused(void *arg, const redisReply *r)
{
    struct fleet *f = arg;
    char why[sizeof f->refusal];
    const char *word = fleet_reply_text(r, 0), *by = fleet_reply_text(r, 1);
    f->name_taken = word && !strcmp(word, "taken");
    f->other_format = word && !strcmp(word, "format");
    if (f->name_taken)
        snprintf(why, sizeof why,
                 "another host of the fleet is called %s: give this one another name (fleet.host)",
                 f->base.config->host);
    else if (word && !strcmp(word, "fenced"))
        snprintf(why, sizeof why, "hosts of this fleet follow another master, %s", by ? by : "");
    else if (f->other_format)
        say_format(r, why, sizeof why);
    else if (word && !strcmp(word, "crowded"))
        snprintf(why, sizeof why, "its list of hosts has %.20s entries: other programs write it",
                 by ? by : "too many");
    else
        return false;
    f->refused_ms = clock_mono_ms();
    strcpy(f->refusal, why);
    leave(f, why);
    return true;
}

/* [EPOCH, COUNT, FIRST ID, NOW] */
static void on_entered(void *arg, const redisReply *r)
{
    struct fleet *f = arg;
    uint64_t epoch, count, now;
    if (!fleet_reply_is_list(f->base.store, r) || f->state != ENTERING)
        return;
    if (is_refused(f, r))
        return;
    const char *first = fleet_reply_text(r, 2);
    if (!fleet_reply_number(r, 0, &epoch) || !epoch || !fleet_reply_number(r, 1, &count) ||
        !first || !fleet_reply_number(r, 3, &now)) {
        leave(f, "its keys of this fleet hold something else");
        return;
    }
    if (epoch != fleet_base_epoch(&f->base)) {
        const uint64_t age_ms = now - fleet_epoch_ms(epoch);
        fleet_pending_compare(&f->pending, f->entered_ms > age_ms ? f->entered_ms - age_ms : 0);
    }
    compare_log(f, epoch, count, strtoull(first, NULL, 10));
    fleet_lease_begin(&f->lease, count);
    fleet_log_follow(&f->log);
    enter_when_caught_up(f);
}

/* A master that has stood still may not know yet that it is one no more: what its replicas follow
 * now is known from what they have of this entering. Their number. */
static void on_confirmed(void *arg, const redisReply *r)
{
    struct fleet *f = arg;
    if (!r || f->state != ENTERING)
        return;
    if (r->type != REDIS_REPLY_INTEGER) {
        leave(f, r->type == REDIS_REPLY_ERROR ? r->str : "it answers WAIT as no Redis does");
        return;
    }
    if (!r->integer) {
        leave(f, "no replica confirms that it is still the master");
        return;
    }
    f->unconfirmed = false;
    enter_when_caught_up(f);
}

static void enter(struct fleet *f)
{
    const struct fleet_base *b = &f->base;
    char digits[8], format[16], tail[FLEET_TAIL_SIZE], lease[16];
    f->state = ENTERING;
    f->entered_ms = clock_mono_ms();
    fleet_log_begin(&f->log);
    fleet_epoch_digits(digits);
    snprintf(format, sizeof format, "%d", FLEET_FORMAT);
    snprintf(lease, sizeof lease, "%d", FLEET_LEASE_MS);
    fleet_lease_tail(&f->lease, 0, 0, tail);
    const char *argv[] = {b->log,   b->count,        b->epoch,    b->hosts, b->run,
                          b->fence, b->config->host, b->instance, digits,   f->run_id,
                          format,   lease,           tail};
    fleet_store_run(b->store, FLEET_SCRIPT_ENTER, 6, sizeof argv / sizeof *argv, argv, NULL,
                    on_entered, f);
    f->unconfirmed = fleet_servers_needs_replica(&f->servers, fleet_store_at(b->store));
    if (f->unconfirmed)
        fleet_store_confirm(b->store, on_confirmed, f);
}

/* What the other servers say is asked anew: one of them may have become the master. */
static void on_up(void *arg, const char *run_id)
{
    struct fleet *f = arg;
    snprintf(f->run_id, sizeof f->run_id, "%s", run_id);
    if (!f->servers.n) {
        enter(f);
        return;
    }
    f->state = COMPARING;
    f->round = fleet_servers_look(&f->servers);
}

static void on_looked(void *arg, uint64_t round)
{
    struct fleet *f = arg;
    const uint32_t at = fleet_store_at(f->base.store);
    const int better = fleet_servers_better(&f->servers, at);
    char why[160];
    if (f->state == CUT_OFF)
        return;
    if (better >= 0) {
        snprintf(why, sizeof why, "another server of the list is the master now: %s",
                 f->base.config->stores[better].text);
        fleet_store_move(f->base.store, (uint32_t)better, why);
    } else if (f->state == COMPARING && round >= f->round) {
        enter(f);
    } else if (f->state == MEMBER && is_connected(f)) {
        fleet_servers_fence(&f->servers, at);
    }
    fleet_lease_hold(&f->lease, fleet_servers_hold_ms(&f->servers),
                     !fleet_servers_are_replicas(&f->servers, at));
}

static void on_down(void *arg, const char *why)
{
    struct fleet *f = arg;
    f->state = CUT_OFF;
    fleet_pending_lose(&f->pending);
    fleet_log_stop(&f->log);
    fleet_lease_end(&f->lease, why);
    fleet_waiters_end(&f->waiters);
}

/* ---- what the parts say ---- */

static void show_applied(struct fleet *f)
{
    if (f->show)
        return;
    f->show = true;
    timer_in(f, SHOW_MS);
}

static void on_read(void *arg, bool moved, bool waited)
{
    struct fleet *f = arg;
    fleet_lease_note_last(&f->lease, fleet_base_applied(&f->base));
    if (f->state == ENTERING)
        enter_when_caught_up(f);
    else if (moved && !is_connected(f))
        fleet_lease_look(&f->lease);
    if (waited && f->state == MEMBER)
        show_applied(f);
    if (moved)
        f->base.ops->moved(f->base.arg);
}

/* Entries were taken out of the log before this host has read them. */
static void on_missing(void *arg, uint64_t count)
{
    struct fleet *f = arg;
    fleet_log_forget(&f->log, fleet_base_epoch(&f->base), count,
                     atomic_load(&f->base.page->remembered), "entries of the log are missing");
    show_applied(f);
}

static void on_strange(void *arg, const char *what)
{
    const struct fleet *f = arg;
    f->base.ops->strange(f->base.arg, what);
}

static void on_forgot(void *arg)
{
    struct fleet *f = arg;
    fleet_pending_forget_sent(&f->pending);
}

static void on_logged(void *arg, uint64_t last)
{
    struct fleet *f = arg;
    fleet_lease_note_last(&f->lease, last);
    if (f->state == ENTERING && fleet_pending_is_empty(&f->pending))
        enter_when_caught_up(f);
    if (!TAILQ_EMPTY(&f->waiters))
        timer_in(f, LOOK_MS);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct fleet *f = w->data;
    (void)loop;
    (void)revents;
    fleet_take_notes(f);
    const bool waited_for = !TAILQ_EMPTY(&f->waiters);
    fleet_lease_check(&f->lease);
    if (waited_for || f->show || clock_mono_ms() >= f->lease.renewed_ms + RENEW_MS)
        look(f);
    timer_in(f, waited_for || f->show ? LOOK_MS : RENEW_MS / 5);
}

/* ---- telling the others ---- */

void fleet_tell(struct fleet *f, enum fleet_kind kind, bool soft, const char *text, size_t len,
                uint64_t before, fleet_done_fn done, void *arg)
{
    const struct fleet_entry e = {
        .kind = kind, .soft = soft, .before = before, .text = text, .len = len};
    struct fleet_waiter *w =
        done && f->state == MEMBER ? fleet_waiter_add(&f->waiters, done, arg) : NULL;
    fleet_pending_add(&f->pending, &e, w);
    if (f->state >= ENTERING)
        fleet_pending_send(&f->pending);
    if (w)
        timer_in(f, LOOK_MS);
    else if (done)
        done(arg, &(struct fleet_result){.missing_names = ""});
}

static void tell_note(void *arg, enum fleet_kind kind, const char *text, size_t len,
                      uint64_t before)
{
    fleet_tell(arg, kind, false, text, len, before, NULL, NULL);
}

void fleet_take_notes(struct fleet *f)
{
    fleet_notes_take(&f->base, tell_note, f);
}

/* ---- life ---- */

static const struct fleet_store_ops store_ops = {on_up, on_down};
static const struct fleet_log_ops log_ops = {on_read, on_forgot};
static const struct fleet_servers_ops servers_ops = {on_looked};
static const struct fleet_lease_ops lease_ops = {is_refused, on_missing, on_strange};

struct fleet *fleet_new(struct ev_loop *loop, const struct config_fleet *config,
                        struct shared *shared, const struct fleet_ops *ops, void *arg)
{
    struct fleet *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->loop = loop;
    fleet_base_set(&f->base, loop, config, shared, ops, arg);
    TAILQ_INIT(&f->waiters);
    fleet_log_init(&f->log, &f->base, &log_ops, f);
    fleet_lease_init(&f->lease, &f->base, &f->waiters, &lease_ops, f);
    fleet_pending_init(&f->pending, &f->base, on_logged, f);
    f->base.store = fleet_store_new(loop, config, scripts, &store_ops, f);
    if (!f->base.store) {
        free(f);
        return NULL;
    }
    fleet_servers_init(&f->servers, loop, &f->base, &servers_ops, f);
    fleet_notes_begin(shared);
    ev_timer_init(&f->timer, on_timer, 0., 0.);
    f->timer.data = f;
    ev_timer_start(loop, &f->timer);
    return f;
}

void fleet_free(struct fleet *f)
{
    if (!f)
        return;
    ev_timer_stop(f->loop, &f->timer);
    atomic_store(&f->base.page->until_ms, 0);
    f->state = CUT_OFF;
    fleet_take_notes(f); /* they end with the processes; then `unsent` says that there were some */
    fleet_pending_lose(&f->pending);
    fleet_waiters_end(&f->waiters);
    fleet_store_free(f->base.store);
    fleet_servers_free(&f->servers);
    fleet_log_stop(&f->log);
    fleet_pending_free(&f->pending);
    free(f);
}

/* ---- for the shared cache ---- */

void fleet_identity(const struct fleet *f, struct fleet_identity *out)
{
    *out = (struct fleet_identity){f->base.config->name, f->base.instance, &f->base.key};
}

struct fleet_store *fleet_link(const struct fleet *f)
{
    return f->base.store;
}

bool fleet_is_member(const struct fleet *f)
{
    return f->state == MEMBER && is_connected(f);
}

uint64_t fleet_store_now_ms(const struct fleet *f)
{
    return fleet_lease_store_now_ms(&f->lease);
}

void fleet_note_strange(struct fleet *f, const char *what)
{
    fleet_log_note_strange(&f->log, what);
}

/* What was marked here up to `now` was noted before, so it is among what is pending, sent, or applied. */
bool fleet_seq_of(struct fleet *f, uint64_t epoch, uint64_t id, uint64_t *seq)
{
    const uint64_t now = inval_seq(f->base.shared->inval);
    uint64_t before;
    fleet_take_notes(f);
    return epoch == fleet_base_epoch(&f->base) && fleet_pending_before(&f->pending, now, &before) &&
           fleet_marks_before(f->base.page, id, before, seq);
}

bool fleet_is_behind(const struct fleet *f, uint64_t epoch, uint64_t id)
{
    return epoch == fleet_base_epoch(&f->base) && id > fleet_base_applied(&f->base);
}

/* ---- for what else uses the store ---- */

uint64_t fleet_epoch(const struct fleet *f)
{
    return f->state == MEMBER ? fleet_base_epoch(&f->base) : 0;
}

bool fleet_run(struct fleet *f, enum fleet_script script, int n_keys, int argc, const char **argv,
               fleet_reply_fn done, void *arg)
{
    return fleet_epoch(f) &&
           fleet_store_run(f->base.store, script, n_keys, argc, argv, NULL, done, arg);
}

/* ---- for display ---- */

static void view_servers(const struct fleet *f, struct fleet_view *out)
{
    const uint32_t at = fleet_store_at(f->base.store);
    const int rival = f->servers.n ? fleet_servers_rival(&f->servers, at) : -1;
    out->rival = rival >= 0 ? f->base.config->stores[rival].text : NULL;
    out->n_servers = f->servers.n;
    for (uint32_t i = 0; i < out->n_servers; i++)
        out->server[i] = (struct fleet_server_view){
            .name = f->base.config->stores[i].text,
            .why = fleet_servers_why(&f->servers, i),
            .state =
                f->state == MEMBER && i == at ? "followed" : fleet_servers_state(&f->servers, i),
        };
}

void fleet_view(const struct fleet *f, struct fleet_view *out)
{
    const uint64_t now_ms = clock_mono_ms(), since = atomic_load(&f->base.page->since_ms);
    const bool is_known = now_ms < f->refused_ms + KNOWN_MS;
    *out = (struct fleet_view){
        .connected = is_connected(f),
        .name_taken = f->name_taken && is_known,
        .other_format = f->other_format && is_known,
        .refusal = f->refusal,
        .epoch = fleet_base_epoch(&f->base),
        .since_ms = now_ms > since ? now_ms - since : 0,
        .store = fleet_store_name(f->base.store),
        .why = f->lease.why,
        .name = f->base.config->name,
        .host = f->base.config->host,
        .applied = fleet_base_applied(&f->base),
        .last = f->lease.last,
        .sent = f->pending.sent,
        .received = f->log.received,
        .strange = f->log.strange,
        .gaps = f->log.gaps,
        .pending = fleet_pending_count(&f->pending),
        .n = f->lease.hosts.n,
    };
    view_servers(f, out);
    for (uint32_t i = 0; i < f->lease.hosts.n; i++)
        fleet_lease_host(&f->lease, i, &out->at[i]);
}
