/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ring: a byte ring from one producer (a worker, or control) to one consumer (the keeper).
 *
 * `head` is published after the copy, `tail` moves after the keeper's commit: a producer killed
 * while it writes leaves nothing visible, a keeper killed before its commit reads the records
 * again, so records are idempotent. The keeper trusts nothing: lengths, types and checksum are
 * checked. Full: the producer counts it and does not store. A respawned producer continues at
 * `head`; the keeper sees the new incarnation in the record headers and drops unfinished streams of
 * the old one.
 */
#ifndef POLDER_RING_H
#define POLDER_RING_H
#include "polder/fetch_lock.h"
#include "polder/shm.h"
#include <stdbool.h>
#include <sys/uio.h>

#define RING_BYTES      (4u << 20)
#define RING_RECORD_MAX (64u << 10)

enum ring_type {
    RING_STORE = 1, /* a complete cache record (struct cache_record …), body inline */
    RING_BEGIN,  /* a cache record without its body; CHUNKs follow under the same stream number */
    RING_CHUNK,  /* CACHE_CHUNK bytes of body (the last one may be shorter) */
    RING_END,    /* uint64_t body length: the object may be published. The keeper puts it into
                    body_len (BEGIN may not know it) and the XXH3-64 of the chunks into
                    body_checksum, which is the ETag where CACHE_ETAG_OURS is set */
    RING_ABORT,  /* forget the stream */
    RING_DELETE, /* struct cache_key: delete the object if it is still invalid or damaged; with
                    an obj_id after it: only if it still is that object */
    RING_REVALIDATE, /* a cache record without body: replaces header and times of the same object
                     (obj_id must match), after a 304 */
    RING_SWEEP,      /* control: something was invalidated; payload: struct ring_sweep */
};

struct ring_record {
    uint32_t len;  /* of the payload */
    uint16_t type; /* enum ring_type */
    uint16_t flags;
    uint32_t incarnation;       /* of the producer */
    uint32_t check;             /* low half of XXH3-64 of the payload */
    uint64_t stream;            /* BEGIN..END; 0 otherwise */
    struct fetch_permit permit; /* to release after the commit; word 0: none */
};
_Static_assert(sizeof(struct ring_record) == 40, "wire format");

struct ring_sweep {
    uint64_t seq;  /* of the invalidation */
    uint32_t kind; /* 0 url, 1 tag, 2 prefix, 3 all */
    uint32_t soft;
    uint32_t len; /* of the text after it: prefix, or "host/path" */
    uint32_t pad_;
};

struct ring;
size_t ring_size(void);
uint64_t ring_layout(void);

/* Producer. All of the iovecs are one payload. 0, or -ENOSPC when full. Rings the keeper's eventfd
 * only if it sleeps. */
int ring_push(struct ring *ring, const struct ring_record *head, const struct iovec *iov, int n,
              int keeper_event);
/* free bytes as seen by the producer */
size_t ring_room(const struct ring *ring);

/* Consumer. Copies the record at `cursor` (start with ring_tail()) into buf (RING_RECORD_MAX
 * bytes); 1: got one, *cursor moved; 0: nothing there; -EPROTO: damaged, the caller drops
 * everything up to head. */
uint64_t ring_tail(const struct ring *ring);
uint64_t ring_head(const struct ring *ring);
int ring_peek(const struct ring *ring, uint64_t *cursor, struct ring_record *head, void *buf);
void ring_consume(struct ring *ring, uint64_t cursor); /* tail = cursor, after the commit */
/* Consumer: announce sleep; then check all rings once more before sleeping. */
void ring_sleep(struct ring *ring, bool asleep);
#endif
