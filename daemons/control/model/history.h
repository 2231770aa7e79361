/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * history: takes the samples of polder/history.h, and knows what the last minute was like.
 *
 * Each second one sample of the time since the one before; each ten seconds one of ten. What was
 * counted before is remembered by control, so a new control begins with the next whole second, and
 * what its predecessor did not sample is nothing.
 */
#ifndef POLDER_CONTROL_HISTORY_H
#define POLDER_CONTROL_HISTORY_H
#include "polder/history.h"
#include <stdbool.h>

struct control;
struct history;

/* NULL: no memory. Loads what an earlier run has saved, once in the life of Polder. */
struct history *history_new(struct control *c);
void history_free(struct history *h);
void history_follow(struct control *c); /* each second */
/* The last minute, or what there is of it; NaN where nothing was counted. False: less than ten
 * seconds. values[HISTORY_WIDTH] */
bool history_minute(const struct control *c, float *values);
#endif
