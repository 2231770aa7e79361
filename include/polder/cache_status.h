/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cache_status: what Cache-Status (RFC 9211) says about an answer from the store: one place for
 * workers, which send it, and for `cache why`, which predicts it.
 */
#ifndef POLDER_CACHE_STATUS_H
#define POLDER_CACHE_STATUS_H
#include "polder/cache.h"

/* The parameter ttl: whole seconds that it stays fresh; negative: how long it has been stale. soft:
 * an invalidation has ended its freshness. */
int64_t cache_status_ttl_s(const struct cache_record *record, bool soft, uint64_t now_ms);
/* The parameter detail of a stale answer: why it may be served. NULL: it is fresh. */
const char *cache_status_detail(const struct cache_record *record, bool soft,
                                uint64_t min_interval_ms, uint64_t now_ms);

/* Why a request went to the backend, for Cache-Status (RFC 9211 2.2). */
enum fwd_reason {
    FWD_NONE,
    FWD_BYPASS,
    FWD_METHOD,
    FWD_URI_MISS,
    FWD_VARY_MISS,
    FWD_PARTIAL,
    FWD_REQUEST,
    FWD_STALE
};
const char *cache_status_fwd(enum fwd_reason fwd); /* the parameter fwd */
#endif
