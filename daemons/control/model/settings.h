/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * settings: the effect of a new configuration on values that were changed at run time: persisted
 * ones are kept, all others are reset to the new file's. That is logged, and reported to callers of
 * reload.
 */
#ifndef POLDER_CONTROL_SETTINGS_H
#define POLDER_CONTROL_SETTINGS_H

struct config;
struct control;
struct runtime_page;

#define SETTINGS_REPORT_LINES 32 /* of either kind; further ones are only in the log */
#define SETTINGS_REPORT_LINE  160

struct settings_report {
    unsigned n_kept, n_reset;
    char kept[SETTINGS_REPORT_LINES][SETTINGS_REPORT_LINE];
    char reset[SETTINGS_REPORT_LINES][SETTINGS_REPORT_LINE];
};

/* c has just begun to follow a new configuration in place of an old one, with its running values in
 * page. Makes c->report. */
void settings_carry_over(struct control *c, const struct config *old,
                         const struct runtime_page *page);
#endif
