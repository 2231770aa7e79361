/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet: what this host knows of the hosts that share a store with it (section fleet of the
 * configuration), in a page that outlives all processes of a boot.
 *
 * Invalidations of all hosts stand in one log, numbered from 1 without gaps. control reads it and
 * marks each in this host's own page (inval.h) before it moves `applied` on. So what is applied
 * twice does no harm, and what has not been applied is applied after any death.
 *
 * A host has a lease: control renews it in the store while it follows the log, and a host that
 * invalidates waits for all hosts with a lease. `until_ms` is when the lease ends, counted from
 * before the renewal was sent, so this host knows that it is cut off before others stop to wait for
 * it. Workers compare it with their own clock: they need no control for that.
 *
 * The numbers mean something only within one history of the store: `epoch` names it, and says when it
 * began. It ends with the data, and with the server's run: a replica that becomes the master may lack
 * what hosts were told. Another epoch, or a number that is not there any more, means that
 * invalidations may have been missed; then all that is stored here is invalidated.
 */
#ifndef POLDER_FLEET_H
#define POLDER_FLEET_H
#include "polder/cache.h"
#include "polder/fetch_lock.h"
#include "polder/shm.h"
#include <stdbool.h>

#define FLEET_LEASE_MS  3000 /* the longest that an invalidation waits for a host that is gone */
#define FLEET_CAUSES    4096 /* of the last invalidations by other hosts it is known who */
#define FLEET_HOST_SIZE 64
#define FLEET_MARKS     65536 /* of the last entries it is known what came before them here */

/* Any process reads; control writes, one word at a time. */
struct fleet_cause {
    _Atomic uint64_t seq; /* of inval.h here; stored last, 0 while the rest is written */
    _Atomic uint64_t id;  /* of the log */
    char host[FLEET_HOST_SIZE];
};
struct fleet_page {
    struct shm_header header;
    /* Read by workers at each lookup of a host in a fleet. */
    _Alignas(64) _Atomic uint64_t until_ms; /* mono; 0: there is no lease */
    /* of this host (fleet_grants.h), as the store said last, and 1 more; 0: never */
    _Atomic uint32_t limits_share;
    _Atomic uint32_t closed; /* 1: no process uses it, and inval.page is on disk as it was then */
    _Alignas(64) _Atomic uint64_t applied; /* number of the last entry that is marked here */
    _Atomic uint64_t epoch;                /* 0: none yet */
    _Atomic uint64_t remembered; /* entries up to this one are older than all that is stored here */
    _Atomic uint64_t unsent;   /* 1: there may be invalidations of this host that no other knows */
    _Atomic uint64_t overflow; /* 1: a worker had no room in its ring */
    _Atomic uint64_t instance; /* random; of this page and boot: tells hosts of one name apart */
    _Atomic uint64_t file;     /* where it was made: a copy of a state directory is another host */
    _Atomic uint64_t since_ms; /* mono; of being connected, or cut off */
    _Atomic uint64_t causes;   /* how many were written */
    struct fleet_cause cause[FLEET_CAUSES];
    /* fleet_marks.h: entry N in place N % FLEET_MARKS, of all that are larger than marks_from */
    _Atomic uint64_t marks_from;
    _Atomic uint64_t mark[FLEET_MARKS];
    /* The shared cache. 1: the store answers in time; a worker that has waited in vain stores 0,
     * control 1 when it has seen a timely answer. */
    _Alignas(64) _Atomic uint64_t shared_is_quick;
    _Atomic uint64_t shared_late; /* requests that have waited in vain */
    /* control's answer to the request that holds the permit of that slot: fleet_share_word() */
    _Atomic uint64_t shared_answer[FETCH_LOCK_SLOTS];
};

/* What the request with that permit is to do; the store has what it wants if its permit is
 * released. */
