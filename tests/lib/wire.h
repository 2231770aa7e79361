/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wire: HTTP messages as they are on the wire, and clients: plain blocking sockets with a deadline,
 * so that raw bytes can be sent and seen. Shares no code with the daemon.
 */
#ifndef POLDER_TEST_WIRE_H
#define POLDER_TEST_WIRE_H
#include "patience.h"

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

/* ---- clients ---- */
int client_connect(unsigned port);
/* The same, with this many bytes for what it has not read; 0: as the system has it. */
int client_connect_small(unsigned port, int receive_buffer);
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
#endif
