/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_slots: how many requests under way, and WebSockets, this host may have of limits on them that
 * hold over all hosts of a fleet (`concurrent` of a limit, and the bounds of a websocket section,
 * with scope = "fleet").
 *
 * A slot is held, not used up. The store knows how many slots of each key each host holds, and that
 * they are together never more than the limit. A host is given slots before it uses them: as many as
 * it waits for, and where limits are large some more, at most limit/(10 * hosts) (fleet_slots_block()).
 * What it holds beyond those in use and that spare it returns at once, the spare after a second
 * without use. It tells the store how many it holds, never how many more or fewer: so an answer that
 * was lost, or a control that was killed, is mended by the next call.
 *
 * Here a key has a row. Of requests under way the counts of the limiter say how many slots are in
 * use (limit_enter_held()): those of a dead worker do not count. Of WebSockets polder-supervisor,
 * which owns them, counts them in the row itself; after it was killed it counts again what it finds.
 * control alone changes what is held, and never below what is in use.
 *
 * A host in no contact with the store. The store keeps its slots for it, for fleet.slots_keep after
 * it has heard of it last; until then the host goes on with what it holds: what is under way goes on,
 * and what ends makes room for another (mode share; closed: for none). At the end of that time, by its
 * own clock and counted from before it spoke to the store (end_ms, FLEET_SLOTS_MARGIN_MS early), it
 * holds none: requests under way that take slots are cut, WebSockets are told to connect again.
 * Only then the store gives them to others. So the sum over all hosts is at no time above the limit,
 * unless the store loses its data; then it is not above the limit and what hosts held that the store
 * has not heard of within FLEET_LEASE_MS after that (`learning`; no host gets further slots meanwhile). A
 * host whose limits are open does neither end anything nor count for that promise.
 *
 * A polderd that was started anew is another holder, with the rows of a new page. It drops the former
 * one of its host when all that still uses slots, the WebSockets of polder-supervisor, has been told.
 */
#ifndef POLDER_FLEET_SLOTS_H
#define POLDER_FLEET_SLOTS_H
#include "polder/proc.h"
#include "polder/shm.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FLEET_SLOTS_LAYOUT     3
#define FLEET_SLOT_ROWS        (1u << 17) /* of each kind */
#define FLEET_SLOT_PROBES      32u        /* a key is within so many rows, or has none */
#define FLEET_SLOT_ASKS        1024u
#define FLEET_SLOT_SUPERVISOR  PROC_WORKER_SLOTS /* its queue; those of workers are by their slot */
#define FLEET_SLOT_QUEUES      (PROC_WORKER_SLOTS + 1)
#define FLEET_SLOTS_MARGIN_MS  2000 /* to end what is under way in */
#define FLEET_SLOTS_REFUSED_MS 10   /* for which the store's refusal of a key holds */
#define FLEET_SLOT_UNREPORTED  UINT32_MAX

/* Rows of a kind are claimed by its users alone: of requests by workers, of WebSockets by the
 * supervisor. */
enum fleet_slot_kind { FLEET_SLOT_REQUEST, FLEET_SLOT_WEBSOCKET, FLEET_SLOT_KINDS };

struct fleet_slot_key {
    uint64_t hash[2]; /* as the store knows it */
};
/* Here: what rows and the limiter know it by; never 0. */
static inline uint64_t fleet_slot_id(const struct fleet_slot_key *key)
{
    return key->hash[0] ? key->hash[0] : 1;
}

struct fleet_slot {
    _Alignas(128) _Atomic uint64_t id; /* 0: free; control frees */
    _Atomic uint64_t hash;             /* the other half of the key; any user, always the same */
    _Atomic uint64_t of;               /* the limit's id, or the route's; 0: of all routes */
    _Atomic uint64_t word;             /* held << 32 | in use (of WebSockets) */
    _Atomic uint32_t limit;            /* as a user knows it */
    _Atomic uint32_t need;             /* slots that are waited for; users add, control takes */
    _Atomic uint32_t
        requested;        /* the supervisor: 1, it waits; control: 0, it has heard of the store */
    _Atomic uint32_t due; /* 1: it is in a queue */
    _Atomic uint64_t refused_until_ms; /* mono; control */
    _Atomic uint64_t waiting[2];       /* workers that are to be woken, bits by slot */
    _Atomic uint32_t answers; /* how often control has heard of the store, for those that wait */
    _Atomic uint32_t entered; /* how often users have taken one; they add */
    /* control's own */
    uint64_t used_ms, grown_ms; /* mono; when it was seen in use, or asked for; was given some */
    uint32_t expected;          /* of `entered`, until what was waited for is used */
    uint32_t reported;          /* what the store knows; FLEET_SLOT_UNREPORTED: not known */
    uint32_t grow;              /* how many it is given at once */
};
_Static_assert(PROC_WORKER_SLOTS <= 128, "bits of waiting");

/* One writer, control reads. Rows by their number; what is not published is found by control some
 * time later. */
struct fleet_slot_queue {
    _Alignas(64) _Atomic uint64_t head;
    _Alignas(64) _Atomic uint64_t tail;
    uint32_t row[FLEET_SLOT_ASKS];
};

