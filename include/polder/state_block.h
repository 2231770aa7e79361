/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * state_block: what a process leaves to the program that replaces it by execve(2).
 *
 * A block is a sealed memfd: a header and records, each a list of values. The old program writes it,
 * the new one, which may be older or newer, reads it; a file on no disk, so it may be larger than
 * any socket buffer, and it cannot be changed or truncated under its reader. The reader believes
 * nothing: whatever is wrong is an error that says where.
 *
 *   header   magic, format, kind of block, length, checksum of all, the writer's version
 *   record   type, flags, length; its values
 *   value    tag, length, bytes; the next begins at a multiple of 8
 *
 * How the writer and the reader may differ (N -> N+1 -> N must work):
 *
 *   - A type of record keeps its number and the order and kinds of its values for ever.
 *   - A newer writer may append values to a record. An older reader does not ask for them, and
 *     what is left of a record is skipped. A newer reader asks state_more() before such a value,
 *     and has an initial value where there is none.
 *   - A newer writer may write new types. One that an older reader can do without is flagged
 *     STATE_SKIPPABLE; one without the flag makes it refuse the block, and the old program goes on.
 *   - STATE_FORMAT counts changes that no older reader could follow; another one is refused.
 *
 * Memory and descriptors: the writer owns the memfd until state_writer_close() gives it away. The
 * reader maps the block; texts and bytes lie in that mapping until state_reader_close(), which does
 * not close the descriptor. Descriptors stand in a block as numbers, for they stay open over
 * execve(); state_block_inherit() makes them so for that moment alone. Where they go to another
 * process (state_block_each_fd()), its reader is told their new numbers.
 */
#ifndef POLDER_STATE_BLOCK_H
#define POLDER_STATE_BLOCK_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STATE_FORMAT      1
#define STATE_VERSION_MAX 32                    /* bytes, with the end */
#define STATE_RECORD_MAX  ((uint32_t)256 << 20) /* bytes of values in a record */

enum state_kind { STATE_OF_POLDERD = 1, STATE_OF_SUPERVISOR, STATE_OF_CUSTODIAN };

/* Flags of a record. */
#define STATE_SKIPPABLE 1u /* a reader that does not know the type goes on without it */

/* What a descriptor is; the reader says what it expects. */
enum state_fd {
    STATE_FD_LISTENER = 1,
    STATE_FD_SEGMENT,
    STATE_FD_EVENT,
    STATE_FD_CHANNEL,
    STATE_FD_FILE,
    STATE_FD_PROCESS, /* of pidfd_open() */
    STATE_FD_SOCKET,  /* a connection */
    STATE_FD_SIGNALS,
};

/* ---- writing ---- */

/* The first error stays, and state_writer_close() returns it: nothing else needs to be checked. */
struct state_writer {
    int fd;
    int error; /* 0 or a negative errno */
    enum state_kind kind;
    uint64_t length; /* written so far, with the header */
    uint64_t records;
    void *digest;
    uint8_t *record; /* the one that is being made, with its header */
    size_t used, room;
    char version[STATE_VERSION_MAX];
};

/* version: of this program. */
void state_writer_open(struct state_writer *w, enum state_kind kind, const char *version);
/* Ends the record before it. type: from 1. */
void state_record(struct state_writer *w, uint16_t type, uint16_t flags);
void state_put_u64(struct state_writer *w, uint64_t value);
void state_put_text(struct state_writer *w, const char *text);
void state_put_bytes(struct state_writer *w, const void *bytes, size_t len);
/* fd: -1: none. */
void state_put_fd(struct state_writer *w, int fd, enum state_fd what);
/* The sealed block (CLOEXEC), or a negative errno. */
int state_writer_close(struct state_writer *w);

/* ---- reading ---- */

struct state_reader {
    const uint8_t *base;
    uint64_t size;
    uint64_t at;     /* of the next record */
    uint64_t value;  /* of the next value */
    uint64_t end;    /* of the record */
    uint64_t record; /* number of the record, from 1 */
    uint64_t n_values;
    uint16_t type;
    uint16_t highest;
    bool copy; /* set by who reads in another process: descriptors are numbers, and not looked at */
    /* Set by who reads where descriptors have come with other numbers: by the number that stands in
     * the block, the one of now; -1: it has not come. NULL: they are the same. */
    const int *moved;
    size_t n_moved;
    char version[STATE_VERSION_MAX]; /* of the writer */
    char why[192];                   /* "": no error so far. The first one stays. */
};

/* highest: the highest type of record that the caller knows. 0, or -EPROTO and r->why. */
int state_reader_open(struct state_reader *r, int fd, enum state_kind kind, uint16_t highest);
/* Goes to the next record of a known type; 0: there is none any more, or an error. */
uint16_t state_next(struct state_reader *r);
/* Has the record another value? */
bool state_more(const struct state_reader *r);
/* The next value; 0, "", NULL or -1 if it is not there or is another one, which is an error. */
uint64_t state_get_u64(struct state_reader *r);
/* One that is not above max. */
uint64_t state_get_number(struct state_reader *r, uint64_t max);
const char *state_get_text(struct state_reader *r);
const void *state_get_bytes(struct state_reader *r, size_t *len);
/* An open descriptor, which is CLOEXEC from now on; -1: none was put. */
int state_get_fd(struct state_reader *r, enum state_fd what);
/* For what the caller finds wrong with a value; the place is added. */
void state_refuse(struct state_reader *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
bool state_good(const struct state_reader *r);
void state_reader_close(struct state_reader *r);

/* Lets the block and all descriptors in it live on after execve(), or takes that back. 0 or a
 * negative errno. */
int state_block_inherit(int fd, bool inherit);
/* Calls fn with each descriptor in the block, until that returns another value than 0, which is
 * returned then. -EPROTO: it is no block. */
int state_block_each_fd(int fd, int (*fn)(void *arg, int fd), void *arg);

#endif
