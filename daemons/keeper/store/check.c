/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * check: reads a data.mdb as what it is, bytes in pages, and believes none of them.
 *
 * LMDB trusts its file: a wrong page number is a fault, a wrong free list overwrites live objects
 * later. So a file that was out of our sight is walked here first, with pread() and every bound
 * checked: both meta pages, the tree of every database (page headers, nodes that fill their page
 * without a gap, the order of keys, each page in one place only), the free list (no page that is in
 * use), the checksum of every record and chunk, and that records, index and URLs tell the same
 * story. After a time budget only the structure is looked at; workers verify each
 * record at its first use anyway.
 *
 * The format is that of LMDB 0.9 (MDB_DATA_VERSION 1) on a 64-bit little-endian machine with pages
 * of 4 KiB.
 */
#include "daemons/keeper/keeper.h"
#include "polder/clock.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define PAGE         CACHE_PAGE
#define PAGE_HEAD    16u
#define NODE_HEAD    8u
#define KEY_MAX      511u
#define DEPTH_MAX    16u
#define LMDB_MAGIC   0xBEEFC0DEu
#define LMDB_VERSION 1u
#define NO_PAGE      UINT64_MAX

enum page_flags { PAGE_BRANCH = 0x01, PAGE_LEAF = 0x02, PAGE_OVERFLOW = 0x04, PAGE_META = 0x08 };
enum node_flags { NODE_BIG = 0x01, NODE_SUB = 0x02 };

enum database { DB_FREE, DB_MAIN, DB_OBJ, DB_BODY, DB_IDX, DB_URL, DB_META, DATABASES };
static const char *const names[DATABASES] = {"free list", "main", "obj", "body",
                                             "idx",       "url",  "meta"};

struct page_head {
    uint64_t pgno;
    uint16_t pad, flags;
    uint16_t lower, upper; /* overflow pages: their number, as 32 bits */
};
_Static_assert(sizeof(struct page_head) == PAGE_HEAD, "file format");

struct tree {
    uint32_t pad;
    uint16_t flags, depth;
    uint64_t branch_pages, leaf_pages, overflow_pages, entries, root;
};
_Static_assert(sizeof(struct tree) == 48, "file format");

struct meta {
    uint32_t magic, version;
    uint64_t address, map_bytes;
    struct tree tree[2]; /* free list, main */
    uint64_t last_page, txn_id;
};

struct check {
    int fd;
    uint64_t pages; /* in use: last_page + 1 */
    uint64_t txn_id;
    uint8_t *seen; /* a bit a page */
    struct check_result *result;
    uint64_t until_ms;
    bool hasty;
    void (*heartbeat)(void *);
    void *arg;
    unsigned looked;
    /* Sums of hashes over all objects, as records tell them and as `idx` and `url` do. */
    uint64_t sum_records, sum_index, sum_record_urls, sum_urls;
    struct tree sub[DATABASES];
    bool has[DATABASES];
    uint32_t n_names;
};

/* A walk along one tree. */
struct walk {
    struct check *c;
    enum database db;
    struct tree tree;
    uint64_t branch, leaf, overflow, entries; /* counted */
    uint8_t last[KEY_MAX];                    /* the next key must be larger */
    size_t last_len;
    bool any, inclusive; /* inclusive: or equal, for `last` is a separator */
    char *large;         /* values on overflow pages */
    size_t large_size;
};

static int __attribute__((format(printf, 2, 3))) wrong(struct check *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->result->why, sizeof c->result->why, fmt, ap);
    va_end(ap);
    return -EPROTO;
}

static int read_pages(struct check *c, uint64_t pgno, void *to, size_t bytes)
{
    size_t done = 0;
    while (done < bytes) {
        const ssize_t n =
            pread(c->fd, (char *)to + done, bytes - done, (off_t)(pgno * PAGE + done));
        if (n <= 0)
            return n < 0 ? -errno : wrong(c, "the file is cut short");
        done += (size_t)n;
    }
    if (++c->looked % 256 == 0) {
        c->heartbeat(c->arg);
        if (clock_mono_ms() > c->until_ms)
            c->hasty = true;
    }
    return 0;
}

