/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * access_log: one line for each answer to a client, written by workers and by polder-supervisor.
 *
 * A line is described by a struct access_line and written in one of two formats: JSON, or the
 * "combined" one that log analysers read. All texts in it come from outside: they are cut to the
 * bounds below and escaped, so that a line is one line of ASCII whatever they hold, and its length
 * has a bound (ACCESS_LOG_LINE_MAX) that no client can exceed.
 *
 * Lines are collected in a buffer and written with one write(2) a batch to a descriptor in append
 * mode: lines of several processes never mix. A regular file takes a batch whole; a pipe, a
 * terminal or a socket gets it in pieces of whole lines that the kernel does not split, and is
 * never waited for. What cannot be written is counted (lost) and dropped; requests are not delayed.
 *
 * The process that opens the file is the master, which hands the descriptor to its workers, and
 * polder-supervisor for itself.
 */
#ifndef POLDER_ACCESS_LOG_H
#define POLDER_ACCESS_LOG_H
#include "polder/clientip.h"
#include "polder/config.h"
#include "polder/field.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of each text that are shown; "..." stands for the rest. */
#define ACCESS_LOG_TARGET_MAX     8192
#define ACCESS_LOG_REFERER_MAX    1024
#define ACCESS_LOG_USER_AGENT_MAX 512
#define ACCESS_LOG_TEXT_MAX       256 /* of each other one */
#define ACCESS_LOG_TEXTS          10  /* others */

/* A byte becomes at most six ("\u00ff"); the names, numbers and marks take less than 2 KiB. */
#define ACCESS_LOG_LINE_MAX                                                                        \
    (6 * (ACCESS_LOG_TARGET_MAX + ACCESS_LOG_REFERER_MAX + ACCESS_LOG_USER_AGENT_MAX +             \
          ACCESS_LOG_TEXTS * ACCESS_LOG_TEXT_MAX) +                                                \
     2048)
#define ACCESS_LOG_BUFFER (ACCESS_LOG_LINE_MAX * 2)

/* Texts are borrowed; at NULL or len 0: not there. */
struct access_line {
    uint64_t real_ms; /* when the line is written: at the end of the answer */
    struct clientip client;
    struct str method, host, target, protocol, user_agent, referer, request_id;
    struct str upstream;  /* the server that was asked last */
    struct str route;     /* its pattern */
    struct str limit;     /* that refused it */
    const char *cache;    /* "hit", ... */
    const char *cut;      /* why the answer did not get out whole; NULL: it did */
    uint64_t bytes;       /* of the body */
    uint64_t us;          /* from its head to its end; 0: not known */
    uint64_t upstream_us; /* until the head of the server's answer */
    unsigned status;
    bool websocket;      /* the fields below count, and ms stands for us */
    unsigned close_code; /* 0: none was sent or received */
    uint64_t messages_in, messages_out;
    const char *reason; /* why it ended */
};

/* Length of the line, newline included; 0: size is too small, which ACCESS_LOG_LINE_MAX never is.
 * format: CONFIG_LOG_COMBINED, else JSON. */
size_t access_log_format(enum config_access_log format, const struct access_line *line, char *out,
                         size_t size);

/* A copy that owns its texts (cut to their bounds); free() it. NULL: no memory. */
struct access_line *access_line_copy(const struct access_line *line);
/* For a request whose head cannot be parsed: fills in what the words of its first line say. */
void access_line_guess(struct access_line *line, const char *bytes, size_t len);

struct condition_table;

struct access_log {
    enum config_access_log format;
    int fd;       /* -1: off */
    bool is_file; /* takes any batch whole */
    bool is_socket;
    bool torn;    /* the last write ended within a line */
    bool dropped; /* and the rest of it has been given up */
    size_t len;
    char *text;    /* ACCESS_LOG_BUFFER */
    uint64_t lost; /* lines, so far */
    int error;     /* errno of the last loss */
    /* of access_log_report() */
    uint64_t reported, failed_ms;
    bool raised, written;
};

/* Opens what the configuration names. *fd is -1 where it is "off". 0 or a negative errno. */
int access_log_open(const struct config *config, int *fd);
/* A sentence for the operator: which file cannot be opened, for which user, and why. */
void access_log_explain(const struct config *config, int code, char *out, size_t size);

/* Takes fd; -1: a log that is off. 0 or -ENOMEM. */
int access_log_start(struct access_log *log, enum config_access_log format, int fd);
/* Switches to another descriptor. Buffered lines go to the old one, which is then closed. */
void access_log_change(struct access_log *log, int fd);
void access_log_put(struct access_log *log, const struct access_line *line);
void access_log_flush(struct access_log *log);
void access_log_stop(struct access_log *log);
/* Raises the condition that lines are lost, or clears it once lines are written again; call after a
 * flush. subject: the file's path; now_ms: real time. Returns how many were lost since the last
 * call. */
uint64_t access_log_report(struct access_log *log, struct condition_table *conditions,
                           const char *subject, uint64_t now_ms);
static inline bool access_log_is_on(const struct access_log *log)
{
    return log->fd >= 0;
}

#endif
