/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * backend: servers behind the daemon. One is a thread that answers as a function says and counts
 * what it was asked; of the other a story accepts each connection and writes each byte itself.
 */
#ifndef POLDER_TEST_BACKEND_H
#define POLDER_TEST_BACKEND_H
#include "wire.h"

struct backend;
struct asked {
    char method[16], target[8300];
    struct message m; /* head and body */
    int fd;           /* to write the answer to */
    unsigned number;  /* of this request at this backend, from 1 */
    void *arg;
};
/* Runs in a thread of the backend's; writes the raw answer to ask->fd. Returns false to close. */
typedef bool (*backend_fn)(struct asked *ask);
struct backend *backend_start(backend_fn fn, void *arg);
/* The same on that address and port. */
struct backend *backend_start_at(backend_fn fn, void *arg, const char *address, unsigned port);
/* Has a connection, in a thread of its own, for reading and writing; it is closed behind it. */
typedef void (*backend_raw_fn)(int fd);
struct backend *backend_start_raw(backend_raw_fn raw, unsigned port); /* port 0: any */
void backend_stop(struct backend *b);
unsigned backend_port(const struct backend *b);
unsigned backend_calls(const struct backend *b);       /* requests read completely */
unsigned backend_broken(const struct backend *b);      /* requests that ended in the middle */
unsigned backend_connections(const struct backend *b); /* accepted so far */
unsigned backend_open(const struct backend *b);        /* connections now */
void backend_forget(struct backend *b);                /* counts to 0 */
/* Keeps the bytes of the last requests (heads and decoded bodies) for inspection. */
char *
backend_transcript(struct backend *b); /* malloc'd copy; one "METHOD TARGET\n" line a request */
bool reply(struct asked *ask, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool reply_bytes(struct asked *ask, const void *bytes, size_t len);
/* 200 with these extra head lines ("" or "Name: value\r\n…") and body */
bool reply_ok(struct asked *ask, const char *lines, const char *body);
/* A backend_fn: the number of now, in an answer that may be stored for 300 s. */
extern _Atomic unsigned backend_version; /* 1 */
bool backend_tells_version(struct asked *ask);

/* Runs the stories of a program with one backend for all of them, in *b while they run; what main()
 * returns. */
#define run_with_backend(stories, b, fn)                                                           \
    (harness_share(b, fn), cmocka_run_group_tests(stories, harness_set_up, harness_tear_down))
void harness_share(struct backend **b, backend_fn fn);
int harness_set_up(void **state);
int harness_tear_down(void **state);

/* ---- by hand ---- */
/* A listening socket, and one accepted connection at a time. */
struct scripted {
    int fd;
    unsigned port;
    char head[8192]; /* of the request it has read last */
};
void scripted_open(struct scripted *b);
void scripted_open_at(struct scripted *b, unsigned port); /* port 0: any */
/* Accepts a connection and reads a head; returns the connection. */
int scripted_accept(struct scripted *b);
/* The same, and answers with these bytes. */
int scripted_answer(struct scripted *b, const char *bytes, size_t len);
#endif