/* Each page has one place. */
static int claim(struct check *c, enum database db, uint64_t pgno, uint64_t n)
{
    if (pgno < 2 || n == 0 || n > c->pages || pgno > c->pages - n)
        return wrong(c, "%s: page %llu is out of range", names[db], (unsigned long long)pgno);
    for (uint64_t p = pgno; p < pgno + n; p++) {
        const uint8_t bit = (uint8_t)(1u << p % 8);
        if (c->seen[p / 8] & bit)
            return wrong(c, "%s: page %llu is used twice", names[db], (unsigned long long)p);
        c->seen[p / 8] |= bit;
    }
    return 0;
}

/* ---- values ---- */

/* What record and index have in common. */
static uint64_t object_hash(const struct cache_key *key, uint64_t obj_id, uint32_t slot,
                            uint32_t url_len)
{
    struct {
        struct cache_key key;
        uint64_t obj_id;
        uint32_t slot, url_len;
    } common = {*key, obj_id, slot, url_len};
    return XXH3_64bits(&common, sizeof common);
}

static uint64_t url_hash(const uint8_t *url_key, size_t len, const void *key)
{
    uint64_t seed;
    memcpy(&seed, key, sizeof seed);
    return XXH3_64bits_withSeed(url_key, len, seed);
}

static int value_obj(struct walk *w, const uint8_t *key, size_t key_len, const void *value,
                     size_t len)
{
    const struct cache_record *r = value;
    if (key_len != sizeof r->key || !cache_record_sound(value, len) ||
        memcmp(key, r->key.hash, key_len) != 0)
        return wrong(w->c, "a record does not match its checksum");
    uint8_t url_key[STORE_URL_KEY];
    const size_t n = store_url_key((const char *)(r + 1), r->url_len, r->obj_id, url_key);
    w->c->sum_records += object_hash(&r->key, r->obj_id, r->slot, r->url_len);
    w->c->sum_record_urls += url_hash(url_key, n, key);
    if (r->fetch_seq > w->c->result->newest_fetch_seq)
        w->c->result->newest_fetch_seq = r->fetch_seq;
    return 0;
}

static int value_index(struct walk *w, const uint8_t *key, size_t key_len, const void *value,
                       size_t len)
{
    struct cache_index index;
    if (key_len != 8 || len != sizeof index)
        return wrong(w->c, "idx: an entry has a wrong size");
    memcpy(&index, value, sizeof index);
    const uint64_t id = cache_id_of(key);
    if (index.check != cache_index_check(&index, id))
        return wrong(w->c, "an entry of the index does not match its checksum");
    w->c->sum_index += object_hash(&index.key, id, index.slot, index.url_len);
    return 0;
}

static int value_url(struct walk *w, const uint8_t *key, size_t key_len, const void *value,
                     size_t len)
{
    if (key_len <= 8 || key_len > STORE_URL_KEY || len != sizeof(struct cache_key))
        return wrong(w->c, "url: an entry has a wrong size");
    w->c->sum_urls += url_hash(key, key_len, value);
    return 0;
}

static int value_body(struct walk *w, const uint8_t *key, size_t key_len, const void *value,
                      size_t len)
{
    uint64_t checksum;
    if (key_len != CACHE_CHUNK_KEY || len <= sizeof checksum || len > CACHE_VALUE_MAX)
        return wrong(w->c, "a chunk of a body has a wrong size");
    const uint32_t n =
        (uint32_t)key[8] << 24 | (uint32_t)key[9] << 16 | (uint32_t)key[10] << 8 | key[11];
    memcpy(&checksum, value, sizeof checksum);
    if (cache_chunk_checksum(cache_id_of(key), n, (const char *)value + sizeof checksum,
                             len - sizeof checksum) != checksum)
        return wrong(w->c, "a chunk of a body does not match its checksum");
    return 0;
}

