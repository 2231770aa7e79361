/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet: see fleet.h. */
#include "daemons/control/model/fleet.h"
#include "daemons/control/model/fleet_marks.h"
#include "daemons/control/model/fleet_scripts.h"
#include "daemons/control/model/fleet_store.h"
#include "polder/clock.h"
#include "polder/inval.h"
#include "polder/random.h"
#include "polder/ring.h"
#include "polder/shared.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define RENEW_MS      500 /* a lease is renewed that often */
#define LOOK_MS       5   /* while somebody waits for others */
#define SHOW_MS       2   /* before that others are not shown what is applied */
#define BATCH         32  /* entries that are sent at once */
#define PENDING_MAX   2048
#define PENDING_BYTES (4u << 20)
#define SENT_MAX      64 /* batches that may be on their way back */

static const char *const scripts[FLEET_SCRIPTS] = {
    [FLEET_SCRIPT_ENTER] = fleet_script_enter,
    [FLEET_SCRIPT_RENEW] = fleet_script_renew,
    [FLEET_SCRIPT_APPEND] = fleet_script_append,
    [FLEET_SCRIPT_SHARE_GET] = fleet_script_share_get,
    [FLEET_SCRIPT_SHARE_PUT] = fleet_script_share_put,
    [FLEET_SCRIPT_LIMIT_SHARE] = fleet_script_limit_share,
    [FLEET_SCRIPT_LIMIT_TAKE] = fleet_script_limit_take,
};

enum state { CUT_OFF, ENTERING, MEMBER };

struct waiter;
/* An entry that no other host is known to have. */
struct pending {
    STAILQ_ENTRY(pending) entry;
    struct waiter *waiter;
    uint64_t before; /* of its mark here */
    size_t len;
    uint8_t bytes[];
};
struct waiter {
    TAILQ_ENTRY(waiter) entry;
    uint64_t id;       /* in the log; 0: it is not there yet */
    uint64_t since_ms; /* it is there */
    fleet_done_fn done;
    void *arg;
};

struct fleet {
    struct ev_loop *loop;
    const struct config_fleet *config;
    struct shared *shared;
    struct fleet_page *page;
    const struct fleet_ops *ops;
    void *arg;
    struct fleet_store *store;
    struct fleet_key key;
    enum state state;
    char why[320];
    char log_key[96], count_key[96], epoch_key[96], hosts_key[96], run_key[96], instance[20];
    char stored_key[96], stored_id[48]; /* the last entry of that stream */
    char run_id[48];                    /* of the server */
    STAILQ_HEAD(, pending) pending;
    uint32_t n_pending, n_sending; /* the first ones are under way */
    size_t pending_bytes;
    bool pending_all; /* more than is remembered: everything */
    bool sending_all; /* that is under way, and none of pending */
    /* In the log, and not read back from it yet: up to which number, and before which marks here. */
    struct sent {
        uint64_t last, before;
    } sent_at[SENT_MAX];
    uint32_t n_sent;
    TAILQ_HEAD(, waiter) waiters;
    ev_timer timer;
    uint64_t renew_sent_ms, renewed_ms; /* the one under way; 0: none. The last one */
    uint64_t last;                      /* number of the log's last entry, as far as is known */
    uint64_t goal;                      /* entering: to be applied first */
    bool following;
    bool show;             /* others may wait for what is applied by now */
    uint64_t store_now_ms; /* with hosts */
    uint64_t sent, received, strange, gaps;
    uint32_t n_hosts;
    struct host {
        char name[FLEET_HOST_SIZE];
        uint64_t instance, epoch, applied, until_ms;
    } host[64];
    bool connected_before;
};

static void look(struct fleet *f);
static void send_pending(struct fleet *f);

static uint64_t epoch_of(const struct fleet *f)
{
    return atomic_load(&f->page->epoch);
}

static uint64_t applied_of(const struct fleet *f)
{
    return atomic_load(&f->page->applied);
}

static void timer_in(struct fleet *f, uint64_t ms)
{
    ev_timer_stop(f->loop, &f->timer);
    ev_timer_set(&f->timer, (double)ms / 1000, 0.);
    ev_timer_start(f->loop, &f->timer);
}

/* ---- connected or not ---- */

