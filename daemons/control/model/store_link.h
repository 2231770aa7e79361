/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * store_link: one connection to one Redis or Valkey server, on the loop: its name is resolved, then
 * commands are sent and replies come back in order.
 *
 * Whatever the server sends is bounded before it is used, and a server that does not answer in time is
 * left. A link that fails is closed, and its user told once, from the loop.
 */
#ifndef POLDER_CONTROL_STORE_LINK_H
#define POLDER_CONTROL_STORE_LINK_H
#include "polder/config.h"
#include <arpa/inet.h>
#include <ev.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdint.h>

#define STORE_REPLY_MAX    (8u << 20) /* bytes of one reply */
#define STORE_ELEMENTS_MAX 65536      /* of one list */

#define STORE_REASON_SIZE 160

struct resolver;
struct store_link_ops {
    /* Commands may be asked; AUTH and SELECT were. From within store_link_open() or the loop. */
    void (*opened)(void *arg);
    /* Closed. why: for the operator, of printable characters. */
    void (*failed)(void *arg, const char *why);
};

/* reply NULL: the link has failed. Called exactly once, from the loop or from store_link_close(). */
typedef void (*store_reply_fn)(void *arg, const redisReply *reply);

struct store_link {
    struct ev_loop *loop;
    const struct store_link_ops *ops;
    void *arg;
    uint64_t patience_ms; /* the longest that a reply may take */
    const struct config_store *server;
    bool open;                /* or being opened */
    redisAsyncContext *redis; /* NULL: not connected, or its name is being resolved */
    ev_io read, write;
    bool reading, writing;
    ev_timer timer;        /* a failure that is to be told, or a look at what takes too long */
    uint32_t requested;    /* replies that are waited for */
    uint64_t requested_ms; /* since when there is one */
    size_t taken;          /* bytes of the reply that is being read */
    const char *excess;    /* what was wrong with it */
    struct resolver *resolver;
    uint64_t resolve_until_ms;
    uint32_t turn; /* among the addresses of a name */
    char address[INET6_ADDRSTRLEN];
    char why[STORE_REASON_SIZE];
    bool failed; /* it is to be told from the timer */
};

void store_link_init(struct store_link *l, struct ev_loop *loop, uint64_t patience_ms,
                     const struct store_link_ops *ops, void *arg);
/* address NULL: it is resolved, each time to the next address of the name. server: valid as long as the
 * link is open. */
void store_link_open(struct store_link *l, const struct config_store *server, const char *address);
/* At once, without `failed`; replies that are waited for are NULL. */
void store_link_close(struct store_link *l);
/* It is closed from the loop, for that reason. */
void store_link_fail(struct store_link *l, const char *why);
/* A reason for the operator from what may be the server's own text: printable characters, without the
 * password, as some repeat the arguments of a command that they do not know. */
void store_reason(char out[STORE_REASON_SIZE], const char *text, const char *password);
/* Bytes that wait to be sent. */
size_t store_link_unsent(const struct store_link *l);
/* False: the link is not open, or has failed; nothing will be called. len NULL: all are strings. */
bool store_link_ask(struct store_link *l, int argc, const char **argv, const size_t *len,
                    store_reply_fn done, void *arg);
#endif
