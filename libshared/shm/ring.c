/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ring: single producer, single consumer, bytes.
 *
 * head and tail only grow; their difference is what is in the ring. What lies between them wraps
 * at RING_BYTES. The producer owns head, the consumer owns tail and sleeping.
 */
#include "polder/ring.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY /* for a hash state on the stack */
#include <xxhash.h>

struct ring {
    struct shm_header header;
    _Alignas(64) _Atomic uint64_t head;     /* producer (seq_cst, after the copy) */
    _Alignas(64) _Atomic uint64_t tail;     /* consumer (release, after its commit) */
    _Alignas(64) _Atomic uint32_t sleeping; /* consumer: 1 while it may wait on its eventfd */
    _Alignas(64) char data[RING_BYTES];
};
_Static_assert((RING_BYTES & (RING_BYTES - 1)) == 0, "positions are masked");
_Static_assert(sizeof(struct ring_record) + RING_RECORD_MAX <= RING_BYTES, "the largest fits");

size_t ring_size(void)
{
    return sizeof(struct ring);
}

uint64_t ring_layout(void)
{
    return (uint64_t)sizeof(struct ring) << 32 | offsetof(struct ring, data) << 16 |
           sizeof(struct ring_record) << 8 | offsetof(struct ring, tail);
}

static void ring_write(struct ring *ring, uint64_t at, const void *from, size_t len)
{
    const size_t offset = at & (RING_BYTES - 1);
    const size_t first = RING_BYTES - offset < len ? RING_BYTES - offset : len;
    memcpy(ring->data + offset, from, first);
    memcpy(ring->data, (const char *)from + first, len - first);
}

static void ring_read(const struct ring *ring, uint64_t at, void *to, size_t len)
{
    const size_t offset = at & (RING_BYTES - 1);
    const size_t first = RING_BYTES - offset < len ? RING_BYTES - offset : len;
    memcpy(to, ring->data + offset, first);
    memcpy((char *)to + first, ring->data, len - first);
}

static uint32_t ring_check_of(const struct iovec *iov, int n)
{
    if (n == 1)
        return (uint32_t)XXH3_64bits(iov[0].iov_base, iov[0].iov_len);
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (int i = 0; i < n; i++)
        if (iov[i].iov_len)
            XXH3_64bits_update(&state, iov[i].iov_base, iov[i].iov_len);
    return (uint32_t)XXH3_64bits_digest(&state);
}

size_t ring_room(const struct ring *ring)
{
    const uint64_t used = atomic_load_explicit(&ring->head, memory_order_relaxed) -
                          atomic_load_explicit(&ring->tail, memory_order_acquire);
    return used < RING_BYTES ? (size_t)(RING_BYTES - used) : 0;
}

int ring_push(struct ring *ring, const struct ring_record *head, const struct iovec *iov, int n,
              int keeper_event)
{
    size_t len = 0;
    for (int i = 0; i < n; i++)
        len += iov[i].iov_len;
    if (len > RING_RECORD_MAX)
        return -EMSGSIZE;
    if (ring_room(ring) < sizeof *head + len)
        return -ENOSPC;

    struct ring_record record = *head;
    record.len = (uint32_t)len;
    record.check = ring_check_of(iov, n);
    const uint64_t start = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t at = start;
    ring_write(ring, at, &record, sizeof record);
    at += sizeof record;
    for (int i = 0; i < n; at += iov[i].iov_len, i++)
        if (iov[i].iov_len)
            ring_write(ring, at, iov[i].iov_base, iov[i].iov_len);

    /* seq_cst on both sides: either the consumer's last look sees this head, or we see it asleep.
     * The flag is only read: a producer that cleared it and then died would leave it asleep. */
    atomic_store(&ring->head, at);
    if (atomic_load(&ring->sleeping) && keeper_event >= 0) {
        const uint64_t one = 1;
        const ssize_t written = write(keeper_event, &one, sizeof one);
        (void)written; /* EAGAIN: the counter is far from zero, it wakes anyway */
    }
    return 0;
}

uint64_t ring_tail(const struct ring *ring)
{
    return atomic_load_explicit(&ring->tail, memory_order_relaxed);
}

uint64_t ring_head(const struct ring *ring)
{
    return atomic_load(&ring->head);
}

int ring_peek(const struct ring *ring, uint64_t *cursor, struct ring_record *head, void *buf)
{
    const uint64_t filled = ring_head(ring) - *cursor;
    if (filled == 0)
        return 0;
    if (filled > RING_BYTES || filled < sizeof *head)
        return -EPROTO;
    /* Judged on our copy: the producer could still write into the ring. */
    ring_read(ring, *cursor, head, sizeof *head);
    if (head->type < RING_STORE || head->type > RING_SWEEP || head->len > RING_RECORD_MAX ||
        head->len > filled - sizeof *head)
        return -EPROTO;
    ring_read(ring, *cursor + sizeof *head, buf, head->len);
    if ((uint32_t)XXH3_64bits(buf, head->len) != head->check)
        return -EPROTO;
    *cursor += sizeof *head + head->len;
    return 1;
}

void ring_consume(struct ring *ring, uint64_t cursor)
{
    atomic_store_explicit(&ring->tail, cursor, memory_order_release);
}

void ring_sleep(struct ring *ring, bool asleep)
{
    atomic_store(&ring->sleeping, asleep ? 1u : 0u);
}
