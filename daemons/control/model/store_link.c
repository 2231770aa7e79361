/* SPDX-License-Identifier: BSD-2-Clause */
/* store_link: see store_link.h. */
#include "daemons/control/model/store_link.h"
#include "polder/clock.h"
#include "polder/resolve.h"

#include <hiredis/sds.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESOLVE_LOOK_MS 5

struct question {
    struct store_link *link;
    store_reply_fn done;
    void *arg;
};

static void timer_in(struct store_link *l, uint64_t ms)
{
    ev_timer_stop(l->loop, &l->timer);
    ev_timer_set(&l->timer, (double)ms / 1000, 0.);
    ev_timer_start(l->loop, &l->timer);
}

void store_reason(char out[STORE_REASON_SIZE], const char *text, const char *password)
{
    const size_t secret = password ? strlen(password) : 0;
    size_t n = 0;
    while (*text && n + 4 < STORE_REASON_SIZE) {
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
    char *echo = strstr(out, ", with args beginning with"); /* may be a part of it */
    if (echo)
        *echo = 0;
}

void store_link_fail(struct store_link *l, const char *why)
{
    if (l->failed || !l->open)
        return;
    store_reason(l->why, why, l->server->password);
    l->failed = true;
    timer_in(l, 0);
}

/* ---- what a reply may be ---- */

static redisReplyObjectFunctions *plain_reply; /* hiredis' own */

/* NULL of a function below ends the connection. */
static bool may_create(const redisReadTask *task, size_t bytes, size_t elements)
{
    struct store_link *l = task->privdata;
    l->taken += bytes;
    if (l->taken > STORE_REPLY_MAX || elements > STORE_ELEMENTS_MAX)
        l->excess = "a reply is too long";
    else if (!task->parent && !l->requested && task->type != REDIS_REPLY_ERROR)
        l->excess = "it sends what it was not asked for"; /* at which hiredis aborts */
    return !l->excess;
}

static void *create_string(const redisReadTask *task, char *text, size_t len)
{
    return may_create(task, len + sizeof(redisReply), 0)
               ? plain_reply->createString(task, text, len)
               : NULL;
}

static void *create_array(const redisReadTask *task, int n)
{
    const size_t elements = n > 0 ? (size_t)n : 0;
    return may_create(task, elements * sizeof(redisReply *), elements)
               ? plain_reply->createArray(task, n)
               : NULL;
}

static void *create_integer(const redisReadTask *task, long long n)
{
    return may_create(task, sizeof(redisReply), 0) ? plain_reply->createInteger(task, n) : NULL;
}

static void *create_nil(const redisReadTask *task)
{
    return may_create(task, sizeof(redisReply), 0) ? plain_reply->createNil(task) : NULL;
}

static void bound_replies(struct store_link *l, redisReader *reader)
{
    static redisReplyObjectFunctions bounded;
    plain_reply = reader->fn;
    bounded = (redisReplyObjectFunctions){create_string, create_array, create_integer, create_nil,
                                          plain_reply->freeObject};
    reader->fn = &bounded;
    reader->privdata = l;
    l->taken = 0;
    l->excess = NULL;
}

/* ---- hiredis on the loop ---- */

static void watch(struct store_link *l, ev_io *w, bool *on, bool want)
{
    if (*on == want)
        return;
    *on = want;
    if (want)
        ev_io_start(l->loop, w);
    else
        ev_io_stop(l->loop, w);
}

static void add_read(void *arg)
{
    struct store_link *l = arg;
    watch(l, &l->read, &l->reading, true);
}

static void del_read(void *arg)
{
    struct store_link *l = arg;
    watch(l, &l->read, &l->reading, false);
}

static void add_write(void *arg)
{
    struct store_link *l = arg;
    watch(l, &l->write, &l->writing, true);
}

static void del_write(void *arg)
{
    struct store_link *l = arg;
    watch(l, &l->write, &l->writing, false);
}

static void cleanup(void *arg)
{
    del_read(arg);
    del_write(arg);
}

static void on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
    struct store_link *l = w->data;
    (void)loop;
    (void)revents;
    redisAsyncHandleRead(l->redis);
    if (l->redis && l->redis->c.reader->len > STORE_REPLY_MAX)
        store_link_fail(l, "a reply is too long");
}

static void on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
    struct store_link *l = w->data;
    (void)loop;
    (void)revents;
    redisAsyncHandleWrite(l->redis);
}

/* hiredis frees it. */
static void detach(struct store_link *l, const char *why)
{
    cleanup(l);
    l->redis = NULL;
    l->requested = 0;
    store_link_fail(l, l->excess ? l->excess : why);
}

static void on_connected(const redisAsyncContext *redis, int status)
{
    struct store_link *l = redis->data;
    if (l && status != REDIS_OK)
        detach(l, redis->errstr);
}

static void on_disconnected(const redisAsyncContext *redis, int status)
{
    struct store_link *l = redis->data;
    if (l)
        detach(l, status == REDIS_OK ? "the server has closed the connection" : redis->errstr);
}

static void attach(struct store_link *l, redisAsyncContext *redis)
{
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
    bound_replies(l, redis->c.reader);
    redisAsyncSetConnectCallback(redis, on_connected);
    redisAsyncSetDisconnectCallback(redis, on_disconnected);
}

/* ---- questions ---- */

