/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * things: resources at a backend of each host, whose answers say all about themselves: which version,
 * for whom, in which language, fetched by which host. So an answer that a client gets can be judged to
 * the byte, wherever it comes from.
 */
#ifndef POLDER_TEST_THINGS_H
#define POLDER_TEST_THINGS_H
#include "harness.h"

#include <stdbool.h>
#include <stdint.h>

#define THINGS      48   /* that change, and are read again and again */
#define COLD_THINGS 4096 /* that are asked for once; each has a number from THINGS on */
#define THING_HOSTS 3

/* How a thing is answered: its number modulo KINDS. */
enum thing_kind {
    PLAIN,     /* 60 s; a tag */
    LONG,      /* its body goes in chunks; an entity tag */
    ASKED,     /* no-cache, with an entity tag */
    SHORT,     /* 1 s */
    VARYING,   /* by X-Lang */
    NEGATIVE,  /* 404 */
    PRIVATE,   /* for one client */
    UNSTORED,  /* no-store */
    PERSONAL,  /* 60 s, and of its client where that has an identity */
    PUBLIC,    /* for all, whoever has asked */
    ENCODED,   /* random bytes that are said to be gzip */
    REFRESHED, /* stale while revalidating */
    FORGIVING, /* stale if error, and it fails */
    CHUNKED,   /* of unknown length, with a trailer */
    ALWAYS,    /* max-age=0, must-revalidate, an entity tag */
    GROUPED,   /* Cache-Groups, and 15 kB of head */
    THING_KINDS
};

struct things {
    unsigned world; /* paths begin with /wWORLD/ */
    _Atomic unsigned version[THINGS], calls[THINGS + COLD_THINGS];
    _Atomic uint64_t
        said_ms[THINGS];       /* when the last answer of another version than now went out */
    _Atomic bool fails;        /* FORGIVING ones do */
    _Atomic unsigned delay_ms; /* answers take up to that */
    struct backend *backend[THING_HOSTS];
};
void things_start(struct things *t);
void things_stop(struct things *t);
enum thing_kind thing_kind(unsigned number);
bool thing_fits(unsigned number); /* its first version: into the shared cache */
/* "/wWORLD/pN/NUMBER": N is 0 or 1 */
void thing_path(const struct things *t, unsigned number, char out[64]);

struct thing_asked {
    unsigned number, host; /* where it was asked for */
    const char *lang;      /* "-": none */
    unsigned identity;     /* 0: none */
    bool is_head, is_range, is_conditional;
};
/* What is wrong with the answer, in a static buffer; NULL: nothing, and *version is what it shows, 0
 * where it shows none. */
const char *thing_judge(const struct things *t, const struct thing_asked *a,
                        const struct message *m, unsigned *version);
#endif
