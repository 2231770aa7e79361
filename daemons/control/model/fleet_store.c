/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_store: see fleet_store.h.
 *
 *   IDLE -> RESOLVING  (where the host is a name)
 *        -> CONNECTING (AUTH, SELECT, ROLE, INFO, SCRIPT LOAD on the first connection)
 *        -> FOLLOWING  (AUTH, SELECT on the second) -> UP
 *
 * A failure of any kind, at any stage, ends both connections; the next server is tried after a
 * pause that grows with failures in a row.
 */
#include "daemons/control/model/fleet_store.h"
#include "polder/clock.h"
#include "polder/resolve.h"

#include <arpa/inet.h>
#include <hiredis/async.h>
#include <hiredis/sds.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_MS      1000
#define FOLLOW_MS       1000 /* that the server waits for an entry */
#define ENTRIES_AT_ONCE "256"
#define PAUSE_FIRST_MS  100
#define PAUSE_MAX_MS    1000
#define RESOLVE_LOOK_MS 5
#define SHA_LEN         40

enum stage { IDLE, RESOLVING, CONNECTING, FOLLOWING, UP };

struct link {
    struct fleet_store *store;
    redisAsyncContext *redis; /* NULL: not connected */
    ev_io read, write;
    bool reading, writing;
    uint32_t requested;    /* replies that are waited for */
    uint64_t requested_ms; /* since when there is one */
    uint64_t patience_ms;
};

struct fleet_store {
    struct ev_loop *loop;
    const struct config_fleet *config;
    const char *const *scripts;
    const struct fleet_store_ops *ops;
    void *arg;
    enum stage stage;
    uint32_t at; /* of config->stores */
    uint64_t pause_ms;
    struct resolver *resolver; /* RESOLVING */
    char address[INET6_ADDRSTRLEN];
    uint64_t until_ms; /* RESOLVING */
    uint32_t turn;     /* among the addresses of names */
    ev_timer timer;    /* the pause, or a look at what takes too long */
    struct link commands, stream;
    char run_id[SHA_LEN + 1];
    char sha[FLEET_SCRIPTS][SHA_LEN + 1];
    uint32_t loaded;
    char why[160]; /* the failure that is to be told */
    bool failed;   /* tell it from the timer */
};

struct question {
    struct link *link;
    fleet_reply_fn done;
    void *arg;
};

static const struct config_store *server(const struct fleet_store *s)
{
    return &s->config->stores[s->at];
}

const char *fleet_store_name(const struct fleet_store *s)
{
    return server(s)->text;
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

/* It may be the server's own text, and some repeat the arguments of a command that they do not know. */
static void copy_reason(char *out, size_t size, const char *text, const char *password)
{
    const size_t secret = password ? strlen(password) : 0;
    size_t n = 0;
    while (*text && n + 4 < size) {
        if (secret && !strncmp(text, password, secret)) {
            memcpy(out + n, "***", 3);
            n += 3;
            text += secret;
        } else {
            const unsigned char c = (unsigned char)*text++;
            out[n++] = c < ' ' || c >= 0x7f ? '?' : (char)c;
        }
    }
    out[n] = 0;
}

void fleet_store_fail(struct fleet_store *s, const char *why)
{
    if (s->failed || s->stage == IDLE)
        return;
    copy_reason(s->why, sizeof s->why, why, server(s)->password);
    s->failed = true;
    timer_in(s, 0);
}

/* ---- hiredis on the loop ---- */

static void watch(struct link *l, ev_io *w, bool *on, bool want)
{
    if (*on == want)
        return;
    *on = want;
    if (want)
        ev_io_start(l->store->loop, w);
    else
        ev_io_stop(l->store->loop, w);
}

static void add_read(void *arg)
{
    struct link *l = arg;
    watch(l, &l->read, &l->reading, true);
}

static void del_read(void *arg)
{
    struct link *l = arg;
    watch(l, &l->read, &l->reading, false);
}

static void add_write(void *arg)
{
    struct link *l = arg;
    watch(l, &l->write, &l->writing, true);
}

static void del_write(void *arg)
{
    struct link *l = arg;
    watch(l, &l->write, &l->writing, false);
}

static void cleanup(void *arg)
{
    del_read(arg);
    del_write(arg);
}

static void on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
    struct link *l = w->data;
    (void)loop;
    (void)revents;
    redisAsyncHandleRead(l->redis);
    if (l->redis && l->redis->c.reader->len > FLEET_REPLY_MAX)
        fleet_store_fail(l->store, "a reply is too long");
}

