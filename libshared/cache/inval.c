/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * inval: the page of invalidation numbers.
 *
 * A word is only ever raised (atomic maximum), so no order of writers and no death among them can
 * take an invalidation back. Prefix bans are the exception, for their slots are used again. The
 * word `seq` of a slot is its state:
 *
 *   0                    free
 *   OWNED | boot | pid   a process writes the text, or retires the ban
 *   other                active, with that sequence number
 *
 * Marking: own a slot, set its bit in `ban_map`, write the text, take the number, store it. Dying
 * before the last step leaves a slot whose owner is dead (taken over by the next process that needs
 * one) and a bit that costs readers a glance. Retiring: raise `ban_floor`, own it, clear the bit,
 * free it. Readers skip slots that are owned, and never see a bit cleared by a predecessor's
 * retirement, because the slot cannot be owned before that has finished.
 */
#include "polder/inval.h"
#include "polder/clock.h"
#include "polder/random.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>
#include <xxhash.h>

#define OWNED     (UINT64_C(1) << 63)
#define SLOT_MASK (INVAL_SLOTS - 1)
#define SLOT_BITS 20
#define TIMES     4096 /* of the last invalidations */
#define MARKERS   256  /* more than there are processes */
#define TIME_BITS 40

struct inval_words {
    _Atomic uint64_t hard, soft; /* last invalidation of each kind; raised only */
};

struct inval_slot {
    _Alignas(64) _Atomic uint64_t seq; /* the state, see above */
    uint32_t len;
    uint32_t soft;
    char prefix[INVAL_PREFIX_MAX];
};
_Static_assert(sizeof(struct inval_slot) == 256, "four cache lines a ban");

struct inval_page {
    struct shm_header header;
    uint8_t secret[32]; /* constant after inval_page_init() */
    uint8_t uuid[16];
    _Alignas(64) _Atomic uint64_t seq;   /* of the last invalidation; from 1 */
    _Alignas(64) struct inval_words all; /* of everything */
    _Atomic uint64_t ban_map;            /* bit per ban slot that may be active */
    _Atomic uint64_t ban_floor;          /* largest number of a retired ban */
    /* Of the last path that was marked for all hosts: what is younger need not look its path up in
     * `url`, where the paths without a host are marked too. */
    _Atomic uint64_t path;
    /* Of the last group that was marked for one origin: what is younger need not look at the second
     * slots of its tags. */
    _Atomic uint64_t group;
    /* Pids of processes that have taken a number and not stored it yet, or died before that. */
    _Alignas(64) _Atomic uint32_t marking[MARKERS];
    struct inval_slot ban[INVAL_BANS];
    /* When the last ones were issued, by seq % TIMES: low bits of seq << TIME_BITS | Unix seconds.
     * For people only. */
    _Atomic uint64_t time[TIMES];
    _Alignas(64) struct inval_words url[INVAL_SLOTS];
    _Alignas(64) struct inval_words tag[INVAL_SLOTS];
};
_Static_assert(INVAL_BANS == 64, "one bit each in ban_map");
_Static_assert(INVAL_SLOTS == 1u << SLOT_BITS, "slots are masked, and origins stand above");

size_t inval_page_size(void)
{
    return sizeof(struct inval_page);
}

uint64_t inval_page_layout(void)
{
    return (uint64_t)offsetof(struct inval_page, tag) << 24 |
           (uint64_t)offsetof(struct inval_page, ban) << 12 | sizeof(struct inval_slot);
}

static void raise_to(_Atomic uint64_t *word, uint64_t seq)
{
    uint64_t seen = atomic_load(word);
    while (seen < seq && !atomic_compare_exchange_weak(word, &seen, seq)) {
    }
}

