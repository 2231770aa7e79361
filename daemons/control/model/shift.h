/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shift: moves traffic to a server of an upstream in steps, and back: the order of
 * polderctl upstream shift, its guard, and what is shown of it. State is in polder/shift.h, so
 * another control goes on with it; the guard's rules are in polder/shift_watch.h.
 */
#ifndef POLDER_CONTROL_SHIFT_H
#define POLDER_CONTROL_SHIFT_H
#include "polder/config.h"
#include "polder/shift.h"
#include <stdbool.h>
#include <stdint.h>

struct control;

#define SHIFT_HOLD_MS 300000
#define SHIFT_MAX_MS  3600000

struct shift_order {
    const struct config_server *server;
    uint32_t percent;
    bool guarded, walks;
    uint64_t hold_ms, max_ms;
};
/* The first step of a walk, or the one behind that; 100 at the end. */
uint32_t shift_next_percent(uint32_t percent);
/* Makes the step on every worker and in the supervisor, and saves it. NULL, or why nothing was
 * changed, valid until the next call. */
const char *shift_begin(struct control *c, const struct shift_order *order);
/* Its guard ends, and the weights stay. False: nothing is watched. */
bool shift_stop(struct control *c, const char *upstream);
/* Its weights were set by another command: it is no shift any more. */
void shift_override(struct control *c, const char *upstream);

void shift_follow(struct control *c); /* each second */
/* c follows another configuration: what it has not got any more is put right. */
void shift_adopt(struct control *c);

/* Totals of server `at` of the upstream, and of the others. */
void shift_count(const struct control *c, const struct config_upstream *u, uint32_t at,
                 struct shift_counts sides[SHIFT_SIDES]);

/* ---- shown ---- */
const struct shift_state *shift_of(const struct control *c, const struct config_upstream *upstream);
/* What the guard does now: "watching", "too little traffic", ... */
const char *shift_guard_text(const struct shift_state *s);
/* What comes next, or has to come: a clause. */
void shift_describe_next(const struct shift_state *s, char *out, size_t size);
/* 0: none, 1: watches, 2: too little traffic, 3: suspects, 4: has rolled back, 5: stalled */
unsigned shift_guard_number(const struct shift_state *s);
#endif