static bool is_unsent(const struct fleet *f)
{
    return f->n_pending || f->pending_all || f->sending_all;
}

static void show_unsent(struct fleet *f)
{
    atomic_store(&f->page->unsent, is_unsent(f));
}

static void answer(struct fleet *f, struct waiter *w, const struct fleet_result *r)
{
    TAILQ_REMOVE(&f->waiters, w, entry);
    struct pending *p;
    STAILQ_FOREACH (p, &f->pending, entry)
        if (p->waiter == w)
            p->waiter = NULL;
    w->done(w->arg, r);
    free(w);
}

static void answer_all(struct fleet *f)
{
    const struct fleet_result r = {.missing_names = ""};
    for (struct waiter *w; (w = TAILQ_FIRST(&f->waiters));)
        answer(f, w, &r);
}

static void set_connected(struct fleet *f, uint64_t until_ms, const char *why)
{
    const uint64_t now_ms = clock_mono_ms();
    const bool was = f->connected_before, is = until_ms > now_ms;
    atomic_store(&f->page->until_ms, until_ms);
    f->connected_before = is;
    if (was == is && !strcmp(f->why, why))
        return;
    snprintf(f->why, sizeof f->why, "%s", why);
    if (was != is || !atomic_load(&f->page->since_ms))
        atomic_store(&f->page->since_ms, now_ms);
    f->ops->changed(f->arg, is, why);
}

/* The lease holds from when it was asked for, once all is applied that was there before it. */
static void set_leased(struct fleet *f)
{
    if (f->state == MEMBER && f->renewed_ms && applied_of(f) >= f->goal)
        set_connected(f, f->renewed_ms + FLEET_LEASE_MS, "");
}

static void lose(struct fleet *f, const char *why)
{
    f->state = CUT_OFF;
    f->n_sending = 0;
    f->pending_all |= f->sending_all;
    f->sending_all = false;
    f->renew_sent_ms = f->renewed_ms = 0;
    f->following = false;
    set_connected(f, 0, why);
    answer_all(f);
}

/* The store is not as it should be: begins anew with it. */
static void leave(struct fleet *f, const char *why)
{
    fleet_store_fail(f->store, why);
}

/* What was remembered of the log is worth nothing. */
static void forget(struct fleet *f, uint64_t epoch, uint64_t applied, const char *why)
{
    f->gaps++;
    f->n_sent = 0;
    atomic_store(&f->page->until_ms, 0); /* before anything else is known to be newer */
    f->ops->apply_all(f->arg, why);
    fleet_marks_begin(f->page, applied);
    atomic_store(&f->page->applied, applied);
    atomic_store(&f->page->epoch, epoch);
}

/* ---- replies ---- */

/* Element i of a list, as text; NULL: it is not what a script of ours returns. */
static const char *text_at(const redisReply *r, size_t i)
{
    return r->type == REDIS_REPLY_ARRAY && i < r->elements &&
                   r->element[i]->type == REDIS_REPLY_STRING
               ? r->element[i]->str
               : NULL;
}

static bool number_at(const redisReply *r, size_t i, uint64_t *out)
{
    const char *text = text_at(r, i);
    if (!text || !*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 20)
        return false;
    errno = 0;
    *out = strtoull(text, NULL, 10);
    return errno == 0;
}

/* False: it was an error, and the link is given up. */
static bool is_list(struct fleet *f, const redisReply *r)
{
    if (!r)
        return false; /* the link ends, and says why itself */
    if (r->type == REDIS_REPLY_ERROR)
        leave(f, r->str);
    else if (r->type != REDIS_REPLY_ARRAY)
        leave(f, "it answers a script with something else");
    return r->type == REDIS_REPLY_ARRAY;
}

/* ---- the log ---- */

static void take_strange(struct fleet *f, const char *what)
{
    f->strange++;
    f->ops->strange(f->arg, what);
}

