/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_pending: see fleet_pending.h. */
#include "daemons/control/model/fleet_pending.h"
#include "polder/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH     32 /* entries that are sent at once */
#define WORDS     6  /* before them */
#define BYTES_MAX (4u << 20)

struct fleet_pending_entry {
    STAILQ_ENTRY(fleet_pending_entry) entry;
    struct fleet_waiter *waiter;
    uint64_t before; /* of its mark here */
    size_t len;
    uint8_t bytes[];
};

bool fleet_pending_is_empty(const struct fleet_pending *p)
{
    return !p->n && !p->all && !p->sending_all;
}

static void show_unsent(struct fleet_pending *p)
{
    atomic_store(&p->base->page->unsent, !fleet_pending_is_empty(p));
}

/* ---- what is on its way back ---- */

static void note_sent(struct fleet_pending *p, uint64_t last, uint64_t before)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_sent; i++)
        if (p->sent_at[i].last > fleet_base_applied(p->base))
            p->sent_at[n++] = p->sent_at[i];
    if (n == FLEET_SENT_MAX && p->sent_at[--n].before < before)
        before = p->sent_at[n].before;
    p->sent_at[n++] = (struct fleet_sent){last, before};
    p->n_sent = n;
}

void fleet_pending_compare(struct fleet_pending *p, uint64_t began_ms)
{
    p->all |= p->logged_ms >= began_ms;
    show_unsent(p);
}

void fleet_pending_forget_sent(struct fleet_pending *p)
{
    p->n_sent = 0;
}

bool fleet_pending_before(const struct fleet_pending *p, uint64_t now, uint64_t *before)
{
    const struct fleet_pending_entry *e;
    if (p->all || p->sending_all)
        return false;
    STAILQ_FOREACH (e, &p->list, entry)
        now = e->before < now ? e->before : now;
    for (uint32_t i = 0; i < p->n_sent; i++)
        if (p->sent_at[i].last > fleet_base_applied(p->base) && p->sent_at[i].before < now)
            now = p->sent_at[i].before;
    *before = now;
    return true;
}

/* ---- sending ---- */

/* The first n of the list are in the log; the number before all their marks. */
static uint64_t drop_logged(struct fleet_pending *p, uint32_t n, uint64_t last)
{
    uint64_t before = UINT64_MAX;
    while (n--) {
        struct fleet_pending_entry *e = STAILQ_FIRST(&p->list);
        if (e->waiter)
            fleet_waiter_logged(e->waiter, last - n);
        before = e->before < before ? e->before : before;
        STAILQ_REMOVE_HEAD(&p->list, entry);
        p->n--;
        p->bytes -= e->len;
        free(e);
    }
    return before;
}

/* [EPOCH, LAST] */
static void on_appended(void *arg, const redisReply *r)
{
    struct fleet_pending *p = arg;
    uint64_t last, before = 0;
    const uint32_t n = p->n_sending;
    if (!fleet_reply_is_of_epoch(p->base, r))
        return; /* they are sent again */
    if (!fleet_reply_number(r, 1, &last) || last < n) {
        fleet_store_fail(p->base->store, "the store has lost its data");
        return;
    }
    p->n_sending = 0;
    p->sent += n;
    p->logged_ms = clock_mono_ms();
    if (p->sending_all)
        p->sending_all = false;
    else
        before = drop_logged(p, n, last);
    note_sent(p, last, before);
    show_unsent(p);
    if (p->n || p->all)
        fleet_pending_send(p);
    p->logged(p->arg, last);
}

static size_t write_entry(const struct fleet_pending *p, const struct fleet_entry *from,
                          uint8_t out[FLEET_ENTRY_MAX])
{
    struct fleet_entry e = *from;
    e.instance = atomic_load(&p->base->page->instance);
    snprintf(e.host, sizeof e.host, "%s", p->base->config->host);
    return fleet_entry_write(&e, &p->base->key, out);
}

/* Behind the first words. */
static int add_entries(const struct fleet_pending *p, const char **argv, size_t *len)
{
    static const struct fleet_entry all = {.kind = FLEET_ALL, .text = ""};
    static uint8_t bytes[FLEET_ENTRY_MAX];
    const struct fleet_pending_entry *e;
    int n = 0;
    if (p->all) {
        argv[n] = (const char *)bytes;
        len[n++] = write_entry(p, &all, bytes);
        return n;
    }
    STAILQ_FOREACH (e, &p->list, entry) {
        if (n == BATCH)
            break;
        argv[n] = (const char *)e->bytes;
        len[n++] = e->len;
    }
    return n;
}

