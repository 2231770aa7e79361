/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * history: takes the samples of polder/history.h, and has the figures of the last minute.
 *
 * Each second one sample of the time since the one before; each ten seconds one of ten. The
 * previous counts are kept in control, so a new control begins with the next whole second, and
 * samples that its predecessor did not take are missing.
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
/* The last minute, or the part that there is; NaN: not known. False: less than ten
 * seconds. values[HISTORY_WIDTH] */
bool history_minute(const struct control *c, float *values);
#endif
