/* SPDX-License-Identifier: BSD-2-Clause */
/* query: the parameters of a page, after the '?'. */
#ifndef POLDER_CONTROL_QUERY_H
#define POLDER_CONTROL_QUERY_H
#include "polder/field.h"
#include <stdbool.h>
#include <stddef.h>

/* The next "name=value" of rest, still escaped; empty ones are passed over. False: there is none. */
bool query_next(struct str *rest, struct str *name, struct str *value);
/* The next element of a value that is a list, still escaped. False: there is none. */
bool query_element(struct str *list, struct str *element);
/* Without escapes and with a NUL; '+' is a space. The length; -EINVAL: a malformed escape, or a
 * control character; -ENOBUFS. */
int query_decode(struct str text, char *out, size_t size);
#endif
