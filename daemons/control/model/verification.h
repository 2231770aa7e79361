/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verification: the token of `polderctl verify` (polder/verify.h), and the copies that its probes
 * leave in the store. One run at a time.
 */
#ifndef POLDER_CONTROL_VERIFICATION_H
#define POLDER_CONTROL_VERIFICATION_H
#include "polder/verify.h"
#include <stdbool.h>

struct control;

/* 0; -EBUSY: another run is under way; or another negative errno. */
int verification_begin(struct control *c, char token[VERIFY_TOKEN_SIZE]);
/* Extends the token; false: it is not valid any more. */
bool verification_keep(struct control *c, const char *token);
/* Ends the copies of a path and query, as cache invalidate would, or of all. False: that is no path.
 */
bool verification_forget(struct control *c, const char *path);
void verification_end(struct control *c);
void verification_follow(struct control *c); /* ends copies that were left behind */
#endif
