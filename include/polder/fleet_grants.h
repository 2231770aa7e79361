/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_grants: what this host may admit of limits that hold over all hosts of a fleet (scope = "fleet").
 *
 * The store of the fleet counts each key in windows of its own clock: one at a time (fixed), six
 * sub-windows of window/5 together (sliding, as in limit.h), or a bucket (gcra). A host takes some
 * requests of a key at once: they are deducted there before they are used here, and end with their
 * (sub-)window, or some time later (gcra: FLEET_LASTS_MS, all when the newest does). So whatever hosts do, and whichever dies, the
 * sum over all is never above the limit. What a host has taken and not used it gives back when it
 * asks again.
 *
 * Here a key has one cell of 128 bits {key, how many are left | until when}, changed by single
 * compare-and-swaps of workers (which use) and control (which has asked the store). The store's
 * refusal is a state of the cell, too: it holds until the store said that there will be more.
 *
 * A host that cannot reach the store has a share: a part of each limit that the store leaves to it.
 * As others may have taken all of a window, it begins with it in the first one that has begun after
 * the host's lease has ended (share_from_ms): from then on the store keeps it for this host. See
 * fleet_share_of().
 *
 * Each row remembers what the store has said of its key last. All hosts report that to a store that
 * has lost its data, and it goes on from there.
 */
#ifndef POLDER_FLEET_GRANTS_H
#define POLDER_FLEET_GRANTS_H
#include "polder/proc.h"
#include "polder/runtime.h"
#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FLEET_GRANTS_LAYOUT   4
#define FLEET_GRANT_ROWS      65536u /* keys at once; more: the longest unused are given up */
#define FLEET_GRANT_WAYS      4u
#define FLEET_GRANT_MAX       ((1u << 23) - 1) /* requests of a key at once */
#define FLEET_ASKS            1024u
#define FLEET_GRANTS_TOGETHER 64u
#define FLEET_SHARE_WHOLE     1000000u
#define FLEET_SHARE_UNKNOWN   (FLEET_SHARE_WHOLE / 10) /* of a host that was never a member */
#define FLEET_GRANTS_SECRET   192
#define FLEET_LASTS_MS        1000 /* what is taken of gcra: so long or the window; or a tenth of it */

struct fleet_grant {
    _Alignas(64) uint64_t cell[2]; /* the key, and the word; together by compare-and-swap alone */
    _Atomic uint64_t requested_ms; /* mono; the store is asked for it. 0: it is not */
    _Atomic uint64_t granted_ms;   /* mono */
    _Atomic uint64_t used_ms;      /* mono */
    _Atomic uint32_t low;          /* with fewer left than that the store is asked for more */
    _Atomic uint32_t want;         /* how many were asked for last */
    _Atomic uint32_t rest;         /* left in the store then, for display */
    _Atomic uint32_t back;         /* taken with back_number, and never used: to be given back */
    uint64_t back_number;
    /* What the store said last, of the key with that hash there: the row may have been given to
     * another one meanwhile. Control alone reads and writes it; while it does, format is none. */
    _Alignas(64) uint64_t hash[2];
    uint64_t number;         /* of what is in the cell; 0: of another history */
    uint64_t ends_ms;        /* mono; of the newest sub-window; gcra: when it was said */
    _Atomic uint32_t format; /* enum fleet_format */
    uint32_t sub_ms;         /* of a sub-window; gcra: the window */
    union {
        uint32_t count[6]; /* of sub-windows, the newest first */
        struct {
            uint64_t level;   /* in 2^20ths of a request */
            uint64_t sent_ms; /* mono; when that was asked for, or before */
            uint32_t requests;
        };
    };
};
static_assert(sizeof(struct fleet_grant) == 128, "two lines of a cache");
/* How many sub-windows count together. */
enum fleet_format {
    FLEET_FORMAT_NONE,
    FLEET_FORMAT_FIXED = 1,
    FLEET_FORMAT_SLIDING = 6,
    FLEET_FORMAT_GCRA
};

