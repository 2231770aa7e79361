/* SPDX-License-Identifier: BSD-2-Clause */
/* utf8: checks UTF-8 characters. */
#ifndef POLDER_UTF8_H
#define POLDER_UTF8_H
#include <stddef.h>

/* Bytes of the well-formed UTF-8 character at `text`, which has len > 0; 0: there is none (RFC
 * 3629). */
size_t utf8_length(const char *text, size_t len);
#endif
