/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * record: what the head of a response becomes in a record of the store: for store.c, which stores a
 * response, and for revalidate.c, which renews a stored one.
 */
#ifndef POLDER_WORKER_FETCH_RECORD_H
#define POLDER_WORKER_FETCH_RECORD_H
#include "daemons/http/h1.h"
#include "polder/cache.h"

#include <stdbool.h>
#include <stdint.h>

struct fetch;
struct part;
struct policy_response;
struct worker;

#define RECORD_NAMES_MAX 1024

/* Appends the names of all Vary lines to names, lower case, a line each, and their length to *len.
 * plain: its Accept-Encoding was ours. False: too many to be worth a cache, or one that we cannot
 * judge. */
bool record_read_vary(const struct h1_head *head, bool plain, char names[RECORD_NAMES_MAX],
                      uint32_t *len);
/* The head as it goes into the store. part: the part that the body is; NULL: a whole one. */
void record_put_head(struct h1_out *o, const struct worker *w, const struct h1_head *head,
                     const struct policy_response *resp, const struct part *part,
                     bool compressible);
/* When it was received, until when it may be used, and by which requests. */
void record_set_times(struct cache_record *rec, const struct fetch *ex,
                      const struct policy_response *resp);
/* Is it worth having in content codings, and may it be (RFC 9110 7.7, RFC 9111 5.2.2.6)? */
bool record_is_compressible(const struct fetch *ex, const struct h1_head *head,
                            const struct policy_response *resp);
/* Was it fetched with Origin, or does it state its CORS fields without? */
bool record_suits_origins(const struct h1_head *request, const struct h1_head *response);

#endif