/* An entry of a newer version may have invalidated anything. */
static void take_bytes(struct fleet *f, uint64_t id, const uint8_t *bytes, size_t len,
                       uint64_t *before)
{
    struct fleet_entry e;
    const int rc = fleet_entry_read(bytes, len, &f->key, &e);
    if (rc == -EPERM) {
        take_strange(f, "an entry of the log is not signed with this fleet's secret");
        return;
    }
    if (rc) {
        take_strange(f, "an entry of the log is of a version that is not known here");
        f->ops->apply_all(f->arg, "an entry of the log could not be understood");
        return;
    }
    if (e.instance == atomic_load(&f->page->instance)) { /* our own: it holds already */
        *before = e.before < *before ? e.before : *before;
        return;
    }
    f->received++;
    const uint64_t seq = f->ops->apply(f->arg, &e);
    if (seq)
        fleet_note_cause(f->page, seq, id, e.host);
}

static void move_on(struct fleet *f, uint64_t id, uint64_t before)
{
    fleet_marks_note(f->page, id, before);
    atomic_store(&f->page->applied, id);
}

/* [ID, [FIELD, VALUE...]] */
static bool take_entry(struct fleet *f, const redisReply *r)
{
    const char *id_text = text_at(r, 0);
    const redisReply *fields = id_text && r->elements == 2 ? r->element[1] : NULL;
    char *end;
    if (!fields || fields->type != REDIS_REPLY_ARRAY)
        return false;
    const uint64_t id = strtoull(id_text, &end, 10);
    uint64_t before = inval_seq(f->shared->inval);
    const bool ours = !strcmp(end, "-0") && fields->elements == 2 && text_at(fields, 0) &&
                      !strcmp(text_at(fields, 0), "e") && text_at(fields, 1);
    if (!ours) {
        take_strange(f, "an entry of the log was not written by a Polder");
        if (strcmp(end, "-0") != 0)
            return true; /* between two numbers */
    } else {
        take_bytes(f, id, (const uint8_t *)fields->element[1]->str, fields->element[1]->len,
                   &before);
    }
    if (id != applied_of(f) + 1)
        forget(f, epoch_of(f), id, "entries of the log are missing");
    else
        move_on(f, id, before);
    return true;
}

/* Others may wait for it. */
static void show_applied(struct fleet *f)
{
    if (!fleet_is_connected(f->page, clock_mono_ms()))
        set_leased(f);
    f->show = true;
    timer_in(f, SHOW_MS);
}

static void follow(struct fleet *f);

static void enter_when_caught_up(struct fleet *f);

/* Whoever wrote it: it only lets those that wait look again. */
static bool take_stored(struct fleet *f, const redisReply *r)
{
    const char *id = text_at(r, 0);
    const redisReply *fields = id && r->elements == 2 ? r->element[1] : NULL;
    if (!fields)
        return false;
    snprintf(f->stored_id, sizeof f->stored_id, "%s", id);
    if (text_at(fields, 1))
        f->ops->stored(f->arg, text_at(fields, 1));
    return true;
}

/* [STREAM, [ENTRY...]] */
static bool take_stream(struct fleet *f, const redisReply *r)
{
    const char *name = text_at(r, 0);
    if (!name || r->elements != 2 || r->element[1]->type != REDIS_REPLY_ARRAY)
        return false;
    const redisReply *list = r->element[1];
    const bool is_log = !strcmp(name, f->log_key);
    bool good = true;
    for (size_t i = 0; good && i < list->elements; i++)
        good = is_log ? take_entry(f, list->element[i]) : take_stored(f, list->element[i]);
    if (f->last < applied_of(f))
        f->last = applied_of(f);
    return good;
}

/* [[STREAM, [ENTRY...]]...], or nil after a while without any. */
static void on_entries(void *arg, const redisReply *r)
{
    struct fleet *f = arg;
    f->following = false;
    if (!r || f->state == CUT_OFF)
        return;
    if (r->type == REDIS_REPLY_ERROR) {
        leave(f, r->str);
        return;
    }
    bool good = r->type == REDIS_REPLY_NIL;
    const uint64_t applied = applied_of(f);
    if (r->type == REDIS_REPLY_ARRAY && r->elements) {
        good = true;
        for (size_t i = 0; good && i < r->elements; i++)
            good = take_stream(f, r->element[i]);
    }
    if (!good) {
        leave(f, "it answers XREAD as no Redis does");
        return;
    }
    follow(f);
    if (f->state == ENTERING)
        enter_when_caught_up(f);
    else if (applied_of(f) != applied)
        show_applied(f);
}

