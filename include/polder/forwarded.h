/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * forwarded: the pieces of Forwarded (RFC 7239 section 4) and of the lists of its family. What is
 * quoted separates nothing. What a list means, and whose word counts, is its reader's to say
 * (clientip.h).
 */
#ifndef POLDER_FORWARDED_H
#define POLDER_FORWARDED_H
#include "polder/field.h"

/* Every quote in it ends. */
bool forwarded_is_closed(struct str list);
/* The first member of the list, which loses it; trimmed, may be empty. False: there is none. */
bool forwarded_next(struct str *list, struct str *member);
/* The last one, which the nearest proxy has added. Quotes come in pairs in a valid field; in
 * another one a member that begins before may be cut, so that it says less, and nothing of it is
 * taken for the last proxy's. */
bool forwarded_last(struct str *list, struct str *member);
/* The next "name=value" of a member, as it stands there. */
bool forwarded_pair_next(struct str *member, struct str *pair);
/* The value of the first pair of that name, which ends in '=', without its quotes. */
bool forwarded_value(struct str member, const char *name, struct str *value);
#endif
