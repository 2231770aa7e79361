/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_end: a host that has not reached the store for fleet.slots_keep holds nothing any more: its
 * WebSockets that the fleet counts are closed. */
#include "daemons/supervisor/fleet.h"
#include "daemons/supervisor/supervisor.h"
#include "polder/clock.h"
#include "polder/log.h"

#define LOOK_MS 250

static bool is_open_for_all(const struct supervisor *s, const struct session *x)
{
    const uint8_t of_route = 1 << WS_FLEET_ROUTE | 1 << WS_FLEET_CLIENT;
    return (!(x->fleet & of_route) || session_values(s, x)->cut_off == CONFIG_LIMIT_OPEN) &&
           (!(x->fleet & ~of_route) || s->values.cut_off == CONFIG_LIMIT_OPEN);
}

static void on_look(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    struct fleet_slots *p = s->fleet.page;
    uint32_t n = 0;
    (void)w, (void)revents;
    if (!fleet_slots_ended(p, clock_mono_ms()))
        return;
    for (struct session *x = LIST_FIRST(&s->sessions), *next; x; x = next) {
        next = LIST_NEXT(x, entry);
        if (x->state == SESSION_CLOSING || is_open_for_all(s, x))
            continue;
        session_close(s, x, 1013, "too many connections; try again later", END_SHED);
        n++;
    }
    if (!n)
        return;
    atomic_fetch_add(&p->ended, n);
    log_warning(
        "admit: %u WebSockets are told to connect again: this host has not reached the store "
        "of the fleet for fleet.slots_keep, and others may have their places",
        n);
}

void ws_fleet_end_begin(struct supervisor *s)
{
    ev_init(&s->fleet.look, on_look);
    s->fleet.look.repeat = LOOK_MS / 1000.;
}