static void follow(struct fleet *f)
{
    char after[32];
    snprintf(after, sizeof after, "%" PRIu64 "-0", applied_of(f));
    const struct fleet_streams from = {{f->log_key, f->stored_key}, {after, f->stored_id}};
    if (!f->following)
        f->following = fleet_store_follow(f->store, &from, on_entries, f);
}

/* ---- entering ---- */

static void enter(struct fleet *f);

static void on_entered(void *arg, const redisReply *r)
{
    struct fleet *f = arg;
    uint64_t epoch, count, first = 0;
    if (!is_list(f, r) || f->state != ENTERING)
        return;
    if (text_at(r, 0) && !strcmp(text_at(r, 0), "taken")) {
        snprintf(f->why, sizeof f->why,
                 "another host of the fleet is called %s: give this one another name (fleet.host)",
                 f->config->host);
        leave(f, f->why);
        return;
    }
    const char *first_id = text_at(r, 2);
    if (!number_at(r, 0, &epoch) || !epoch || !number_at(r, 1, &count) || !first_id) {
        leave(f, "its keys of this fleet hold something else");
        return;
    }
    first = strtoull(first_id, NULL, 10);
    const uint64_t applied = applied_of(f);
    if (epoch_of(f) != epoch)
        forget(f, epoch, count,
               epoch_of(f) ? "the store is another server, was restarted or has lost its data"
                           : "this host is new in the fleet");
    else if (count < applied)
        forget(f, epoch, count, "the log of the store went backwards");
    else if (count > applied && (!first || first > applied + 1))
        forget(f, epoch, count, "this host was away for longer than the log reaches back");
    f->goal = count;
    f->last = count;
    follow(f);
    enter_when_caught_up(f);
}

/* The second part of an epoch that this host may have to make. */
static void random_digits(char out[8])
{
    uint32_t n;
    random_fill(&n, sizeof n);
    snprintf(out, 8, "%06u", n % 1000000);
}

/* When the epoch began, in ms of the store's clock. */
static uint64_t epoch_began_ms(const struct fleet *f)
{
    return epoch_of(f) / 1000000;
}

static void enter(struct fleet *f)
{
    char digits[8];
    random_digits(digits);
    const char *argv[] = {f->log_key,      f->count_key, f->epoch_key, f->hosts_key, f->run_key,
                          f->config->host, f->instance,  digits,       f->run_id};
    fleet_store_run(f->store, FLEET_SCRIPT_ENTER, 5, 9, argv, NULL, on_entered, f);
}

static void enter_when_caught_up(struct fleet *f)
{
    if (applied_of(f) < f->goal)
        return;
    if (is_unsent(f)) {
        send_pending(f);
        return;
    }
    f->state = MEMBER;
    look(f);
}

static void on_up(void *arg, const char *run_id)
{
    struct fleet *f = arg;
    snprintf(f->run_id, sizeof f->run_id, "%s", run_id);
    f->state = ENTERING;
    strcpy(f->stored_id, "$"); /* an id of another history may never come */
    enter(f);
}

static void on_down(void *arg, const char *why)
{
    lose(arg, why);
}

/* ---- the lease, and what others have ---- */

static void take_host(struct fleet *f, const char *name, const char *value)
{
    struct host *h = &f->host[f->n_hosts];
    if (f->n_hosts == sizeof f->host / sizeof *f->host ||
        sscanf(value, "%" SCNx64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &h->instance, &h->epoch,
               &h->applied, &h->until_ms) != 4)
        return;
    snprintf(h->name, sizeof h->name, "%.*s", FLEET_HOST_SIZE - 1, name);
    f->n_hosts++;
}

/* Has every other host that lives what w waits for? */
static bool is_known(const struct fleet *f, const struct waiter *w)
{
    for (uint32_t i = 0; i < f->n_hosts; i++) {
        const struct host *h = &f->host[i];
        if (h->until_ms > f->store_now_ms && h->instance != atomic_load(&f->page->instance) &&
            (h->epoch != epoch_of(f) || h->applied < w->id))
            return false;
    }
    return true;
}

