/* SPDX-License-Identifier: BSD-2-Clause */
/* log: formats one line in a stack buffer and hands it to stderr in one write. */
#include "polder/log.h"
#include "polder/clock.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX 2048

/* The one context of the module; a forked child sets its own with log_open(). */
static struct {
    const char *process;
    enum log_level most_verbose;
    const _Atomic uint32_t *shared; /* the level of all processes; NULL: only our own */
    int journal;                    /* 1: stderr is the journal, which wants "<N>" in front */
} log_context = {"polder", LOG_LEVEL_INFO, NULL, 0};

static const enum log_level levels[] = {LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO,
                                        LOG_LEVEL_DEBUG};

/* JOURNAL_STREAM names the journal's socket as "DEVICE:INODE"; stderr may have been sent elsewhere
 * since. */
static int log_is_journal(void)
{
    unsigned long long device, inode;
    struct stat st;
    const char *stream = getenv("JOURNAL_STREAM");
    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void log_open(const char *process)
{
    log_context.process = process;
    log_context.journal = log_is_journal();
}

void log_set_level(enum log_level most_verbose)
{
    log_context.most_verbose = most_verbose;
}

void log_follow(const _Atomic uint32_t *level)
{
    log_context.shared = level;
}

static bool log_is_on(enum log_level level)
{
    const uint32_t shared =
        log_context.shared ? atomic_load_explicit(log_context.shared, memory_order_relaxed) : 0;
    return (uint32_t)level <= (shared ? shared : (uint32_t)log_context.most_verbose);
}

bool log_level_parse(const char *word, enum log_level *level)
{
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (!strcmp(word, log_level_word(levels[i]))) {
            *level = levels[i];
            return true;
        }
    return false;
}

const char *log_level_word(enum log_level level)
{
    switch (level) {
    case LOG_LEVEL_ERROR:
        return "error";
    case LOG_LEVEL_WARNING:
        return "warning";
    case LOG_LEVEL_INFO:
        return "info";
    case LOG_LEVEL_DEBUG:
        break;
    }
    return "debug";
}

/* What a client or a file put into a line must not start another one or drive a terminal. */
static void log_disarm(char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            text[i] = ' ';
}

/* What stands before the text. */
static int log_begin(enum log_level level, char *line, size_t size)
{
    if (log_context.journal)
        return snprintf(line, size, "<%d>%s[%d]: ", (int)level, log_context.process, (int)getpid());
    const uint64_t ms = clock_real_ms();
    const time_t s = (time_t)(ms / 1000);
    struct tm tm;
    gmtime_r(&s, &tm);
    return snprintf(
        line, size, "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ %s %s[%d]: ", tm.tm_year + 1900,
        tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (unsigned)(ms % 1000),
        log_level_word(level), log_context.process, (int)getpid());
}

void log_write(enum log_level level, const char *fmt, ...)
{
    if (!log_is_on(level))
        return;
    const int saved = errno;
    char line[LOG_LINE_MAX];
    int n = log_begin(level, line, sizeof line);
    size_t used = n < 0 ? 0 : (size_t)n;
    if (used > sizeof line - 2)
        used = sizeof line - 2;

    va_list ap;
    va_start(ap, fmt);
    errno = saved; /* for %m */
    n = vsnprintf(line + used, sizeof line - 1 - used, fmt, ap);
    va_end(ap);
    size_t text = n < 0 ? 0 : (size_t)n;
    if (text > sizeof line - 2 - used)
        text = sizeof line - 2 - used; /* cut: a line is for reading */
    log_disarm(line + used, text);
    used += text;
    line[used++] = '\n';
    /* If stderr takes it no more, there is nowhere left to report to. */
    ssize_t written = write(STDERR_FILENO, line, used);
    (void)written;
    errno = saved;
}
