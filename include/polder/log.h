/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * log: one line an event to stderr, for the operator who reads it at three in the morning.
 *
 * A line is "LEVEL PROCESS[PID]: MODULE: TEXT"; under systemd (JOURNAL_STREAM is set) it starts
 * with
 * "<N>" instead of the level word. One write(2) a line, so that lines of several processes never
 * mix. Never log bodies, header values, tokens or keys. Not for the hot path.
 */
#ifndef POLDER_LOG_H
#define POLDER_LOG_H
#include <stdarg.h>

enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7
};

/* Sets the process name ("master", "worker 3"); kept by reference. Call again after a fork. */
void log_open(const char *process);
void log_set_level(enum log_level most_verbose);
void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
