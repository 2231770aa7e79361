/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_store: see fleet_store.h.
 *
 *   IDLE -> CONNECTING (the first connection: ROLE, INFO, SCRIPT LOAD)
 *        -> FOLLOWING  (the second) -> UP
 *
 * A failure of any kind, at any stage, ends both connections; the next server is tried after a
 * pause that grows with failures in a row.
 */
#include "daemons/control/model/fleet_store.h"
#include "daemons/control/model/store_link.h"
#include "polder/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_MS      1000
#define FOLLOW_MS       1000 /* that the server waits for an entry */
#define ENTRIES_AT_ONCE "256"
#define CONFIRM_MS      "500" /* less than it may take to answer */
#define PAUSE_FIRST_MS  100
#define PAUSE_MAX_MS    1000
#define SHA_LEN         40

enum stage { IDLE, CONNECTING, FOLLOWING, UP };

struct fleet_store {
    struct ev_loop *loop;
    const struct config_fleet *config;
    const char *const *scripts;
    const struct fleet_store_ops *ops;
    void *arg;
    enum stage stage;
    uint32_t at; /* of config->stores */
    uint64_t pause_ms;
    ev_timer timer; /* the pause, a failure that is to be told, or the end of patience */
    struct store_link commands, stream;
    char run_id[SHA_LEN + 1];
    char sha[FLEET_SCRIPTS][SHA_LEN + 1];
    uint32_t loaded;
    char why[STORE_REASON_SIZE]; /* the failure that is to be told */
    bool failed;                 /* tell it from the timer */
    int next; /* the server that is to be tried at once; -1: the next one of the list */
};

static const struct config_store *server(const struct fleet_store *s)
{
    return &s->config->stores[s->at];
}

const char *fleet_store_name(const struct fleet_store *s)
{
    return server(s)->text;
}

uint32_t fleet_store_at(const struct fleet_store *s)
{
    return s->at;
}

bool fleet_store_is_up(const struct fleet_store *s)
{
    return s->stage == UP && !s->failed;
}

static void timer_in(struct fleet_store *s, uint64_t ms)
{
    ev_timer_stop(s->loop, &s->timer);
    ev_timer_set(&s->timer, (double)ms / 1000, 0.);
    ev_timer_start(s->loop, &s->timer);
}

void fleet_store_fail(struct fleet_store *s, const char *why)
{
    if (s->failed || s->stage == IDLE)
        return;
    store_reason(s->why, why, server(s)->password);
    s->failed = true;
    timer_in(s, 0);
}

/* ---- the first steps of a connection ---- */

static bool is_error(struct fleet_store *s, const redisReply *r)
{
    if (!r)
        return true; /* the link has ended, which is told elsewhere */
    if (r->type == REDIS_REPLY_ERROR)
        store_link_fail(&s->commands, r->str);
    return r->type == REDIS_REPLY_ERROR;
}

static void on_role(void *arg, const redisReply *r)
{
    struct fleet_store *s = arg;
    if (is_error(s, r))
        return;
    if (r->type != REDIS_REPLY_ARRAY || !r->elements || r->element[0]->type != REDIS_REPLY_STRING)
        fleet_store_fail(s, "it answers ROLE as no Redis does");
    else if (strcmp(r->element[0]->str, "master") != 0)
        fleet_store_fail(s, "it is not the master");
}

static void on_info(void *arg, const redisReply *r)
{
    struct fleet_store *s = arg;
    if (is_error(s, r))
        return;
    static const char name[] = "run_id:";
    const char *at = r->type == REDIS_REPLY_STRING ? strstr(r->str, name) : NULL;
    if (!at) {
        fleet_store_fail(s, "it answers INFO as no Redis does");
        return;
    }
    at += sizeof name - 1;
    snprintf(s->run_id, sizeof s->run_id, "%.*s", (int)strcspn(at, "\r\n"), at);
}

static void on_loaded(void *arg, const redisReply *r)
{
    struct fleet_store *s = arg;
    if (is_error(s, r))
        return;
    if (r->type != REDIS_REPLY_STRING || r->len != SHA_LEN || s->loaded >= FLEET_SCRIPTS)
        fleet_store_fail(s, "it answers SCRIPT LOAD as no Redis does");
    else
        memcpy(s->sha[s->loaded++], r->str, SHA_LEN + 1);
}

/* All that was asked before has been answered. */
static void on_first(void *arg, const redisReply *r)
{
    struct fleet_store *s = arg;
    if (is_error(s, r) || s->failed || s->stage != CONNECTING)
        return;
    s->stage = FOLLOWING;
    store_link_open(&s->stream, server(s), s->commands.address);
}

static void on_second(void *arg, const redisReply *r)
{
    struct fleet_store *s = arg;
    if (is_error(s, r) || s->failed || s->stage != FOLLOWING)
        return;
    s->stage = UP;
    ev_timer_stop(s->loop, &s->timer);
    s->pause_ms = PAUSE_FIRST_MS;
    s->ops->up(s->arg, s->run_id);
}

static void say(struct fleet_store *s, store_reply_fn done, int argc, const char **argv)
{
    store_link_ask(&s->commands, argc, argv, NULL, done, s);
}

