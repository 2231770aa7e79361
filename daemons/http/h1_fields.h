/* SPDX-License-Identifier: BSD-2-Clause */
/* h1_fields: character classes and checks that the parts of h1 share. Private to daemons/http. */
#ifndef POLDER_H1_FIELDS_H
#define POLDER_H1_FIELDS_H
#include "daemons/http/h1.h"

/* A byte that may stand in a field value: HTAB, SP, VCHAR, obs-text (RFC 9110 5.5). */
static inline bool h1_is_value_byte(unsigned char c)
{
    return c >= 0x20 ? c != 0x7f : c == '\t';
}
/* A byte of a token (RFC 9110 5.6.2). */
bool h1_is_token_byte(unsigned char c);
/* Without the white space around it. */
struct field_text h1_trim(struct field_text text);
/* May this field stand in a trailer that we pass on (RFC 9110 6.5.1)? */
bool h1_may_trail(struct field_text name);
#endif
