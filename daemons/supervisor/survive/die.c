/* SPDX-License-Identifier: BSD-2-Clause */
/* die: see die.h. */
#include "daemons/supervisor/survive/die.h"

#ifdef POLDER_DIE
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define RARE           20 /* so much more often, where few come by */
#define DIE_NAME(name) #name,
static const char *const names[] = {DIE_PLACES(DIE_NAME)};

static unsigned random_below(unsigned n)
{
    static pid_t seeded;
    unsigned seed;
    if (seeded != getpid() && getrandom(&seed, sizeof seed, 0) == sizeof seed) {
        srandom(seed);
        seeded = getpid();
    }
    return (unsigned)random() % n;
}

/* $POLDER_DIE: once in so many times; $POLDER_DIE_AT: only there; $POLDER_DIE_WHEN: only while that
 * file exists; $POLDER_DIE_HOW: "stop", "exit": not killed. */
void die_here(enum die_place place)
{
    const char *every = getenv("POLDER_DIE"), *only = getenv("POLDER_DIE_AT"),
               *when = getenv("POLDER_DIE_WHEN"), *how = getenv("POLDER_DIE_HOW");
    const bool rare = place >= DIE_OPENING && place <= DIE_GONE;
    const int n = every ? (atoi(every) + 1) / (rare ? RARE : 1) : 0;
    if (n <= 0 || (when && access(when, F_OK)) || (only && atoi(only) != (int)place) ||
        random_below((unsigned)n))
        return;
    fprintf(stderr, "die: %s\n", names[place]);
    if (how && !strcmp(how, "exit"))
        _exit(1);
    kill(getpid(), how ? SIGSTOP : SIGKILL);
}

size_t die_fewer(size_t n)
{
    return n < 2 || random_below(2) ? n : 1 + random_below((unsigned)n);
}
#else
typedef int die_is_not_built; /* a file has to have something */
#endif
