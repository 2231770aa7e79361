/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * forwarded: the pieces of Forwarded (RFC 7239 section 4) and of the lists of its family.
 * Separators inside quotes do not count. What a list means, and which entries are trusted, is
 * decided in clientip.h.
 */
#ifndef POLDER_FORWARDED_H
#define POLDER_FORWARDED_H
#include "polder/field.h"

/* True if every quote in it is closed. */
bool forwarded_is_closed(struct str list);
/* Removes and returns the first member of the list; trimmed, may be empty. False: there is none. */
bool forwarded_next(struct str *list, struct str *member);
/* The last one, added by the nearest proxy. Quotes are paired in a valid field; in an invalid one a
 * member that begins earlier may be cut short, and none of it is taken for the last proxy's. */
bool forwarded_last(struct str *list, struct str *member);
/* The next "name=value" of a member, as it stands there. */
bool forwarded_pair_next(struct str *member, struct str *pair);
/* The value of the first pair of that name, without its quotes. The name ends in '='. */
bool forwarded_value(struct str member, const char *name, struct str *value);
#endif
