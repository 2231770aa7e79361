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
/* Control is replaced within some ten ms; a service manager starts a dead daemon again within some
 * hundred. */
#define SILENT_MS 10000

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

/* It has not counted so many: it is another one. */
static bool is_anew(const struct ctl_answer *answer, uint64_t number)
{
    uint64_t begun;
    return answer->error->type == MSGPACK_OBJECT_NIL &&
           rpc_in_u64(answer->result, "begun", UINT32_MAX, &begun) == 0 &&
           (int32_t)((uint32_t)begun - (uint32_t)number) < 0;
}

static int give_up(struct ctl_answer *answer, int status, const char *what)
{
    snprintf(answer->why, sizeof answer->why, "%s", what);
    return status;
}

static int give_up_silent(struct ctl_answer *answer, uint64_t silent_ms)
{
    char what[160];
    snprintf(what, sizeof what,
             "polderd has not answered for %llu s on the way of the upgrade: it may have died; see "
             "its log, and systemctl status polder",
             (unsigned long long)silent_ms / 1000);
    return give_up(answer, CTL_NO_DAEMON, what);
}

int upgrade_follow(const char *socket, uint64_t number, unsigned timeout_ms,
                   struct ctl_answer *answer)
{
    uint64_t answered_ms = clock_mono_ms();
    const uint64_t until_ms = answered_ms + timeout_ms;
    const uint64_t silent_ms = timeout_ms < SILENT_MS ? timeout_ms : SILENT_MS;
    for (;;) {
        const int status = ask(socket, answer);
        if (!status && is_over(answer, number))
            return status;
        if (!status && is_anew(answer, number))
            return give_up(answer, CTL_FAILED,
                           "polderd was started anew before the upgrade was over: it, or the new "
                           "program, has died on the way; see its log");
        if (status && status != CTL_NO_DAEMON)
            return status;
        answered_ms = status ? answered_ms : clock_mono_ms();
        if (status && clock_mono_ms() >= answered_ms + silent_ms)
            return give_up_silent(answer, silent_ms);
        if (clock_mono_ms() >= until_ms)
            return status ? status
                          : give_up(answer, CTL_FAILED,
                                    "the upgrade is not over yet; see polderctl upgrade --state");
        ctl_answer_free(answer);
        sleep_ms(LOOK_MS);
    }
}

bool upgrade_failed(const struct ctl_answer *answer)
{
    return answer->error->type == MSGPACK_OBJECT_NIL && text_is(answer, "failed");
}

/* ---- both daemons ---- */

static void put_polderd(struct rpc_out *o, int status, const struct ctl_answer *answer)
{
    char message[1200];
    const bool refused = !status && answer->error->type != MSGPACK_OBJECT_NIL;
    if (!status && !refused) {
        const msgpack_object_map *map = &answer->result->via.map;
        for (uint32_t i = 0; answer->result->type == MSGPACK_OBJECT_MAP && i < map->size; i++) {
            const msgpack_object_str *key = &map->ptr[i].key.via.str;
            snprintf(message, sizeof message, "%.*s", (int)key->size, key->ptr);
            rpc_out_object(o, message, &map->ptr[i].val);
        }
        return;
    }
    if (status || rpc_in_text(answer->error, "message", message, sizeof message) < 0)
        snprintf(message, sizeof message, "%s", status ? answer->why : "see the log");
    rpc_out_str(o, "upgrade", status == CTL_NO_DAEMON ? "unknown" : "failed");
    rpc_out_str(o, "message", message);
}

bool upgrade_print_json(FILE *to, int status, const struct ctl_answer *answer,
                        const struct ws_upgrade *websockets)
{
    struct rpc_out o;
    msgpack_unpacked whole;
    rpc_out_init(&o);
    rpc_out_map(&o, NULL);
    put_polderd(&o, status, answer);
    ws_upgrade_put(websockets, &o, "supervisor");
    rpc_out_end(&o);
    msgpack_unpacked_init(&whole);
    const bool good =
        !o.failed &&
        msgpack_unpack_next(&whole, o.buffer.data, o.buffer.size, NULL) == MSGPACK_UNPACK_SUCCESS &&
        json_print(to, &whole.data) && !fflush(to);
    msgpack_unpacked_destroy(&whole);
    rpc_out_fini(&o);
    return good;
}
