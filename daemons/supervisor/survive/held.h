/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * held: the descriptors that the custodian holds for its child, by slot, and the segment that says
 * which slots are in use. A program that replaces the child brings another segment; what is held
 * for both stays until it is ready, or has failed.
 */
#ifndef POLDER_SUPERVISOR_HELD_H
#define POLDER_SUPERVISOR_HELD_H
#include "daemons/supervisor/survive/custodian.h"

void held_close(int *fd);
/* Closes what was there; takes fd. */
void held_replace(int *at, int fd);
/* Takes fd; -1: closes what was there. */
void held_keep_slot(struct custodian *c, uint32_t slot, unsigned leg, int fd);
void held_free_slot(struct custodian *c, uint32_t i);
/* All that have gone, of which not every note has come. */
void held_free_gone(struct custodian *c);
void held_close_all(struct kept **kept, uint32_t *n);
/* NULL: only the child can read the one in use. */
struct segment *held_segment(const struct custodian *c);
/* A program has begun that replaces the child; takes the descriptor of its segment. */
void held_take_segment(struct custodian *c, int fd);
/* It is ready. */
void held_switch(struct custodian *c);
#endif
