/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * outliers: ejects servers that fail more often than the others of their upstream in the same time
 * (polder/proportion.h), where fewer than five errors in a row have given them away already.
 *
 * Each server is looked at when it has had a hundred requests, but not within OUTLIERS_MS of the
 * last look, and after OUTLIERS_MAX_MS in any case. What a control that died had seen is forgotten.
 */
#ifndef POLDER_CONTROL_OUTLIERS_H
#define POLDER_CONTROL_OUTLIERS_H

#define OUTLIERS_MS     10000
#define OUTLIERS_MAX_MS 60000

struct control;
struct outliers;

struct outliers *outliers_new(void);
void outliers_free(struct outliers *o);
void outliers_follow(struct control *c); /* each second */
#endif
