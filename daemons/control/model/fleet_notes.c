/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_notes: see fleet_notes.h. */
#include "daemons/control/model/fleet_notes.h"
#include "polder/ring.h"

static void take_note(const struct fleet_base *b, unsigned worker, const struct ring_record *head,
                      const char *note, fleet_tell_fn tell, void *arg)
{
    if (head->flags >= FLEET_SHARE_ASK && head->flags <= FLEET_SHARE_PUT) {
        b->ops->note(b->arg, worker, head, note);
        return;
    }
    const enum fleet_kind kind =
        head->flags < FLEET_KINDS ? (enum fleet_kind)head->flags : FLEET_ALL;
    tell(arg, kind, note, kind == FLEET_ALL ? 0 : head->len, head->stream);
}

static void take_ring(const struct fleet_base *b, unsigned worker, fleet_tell_fn tell, void *arg)
{
    static _Alignas(8) char note[RING_RECORD_MAX];
    struct ring *ring = shared_fleet_ring(b->shared, worker);
    struct ring_record head;
    uint64_t cursor = ring_tail(ring);
    int got;
    if (cursor == ring_head(ring))
        return;
    while ((got = ring_peek(ring, &cursor, &head, note)) == 1)
        take_note(b, worker, &head, note, tell, arg);
    if (got < 0) {
        cursor = ring_head(ring);
        tell(arg, FLEET_ALL, "", 0, 0);
    }
    ring_consume(ring, cursor); /* what is for the log is pending: `unsent` says so */
    ring_sleep(ring, true);
}

void fleet_notes_take(const struct fleet_base *b, fleet_tell_fn tell, void *arg)
{
    if (atomic_load(&b->page->overflow)) {
        atomic_store(&b->page->unsent, 1);
        atomic_store(&b->page->overflow, 0);
        tell(arg, FLEET_ALL, "", 0, 0);
    }
    for (unsigned i = 0; i < PROC_WORKER_SLOTS; i++)
        take_ring(b, i, tell, arg);
}

void fleet_notes_begin(struct shared *shared)
{
    for (unsigned i = 0; i < PROC_WORKER_SLOTS; i++)
        ring_sleep(shared_fleet_ring(shared, i), true);
}