static void answer_known(struct fleet *f, struct waiter *w)
{
    struct fleet_result r = {.connected = true};
    char names[512] = "";
    for (uint32_t i = 0; i < f->n_hosts; i++) {
        const struct host *h = &f->host[i];
        const size_t at = strlen(names);
        if (h->instance == atomic_load(&f->page->instance))
            continue;
        if (h->epoch == epoch_of(f) && h->applied >= w->id) {
            r.hosts++;
            continue;
        }
        r.missing++;
        snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "", h->name);
    }
    r.missing_names = names;
    answer(f, w, &r);
}

static void on_renewed(void *arg, const redisReply *r)
{
    struct fleet *f = arg;
    uint64_t epoch, count, now;
    const uint64_t sent_ms = f->renew_sent_ms;
    f->renew_sent_ms = 0;
    if (!is_list(f, r) || f->state != MEMBER)
        return;
    if (!number_at(r, 0, &epoch) || epoch != epoch_of(f)) {
        leave(f, "the store has lost its data");
        return;
    }
    if (!number_at(r, 1, &count) || !number_at(r, 2, &now)) {
        leave(f, "its keys of this fleet hold something else");
        return;
    }
    f->last = count > f->last ? count : f->last;
    f->store_now_ms = now;
    f->n_hosts = 0;
    for (size_t i = 3; i + 1 < r->elements; i += 2)
        if (text_at(r, i) && text_at(r, i + 1))
            take_host(f, text_at(r, i), text_at(r, i + 1));
    f->renewed_ms = sent_ms;
    /* Without a lease others have not waited for this host: what they have done since is in the log up to
     * count. With one they have. */
    if (!fleet_is_connected(f->page, clock_mono_ms()))
        f->goal = count;
    set_leased(f);
    f->ops->renewed(f->arg, clock_mono_ms() - sent_ms);
    /* Hosts of the epoch before may not have seen that it has ended. */
    const bool all_known = now >= epoch_began_ms(f) + FLEET_LEASE_MS;
    for (struct waiter *w = TAILQ_FIRST(&f->waiters), *next; w; w = next) {
        next = TAILQ_NEXT(w, entry);
        if (w->id && w->since_ms <= sent_ms && all_known && is_known(f, w))
            answer_known(f, w);
    }
}

/* Renews the lease, which shows the others what is applied here, and shows what they have. */
static void look(struct fleet *f)
{
    char epoch[24], applied[24], lease[16];
    if (f->renew_sent_ms || f->state != MEMBER)
        return;
    snprintf(epoch, sizeof epoch, "%" PRIu64, epoch_of(f));
    snprintf(applied, sizeof applied, "%" PRIu64, applied_of(f));
    snprintf(lease, sizeof lease, "%d", FLEET_LEASE_MS);
    const char *argv[] = {f->log_key,  f->count_key, f->epoch_key, f->hosts_key, f->config->host,
                          f->instance, epoch,        applied,      lease};
    const uint64_t now_ms = clock_mono_ms();
    if (!fleet_store_run(f->store, FLEET_SCRIPT_RENEW, 4, 9, argv, NULL, on_renewed, f))
        return;
    f->renew_sent_ms = now_ms;
    f->show = false;
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct fleet *f = w->data;
    (void)loop;
    (void)revents;
    fleet_take_notes(f);
    const bool waited_for = !TAILQ_EMPTY(&f->waiters);
    if (f->connected_before && !fleet_is_connected(f->page, clock_mono_ms()))
        set_connected(f, 0, "the store does not answer in time");
    if (waited_for || f->show || clock_mono_ms() >= f->renewed_ms + RENEW_MS)
        look(f);
    timer_in(f, waited_for ? LOOK_MS : RENEW_MS / 5);
}

/* ---- telling the others ---- */

/* The last batch is on its way back. */
static void note_sent(struct fleet *f, uint64_t last, uint64_t before)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < f->n_sent; i++)
        if (f->sent_at[i].last > applied_of(f))
            f->sent_at[n++] = f->sent_at[i];
    if (n == SENT_MAX && f->sent_at[--n].before < before)
        before = f->sent_at[n].before;
    f->sent_at[n++] = (struct sent){last, before};
    f->n_sent = n;
}

