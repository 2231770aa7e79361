/* SPDX-License-Identifier: BSD-2-Clause */
/* h1_cache: converts a parsed head to the structs of polder/policy.h. */
#ifndef POLDER_H1_CACHE_H
#define POLDER_H1_CACHE_H
#include "daemons/http/h1.h"
#include "polder/policy.h"

/* obey_directives is left false for the caller to decide. */
void h1_policy_request(const struct h1_head *head, struct policy_request *req);
/* now_s: Unix seconds of its receipt. content_location_is_target is left false: only the caller
 * knows the target. Text in *resp points into the head's bytes. scratch: for
 * a CDN-Cache-Control of several lines. */
#define H1_CACHE_SCRATCH 4096
void h1_policy_response(const struct h1_head *head, int64_t now_s, char scratch[H1_CACHE_SCRATCH],
                        struct policy_response *resp);
/* has_age and age alone: of a 304; its other fields are read from the merged head. */
void h1_policy_age(const struct h1_head *head, struct policy_response *resp);
/* A date of one line, or of several that say the same. False: there is none that all read alike. */
bool h1_read_date(const struct h1_head *head, enum h1_field_id id, int64_t *seconds);
/* Walks the field names of all Vary lines: at starts at 0 and is the caller's to keep. False at the
 * end. "*" is one of the names, and so is what is no name at all. */
struct h1_vary {
    uint32_t field;
    struct str rest;
};
bool h1_vary_next(const struct h1_head *head, struct h1_vary *walk, struct str *name);
/* Writes the value by which a request's field of that name selects a variant, normalised as RFC
 * 9111 4.1 allows: lines combined, white space around elements removed; languages, codings and
 * charsets also in lower case and sorted, for their order means nothing where they have no weights.
 * A field that has '_' for '-' in its name, and is the same to some backends, is told apart.
 * False: the field is absent, or hop-by-hop, which the backend does not see. */
bool h1_selecting(const struct h1_head *head, struct str name, struct h1_out *out);
#endif
