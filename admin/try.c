/* SPDX-License-Identifier: BSD-2-Clause */
/* try: limit try begins at once and counts for a while; the report is asked for when that is over.
 * An interrupt of polderctl meanwhile does not end it. */
#include "admin/polderctl.h"
#include "polder/clock.h"
#include "polder/rpc_in.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#define RESPAWN_MS 5000 /* control may have died, and be back soon */

static void sleep_ms(uint64_t ms)
{
    struct timespec left = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left))
        ;
}

static int ask(const struct ctl_try *t, unsigned timeout_ms, struct ctl_answer *report)
{
    struct rpc_out params;
    const uint64_t end_ms = clock_mono_ms() + RESPAWN_MS;
    int status;
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    rpc_out_str(&params, "name", t->name);
    rpc_out_end(&params);
    while ((status = ctl_call(t->socket, RPC_METHOD_LIMIT_TRY, &params, timeout_ms, report)) ==
               CTL_NO_DAEMON &&
           clock_mono_ms() < end_ms) {
        ctl_answer_free(report);
        sleep_ms(200);
    }
    rpc_out_fini(&params);
    return status;
}

bool try_begun(const struct ctl_answer *answer, struct ctl_try *t)
{
    return rpc_in_flag(answer->result, "begun") &&
           rpc_in_text(answer->result, "name", t->name, sizeof t->name) > 0 &&
           rpc_in_u64(answer->result, "run", UINT64_MAX, &t->run) == 0 &&
           rpc_in_u64(answer->result, "left_ms", UINT64_MAX, &t->left_ms) == 0;
}

int try_report(struct ctl_try *t, unsigned timeout_ms, struct ctl_answer *report)
{
    for (;;) {
        uint64_t run = 0;
        sleep_ms(t->left_ms + 1);
        const int status = ask(t, timeout_ms, report);
        if (status || report->error->type != MSGPACK_OBJECT_NIL)
            return status;
        if (rpc_in_u64(report->result, "run", UINT64_MAX, &run) || run != t->run) {
            snprintf(report->why, sizeof report->why,
                     "limit \"%.64s\": another try has taken the place of this one", t->name);
            return CTL_FAILED;
        }
        if (rpc_in_u64(report->result, "left_ms", UINT64_MAX, &t->left_ms) || t->left_ms == 0)
            return CTL_DONE;
        ctl_answer_free(report);
    }
}
