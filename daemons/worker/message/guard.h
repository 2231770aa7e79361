/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guard: the leak guard's part of requests and responses (polder/leak_guard.h): the fingerprint of
 * the identity fields, which is stored with a response, and the quarantine's name in Cache-Status.
 * The checks themselves are in leak_guard/.
 */
#ifndef POLDER_WORKER_MESSAGE_GUARD_H
#define POLDER_WORKER_MESSAGE_GUARD_H
#include "daemons/http/h1.h"
#include "polder/leak_guard.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config_cache;
struct request;

#define GUARD_FIELD_NAME 48 /* a longer name is cut */

/* The identity, as in cache_record.identity. */
uint64_t guard_identity(const struct request *r);
/* The text of Cache-Status in quarantine. */
const char *guard_detail(const struct request *r);
/* Does a field of this head identify the caller, and reach the backend? */
bool guard_field_tells(const struct config_cache *cache, const struct h1_head *head,
                       const struct h1_field *f);
size_t guard_lower_name(struct str name, char out[GUARD_FIELD_NAME]); /* its length, if it fits */

#endif
