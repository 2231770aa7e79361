/* SPDX-License-Identifier: BSD-2-Clause */
/* source: bytes of a socket read with a deadline, and a message of them. For wire.c and backend.c. */
#ifndef POLDER_TEST_SOURCE_H
#define POLDER_TEST_SOURCE_H
#include "wire.h"

/* A small buffered reader, a byte source with a deadline. */
struct source {
    int fd;
    uint64_t deadline;
    char buf[65536];
    size_t at, end;
    bool closed, late;
};

struct bytes {
    char *at;
    size_t len, room;
    uint64_t total; /* of a body, kept or not */
};

int source_byte(struct source *s); /* -1: closed or late */
void bytes_add(struct bytes *b, char c);
bool source_head(struct source *s, struct message *m);
/* none: it has no body; to_close: one without a length ends with the connection. */
void source_body(struct source *s, struct message *m, bool none, bool to_close);
bool send_bytes(int fd, const char *at, size_t len);
#endif
