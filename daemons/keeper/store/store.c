/* SPDX-License-Identifier: BSD-2-Clause */
/* store: opening, growing and closing the environment; transactions; readers; private tables. */
#include "daemons/keeper/store/store.h"
#include "polder/clock.h"
#include "polder/log.h"
#include <lmdb.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MAP_SLACK     ((uint64_t)64 << 20)
#define MAP_STEP      ((uint64_t)1 << 20)
#define MAP_FLOOR     ((uint64_t)4 << 20)
#define NODE_MAX      2038u /* me_nodemax of 4 KiB pages: a larger node moves to pages of its own */
#define OBJ_NODE_HEAD 24u   /* node header and a key of 16 bytes */

_Static_assert(sizeof(struct cache_index) % 8 == 0, "index values keep their page aligned");

/* ---- sizes ---- */

/* What a node of a tree takes when keys come and go at random: pages are two thirds full. */
static uint64_t tree_bytes(size_t node)
{
    return node + node * 6 / 10;
}

static uint64_t overflow_bytes(size_t value_len)
{
    return (value_len + 16 + CACHE_PAGE - 1) / CACHE_PAGE * CACHE_PAGE;
}

static uint32_t units_for(uint64_t bytes)
{
    return (uint32_t)((bytes + STORE_UNIT - 1) / STORE_UNIT);
}

/* Measured: 1000 B take 2578, 2000 take 3218; from about 2 KiB on a value has pages of its own. */
uint32_t store_units_of_record(size_t len, uint32_t url_len)
{
    const size_t node = (len + 7) / 8 * 8 + OBJ_NODE_HEAD;
    const size_t cut = url_len < STORE_URL_CUT ? url_len : STORE_URL_CUT;
    const uint64_t index = tree_bytes(8 + 8 + sizeof(struct cache_index) + 2);
    const uint64_t url = tree_bytes(8 + cut + 8 + sizeof(struct cache_key) + 2);
    uint64_t record;
    if (node > NODE_MAX)
        record = overflow_bytes(node - OBJ_NODE_HEAD) + tree_bytes(OBJ_NODE_HEAD + 8 + 2);
    else
        record = node * 5 / 2 < CACHE_PAGE ? node * 5 / 2 : CACHE_PAGE;
    return units_for(record + index + url);
}

uint32_t store_units_of_chunk(size_t len)
{
    const size_t value = len + sizeof(uint64_t), node = 8 + CACHE_CHUNK_KEY + value;
    if (node > NODE_MAX)
        return units_for(overflow_bytes(value) + tree_bytes(8 + CACHE_CHUNK_KEY + 8 + 2));
    return units_for(tree_bytes(node));
}

uint64_t store_map_for(uint64_t max_bytes)
{
    const uint64_t max = (uint64_t)1 << 46;
    const uint64_t bytes = max_bytes < MAP_FLOOR ? MAP_FLOOR : max_bytes < max ? max_bytes : max;
    return bytes / MAP_STEP * MAP_STEP;
}

/* A part of the map is what deleted pages take until no reader is older than their deletion, and
 * what trees lose to pages that are not full. */
uint64_t store_units_for(uint64_t map_bytes)
{
    const uint64_t slack = map_bytes / 4 < MAP_SLACK ? map_bytes / 4 : MAP_SLACK;
    return (map_bytes - slack) / 5 * 4 / STORE_UNIT;
}

uint64_t store_units_allowed(const struct store *s)
{
    return s->max_units < s->fits_units ? s->max_units : s->fits_units;
}

/* Half of what there is room for: a body of a quarter of max_bytes, which max_body is at most, fits
 * with all that it needs. */
uint64_t store_object_units(const struct store *s)
{
    return store_units_allowed(s) / 2;
}

uint64_t store_body_max(const struct store *s)
{
    const uint64_t bytes = store_object_units(s) * STORE_UNIT, spare = CACHE_VALUE_MAX * 2;
    return bytes > spare ? (bytes - spare) / 65 * 64 : 0;
}

bool store_is_over(const struct store *s)
{
    return store_items(s) > s->max_items || s->n_personal > store_personal_allowed(s) ||
           s->live_units > store_units_allowed(s);
}

/* ---- private tables ---- */

