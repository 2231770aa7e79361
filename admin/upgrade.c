/* SPDX-License-Identifier: BSD-2-Clause */
/* upgrade: upgrade, and a reload that becomes one, begin at once; control is replaced on the way, so
 * the state is asked for until that upgrade is over. An interrupt of polderctl does not end it. */
#include "admin/polderctl.h"
#include "polder/clock.h"
#include "polder/rpc_in.h"

#include <string.h>
#include <time.h>

#define LOOK_MS 100
#define CALL_MS 5000

static void sleep_ms(long ms)
{
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static int ask(const char *socket, struct ctl_answer *answer)
{
    struct rpc_out params;
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    rpc_out_bool(&params, "state", true);
    rpc_out_end(&params);
    const int status = ctl_call(socket, RPC_METHOD_UPGRADE, &params, CALL_MS, answer);
    rpc_out_fini(&params);
    return status;
}

static bool text_is(const struct ctl_answer *answer, const char *wanted)
{
    char text[32];
    return rpc_in_text(answer->result, "upgrade", text, sizeof text) > 0 && !strcmp(text, wanted);
}

bool upgrade_begun(const struct ctl_answer *answer, uint64_t *number)
{
    return answer->error->type == MSGPACK_OBJECT_NIL && text_is(answer, "asked") &&
           rpc_in_u64(answer->result, "number", UINT32_MAX, number) == 0;
}

static bool is_over(const struct ctl_answer *answer, uint64_t number)
{
    uint64_t done;
    return answer->error->type != MSGPACK_OBJECT_NIL ||
           (rpc_in_u64(answer->result, "number", UINT32_MAX, &done) == 0 &&
            (int32_t)((uint32_t)done - (uint32_t)number) >= 0);
}

int upgrade_follow(const char *socket, uint64_t number, unsigned timeout_ms,
                   struct ctl_answer *answer)
{
    const uint64_t until_ms = clock_mono_ms() + timeout_ms;
    for (;;) {
        const int status = ask(socket, answer);
        if ((!status && is_over(answer, number)) || (status && status != CTL_NO_DAEMON))
            return status;
        if (clock_mono_ms() >= until_ms) {
            if (!status)
                snprintf(answer->why, sizeof answer->why,
                         "the upgrade is not over yet; see polderctl upgrade --state");
            return status ? status : CTL_FAILED;
        }
        ctl_answer_free(answer);
        sleep_ms(LOOK_MS);
    }
}

bool upgrade_failed(const struct ctl_answer *answer)
{
    return answer->error->type == MSGPACK_OBJECT_NIL && text_is(answer, "failed");
}