enum fleet_share_answer {
    FLEET_SHARE_FETCH = 1, /* it goes to the backend */
    FLEET_SHARE_COMES = 2, /* the store had it, and it is with the keeper: it waits on */
    FLEET_SHARE_WAIT = 3,  /* another host fetches: it waits on */
};
static inline uint64_t fleet_share_word(const struct fetch_permit *permit,
                                        enum fleet_share_answer answer)
{
    return (permit->word & ~UINT64_C(3)) | (uint64_t)answer;
}

uint64_t fleet_page_layout(void);
/* Master, before any other process uses it. reused: it is of an earlier run; what was not closed before
 * another boot, or was copied from another file, is forgotten. file: names the file it is in. */
void fleet_page_open(struct fleet_page *page, bool reused, uint64_t file);
/* Master, when no other process uses it any more, and inval.page is on disk. 0, or a negative errno. */
int fleet_page_close(struct fleet_page *page);

static inline bool fleet_is_connected(const struct fleet_page *page, uint64_t now_ms)
{
    return atomic_load_explicit(&page->until_ms, memory_order_acquire) > now_ms;
}

/* control: another host's entry has that number here. */
void fleet_note_cause(struct fleet_page *page, uint64_t seq, uint64_t id, const char *host);
/* Which host lies behind the invalidation with that number; false: this one, or it is too long
 * ago. */
bool fleet_cause_of(const struct fleet_page *page, uint64_t seq, uint64_t *id,
                    char host[FLEET_HOST_SIZE]);

/* What workers note in their ring (shared_fleet_ring()), in records of type RING_SWEEP: the kind is
 * their flags, the text their payload. */
enum fleet_kind {
    FLEET_URL,    /* "host/path?query" */
    FLEET_PATH,   /* "/path?query" on whatever host */
    FLEET_TAG,    /* the operator's, of all origins */
    FLEET_PREFIX, /* "host/path", "/path" */
    FLEET_ALL,    /* no text */
    FLEET_CHANGE, /* an unsafe method has changed that URL: negative answers end too */
    FLEET_GROUP,  /* "origin\ngroup": a tag of one origin */
    FLEET_TEXT,   /* for the clients of all WebSockets */
    FLEET_KINDS
};

/* What else they note there, for the shared cache (control's fleet_share.h); the kind is in the
 * flags too. The permit of the record is that under which the store was asked. */
enum fleet_share_note {
    FLEET_SHARE_ASK = 64, /* struct fleet_ask, URL, partition, the text that selects the variant */
    FLEET_SHARE_END,      /* struct fleet_end: the fetch brought nothing to share */
    FLEET_SHARE_CHUNK,    /* uint64_t: where it begins; CACHE_CHUNK bytes of a body, or the rest of
                             it; the record's stream tells bodies of a worker apart */
    FLEET_SHARE_PUT,      /* struct fleet_put, record, url, vary, head, body unless it came in
                             chunks, partition, origin */
};
#define FLEET_NOTES_LAYOUT 4
#define FLEET_BODY_MAX     (256u << 10)
struct fleet_ask {
    struct cache_key key; /* of the URL, here */
    uint64_t newer_ms;    /* real; what is here is valid, and fresh until then; 0: nothing is */
    uint32_t rules;       /* identity_rules_number() */
    uint32_t worker;
    uint32_t wait_ms;     /* the longest for another host's fetch */
    uint32_t interval_ms; /* of a poll: so long it is of use, however short its lifetime */
    uint32_t has_stale;   /* 1: there is something here that can be validated */
    uint32_t url_len, partition_len;
    uint32_t looks; /* 1: it takes what is there, and claims nothing */
};
struct fleet_end {
    uint32_t nothing_ms; /* so long other hosts need not wait for each other */
    uint32_t pad_;
};
struct fleet_put {
    uint64_t epoch, applied; /* when the request was sent to the backend */
    uint32_t interval_ms;    /* as above */
    uint32_t marks;          /* 1: its URL varies, by the names in its vary text */
    uint32_t partition_len, origin_len;
};
#endif
