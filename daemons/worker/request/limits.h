/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limits: charges a request, and tells its client the result.
 *
 *   limits.c          charges the limits of a route, and writes the RateLimit fields
 *   limits_fleet.c    those that hold over all hosts of a fleet
 *   limits_slots.c    the same of requests under way
 *   limits_wait.c     requests that wait for what its store grants
 *   limits_running.c  their running values, which change while the worker runs
 *   limit_shadow.c    candidates that are charged beside them, and never refuse
 *
 * The counts are shared by all workers (polder/limit.h); what is here belongs to one.
 */
#ifndef POLDER_WORKER_REQUEST_LIMITS_H
#define POLDER_WORKER_REQUEST_LIMITS_H
#include "polder/config.h"
#include "polder/fleet_grants.h"
#include "polder/limit.h"
#include "polder/limit_top.h"
#include "polder/limit_try.h"

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct client;
struct exempt;
struct limit_waiter;
struct request;
struct request_replay;
struct stats_limit_row;
struct worker;

struct limit_answer {
    const char *lines; /* complete header lines, "" where no limit applies */
    uint32_t len;
    bool refused, no_key;   /* no_key: the key is missing, and missing = refuse */
    const char *refused_by; /* the name of a limit that did */
    uint32_t retry_s;
    char violated[256]; /* ,"violated-policies":[…] */
};

/* The charges of a request, and their result. */
struct limit_bill {
    bool paid;
    bool top_due;     /* it is noted in the lists of the heaviest clients */
    bool last;        /* it has waited for the store already, and does no more */
    bool waits;       /* it is not charged: it has to wait for the store of the fleet, ... */
    uint64_t awaited; /* ... for this key */
    uint32_t awaited_cost;
    bool awaits_slot;         /* awaited is the id of a fleet_slot_key, ... */
    uint32_t awaited_answers; /* ... whose row had so many */
    struct limit_answer answer;
};

/* What a request is charged. */
struct charged {
    const struct config_limit *limit[CONFIG_ROUTE_LIMITS_MAX];
    struct limit_charge charge[CONFIG_ROUTE_LIMITS_MAX];
    struct limit_verdict verdict[CONFIG_ROUTE_LIMITS_MAX];
    size_t n;
};

/* the constant part of what a limit says, made when its running values change */
struct limit_state {
    uint32_t stats_row;
    char policy[96]; /* "name";q=20;w=60 */
    uint32_t policy_len;
    char name[72]; /* quoted */
    uint32_t name_len;
    char alone[256]; /* both fields up to the first number, for a route with this limit only */
    uint32_t alone_len;
    struct exempt *list;         /* runtime exempt list; NULL until changed */
    const struct exempt *exempt; /* it now; NULL: the file's */
};

/* A candidate that is charged beside a limit. */
struct limit_shadow {
    struct limit_try *slot;
    uint64_t run;
    uint32_t limit;             /* config_limit.index */
    struct limit_top_list list; /* the clients it would have refused */
    struct limit_try_terms terms;
};

/* Requests that wait for the store of the fleet. */
struct limit_waiters {
    TAILQ_HEAD(limit_waiter_list, limit_waiter) all; /* the first one is due first */
    uint32_t n;
    ev_timer timer;
    void (*again)(struct client *c,
                  const struct request_replay *again); /* takes the steps of one */
    uint8_t secret[FLEET_GRANTS_SECRET];
};

struct limits {
    struct limit_state *state; /* by config_limit.index */
    uint64_t generation;       /* of the running values */
    struct limit_top_sampler top;
    uint8_t n_shadows; /* candidates that are charged beside them, now */
    struct limit_shadow shadows[LIMIT_TRY_SLOTS];
    char text[2048]; /* of limit_answer.lines */
    struct limit_waiters waiters;
};

/* ---- limits.c ---- */
/* Charges the limits of the request's route. keys: where to leave (or find, if known) the
 * hashed keys. The lines live until the next call. */
void limits_charge(struct worker *w, const struct request *r, uint64_t *keys, bool known,
                   struct limit_bill *bill);
/* Charges nothing: the current fields for a request that was charged long ago. */
void limits_tell(struct worker *w, const struct request *r, struct limit_answer *answer);

/* ---- limits_refuse.c ---- */
/* Answers a request that its limits refuse. */
void limits_refuse(struct worker *w, const struct request *r, const struct limit_answer *answer);

/* ---- limits_running.c ---- */
void limits_read(struct worker *w);    /* the running values and exempt lists */
void limits_prepare(struct worker *w); /* after the running values have changed */
void limits_free(struct worker *w);

/* ---- limit_shadow.c ---- */
void limit_shadow_read(struct worker *w); /* with the running values: what is tried now */
/* Charges the candidate of the limit, if there is one. key: the limit's, 0: it does not count this
 * client. admitted: by the limit. */
void limit_shadow_charge(struct worker *w, const struct request *r, const struct config_limit *l,
                         uint64_t key, bool admitted);

#endif
