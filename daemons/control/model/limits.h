/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limits: running values of limits and their changes: in every configuration that is served,
 * pending until confirmed, and candidates (limit_try.h), which are ended here.
 */
#ifndef POLDER_CONTROL_LIMITS_H
#define POLDER_CONTROL_LIMITS_H
#include "polder/exempt.h"
#include "polder/runtime.h"

struct config;
struct config_limit;
struct control;

/* Values of a limit, and its exempt list; exempts false: the list of the file. Says nothing of any
 * region: value.exempt counts only where it was read. */
struct limit_terms {
    struct runtime_limit value;
    bool exempts;
    struct exempt exempt;
};

const struct config_limit *limits_find(const struct config *config, const char *name);
/* Values as they were read, so that they can be published again. */
void limits_terms(const struct control *c, const struct config_limit *l,
                  const struct runtime_limit *value, struct limit_terms *out);
/* Does it run as the file says? */
bool limits_is_as_file(const struct control *c, const struct config_limit *l,
                       const struct runtime_limit *running);
void limits_publish(const struct control *c, const char *name, const struct limit_terms *terms);
/* Forgets a client's counts, as limitkey.h writes it (len < 0: no key of this limit). False:
 * nothing was counted. */
bool limits_forget_client(const struct control *c, const struct config_limit *l, const char *who,
                          int len);

/* A pending change is reverted when its time is over. If another one was pending, to the values
 * before both. ms 0: the change is not pending, and ends a pending one. */
void limits_pending_begin(const struct control *c, const struct config_limit *l, uint64_t ms,
                          const struct runtime_limit *before);
/* When it ends, monotonic; 0: there is none. */
uint64_t limits_pending_until_ms(const struct control *c, const struct config_limit *l);
/* Each second: pending changes that were not confirmed in time, candidates at their end. */
void limits_follow(struct control *c);
#endif