static void on_appended(void *arg, const redisReply *r)
{
    struct fleet *f = arg;
    uint64_t epoch, last;
    const uint32_t n = f->n_sending;
    if (!is_list(f, r))
        return; /* they are sent again */
    if (!number_at(r, 0, &epoch) || epoch != epoch_of(f) || !number_at(r, 1, &last) || last < n) {
        leave(f, "the store has lost its data");
        return;
    }
    f->n_sending = 0;
    f->sent += n;
    f->last = last > f->last ? last : f->last;
    uint64_t before = f->sending_all ? 0 : UINT64_MAX;
    if (f->sending_all) {
        f->sending_all = false;
    } else {
        for (uint32_t i = 0; i < n; i++) {
            struct pending *p = STAILQ_FIRST(&f->pending);
            if (p->waiter) {
                p->waiter->id = last - (n - 1 - i);
                p->waiter->since_ms = clock_mono_ms();
            }
            before = p->before < before ? p->before : before;
            STAILQ_REMOVE_HEAD(&f->pending, entry);
            f->n_pending--;
            f->pending_bytes -= p->len;
            free(p);
        }
    }
    note_sent(f, last, before);
    show_unsent(f);
    if (f->n_pending || f->pending_all)
        send_pending(f);
    else if (f->state == ENTERING)
        enter_when_caught_up(f);
    if (!TAILQ_EMPTY(&f->waiters))
        timer_in(f, LOOK_MS);
}

static size_t write_entry(const struct fleet *f, enum fleet_kind kind, bool soft, const char *text,
                          size_t len, uint64_t before, uint8_t out[FLEET_ENTRY_MAX])
{
    struct fleet_entry e = {.kind = kind,
                            .soft = soft,
                            .instance = atomic_load(&f->page->instance),
                            .before = before,
                            .text = text,
                            .len = len};
    snprintf(e.host, sizeof e.host, "%s", f->config->host);
    return fleet_entry_write(&e, &f->key, out);
}

static void send_pending(struct fleet *f)
{
    static uint8_t all[FLEET_ENTRY_MAX];
    char epoch[24], digits[8];
    const char *argv[5 + BATCH];
    size_t len[5 + BATCH];
    int n = 0;
    if (f->n_sending || f->state == CUT_OFF)
        return;
    snprintf(epoch, sizeof epoch, "%" PRIu64, epoch_of(f));
    random_digits(digits);
    const char *const first[] = {f->log_key, f->count_key, f->epoch_key, epoch, digits};
    for (; n < 5; n++) {
        argv[n] = first[n];
        len[n] = strlen(first[n]);
    }
    if (f->pending_all) {
        argv[n] = (const char *)all;
        len[n++] = write_entry(f, FLEET_ALL, false, "", 0, 0, all);
    } else {
        const struct pending *p;
        STAILQ_FOREACH (p, &f->pending, entry) {
            if (n == 5 + BATCH)
                break;
            argv[n] = (const char *)p->bytes;
            len[n++] = p->len;
        }
    }
    if (n == 5 || !fleet_store_run(f->store, FLEET_SCRIPT_APPEND, 3, n, argv, len, on_appended, f))
        return;
    f->n_sending = (uint32_t)n - 5;
    f->sending_all = f->pending_all; /* what comes from now on is not in it */
    f->pending_all = false;
}

static void drop_pending(struct fleet *f)
{
    for (struct pending *p; (p = STAILQ_FIRST(&f->pending));) {
        STAILQ_REMOVE_HEAD(&f->pending, entry);
        free(p);
    }
    f->n_pending = 0;
    f->pending_bytes = 0;
}

/* Nothing is under way while too much is pending: that is after a long time without a store. */
static void add_pending(struct fleet *f, const uint8_t *bytes, size_t len, uint64_t before,
                        struct waiter *waiter)
{
    struct pending *p = NULL;
    const bool full = f->n_pending >= PENDING_MAX || f->pending_bytes + len > PENDING_BYTES;
    if (!f->pending_all && !(full && !f->n_sending))
        p = malloc(sizeof *p + len);
    if (!p) {
        if (!f->n_sending)
            drop_pending(f);
        f->pending_all = true;
        show_unsent(f);
        return;
    }
    p->len = len;
    p->waiter = waiter;
    p->before = before;
    memcpy(p->bytes, bytes, len);
    STAILQ_INSERT_TAIL(&f->pending, p, entry);
    f->n_pending++;
    f->pending_bytes += len;
    show_unsent(f);
}

