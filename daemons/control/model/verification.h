/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verification: the token of `polderctl verify` (polder/verify.h), and what its probes have left in
 * the store. One verifies at a time.
 */
#ifndef POLDER_CONTROL_VERIFICATION_H
#define POLDER_CONTROL_VERIFICATION_H
#include "polder/verify.h"
#include <stdbool.h>

struct control;

/* 0; -EBUSY: somebody verifies already; or another negative errno. */
int verification_begin(struct control *c, char token[VERIFY_TOKEN_SIZE]);
/* The token goes on being good; false: it is not any more. */
bool verification_keep(struct control *c, const char *token);
/* Ends the copies of a path and query, as cache invalidate would, or of all. False: that is no path.
 */
bool verification_forget(struct control *c, const char *path);
void verification_end(struct control *c);
void verification_follow(struct control *c); /* ends what was left behind */
#endif