struct fleet_slots {
    struct shm_header header;
    /* control writes */
    _Alignas(64) _Atomic uint64_t until_ms; /* mono; the store can be asked until then; 0: not */
    _Atomic uint64_t end_ms;                /* mono; what is held is this host's until then */
    _Atomic uint32_t hosts;
    _Atomic uint64_t epoch, run; /* of the store's history; of this page, among those of its host */
    _Atomic uint64_t taken, refused, calls;
    /* the supervisor: how often it has counted all WebSockets that there were; 0: never */
    _Atomic uint64_t counts;
    /* users add */
    _Alignas(64) _Atomic uint64_t waited, late;                         /* for the store; in vain */
    _Atomic uint64_t cut_admitted, cut_refused;                         /* without it */
    _Atomic uint64_t ended;                                             /* cut at end_ms */
    _Atomic uint64_t full;                                              /* no row was free */
    _Atomic uint64_t occupied[FLEET_SLOT_KINDS * FLEET_SLOT_ROWS / 64]; /* rows to be looked at */
    struct fleet_slot row[FLEET_SLOT_KINDS * FLEET_SLOT_ROWS];
    struct fleet_slot_queue queue[FLEET_SLOT_QUEUES];
};

uint64_t fleet_slots_layout(void);

static inline uint32_t fleet_slot_held(const struct fleet_slot *s)
{
    return (uint32_t)(atomic_load(&s->word) >> 32);
}
static inline uint32_t fleet_slot_used(const struct fleet_slot *s)
{
    return (uint32_t)atomic_load(&s->word);
}
static inline bool fleet_slots_come(const struct fleet_slots *p, uint64_t now_ms)
{
    return atomic_load_explicit(&p->until_ms, memory_order_acquire) > now_ms;
}
/* What is held is this host's. */
static inline bool fleet_slots_last(const struct fleet_slots *p, uint64_t now_ms)
{
    return atomic_load_explicit(&p->end_ms, memory_order_acquire) > now_ms;
}
/* It was, and has ended. */
static inline bool fleet_slots_ended(const struct fleet_slots *p, uint64_t now_ms)
{
    const uint64_t end_ms = atomic_load_explicit(&p->end_ms, memory_order_acquire);
    return end_ms && end_ms <= now_ms;
}

/* NULL: the key has no row. */
struct fleet_slot *fleet_slot_find(struct fleet_slots *p, enum fleet_slot_kind kind,
                                   const struct fleet_slot_key *key);
/* The same, made if need be; NULL: there is no room, or no lock. of: what it bounds; limit: as it is
 * now. caller: of a
 * worker; NULL: of the supervisor. */
struct limit_caller;
struct fleet_slot *fleet_slot_claim(const struct limit_caller *caller, struct fleet_slots *p,
                                    const struct fleet_slot_key *key, uint64_t of, uint32_t limit);
/* A slot is waited for. False: the row is looked at already; else the caller wakes control. */
bool fleet_slot_ask(struct fleet_slots *p, unsigned queue, struct fleet_slot *s);
/* Something has ended; the same. What is spare anyway is not worth a look. */
bool fleet_slot_left(struct fleet_slots *p, unsigned queue, struct fleet_slot *s);
/* One was taken. */
static inline void fleet_slot_entered(struct fleet_slot *s)
{
    atomic_fetch_add_explicit(&s->entered, 1, memory_order_relaxed);
}
static inline bool fleet_slot_is_refused(const struct fleet_slot *s, uint64_t now_ms)
{
    return atomic_load(&s->refused_until_ms) > now_ms;
}

/* The supervisor: one more WebSocket, or one fewer. False: all that is held is in use. */
bool fleet_slot_use(struct fleet_slot *s);
void fleet_slot_use_anyway(struct fleet_slot *s);
void fleet_slot_end(struct fleet_slot *s);
/* It is so many. */
void fleet_slot_count(struct fleet_slot *s, uint32_t used);

/* What a host takes at once, at most, and keeps unused. The spare of small limits is 0. */
uint32_t fleet_slots_block(const struct fleet_slots *p, uint32_t limit);
uint32_t fleet_slots_spare(const struct fleet_slots *p, uint32_t limit);

/* ---- control ---- */
uint32_t fleet_slot_row(const struct fleet_slots *p, const struct fleet_slot *s);
static inline enum fleet_slot_kind fleet_slot_kind_of(uint32_t row)
{
    return row < FLEET_SLOT_ROWS ? FLEET_SLOT_REQUEST : FLEET_SLOT_WEBSOCKET;
}
/* The next row of that queue. */
bool fleet_slot_next(struct fleet_slots *p, unsigned queue, uint32_t *row);
/* The first row from there on that may have a key; false: there is none. */
bool fleet_slot_each(const struct fleet_slots *p, uint32_t *row);

/* How many are in use. */
uint32_t fleet_slot_in_use(const struct limit_caller *caller, struct fleet_slots *p, uint32_t row);
/* Holds no more than that or, where that is more, than is in use, and at least what is in use. Returns
 * it. Where it cannot be changed just now it is what it was. */
uint32_t fleet_slot_lower(const struct limit_caller *caller, struct fleet_slots *p, uint32_t row,
                          uint32_t to);
void fleet_slot_raise(struct fleet_slots *p, uint32_t row, uint32_t by);
/* Nothing is held and nothing in use: its row is free. */
void fleet_slot_free(const struct limit_caller *caller, struct fleet_slots *p, uint32_t row);
#endif
