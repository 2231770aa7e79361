/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cache_reader: the worker's side of the store, read-only and in place.
 *
 * One environment, one read transaction that is renewed and reset (7.5 ns both). What was verified
 * is remembered in a private table (cache_known), and where it lay: a hit costs no checksum, and
 * while the keeper commits nothing no descent of the tree.
 *
 * An error of LMDB that speaks of a damaged tree makes the reader ask the keeper for an empty
 * store; everything else that goes wrong only closes the environment, and it is tried again.
 */
#include "polder/cache.h"
#include "libshared/cache/cache_known.h"
#include "polder/clock.h"
#include "polder/log.h"
#include "polder/shared.h"
#include <errno.h>
#include <limits.h>
#include <lmdb.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define RETRY_MS 200 /* between two tries to open a store that would not open */

/* ---- faults inside the map ---- */

/* The one context of a process that a signal handler can reach. */
static struct {
    struct proc_slot *slot;
    struct cache_shared *cache;
    uint32_t poison;              /* of the store that is read */
    volatile sig_atomic_t inside; /* a transaction is open */
    struct sigaction before[2];   /* SIGSEGV, SIGBUS */
} guard;

static void guard_handler(int signal_number, siginfo_t *info, void *context)
{
    static const char text[] = "cache: a fault while reading the store; this process ends\n";
    (void)info;
    (void)context;
    if (!guard.inside || !guard.slot) {
        /* Not ours: the instruction runs again and meets the previous handler. */
        sigaction(signal_number, &guard.before[signal_number == SIGBUS], NULL);
        return;
    }
    atomic_store(&guard.cache->suspect, 1);
    atomic_store(&guard.slot->poison, guard.poison);
    const ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
    (void)n;
    _exit(128 + signal_number);
}

