/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * recent: what has just happened, for live views: the last requests that workers answered and the
 * last events that control saw, in two rings of one segment.
 *
 * Records are numbered from 0 in each ring, and a reader asks for those after a number. Requests
 * are recorded only if a reader has asked within RECENT_WATCHED_MS, and at most RECENT_A_SLICE in
 * RECENT_SLICE_MS by each worker: `stands_for` says how many requests a record represents. Without
 * a watcher a worker pays one relaxed load per iteration of its loop.
 *
 * Writers: any worker for the ring of requests, control alone for that of events. A writer
 * takes a number (one atomic addition), fills the record and then stores number + 1 and a checksum
 * of both. There is no lock. A process that dies in between leaves a record with another number,
 * and two that write to one place, because one of them slept while the ring wrapped, leave a
 * checksum that does not match: readers skip such records and count them as lost.
 *
 * Records are made for display: keys of limits are four characters and a hash, query values are
 * '*', and all texts are printable ASCII.
 */
#ifndef POLDER_RECENT_H
#define POLDER_RECENT_H
#include "polder/field.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECENT_REQUESTS   2048 /* records that are kept */
#define RECENT_EVENTS     512
#define RECENT_WATCHED_MS 5000
#define RECENT_SLICE_MS   64 /* a power of two */
#define RECENT_A_SLICE    8  /* 125 records a second */

struct recent_request {
    uint64_t number;
    uint64_t real_ms; /* when it was answered */
    uint64_t us;      /* from its head to the end of its answer; 0: not known */
    uint32_t stands_for;
    uint16_t status; /* 499: the client has left */
    char method[18];
    char limit_decision[12]; /* "none", "admitted", "refused" */
    char limit[48];          /* that refused it, or its route's first; "" */
    char key[16];            /* what that limit counts by, or the client: "abcd~1f2e3d4c" */
    char client[12];         /* "anonymous", "identified", "unknown" */
    char cache[12];          /* "hit", "stale", "miss", "collapsed", "revalidated", ... */
    char detail[72];         /* of that: "fwd=bypass; identity: cookie sid" */
    char route[64];          /* its pattern; "" */
    char target[160];
};

struct recent_event {
    uint64_t number;
    uint64_t real_ms;
    uint64_t count; /* how often, where events are added up; else 1 */
    char noun[12];  /* what polderctl watch filters by: RECENT_NOUNS */
    char what[20];  /* "invalidated", "refused", "raised", ... */
    char subject[112];
    char detail[168];
};
#define RECENT_NOUNS                                                                               \
    "admin alerts cache conditions config fleet limits processes requests upstreams ws"

struct recent_page;
size_t recent_page_size(void);

/* ---- watchers ---- */
/* The word comes first, so it can be read without a call: mono ms. */
static inline bool recent_is_watched(const struct recent_page *page, uint64_t now_ms)
{
    return atomic_load_explicit((const _Atomic uint64_t *)(const void *)page,
                                memory_order_relaxed) > now_ms;
}
/* Requests are recorded until RECENT_WATCHED_MS from now. */
void recent_watch(struct recent_page *page, uint64_t now_ms);

/* ---- writers ---- */
struct recent_sampler { /* {0}; one a worker */
    uint64_t slice;
    uint32_t left, skipped;
};
/* Is this request to be recorded? Then it represents *stands_for requests. */
static inline bool recent_due(struct recent_sampler *s, uint64_t now_ms, uint32_t *stands_for)
{
    if (s->slice != now_ms / RECENT_SLICE_MS) {
        s->slice = now_ms / RECENT_SLICE_MS;
        s->left = RECENT_A_SLICE;
    }
    if (!s->left) {
        s->skipped++;
        return false;
    }
    s->left--;
    *stands_for = s->skipped + 1;
    s->skipped = 0;
    return true;
}
/* number is filled in. page NULL (of an event): nothing happens. */
void recent_put_request(struct recent_page *page, const struct recent_request *request);
void recent_put_event(struct recent_page *page, const struct recent_event *event);

/* Cut to size; what is not printable ASCII becomes '?'. */
void recent_text(char *out, size_t size, struct str text);
/* A target made safe for display: "/items?page=*&q=*", "/a;v=*", "*@host:80"; parameters of a query
 * after the sixteenth, and text beyond size, become "...". */
void recent_mask_target(char *out, size_t size, struct str target);
/* The first characters of a key, at most four and at most half of it, and a hash. */
void recent_mask_key(char *out, size_t size, struct str key, uint64_t hash);

/* ---- readers ---- */
/* The number that the next record gets. */
uint64_t recent_requests_next(const struct recent_page *page);
uint64_t recent_events_next(const struct recent_page *page);
/* Copies records from number *from on, oldest first, at most max; *from becomes the number to go on
 * with. A *from beyond the end, from an earlier run, is taken for the oldest. *lost (may be NULL):
 * records in between that could not be read. */
size_t recent_read_requests(const struct recent_page *page, uint64_t *from,
                            struct recent_request *out, size_t max, uint64_t *lost);
size_t recent_read_events(const struct recent_page *page, uint64_t *from, struct recent_event *out,
                          size_t max, uint64_t *lost);
#endif
