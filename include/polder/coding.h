/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * coding: content codings (RFC 9110 8.4.1, 12.5.3) in which stored responses can be kept beside the
 * plain one: their names, which one a client gets, and which bodies are worth compressing. Pure
 * functions.
 */
#ifndef POLDER_CODING_H
#define POLDER_CODING_H
#include "polder/field.h"

enum coding { CODING_IDENTITY, CODING_GZIP, CODING_BR, CODING_ZSTD, CODINGS };

const char *coding_name(enum coding coding); /* "gzip" */
enum coding coding_of(struct str name);      /* CODINGS where unknown */

/* Of the n available codings, the one that an Accept-Encoding value (all lines joined by commas)
 * weighs highest; among equals the first. CODING_IDENTITY if it accepts none of them, prefers
 * identity, or cannot be parsed. A response without a coding is always an answer: "identity;q=0"
 * only means that another one would be better. */
enum coding coding_choose(struct str accept, const uint8_t *offer, unsigned n);

/* Is a body of this media type worth compressing? False for formats that are compressed already or
 * known to be random. */
bool coding_type_is_compressible(struct str content_type);
#endif
