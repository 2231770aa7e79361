/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memory_story: what a client asks in a memory_house, what backends answer, how the bytes are cut,
 * and what comes of it, read by other means than the worker's.
 */
#ifndef POLDER_TESTS_MEMORY_STORY_H
#define POLDER_TESTS_MEMORY_STORY_H
#include "memory_house.h"

/* What one client asks over one connection, what the backend answers, in turn, and what the client
 * has in the end. */
struct story {
    const char *name;
    const char *request;
    const char *answer[2];
    bool closes;              /* the backend, behind its answer */
    const char *forwarded[2]; /* the last bytes of each request as the backend gets it */
    const char *expected;     /* the client's answers as struct told has them */
};

/* Where bytes are cut: at two places, every so many, or by chance. */
struct cut {
    size_t at, and_at, every;
    uint64_t chance;
};

struct act {
    const struct story *story;
    struct cut in, out; /* of what clients and backends send */
    size_t client_takes, backend_takes;
    size_t client_ends, backend_ends; /* it is gone behind so many bytes; SIZE_MAX: it is not */
    unsigned asked;                   /* requests that came to backends */
};
/* The answers that a client has got: "STATUS BODY[TRAILER] close; " of each. */
struct told {
    char text[MEMORY_BYTES];
    size_t len;
    bool whole; /* nothing is missing at its end */
};

uint64_t story_chance(uint64_t *chance); /* the next number that looks random */
struct act story_act(const struct story *s);
/* Until nothing moves. */
void story_go_on(struct memory_house *h, struct act *a);
void story_perform(struct memory_house *h, struct act *a, struct told *told);
/* Fails unless it comes out as the story says. */
void story_expect(struct memory_house *h, struct act a);
#endif