static struct waiter *add_waiter(struct fleet *f, fleet_done_fn done, void *arg)
{
    struct waiter *w = done && f->state == MEMBER ? calloc(1, sizeof *w) : NULL;
    if (w) {
        w->done = done;
        w->arg = arg;
        TAILQ_INSERT_TAIL(&f->waiters, w, entry);
    }
    return w;
}

void fleet_tell(struct fleet *f, enum fleet_kind kind, bool soft, const char *text, size_t len,
                uint64_t before, fleet_done_fn done, void *arg)
{
    static uint8_t bytes[FLEET_ENTRY_MAX];
    size_t n = write_entry(f, kind, soft, text, len, before, bytes);
    if (!n)
        n = write_entry(f, FLEET_ALL, soft, "", 0, before, bytes);
    struct waiter *w = add_waiter(f, done, arg);
    add_pending(f, bytes, n, before, w);
    send_pending(f);
    if (w)
        timer_in(f, LOOK_MS);
    else if (done)
        done(arg, &(struct fleet_result){.missing_names = ""});
}

static void take_note(struct fleet *f, unsigned worker, const struct ring_record *head,
                      const char *note)
{
    if (head->flags >= FLEET_SHARE_ASK && head->flags <= FLEET_SHARE_PUT) {
        f->ops->note(f->arg, worker, head, note);
        return;
    }
    const enum fleet_kind kind =
        head->flags < FLEET_KINDS ? (enum fleet_kind)head->flags : FLEET_ALL;
    fleet_tell(f, kind, false, note, kind == FLEET_ALL ? 0 : head->len, head->stream, NULL, NULL);
}

void fleet_take_notes(struct fleet *f)
{
    static _Alignas(8) char note[RING_RECORD_MAX];
    if (atomic_load(&f->page->overflow)) {
        atomic_store(&f->page->unsent, 1);
        atomic_store(&f->page->overflow, 0);
        fleet_tell(f, FLEET_ALL, false, "", 0, 0, NULL, NULL);
    }
    for (unsigned i = 0; i < PROC_WORKER_SLOTS; i++) {
        struct ring *ring = shared_fleet_ring(f->shared, i);
        struct ring_record head;
        uint64_t cursor = ring_tail(ring);
        int got;
        if (cursor == ring_head(ring))
            continue;
        while ((got = ring_peek(ring, &cursor, &head, note)) == 1)
            take_note(f, i, &head, note);
        if (got < 0) {
            cursor = ring_head(ring);
            fleet_tell(f, FLEET_ALL, false, "", 0, 0, NULL, NULL);
        }
        ring_consume(ring, cursor); /* what is for the log is pending: `unsent` says so */
        ring_sleep(ring, true);
    }
}

/* ---- life ---- */

static const struct fleet_store_ops store_ops = {on_up, on_down};

static void name_keys(struct fleet *f)
{
    static const char format[] = "polder:{%s}:%s";
    snprintf(f->log_key, sizeof f->log_key, format, f->config->name, "log");
    snprintf(f->count_key, sizeof f->count_key, format, f->config->name, "count");
    snprintf(f->epoch_key, sizeof f->epoch_key, format, f->config->name, "epoch");
    snprintf(f->hosts_key, sizeof f->hosts_key, format, f->config->name, "hosts");
    snprintf(f->run_key, sizeof f->run_key, format, f->config->name, "run");
    snprintf(f->stored_key, sizeof f->stored_key, format, f->config->name, "stored");
    snprintf(f->instance, sizeof f->instance, "%" PRIx64, atomic_load(&f->page->instance));
}

struct fleet *fleet_new(struct ev_loop *loop, const struct config_fleet *config,
                        struct shared *shared, const struct fleet_ops *ops, void *arg)
{
    struct fleet *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->loop = loop;
    f->config = config;
    f->shared = shared;
    f->page = shared->fleet;
    f->ops = ops;
    f->arg = arg;
    STAILQ_INIT(&f->pending);
    TAILQ_INIT(&f->waiters);
    fleet_key_make(&f->key, config->name, config->secret);
    name_keys(f);
    /* an earlier control may have died with what it had to send */
    f->pending_all = atomic_load(&f->page->unsent) != 0;
    f->store = fleet_store_new(loop, config, scripts, &store_ops, f);
    if (!f->store) {
        free(f);
        return NULL;
    }
    for (unsigned i = 0; i < PROC_WORKER_SLOTS; i++)
        ring_sleep(shared_fleet_ring(shared, i), true);
    ev_timer_init(&f->timer, on_timer, 0., 0.);
    f->timer.data = f;
    ev_timer_start(loop, &f->timer);
    strcpy(f->why, "not connected yet");
    atomic_store(&f->page->until_ms, 0);
    atomic_store(&f->page->since_ms, clock_mono_ms());
    return f;
}

