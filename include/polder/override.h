/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * override: request fields that let whoever sends them replace the URL, the method or the host of a
 * request, or the client's address (libshared/tables/override_fields.def). A gateway that passes
 * them lets any client do that: its limits and its cache have judged another request than the one
 * that the backend then answers.
 *
 * Gateways of the CGI kind turn '-' into '_', so names are compared with '_' as '-'. Pure
 * functions.
 */
#ifndef POLDER_OVERRIDE_H
#define POLDER_OVERRIDE_H
#include "polder/field.h"
#include <stdbool.h>
#include <stdint.h>

/* Is it one of the list? Entries are in lower case and with '-'; one that ends in '*' stands for
 * all that begin like it. */
bool override_is_listed(struct str name, const struct str *list, uint32_t n);
/* The list that applies where the configuration has none. */
const struct str *override_defaults(uint32_t *n);
/* Does it replace the URL, the method or the host? What is stored under a URL must not be fetched
 * with such a field. */
bool override_replaces_request(struct str name);
#endif