static void on_reply(redisAsyncContext *redis, void *reply, void *arg)
{
    struct question *q = arg;
    struct store_link *l = q->link;
    const store_reply_fn done = q->done;
    void *const done_arg = q->arg;
    free(q);
    l->taken = 0;
    if (l->redis == redis && l->requested) {
        l->requested--;
        l->requested_ms = clock_mono_ms();
    }
    done(done_arg, l->redis == redis ? reply : NULL);
}

bool store_link_ask(struct store_link *l, int argc, const char **argv, const size_t *len,
                    store_reply_fn done, void *arg)
{
    struct question *q = l->redis && !l->failed ? malloc(sizeof *q) : NULL;
    if (!q)
        return false;
    *q = (struct question){l, done, arg};
    if (redisAsyncCommandArgv(l->redis, on_reply, q, argc, argv, len) != REDIS_OK) {
        free(q);
        store_link_fail(l, "a command could not be sent");
        return false;
    }
    if (!l->requested++)
        l->requested_ms = clock_mono_ms();
    return true;
}

size_t store_link_unsent(const struct store_link *l)
{
    return l->redis ? sdslen(l->redis->c.obuf) : SIZE_MAX / 2;
}

/* ---- opening ---- */

static void on_greeted(void *arg, const redisReply *r)
{
    struct store_link *l = arg;
    if (r && r->type == REDIS_REPLY_ERROR)
        store_link_fail(l, r->str);
}

static void greet(struct store_link *l)
{
    const struct config_store *c = l->server;
    char database[16];
    snprintf(database, sizeof database, "%u", c->database);
    if (c->user)
        store_link_ask(l, 3, (const char *[]){"AUTH", c->user, c->password}, NULL, on_greeted, l);
    else if (c->password)
        store_link_ask(l, 2, (const char *[]){"AUTH", c->password}, NULL, on_greeted, l);
    if (c->database)
        store_link_ask(l, 2, (const char *[]){"SELECT", database}, NULL, on_greeted, l);
}

static void connect_now(struct store_link *l)
{
    const struct config_store *c = l->server;
    redisAsyncContext *redis =
        c->path ? redisAsyncConnectUnix(c->path) : redisAsyncConnect(l->address, c->port);
    if (!redis || redis->err) {
        store_link_fail(l, redis ? redis->errstr : "no memory");
        if (redis)
            redisAsyncFree(redis);
        return;
    }
    attach(l, redis);
    timer_in(l, l->patience_ms / 4);
    greet(l);
    l->ops->opened(l->arg);
}

/* Each time another address of the name. */
static void on_resolved(void *arg, const struct resolve_answer *answer)
{
    struct store_link *l = arg;
    if (!answer->n) {
        store_link_fail(l, *answer->why ? answer->why : "the name has no address");
        return;
    }
    const struct server_address *a = &answer->at[l->turn++ % answer->n];
    inet_ntop(a->family, a->addr, l->address, sizeof l->address);
}

static void resolve_end(struct store_link *l)
{
    if (l->resolver)
        resolver_free(l->resolver);
    l->resolver = NULL;
}

static void resolve_look(struct store_link *l)
{
    resolver_step(l->resolver, 0);
    if (l->failed)
        return;
    if (*l->address) {
        resolve_end(l);
        connect_now(l);
    } else if (clock_mono_ms() > l->resolve_until_ms) {
        store_link_fail(l, "its name does not resolve in time");
    } else {
        timer_in(l, RESOLVE_LOOK_MS);
    }
}

static void resolve_begin(struct store_link *l)
{
    char text[300];
    l->resolve_until_ms = clock_mono_ms() + RESOLVE_TIMEOUT_MS;
    l->resolver = resolver_new("");
    if (!l->resolver) {
        store_link_fail(l, "no names can be resolved on this system");
        return;
    }
    snprintf(text, sizeof text, "%s:%u", l->server->host, l->server->port);
    resolver_ask(l->resolver, text, on_resolved, l);
    if (!l->failed)
        timer_in(l, RESOLVE_LOOK_MS);
}

void store_link_open(struct store_link *l, const struct config_store *server, const char *address)
{
    uint8_t bytes[16];
    l->server = server;
    l->open = true;
    *l->address = 0;
    if (server->host && !address && inet_pton(AF_INET, server->host, bytes) != 1 &&
        inet_pton(AF_INET6, server->host, bytes) != 1) {
        resolve_begin(l);
        return;
    }
    if (server->host)
        snprintf(l->address, sizeof l->address, "%s", address ? address : server->host);
    connect_now(l);
}

/* ---- the end ---- */

/* What is under way is answered with NULL. */
void store_link_close(struct store_link *l)
{
    redisAsyncContext *redis = l->redis;
    ev_timer_stop(l->loop, &l->timer);
    resolve_end(l);
    l->open = l->failed = false;
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

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct store_link *l = w->data;
    (void)loop;
    (void)revents;
    if (l->failed) {
        store_link_close(l);
        l->ops->failed(l->arg, l->why);
    } else if (l->resolver) {
        resolve_look(l);
    } else if (l->requested && clock_mono_ms() > l->requested_ms + l->patience_ms) {
        store_link_fail(l, "it does not answer");
    } else {
        timer_in(l, l->patience_ms / 4);
    }
}

void store_link_init(struct store_link *l, struct ev_loop *loop, uint64_t patience_ms,
                     const struct store_link_ops *ops, void *arg)
{
    *l = (struct store_link){.loop = loop, .patience_ms = patience_ms, .ops = ops, .arg = arg};
    ev_timer_init(&l->timer, on_timer, 0., 0.);
    l->timer.data = l;
}
