/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * settings: the effect of a new configuration on values that were changed at run time, by the rule
 * of polder/running.h. That is logged, and reported to callers of reload.
 */
#ifndef POLDER_CONTROL_SETTINGS_H
#define POLDER_CONTROL_SETTINGS_H
#include <stdbool.h>

struct config_region;
struct control;

#define SETTINGS_REPORT_LINES 32 /* of either kind; further ones are only in the log */
#define SETTINGS_REPORT_LINE  192

struct settings_report {
    unsigned n_kept, n_reset;
    char kept[SETTINGS_REPORT_LINES][SETTINGS_REPORT_LINE];
    char reset[SETTINGS_REPORT_LINES][SETTINGS_REPORT_LINE];
};

/* c has just begun to follow a new configuration in place of an old one. Makes c->report. */
void settings_carry_over(struct control *c, const struct config_region *old);
/* Of what was made permanent, what the file has overruled. */
void settings_forget_old(const struct control *c);
/* The program is being replaced: the next one has read the running values already, or does so at any
 * moment, so nothing may change them here. */
bool settings_are_handed_on(const struct control *c);

#endif
