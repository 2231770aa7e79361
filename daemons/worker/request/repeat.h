/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * repeat: a request with the same bytes as the one before and a stored answer needs no parsing,
 * routing or hashing. A connection has at most one, the oldest are dropped first: repeat.c.
 */
#ifndef POLDER_WORKER_REQUEST_REPEAT_H
#define POLDER_WORKER_REQUEST_REPEAT_H
#include "polder/cache.h"
#include "polder/clientip.h"
#include "polder/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct client;
struct hit_found;
struct limit_bill;
struct request;
struct worker;

/* The last head of a connection, and the results of processing it. */
struct repeat {
    TAILQ_ENTRY(repeat) entry; /* repeats.all, then repeats.dead */
    struct client *client;
    uint64_t generation; /* worker.generation it is good for */
    uint64_t used_ms;
    uint32_t len, url_len; /* bytes: head, then url */
    struct cache_key key, variant;
    uint64_t vary_record;
    const struct config_route *route;
    uint64_t limit_key[CONFIG_ROUTE_LIMITS_MAX]; /* 0: exempt */
    struct clientip peer, ip;
    uint32_t inm_at, inm_len; /* If-None-Match within the head; 0: none */
    bool is_head, http10, keep_alive, trusted_peer, has_origin;
    uint8_t coding;
    uint16_t tenant;  /* client.tenant */
    uint8_t identity; /* enum policy_identity */
    char bytes[];
};

struct repeats {
    TAILQ_HEAD(, repeat) all;  /* oldest first */
    TAILQ_HEAD(, repeat) dead; /* until the end of the iteration: an answer may be made of one */
    uint32_t n;
};

/* Answers if these are the bytes of the connection's repeat and the store has the answer. If not,
 * the request takes the long way, and *bill has what it was charged already. */
bool repeat_answer(struct client *c, const char *bytes, size_t len, struct limit_bill *bill);
void repeat_remember(struct client *c, const struct request *r, const struct hit_found *found,
                     const uint64_t *limit_keys);
void repeat_forget(struct client *c);
void repeat_sweep(struct worker *w);
void repeat_free_the_dead(struct worker *w);

#endif
