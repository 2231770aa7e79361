/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memory_house: a whole worker without a socket. Its clients and backends are in memory: a test
 * says which bytes come when, how many are taken at a time and where a connection ends, and sees
 * what the worker reads, writes and closes.
 */
#ifndef POLDER_TESTS_MEMORY_HOUSE_H
#define POLDER_TESTS_MEMORY_HOUSE_H
#include "daemons/net/transport.h"
#include "daemons/worker/worker.h"

#define MEMORY_BYTES    (128u << 10)
#define MEMORY_BACKENDS 64

/* The peer of one connection. */
struct memory_peer {
    struct transport *transport;                  /* NULL: the worker has closed it */
    char in[MEMORY_BYTES], out[MEMORY_BYTES + 1]; /* as the worker sees it */
    size_t in_at, in_len, out_len;
    size_t seen;        /* of out, by the test */
    size_t takes;       /* of the worker's bytes in one turn; 0: all */
    size_t room;        /* what is left of that */
    const char *behind; /* comes right after the worker's next read; NULL: nothing does */
    bool eof;           /* behind `in` */
    bool finished;      /* the worker has said FIN */
    bool breaks;        /* its end is, or would be, that of a broken connection */
    unsigned reads, writes, peeks;
};

struct memory_house {
    struct worker *w;
    struct memory_peer *backend[MEMORY_BACKENDS]; /* connections to them, oldest first */
    unsigned n_backends;
    size_t backend_takes; /* of those that are made from now on */
};

/* config: lines of polder.conf without listeners and directories; its servers are in memory.
 * keeper: a process of its own keeps what is stored. */
struct memory_house *memory_house_open(const char *config, bool keeper);
void memory_house_close(struct memory_house *h);
struct memory_peer *memory_client(struct memory_house *h);
/* Its first bytes are there when it is accepted. */
struct memory_peer *memory_client_with(struct memory_house *h, const char *bytes);
void memory_put(struct memory_peer *p, const char *bytes, size_t len);
/* Runs the loop until nothing moves any more. */
void memory_settle(struct memory_house *h);
void memory_free(struct memory_house *h, struct memory_peer *client);
/* Forgets backends whose connection is closed. */
void memory_forget_closed(struct memory_house *h);
#endif