static void on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
    struct link *l = w->data;
    (void)loop;
    (void)revents;
    redisAsyncHandleWrite(l->redis);
}

/* Ends at once: what is under way is answered with NULL. */
static void link_close(struct link *l)
{
    redisAsyncContext *redis = l->redis;
    if (!redis)
        return;
    cleanup(l);
    redis->data = NULL;
    redis->ev.addRead = redis->ev.delRead = redis->ev.addWrite = redis->ev.delWrite = NULL;
    redis->ev.cleanup = NULL;
    l->redis = NULL;
    l->requested = 0;
    redisAsyncFree(redis);
}

static void on_connected(const redisAsyncContext *redis, int status)
{
    struct link *l = redis->data;
    if (!l || status == REDIS_OK)
        return;
    cleanup(l);
    l->redis = NULL; /* hiredis frees it */
    l->requested = 0;
    fleet_store_fail(l->store, redis->errstr);
}

static void on_disconnected(const redisAsyncContext *redis, int status)
{
    struct link *l = redis->data;
    if (!l)
        return;
    cleanup(l);
    l->redis = NULL;
    l->requested = 0;
    fleet_store_fail(l->store,
                     status == REDIS_OK ? "the server has closed the connection" : redis->errstr);
}

static bool link_open(struct link *l)
{
    const struct config_store *c = server(l->store);
    redisAsyncContext *redis =
        c->path ? redisAsyncConnectUnix(c->path) : redisAsyncConnect(l->store->address, c->port);
    if (!redis || redis->err) {
        fleet_store_fail(l->store, redis ? redis->errstr : "no memory");
        if (redis)
            redisAsyncFree(redis);
        return false;
    }
    l->redis = redis;
    l->reading = l->writing = false;
    l->requested = 0;
    ev_io_init(&l->read, on_readable, redis->c.fd, EV_READ);
    ev_io_init(&l->write, on_writable, redis->c.fd, EV_WRITE);
    l->read.data = l->write.data = l;
    redis->data = l;
    redis->ev.data = l;
    redis->ev.addRead = add_read;
    redis->ev.delRead = del_read;
    redis->ev.addWrite = add_write;
    redis->ev.delWrite = del_write;
    redis->ev.cleanup = cleanup;
    redisAsyncSetConnectCallback(redis, on_connected);
    redisAsyncSetDisconnectCallback(redis, on_disconnected);
    return true;
}

/* ---- questions ---- */

static void on_reply(redisAsyncContext *redis, void *reply, void *arg)
{
    struct question *q = arg;
    struct link *l = q->link;
    const fleet_reply_fn done = q->done;
    void *const whom = q->arg;
    free(q);
    if (l->redis == redis && l->requested) {
        l->requested--;
        l->requested_ms = clock_mono_ms();
    }
    done(whom, l->redis == redis ? reply : NULL);
}

static bool ask(struct link *l, int argc, const char **argv, const size_t *len, fleet_reply_fn done,
                void *arg)
{
    struct question *q = l->redis && !l->store->failed ? malloc(sizeof *q) : NULL;
    if (!q)
        return false;
    *q = (struct question){l, done, arg};
    if (redisAsyncCommandArgv(l->redis, on_reply, q, argc, argv, len) != REDIS_OK) {
        free(q);
        fleet_store_fail(l->store, "a command could not be sent");
        return false;
    }
    if (!l->requested++)
        l->requested_ms = clock_mono_ms();
    return true;
}

static bool say(struct link *l, fleet_reply_fn done, int argc, const char **argv)
{
    return ask(l, argc, argv, NULL, done, l);
}