static void *zero_pages(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

int store_init(struct store *s)
{
    s->items = zero_pages(CACHE_SLOTS_MAX * sizeof *s->items);
    s->free_slots = zero_pages(CACHE_SLOTS_MAX * sizeof *s->free_slots);
    s->evict = evict_new(CACHE_SLOTS_MAX, s->ref);
    s->personal = evict_new(CACHE_SLOTS_MAX, s->ref);
    s->gone = removals_new();
    if (s->items && s->free_slots && s->evict && s->personal)
        return 0;
    store_fini(s);
    return -ENOMEM;
}

void store_fini(struct store *s)
{
    if (s->items)
        munmap(s->items, CACHE_SLOTS_MAX * sizeof *s->items);
    if (s->free_slots)
        munmap(s->free_slots, CACHE_SLOTS_MAX * sizeof *s->free_slots);
    evict_free(s->evict);
    evict_free(s->personal);
    removals_free(s->gone);
    free(s->freed);
    s->items = NULL;
    s->free_slots = NULL;
    s->evict = s->personal = NULL;
    s->gone = NULL;
    s->freed = NULL;
}

/* ---- opening ---- */

/* A real attempt would fill the disk for all its users. */
static bool disk_has(int fd, const struct stat *st, uint64_t bytes)
{
    struct statvfs disk;
    const uint64_t has = (uint64_t)st->st_blocks * 512;
    if (bytes <= has || fstatvfs(fd, &disk) < 0 || disk.f_blocks == 0)
        return true;
    return (bytes - has) / disk.f_frsize < disk.f_bavail;
}

/* Real blocks, so that a full disk is an error here and not a SIGBUS later. */
static int file_reserve(int fd, uint64_t bytes)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return errno;
    if (!disk_has(fd, &st, bytes))
        return ENOSPC;
    if (fallocate(fd, 0, 0, (off_t)bytes) == 0)
        return 0;
    const int rc = errno;
    if (rc != EOPNOTSUPP && rc != ENOSYS) /* it keeps what it got before it failed */
        return (uint64_t)st.st_size >= bytes || ftruncate(fd, st.st_size) == 0 ? rc : errno;
    log_warning("cache: the file system of the store cannot reserve space; a full disk will cost "
                "the whole store");
    return (uint64_t)st.st_size >= bytes || ftruncate(fd, (off_t)bytes) == 0 ? 0 : errno;
}

/* 0440 while a keeper has it open: workers, which read it in place and run as the same user, cannot
 * open it for writing (nor change its mode: sandbox.h). */
#define DATA_MODE_SERVING 0440
#define DATA_MODE_OPENING 0600

static int existing_reserve(const char *dir, uint64_t bytes)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/data.mdb", dir);
    if (chmod(path, DATA_MODE_OPENING) < 0)
        return errno;
    const int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno;
    const int rc = file_reserve(fd, bytes);
    close(fd);
    return rc;
}

/* LMDB makes lock.mdb sparse and writes it through a map: so its blocks are there before. Opening
 * it is allowed only here, where this process has no lock on it that closing it would drop. The
 * size is what LMDB gives it: a cache line a reader, and two before. */
static int locks_reserve(const char *dir)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/lock.mdb", dir);
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return errno;
    const int rc = posix_fallocate(fd, 0, (CACHE_READERS + 2) * 64);
    close(fd);
    return rc;
}

