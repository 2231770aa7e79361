/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * override: request fields that replace the URL, the method or the host of a request, or the
 * client's address, at backends that honour them (libshared/tables/override_fields.def). A gateway
 * that passes them lets any client do that: its limits and its cache then judge another request
 * than the one that the backend answers.
 *
 * Gateways of the CGI kind turn '-' into '_', so names are compared with '_' as '-'. Pure
 * functions.
 */
#ifndef POLDER_OVERRIDE_H
#define POLDER_OVERRIDE_H
#include "polder/field.h"
#include <stdbool.h>
#include <stdint.h>

/* Is the name in the list? Entries are in lower case with '-'; one that ends in '*' matches a
 * prefix. */
bool override_is_listed(struct str name, const struct str *list, uint32_t n);
/* The default list. */
const struct str *override_defaults(uint32_t *n);
/* Does it replace the URL, the method or the host? A response that is stored must not be fetched
 * with such a field. */
bool override_replaces_request(struct str name);
#endif
