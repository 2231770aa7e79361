/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * segment: what outlives a process that holds WebSockets, in memory that its custodian maps too.
 *
 * Only one process writes: the working one, and after its death the next. The custodian looks at
 * the phases of slots, and at the heartbeat, and at nothing else. Where something lies does not
 * stand in it, and a reader checks what does: a process that has gone wrong leads neither its
 * custodian nor its successor elsewhere.
 *
 * A slot describes one WebSocket. What has to fit together exactly lies in a point: two of them, of
 * which one store makes the other one the current one. Times, counts and the like lie beside them:
 * a step more or less does not matter. Bytes that a leg has not taken lie in blocks.
 *
 * Pages are the kernel's own until they are used, so the sizes are bounds and no cost.
 */
#ifndef POLDER_SUPERVISOR_SEGMENT_H
#define POLDER_SUPERVISOR_SEGMENT_H
#include "daemons/supervisor/supervisor.h"

#include <stdatomic.h>

#ifndef SEGMENT_LAYOUT /* another one in a build for tests */
#define SEGMENT_LAYOUT 4
#endif
#define SEGMENT_SLOTS  (1u << 20)       /* WebSockets that can be taken up, at most */
#define SEGMENT_BLOCK  SUPERVISOR_CHUNK /* a struct buffer, with its head */
#define SEGMENT_BLOCKS (1u << 20)
#define NO_BLOCK       UINT32_MAX

enum slot_phase {
    SLOT_FREE,
    SLOT_ASKING,   /* the client waits for an answer of HTTP, and has had no byte of it */
    SLOT_ANSWERED, /* or is having it: what is missing is not known */
    SLOT_OPEN,     /* a WebSocket: the current point counts */
    SLOT_GONE      /* the custodian closes what it holds, then it is free */
};

struct point_leg {
    uint64_t read_at;    /* the kernel's position of reading: up to here all is in this point */
    uint64_t written_at; /* its position of writing when all of this point is out */
    struct frames in;
    /* What may be missing before written_at: a range of the buffer, then a chain of blocks. */
    uint32_t direct_at, direct_len;
    uint32_t chain_block, chain_skip, chain_len;
    uint32_t stash_block;
    uint8_t stash_len;
    uint8_t pings_out;
    bool fin;
    bool closed; /* the session goes on without it */
};

struct point {
    struct point_leg leg[2]; /* client, backend */
    uintptr_t base;          /* where the segment was, of links between blocks */
    uint16_t close_code;
    uint8_t state, end;
    bool goodbye, untold;
};

struct slot {
    _Atomic uint32_t phase; /* enum slot_phase */
    _Atomic uint32_t current;
    _Atomic uint32_t tried; /* how often it was taken up again, since it was written last */
    bool probe;
    bool local; /* it has no backend */
    struct clientip ip;
    uint64_t route; /* hash of its pattern */
    uint64_t id;
    uint64_t opened_ms, to_client_ms, from_client_ms, moved_ms, deadline_ms;
    uint64_t pinged_ms[2];
    uint64_t bytes, messages_in, messages_out;
    char client_id[CLIENT_ID_MAX + 1];
    struct point point[2];
};
_Static_assert(sizeof(struct slot) <= 1024, "the bound of shared memory for a WebSocket");

/* What is read at this moment, into the buffer: written before recv(). */
struct reading {
    uint32_t slot, leg;
    uint32_t have; /* bytes of a stash that stand before it */
    uint64_t at;   /* position of its first byte */
};

struct segment {
    uint32_t layout, slot_size;
    uint64_t size;
    _Atomic uint64_t heartbeats; /* of the working process */
    _Atomic uint32_t missed;     /* a note to the custodian could not be sent: it looks itself */
    _Atomic uint32_t used; /* slots that have ever been used: the first ones; segment_used() */
    uint32_t blocks_used;  /* the same of blocks; segment_blocks_used() */
    uint64_t next_id, ping_secret;
    struct survived survived; /* in all */
    struct reading reading;
    uint8_t buffer[SUPERVISOR_READ + FRAMES_CONTROL_MAX];
};

/* Slots, then blocks, each from the beginning of a page. */
#define SEGMENT_TO_PAGE(n) (((n) + 4095u) / 4096u * 4096u)
#define SEGMENT_SLOTS_AT   SEGMENT_TO_PAGE(sizeof(struct segment))
#define SEGMENT_BLOCKS_AT                                                                          \
    (SEGMENT_SLOTS_AT + SEGMENT_TO_PAGE((size_t)SEGMENT_SLOTS * sizeof(struct slot)))
#define SEGMENT_SIZE (SEGMENT_BLOCKS_AT + (size_t)SEGMENT_BLOCKS * SEGMENT_BLOCK)

/* A new one, and its descriptor. NULL: there is none; errno says why. */
struct segment *segment_new_fd(int *fd);
/* Another process's (takes fd); NULL: it is of no use here. */
struct segment *segment_map(int fd);
void segment_free(struct segment *g);

static inline struct slot *segment_slot(struct segment *g, uint32_t i)
{
    return (struct slot *)(void *)((char *)g + SEGMENT_SLOTS_AT) + i;
}
static inline uint32_t segment_slot_index(struct segment *g, const struct slot *slot)
{
    return (uint32_t)(slot - segment_slot(g, 0));
}
static inline uint32_t segment_used(struct segment *g)
{
    const uint32_t n = atomic_load(&g->used);
    return n < SEGMENT_SLOTS ? n : SEGMENT_SLOTS;
}
/* A block is a buffer of the pool. */
static inline struct buffer *segment_block(struct segment *g, uint32_t i)
{
    return (struct buffer *)(void *)((char *)g + SEGMENT_BLOCKS_AT + (size_t)i * SEGMENT_BLOCK);
}
static inline uint32_t segment_block_index(const struct segment *g, const struct buffer *b)
{
    const size_t at = (size_t)((const char *)b - (const char *)g);
    return b ? (uint32_t)((at - SEGMENT_BLOCKS_AT) / SEGMENT_BLOCK) : NO_BLOCK;
}
static inline uint32_t segment_blocks_used(const struct segment *g)
{
    return g->blocks_used < SEGMENT_BLOCKS ? g->blocks_used : SEGMENT_BLOCKS;
}

/* positions.c: how far the kernel is with the bytes of a TCP connection. */
struct positions {
    uint64_t read, written;
};
enum positions_found { POSITIONS_FOUND, POSITIONS_GONE /* closed or reset */, POSITIONS_NOT_TCP };
enum positions_found positions_of(int fd, struct positions *p);
#endif