void fleet_free(struct fleet *f)
{
    if (!f)
        return;
    ev_timer_stop(f->loop, &f->timer);
    atomic_store(&f->page->until_ms, 0);
    f->state = CUT_OFF;
    answer_all(f);
    fleet_store_free(f->store);
    drop_pending(f);
    free(f);
}

/* ---- for the shared cache ---- */

void fleet_identity(const struct fleet *f, struct fleet_identity *out)
{
    *out = (struct fleet_identity){f->config->name, f->instance, &f->key};
}

struct fleet_store *fleet_link(const struct fleet *f)
{
    return f->store;
}

bool fleet_is_member(const struct fleet *f)
{
    return f->state == MEMBER && fleet_is_connected(f->page, clock_mono_ms());
}

uint64_t fleet_store_now_ms(const struct fleet *f)
{
    return f->store_now_ms + (clock_mono_ms() - f->renewed_ms);
}

void fleet_note_strange(struct fleet *f, const char *what)
{
    take_strange(f, what);
}

/* What was marked here up to `now` was noted before, so it is among what is pending, sent, or applied. */
bool fleet_seq_of(struct fleet *f, uint64_t epoch, uint64_t id, uint64_t *seq)
{
    uint64_t now = inval_seq(f->shared->inval);
    const struct pending *p;
    fleet_take_notes(f);
    if (epoch != epoch_of(f) || f->pending_all || f->sending_all)
        return false;
    STAILQ_FOREACH (p, &f->pending, entry)
        now = p->before < now ? p->before : now;
    for (uint32_t i = 0; i < f->n_sent; i++)
        if (f->sent_at[i].last > applied_of(f) && f->sent_at[i].before < now)
            now = f->sent_at[i].before;
    return fleet_marks_before(f->page, id, now, seq);
}

static void put_host(const struct fleet *f, const struct host *h, struct fleet_host *out)
{
    memcpy(out->name, h->name, sizeof out->name);
    out->self = h->instance == atomic_load(&f->page->instance);
    out->applied = h->applied;
    out->lease_ms =
        (int64_t)(h->until_ms - f->store_now_ms) - (int64_t)(clock_mono_ms() - f->renewed_ms);
    out->alive = out->lease_ms > 0;
}

void fleet_view(const struct fleet *f, struct fleet_view *out)
{
    const uint64_t now_ms = clock_mono_ms(), since = atomic_load(&f->page->since_ms);
    *out = (struct fleet_view){
        .connected = fleet_is_connected(f->page, now_ms),
        .since_ms = now_ms > since ? now_ms - since : 0,
        .store = fleet_store_name(f->store),
        .why = f->why,
        .name = f->config->name,
        .host = f->config->host,
        .applied = applied_of(f),
        .last = f->last,
        .sent = f->sent,
        .received = f->received,
        .strange = f->strange,
        .gaps = f->gaps,
        .pending = f->pending_all || f->sending_all ? PENDING_MAX : f->n_pending,
        .n = f->n_hosts,
    };
    for (uint32_t i = 0; i < f->n_hosts; i++)
        put_host(f, &f->host[i], &out->at[i]);
}

/* ---- for what else uses the store ---- */

uint64_t fleet_epoch(const struct fleet *f)
{
    return f->state == MEMBER ? epoch_of(f) : 0;
}

uint64_t fleet_epoch_ms(uint64_t epoch)
{
    return epoch / 1000000;
}

bool fleet_run(struct fleet *f, enum fleet_script script, int n_keys, int argc, const char **argv,
               fleet_reply_fn done, void *arg)
{
    return fleet_epoch(f) && fleet_store_run(f->store, script, n_keys, argc, argv, NULL, done, arg);
}
