/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * head_lines: walks over a head as it is stored, and over lists of lines "name: value" or "name",
 * such as the text that selects a variant. Only for heads that Polder has written; h1 parses those
 * of peers.
 */
#ifndef POLDER_HEAD_LINES_H
#define POLDER_HEAD_LINES_H
#include "polder/field.h"
#include <string.h>

/* The next line, with its end; false: there is none. */
static inline bool head_line_next(struct str *rest, struct str *line)
{
    if (!rest->len)
        return false;
    const char *stop = memchr(rest->at, '\n', rest->len);
    line->at = rest->at;
    line->len = stop ? (size_t)(stop - rest->at) + 1 : rest->len;
    rest->at += line->len;
    rest->len -= line->len;
    return true;
}
/* The part before the colon, or the whole line; value->at NULL: it has no colon. */
struct str head_line_name(struct str line, struct str *value);
/* The first line of that name, whatever its case. value: may be NULL. */
bool head_lines_find(struct str lines, struct str name, struct str *value);
#endif
