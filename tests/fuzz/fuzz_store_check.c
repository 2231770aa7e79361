/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A damaged data.mdb: what check_file() lets pass must not hurt LMDB.
 *
 * A small real store is made once. An input is a list of edits {offset 4, value 1} on a copy of it,
 * taken modulo its used size. If the check passes the copy, it is opened, read, emptied and filled
 * again; every record found must be sound. Includes the keeper's own sources, for the fuzz targets
 * are linked against the libraries alone.
 */
#include "daemons/keeper/store/check.c"
#include "daemons/keeper/store/evict.c"
#include "daemons/keeper/inspect/explain.c"
#include "daemons/keeper/removals.c"
#include "daemons/keeper/store/store.c"
#include "daemons/keeper/store/rebuild.c"
#include "daemons/keeper/store/object.c"
#include "daemons/keeper/store/read.c"
#include "daemons/keeper/store/deferred_free.c"
#include "polder/log.h"
#include <sys/mman.h>

#define MAP_BYTES ((uint64_t)4 << 20)
#define OBJECTS   40

static struct {
    struct store store;
    struct stats_slab stats;
    struct cache_shared shared;
    struct inval_page *inval;
    char dir[64], path[80];
    char *image;
    size_t used;
} world;

static void quiet(void *arg)
{
    (void)arg;
}

/* A macro, for the line in the report. */
#define must(good)                                                                                 \
    do {                                                                                           \
        if (!(good)) {                                                                             \
            fprintf(stderr, "line %d: not so: %s\n", __LINE__, #good);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void put_one(struct store *s, unsigned i)
{
    _Alignas(8) static char buffer[CACHE_VALUE_MAX + 8];
    struct cache_record *r = (struct cache_record *)buffer;
    char url[32];
    const int n = snprintf(url, sizeof url, "h/%u", i);
    cache_record_init(r);
    r->fetch_seq = inval_seq(world.inval);
    r->fresh_until_ms = r->received_ms = 4000000000000;
    r->url_len = (uint32_t)n;
    r->inline_len = i * 613 % 9000;
    r->body_len = r->inline_len;
    cache_key_of(inval_secret(world.inval), url, (size_t)n, NULL, 0, &r->key);
    memcpy(r + 1, url, (size_t)n);
    memset((char *)(r + 1) + n, (int)i, r->inline_len);
    const int rc = store_put(s, r, cache_record_len(r), 0, 0);
    must(rc == 0 || rc == MDB_MAP_FULL || rc >= STORE_REFUSED_INVALID);
}

static void fill(struct store *s)
{
    struct store_meta meta = {.format = CACHE_FORMAT, .next_id = 1};
    s->next_id = s->id_ceiling = 1;
    must(store_begin(s) == 0);
    must(store_meta_write(s, &meta) == 0);
    must(store_commit(s) == 0);
    for (unsigned i = 0; i < OBJECTS; i++) {
        uint64_t id;
        must(store_begin(s) == 0);
        put_one(s, i);
        must(store_new_id(s, &id) == 0);
        if (i % 10 == 0)
            must(store_put_chunk(s, id, 0, "an orphan", 9) == 0);
        if (i % 3 == 0 && s->n_objects > 5)
            must(store_remove(s, i / 3) == 0); /* so that there is a free list */
        must(store_commit(s) == 0);
    }
}

static void world_make(void)
{
    const char *what;
    struct stat st;
    log_set_level(0);
    memcpy(world.dir, "/tmp/fuzz-store.XXXXXX", 23);
    must(mkdtemp(world.dir) != NULL);
    snprintf(world.path, sizeof world.path, "%s/data.mdb", world.dir);
    world.inval =
        mmap(NULL, inval_page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct store *s = &world.store;
    s->inval = world.inval;
    s->shared = &world.shared;
    s->stats = &world.stats;
    s->ref =
        mmap(NULL, CACHE_SLOTS_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    s->max_items = 1000;
    s->max_units = 8000;
    must(store_init(s) == 0);
    must(store_open(s, 1, world.dir, MAP_BYTES, STORE_NEW, &what) == 0);
    fill(s);
    store_close(s, true);
    const int fd = open(world.path, O_RDONLY);
    must(fd >= 0 && fstat(fd, &st) == 0);
    world.image = malloc((size_t)st.st_size);
    must(read(fd, world.image, (size_t)st.st_size) == st.st_size);
    close(fd);
    for (world.used = (size_t)st.st_size; world.used && !world.image[world.used - 1];)
        world.used--;
}

static void write_damaged(const uint8_t *data, size_t size)
{
    const int fd = open(world.path, O_RDWR | O_CREAT, 0600);
    must(fd >= 0 && ftruncate(fd, 0) == 0);
    must(pwrite(fd, world.image, world.used, 0) == (ssize_t)world.used);
    must(ftruncate(fd, (off_t)MAP_BYTES) == 0);
    for (size_t i = 0; i + 5 <= size; i += 5) {
        uint32_t at;
        memcpy(&at, data + i, sizeof at);
        must(pwrite(fd, data + i + 4, 1, (off_t)(at % world.used)) == 1);
    }
    close(fd);
}

static void use_all(struct store *s)
{
    size_t len;
    unsigned done;
    for (uint32_t slot = 0; slot < s->slots_used; slot++) {
        must(store_begin(s) == 0);
        const struct cache_record *r =
            s->items[slot].obj_id ? store_record(s, s->txn, slot, &len) : NULL;
        if (r)
            must(cache_record_sound(r, len));
        if (s->items[slot].obj_id)
            must(store_remove(s, slot) == 0);
        must(deferred_free_run(s, 1000, &done) == 0);
        must(store_commit(s) == 0);
    }
    for (unsigned i = 0; i < OBJECTS; i++) {
        must(store_begin(s) == 0);
        put_one(s, i + 1000);
        must(store_commit(s) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct check_result result;
    const char *what;
    struct store *s = &world.store;
    if (!world.image)
        world_make();
    write_damaged(data, size);
    if (check_file(world.dir, 5000, quiet, NULL, &result) != 0)
        return 0;
    s->next_id = 0;
    if (store_open(s, 1, world.dir, MAP_BYTES, STORE_EXISTING, &what) != 0)
        return 0;
    if (store_rebuild(s) == 0) {
        s->id_ceiling = s->next_id;
        use_all(s);
    }
    store_close(s, false);
    return 0;
}