static int dbis_open(struct store *s)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, 0, &txn);
    if (rc != 0)
        return rc;
    if ((rc = mdb_dbi_open(txn, "obj", MDB_CREATE, &s->obj)) != 0 ||
        (rc = mdb_dbi_open(txn, "body", MDB_CREATE, &s->body)) != 0 ||
        (rc = mdb_dbi_open(txn, "idx", MDB_CREATE, &s->idx)) != 0 ||
        (rc = mdb_dbi_open(txn, "url", MDB_CREATE, &s->url)) != 0 ||
        (rc = mdb_dbi_open(txn, "meta", MDB_CREATE, &s->meta)) != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

static int env_open(struct store *s, enum store_open_mode mode, const char **what)
{
    int rc = 0, fd;
    *what = "reserve space for";
    if ((rc = locks_reserve(s->dir)) != 0)
        return rc;
    if (mode == STORE_EXISTING && (rc = existing_reserve(s->dir, s->map_bytes)) != 0)
        return rc;
    *what = "open";
    if ((rc = mdb_env_create(&s->env)) != 0)
        return rc;
    if ((rc = mdb_env_set_mapsize(s->env, s->map_bytes)) != 0 ||
        (rc = mdb_env_set_maxdbs(s->env, CACHE_DBS)) != 0 ||
        (rc = mdb_env_set_maxreaders(s->env, CACHE_READERS)) != 0 ||
        (rc = mdb_env_open(s->env, s->dir, MDB_WRITEMAP | MDB_NOSYNC | MDB_NOTLS,
                           DATA_MODE_OPENING)) != 0 ||
        (rc = mdb_env_get_fd(s->env, &fd)) != 0)
        return rc;
    *what = "reserve space for";
    if (mode == STORE_NEW && (rc = file_reserve(fd, s->map_bytes)) != 0)
        return rc;
    *what = "open the databases of";
    if ((rc = dbis_open(s)) != 0)
        return rc;
    return fchmod(fd, DATA_MODE_SERVING) < 0 ? errno : 0;
}

int store_open(struct store *s, uint64_t epoch, const char *dir, uint64_t map_bytes,
               enum store_open_mode mode, const char **what)
{
    snprintf(s->dir, sizeof s->dir, "%s", dir);
    s->epoch = epoch;
    s->map_bytes = map_bytes;
    s->fits_units = store_units_for(map_bytes);
    const int rc = env_open(s, mode, what);
    if (rc != 0) {
        if (s->env)
            mdb_env_close(s->env);
        s->env = NULL;
        return rc;
    }
    store_readers_bury(s);
    store_clear_tables(s);
    return 0;
}

void store_close(struct store *s, bool sync)
{
    if (!s->env)
        return;
    store_cancel(s);
    if (sync)
        store_sync(s);
    mdb_env_close(s->env);
    s->env = NULL;
    s->epoch = 0;
    store_clear_tables(s);
}

int store_grow(struct store *s, uint64_t map_bytes)
{
    int fd, rc;
    if ((rc = mdb_env_get_fd(s->env, &fd)) != 0 || (rc = file_reserve(fd, map_bytes)) != 0)
        return rc;
    if ((rc = mdb_env_set_mapsize(s->env, map_bytes)) != 0)
        return rc;
    s->map_bytes = map_bytes;
    s->fits_units = store_units_for(map_bytes);
    return 0;
}

bool store_can_cut(const struct store *s, uint64_t *map_bytes)
{
    MDB_envinfo info;
    if (*map_bytes >= s->map_bytes || mdb_env_info(s->env, &info) != 0)
        return false;
    const uint64_t used = ((uint64_t)info.me_last_pgno + 1) * CACHE_PAGE;
    if (used > *map_bytes)
        *map_bytes = (used + MAP_STEP - 1) / MAP_STEP * MAP_STEP;
    return *map_bytes < s->map_bytes;
}

void store_cut(struct store *s, uint64_t map_bytes)
{
    int fd;
    if (mdb_env_get_fd(s->env, &fd) != 0 || mdb_env_set_mapsize(s->env, map_bytes) != 0)
        return;
    s->map_bytes = map_bytes;
    s->fits_units = store_units_for(map_bytes);
    if (ftruncate(fd, (off_t)map_bytes) < 0)
        log_warning("cache: cannot give back the end of %s/data.mdb: %s", s->dir, strerror(errno));
}

/* ---- meta ---- */

int store_meta_read(struct store *s, struct store_meta *meta)
{
    MDB_txn *txn;
    MDB_val k = {4, (void *)(uintptr_t) "meta"}, v;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return rc;
    rc = mdb_get(txn, s->meta, &k, &v);
    if (rc == 0 && v.mv_size != sizeof *meta)
        rc = MDB_CORRUPTED;
    if (rc == 0)
        memcpy(meta, v.mv_data, sizeof *meta);
    mdb_txn_abort(txn);
    return rc;
}

int store_meta_write(struct store *s, const struct store_meta *meta)
{
    MDB_val k = {4, (void *)(uintptr_t) "meta"}, v = {sizeof *meta, (void *)(uintptr_t)meta};
    return mdb_put(s->txn, s->meta, &k, &v, 0);
}

/* ---- transactions ---- */

int store_begin(struct store *s)
{
    return mdb_txn_begin(s->env, NULL, 0, &s->txn);
}

int store_commit(struct store *s)
{
    MDB_txn *txn = s->txn;
    s->txn = NULL;
    return mdb_txn_commit(txn);
}

void store_cancel(struct store *s)
{
    if (s->txn)
        mdb_txn_abort(s->txn);
    s->txn = NULL;
}

void store_abort(struct store *s)
{
    store_cancel(s);
    const int rc = store_rebuild(s);
    if (rc != 0) {
        log_error("cache: cannot read the index of %s again: %s", s->dir, mdb_strerror(rc));
        store_close(s, false);
    }
}

int store_sync(struct store *s)
{
    return mdb_env_sync(s->env, 1);
}

uint64_t store_txn_id(const struct store *s)
{
    return mdb_txn_id(s->txn);
}

/* ---- what others need not ask LMDB ---- */

_Static_assert(STORE_END == MDB_NOTFOUND && STORE_DAMAGED == MDB_CORRUPTED &&
                   STORE_FULL == MDB_MAP_FULL,
               "codes of LMDB");

const char *store_strerror(int rc)
{
    return mdb_strerror(rc);
}

const char *store_unknown_format(void)
{
    int major, minor, patch;
    const char *version = mdb_version(&major, &minor, &patch);
    return major == 0 && minor == 9 ? NULL : version;
}
