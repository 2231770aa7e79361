/* SPDX-License-Identifier: BSD-2-Clause */
/* restart: see restart.h. */
#include "daemons/supervisor/restart.h"
#include "daemons/rpc/server.h"
#include "daemons/supervisor/carry/carry.h"
#include "daemons/supervisor/carry/parcel.h"
#include "daemons/supervisor/survive/custodian.h"
#include "daemons/supervisor/survive/survive.h"
#include "daemons/supervisor/upgrade.h"
#include "polder/clock.h"
#include "polder/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_S   0.01
#define QUIET_MS 200 /* for answers that are under way */

/* ---- leaving ---- */

void restart_pack(struct supervisor *s)
{
    s->now_ms = clock_mono_ms();
    upgrade_give_up(s, "the service restarts");
    s->restart.wanted = !s->draining;
    const int block = s->draining ? -ECANCELED : carry_save(s, CARRY_SUCCESSOR, 0);
    survive_packed(s, block, block < 0 ? strerror(-block) : "");
    if (block >= 0)
        close(block);
}

/* Clients that have whole frames, and all of them. */
struct at_rest {
    uint8_t *bits;
    size_t n;
};

static bool is_at_rest(const void *arg, int fd)
{
    const struct at_rest *a = arg;
    return (size_t)fd < a->n && (a->bits[fd / 8] >> (fd % 8) & 1);
}

static bool rests(const struct session *x)
{
    return x->state == SESSION_OPEN && x->client.io.fd >= 0 && !x->client.cut &&
           !x->client.out.len && frames_between(&x->backend.in);
}

/* None, where there is no memory. */
static void find_at_rest(const struct supervisor *s, struct at_rest *to)
{
    const struct session *x;
    int max = -1;
    LIST_FOREACH (x, &s->sessions, entry)
        max = x->client.io.fd > max ? x->client.io.fd : max;
    to->bits = calloc(1, (size_t)(max + 8) / 8 + 1);
    to->n = to->bits ? (size_t)(max + 1) : 0;
    LIST_FOREACH (x, &s->sessions, entry)
        if (to->bits && rests(x))
            to->bits[x->client.io.fd / 8] |= (uint8_t)(1u << (x->client.io.fd % 8));
}

static int send_all(struct supervisor *s, int to)
{
    struct at_rest at_rest;
    const int block = carry_save(s, CARRY_SUCCESSOR, clock_mono_ns());
    if (block < 0)
        return block;
    find_at_rest(s, &at_rest);
    die_here(DIE_HANDING);
    const int code =
        parcel_send(to, &(struct parcel_sending){.block = block,
                                                 .intake = s->intake_passed ? -1 : s->intake.fd,
                                                 .rpc = rpc_server_fd(s->rpc),
                                                 .at_rest = is_at_rest,
                                                 .arg = &at_rest});
    die_here(DIE_HANDED);
    free(at_rest.bits);
    close(block);
    return code;
}

/* Nothing may be closed in the usual way: what the peers see goes on. */
static void on_look(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    (void)revents;
    s->now_ms = clock_mono_ms();
    if (!s->draining && !rpc_server_is_quiet(s->rpc) && s->now_ms < s->restart.until_ms)
        return;
    ev_timer_stop(loop, w);
    s->before_replaced(s);
    const int code = s->draining ? -ECANCELED : send_all(s, s->restart.to);
    close(s->restart.to);
    s->restart.wanted = false;
    survive_handed_over(s, code ? strerror(-code) : "");
    if (code)
        return;
    access_log_stop(&s->log);
    log_info("restart: %u WebSockets are left to the next process", s->open);
    _exit(0);
}

void restart_hand_over(struct supervisor *s, int fd)
{
    s->restart.to = fd;
    s->restart.until_ms = clock_mono_ms() + QUIET_MS;
    ev_timer_init(&s->restart.look, on_look, 0, LOOK_S);
    ev_timer_again(s->loop, &s->restart.look);
}

/* ---- taking over ---- */

void restart_take_listeners(const struct custodian *c, int listening[2])
{
    struct parcel p;
    char why[300];
    listening[0] = listening[1] = -1;
    if (c->restart.box < 0 || parcel_look(c->restart.box, &p, why, sizeof why) <= 0)
        return;
    listening[0] = p.intake;
    listening[1] = p.rpc;
    p.intake = p.rpc = -1;
    parcel_close(&p);
}

/* What cannot be restored: the reason was found before anything has begun. */
static void refuse_parcel(struct parcel_items *items, const char *why)
{
    const unsigned notified = parcel_refuse(items);
    log_error("restart: what the process before has left cannot be taken over: %s; %u clients are "
              "told to reconnect, other connections are closed",
              why, notified);
}

static void take_over(struct supervisor *s, struct parcel *p, bool give_up)
{
    char why[400] = "it has killed this process again and again";
    struct parcel_items items;
    struct carried c;
    if (parcel_open(p, &items, why, sizeof why)) {
        refuse_parcel(&items, why);
        return;
    }
    const struct carry_moved moved = {items.moved, items.n};
    if (give_up || carry_restore_moved(s, p->block, &moved, &c, why, sizeof why)) {
        refuse_parcel(&items, why);
        return;
    }
    parcel_forget(&items);
    log_info("restart: polder-supervisor %s goes on where %s has ended, with %u WebSockets%s; "
             "messages waited for %.1f ms",
             supervisor_version(), c.version, s->open,
             c.ended ? " (others were of routes that are gone)" : "",
             (double)(clock_mono_ns() - c.started_ns) / 1e6);
}

bool restart_resume(struct supervisor *s, int box, bool give_up)
{
    struct parcel p;
    struct parcel_items none = {0};
    char why[300];
    const int code = box >= 0 ? parcel_look(box, &p, why, sizeof why) : 0;
    if (code > 0) {
        take_over(s, &p, give_up);
        parcel_close(&p);
    } else if (code < 0) {
        refuse_parcel(&none, why);
    }
    if (code)
        parcel_take(box); /* from here on only what is ours counts */
    die_here(DIE_TAKEN);
    return code != 0;
}
