/* SPDX-License-Identifier: BSD-2-Clause */
/* cache_status: see cache_status.h. */
#include "polder/cache_status.h"

int64_t cache_status_ttl_s(const struct cache_record *record, bool soft, uint64_t now_ms)
{
    if (record->fresh_until_ms > now_ms)
        return soft ? 0 : (int64_t)((record->fresh_until_ms - now_ms) / 1000);
    const uint64_t stale_ms = now_ms - record->fresh_until_ms;
    return stale_ms ? -(int64_t)((stale_ms + 999) / 1000) : -1; /* never 0 for what is stale */
}

const char *cache_status_detail(const struct cache_record *record, bool soft,
                                uint64_t min_interval_ms, uint64_t now_ms)
{
    if (record->fresh_until_ms > now_ms && !soft)
        return NULL;
    if (min_interval_ms && !soft && now_ms < record->received_ms + min_interval_ms)
        return "poll-interval";
    return now_ms < record->swr_until_ms ? "stale-while-revalidate" : "stale";
}

const char *cache_status_fwd(enum fwd_reason fwd)
{
    static const char *const names[] = {
        [FWD_NONE] = "uri-miss",     [FWD_BYPASS] = "bypass",       [FWD_METHOD] = "method",
        [FWD_URI_MISS] = "uri-miss", [FWD_VARY_MISS] = "vary-miss", [FWD_PARTIAL] = "partial",
        [FWD_REQUEST] = "request",   [FWD_STALE] = "stale"};
    return names[fwd];
}