/* What a worker asks the store for. The hash is the client's, keyed by the fleet's secret. */
struct fleet_want {
    uint64_t key;
    uint64_t hash[2];
    uint64_t window_ms;
    uint32_t requests, algorithm, want, cost;
    uint32_t limit, had; /* its index, and what this host has counted of it */
};
/* One writer, one reader; what is not published is not there. */
struct fleet_wants {
    _Alignas(64) _Atomic uint64_t head;
    _Alignas(64) _Atomic uint64_t tail;
    struct fleet_want at[FLEET_ASKS];
};

struct fleet_grants {
    /* control writes */
    _Alignas(64) _Atomic uint64_t until_ms; /* mono; the store grants until then. 0: it does not */
    _Atomic uint64_t share_from_ms; /* mono; windows that have begun later have the share. 0: there
                                       is no fleet */
    _Atomic uint32_t share;         /* of FLEET_SHARE_WHOLE */
    _Atomic uint32_t hosts;         /* that share the limits now */
    /* The last time that it has used its share: until when, 0: never; since when it could have, before
     * that; what it was. */
    _Atomic uint64_t alone_until_ms, alone_ms;
    _Atomic uint32_t alone_share;
    _Atomic uint32_t has_been_member; /* 1: in this run */
    /* mono; by config_limit.index: until then it was one of this host. 0: it never was */
    _Atomic uint64_t own_until_ms[RUNTIME_LIMITS_MAX];
    _Atomic uint64_t run;   /* random: of this memory */
    _Atomic uint64_t epoch; /* of the store's history to which is reported what is known here */
    _Atomic uint64_t taken, refused, calls; /* counters: requests granted, refusals, calls */
    /* workers add */
    _Alignas(64) _Atomic uint64_t waited, late; /* requests that waited; in vain */
    _Atomic uint64_t cut_admitted, cut_refused; /* in the cut-off mode of their limit */
    _Atomic uint64_t share_used_ms; /* mono; a request may have been admitted by the share then */
    _Atomic uint64_t heard[FLEET_GRANT_ROWS / FLEET_GRANTS_TOGETHER / 64]; /* control: rows that
                                      the store has said something of, some together a bit */
    struct fleet_grant row[FLEET_GRANT_ROWS];
    struct fleet_wants asks[PROC_WORKER_SLOTS];
};

enum fleet_take {
    FLEET_TAKE_NONE,    /* nothing is known, or all is used: ask */
    FLEET_TAKE_DONE,    /* it is deducted */
    FLEET_TAKE_LOW,     /* the same, and it is time to ask for more */
    FLEET_TAKE_REFUSED, /* the store has refused more, until end_ms */
};
struct fleet_took {
    enum fleet_take result;
    uint32_t left;   /* here and, as far as was known, in the store */
    uint64_t end_ms; /* mono; of these, or of the refusal */
};
/* now_ms: as exact as can be had; what ends then is not used any more. */
struct fleet_took fleet_grant_take(struct fleet_grants *g, uint64_t key, uint32_t cost,
                                   uint64_t now_ms);
/* Is there something to take, a refusal, or nothing that is asked for? */
bool fleet_grant_is_known(struct fleet_grants *g, uint64_t key, uint32_t cost, uint64_t now_ms);
/* Gives back what was taken, if it has not ended. */
void fleet_grant_return(struct fleet_grants *g, uint64_t key, uint32_t cost,
                        const struct fleet_took *took);
/* Puts ask.want in, and the ask into the worker's queue; false: it was asked already, or there is no
 * room. The caller wakes control. */
bool fleet_grant_ask(struct fleet_grants *g, unsigned worker_slot, struct fleet_want *ask,
                     uint64_t now_ms);
/* control: the next ask of that worker. */
bool fleet_grant_next(struct fleet_grants *g, unsigned worker_slot, struct fleet_want *out);
/* control: what of the key was taken and can never be used, which is not there any more; *number:
 * when, as the store calls it. */
uint32_t fleet_grant_back(struct fleet_grants *g, const struct fleet_want *ask, uint64_t now_ms,
                          uint64_t *number);
