/* SPDX-License-Identifier: BSD-2-Clause */
/* verify: the run of polderctl verify, from the token to goodbye. */
#include "admin/verify/verify.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/rpc_in.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define THRESHOLD_DEFAULT 85
#define WAIT_DEFAULT_MS   120000

/* ---- the run ---- */

static int begin(struct verify *v)
{
    struct rpc_out params;
    char message[1024] = "";
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    rpc_out_end(&params);
    const int status = ctl_call(v->socket, RPC_METHOD_VERIFY, &params, v->timeout_ms, &v->plan);
    rpc_out_fini(&params);
    if (status) {
        fprintf(stderr, "polderctl: %s\n", v->plan.why);
        return status;
    }
    if (v->plan.error->type != MSGPACK_OBJECT_NIL ||
        rpc_in_text(v->plan.result, "token", v->token, sizeof v->token) <= 0) {
        rpc_in_text(v->plan.error, "message", message, sizeof message);
        fprintf(stderr, "polderctl: verify: %s\n", *message ? message : "no token came");
        return CTL_FAILED;
    }
    v->kept_ms = clock_mono_ms();
    return 0;
}

static void check_all(struct verify *v)
{
    static const struct {
        enum optimisation of;
        void (*check)(struct verify *v);
    } checks[] = {{CACHING, check_caching},
                  {POLLING, check_polling},
                  {RATE_LIMITING, check_limits},
                  {WEBSOCKET, check_websockets}};
    for (size_t i = 0; i < sizeof checks / sizeof *checks && verify_goes_on(v); i++)
        if (report_wants(v, checks[i].of))
            checks[i].check(v);
}

static int conclude(const struct verify *v)
{
    if (lease_is_interrupted()) {
        fputs("polderctl: verify: interrupted; all is cleaned up\n", stderr);
        return CTL_FAILED;
    }
    if (v->lost) {
        fputs("polderctl: verify: the token is not good any more: control was away for too long, "
              "or Polder was restarted\n",
              stderr);
        return CTL_FAILED;
    }
    report_print(v);
    return report_score(v) >= (int)v->threshold ? CTL_DONE : CTL_FAILED;
}

static bool read_options(struct verify *v, const msgpack_object *params)
{
    uint64_t threshold = THRESHOLD_DEFAULT;
    char wait[32];
    const int given = rpc_in_u64(params, "threshold", 100, &threshold);
    v->threshold = (unsigned)threshold;
    v->wait_ms = WAIT_DEFAULT_MS;
    if (given && given != -ENOENT) {
        fputs("polderctl: verify: --threshold is a number up to 100\n", stderr);
        return false;
    }
    const int waits = rpc_in_text(params, "wait", wait, sizeof wait);
    if (waits >= 0 && config_parse_duration(wait, &v->wait_ms)) {
        fputs("polderctl: verify: --wait takes a duration such as 30s or 5m\n", stderr);
        return false;
    }
    const int only = rpc_in_text(params, "only", v->only, sizeof v->only);
    if (only == -EINVAL || !report_knows(v->only)) {
        fputs("polderctl: verify: --only takes a list such as polling,websocket,caching,"
              "rateLimiting\n",
              stderr);
        return false;
    }
    return true;
}

int verify_run(const char *socket, unsigned timeout_ms, bool json, const struct rpc_out *params)
{
    struct verify v = {.socket = socket, .timeout_ms = timeout_ms, .json = json};
    msgpack_unpacked options;
    char url[VERIFY_PATH];
    msgpack_unpacked_init(&options);
    msgpack_unpack_next(&options, params->buffer.data, params->buffer.size, NULL);
    const bool given = rpc_in_text(&options.data, "url", url, sizeof url) > 0;
    int status = read_options(&v, &options.data) ? 0 : CTL_USAGE;
    lease_watch_signals();
    if (!status)
        status = begin(&v);
    if (*v.token && !(status = plan_read(&v, given ? url : NULL)))
        check_all(&v);
    http_close(&v);
    if (*v.token)
        lease_end(&v);
    if (!status)
        status = conclude(&v);
    plan_free(&v);
    msgpack_unpacked_destroy(&options);
    return status;
}
