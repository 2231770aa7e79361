/* SPDX-License-Identifier: BSD-2-Clause */
/* caller: invalidates by one connection to the admin socket. */
#ifndef POLDER_TEST_CALLER_H
#define POLDER_TEST_CALLER_H
#include <stdint.h>

struct caller {
    const char *sock;
    int fd; /* -1: not connected */
    uint32_t calls;
};
enum verdict { DONE, BUSY, FAILED };
/* key: a parameter of cache.invalidate; value NULL: true. BUSY: to be tried again, or other hosts of the
 * fleet do not know. */
enum verdict caller_invalidate(struct caller *c, const char *key, const char *value);
#endif
