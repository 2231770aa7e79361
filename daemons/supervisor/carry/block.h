/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * block: the records of a state block (polder/state_block.h) that polder-supervisor leaves to the
 * program that replaces it, and how each is written and read. Pure: no loop, no live session.
 *
 * A list of numbers is one value, of eight bytes each. A later version appends to such a list, and
 * to a record; what an earlier one did not write is 0 or empty.
 *
 * Order: CARRY_PROCESS is the first record; the others may come in any order, but sessions from the
 * oldest on.
 */
#ifndef POLDER_SUPERVISOR_BLOCK_H
#define POLDER_SUPERVISOR_BLOCK_H
#include "daemons/supervisor/carry/record.h"
#include "polder/state_block.h"

enum carry_type {
    CARRY_PROCESS = 1,
    CARRY_END,     /* how many ended for a reason */
    CARRY_ROUTE,   /* counts of a route */
    CARRY_VALUE,   /* that was set at run time */
    CARRY_ORIGINS, /* the same, of a list */
    CARRY_SERVER,  /* weight and turn */
    CARRY_LINK,    /* of a worker */
    CARRY_ADMIN,   /* a connection to the admin socket */
    CARRY_SESSION,
    CARRY_LEAVING,
    CARRY_TYPES,
};
#define CARRY_HIGHEST (CARRY_TYPES - 1)

void carry_put_numbers(struct state_writer *w, const uint64_t *from, size_t n);
/* Zero where the writer knew fewer. */
void carry_get_numbers(struct state_reader *r, uint64_t *to, size_t n);
static inline uint64_t carry_of_double(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
static inline double carry_double(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- one session ---- */

void carry_put_session(struct state_writer *w, const struct session_record *x);
/* What a record that was read points to; its texts lie in the reader's mapping. */
struct carry_session {
    struct session_record record;
    struct pending_record pending;
    struct subscription_record subscription;
    struct access_line line;
    struct inflate_packed expanded[2];
};
/* False: state_good() is false, and says why. The record is sound. */
bool carry_get_session(struct state_reader *r, struct carry_session *to);

/* ---- one that leaves ---- */

void carry_put_leaving(struct state_writer *w, const struct leaving_record *x);
struct carry_leaving {
    struct leaving_record record; /* without out */
    uint64_t pieces;              /* of it, that follow */
};
bool carry_get_leaving(struct state_reader *r, struct carry_leaving *to);
/* The next piece of what it has not taken; empty: there is none any more. */
struct bytes carry_get_piece(struct state_reader *r, struct carry_leaving *to);
#endif
