/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * record: what one WebSocket is, apart from the process that holds it.
 *
 * A record borrows everything that it points to, and owns no descriptor: they are numbers. It is
 * made from a live session (session_describe()), or by who has kept one elsewhere, and becomes a
 * live session again in session_resume(). Times are of the monotonic clock, which goes on over
 * execve(2) and the death of a process.
 *
 * Nothing of a record is believed: session_record_sound() says whether a session can be made of it.
 */
#ifndef POLDER_SUPERVISOR_RECORD_H
#define POLDER_SUPERVISOR_RECORD_H
#include "daemons/supervisor/supervisor.h"
#include "daemons/supervisor/ws/inflate_count.h"

struct bytes {
    const void *at;
    size_t len;
};

struct leg_record {
    int fd; /* -1: none */
    struct frames in;
    struct bytes stash; /* read, and not whole yet: fewer than FRAMES_CONTROL_MAX */
    struct bytes out;   /* not taken yet */
    const struct inflate_packed *expanded; /* NULL: no compressed message is counted */
    uint64_t pinged_ms;
    uint8_t pings_out;
    bool cut, fin;
};

/* Of a handshake on its way. */
struct pending_record {
    char accept_key[28];
    uint64_t servers; /* servers_digest() of the upstream: the numbers below are of that list */
    uint64_t tried;   /* one bit each */
    uint32_t server;  /* asked now or last; UINT32_MAX: none */
    uint32_t address, place, failed_attempts;
    bool anyway;
    struct sticky_key sticky;
    uint64_t until_ms, lease_ms;
    enum problem failed_with;
    const char *failed_why; /* "": none has failed */
    struct bytes limits, head, pipelined, answer;
    struct h1_body body; /* of a refusal that passes */
};

struct session_record {
    struct leg_record client, backend;
    const char *route; /* its pattern */
    struct clientip ip;
    uint64_t id;
    uint64_t opened_ms, to_client_ms, from_client_ms, deadline_ms, moved_ms;
    uint64_t due_ms; /* its timer; 0: not armed */
    uint64_t undelivered, begun_ns, requested_ns, bytes, messages_in, messages_out;
    uint16_t refused_with, close_code;
    uint8_t state, end;
    bool probe, goodbye, untold;
    const char *client_id;                          /* "": made up */
    const struct pending_record *pending;           /* NULL */
    const struct subscription_record *subscription; /* NULL */
    const struct access_line *line;                 /* NULL */
};

/* Room for what a record of a live session points to. */
struct session_space {
    struct pending_record pending;
    struct subscription_record subscription;
    struct inflate_packed expanded[2];
    uint8_t *out[2]; /* for the caller to free */
};

/* False: no memory. The record lives until the session changes; session_forget() behind it. */
bool session_describe(const struct session *x, struct session_record *r,
                      struct session_space *space);
void session_forget(struct session_space *space);

/* NULL: a session can be made of it; else what is wrong. */
const char *session_record_wrong(const struct session_record *r);
/* May it go on on this route as if nothing had happened? A handshake waits for one of its servers.
 */
bool session_record_survives(const struct session_record *r, const struct config_route *to);

/* Takes the descriptors. The record is sound, and survives on this route, or is open or closing.
 * NULL: no memory; the descriptors are closed. */
struct session *session_resume(struct supervisor *s, const struct config_route *route,
                               const struct session_record *r);
#endif
