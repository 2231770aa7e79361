/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limitkey: the bytes that say who somebody is under a limit, so that workers, which make them from
 * requests, and control, which makes them from what an operator writes, mean the same.
 *
 * The parts of a key stand one after the other with LIMITKEY_SEPARATOR between them. A client is
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
/* Of a client alone: what stands for those whose request lacks a part. -EINVAL: no address. */
int limitkey_client(const char *address, char *out, size_t size);
/* What an operator reads, and may write for limit reset: addresses as text, parts joined by '+',
 * what is not printable as '?'. len may be more than the bytes there are (given): then it ends in
 * "...". Returns the length, less than size. */
size_t limitkey_to_text(const struct config_limit *limit, const char *who, size_t given, size_t len,
                        char *out, size_t size);
/* "client", "header:x-api-key+route": the key as the configuration has it. */
void limitkey_describe(const struct config_limit *limit, char *out, size_t size);
#endif
