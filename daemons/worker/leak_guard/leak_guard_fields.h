/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * leak_guard_fields: the identity fields of a request one by one: fields of polder/leak_guard.h,
 * and each cookie by itself, so that a finding names what a partition could use. Private to the
 * guard.
 */
#ifndef POLDER_WORKER_LEAK_GUARD_LEAK_GUARD_FIELDS_H
#define POLDER_WORKER_LEAK_GUARD_LEAK_GUARD_FIELDS_H
#include "daemons/worker/message/guard.h"
#include "polder/leak_guard.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cache_view;
struct config;
struct config_cache;
struct h1_head;
struct request;

struct guard_fields {
    const struct config *config;
    const struct config_cache *cache; /* of the route: its partition is left alone */
    uint32_t n;
    struct {
        bool cookie;
        char name[GUARD_FIELD_NAME]; /* lower case; of a cookie as it is; "": all further cookies */
    } field[GUARD_FIELDS_MAX];
};

/* Those of a request that are not part of the copy's partition or variant. */
void guard_fields_list(struct guard_fields *k, const struct request *r, const struct cache_view *v);
/* The request's head without the fields of these bits, nor its id, for it is another request; the
 * length, 0: it does not fit. */
size_t guard_fields_write(const struct guard_fields *k, const struct h1_head *head, uint32_t omits,
                          char *out, size_t size);
/* The fields that a response's Vary names. */
uint32_t guard_fields_varied(const struct guard_fields *k, const struct h1_head *head);
/* "cookie:sid, x-api-key" for these bits; the length. */
size_t guard_fields_name(const struct guard_fields *k, uint32_t bits, char *out, size_t size);
#endif
