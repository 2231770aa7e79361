/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limitkey: the bytes that a limit counts by, so that workers, which make them from requests, and
 * control, which makes them from an operator's text, agree.
 *
 * The parts of a key are joined by LIMITKEY_SEPARATOR. A client is
 * the 16 bytes of clientip_group(), a route its pattern, "global" a '*'; all others are the value
 * as the request has it.
 */
#ifndef POLDER_LIMITKEY_H
#define POLDER_LIMITKEY_H
#include <stddef.h>

#define LIMITKEY_SEPARATOR '\x1f'

struct config_limit;

/* From text: the value, or the values of a key of several parts with '+' between them; the last
 * part may contain any '+'. Length, -EINVAL: too few parts, or a client that is no address; or
 * -ENOBUFS. */
int limitkey_from_text(const struct config_limit *limit, const char *text, char *out, size_t size);
/* For a client alone: the key used if a request lacks a part. -EINVAL: no address. */
int limitkey_client(const char *address, char *out, size_t size);
/* The text shown to operators and accepted by limit reset: addresses as text, parts joined by '+',
 * unprintable bytes as '?'. If len is more than the given bytes, it ends in "...". Returns the
 * length, less than size. */
size_t limitkey_to_text(const struct config_limit *limit, const char *who, size_t given, size_t len,
                        char *out, size_t size);
/* "client", "header:x-api-key+route": the key as configured. */
void limitkey_describe(const struct config_limit *limit, char *out, size_t size);
#endif
