/* SPDX-License-Identifier: BSD-2-Clause */
/* access_lines: the access log of a house, for stories that look at its lines. */
#ifndef POLDER_TEST_ACCESS_LINES_H
#define POLDER_TEST_ACCESS_LINES_H
#include "harness.h"

#define ACCESS_LINE 16384

extern char access_dir[64], access_path[96], access_rotated[112];

int access_set_up(void **state);
int access_tear_down(void **state);
char *access_text(const char *file); /* all of it, in a static buffer */
/* How many lines have all of these words, NULL at the end; the last of them in line, or NULL. */
unsigned access_lines_with(char line[ACCESS_LINE], const char *const *words);
unsigned access_lines(void); /* all */
/* Members of a line; -1 and "": it has none of that name. */
long access_number(const char *line, const char *name);
void access_member(const char *line, const char *name, char out[256]);

/* Waits until there is one line with all of these words, and fails unless it is the only one. */
#define the_line(...)                                                                              \
    ({                                                                                             \
        static char line_[ACCESS_LINE];                                                            \
        const char *const words_[] = {__VA_ARGS__, NULL};                                          \
        const uint64_t end_ = mono_ms() + harness_patience(10000);                                 \
        unsigned n_;                                                                               \
        while (!(n_ = access_lines_with(line_, words_)) && mono_ms() < end_)                       \
            nap_ms(5);                                                                             \
        if (n_ != 1)                                                                               \
            fail_msg("%s:%d: %u lines with %s in:\n%s", __FILE__, __LINE__, n_, words_[0],         \
                     access_text(access_path));                                                    \
        line_;                                                                                     \
    })
#endif
