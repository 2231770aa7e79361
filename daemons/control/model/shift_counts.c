/* SPDX-License-Identifier: BSD-2-Clause */
/* shift_counts: what all processes have counted of both sides of a shift; see shift.h. */
#include "daemons/control/control.h"
#include "daemons/control/model/shift.h"
#include "polder/server_check.h"
#include "polder/server_state.h"

#include <string.h>

static bool is_unconnected(unsigned reason)
{
    return reason == SERVER_REFUSED || reason == SERVER_UNREACHABLE ||
           reason == SERVER_NO_ADDRESS || reason == SERVER_CONNECT_TIMEOUT;
}

static enum shift_out out_of(const struct server_row *row)
{
    const struct server_check check = server_check_read(row);
    const struct server_view view = server_view(row);
    if (check.down)
        return check.last == SERVER_CHECK_CONNECT || check.last == SERVER_CHECK_NO_ADDRESS
                   ? SHIFT_OUT_UNREACHABLE
                   : SHIFT_OUT_CHECKS;
    return view.state == SERVER_DOWN && !is_unconnected(view.reason) ? SHIFT_OUT_FAILURES
                                                                     : SHIFT_IN;
}

static void add_state(const struct server_row *row, struct shift_counts *to)
{
    to->up += !row || server_is_up(row);
    if (!row)
        return;
    to->out = out_of(row); /* the new side is one server */
    for (unsigned i = SERVER_CHECK_PASSED + 1; i < SERVER_CHECK_RESULTS; i++)
        to->failed_checks += atomic_load(&row->checks[i]);
}

static void add_server(const struct control *c, const struct config_server *s,
                       struct shift_counts *to)
{
    const uint64_t id = stats_server_id(s);
    const struct server_row *row = server_find(c->shared->servers, id);
    struct stats_server sums;
    add_state(row, to);
    stats_server_of(c->shared->stats, id, s->index, &sums);
    to->requests += sums.requests + (row ? atomic_load(&row->upgrades) : 0);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        to->bucket[i] += sums.latency.bucket[i];
    to->ejections += row ? atomic_load(&row->ejections) : 0;
    for (unsigned i = 1; row && i < SERVER_REASONS; i++) {
        const uint64_t n = i == SERVER_OUTLIER ? 0 : atomic_load(&row->errors[i]);
        to->errors += n;
        to->requests += is_unconnected(i) ? n : 0; /* it was not sent one */
        to->unconnected += is_unconnected(i) ? n : 0;
    }
}

void shift_count(const struct control *c, const struct config_upstream *u, uint32_t at,
                 struct shift_counts sides[SHIFT_SIDES])
{
    memset(sides, 0, SHIFT_SIDES * sizeof *sides);
    for (uint32_t i = 0; i < u->n_servers; i++)
        add_server(c, &u->servers[i], &sides[i == at ? SHIFT_NEW : SHIFT_OTHER]);
}