static void on_commands_opened(void *arg)
{
    struct fleet_store *s = arg;
    timer_in(s, CONNECT_MS);
    say(s, on_role, 1, (const char *[]){"ROLE"});
    say(s, on_info, 2, (const char *[]){"INFO", "server"});
    for (int i = 0; i < FLEET_SCRIPTS; i++)
        say(s, on_loaded, 3, (const char *[]){"SCRIPT", "LOAD", s->scripts[i]});
    say(s, on_first, 1, (const char *[]){"PING"});
}

static void on_stream_opened(void *arg)
{
    struct fleet_store *s = arg;
    store_link_ask(&s->stream, 1, (const char *[]){"PING"}, NULL, on_second, s);
}

static void on_link_failed(void *arg, const char *why)
{
    fleet_store_fail(arg, why);
}

static void try_server(struct fleet_store *s)
{
    s->stage = CONNECTING;
    s->loaded = 0;
    *s->run_id = 0;
    s->next = -1;
    store_link_open(&s->commands, server(s), NULL);
}

/* ---- failures ---- */

/* The next one in the list, unless the one to try was named. */
static uint64_t choose_next(struct fleet_store *s)
{
    if (s->next >= 0) {
        s->at = (uint32_t)s->next;
        return 0;
    }
    s->at = (s->at + 1) % s->config->n_store;
    if (s->at)
        return PAUSE_FIRST_MS;
    const uint64_t pause_ms = s->pause_ms; /* after a whole round */
    s->pause_ms = s->pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : s->pause_ms * 2;
    return pause_ms;
}

static void give_up(struct fleet_store *s)
{
    char text[sizeof s->why + 128];
    snprintf(text, sizeof text, "%s: %s", fleet_store_name(s), s->why);
    s->stage = IDLE; /* nothing is taken up any more */
    store_link_close(&s->commands);
    store_link_close(&s->stream);
    s->failed = false;
    timer_in(s, choose_next(s));
    s->ops->down(s->arg, text);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct fleet_store *s = w->data;
    (void)loop;
    (void)revents;
    if (s->failed)
        give_up(s);
    else if (s->stage == IDLE)
        try_server(s);
    else
        fleet_store_fail(s, "it does not answer");
}

void fleet_store_move(struct fleet_store *s, uint32_t at, const char *why)
{
    if (s->stage == IDLE) {
        s->at = at;
        return;
    }
    s->next = (int)at;
    fleet_store_fail(s, why);
}

/* ---- for its user ---- */

bool fleet_store_run(struct fleet_store *s, enum fleet_script script, int n_keys, int argc,
                     const char **argv, const size_t *len, fleet_reply_fn done, void *arg)
{
    const char *all[FLEET_WORDS] = {"EVALSHA", s->sha[script]};
    size_t all_len[FLEET_WORDS] = {7, SHA_LEN};
    char keys[16];
    if (!fleet_store_is_up(s) || argc > (int)(sizeof all / sizeof *all) - 3)
        return false;
    all_len[2] = (size_t)snprintf(keys, sizeof keys, "%d", n_keys);
    all[2] = keys;
    for (int i = 0; i < argc; i++) {
        all[3 + i] = argv[i];
        all_len[3 + i] = len ? len[i] : strlen(argv[i]);
    }
    return store_link_ask(&s->commands, argc + 3, all, all_len, done, arg);
}

bool fleet_store_has_room(const struct fleet_store *s, size_t len)
{
    return store_link_unsent(&s->commands) + len <= FLEET_SEND_MAX;
}

bool fleet_store_follow(struct fleet_store *s, const struct fleet_streams *from,
                        fleet_reply_fn done, void *arg)
{
    char block[16];
    snprintf(block, sizeof block, "%d", FOLLOW_MS);
    const char *argv[] = {"XREAD",        "COUNT",       ENTRIES_AT_ONCE, "BLOCK",
                          block,          "STREAMS",     from->stream[0], from->stream[1],
                          from->after[0], from->after[1]};
    return fleet_store_is_up(s) &&
           store_link_ask(&s->stream, sizeof argv / sizeof *argv, argv, NULL, done, arg);
}

bool fleet_store_confirm(struct fleet_store *s, fleet_reply_fn done, void *arg)
{
    return fleet_store_is_up(s) &&
           store_link_ask(&s->commands, 3, (const char *[]){"WAIT", "1", CONFIRM_MS}, NULL, done,
                          arg);
}

static const struct store_link_ops commands_ops = {on_commands_opened, on_link_failed};
static const struct store_link_ops stream_ops = {on_stream_opened, on_link_failed};

struct fleet_store *fleet_store_new(struct ev_loop *loop, const struct config_fleet *config,
                                    const char *const scripts[FLEET_SCRIPTS],
                                    const struct fleet_store_ops *ops, void *arg)
{
    struct fleet_store *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->loop = loop;
    s->config = config;
    s->scripts = scripts;
    s->ops = ops;
    s->arg = arg;
    s->pause_ms = PAUSE_FIRST_MS;
    s->next = -1;
    store_link_init(&s->commands, loop, FLEET_ANSWER_MS, &commands_ops, s);
    store_link_init(&s->stream, loop, FOLLOW_MS + FLEET_ANSWER_MS, &stream_ops, s);
    ev_timer_init(&s->timer, on_timer, 0., 0.);
    s->timer.data = s;
    ev_timer_start(loop, &s->timer);
    return s;
}

void fleet_store_free(struct fleet_store *s)
{
    if (!s)
        return;
    ev_timer_stop(s->loop, &s->timer);
    s->stage = IDLE;
    store_link_close(&s->commands);
    store_link_close(&s->stream);
    free(s);
}
