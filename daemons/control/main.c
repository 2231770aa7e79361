/* SPDX-License-Identifier: BSD-2-Clause */
/* main: control's life from fork to exit, and how it follows the configuration. */
#include "daemons/control/admin_socket.h"
#include "daemons/control/control.h"
#include "daemons/control/dispatch.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/model/alerts.h"
#include "daemons/control/model/checks.h"
#include "daemons/control/model/events.h"
#include "daemons/control/model/fleet_limits.h"
#include "daemons/control/model/fleet_member.h"
#include "daemons/control/model/health.h"
#include "daemons/control/model/history.h"
#include "daemons/control/model/limits.h"
#include "daemons/control/model/outliers.h"
#include "daemons/control/model/quarantine.h"
#include "daemons/control/model/route_use.h"
#include "daemons/control/model/savings.h"
#include "daemons/control/model/servers.h"
#include "daemons/control/model/settings.h"
#include "daemons/control/model/shares.h"
#include "daemons/control/model/shift.h"
#include "daemons/control/model/stickiness.h"
#include "daemons/control/model/windows.h"
#include "daemons/control/model/verification.h"
#include "daemons/control/ops/ops.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/log.h"
#include "polder/sandbox.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define TICK_S     1.
#define STARTING_S .05 /* until all is ready: the master waits for it */
#define LAST_TURNS 16  /* of the loop, to get the last answers out */

struct life {
    struct control control;
    struct admin_socket admin;
    struct ops *ops;
    ev_io event;
    ev_timer tick;
    ev_signal term;
};

static void adopt_region(struct control *c, uint32_t region)
{
    const bool first = c->region == UINT32_MAX;
    const struct config_region *old = first ? NULL : c->shared->region[c->region];
    c->region = region;
    c->config = c->shared->region[region]->config;
    c->runtime = &c->shared->region[region]->runtime;
    shares_follow(c);
    if (first) { /* it starts, or has died and the page is what runs */
        settings_forget_old(c);
        return;
    }
    settings_carry_over(c, old);
    fleet_limits_carry_over(c->shared, old->config, c->config);
    shift_adopt(c);
}

static void follow(struct life *l)
{
    struct control *c = &l->control;
    const uint32_t region = atomic_load_explicit(&c->shared->proc->region, memory_order_acquire);
    if (region != c->region && region < SHARED_REGIONS && c->shared->region[region]->config)
        adopt_region(c, region);
    admin_socket_follow(&l->admin, c->loop, c->config, dispatch_call, c);
    ops_follow(l->ops);
    checks_follow(c);
    reload_follow(c);
    log_reopen_follow(c);
    quarantine_follow(c);
    fleet_member_follow(c);
    atomic_store(&c->shared->proc->slot[c->process->slot].followed,
                 c->shared->region[c->region]->generation);
}

static void on_event(struct ev_loop *loop, ev_io *w, int revents)
{
    struct life *l = w->data;
    uint64_t count;
    (void)loop;
    (void)revents;
    const ssize_t n = read(w->fd, &count, sizeof count);
    (void)n; /* only there to be woken */
    process_heartbeat(l->control.process, clock_mono_ms());
    follow(l);
}

static void follow_conditions(struct control *c)
{
    health_follow(c);
    if (!settings_are_handed_on(c))
        shift_follow(c);
    stickiness_follow(c);
    servers_follow(c);
    events_follow(c);
}

static void on_tick(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct life *l = w->data;
    struct control *c = &l->control;
    (void)revents;
    process_heartbeat(c->process, clock_mono_ms());
    follow(l);
    limits_follow(c);
    outliers_follow(c);
    savings_follow(c);
    shares_follow(c);
    windows_follow(c);
    route_use_follow(c);
    verification_follow(c);
    follow_conditions(c);
    history_follow(c);
    alerts_follow(c);
    ops_tick(l->ops);
    if (w->repeat < TICK_S && atomic_load(&c->shared->proc->was_ready)) {
        w->repeat = TICK_S;
        ev_timer_again(loop, w);
    }
}

static void on_term(struct ev_loop *loop, ev_signal *w, int revents)
{
    (void)w;
    (void)revents;
    ev_break(loop, EVBREAK_ALL);
}

static bool loop_open(struct life *l)
{
    struct control *c = &l->control;
    c->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (!c->loop)
        return false;
    ev_io_init(&l->event, on_event, c->shared->control_event, EV_READ);
    ev_timer_init(&l->tick, on_tick, STARTING_S, STARTING_S);
    ev_signal_init(&l->term, on_term, SIGTERM);
    l->event.data = l->tick.data = l;
    ev_io_start(c->loop, &l->event);
    ev_timer_start(c->loop, &l->tick);
    ev_signal_start(c->loop, &l->term);
    return true;
}

/* A supervisor that has begun without us, or was there before us: it takes the values that run. */
static void on_meeting(void *arg)
{
    struct control *c = arg;
    const enum log_level level = (enum log_level)atomic_load(&c->shared->proc->log_level);
    servers_tell_weights(c);
    peers_tell_log_level(&c->peers, log_level_word(level));
}

static bool life_init(struct life *l, const struct process *process)
{
    struct control *c = &l->control;
    c->process = process;
    c->shared = process->shared;
    c->stats = &c->shared->stats[process->slot];
    c->region = UINT32_MAX;
    c->config = process->region->config;
    c->runtime = &process->region->runtime;
    c->route_use = route_use_new();
    if (!loop_open(l) || !(c->windows = windows_new()) || !(c->history = history_new(c)) ||
        !(c->alerts = alerts_new()) || !(l->ops = ops_new(c)))
        return false;
    c->events = events_new();
    c->checks = checks_new();
    c->outliers = outliers_new();
    peers_init(&c->peers, c->loop, c->config->runtime_dir);
    peers_on_meeting(&c->peers, on_meeting, c);
    return true;
}

/* What comes from now on is for the next control: it is not to be seen without the fleet, nor to begin it
 * anew. */
static void stop_following(struct life *l)
{
    ev_io_stop(l->control.loop, &l->event);
    ev_timer_stop(l->control.loop, &l->tick);
    admin_socket_take_no_more(&l->admin);
}

/* What the last turns may still use goes behind them. */
static void life_fini(struct life *l)
{
    struct control *c = &l->control;
    stop_following(l);
    fleet_member_free(c);
    peers_fini(&c->peers);
    for (int i = 0; i < LAST_TURNS; i++)
        ev_run(c->loop, EVRUN_NOWAIT);
    admin_socket_close(&l->admin);
    ops_free(l->ops);
    checks_free(c->checks);
    outliers_free(c->outliers);
    ev_signal_stop(c->loop, &l->term);
    ev_loop_destroy(c->loop);
    windows_free(c->windows);
    route_use_free(c->route_use);
    free(c->report);
    events_free(c->events);
    history_free(c->history);
    alerts_free(c->alerts);
}

int control_run(const struct process *process)
{
    struct life l = {0};
    process_start(process, "control");
    if (!life_init(&l, process)) {
        log_error("control: cannot start: no event loop, or no memory");
        return 1;
    }
    follow(&l);
    follow_conditions(&l.control);
    savings_follow(&l.control);
    windows_follow(&l.control);
    route_use_follow(&l.control);
    process_ready(process);
    sandbox_enter_or_warn(SANDBOX_CONTROL, l.control.config->sandbox);
    ev_run(l.control.loop, 0);
    life_fini(&l);
    return 0;
}
