/* SPDX-License-Identifier: BSD-2-Clause */
/* access_log: opens the file, collects lines, writes them in batches. */
#include "polder/access_log.h"
#include "polder/conditions.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define CALM_MS 1000 /* without a loss, before that is over */

/* ---- opening ---- */

/* A pipe or terminal with a description of our own, which does not wait; others as they are: a file
 * behind stderr may be written at stderr's own offset by the log. */
static int open_stderr(void)
{
    struct stat st;
    if (fstat(STDERR_FILENO, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode))) {
        const int fd =
            open("/proc/self/fd/2", O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (fd >= 0)
            return fd;
    }
    return fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
}

int access_log_open(const struct config *config, int *fd)
{
    *fd = -1;
    if (config->access_log == CONFIG_LOG_OFF)
        return 0;
    *fd = config->access_log == CONFIG_LOG_STDERR
              ? open_stderr()
              : open(config->access_log_path,
                     O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0640);
    return *fd < 0 ? -errno : 0;
}

void access_log_explain(const struct config *config, int code, char *out, size_t size)
{
    char uid[32];
    const struct passwd *pw = getpwuid(geteuid());
    snprintf(uid, sizeof uid, "uid %u", (unsigned)geteuid());
    snprintf(out, size, "access_log: %s%s cannot open %s for writing: %s%s", pw ? "user " : "",
             pw ? pw->pw_name : uid,
             config->access_log_path[0] ? config->access_log_path : "standard error",
             code == -ENXIO ? "no process reads that pipe" : strerror(-code),
             code == -EACCES || code == -EROFS
                 ? "; give it the directory (under systemd, LogsDirectory= or ReadWritePaths=)"
                 : "");
}

int access_log_start(struct access_log *log, enum config_access_log format, int fd)
{
    *log = (struct access_log){.format = format, .fd = -1};
    if (fd < 0)
        return 0;
    log->text = malloc(ACCESS_LOG_BUFFER);
    if (!log->text)
        return -ENOMEM;
    access_log_change(log, fd);
    return 0;
}

void access_log_change(struct access_log *log, int fd)
{
    struct stat st;
    if (log->fd >= 0) {
        access_log_flush(log);
        close(log->fd);
    }
    log->fd = fd;
    log->torn = log->dropped = false;
    log->written = true; /* may be, by now: the next loss says otherwise */
    log->failed_ms = 0;
    const bool known = fstat(fd, &st) == 0;
    log->is_file = known && S_ISREG(st.st_mode);
    log->is_socket = known && S_ISSOCK(st.st_mode);
}

void access_log_stop(struct access_log *log)
{
    if (log->fd >= 0) {
        access_log_flush(log);
        close(log->fd);
    }
    free(log->text);
    log->text = NULL;
    log->len = 0;
    log->fd = -1;
}

/* ---- writing ---- */

static uint64_t lines_in(const char *at, size_t len)
{
    uint64_t n = 0;
    for (const char *end = at + len; (at = memchr(at, '\n', (size_t)(end - at))); at++)
        n++;
    return n;
}

/* How much goes out in one write: all, or as many whole lines as a pipe takes in one piece; a line
 * that is longer than that goes alone. */
static size_t piece_of(const struct access_log *log, const char *at, size_t len)
{
    if (log->is_file || len <= PIPE_BUF)
        return len;
    const char *end = memrchr(at, '\n', PIPE_BUF);
    if (!end)
        end = memchr(at, '\n', len);
    return end ? (size_t)(end - at) + 1 : len;
}

static ssize_t write_piece(const struct access_log *log, const char *at, size_t len)
{
    struct pollfd p = {log->fd, POLLOUT, 0};
    if (log->is_socket)
        return send(log->fd, at, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (!log->is_file && poll(&p, 1, 0) == 0) { /* where the description may wait */
        errno = EAGAIN;
        return -1;
    }
    return write(log->fd, at, len);
}

static void lose(struct access_log *log, const char *at, size_t len)
{
    log->error = errno ? errno : EIO;
    log->lost += lines_in(at, len);
    log->dropped = log->torn;
}

/* The rest of the line that was written last has been dropped: the next one is not to be taken for
 * it. */
static void mend(struct access_log *log)
{
    if (log->dropped && write_piece(log, "\n", 1) == 1)
        log->torn = log->dropped = false;
}

void access_log_flush(struct access_log *log)
{
    size_t done = 0;
    mend(log);
    while (done < log->len) {
        const char *at = log->text + done;
        const size_t left = log->len - done, want = piece_of(log, at, left);
        const ssize_t n = write_piece(log, at, want);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) /* a reader that is slow: once more in the next turn */
            break;
        if (n <= 0) { /* a full disk: lines are lost, requests are not */
            lose(log, at, left);
            done = log->len;
            break;
        }
        done += (size_t)n;
        log->written = true;
        log->torn = log->text[done - 1] != '\n';
    }
    log->len -= done;
    if (done && log->len)
        memmove(log->text, log->text + done, log->len);
}

void access_log_put(struct access_log *log, const struct access_line *line)
{
    if (log->fd < 0)
        return;
    if (ACCESS_LOG_BUFFER - log->len < ACCESS_LOG_LINE_MAX)
        access_log_flush(log);
    const size_t n =
        access_log_format(log->format, line, log->text + log->len, ACCESS_LOG_BUFFER - log->len);
    if (!n) { /* only if the earlier lines are not read */
        log->lost++;
        log->error = EAGAIN;
    }
    log->len += n;
}

uint64_t access_log_report(struct access_log *log, struct condition_table *conditions,
                           const char *subject, uint64_t now_ms)
{
    const uint64_t lost = log->lost - log->reported;
    if (lost) {
        log->reported = log->lost;
        log->raised = true;
        log->written = false;
        log->failed_ms = now_ms;
        condition_raise(conditions, COND_ACCESS_LOG_FAILED, subject,
                        log->error == EAGAIN ? "it is read too slowly" : strerror(log->error),
                        now_ms);
    } else if (log->raised && log->written && now_ms >= log->failed_ms + CALM_MS) {
        log->raised = false;
        condition_clear(conditions, COND_ACCESS_LOG_FAILED, subject, now_ms);
    }
    return lost;
}
