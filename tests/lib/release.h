/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * release: copies of a built program in a directory of their own, of another version or broken, for
 * stories about upgrades. A copy is put in place as a package does it: by rename().
 */
#ifndef POLDER_TEST_RELEASE_H
#define POLDER_TEST_RELEASE_H
#include <stdbool.h>
#include <stddef.h>

struct release {
    char dir[64];
    char built[256]; /* where the originals are */
};

enum release_damage {
    RELEASE_WHOLE,
    RELEASE_CRASHES,    /* with its first instruction */
    RELEASE_HANGS,      /* with its first instruction */
    RELEASE_FOREIGN,    /* of another architecture */
    RELEASE_NO_PROGRAM, /* a text */
    RELEASE_UNREADABLE, /* may not be executed */
    RELEASE_TRUNCATED,
};

/* A directory with all three programs, which stories start from now on ($POLDER_BUILD). */
void release_open(struct release *r);
void release_close(struct release *r);
/* Puts this version of a program there. version: as long as the real one's, or NULL: the real one.
 */
void release_install(const struct release *r, const char *program, const char *version,
                     enum release_damage damage);
/* As it says itself (-V), in a static buffer. */
const char *release_real_version(const struct release *r);
#endif
