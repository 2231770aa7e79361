/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * inspect: queries of the store, for control; read-only.
 *
 *   list.c     cache.list, cache.show and cache.why: walks along the URLs
 *   why.c      the settings and facts that decide about a URL, and what the next request would get
 *   copies.c   the copies of a response in content codings
 *   explain.c  names for what only has numbers in a record
 */
#ifndef POLDER_KEEPER_INSPECT_H
#define POLDER_KEEPER_INSPECT_H
#include "daemons/keeper/keeper.h"
#include "daemons/rpc/server.h"
#include "polder/config.h"

#define QUERY_URL_SHOWN  2048
#define QUERY_ACCEPT_MAX 1024 /* of Accept-Encoding; workers read no more */

/* The configuration of the URL; copied, because the walk may outlive it. */
struct query_route {
    char pattern[256];
    char limit[CONFIG_ROUTE_LIMITS_MAX][64];
    uint32_t n_limits;
    uint64_t interval_ms; /* of its poll; 0: none */
    bool refreshes;       /* refresh_share is not 0 */
    bool warm;            /* the URL is one of `warm` */
    uint8_t share;        /* enum config_share */
    uint32_t rules;       /* identity_rules_number() */
    bool partitioned;     /* by all identity fields */
    uint8_t compress[CODINGS];
    uint32_t n_compress;
};

struct job {
    STAILQ_ENTRY(job) entry;
    struct rpc_reply *reply;
    struct rpc_out *out; /* of the reply, once something has been found */
    bool show;           /* else list */
    bool why;            /* with what decides, and what comes next */
    struct query_route route;
    bool all_hosts;     /* the text starts with its path */
    bool asks_coding;   /* which copy would the client get? */
    enum coding coding; /* preferred one */
    uint32_t limit, found;
    uint64_t until_ms; /* mono; of a list */
    uint16_t at_len;   /* where to go on in `url` */
    uint8_t at[STORE_URL_KEY];
    uint32_t answers;  /* why: variants that are answers, and no vary_record or part … */
    char summary[512]; /* … and what is to be said of the first one */
    size_t len;
    char text[]; /* prefix, or the whole URL */
};

/* ---- why.c ---- */
void why_route(const struct keeper *k, struct job *j);
void why_put_url(const struct keeper *k, const struct job *j);
void why_put_variant(const struct keeper *k, struct job *j, struct MDB_txn *txn,
                     const struct cache_record *r);
void why_put_end(const struct keeper *k, const struct job *j);

/* ---- copies.c ---- */
/* Takes the call's Accept-Encoding; after why_route(). False: the call is answered. */
bool copies_ask(const struct rpc_call *call, struct job *j);
/* hit: the next GET would be answered from r. */
void copies_put(const struct keeper *k, const struct job *j, struct MDB_txn *txn,
                const struct cache_record *r, bool hit);
#endif
