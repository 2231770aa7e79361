/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * die: in the build for one test only (POLDER_DIE), the places at which the working process kills
 * itself now and then, and takes or gives fewer bytes than it could. Elsewhere nothing.
 */
#ifndef POLDER_SUPERVISOR_DIE_H
#define POLDER_SUPERVISOR_DIE_H
#include <stddef.h>

#define DIE_PLACES(X)                                                                              \
    X(BEFORE_READ)                                                                                 \
    X(AFTER_READ)                                                                                  \
    X(BEFORE_COMMIT)                                                                               \
    X(AFTER_COMMIT)                                                                                \
    X(AFTER_SEND)                                                                                  \
    X(BEFORE_SECOND_COMMIT)                                                                        \
    X(BEFORE_DROP)                                                                                 \
    X(AFTER_TURN)                                                                                  \
    X(OPENING)                                                                                     \
    X(GOING)                                                                                       \
    X(GONE)                                                                                        \
    X(RECOVERING)                                                                                  \
    X(RECOVERED)                                                                                   \
    X(RESUMED)                                                                                     \
    X(HANDING)                                                                                     \
    X(HANDED)                                                                                      \
    X(TAKEN)
#define DIE_ENUM(name) DIE_##name,
enum die_place { DIE_PLACES(DIE_ENUM) DIE_PLACES_N };

#ifdef POLDER_DIE
void die_here(enum die_place place);
size_t die_fewer(size_t n); /* 1 to n */
#else
static inline void die_here(enum die_place place)
{
    (void)place;
}
static inline size_t die_fewer(size_t n)
{
    return n;
}
#endif
#endif