struct fleet_out {
    uint32_t n;        /* what is there, and may be used yet */
    uint64_t ago_ms;   /* since when none was used, or less */
    uint64_t after_ms; /* so long after the store was asked last the last one was used, or later */
};
/* control, gcra: what is there of the key; what a request gives back from now on that had taken it before
 * is lost. */
struct fleet_out fleet_grant_out(struct fleet_grants *g, const struct fleet_want *ask,
                                 uint64_t now_ms);
/* control: what of ask->had the store does not know yet. */
uint32_t fleet_grant_had(struct fleet_grants *g, const struct fleet_want *ask, uint64_t now_ms);
/* Of a limit. */
struct fleet_terms {
    uint64_t window_ms;
    uint32_t requests, algorithm;
};
/* What the store answers. */
struct fleet_answer {
    uint32_t n;       /* deducted; 0: it refuses */
    uint32_t rest;    /* what it has left */
    uint64_t end_ms;  /* mono; of these or of the refusal */
    uint64_t sent_ms; /* mono; when it was asked for */
    uint64_t number;  /* of the sub-window; gcra: the store's time */
    uint64_t ends_ms; /* mono; of the sub-window; gcra: now */
    uint64_t state[6];
};
/* control: puts it in. True: there is something to be given back. */
bool fleet_grant_put(struct fleet_grants *g, const struct fleet_want *ask,
                     const struct fleet_answer *a, uint64_t now_ms);
/* control: the store was not to be asked. */
void fleet_grant_forget(struct fleet_grants *g, const struct fleet_want *ask);

/* What is left here of a key. */
uint32_t fleet_grant_left(struct fleet_grants *g, uint64_t key, uint64_t now_ms);
/* control: the next row from *at on whose key's state matters to a store that does not know it; NULL:
 * there is none. */
const struct fleet_grant *fleet_grant_heard(const struct fleet_grants *g, uint32_t *at,
                                            uint64_t now_ms);
/* control: nothing of what is there can be given back: the store has another history. */
void fleet_grants_renounce(struct fleet_grants *g);

/*
 * Requests of the share of a limit, in any window, to be used now; *wait_ms: until there are any (0:
 * now).
 *
 * Others may have taken all of a limit until the lease ends. Later they leave the share in windows that
 * begin later. So the first request may come when none of what they have used is in the same window:
 * one window after the end of the lease, where windows of the store's clock are counted (fixed); after
 * the sub-window in which the lease has ended and all of a window after it, so 1.2 windows (sliding);
 * and when the bucket has flown out, into which what they held may have gone for a while, 1.1 windows,
 * or one and up to FLEET_LASTS_MS (gcra).
 */
uint32_t fleet_share_of(struct fleet_grants *g, const struct fleet_terms *terms, uint64_t now_ms,
                        uint64_t *wait_ms);
/* control: nothing is admitted by the share any more, or again as it was before, which is returned. */
uint64_t fleet_share_from(struct fleet_grants *g, uint64_t from_ms);

/* What of so many requests is this host's part, and the most that it takes at once. */
uint32_t fleet_share_part(const struct fleet_grants *g, uint32_t requests);
uint32_t fleet_lease_of(const struct fleet_grants *g, uint32_t requests, uint32_t algorithm);
/* What it holds at most of what is asked for; of gcra half of that: see fleet_limit_scripts.h. */
uint32_t fleet_lease_for(const struct fleet_grants *g, const struct fleet_want *ask);

static inline bool fleet_grants_come(const struct fleet_grants *g, uint64_t now_ms)
{
    return atomic_load_explicit(&g->until_ms, memory_order_acquire) > now_ms;
}

/* The secret that keys hashes: of all hosts with this name and secret of a fleet the same. */
void fleet_grants_secret(const char *name, const char *secret, uint8_t out[FLEET_GRANTS_SECRET]);
/* The key as the store knows it: of a limit, and of who it counts. */
void fleet_grants_hash(const uint8_t secret[FLEET_GRANTS_SECRET], uint64_t limit_id,
                       const void *who, size_t len, uint64_t hash[2]);
#endif