/* ---- the first steps of a connection ---- */

static bool is_error(struct link *l, const redisReply *r)
{
    if (!r)
        return true; /* the link has ended, which is told elsewhere */
    if (r->type == REDIS_REPLY_ERROR)
        fleet_store_fail(l->store, r->str);
    return r->type == REDIS_REPLY_ERROR;
}

static void on_done(void *arg, const redisReply *r)
{
    is_error(arg, r);
}

static void link_greet(struct link *l)
{
    const struct config_store *c = server(l->store);
    char database[16];
    snprintf(database, sizeof database, "%u", c->database);
    if (c->user)
        say(l, on_done, 3, (const char *[]){"AUTH", c->user, c->password});
    else if (c->password)
        say(l, on_done, 2, (const char *[]){"AUTH", c->password});
    if (c->database)
        say(l, on_done, 2, (const char *[]){"SELECT", database});
}

static void on_role(void *arg, const redisReply *r)
{
    struct link *l = arg;
    if (is_error(l, r))
        return;
    if (r->type != REDIS_REPLY_ARRAY || !r->elements || r->element[0]->type != REDIS_REPLY_STRING)
        fleet_store_fail(l->store, "it answers ROLE as no Redis does");
    else if (strcmp(r->element[0]->str, "master") != 0)
        fleet_store_fail(l->store, "it is not the master");
}

static void on_info(void *arg, const redisReply *r)
{
    struct link *l = arg;
    if (is_error(l, r))
        return;
    static const char name[] = "run_id:";
    const char *at = r->type == REDIS_REPLY_STRING ? strstr(r->str, name) : NULL;
    if (!at) {
        fleet_store_fail(l->store, "it answers INFO as no Redis does");
        return;
    }
    at += sizeof name - 1;
    snprintf(l->store->run_id, sizeof l->store->run_id, "%.*s", (int)strcspn(at, "\r\n"), at);
}

static void on_second(void *arg, const redisReply *r)
{
    struct link *l = arg;
    struct fleet_store *s = l->store;
    if (is_error(l, r) || s->stage != FOLLOWING)
        return;
    s->stage = UP;
    s->pause_ms = PAUSE_FIRST_MS;
    s->ops->up(s->arg, s->run_id);
}

/* All that was asked before has been answered. */
static void on_first(void *arg, const redisReply *r)
{
    struct link *l = arg;
    struct fleet_store *s = l->store;
    if (is_error(l, r) || s->failed || s->stage != CONNECTING)
        return;
    s->stage = FOLLOWING;
    if (!link_open(&s->stream))
        return;
    link_greet(&s->stream);
    say(&s->stream, on_second, 1, (const char *[]){"PING"});
}

static void on_loaded(void *arg, const redisReply *r)
{
    struct link *l = arg;
    struct fleet_store *s = l->store;
    if (is_error(l, r))
        return;
    if (r->type != REDIS_REPLY_STRING || r->len != SHA_LEN || s->loaded >= FLEET_SCRIPTS)
        fleet_store_fail(s, "it answers SCRIPT LOAD as no Redis does");
    else
        memcpy(s->sha[s->loaded++], r->str, SHA_LEN + 1);
}

static void connect_server(struct fleet_store *s)
{
    s->stage = CONNECTING;
    s->loaded = 0;
    *s->run_id = 0;
    timer_in(s, CONNECT_MS);
    if (!link_open(&s->commands))
        return;
    link_greet(&s->commands);
    say(&s->commands, on_role, 1, (const char *[]){"ROLE"});
    say(&s->commands, on_info, 2, (const char *[]){"INFO", "server"});
    for (int i = 0; i < FLEET_SCRIPTS; i++)
        say(&s->commands, on_loaded, 3, (const char *[]){"SCRIPT", "LOAD", s->scripts[i]});
    say(&s->commands, on_first, 1, (const char *[]){"PING"});
}

/* ---- the name of a server ---- */

