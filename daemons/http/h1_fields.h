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
/* A byte of a token (RFC 9110 5.6.2): ALPHA DIGIT ! # $ % & ' * + - . ^ _ ` | ~, a bit each. */
static inline bool h1_is_token_byte(unsigned char c)
{
    static const uint64_t set[2] = {0x03ff6cfa00000000u, 0x57ffffffc7fffffeu};
    return c < 128 && (set[c / 64] >> (c % 64) & 1);
}
/* A byte of a host name: ALPHA DIGIT - . _ ~. What else a reg-name could have, percent-encodings
 * and sub-delims, occurs only in attacks. */
static inline bool h1_is_host_byte(unsigned char c)
{
    static const uint64_t set[2] = {0x03ff600000000000u, 0x47fffffe87fffffeu};
    return c < 128 && (set[c / 64] >> (c % 64) & 1);
}
/* Without the white space around it. */
static inline struct str h1_trim(struct str t)
{
    while (t.len && (*t.at == ' ' || *t.at == '\t'))
        t.at++, t.len--;
    while (t.len && (t.at[t.len - 1] == ' ' || t.at[t.len - 1] == '\t'))
        t.len--;
    return t;
}
/* May this field stand in a trailer that we pass on (RFC 9110 6.5.1)? */
bool h1_may_trail(struct str name);
#endif
