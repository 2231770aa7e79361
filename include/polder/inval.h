/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * inval: what has been invalidated, as sequence numbers in shared memory (file-backed: it outlives
 * all processes of a boot, so that no purge is ever forgotten while the cache file remembers).
 *
 * One 64-bit `seq` counts invalidations. A stored object carries the value sampled before its
 * backend request was sent ("fetch_seq"). It is valid iff fetch_seq >= the sequence of the last
 * invalidation of: everything; its URL; each of its tags; any active prefix ban that matches.
 * Issuing one is O(1) and visible to every process at once; deletion is the keeper's, later. Hash
 * collisions only over-invalidate.
 *
 * Writers: control and workers (an unsafe method's answer invalidates), by atomic steps: first
 * seq is taken, then stored into the slot with an atomic maximum. A process killed between the two
 * has not answered yet, so nothing was promised. Soft invalidation uses a second set of words and
 * only ends freshness.
 *
 * A tag has two slots: one under its name, for all origins (the operator's), and one as the group
 * of one origin (RFC 9875 2: what an unsafe method's answer names). A record names both in 32 bits:
 * the first slot, and above it a number of the origin, from which the second is computed.
 */
#ifndef POLDER_INVAL_H
#define POLDER_INVAL_H
#include "polder/shm.h"
#include <stdbool.h>

#define INVAL_SLOTS      (1u << 20) /* generation slots of tags, and as many of URLs */
#define INVAL_BANS       64         /* prefix bans active at once */
#define INVAL_PREFIX_MAX 240

enum inval_state { INVAL_VALID, INVAL_SOFT, INVAL_HARD };

struct inval_page;
size_t inval_page_size(void);
uint64_t inval_page_layout(void);
/* Fills a zeroed segment: random secret and uuid. Called before shm_publish(). */
void inval_page_init(struct inval_page *page);
/* Master, for a page of an earlier run, before any other process uses it. After a crash of the
 * machine its words may be newer on disk than the counter: counting goes on from the largest. */
void inval_page_open(struct inval_page *page);
/* Writes the page to its file; 0 or a negative errno. Keeper, at a clean stop. */
int inval_page_sync(struct inval_page *page);

uint64_t inval_seq(const struct inval_page *page); /* sample before a backend request is sent */
/* The same, with what it counts: true if all that have a number up to *seq can be seen by
 * inval_check(). Occasionally false: another process is in the middle of it. */
bool inval_settled(const struct inval_page *page, uint64_t *seq);
uint32_t inval_url_slot(const struct inval_page *page, const void *url,
                        size_t len); /* host + path + query */
uint32_t inval_tag_slot(const struct inval_page *page, const void *tag, size_t len);
/* The origin's number in the bits above a slot, never 0: or'ed to a tag's slot. Other functions
 * take tag slots with or without it. */
uint32_t inval_origin(const struct inval_page *page, const void *origin, size_t len);
static inline uint32_t inval_slot_alone(uint32_t tag_slot)
{
    return tag_slot & (INVAL_SLOTS - 1);
}
/* 32 random bytes, the secret of all cache keys and slots; fixed for the life of the page */
const uint8_t *inval_secret(const struct inval_page *page);
/* names this history of invalidations; a cache that carries another one must be wiped */
const uint8_t *inval_uuid(const struct inval_page *page);

uint64_t inval_mark_url(struct inval_page *page, const void *url, size_t len, bool soft);
/* The number of the last hard mark of an URL in that slot; 0: none. */
uint64_t inval_url_marked(const struct inval_page *page, uint32_t url_slot);
/* "/path?query" on whatever host. */
uint64_t inval_mark_path(struct inval_page *page, const void *path, size_t len, bool soft);
uint64_t inval_mark_tag(struct inval_page *page, const void *tag, size_t len, bool soft);
/* Of one inval_origin() alone, hard. */
uint64_t inval_mark_group(struct inval_page *page, uint32_t origin, const void *group, size_t len);
uint64_t inval_mark_all(struct inval_page *page, bool soft);
/* The prefix is "host/path…", or "/path…" for all hosts. -EAGAIN: all ban slots are busy;
 * -ENAMETOOLONG. */
int inval_mark_prefix(struct inval_page *page, const char *prefix, size_t len, bool soft,
                      uint64_t *seq);
/* keeper: everything that matched the ban has been deleted (hard) or rewritten (soft) */
void inval_retire_prefix(struct inval_page *page, uint64_t seq);

/* keeper: the active bans one by one, i < INVAL_BANS */
struct inval_ban {
    uint64_t seq;
    bool soft;
    uint32_t len;
    char prefix[INVAL_PREFIX_MAX];
};
bool inval_ban_read(const struct inval_page *page, unsigned i, struct inval_ban *ban);
/* The largest number of a retired ban. A fetch that began before it may have been matched by a ban
 * that is forgotten: the keeper does not store responses with fetch_seq < floor. */
uint64_t inval_ban_floor(const struct inval_page *page);
/* Does the prefix of a ban match "host/path?query"? */
bool inval_prefix_matches(const char *prefix, size_t len, const char *url, size_t url_len);

/* Prefetches the words of this URL, which will soon be read. */
void inval_expect_url(const struct inval_page *page, uint32_t url_slot);
enum inval_state inval_check(const struct inval_page *page, uint64_t fetch_seq, uint32_t url_slot,
                             const uint32_t *tag_slots, size_t n_tags, const char *url,
                             size_t url_len);
/* Which invalidations lie behind the result of inval_check(), for display. */
enum inval_by {
    INVAL_BY_ALL,
    INVAL_BY_URL,
    INVAL_BY_PATH,
    INVAL_BY_TAG,
    INVAL_BY_GROUP,  /* the tag, as a group of the origin */
    INVAL_BY_CHANGE, /* of a negative answer: cache_negative_mark() */
    INVAL_BY_PREFIX
};
struct inval_cause {
    enum inval_by by;
    bool soft;
    uint64_t seq;
    uint64_t when_s; /* Unix seconds; 0: too long ago to be known */
    uint32_t tag;    /* which of the tags */
    uint32_t len;    /* of a ban's prefix */
    char prefix[INVAL_PREFIX_MAX];
};
#define INVAL_CAUSES_MAX 32
/* Fills in at most INVAL_CAUSES_MAX, hard ones first; returns how many. */
unsigned inval_explain(const struct inval_page *page, uint64_t fetch_seq, uint32_t url_slot,
                       const uint32_t *tag_slots, size_t n_tags, const char *url, size_t url_len,
                       struct inval_cause out[INVAL_CAUSES_MAX]);
/* When that number was taken, Unix seconds; 0: too long ago to be known. */
uint64_t inval_when_s(const struct inval_page *page, uint64_t seq);
/* The same for a copy that was taken out of the store when inval_seq() was `since`: also HARD if a
 * ban came and went meanwhile, because whether it matched is not known any more. */
enum inval_state inval_check_held(const struct inval_page *page, uint64_t fetch_seq, uint64_t since,
                                  uint32_t url_slot, const uint32_t *tag_slots, size_t n_tags,
                                  const char *url, size_t url_len);
#endif
