/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * keeper_rig: a keeper without a master, for the tests of the cache.
 *
 * Makes by hand what the master would share, forks the real keeper_run(), and has verbs for a
 * producer (rig_store, rig_stream, …) and a reader (rig_look, …). Bodies are made from their URL
 * and a version, so that every byte of an answer can be judged.
 */
#ifndef POLDER_TESTS_KEEPER_RIG_H
#define POLDER_TESTS_KEEPER_RIG_H
#include <stddef.h>
#include "polder/cache.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/fetch_lock.h"
#include "polder/inval.h"
#include "polder/log.h"
#include "polder/process.h"
#include "polder/ring.h"
#include "polder/shared.h"
#include "polder/stats.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

struct rig {
    struct shared sh;
    struct shm_segment conditions;
    struct config *config;
    struct process process;
    char dir[64], log[80];
    pid_t keeper;
    struct cache_reader *reader;
};

#define RIG_UNUSED __attribute__((unused))

static RIG_UNUSED uint64_t rig_ms(void)
{
    return clock_mono_ns() / 1000000;
}

static RIG_UNUSED void rig_nap(void)
{
    usleep(500);
}

/* Waits for a condition; a generous bound only so that a broken test ends. */
#define rig_wait(condition)                                                                        \
    do {                                                                                           \
        const uint64_t give_up_ = rig_ms() + 20000;                                                \
        while (!(condition)) {                                                                     \
            if (rig_ms() > give_up_)                                                               \
                fail_msg("never came true: %s", #condition);                                       \
            rig_nap();                                                                             \
        }                                                                                          \
    } while (0)

static RIG_UNUSED void *rig_map(size_t size)
{
    void *p =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(p != MAP_FAILED);
    return p;
}

/* ---- life ---- */

static RIG_UNUSED void rig_limits(struct rig *r, uint64_t max_items, uint64_t max_bytes)
{
    struct runtime_values *values = calloc(1, sizeof *values);
    values->cache.max_items = max_items;
    values->cache.max_bytes = max_bytes;
    runtime_publish(&r->sh.region[0]->runtime, values);
    free(values);
}

static RIG_UNUSED void rig_share(struct rig *r)
{
    const int flags = EFD_CLOEXEC | EFD_NONBLOCK;
    r->sh.proc = rig_map(sizeof *r->sh.proc);
    r->sh.stats = rig_map(sizeof *r->sh.stats * PROC_SLOTS);
    r->sh.fetch_locks = rig_map(fetch_lock_table_size());
    r->sh.ref = rig_map(CACHE_SLOTS_MAX);
    r->sh.cache = rig_map(sizeof *r->sh.cache);
    assert_int_equal(conditions_open(&r->conditions, NULL, CONDITIONS_OF_POLDERD), 0);
    r->sh.conditions = conditions_of(&r->conditions);
    for (unsigned i = 0; i < SHARED_RINGS; i++)
        r->sh.ring[i] = rig_map(ring_size());
    r->sh.region[0] = rig_map(SHARED_REGION_SIZE);
    r->sh.keeper_event = eventfd(0, flags);
    for (unsigned i = 0; i < PROC_WORKER_SLOTS; i++)
        r->sh.worker_event[i] = i < 8 ? eventfd(0, flags) : -1;
    r->config = (struct config *)r->sh.region[0]->arena;
    r->config->state_dir = r->config->runtime_dir = r->dir;
    static const struct config_cache cache;
    static struct config_route route = {.pattern = "/*", .prefix = "/", .cache = &cache};
    r->config->routes = &route;
    r->config->n_routes = 1;
    r->sh.region[0]->config = r->config;
    for (unsigned i = 0; i < 8; i++) {
        struct proc_slot *slot = &r->sh.proc->slot[PROC_SLOT_WORKER0 + i];
        atomic_store(&slot->incarnation, 1);
        atomic_store(&slot->state, PROC_READY);
        atomic_store(&slot->pid, i == 0 ? (uint32_t)getpid() : 1);
    }
}

static RIG_UNUSED void rig_unshare(struct rig *r)
{
    munmap(r->sh.proc, sizeof *r->sh.proc);
    munmap(r->sh.stats, sizeof *r->sh.stats * PROC_SLOTS);
    munmap(r->sh.fetch_locks, fetch_lock_table_size());
    munmap(r->sh.ref, CACHE_SLOTS_MAX);
    munmap(r->sh.cache, sizeof *r->sh.cache);
    shm_close(&r->conditions);
    for (unsigned i = 0; i < SHARED_RINGS; i++)
        munmap(r->sh.ring[i], ring_size());
    munmap(r->sh.region[0], SHARED_REGION_SIZE);
    close(r->sh.keeper_event);
    for (unsigned i = 0; i < 8; i++)
        close(r->sh.worker_event[i]);
}

static RIG_UNUSED void rig_init(struct rig *r, uint64_t max_items, uint64_t max_bytes)
{
    const char *tmp = getenv("TMPDIR");
    memset(r, 0, sizeof *r);
    signal(SIGUSR1, SIG_IGN); /* "ready", meant for a master */
    snprintf(r->dir, sizeof r->dir, "%.40s/keeper.XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->log, sizeof r->log, "%s/log", r->dir);
    r->sh.inval = rig_map(inval_page_size());
    inval_page_init(r->sh.inval);
    rig_share(r);
    rig_limits(r, max_items, max_bytes);
}

static RIG_UNUSED void rig_keeper_fork(struct rig *r)
{
    struct proc_slot *slot = &r->sh.proc->slot[PROC_SLOT_KEEPER];
    const uint32_t incarnation = atomic_load(&slot->incarnation) + 1;
    atomic_store(&slot->incarnation, incarnation);
    atomic_store(&slot->state, PROC_STARTING);
    r->process = (struct process){.shared = &r->sh,
                                  .region = r->sh.region[0],
                                  .slot = PROC_SLOT_KEEPER,
                                  .incarnation = incarnation,
                                  .master_pid = getpid()};
    fflush(NULL);
    r->keeper = fork();
    assert_true(r->keeper >= 0);
    if (r->keeper == 0) {
        const int fd = open(r->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        dup2(fd, STDERR_FILENO);
        _exit(keeper_run(&r->process));
    }
    atomic_store(&slot->pid, (uint32_t)r->keeper);
}

static RIG_UNUSED void rig_start(struct rig *r)
{
    rig_keeper_fork(r);
    rig_wait(atomic_load(&r->sh.proc->slot[PROC_SLOT_KEEPER].state) == PROC_READY);
}

/* As the master would after a death: the wait status. */
static RIG_UNUSED int rig_reap(struct rig *r)
{
    int status = 0;
    assert_int_equal(waitpid(r->keeper, &status, 0), r->keeper);
    atomic_store(&r->sh.proc->slot[PROC_SLOT_KEEPER].state, PROC_DEAD);
    r->keeper = 0;
    return status;
}

static RIG_UNUSED void rig_stop(struct rig *r)
{
    kill(r->keeper, SIGTERM);
    const int status = rig_reap(r);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static RIG_UNUSED void rig_kill(struct rig *r)
{
    kill(r->keeper, SIGKILL);
    rig_reap(r);
}

static RIG_UNUSED void rig_reader_close(struct rig *r)
{
    cache_reader_close(r->reader);
    r->reader = NULL;
}

/* The whole service stops and starts: nothing in memory is left but the invalidation page, which is
 * a file. */
static RIG_UNUSED void rig_restart_all(struct rig *r, uint64_t max_items, uint64_t max_bytes)
{
    rig_reader_close(r);
    if (r->keeper)
        rig_stop(r);
    rig_unshare(r);
    rig_share(r);
    rig_limits(r, max_items, max_bytes);
    rig_start(r);
}

static int rig_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static RIG_UNUSED void rig_free(struct rig *r)
{
    rig_reader_close(r);
    if (r->keeper)
        rig_stop(r);
    rig_unshare(r);
    munmap(r->sh.inval, inval_page_size());
    if (!getenv("POLDER_TEST_KEEP"))
        nftw(r->dir, rig_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static RIG_UNUSED bool rig_logged(const struct rig *r, const char *text)
{
    FILE *f = fopen(r->log, "r");
    char line[4096];
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = strstr(line, text) != NULL;
    if (f)
        fclose(f);
    return found;
}

static RIG_UNUSED bool rig_raised(const struct rig *r, enum condition_id id)
{
    return condition_is_raised(r->sh.conditions, id, NULL, clock_real_ms());
}

/* ---- what is stored ---- */

static RIG_UNUSED void rig_body(const char *url, unsigned version, char *body, size_t len)
{
    uint64_t x = version * UINT64_C(0x9E3779B97F4A7C15) + 1;
    for (const char *c = url; *c; c++)
        x = (x ^ (uint64_t)(unsigned char)*c) * UINT64_C(0x100000001b3);
    for (size_t i = 0; i < len; i++) {
        if (i % 8 == 0)
            x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        body[i] = (char)(x >> (i % 8 * 8));
    }
}

static RIG_UNUSED void rig_key(const struct rig *r, const char *url, struct cache_key *key)
{
    cache_key_of(inval_secret(r->sh.inval), url, strlen(url), NULL, 0, key);
}

/* A record of the URL; the version stands in etag_hash. */
static RIG_UNUSED struct cache_record rig_record(const struct rig *r, const char *url,
                                                 unsigned version, const char *head)
{
    struct cache_record record;
    cache_record_init(&record);
    record.status = 200;
    record.fetch_seq = inval_seq(r->sh.inval);
    record.received_ms = clock_real_ms();
    record.fresh_until_ms = record.received_ms + 600000;
    record.etag_hash = version;
    record.url_len = (uint32_t)strlen(url);
    record.head_len = (uint32_t)strlen(head);
    rig_key(r, url, &record.key);
    return record;
}

#define RIG_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"

static RIG_UNUSED int rig_push(struct rig *r, unsigned ring, enum ring_type type, uint64_t stream,
                               const struct fetch_permit *permit, const struct iovec *iov, int n)
{
    const struct ring_record head = {
        .type = (uint16_t)type,
        .incarnation = atomic_load(&r->sh.proc->slot[PROC_SLOT_WORKER0 + ring].incarnation),
        .stream = stream,
        .permit = permit ? *permit : FETCH_LOCK_NONE,
    };
    return ring_push(r->sh.ring[ring], &head, iov, n, r->sh.keeper_event);
}

static RIG_UNUSED int rig_store_record(struct rig *r, unsigned ring,
                                       const struct fetch_permit *permit,
                                       struct cache_record *record, const char *url, char *body,
                                       size_t len)
{
    char head[] = RIG_HEAD;
    record->body_len = len;
    record->inline_len = (uint32_t)len;
    const struct iovec iov[] = {{record, sizeof *record},
                                {(void *)(uintptr_t)url, strlen(url)},
                                {head, sizeof head - 1},
                                {body, len}};
    return rig_push(r, ring, RING_STORE, 0, permit, iov, 4);
}

static RIG_UNUSED int rig_store(struct rig *r, unsigned ring, const char *url, unsigned version,
                                size_t len)
{
    char body[CACHE_VALUE_MAX];
    struct cache_record record = rig_record(r, url, version, RIG_HEAD);
    rig_body(url, version, body, len);
    return rig_store_record(r, ring, NULL, &record, url, body, len);
}

/* Waits for room in the ring. */
static RIG_UNUSED void rig_must_store(struct rig *r, const char *url, unsigned version, size_t len)
{
    rig_wait(rig_store(r, 0, url, version, len) == 0);
}

static RIG_UNUSED int rig_begin(struct rig *r, unsigned ring, uint64_t stream, const char *url,
                                unsigned version)
{
    struct cache_record record = rig_record(r, url, version, RIG_HEAD);
    char head[] = RIG_HEAD;
    record.flags = CACHE_CHUNKED_BODY;
    const struct iovec iov[] = {
        {&record, sizeof record}, {(void *)(uintptr_t)url, strlen(url)}, {head, sizeof head - 1}};
    return rig_push(r, ring, RING_BEGIN, stream, NULL, iov, 3);
}

static RIG_UNUSED int rig_end(struct rig *r, unsigned ring, uint64_t stream, uint64_t len)
{
    const struct iovec iov = {&len, sizeof len};
    return rig_push(r, ring, RING_END, stream, NULL, &iov, 1);
}

/* A whole body in chunks. 0, or -ENOSPC where the ring was full on the way (it is aborted then). */
static RIG_UNUSED int rig_stream(struct rig *r, unsigned ring, uint64_t stream, const char *url,
                                 unsigned version, size_t len)
{
    char *body = malloc(len);
    rig_body(url, version, body, len);
    int rc = rig_begin(r, ring, stream, url, version);
    for (size_t at = 0; at < len && rc == 0; at += CACHE_CHUNK) {
        const size_t left = len - at;
        const struct iovec iov = {body + at, left < CACHE_CHUNK ? left : CACHE_CHUNK};
        rc = rig_push(r, ring, RING_CHUNK, stream, NULL, &iov, 1);
    }
    free(body);
    if (rc == 0)
        rc = rig_end(r, ring, stream, len);
    if (rc != 0)
        rig_push(r, ring, RING_ABORT, stream, NULL, NULL, 0);
    return rc;
}

/* ---- what is read ---- */

static RIG_UNUSED bool rig_reader(struct rig *r)
{
    if (!r->reader && cache_reader_open(&r->sh, r->dir, &r->reader) != 0)
        return false;
    return cache_reader_ready(r->reader);
}

/* The version found, 0: nothing, -1: a wrong byte, -2: damaged. */
static RIG_UNUSED int rig_look(struct rig *r, const char *url)
{
    struct cache_key key;
    struct cache_view view;
    if (!rig_reader(r))
        return 0;
    rig_key(r, url, &key);
    const int rc = cache_reader_get(r->reader, &key, &view);
    if (rc <= 0)
        return rc == 0 ? 0 : -2;
    const struct cache_record *record = view.record;
    int version = (int)record->etag_hash;
    const size_t len = record->body_len;
    char *body = malloc(len + 1);
    rig_body(url, (unsigned)version, body, len);
    if (record->url_len != strlen(url) || memcmp(view.url, url, record->url_len) != 0 ||
        memcmp(view.head, RIG_HEAD, record->head_len) != 0)
        version = -1;
    if (view.body && memcmp(view.body, body, len) != 0)
        version = -1;
    size_t at = 0;
    for (uint32_t n = 0; !view.body && at < len && version > 0; n++) {
        const char *data;
        size_t got;
        const int chunk = cache_reader_chunk(r->reader, record->obj_id, n, &data, &got);
        if (chunk <= 0)
            version = chunk == 0 ? -3 : -2; /* -3: a record without its body */
        else if (got > len - at || memcmp(data, body + at, got) != 0)
            version = -1;
        else
            at += got;
    }
    free(body);
    cache_reader_release(r->reader);
    return version;
}

/* As a worker decides: is it there and not invalidated? */
static RIG_UNUSED enum inval_state rig_state(struct rig *r, const char *url)
{
    struct cache_key key;
    struct cache_view view;
    enum inval_state state = INVAL_HARD;
    rig_key(r, url, &key);
    if (rig_reader(r) && cache_reader_get(r->reader, &key, &view) == 1) {
        const struct cache_record *c = view.record;
        state = inval_check(r->sh.inval, c->fetch_seq, c->url_slot, c->tag_slot, c->n_tags,
                            view.url, c->url_len);
        cache_reader_release(r->reader);
    }
    return state;
}

static RIG_UNUSED uint64_t rig_gauge(const struct rig *r, enum stats_gauge g)
{
    return stats_gauge_total(r->sh.stats, g);
}

static RIG_UNUSED uint64_t rig_counter(const struct rig *r, enum stats_counter c)
{
    return stats_total(r->sh.stats, c);
}

/* All that was pushed has been taken. */
static RIG_UNUSED bool rig_drained(const struct rig *r)
{
    for (unsigned i = 0; i < 8; i++)
        if (ring_head(r->sh.ring[i]) != ring_tail(r->sh.ring[i]))
            return false;
    return ring_head(r->sh.ring[SHARED_RING_CONTROL]) == ring_tail(r->sh.ring[SHARED_RING_CONTROL]);
}
#endif
