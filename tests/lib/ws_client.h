/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ws_client: a raw WebSocket client, for stories about polder-supervisor.
 * Frames are written and read byte by byte, so that wrong ones can be sent and seen. Reads have a
 * deadline; what is missed fails the test or is said by the return value.
 */
#ifndef POLDER_TEST_WS_CLIENT_H
#define POLDER_TEST_WS_CLIENT_H
#include "harness.h"

#define WS_KEY    "dGhlIHNhbXBsZSBub25jZQ=="
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

struct ws_frame {
    unsigned opcode, code; /* code: of a close frame */
    size_t len;
    char text[1 << 17]; /* NUL-terminated */
};
extern struct ws_frame frame; /* the last one that expect_…() has read */

/* Sends an upgrade with these extra lines and does not wait. */
int ask_only(unsigned port, const char *target, const char *lines);
/* The same, and reads the answer's head. */
int ask(unsigned port, const char *target, const char *lines, struct message *m);
int status_of(unsigned port, const char *target);
int open_ws(unsigned port, const char *target); /* fails the test unless it gets 101 */

void send_frame(int fd, unsigned first, const void *payload, size_t len); /* masked */
void say(int fd, const char *text);
bool take(int fd, void *to, size_t n);
/* false: the connection ended, or nothing came */
bool read_frame(int fd, struct ws_frame *f);
void expect_text(int fd, const char *text);
unsigned expect_close(int fd); /* the code; 1006 where the connection ended without one */

pid_t supervisor_of(struct house *h);
/* The process that works for that one, which is its custodian; 0: there is none now. */
pid_t working_process(pid_t supervisor);
bool has_ended(pid_t pid); /* of any process: it is gone, or waits for its parent to look */
size_t descriptors(pid_t pid);
/* Those of both processes. */
size_t supervisor_descriptors(pid_t supervisor);
/* The same, where no WebSocket was opened yet, of what stays open behind the first ones, over target,
 * which a backend answers. */
size_t supervisor_descriptors_at_rest(struct house *h, const char *target);
void wait_for_supervisor(struct house *h);

/* A client on target, and the backend's end: both agree. extra: lines of the backend's 101. */
int scripted_agree(struct scripted *b, int *client, unsigned port, const char *target,
                   const char *extra);
#endif
