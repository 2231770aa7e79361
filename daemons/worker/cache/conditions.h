/* SPDX-License-Identifier: BSD-2-Clause */
/* conditions: what If-None-Match and If-Modified-Since make of an answer (RFC 9110 13). */
#ifndef POLDER_WORKER_CACHE_CONDITIONS_H
#define POLDER_WORKER_CACHE_CONDITIONS_H
#include "daemons/worker/message/request.h"
#include "polder/field.h"

#include <stdbool.h>
#include <stdint.h>

/* Does the client already have this response? etag with len 0: it has no tag; 0: it has no date. */
static inline bool conditions_not_modified(const struct request *r, struct str etag,
                                           uint64_t last_modified_ms)
{
    int64_t since;
    if (r->if_none_match.at)
        return etag.len && field_etag_listed(r->if_none_match, etag, true);
    if (!r->if_modified_since.at || !last_modified_ms ||
        field_date(r->if_modified_since, &since) != 0)
        return false;
    return since >= 0 && last_modified_ms / 1000 <= (uint64_t)since;
}

#endif
