/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * harness: verbs for stories about a real polderd.
 *
 * A story starts a backend (a thread in this process that answers as told and counts what it was
 * asked), a house (the real daemon on ephemeral loopback ports, with directories of its own), and
 * clients (plain blocking sockets with a deadline, so that raw bytes can be sent and seen). Every
 * wait has a bound; a missed bound fails the test with its place.
 */
#ifndef POLDER_TEST_HARNESS_H
#define POLDER_TEST_HARNESS_H
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <sys/types.h>

/* ---- time ---- */
uint64_t mono_ms(void);
void nap_ms(unsigned ms); /* only inside wait loops */
/* Evaluates `condition` every few ms until it holds; fails the test after `ms`. Slower builds
 * (sanitizers) get more time. */
#define wait_until(condition, ms)                                                                  \
    do {                                                                                           \
        uint64_t end_ = mono_ms() + harness_patience(ms);                                          \
        while (!(condition)) {                                                                     \
            if (mono_ms() > end_)                                                                  \
                fail_msg("%s:%d: waited %u ms in vain for: %s", __FILE__, __LINE__,                \
                         (unsigned)(ms), #condition);                                              \
            nap_ms(5);                                                                             \
        }                                                                                          \
    } while (0)
unsigned harness_patience(unsigned ms);
bool harness_sanitized(void); /* this build runs under a sanitizer */

/* ---- messages ---- */
struct message {
    int status; /* responses */
    char *head; /* NUL-terminated, with all lines */
    size_t head_len;
    char *body; /* decoded, NUL-terminated */
    size_t body_len;
    bool chunked, complete,
        closed; /* closed: the peer ended the connection after or instead of it */
};
/* Value of a field of the head, in a static buffer; NULL where absent. Joined with ", ". */
const char *field_of(const struct message *m, const char *name);
void message_free(struct message *m);

/* ---- backend ---- */
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
void backend_stop(struct backend *b);
unsigned backend_port(const struct backend *b);
unsigned backend_calls(const struct backend *b);       /* requests read completely */
unsigned backend_broken(const struct backend *b);      /* requests that ended in the middle */
unsigned backend_connections(const struct backend *b); /* accepted so far */
void backend_forget(struct backend *b);                /* counts to 0 */
/* Keeps the bytes of the last requests (heads and decoded bodies) for inspection. */
char *
backend_transcript(struct backend *b); /* malloc'd copy; one "METHOD TARGET\n" line a request */
bool reply(struct asked *ask, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool reply_bytes(struct asked *ask, const void *bytes, size_t len);
/* 200 with these extra head lines ("" or "Name: value\r\n…") and body */
bool reply_ok(struct asked *ask, const char *lines, const char *body);

/* Runs the stories of a program with one backend for all of them, in *b while they run; what main()
 * returns. */
#define run_with_backend(stories, b, fn)                                                           \
    (harness_share(b, fn), cmocka_run_group_tests(stories, harness_set_up, harness_tear_down))
void harness_share(struct backend **b, backend_fn fn);
int harness_set_up(void **state);
int harness_tear_down(void **state);

/* ---- other programs ---- */
/* Starts one (of that script, or NULL) that gets the port as its last argument; waits until it
 * listens there. */
pid_t peer_start(const char *program, const char *script, unsigned port);
void peer_stop(pid_t pid);

/* ---- the daemon ---- */
struct house {
    pid_t pid;
    unsigned port, ops_port;
    char dir[128]; /* state, runtime, configuration and log live here */
    char conf[160], log[160];
    char sock[160]; /* admin socket */
    char clock[160];
};
/* Starts polderd with a configuration made of a standard head (listen, ops, directories, workers)
 * and `routes`, in which @PORT@-style marks are printf arguments of the caller's own making. Waits
 * for ready. */
void house_start(struct house *h, unsigned workers, const char *routes_fmt, ...)
    __attribute__((format(printf, 3, 4)));
void house_write_conf(struct house *h, unsigned workers, const char *routes);
/* Time moves on at once, for all processes of the house: what was due meanwhile is due now. Only
 * timers of event loops (looks each second or less) take their time. */
void house_advance(struct house *h, unsigned ms);
void house_run(struct house *h);    /* start again with what is in dir; waits for ready */
int house_stop(struct house *h);    /* SIGTERM; returns the exit status */
void house_kill(struct house *h);   /* SIGKILL of the master and wait until all is gone */
void house_remove(struct house *h); /* stop if it runs, delete dir */
bool house_ready(struct house *h);
/* pids of children by title, e.g. "polderd: worker"; count */
size_t house_children(struct house *h, const char *title, pid_t *pids, size_t max);
bool house_logged(struct house *h, const char *text);
long resident_kib(pid_t pid); /* VmRSS less shared memory: RssAnon + RssFile */
/* Runs polderctl; output (stdout and stderr) in a static buffer; returns the exit status. */
int ctl(struct house *h, const char **out, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Where the built programs are: $POLDER_BUILD or "build". */
const char *built(const char *program);

/* ---- clients ---- */
int client_connect(unsigned port);
void client_send(int fd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void client_send_bytes(int fd, const void *bytes, size_t len);
/* Reads one response; to_head: it has no body. 1xx are returned like any other. Fails the test when
 * nothing comes within 10 s. m->complete tells whether the body was whole. */
void client_read(int fd, struct message *m, bool to_head);
bool client_closed(int fd, unsigned ms); /* the peer ends the connection within ms */
/* One GET on a connection of its own: status; body and head in m if m is not NULL. */
int get(unsigned port, const char *target, struct message *m);
/* One GET: was it a hit, fresh or stale, as Cache-Status says? */
bool served_from_store(unsigned port, const char *target);
int get_with(unsigned port, const char *target, const char *lines, struct message *m);
int request(unsigned port, const char *method, const char *target, const char *lines,
            const char *body, struct message *m);
/* n GETs of target from `parallel` keep-alive connections; counts[status] += 1 (0: no answer).
 * Every body that contains `forbidden` (may be NULL) is counted in counts[999]. */
void storm(unsigned port, const char *target, unsigned n, unsigned parallel, unsigned counts[1000],
           const char *forbidden);

unsigned free_port(void);
#endif
