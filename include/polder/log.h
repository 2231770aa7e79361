/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * log: one line per event to stderr, for operators.
 *
 * A line is "TIME LEVEL PROCESS[PID]: MODULE: TEXT" with the time as RFC 3339 in UTC; where stderr
 * is the journal (JOURNAL_STREAM), which has times and levels of its own, "<N>" replaces both. One
 * write(2) per line, so lines of several processes never mix. Never log bodies, header values,
 * tokens or keys. Not for the hot path.
 *
 * The processes of polderd share one level, in shared memory (log_follow), so that it changes for
 * all of them at once; other programs have their own (log_set_level).
 */
#ifndef POLDER_LOG_H
#define POLDER_LOG_H
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7
};

/* Sets the process name ("master", "worker 3"); kept by reference. Call again after a fork. */
void log_open(const char *process);
void log_set_level(enum log_level most_verbose);
/* From now on *level decides, whichever process changes it; 0 in it: the level of log_set_level().
 * NULL ends that. */
void log_follow(const _Atomic uint32_t *level);
/* "error", "warning", "info", "debug"; false: the word is none of them. */
bool log_level_parse(const char *word, enum log_level *level);
const char *log_level_word(enum log_level level);
void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