void inval_page_init(struct inval_page *page)
{
    random_fill(page->secret, sizeof page->secret);
    random_fill(page->uuid, sizeof page->uuid);
    atomic_store(&page->seq, 1);
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t largest_word(const struct inval_words *words, size_t n)
{
    uint64_t max = 0;
    for (size_t i = 0; i < n; i++)
        max = larger(max, larger(atomic_load_explicit(&words[i].hard, memory_order_relaxed),
                                 atomic_load_explicit(&words[i].soft, memory_order_relaxed)));
    return max;
}

static uint64_t largest_number(const struct inval_page *page)
{
    uint64_t max = larger(atomic_load(&page->ban_floor), atomic_load(&page->path));
    max = larger(max, atomic_load(&page->group));
    for (unsigned i = 0; i < INVAL_BANS; i++) {
        const uint64_t seq = atomic_load(&page->ban[i].seq);
        max = larger(max, seq & OWNED ? 0 : seq);
    }
    max = larger(max, largest_word(&page->all, 1));
    max = larger(max, largest_word(page->url, INVAL_SLOTS));
    return larger(max, largest_word(page->tag, INVAL_SLOTS));
}

void inval_page_open(struct inval_page *page)
{
    uint8_t boot[16];
    for (unsigned i = 0; i < MARKERS; i++)
        atomic_store(&page->marking[i], 0);
    if (shm_boot_id(boot) == 0 && memcmp(boot, page->header.boot_id, sizeof boot) == 0)
        return;
    raise_to(&page->seq, largest_number(page));
    memcpy(page->header.boot_id, boot, sizeof boot);
}

int inval_page_sync(struct inval_page *page)
{
    return msync(page, sizeof *page, MS_SYNC) < 0 ? -errno : 0;
}

uint64_t inval_seq(const struct inval_page *page)
{
    return atomic_load(&page->seq);
}

const uint8_t *inval_secret(const struct inval_page *page)
{
    return page->secret;
}

const uint8_t *inval_uuid(const struct inval_page *page)
{
    return page->uuid;
}

static uint32_t slot_of(const struct inval_page *page, unsigned seed_at, const void *text,
                        size_t len)
{
    uint64_t seed;
    memcpy(&seed, page->secret + seed_at, sizeof seed);
    return (uint32_t)(XXH3_64bits_withSeed(text, len, seed) & SLOT_MASK);
}

uint32_t inval_url_slot(const struct inval_page *page, const void *url, size_t len)
{
    return slot_of(page, 0, url, len);
}

uint32_t inval_tag_slot(const struct inval_page *page, const void *tag, size_t len)
{
    return slot_of(page, 8, tag, len);
}

/* Two that share a number only invalidate each other's groups too. */
uint32_t inval_origin(const struct inval_page *page, const void *origin, size_t len)
{
    const uint32_t max = UINT32_MAX >> SLOT_BITS;
    uint64_t seed;
    memcpy(&seed, page->secret + 16, sizeof seed);
    return (uint32_t)(1 + XXH3_64bits_withSeed(origin, len, seed) % max) << SLOT_BITS;
}

/* Where the tag stands as a group of its origin. Both parts are hashes with the secret already;
 * here they only have to be mixed. */
static uint32_t group_slot(uint32_t tag_slot)
{
    const uint64_t mixed = tag_slot * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(mixed >> (64 - SLOT_BITS));
}

/* ---- marking ---- */

static bool is_dead(uint32_t pid)
{
    return kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

/* The search for a place begins at the process's pid. A process has one mark under way at most. */
static _Atomic uint32_t *marking_begin(struct inval_page *page)
{
    const uint32_t mine = (uint32_t)getpid();
    for (uint32_t i = 0;; i++) {
        _Atomic uint32_t *place = &page->marking[(mine + i) % MARKERS];
        uint32_t pid = atomic_load(place);
        if ((pid == 0 || pid == mine || is_dead(pid)) &&
            atomic_compare_exchange_strong(place, &pid, mine))
            return place;
    }
}

static uint64_t take_number(struct inval_page *page)
{
    const uint64_t seq = atomic_fetch_add(&page->seq, 1) + 1;
    const uint64_t s = clock_real_ms() / 1000 & ((UINT64_C(1) << TIME_BITS) - 1);
    atomic_store_explicit(&page->time[seq % TIMES], seq << TIME_BITS | s, memory_order_relaxed);
    return seq;
}

static uint64_t time_of(const struct inval_page *page, uint64_t seq)
{
    const uint64_t word = atomic_load_explicit(&page->time[seq % TIMES], memory_order_relaxed);
    return word >> TIME_BITS == (seq << TIME_BITS) >> TIME_BITS
               ? word & ((UINT64_C(1) << TIME_BITS) - 1)
               : 0;
}

uint64_t inval_when_s(const struct inval_page *page, uint64_t seq)
{
    return time_of(page, seq);
}

static uint64_t mark(struct inval_page *page, struct inval_words *words, bool soft)
{
    _Atomic uint32_t *place = marking_begin(page);
    const uint64_t seq = take_number(page);
    raise_to(soft ? &words->soft : &words->hard, seq);
    atomic_store(place, 0);
    return seq;
}

uint64_t inval_mark_url(struct inval_page *page, const void *url, size_t len, bool soft)
{
    return mark(page, &page->url[inval_url_slot(page, url, len)], soft);
}

uint64_t inval_url_marked(const struct inval_page *page, uint32_t url_slot)
{
    return atomic_load_explicit(&page->url[url_slot & SLOT_MASK].hard, memory_order_acquire);
}

/* The word comes first: a reader that sees the mark has seen that there is something to look
 * for. */
uint64_t inval_mark_path(struct inval_page *page, const void *path, size_t len, bool soft)
{
    struct inval_words *words = &page->url[inval_url_slot(page, path, len)];
    _Atomic uint32_t *place = marking_begin(page);
    const uint64_t seq = take_number(page);
    raise_to(&page->path, seq);
    raise_to(soft ? &words->soft : &words->hard, seq);
    atomic_store(place, 0);
    return seq;
}

uint64_t inval_mark_tag(struct inval_page *page, const void *tag, size_t len, bool soft)
{
    return mark(page, &page->tag[inval_tag_slot(page, tag, len)], soft);
}

/* In the order of inval_mark_path(). */
uint64_t inval_mark_group(struct inval_page *page, uint32_t origin, const void *group, size_t len)
{
    const uint32_t tag_slot = inval_tag_slot(page, group, len) | origin;
    _Atomic uint32_t *place = marking_begin(page);
    const uint64_t seq = take_number(page);
    raise_to(&page->group, seq);
    raise_to(&page->tag[group_slot(tag_slot)].hard, seq);
    atomic_store(place, 0);
    return seq;
}

uint64_t inval_mark_all(struct inval_page *page, bool soft)
{
    return mark(page, &page->all, soft);
}

/* ---- bans ---- */

/* The owner of a slot while it is written. The page outlives a boot, and pids start again then. */
static uint64_t owner_word(void)
{
    uint8_t boot[16];
    uint64_t mix = 0;
    if (shm_boot_id(boot) == 0)
        memcpy(&mix, boot, sizeof mix);
    return OWNED | (mix & UINT64_C(0x7fffffff)) << 32 | (uint32_t)getpid();
}

static bool owner_is_dead(uint64_t word, uint64_t mine)
{
    if (word == mine)
        return true; /* of an earlier life with this pid: we are here, not there */
    if (word >> 32 != mine >> 32)
        return true; /* of an earlier boot */
    return kill((pid_t)(uint32_t)word, 0) < 0 && errno == ESRCH;
}

static struct inval_slot *ban_own(struct inval_page *page, uint64_t mine)
{
    for (unsigned i = 0; i < INVAL_BANS; i++) {
        struct inval_slot *slot = &page->ban[i];
        uint64_t word = atomic_load(&slot->seq);
        if (word != 0 && !((word & OWNED) && owner_is_dead(word, mine)))
            continue;
        if (atomic_compare_exchange_strong(&slot->seq, &word, mine))
            return slot;
    }
    return NULL;
}

int inval_mark_prefix(struct inval_page *page, const char *prefix, size_t len, bool soft,
                      uint64_t *seq)
{
    if (len > INVAL_PREFIX_MAX)
        return -ENAMETOOLONG;
    if (len == 0) {
        *seq = inval_mark_all(page, soft);
        return 0;
    }
    struct inval_slot *slot = ban_own(page, owner_word());
    if (!slot)
        return -EAGAIN;
    atomic_fetch_or(&page->ban_map, UINT64_C(1) << (slot - page->ban));
    memcpy(slot->prefix, prefix, len);
    slot->len = (uint32_t)len;
    slot->soft = soft;
    _Atomic uint32_t *place = marking_begin(page);
    *seq = take_number(page);
    atomic_store(&slot->seq, *seq);
    atomic_store(place, 0);
    return 0;
}

bool inval_ban_read(const struct inval_page *page, unsigned i, struct inval_ban *ban)
{
    if (i >= INVAL_BANS)
        return false;
    const struct inval_slot *slot = &page->ban[i];
    const uint64_t seq = atomic_load(&slot->seq);
    if (seq == 0 || (seq & OWNED))
        return false;
    const uint32_t len = slot->len;
    ban->seq = seq;
    ban->soft = slot->soft != 0;
    ban->len = len <= INVAL_PREFIX_MAX ? len : INVAL_PREFIX_MAX;
    memcpy(ban->prefix, slot->prefix, ban->len);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load(&slot->seq) == seq;
}

void inval_retire_prefix(struct inval_page *page, uint64_t seq)
{
    for (unsigned i = 0; i < INVAL_BANS; i++) {
        uint64_t word = seq;
        if (atomic_load(&page->ban[i].seq) != seq)
            continue;
        raise_to(&page->ban_floor, seq); /* first: an owned ban is not seen any more */
        if (!atomic_compare_exchange_strong(&page->ban[i].seq, &word, owner_word()))
            continue;
        atomic_fetch_and(&page->ban_map, ~(UINT64_C(1) << i));
        atomic_store(&page->ban[i].seq, 0);
        return;
    }
}

uint64_t inval_ban_floor(const struct inval_page *page)
{
    return atomic_load(&page->ban_floor);
}

bool inval_prefix_matches(const char *prefix, size_t len, const char *url, size_t url_len)
{
    if (len && prefix[0] == '/') { /* of all hosts */
        const char *path = memchr(url, '/', url_len);
        if (!path)
            return false;
        url_len -= (size_t)(path - url);
        url = path;
    }
    return len <= url_len && memcmp(prefix, url, len) == 0;
}

/* ---- checking ---- */

static void look(const struct inval_words *words, uint64_t fetch_seq, enum inval_state *state)
{
    if (atomic_load_explicit(&words->hard, memory_order_acquire) > fetch_seq)
        *state = INVAL_HARD;
    else if (atomic_load_explicit(&words->soft, memory_order_acquire) > fetch_seq &&
             *state == INVAL_VALID)
        *state = INVAL_SOFT;
}

/* The text is read while it may be used again for another ban: then the number has changed, and
 * whether the old ban matched is of no interest any more: it was retired because nothing that it
 * matched is left. */
static void look_bans(const struct inval_page *page, uint64_t map, uint64_t fetch_seq,
                      const char *url, size_t url_len, enum inval_state *state)
{
    for (; map; map &= map - 1) {
        const struct inval_slot *slot = &page->ban[__builtin_ctzll(map)];
        const uint64_t seq = atomic_load_explicit(&slot->seq, memory_order_acquire);
        if (seq <= fetch_seq || (seq & OWNED))
            continue;
        const uint32_t len = slot->len;
        if (len > INVAL_PREFIX_MAX || !inval_prefix_matches(slot->prefix, len, url, url_len))
            continue;
        if (!slot->soft)
            *state = INVAL_HARD;
        else if (*state == INVAL_VALID)
            *state = INVAL_SOFT;
    }
}

static void look_path(const struct inval_page *page, uint64_t fetch_seq, const char *url,
                      size_t url_len, enum inval_state *state)
{
    const char *path = memchr(url, '/', url_len);
    if (path)
        look(&page->url[inval_url_slot(page, path, url_len - (size_t)(path - url))], fetch_seq,
             state);
}

static void look_groups(const struct inval_page *page, uint64_t fetch_seq,
                        const uint32_t *tag_slots, size_t n_tags, enum inval_state *state)
{
    for (size_t i = 0; i < n_tags; i++)
        if (tag_slots[i] & ~SLOT_MASK)
            look(&page->tag[group_slot(tag_slots[i])], fetch_seq, state);
}

void inval_expect_url(const struct inval_page *page, uint32_t url_slot)
{
    __builtin_prefetch((const void *)&page->url[url_slot & SLOT_MASK]);
}

enum inval_state inval_check(const struct inval_page *page, uint64_t fetch_seq, uint32_t url_slot,
                             const uint32_t *tag_slots, size_t n_tags, const char *url,
                             size_t url_len)
{
    enum inval_state state = INVAL_VALID;
    look(&page->all, fetch_seq, &state);
    look(&page->url[url_slot & SLOT_MASK], fetch_seq, &state);
    for (size_t i = 0; i < n_tags; i++)
        look(&page->tag[tag_slots[i] & SLOT_MASK], fetch_seq, &state);
    if (n_tags && atomic_load_explicit(&page->group, memory_order_acquire) > fetch_seq)
        look_groups(page, fetch_seq, tag_slots, n_tags, &state);
    if (atomic_load_explicit(&page->path, memory_order_acquire) > fetch_seq)
        look_path(page, fetch_seq, url, url_len, &state);
    const uint64_t map = atomic_load_explicit(&page->ban_map, memory_order_acquire);
    if (map)
        look_bans(page, map, fetch_seq, url, url_len, &state);
    return state;
}

bool inval_settled(const struct inval_page *page, uint64_t *seq)
{
    *seq = inval_seq(page); /* before the others are looked at */
    for (unsigned i = 0; i < MARKERS; i++) {
        const uint32_t pid = atomic_load(&page->marking[i]);
        if (pid != 0 && !is_dead(pid))
            return false;
    }
    return true;
}

enum inval_state inval_check_held(const struct inval_page *page, uint64_t fetch_seq, uint64_t since,
                                  uint32_t url_slot, const uint32_t *tag_slots, size_t n_tags,
                                  const char *url, size_t url_len)
{
    const enum inval_state state =
        inval_check(page, fetch_seq, url_slot, tag_slots, n_tags, url, url_len);
    return inval_ban_floor(page) > since ? INVAL_HARD : state; /* in this order */
}

/* ---- explaining ---- */

struct causes {
    const struct inval_page *page;
    uint64_t fetch_seq;
    struct inval_cause *out;
    unsigned n;
    bool soft; /* which ones are looked for now */
};

static struct inval_cause *cause_add(struct causes *c, enum inval_by by, uint64_t seq)
{
    if (c->n == INVAL_CAUSES_MAX)
        return NULL;
    struct inval_cause *one = &c->out[c->n++];
    *one = (struct inval_cause){
        .by = by, .soft = c->soft, .seq = seq, .when_s = time_of(c->page, seq)};
    return one;
}

static void explain_words(struct causes *c, const struct inval_words *words, enum inval_by by,
                          uint32_t tag)
{
    const uint64_t seq = atomic_load(c->soft ? &words->soft : &words->hard);
    struct inval_cause *one = seq > c->fetch_seq ? cause_add(c, by, seq) : NULL;
    if (one)
        one->tag = tag;
}

static void explain_tag_slot(struct causes *c, uint32_t tag_slot, uint32_t tag)
{
    explain_words(c, &c->page->tag[tag_slot & SLOT_MASK], INVAL_BY_TAG, tag);
    if (tag_slot & ~SLOT_MASK)
        explain_words(c, &c->page->tag[group_slot(tag_slot)], INVAL_BY_GROUP, tag);
}

static void explain_bans(struct causes *c, const char *url, size_t url_len)
{
    struct inval_ban ban;
    for (unsigned i = 0; i < INVAL_BANS; i++) {
        if (!inval_ban_read(c->page, i, &ban) || ban.seq <= c->fetch_seq || ban.soft != c->soft ||
            !inval_prefix_matches(ban.prefix, ban.len, url, url_len))
            continue;
        struct inval_cause *one = cause_add(c, INVAL_BY_PREFIX, ban.seq);
        if (!one)
            return;
        one->len = ban.len;
        memcpy(one->prefix, ban.prefix, ban.len);
    }
}

static const struct inval_words *words_of_path(const struct inval_page *page, const char *url,
                                               size_t url_len)
{
    const char *path = memchr(url, '/', url_len);
    return path ? &page->url[inval_url_slot(page, path, url_len - (size_t)(path - url))] : NULL;
}

unsigned inval_explain(const struct inval_page *page, uint64_t fetch_seq, uint32_t url_slot,
                       const uint32_t *tag_slots, size_t n_tags, const char *url, size_t url_len,
                       struct inval_cause out[INVAL_CAUSES_MAX])
{
    struct causes c = {page, fetch_seq, out, 0, false};
    const struct inval_words *path = words_of_path(page, url, url_len);
    for (unsigned round = 0; round < 2; round++) {
        c.soft = round == 1;
        explain_words(&c, &page->all, INVAL_BY_ALL, 0);
        explain_words(&c, &page->url[url_slot & SLOT_MASK], INVAL_BY_URL, 0);
        if (path)
            explain_words(&c, path, INVAL_BY_PATH, 0);
        for (size_t i = 0; i < n_tags; i++)
            explain_tag_slot(&c, tag_slots[i], (uint32_t)i);
        explain_bans(&c, url, url_len);
    }
    return c.n;
}
