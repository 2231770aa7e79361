/* SPDX-License-Identifier: BSD-2-Clause */
/* lease: the token goes on being good while the checks last, and ends with them. */
#include "admin/verify/verify.h"
#include "polder/clock.h"

#include <signal.h>
#include <time.h>

#define KEEP_MS 4000 /* VERIFY_LEASE_MS has room for three that fail */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    interrupted = number;
}

static bool step(struct verify *v, const char *forget, bool end)
{
    struct rpc_out params;
    struct ctl_answer answer;
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    rpc_out_str(&params, "token", v->token);
    if (forget)
        rpc_out_str(&params, "forget", forget);
    if (end)
        rpc_out_bool(&params, "end", true);
    rpc_out_end(&params);
    const bool done =
        ctl_call(v->socket, RPC_METHOD_VERIFY_STEP, &params, v->timeout_ms, &answer) == 0 &&
        answer.error->type == MSGPACK_OBJECT_NIL;
    ctl_answer_free(&answer);
    rpc_out_fini(&params);
    return done;
}

void lease_end(struct verify *v)
{
    step(v, NULL, true);
}

void lease_watch_signals(void)
{
    const struct sigaction stop = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGHUP, &stop, NULL);
}

bool lease_is_interrupted(void)
{
    return interrupted != 0;
}

bool verify_forget(struct verify *v, const char *path)
{
    return step(v, path, false);
}

bool verify_goes_on(struct verify *v)
{
    const uint64_t now_ms = clock_mono_ms();
    if (!interrupted && !v->lost && now_ms - v->kept_ms >= KEEP_MS) {
        if (step(v, NULL, false))
            v->kept_ms = now_ms;
        else if (now_ms - v->kept_ms >= VERIFY_LEASE_MS)
            v->lost = true;
    }
    return !interrupted && !v->lost;
}

bool verify_wait(struct verify *v, uint64_t ms)
{
    const uint64_t until_ms = clock_mono_ms() + ms;
    for (;;) {
        const uint64_t now_ms = clock_mono_ms();
        if (!verify_goes_on(v))
            return false;
        if (now_ms >= until_ms)
            return true;
        const uint64_t left = until_ms - now_ms < 200 ? until_ms - now_ms : 200;
        nanosleep(&(struct timespec){0, (long)left * 1000000}, NULL);
    }
}
