/* SPDX-License-Identifier: BSD-2-Clause */
/* held: see held.h. */
#include "daemons/supervisor/survive/held.h"
#include "polder/clock.h"
#include "polder/log.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* The one of this process. */
static struct custodian custodian;

struct custodian *custodian_init(void)
{
    struct custodian *c = &custodian;
    for (unsigned i = 0; i < CUSTODIAN_LINKS; i++)
        c->link[i] = -1;
    c->servers = c->channel = c->heartbeat = c->signals = c->listening[0] = c->listening[1] = -1;
    c->segment_fd = c->next_fd = c->renewal.pipe = c->restart.pipe = c->restart.box = -1;
    return c;
}

void held_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Room for that slot; false: no memory. */
static bool held_make_room(struct kept **kept, uint32_t *n_kept, uint32_t slot)
{
    const uint32_t n = slot + slot / 2 + 64;
    if (slot < *n_kept)
        return true;
    struct kept *more = realloc(*kept, n * sizeof *more);
    if (!more)
        return false;
    for (uint32_t i = *n_kept; i < n; i++)
        more[i] = (struct kept){{-1, -1}};
    *kept = more;
    *n_kept = n;
    return true;
}

static struct kept *held_of_slot(struct custodian *c, uint32_t slot)
{
    const bool next = c->next_fd >= 0;
    struct kept **kept = next ? &c->next_kept : &c->kept;
    if (slot >= SEGMENT_SLOTS || (!next && c->blind) ||
        !held_make_room(kept, next ? &c->n_next_kept : &c->n_kept, slot))
        return NULL;
    return *kept + slot;
}

/* NULL: only the child can read the one in use. */
struct segment *held_segment(const struct custodian *c)
{
    return c->next_segment ? c->next_segment : c->blind ? NULL : c->segment;
}

void held_free_slot(struct custodian *c, uint32_t i)
{
    struct kept *k = held_of_slot(c, i);
    struct segment *g = held_segment(c);
    if (!k)
        return;
    held_close(&k->fd[0]);
    held_close(&k->fd[1]);
    if (g)
        atomic_store_explicit(&segment_slot(g, i)->phase, SLOT_FREE, memory_order_release);
}

/* All that have gone, of which not every note has come. */
void held_free_gone(struct custodian *c)
{
    struct segment *g = held_segment(c);
    const uint32_t used = g ? segment_used(g) : 0;
    for (uint32_t i = 0; i < used; i++)
        if (atomic_load(&segment_slot(g, i)->phase) == SLOT_GONE)
            held_free_slot(c, i);
}

void held_replace(int *at, int fd)
{
    held_close(at);
    *at = fd;
}

/* Takes fd. */
void held_keep_slot(struct custodian *c, uint32_t slot, unsigned leg, int fd)
{
    struct kept *k = held_of_slot(c, slot);
    if (k)
        held_replace(&k->fd[leg], fd);
    else
        held_close(&fd);
}

bool custodian_keep(struct custodian *c, uint32_t slot, const struct kept *kept)
{
    struct kept *k = held_of_slot(c, slot);
    if (!k || k->fd[0] >= 0 || k->fd[1] >= 0)
        return false;
    *k = *kept;
    return true;
}

void held_close_all(struct kept **kept, uint32_t *n)
{
    for (uint32_t i = 0; i < *n; i++) {
        held_close(&(*kept)[i].fd[0]);
        held_close(&(*kept)[i].fd[1]);
    }
    free(*kept);
    *kept = NULL;
    *n = 0;
}

/* ---- another program in place of the working one ---- */

void custodian_let_next(struct custodian *c)
{
    segment_free(c->next_segment);
    c->next_segment = NULL;
    held_close(&c->next_fd);
    held_close_all(&c->next_kept, &c->n_next_kept);
}

/* It has begun, and holds the same connections. Until it is ready its predecessor's state counts. */
void held_take_segment(struct custodian *c, int fd)
{
    custodian_let_next(c);
    c->next_segment = segment_map(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    c->next_fd = fd;
    c->replaced = true;
    c->ready = false;
    c->heartbeat_seen_ms = clock_mono_ms();
    for (unsigned i = 0; i < CUSTODIAN_LINKS; i++)
        held_close(&c->link[i]);
    held_close(&c->servers);
    if (c->next_segment)
        return;
    c->blind = true;
    held_close_all(&c->kept, &c->n_kept);
    log_info("custodian: the new program keeps its state otherwise, as only its own custodian can "
             "read it");
}

void held_switch(struct custodian *c)
{
    if (c->replaced && !c->blind) {
        c->next_segment->survived = c->segment->survived;
        held_close_all(&c->kept, &c->n_kept);
        segment_free(c->segment);
        c->kept = c->next_kept;
        c->n_kept = c->n_next_kept;
        c->segment = c->next_segment;
        held_close(&c->segment_fd);
        c->segment_fd = c->next_fd;
        c->next_fd = -1;
        c->next_segment = NULL;
        c->next_kept = NULL;
        c->n_next_kept = 0;
    }
    c->replaced = false;
}
