/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * running: the running values that a configuration begins with.
 *
 * One rule for all values that a command can change: what was set at run time stays until the
 * file's own value of that key changes; then the file's holds. So a value whose place in the file
 * is as it was before a reload runs on as it is. One that was made permanent also stays over a
 * restart, for as long as the file says what it said when the value was set.
 */
#ifndef POLDER_RUNNING_H
#define POLDER_RUNNING_H
#include "polder/config.h"

#define RUNNING_NOTE 192

/* Told of each value that had been changed: kept ("limit api requests 5 (file: 10)"), or reset
 * ("limit api requests 5 -> 20"). */
struct running_notes {
    void (*note)(void *arg, bool kept, const char *what);
    void *arg;
};

/* The values of config, whose page is `page`: those of the file, then those that were made
 * permanent, then those that run under `before` (NULL: it follows none). Lists go into the page.
 * notes: NULL: none. */
void running_fill(const struct config *config, struct runtime_page *page,
                  const struct config_region *before, struct runtime_values *values,
                  const struct running_notes *notes);
/* Changes of limits that wait to be confirmed wait on; after the values have been published. */
void running_carry_trials(const struct config *config, struct runtime_page *page,
                          const struct config_region *before);

/* The file's list of exempt clients as one that can be changed; false: it is too long for that. */
bool running_file_exempt(const struct config_limit *l, struct exempt *out);
#endif