/* Each time another address of the name. */
static void on_resolved(void *arg, const struct resolve_answer *answer)
{
    struct fleet_store *s = arg;
    if (!answer->n) {
        fleet_store_fail(s, *answer->why ? answer->why : "the name has no address");
        return;
    }
    const struct server_address *a = &answer->at[s->turn++ % answer->n];
    inet_ntop(a->family, a->addr, s->address, sizeof s->address);
}

static void resolve_end(struct fleet_store *s)
{
    if (s->resolver)
        resolver_free(s->resolver);
    s->resolver = NULL;
}

static void resolve_look(struct fleet_store *s)
{
    resolver_step(s->resolver, 0);
    if (s->failed)
        return;
    if (*s->address) {
        resolve_end(s);
        connect_server(s);
    } else if (clock_mono_ms() > s->until_ms) {
        fleet_store_fail(s, "its name does not resolve in time");
    } else {
        timer_in(s, RESOLVE_LOOK_MS);
    }
}

static void resolve_begin(struct fleet_store *s)
{
    char text[300];
    s->stage = RESOLVING;
    *s->address = 0;
    s->until_ms = clock_mono_ms() + RESOLVE_TIMEOUT_MS;
    s->resolver = resolver_new("");
    if (!s->resolver) {
        fleet_store_fail(s, "no names can be resolved on this system");
        return;
    }
    snprintf(text, sizeof text, "%s:%u", server(s)->host, server(s)->port);
    resolver_ask(s->resolver, text, on_resolved, s);
    if (!s->failed)
        timer_in(s, RESOLVE_LOOK_MS);
}

static void try_server(struct fleet_store *s)
{
    const char *host = server(s)->host;
    uint8_t address[16];
    if (host && inet_pton(AF_INET, host, address) != 1 && inet_pton(AF_INET6, host, address) != 1) {
        resolve_begin(s);
        return;
    }
    if (host)
        snprintf(s->address, sizeof s->address, "%s", host);
    connect_server(s);
}

/* ---- failures ---- */

static void give_up(struct fleet_store *s)
{
    char text[sizeof s->why + 128];
    snprintf(text, sizeof text, "%s: %s", fleet_store_name(s), s->why);
    s->stage = IDLE; /* nothing is taken up any more */
    resolve_end(s);
    link_close(&s->commands);
    link_close(&s->stream);
    s->failed = false;
    s->at = (s->at + 1) % s->config->n_store;
    const uint64_t pause_ms = s->at ? PAUSE_FIRST_MS : s->pause_ms; /* after a whole round */
    if (!s->at)
        s->pause_ms = s->pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : s->pause_ms * 2;
    timer_in(s, pause_ms);
    s->ops->down(s->arg, text);
}

static bool is_late(const struct link *l, uint64_t now_ms)
{
    return l->redis && l->requested && now_ms > l->requested_ms + l->patience_ms;
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct fleet_store *s = w->data;
    const uint64_t now_ms = clock_mono_ms();
    (void)loop;
    (void)revents;
    if (s->failed) {
        give_up(s);
    } else if (s->stage == IDLE) {
        try_server(s);
    } else if (s->stage == RESOLVING) {
        resolve_look(s);
    } else if (s->stage != UP || is_late(&s->commands, now_ms) || is_late(&s->stream, now_ms)) {
        fleet_store_fail(s, "it does not answer");
    } else {
        timer_in(s, FLEET_ANSWER_MS / 4);
    }
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
    return ask(&s->commands, argc + 3, all, all_len, done, arg);
}

bool fleet_store_has_room(const struct fleet_store *s, size_t len)
{
    return s->commands.redis && sdslen(s->commands.redis->c.obuf) + len <= FLEET_SEND_MAX;
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
           ask(&s->stream, sizeof argv / sizeof *argv, argv, NULL, done, arg);
}

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
    s->commands = (struct link){.store = s, .patience_ms = FLEET_ANSWER_MS};
    s->stream = (struct link){.store = s, .patience_ms = FOLLOW_MS + FLEET_ANSWER_MS};
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
    resolve_end(s);
    link_close(&s->commands);
    link_close(&s->stream);
    free(s);
}
