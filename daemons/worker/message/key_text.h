/* SPDX-License-Identifier: BSD-2-Clause */
/* key_text: the bytes that limits count a request by, and that partitions of the cache are made of:
 * the values of key parts (polder.conf(5), "key" and "partition"). */
#ifndef POLDER_WORKER_MESSAGE_KEY_TEXT_H
#define POLDER_WORKER_MESSAGE_KEY_TEXT_H
#include "polder/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct request;

#define KEY_TEXT_MAX 4096

/* Joins the values of key parts into out; spelled: parameters and cookies in the client's bytes,
 * not as what they mean, a token whole, and a part that is missing is told from an empty one.
 * -ENOENT: one is missing, or (spelled) all are; -EINVAL: one is there twice, with two values, or
 * in a spelling that some backends take for it and others do not; -ENOBUFS. */
int key_text_join(const struct request *r, const struct config_key *parts, uint32_t n, bool spelled,
                  char *out, size_t size);
/* The bytes that the request is counted by, in text[KEY_TEXT_MAX]. Length; -ENODATA: it is not;
 * -ENOENT: the key is missing and that means refusal. */
int key_text_of_limit(const struct request *r, const struct config_limit *l, char *text);
bool key_text_needs_head(const struct config_route *route); /* to know what its limits count by */

#endif