void map_fault_install(struct shared *shared, uint32_t slot)
{
    struct sigaction action = {.sa_sigaction = guard_handler, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    guard.slot = &shared->proc->slot[slot];
    guard.cache = shared->cache;
    guard.poison = CACHE_POISON_UNNAMED;
    guard.inside = 0;
    sigaction(SIGSEGV, &action, &guard.before[0]);
    sigaction(SIGBUS, &action, &guard.before[1]);
}

void map_fault_blame(uint64_t epoch)
{
    guard.poison = cache_poison_of(epoch);
}

void map_fault_enter(void)
{
    guard.inside++;
}

static void map_fault_leave(void)
{
    guard.inside--;
}

/* ---- the environment ---- */

/* Chunks that are remembered as verified: 128 MiB of bodies. */
#define CHUNKS_KNOWN 4096

struct cache_reader {
    struct shared *shared;
    MDB_env *env; /* NULL: no store */
    MDB_txn *txn;
    MDB_dbi obj, body;
    bool in_txn;
    uint64_t txn_id;   /* of the open transaction: its snapshot */
    uint64_t epoch;    /* of env */
    uint64_t again_ms; /* not before: the next try to open */
    struct known_table known;
    uint64_t chunk_verified[CHUNKS_KNOWN]; /* by chunk_verify(); no number is used twice */
    _Atomic uint64_t *pins;                /* our row; NULL until we know which */
    uint32_t pinned[CACHE_PINS];           /* how many of us have each */
    unsigned pins_top;                     /* after the last one in use */
    char state_dir[PATH_MAX];
};

static void reader_env_close(struct cache_reader *r)
{
    if (r->in_txn)
        cache_reader_release(r);
    if (r->txn)
        mdb_txn_abort(r->txn);
    if (r->env)
        mdb_env_close(r->env);
    r->txn = NULL;
    r->env = NULL;
    r->epoch = 0;
    known_clear(&r->known);
    memset(r->chunk_verified, 0, sizeof r->chunk_verified);
}

static int reader_env_open(struct cache_reader *r, uint64_t epoch)
{
    char path[PATH_MAX];
    int rc = cache_directory(r->state_dir, epoch, path, sizeof path);
    if (rc < 0)
        return rc;
    map_fault_blame(epoch);
    map_fault_enter();
    if ((rc = mdb_env_create(&r->env)) != 0)
        goto out;
    if ((rc = mdb_env_set_maxdbs(r->env, CACHE_DBS)) != 0 ||
        (rc = mdb_env_set_maxreaders(r->env, CACHE_READERS)) != 0 ||
        (rc = mdb_env_open(r->env, path, MDB_RDONLY | MDB_NOTLS | MDB_NORDAHEAD, 0600)) != 0 ||
        (rc = mdb_txn_begin(r->env, NULL, MDB_RDONLY, &r->txn)) != 0)
        goto out;
    if ((rc = mdb_dbi_open(r->txn, "obj", 0, &r->obj)) != 0 ||
        (rc = mdb_dbi_open(r->txn, "body", 0, &r->body)) != 0)
        goto out;
    /* The handles live on only if their transaction commits. */
    rc = mdb_txn_commit(r->txn);
    r->txn = NULL;
    if (rc == 0 && (rc = mdb_txn_begin(r->env, NULL, MDB_RDONLY, &r->txn)) == 0)
        mdb_txn_reset(r->txn);
    r->epoch = epoch;
out:
    map_fault_leave();
    if (rc != 0)
        reader_env_close(r);
    return rc == 0 ? 0 : -EIO;
}

static bool reader_refresh(struct cache_reader *r, uint64_t epoch)
{
    if (epoch == 0) {
        if (r->env)
            reader_env_close(r);
        return false;
    }
    const uint64_t now_ms = clock_mono_ms();
    if (r->env)
        reader_env_close(r); /* of the store before a rotation */
    else if (now_ms < r->again_ms)
        return false;
    if (reader_env_open(r, epoch) == 0)
        return true;
    r->again_ms = now_ms + RETRY_MS;
    return false;
}

bool cache_reader_ready(struct cache_reader *reader)
{
    const uint64_t epoch =
        atomic_load_explicit(&reader->shared->cache->epoch, memory_order_acquire);
    if (epoch == reader->epoch && reader->env)
        return true;
    return reader_refresh(reader, epoch);
}

int cache_reader_open(struct shared *shared, const char *state_dir, struct cache_reader **out)
{
    *out = NULL;
    if (atomic_load_explicit(&shared->cache->epoch, memory_order_acquire) == 0)
        return -EAGAIN;
    struct cache_reader *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->shared = shared;
    const size_t len = strlen(state_dir);
    if (len >= sizeof r->state_dir || known_init(&r->known) < 0) {
        free(r);
        return -ENOMEM;
    }
    memcpy(r->state_dir, state_dir, len + 1);
    if (!cache_reader_ready(r)) {
        cache_reader_close(r);
        return -EAGAIN;
    }
    *out = r;
    return 0;
}

void cache_reader_close(struct cache_reader *reader)
{
    if (!reader)
        return;
    reader_env_close(reader);
    known_fini(&reader->known);
    free(reader);
}

/* ---- lookups ---- */

static void reader_damaged(struct cache_reader *r, int rc, const char *what)
{
    log_error("cache: cannot read %s: %s; asking for an empty store", what, mdb_strerror(rc));
    atomic_store(&r->shared->cache->damaged_epoch, r->epoch);
    r->again_ms = clock_mono_ms() + RETRY_MS;
    reader_env_close(r);
}

static bool reader_begin(struct cache_reader *r)
{
    if (!r->env)
        return false;
    if (r->in_txn)
        return true;
    map_fault_enter();
    const int rc = mdb_txn_renew(r->txn);
    if (rc == 0) {
        r->in_txn = true;
        r->txn_id = mdb_txn_id(r->txn);
        return true;
    }
    map_fault_leave();
    /* MDB_MAP_RESIZED: the keeper has grown the store. It is opened again in the next iteration. */
    r->again_ms = rc == MDB_MAP_RESIZED ? 0 : clock_mono_ms() + RETRY_MS;
    reader_env_close(r);
    return false;
}

void cache_reader_release(struct cache_reader *reader)
{
    if (!reader->in_txn)
        return;
    mdb_txn_reset(reader->txn);
    reader->in_txn = false;
    map_fault_leave();
}

/* Back to what it was before a lookup that found nothing. */
static int reader_none(struct cache_reader *r, bool opened, int rc)
{
    if (opened)
        cache_reader_release(r);
    return rc;
}

static bool reader_verify(struct cache_reader *r, const struct cache_record *record, size_t len)
{
    if (known_verified(&r->known, record, r->txn_id))
        return true;
    if (!cache_record_sound(record, len))
        return false;
    known_add(&r->known, record, r->txn_id);
    return true;
}

/* What is known of the key from before; NULL where the tree has to be asked. */
static const struct cache_record *reader_recall(struct cache_reader *r, const struct cache_key *key)
{
    const struct known *e = known_find(&r->known, key);
    if (!e)
        return NULL;
    known_prefetch(e, r->shared);
    const struct cache_record *record = e->record;
    if (e->txn != r->txn_id || memcmp(&record->key, key, sizeof *key) != 0 ||
        !cache_record_fits(record, cache_record_len(record)))
        return NULL;
    return record;
}

int cache_reader_get(struct cache_reader *reader, const struct cache_key *key,
                     struct cache_view *view)
{
    const bool opened = !reader->in_txn;
    if (!reader_begin(reader))
        return 0;
    const struct cache_record *record = reader_recall(reader, key);
    if (record) {
        cache_view_of(record, view);
        return 1;
    }
    MDB_val k = {sizeof key->hash, (void *)(uintptr_t)key->hash}, v;
    const int rc = mdb_get(reader->txn, reader->obj, &k, &v);
    if (rc == MDB_NOTFOUND)
        return reader_none(reader, opened, 0);
    if (rc != 0) {
        if (opened) /* else a view is in use: the next lookup will tell again */
            reader_damaged(reader, rc, "a record");
        return -EIO;
    }
    record = v.mv_data;
    if (!cache_record_fits(record, v.mv_size) || memcmp(&record->key, key, sizeof *key) != 0 ||
        !reader_verify(reader, record, v.mv_size))
        return reader_none(reader, opened, -EIO);
    cache_view_of(record, view);
    return 1;
}

/* Each chunk's bytes are looked at once, as with records: at 10 GB/s that is half the cost of a hit
 * on a large body. */
static bool chunk_verify(struct cache_reader *r, uint64_t obj_id, uint32_t n, uint64_t checksum,
                         const char *data, size_t len)
{
    const uint64_t name =
        (obj_id + n * UINT64_C(0x9E3779B97F4A7C15)) * UINT64_C(0xff51afd7ed558ccd);
    uint64_t *known = &r->chunk_verified[(name >> 32) % CHUNKS_KNOWN];
    const uint64_t word = checksum ^ name;
    if (*known == word && word != 0)
        return true;
    if (cache_chunk_checksum(obj_id, n, data, len) != checksum)
        return false;
    *known = word;
    return true;
}

int cache_reader_chunk(struct cache_reader *reader, uint64_t obj_id, uint32_t n, const char **data,
                       size_t *len)
{
    uint8_t key[CACHE_CHUNK_KEY];
    const bool opened = !reader->in_txn;
    if (!reader_begin(reader))
        return 0;
    cache_chunk_key(obj_id, n, key);
    MDB_val k = {sizeof key, key}, v;
    const int rc = mdb_get(reader->txn, reader->body, &k, &v);
    if (rc == MDB_NOTFOUND)
        return reader_none(reader, opened, 0);
    if (rc != 0) {
        if (opened)
            reader_damaged(reader, rc, "a chunk of a body");
        return -EIO;
    }
    uint64_t checksum;
    if (v.mv_size <= sizeof checksum || v.mv_size > CACHE_VALUE_MAX)
        return reader_none(reader, opened, -EIO);
    memcpy(&checksum, v.mv_data, sizeof checksum);
    *data = (const char *)v.mv_data + sizeof checksum;
    *len = v.mv_size - sizeof checksum;
    if (!chunk_verify(reader, obj_id, n, checksum, *data, *len))
        return reader_none(reader, opened, -EIO);
    return 1;
}

/* ---- pins ---- */

/* The row of our worker slot. The master writes the pid after it has forked, maybe after we run. */
static _Atomic uint64_t *reader_pins(struct cache_reader *r)
{
    const uint32_t pid = (uint32_t)getpid();
    for (unsigned i = 0; !r->pins && i < PROC_WORKER_SLOTS; i++)
        if (atomic_load(&r->shared->proc->slot[PROC_SLOT_WORKER0 + i].pid) == pid)
            r->pins = r->shared->cache->pin[i];
    return r->pins;
}

bool cache_reader_pin(struct cache_reader *reader, uint64_t obj_id)
{
    _Atomic uint64_t *pins = reader_pins(reader);
    unsigned vacant = reader->pins_top;
    if (!pins)
        return false;
    for (unsigned i = 0; i < reader->pins_top; i++) {
        if (!reader->pinned[i]) {
            vacant = i;
        } else if (atomic_load_explicit(&pins[i], memory_order_relaxed) == obj_id) {
            reader->pinned[i]++;
            return true;
        }
    }
    if (vacant == CACHE_PINS)
        return false;
    if (vacant == reader->pins_top)
        reader->pins_top++;
    atomic_store(&pins[vacant], obj_id);
    reader->pinned[vacant] = 1;
    return true;
}

void cache_reader_unpin(struct cache_reader *reader, uint64_t obj_id)
{
    unsigned i = 0;
    while (i < reader->pins_top &&
           (!reader->pinned[i] ||
            atomic_load_explicit(&reader->pins[i], memory_order_relaxed) != obj_id))
        i++;
    if (i == reader->pins_top || --reader->pinned[i])
        return;
    atomic_store(&reader->pins[i], 0);
    while (reader->pins_top && !reader->pinned[reader->pins_top - 1])
        reader->pins_top--;
}
