/* SPDX-License-Identifier: BSD-2-Clause */
/* ws_upgrade: the part of upgrade that is polder-supervisor's: asked for before polderd's, which tells
 * it to read the configuration again. */
#include "admin/polderctl.h"
#include "polder/clock.h"
#include "polder/rpc_in.h"

#include <string.h>
#include <time.h>

#define LOOK_MS   50
#define CALL_MS   12000 /* the proof takes 6 s at most */
#define UNTIL_MS  30000 /* both of its processes */
#define SILENT_MS 10000

struct stats {
    char version[32], custodian[32], error[512];
    uint64_t pid, upgrades, failed;
    bool pending, differs;
};

static void take_error(const struct ctl_answer *answer, char *why, size_t size)
{
    if (rpc_in_text(answer->error, "message", why, size) < 0)
        snprintf(why, size, "see the log");
}

static int call(const char *socket, enum rpc_method method, struct ctl_answer *answer)
{
    struct rpc_out params;
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    rpc_out_end(&params);
    const int status = ctl_call(socket, method, &params, CALL_MS, answer);
    rpc_out_fini(&params);
    return status;
}

static void read_text(const msgpack_object *from, const char *key, char *out, size_t size)
{
    if (rpc_in_text(from, key, out, size) < 0)
        *out = 0;
}

/* False: nobody answers, and why. */
static bool ask(const char *socket, struct stats *s, char *why, size_t size)
{
    struct ctl_answer answer;
    const int status = call(socket, RPC_METHOD_WS_STATS, &answer);
    const bool good = !status && answer.error->type == MSGPACK_OBJECT_NIL;
    *s = (struct stats){.upgrades = 0};
    if (good) {
        *why = 0; /* of calls before, while control was replaced */
        read_text(answer.result, "version", s->version, sizeof s->version);
        read_text(answer.result, "custodian", s->custodian, sizeof s->custodian);
        read_text(answer.result, "upgradeError", s->error, sizeof s->error);
        rpc_in_u64(answer.result, "pid", UINT64_MAX, &s->pid);
        rpc_in_u64(answer.result, "upgrades", UINT64_MAX, &s->upgrades);
        rpc_in_u64(answer.result, "upgradesFailed", UINT64_MAX, &s->failed);
        s->pending = rpc_in_flag(answer.result, "custodianPending");
        s->differs = rpc_in_flag(answer.result, "programDiffers");
    } else if (status) {
        snprintf(why, size, "%s", answer.why);
    } else {
        take_error(&answer, why, size);
    }
    ctl_answer_free(&answer);
    return good;
}

/* False: it was refused, and why. */
static bool begin(const char *socket, struct ws_upgrade *u)
{
    struct ctl_answer answer;
    const int status = call(socket, RPC_METHOD_WS_UPGRADE, &answer);
    const bool good = !status && answer.error->type == MSGPACK_OBJECT_NIL;
    if (good)
        read_text(answer.result, "to", u->to, sizeof u->to);
    else if (status)
        snprintf(u->why, sizeof u->why, "%s", answer.why);
    else
        take_error(&answer, u->why, sizeof u->why);
    ctl_answer_free(&answer);
    return good;
}

/* Until the new program and its custodian are there, or are not going to be. */
static enum ws_upgraded follow(const char *socket, const struct stats *before, struct ws_upgrade *u)
{
    const struct timespec pause = {0, LOOK_MS * 1000000};
    uint64_t answered_ms = clock_mono_ms();
    const uint64_t until_ms = answered_ms + UNTIL_MS;
    struct stats now;
    do {
        nanosleep(&pause, NULL);
        if (!ask(socket, &now, u->why, sizeof u->why)) {
            if (clock_mono_ms() >= answered_ms + SILENT_MS)
                return WS_UPGRADE_FAILED; /* with why */
            continue;
        }
        answered_ms = clock_mono_ms();
        if (now.pid != before->pid) { /* an upgrade keeps it */
            snprintf(u->why, sizeof u->why, "it has died on the way, and %s was started",
                     now.version);
            return WS_UPGRADE_FAILED;
        }
        if (now.pending)
            continue;
        const bool replaced = now.upgrades != before->upgrades;
        if (replaced && !now.failed)
            return WS_UPGRADED;
        if (replaced || now.failed != before->failed) {
            snprintf(u->why, sizeof u->why, "%s", now.error);
            return WS_UPGRADE_FAILED;
        }
    } while (clock_mono_ms() < until_ms);
    snprintf(u->why, sizeof u->why, "it is not over yet; see polderctl ws stats");
    return WS_UPGRADE_FAILED;
}

void ws_upgrade(const char *socket, bool wait, struct ws_upgrade *u)
{
    struct stats before;
    *u = (struct ws_upgrade){.result = WS_UPGRADE_NONE};
    if (!ask(socket, &before, u->why, sizeof u->why))
        return;
    snprintf(u->from, sizeof u->from, "%s", before.version);
    snprintf(u->to, sizeof u->to, "%s", before.version);
    if (!before.differs)
        u->result = WS_UPGRADE_SAME;
    else if (!begin(socket, u))
        u->result = WS_UPGRADE_FAILED;
    else
        u->result = wait ? follow(socket, &before, u) : WS_UPGRADE_BEGUN;
}

void ws_upgrade_show(const struct ws_upgrade *u)
{
    fputs("polder-supervisor  ", stdout);
    switch (u->result) {
    case WS_UPGRADE_NONE:
        printf("left out: %s\n", u->why);
        break;
    case WS_UPGRADE_SAME:
        printf("is %s already, as on disk\n", u->from);
        break;
    case WS_UPGRADE_BEGUN:
        printf("asked, from %s to %s\n", u->from, u->to);
        break;
    case WS_UPGRADED:
        printf("ok, from %s to %s\n", u->from, u->to);
        break;
    case WS_UPGRADE_FAILED:
        printf("failed, %s goes on: %s\n", u->from, u->why);
        break;
    }
    fflush(stdout);
}

void ws_upgrade_put(const struct ws_upgrade *u, struct rpc_out *o, const char *key)
{
    static const char *const results[] = {[WS_UPGRADE_NONE] = "none",
                                          [WS_UPGRADE_SAME] = "same",
                                          [WS_UPGRADE_BEGUN] = "asked",
                                          [WS_UPGRADED] = "ok",
                                          [WS_UPGRADE_FAILED] = "failed"};
    rpc_out_map(o, key);
    rpc_out_str(o, "upgrade", results[u->result]);
    rpc_out_str(o, "from", u->from);
    rpc_out_str(o, "to", u->to);
    rpc_out_str(o, "message", u->why);
    rpc_out_end(o);
}