static bool must_wait(struct fleet_pending *p)
{
    if (ev_is_active(&p->pause) || fleet_pending_is_empty(p))
        return true;
    const uint64_t wait_ms = fleet_pace(&p->pacer);
    if (wait_ms) {
        ev_timer_set(&p->pause, (double)wait_ms / 1000, 0.);
        ev_timer_start(p->base->loop, &p->pause);
    }
    return wait_ms;
}

static void on_pause(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    fleet_pending_send(w->data);
}

void fleet_pending_send(struct fleet_pending *p)
{
    const struct fleet_base *b = p->base;
    char epoch[24], digits[8], applied[24];
    const char *argv[WORDS + BATCH] = {b->log, b->count, b->epoch, epoch, digits, applied};
    size_t len[WORDS + BATCH];
    if (p->n_sending || must_wait(p))
        return;
    snprintf(epoch, sizeof epoch, "%" PRIu64, fleet_base_epoch(b));
    snprintf(applied, sizeof applied, "%" PRIu64, fleet_base_applied(b));
    fleet_epoch_digits(digits);
    for (int i = 0; i < WORDS; i++)
        len[i] = strlen(argv[i]);
    const int n = add_entries(p, argv + WORDS, len + WORDS);
    if (!n ||
        !fleet_store_run(b->store, FLEET_SCRIPT_APPEND, 3, n + WORDS, argv, len, on_appended, p))
        return;
    p->n_sending = (uint32_t)n;
    p->sending_all = p->all; /* what comes from now on is not in it */
    p->all = false;
}

void fleet_pending_lose(struct fleet_pending *p)
{
    struct fleet_pending_entry *e;
    ev_timer_stop(p->base->loop, &p->pause);
    p->n_sending = 0;
    p->all |= p->sending_all;
    p->sending_all = false;
    STAILQ_FOREACH (e, &p->list, entry)
        e->waiter = NULL;
}

/* ---- what is to be sent ---- */

static void drop_list(struct fleet_pending *p)
{
    for (struct fleet_pending_entry *e; (e = STAILQ_FIRST(&p->list));) {
        STAILQ_REMOVE_HEAD(&p->list, entry);
        free(e);
    }
    p->n = 0;
    p->bytes = 0;
}

/* Nothing is under way while too much is pending: that is after a long time without a store. */
static struct fleet_pending_entry *entry_new(struct fleet_pending *p, size_t len)
{
    const bool full = p->n >= FLEET_PENDING_MAX || p->bytes + len > BYTES_MAX;
    struct fleet_pending_entry *e = NULL;
    if (!p->all && !(full && !p->n_sending))
        e = malloc(sizeof *e + len);
    if (!e) {
        if (!p->n_sending)
            drop_list(p);
        p->all = true;
    }
    return e;
}

void fleet_pending_add(struct fleet_pending *p, const struct fleet_entry *entry,
                       struct fleet_waiter *waiter)
{
    static uint8_t bytes[FLEET_ENTRY_MAX];
    const struct fleet_entry all = {.kind = FLEET_ALL,
                                    .soft = entry->soft,
                                    .waited = waiter != NULL,
                                    .before = entry->before,
                                    .text = ""};
    struct fleet_entry own = *entry;
    own.waited = waiter != NULL;
    size_t len = write_entry(p, &own, bytes);
    if (!len)
        len = write_entry(p, &all, bytes);
    struct fleet_pending_entry *e = entry_new(p, len);
    if (e) {
        e->len = len;
        e->waiter = waiter;
        e->before = entry->before;
        memcpy(e->bytes, bytes, len);
        STAILQ_INSERT_TAIL(&p->list, e, entry);
        p->n++;
        p->bytes += len;
    }
    show_unsent(p);
}

/* ---- life ---- */

void fleet_pending_init(struct fleet_pending *p, const struct fleet_base *base,
                        void (*logged)(void *arg, uint64_t last), void *arg)
{
    *p = (struct fleet_pending){.base = base, .logged = logged, .arg = arg};
    STAILQ_INIT(&p->list);
    ev_timer_init(&p->pause, on_pause, 0., 0.);
    p->pause.data = p;
    /* an earlier control may have died with what it had to send */
    p->all = atomic_load(&base->page->unsent) != 0;
}

void fleet_pending_free(struct fleet_pending *p)
{
    ev_timer_stop(p->base->loop, &p->pause);
    drop_list(p);
}

uint32_t fleet_pending_count(const struct fleet_pending *p)
{
    return p->all || p->sending_all ? FLEET_PENDING_MAX : p->n;
}