/* Pages that were freed by one transaction: a count, then page numbers, falling. */
static int value_free(struct walk *w, const uint8_t *key, size_t key_len, const void *value,
                      size_t len)
{
    uint64_t txn_id, n, page, before = UINT64_MAX;
    if (key_len != sizeof txn_id || len < sizeof n)
        return wrong(w->c, "free list: an entry has a wrong size");
    memcpy(&txn_id, key, sizeof txn_id);
    memcpy(&n, value, sizeof n);
    if (txn_id == 0 || txn_id > w->c->txn_id || n > len / sizeof n - 1)
        return wrong(w->c, "free list: an entry is out of range");
    for (uint64_t i = 1; i <= n; i++) {
        memcpy(&page, (const char *)value + i * sizeof page, sizeof page);
        if (page >= before)
            return wrong(w->c, "free list: pages are out of order");
        before = page;
        const int rc = claim(w->c, DB_FREE, page, 1);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int value_main(struct walk *w, const uint8_t *key, size_t key_len, const void *value,
                      size_t len)
{
    struct check *c = w->c;
    if (len != sizeof(struct tree))
        return wrong(c, "main: an entry has a wrong size");
    for (enum database db = DB_OBJ; db < DATABASES; db++)
        if (key_len == strlen(names[db]) && memcmp(key, names[db], key_len) == 0) {
            memcpy(&c->sub[db], value, len);
            c->has[db] = true;
            return 0;
        }
    return wrong(c, "it holds a database that is not ours");
}

static int value_seen(struct walk *w, const uint8_t *key, size_t key_len, const void *value,
                      size_t len)
{
    switch (w->db) {
    case DB_FREE:
        return value_free(w, key, key_len, value, len);
    case DB_MAIN:
        return value_main(w, key, key_len, value, len);
    case DB_OBJ:
        w->c->result->objects++;
        return value_obj(w, key, key_len, value, len);
    case DB_BODY:
        return value_body(w, key, key_len, value, len);
    case DB_IDX:
        return value_index(w, key, key_len, value, len);
    case DB_URL:
        return value_url(w, key, key_len, value, len);
    case DB_META:
        if (key_len != 4 || memcmp(key, "meta", 4) != 0 || len != sizeof w->c->result->meta)
            return wrong(w->c, "it has another format");
        memcpy(&w->c->result->meta, value, len);
        return 0;
    case DATABASES:
        break;
    }
    return 0;
}

/* ---- keys ---- */

static int key_compare(const struct walk *w, const uint8_t *key, size_t len)
{
    if (w->db == DB_FREE) { /* integers as the machine has them */
        uint64_t a, b;
        if (len != sizeof a || w->last_len != sizeof b)
            return -1;
        memcpy(&a, key, sizeof a);
        memcpy(&b, w->last, sizeof b);
        return a < b ? -1 : a > b;
    }
    const int d = memcmp(key, w->last, len < w->last_len ? len : w->last_len);
    if (d != 0)
        return d;
    return len < w->last_len ? -1 : len > w->last_len;
}

static int key_next(struct walk *w, const uint8_t *key, size_t len, bool separator)
{
    if (len == 0 || len > KEY_MAX)
        return wrong(w->c, "%s: a key has a wrong size", names[w->db]);
    const int d = w->any ? key_compare(w, key, len) : 1;
    if (d < 0 || (d == 0 && !w->inclusive))
        return wrong(w->c, "%s: keys are out of order", names[w->db]);
    memcpy(w->last, key, len);
    w->last_len = len;
    w->any = true;
    w->inclusive = separator;
    return 0;
}

/* ---- pages ---- */

static int page_head_check(struct walk *w, const struct page_head *h, uint64_t pgno, uint16_t flags)
{
    if (h->pgno != pgno || h->flags != flags)
        return wrong(w->c, "%s: page %llu has a wrong header", names[w->db],
                     (unsigned long long)pgno);
    if (flags == PAGE_OVERFLOW)
        return 0;
    if (h->lower < PAGE_HEAD + 2 || h->lower > h->upper || h->upper > PAGE || h->lower % 2)
        return wrong(w->c, "%s: page %llu has wrong bounds", names[w->db],
                     (unsigned long long)pgno);
    return 0;
}

static int overflow_value(struct walk *w, const uint8_t *key, size_t key_len, uint64_t pgno,
                          size_t len)
{
    const uint64_t n = ((uint64_t)len + PAGE_HEAD + PAGE - 1) / PAGE;
    const bool data = !w->c->hasty || (w->db != DB_OBJ && w->db != DB_BODY);
    const size_t bytes = data ? (size_t)n * PAGE : PAGE_HEAD;
    struct page_head head;
    uint32_t pages;
    int rc = claim(w->c, w->db, pgno, n);
    if (rc < 0)
        return rc;
    if (bytes > w->large_size) {
        char *larger = realloc(w->large, bytes);
        if (!larger)
            return -ENOMEM;
        w->large = larger;
        w->large_size = bytes;
    }
    if ((rc = read_pages(w->c, pgno, w->large, bytes)) < 0)
        return rc;
    memcpy(&head, w->large, sizeof head);
    if ((rc = page_head_check(w, &head, pgno, PAGE_OVERFLOW)) < 0)
        return rc;
    memcpy(&pages, &head.lower, sizeof pages);
    if (pages != n)
        return wrong(w->c, "%s: page %llu has a wrong length", names[w->db],
                     (unsigned long long)pgno);
    w->overflow += n;
    return data ? value_seen(w, key, key_len, w->large + PAGE_HEAD, len) : 0;
}

/* Which half-words of a page its nodes take. */
struct tiles {
    uint8_t taken[PAGE / 16];
    size_t bytes;
};

/* Nodes are rounded up to even lengths, lie side by side, and share nothing. */
static bool tile(struct tiles *t, size_t at, size_t len)
{
    len = (len + 1) & ~(size_t)1;
    if (at + len > PAGE)
        return false;
    for (size_t i = at / 2; i < (at + len) / 2; i++) {
        if (t->taken[i / 8] >> i % 8 & 1)
            return false;
        t->taken[i / 8] = (uint8_t)(t->taken[i / 8] | 1u << i % 8);
    }
    t->bytes += len;
    return true;
}

/* A node of a leaf that starts at `at`. */
static int leaf_node(struct walk *w, const uint8_t *page, size_t at, struct tiles *tiles)
{
    uint16_t part[4]; /* length low, high; flags; key length */
    memcpy(part, page + at, sizeof part);
    const size_t len = (size_t)part[1] << 16 | part[0], key_len = part[3];
    const uint8_t *key = page + at + NODE_HEAD;
    const uint16_t want = w->db == DB_MAIN ? NODE_SUB : 0;
    const size_t value_len = part[2] & NODE_BIG ? sizeof(uint64_t) : len;
    if (value_len > PAGE || !tile(tiles, at, NODE_HEAD + key_len + value_len) ||
        (part[2] & ~NODE_BIG) != want)
        return wrong(w->c, "%s: a node is damaged", names[w->db]);
    int rc = key_next(w, key, key_len, false);
    if (rc < 0)
        return rc;
    w->entries++;
    const uint8_t *value = key + key_len;
    if (part[2] & NODE_BIG) {
        uint64_t pgno;
        memcpy(&pgno, value, sizeof pgno);
        return overflow_value(w, key, key_len, pgno, len);
    }
    return value_seen(w, key, key_len, value, len);
}

static int walk_page(struct walk *w, uint64_t pgno, unsigned depth);

static int branch_node(struct walk *w, const uint8_t *page, size_t at, bool first, unsigned depth,
                       struct tiles *tiles)
{
    uint16_t part[4]; /* page number low, middle, high; key length */
    memcpy(part, page + at, sizeof part);
    const uint64_t child = (uint64_t)part[2] << 32 | (uint64_t)part[1] << 16 | part[0];
    const size_t key_len = part[3];
    if (!tile(tiles, at, NODE_HEAD + key_len))
        return wrong(w->c, "%s: a node is damaged", names[w->db]);
    if (!first) { /* the first one has no key that is looked at */
        const int rc = key_next(w, page + at + NODE_HEAD, key_len, true);
        if (rc < 0)
            return rc;
    }
    return walk_page(w, child, depth - 1);
}

static int walk_page(struct walk *w, uint64_t pgno, unsigned depth)
{
    _Alignas(8) uint8_t page[PAGE];
    struct page_head head;
    struct tiles tiles = {.bytes = 0};
    const bool leaf = depth == 1;
    int rc = claim(w->c, w->db, pgno, 1);
    if (rc < 0 || (rc = read_pages(w->c, pgno, page, PAGE)) < 0)
        return rc;
    memcpy(&head, page, sizeof head);
    if ((rc = page_head_check(w, &head, pgno, leaf ? PAGE_LEAF : PAGE_BRANCH)) < 0)
        return rc;
    const unsigned n = (head.lower - PAGE_HEAD) / 2u;
    if (!leaf && n < 2)
        return wrong(w->c, "%s: a branch has one child", names[w->db]);
    *(leaf ? &w->leaf : &w->branch) += 1;
    for (unsigned i = 0; i < n && rc == 0; i++) {
        uint16_t at;
        memcpy(&at, page + PAGE_HEAD + 2u * i, sizeof at);
        if (at < head.upper || at > PAGE - NODE_HEAD || at % 2)
            return wrong(w->c, "%s: a node is out of its page", names[w->db]);
        rc =
            leaf ? leaf_node(w, page, at, &tiles) : branch_node(w, page, at, i == 0, depth, &tiles);
    }
    if (rc == 0 && tiles.bytes != PAGE - head.upper)
        rc = wrong(w->c, "%s: page %llu has a gap", names[w->db], (unsigned long long)pgno);
    return rc;
}

static int walk_tree(struct check *c, enum database db, const struct tree *tree)
{
    struct walk w = {.c = c, .db = db, .tree = *tree};
    if (tree->root == NO_PAGE)
        return tree->entries == 0 && tree->depth == 0 ? 0 : wrong(c, "%s is damaged", names[db]);
    if (tree->depth == 0 || tree->depth > DEPTH_MAX)
        return wrong(c, "%s is damaged", names[db]);
    int rc = walk_page(&w, tree->root, tree->depth);
    free(w.large);
    if (rc == 0 && (w.entries != tree->entries || w.branch != tree->branch_pages ||
                    w.leaf != tree->leaf_pages || w.overflow != tree->overflow_pages))
        rc = wrong(c, "%s: the counts are wrong", names[db]);
    return rc;
}

/* ---- the file ---- */

static int meta_read(struct check *c, uint64_t pgno, struct meta *meta)
{
    uint8_t page[PAGE];
    struct page_head head;
    const int rc = read_pages(c, pgno, page, PAGE);
    if (rc < 0)
        return rc;
    memcpy(&head, page, sizeof head);
    memcpy(meta, page + PAGE_HEAD, sizeof *meta);
    if (meta->magic != LMDB_MAGIC || head.flags != PAGE_META || head.pgno != pgno)
        return wrong(c, "it is no LMDB database");
    if (meta->version != LMDB_VERSION || meta->tree[0].pad != PAGE)
        return wrong(c, "it has another LMDB format");
    /* MDB_INTEGERKEY alone for the free list, nothing for the main database. */
    if (meta->tree[0].flags != 0x08 || meta->tree[1].flags != 0)
        return wrong(c, "a meta page is damaged");
    return 0;
}

static int walk_all(struct check *c, const struct meta *meta)
{
    int rc = walk_tree(c, DB_MAIN, &meta->tree[1]);
    for (enum database db = DB_OBJ; db < DATABASES && rc == 0; db++) {
        if (!c->has[db])
            return wrong(c, "the database %s is missing", names[db]);
        if (c->sub[db].flags != 0 || c->sub[db].pad != 0)
            return wrong(c, "%s has other flags", names[db]);
        rc = walk_tree(c, db, &c->sub[db]);
    }
    if (rc == 0)
        rc = walk_tree(c, DB_FREE, &meta->tree[0]);
    if (rc == 0 && !c->hasty &&
        (c->sum_records != c->sum_index || c->sum_record_urls != c->sum_urls))
        rc = wrong(c, "records and index do not belong together");
    if (rc == 0 && c->sub[DB_META].entries == 0)
        rc = wrong(c, "it does not say what it is");
    return rc;
}

static int check_open_file(struct check *c)
{
    struct stat st;
    struct meta meta[2];
    if (fstat(c->fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_size < (off_t)(2 * PAGE))
        return wrong(c, "the file is cut short");
    int rc = meta_read(c, 0, &meta[0]);
    if (rc < 0 || (rc = meta_read(c, 1, &meta[1])) < 0)
        return rc;
    const struct meta *m = &meta[meta[0].txn_id < meta[1].txn_id];
    if (m->map_bytes % PAGE || m->last_page < 1 || m->last_page >= m->map_bytes / PAGE)
        return wrong(c, "a meta page is damaged");
    /* map_bytes is that of the last commit: store_cut() may have taken unused pages since. */
    if (m->last_page >= (uint64_t)st.st_size / PAGE)
        return wrong(c, "the file is cut short");
    c->pages = m->last_page + 1;
    c->txn_id = m->txn_id;
    c->result->map_bytes = (uint64_t)st.st_size;
    c->seen = calloc(1, c->pages / 8 + 1);
    if (!c->seen)
        return -ENOMEM;
    rc = walk_all(c, m);
    free(c->seen);
    c->result->whole = !c->hasty;
    return rc;
}

int check_file(const char *dir, unsigned budget_ms, void (*heartbeat)(void *), void *arg,
               struct check_result *result)
{
    char path[PATH_MAX + 16];
    struct check c = {.heartbeat = heartbeat, .arg = arg, .result = result};
    memset(result, 0, sizeof *result);
    c.until_ms = clock_mono_ms() + budget_ms;
    snprintf(path, sizeof path, "%s/data.mdb", dir);
    c.fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (c.fd < 0)
        return -errno;
    const int rc = check_open_file(&c);
    close(c.fd);
    return rc;
}
