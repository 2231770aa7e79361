/* SPDX-License-Identifier: BSD-2-Clause */
/* poll: poll.top, the clients that ask most often for polled routes. */
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "polder/limit_top.h"
#include "polder/stats.h"

#include <string.h>

#define TOP_ROWS 20

static void put_row(const struct control *c, struct rpc_out *o, const struct limit_top_row *row)
{
    const size_t len = row->who_len < sizeof row->who ? row->who_len : sizeof row->who;
    const char *space = memchr(row->who, ' ', len);
    const size_t client = space ? (size_t)(space - row->who) : len;
    rpc_out_map(o, NULL);
    rpc_out_strn(o, "client", row->who, client);
    rpc_out_strn(o, "path", space ? space + 1 : "", space ? len - client - 1 : 0);
    rpc_out_u64(o, "requests", row->requests);
    rpc_out_u64(o, "overcount", row->error);
    rpc_out_f64(o, "cost", (double)row->requests * c->config->cost.upstream_call);
    rpc_out_end(o);
}

void poll_top(struct control *c, const struct rpc_call *call)
{
    struct limit_top_row row[TOP_ROWS];
    const struct limit_top_list list = {LIMIT_TOP_POLL, 0};
    const size_t n = limit_top_read(c->shared->limits, list, LIMIT_TOP_HEAVIEST, row, TOP_ROWS);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "currency", c->config->cost.currency);
    rpc_out_list(o, "clients");
    for (size_t i = 0; i < n; i++)
        put_row(c, o, &row[i]);
    rpc_out_end(o);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}
