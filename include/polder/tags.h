/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tags: the tags of a response, by which it can be invalidated. The fields that name them
 * are libshared/tables/tag_fields.def: workers take the tags from there, and the keeper finds their
 * names again in the stored head. Pure; any process.
 */
#ifndef POLDER_TAGS_H
#define POLDER_TAGS_H
#include "polder/field.h"

/* Calls each() for the tags in a field's value, with a text that is valid until it returns and may
 * be empty. separators: as in the table. */
void tags_each(struct str value, const char *separators, void (*each)(void *arg, struct str tag),
               void *arg);
/* The same for a line of a stored head, if its field is one of them. */
void tags_each_of_line(struct str line, void (*each)(void *arg, struct str tag), void *arg);

#endif
