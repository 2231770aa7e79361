/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_share: the shared cache of a fleet: what one host has fetched is given to the others, and of
 * several hosts that miss the same one fetches it.
 *
 * A worker asks when it misses (polder/fleet.h: enum fleet_share_note). The object is there: it goes to the
 * keeper with the permit of the request, whose release wakes all that wait here. No host fetches it:
 * this host claims it, by a key in the store with a lease of CLAIM_MS that is renewed as long as the
 * permit holds. Another host does: the request waits until that one's object, or the end of its claim,
 * is told of in the stream `stored`, or seen. Where the fetch brought nothing that others could have,
 * or has failed, they fetch at once, and do not wait for each other for a moment.
 *
 * What asks for a part, for the head alone, or with an identity only looks: it takes what is there,
 * as it would take what is stored here, and claims nothing.
 *
 * A URL that varies has its own record there, as in a host's store; that is taken first, and then the
 * worker asks for its variant. What is stale but can be validated is taken too: the worker looks again,
 * and asks once more whether it is to fetch. What is here already is not taken again.
 *
 * An object says up to where its host had applied the log when it was fetched. It is taken here with
 * a fetch_seq that is smaller than the marks of all later entries (fleet_marks.h), and judged by them
 * before anything is made of it. Where this host has not applied as much yet, that is waited for.
 */
#ifndef POLDER_CONTROL_FLEET_SHARE_H
#define POLDER_CONTROL_FLEET_SHARE_H
#include "daemons/control/model/fleet.h"

struct control;
struct fleet_share;

struct fleet_share *fleet_share_new(struct control *c, struct fleet *f); /* NULL: no memory */
/* After fleet_free(). */
void fleet_share_free(struct fleet_share *s);
void fleet_share_follow(struct fleet_share *s); /* the configuration */
/* Of struct fleet_ops. */
void fleet_share_note(struct fleet_share *s, unsigned worker, const struct ring_record *head,
                      const char *payload);
void fleet_share_stored(struct fleet_share *s, const char *name);
void fleet_share_renewed(struct fleet_share *s, uint64_t took_ms);
void fleet_share_moved(struct fleet_share *s);

struct fleet_share_view {
    bool shares;        /* some route does */
    bool quick;         /* it is asked; else it is left out until it is well */
    uint64_t hits;      /* objects taken from the store */
    uint64_t misses;    /* it had none, and this host has fetched */
    uint64_t waits;     /* another host fetched it just then */
    uint64_t late;      /* requests that waited for it in vain */
    uint64_t puts;      /* objects given to it */
    uint64_t left_out;  /* not given: too much was waiting to be sent */
    uint64_t rejected;  /* damaged, or signed otherwise */
    uint64_t overtaken; /* invalidated since, or too old to tell */
    uint32_t under_way; /* requests that ask, wait or fetch for all hosts now */
};
void fleet_share_view(const struct fleet_share *s, struct fleet_share_view *out);
#endif
