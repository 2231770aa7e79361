/* SPDX-License-Identifier: BSD-2-Clause */
/* fake_store: a Redis that answers a host of a fleet well, but for one command, at which it does what it is
 * told. */
#ifndef POLDER_TEST_FAKE_STORE_H
#define POLDER_TEST_FAKE_STORE_H

enum fake_way {
    FAKE_SAYS,     /* the text */
    FAKE_DRIBBLES, /* the text, ten bytes a second */
    FAKE_REPEATS,  /* the text, a thousand times */
    FAKE_FLOODS    /* a list of 60000 times the text */
};
struct fake_fault {
    const char *at; /* a command, or "ENTER", "RENEW", "APPEND": a script */
    enum fake_way way;
    const char *text; /* "": nothing */
};
struct fake_store;
struct fake_store *fake_store_start(void);
unsigned fake_store_port(const struct fake_store *s);
/* From the next command on, after all connections were ended; NULL: it is well. */
void fake_store_do(struct fake_store *s, const struct fake_fault *fault);
void fake_store_stop(struct fake_store *s);
#endif
