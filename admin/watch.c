/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * watch: asks control several times a second for what has happened since, and prints one line for
 * each event until it is interrupted. Where the daemon goes away it waits for the next one.
 */
#include "admin/polderctl.h"
#include "admin/tables/tables.h"
#include "polder/rpc_in.h"
#include "polder/units.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#define EVERY_MS 250
#define AGAIN_MS 1000 /* while no daemon answers */

struct watch {
    const struct ctl_run *run;
    struct rpc_out params;    /* that the user gave */
    msgpack_unpacked request; /* the same, unpacked: its texts are in params */
    uint64_t requests, events;
    bool begun; /* those numbers are known */
    bool waits; /* no daemon answers, and that was said */
};

/* ---- lines ---- */

static uint64_t number_of(const msgpack_object *map, const char *key)
{
    uint64_t n = 0;
    return rpc_in_u64(map, key, UINT64_MAX, &n) == 0 ? n : 0;
}

/* "14:03:27.120", local time. */
static void put_time(const msgpack_object *map)
{
    const double s = rpc_in_f64(map, "time", 0);
    const time_t at = (time_t)s;
    struct tm tm;
    char text[32] = "-";
    if (localtime_r(&at, &tm))
        strftime(text, sizeof text, "%H:%M:%S", &tm);
    printf("%s.%03u  ", text, (unsigned)((s - (double)at) * 1000) % 1000);
}

static void put_decisions(const msgpack_object *q)
{
    char text[TABLE_CELL];
    printf("  cache %s", table_text_of(q, "cache", text));
    if (*table_text_of(q, "detail", text))
        printf(" (%s)", text);
    if (strcmp(table_text_of(q, "limit_decision", text), "none")) {
        printf("  %s by", text);
        printf(" %s", table_text_of(q, "limit", text));
    }
    printf("  key %s", table_text_of(q, "key", text));
}

static void put_request(const msgpack_object *q)
{
    char method[TABLE_CELL], target[TABLE_CELL], took[UNITS_TEXT] = "-";
    const double s = rpc_in_f64(q, "seconds", 0);
    if (s > 0)
        units_seconds(s, took);
    table_text_of(q, "method", method);
    table_text_of(q, "target", target);
    printf("%-10s  %s %s  %" PRIu64 " in %s", "requests", *method ? method : "-",
           *target ? target : "-", number_of(q, "status"), took);
    put_decisions(q);
    if (number_of(q, "stands_for") > 1)
        printf("  1 of %" PRIu64, number_of(q, "stands_for"));
}

static void put_event(const msgpack_object *e)
{
    char text[TABLE_CELL];
    printf("%-10s", table_text_of(e, "noun", text));
    printf("  %s", table_text_of(e, "what", text));
    if (*table_text_of(e, "subject", text))
        printf(" %s", text);
    if (*table_text_of(e, "detail", text))
        printf(": %s", text);
}

static bool put_one(const struct watch *w, const msgpack_object *o, bool request)
{
    if (w->run->json)
        return json_print_line(stdout, o);
    put_time(o);
    if (request)
        put_request(o);
    else
        put_event(o);
    return putchar('\n') != EOF;
}

static const msgpack_object *list_of(const msgpack_object *result, const char *name, uint32_t *n)
{
    const msgpack_object *o = rpc_in_get(result, name);
    *n = o && o->type == MSGPACK_OBJECT_ARRAY ? o->via.array.size : 0;
    return *n ? o->via.array.ptr : NULL;
}

/* Both lists are in the order of time. */
static bool put_all(const struct watch *w, const msgpack_object *result)
{
    uint32_t n_requests, n_events;
    const msgpack_object *requests = list_of(result, "requests", &n_requests),
                         *events = list_of(result, "events", &n_events);
    bool good = true;
    while (good && n_requests + n_events) {
        const bool request = n_requests && (!n_events || rpc_in_f64(requests, "time", 0) <=
                                                             rpc_in_f64(events, "time", 0));
        good = put_one(w, request ? requests : events, request);
        requests += request;
        n_requests -= request;
        events += !request;
        n_events -= !request;
    }
    return good && fflush(stdout) == 0;
}

static void tell_lost(const msgpack_object *result)
{
    static const char *const keys[] = {"lost_requests", "lost_events"};
    static const char *const names[] = {"requests", "events"};
    for (size_t i = 0; i < 2; i++)
        if (number_of(result, keys[i]))
            fprintf(stderr, "polderctl: %" PRIu64 " %s came too fast and are not shown\n",
                    number_of(result, keys[i]), names[i]);
}

/* ---- questions ---- */

static bool watch_open(struct watch *w, char *why)
{
    const msgpack_sbuffer *b = &w->params.buffer;
    msgpack_unpacked_init(&w->request);
    return command_params(RPC_METHOD_WATCH, w->run->words, w->run->n, &w->params, why) &&
           msgpack_unpack_next(&w->request, b->data, b->size, NULL) == MSGPACK_UNPACK_SUCCESS;
}

static int ask(const struct watch *w, struct ctl_answer *answer)
{
    static const char *const keys[] = {"requests", "events"};
    const msgpack_object *request = &w->request.data, *nouns = rpc_in_get(request, "noun");
    struct rpc_out params;
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    if (nouns)
        rpc_out_object(&params, "noun", nouns);
    for (size_t i = 0; i < 2; i++) {
        const msgpack_object *from = rpc_in_get(request, keys[i]);
        if (w->begun)
            rpc_out_u64(&params, keys[i], i ? w->events : w->requests);
        else if (from)
            rpc_out_object(&params, keys[i], from);
    }
    rpc_out_end(&params);
    const int status =
        ctl_call(w->run->socket, RPC_METHOD_WATCH, &params, w->run->timeout_ms, answer);
    rpc_out_fini(&params);
    return status;
}

static void wait_ms(long ms)
{
    const struct timespec span = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&span, NULL);
}

/* The daemon is away. False: it never was there. */
static bool wait_for_daemon(struct watch *w, const struct ctl_answer *answer)
{
    if (!w->begun)
        return false;
    if (!w->waits)
        fprintf(stderr, "polderctl: %s; waiting for it\n", answer->why);
    w->waits = true;
    wait_ms(AGAIN_MS);
    return true;
}

static int turn(struct watch *w)
{
    struct ctl_answer answer;
    int status = ask(w, &answer);
    if (status == CTL_NO_DAEMON && wait_for_daemon(w, &answer)) {
        status = CTL_DONE;
    } else if (status) {
        fprintf(stderr, "polderctl: %s\n", answer.why);
    } else if (answer.error->type != MSGPACK_OBJECT_NIL) {
        status = ctl_show_error(&answer);
    } else {
        w->requests = number_of(answer.result, "next_request");
        w->events = number_of(answer.result, "next_event");
        w->begun = true;
        w->waits = false;
        tell_lost(answer.result);
        status = put_all(w, answer.result) ? CTL_DONE : CTL_FAILED;
        wait_ms(EVERY_MS);
    }
    ctl_answer_free(&answer);
    return status;
}

int watch_run(const struct ctl_run *run)
{
    struct watch w = {.run = run};
    char why[COMMAND_WHY];
    int status = CTL_USAGE;
    if (!watch_open(&w, why))
        fprintf(stderr, "polderctl: %s\n", why);
    else
        while ((status = turn(&w)) == CTL_DONE)
            ;
    msgpack_unpacked_destroy(&w.request);
    rpc_out_fini(&w.params);
    return status;
}
