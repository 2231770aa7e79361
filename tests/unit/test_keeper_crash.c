/* SPDX-License-Identifier: BSD-2-Clause */
/* What survives: the keeper's deaths, restarts, damage to the file, full disks, a second keeper. */
#include "keeper_rig.h"
#include "daemons/keeper/store/store.h"
#include <dirent.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define MIB ((uint64_t)1 << 20)

/* The keeper's: a blind one does not see what is done to its file, and meets it. */
static bool blind;
int inotify_init1(int flags)
{
    if (!blind)
        return (int)syscall(SYS_inotify_init1, flags);
    errno = EMFILE;
    return -1;
}

/* The path of a file of the newest store. */
static void store_path(const struct rig *r, const char *file, char *path, size_t size)
{
    unsigned long long newest = 0, n;
    DIR *d = opendir(r->dir);
    const struct dirent *e;
    while ((e = readdir(d)))
        if (sscanf(e->d_name, "cache.%llu", &n) == 1 && n > newest)
            newest = n;
    closedir(d);
    assert_true(newest > 0);
    snprintf(path, size, "%s/cache.%llu/%s", r->dir, newest, file);
}

static unsigned stores(const struct rig *r)
{
    unsigned n = 0;
    DIR *d = opendir(r->dir);
    const struct dirent *e;
    while ((e = readdir(d)))
        n += strncmp(e->d_name, "cache.", 6) == 0;
    closedir(d);
    return n;
}

static void fill(struct rig *r, unsigned n)
{
    char url[32];
    for (unsigned i = 0; i < n; i++) {
        snprintf(url, sizeof url, "h/%u", i);
        if (i % 10 == 9) {
            rig_wait(rig_drained(r));
            rig_stream(r, 0, i, url, i + 1, 40000 + i * 100);
        } else {
            rig_must_store(r, url, i + 1, i * 97 % 20000);
        }
    }
    rig_wait(rig_drained(r));
    rig_wait(rig_gauge(r, STATS_GAUGE_CACHE_ITEMS) == n);
}

/* How many of them are there; a wrong byte fails. */
static unsigned found(struct rig *r, unsigned n)
{
    char url[32];
    unsigned there = 0;
    for (unsigned i = 0; i < n; i++) {
        snprintf(url, sizeof url, "h/%u", i);
        const int version = rig_look(r, url);
        if (version > 0)
            assert_int_equal(version, i + 1);
        assert_int_not_equal(version, -1);
        there += version > 0;
    }
    return there;
}

static void rotation_ask(struct rig *r)
{
    const uint64_t one = 1;
    atomic_fetch_add(&r->sh.cache->rotate_requested, 1);
    assert_int_equal(write(r->sh.keeper_event, &one, sizeof one), sizeof one);
}

/* ---- restarts ---- */

static void a_restart_finds_everything(void **state)
{
    struct rig r;
    (void)state;
    rig_init(&r, 1000, 32 * MIB);
    rig_start(&r);
    fill(&r, 200);
    for (unsigned i = 0; i < 3; i++) {
        rig_restart_all(&r, 1000, 32 * MIB);
        assert_int_equal(found(&r, 200), 200);
        assert_int_equal(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS), 200);
    }
    assert_true(rig_logged(&r, "cache: kept 200 objects"));
    rig_must_store(&r, "h/0", 77, 100);
    rig_wait(rig_look(&r, "h/0") == 77);
    rig_free(&r);
}

static void after_kill_9_of_everything_in_the_same_boot_it_is_still_there(void **state)
{
    struct rig r;
    (void)state;
    rig_init(&r, 1000, 32 * MIB);
    rig_start(&r);
    fill(&r, 100);
    rig_kill(&r);
    rig_restart_all(&r, 1000, 32 * MIB);
    assert_int_equal(found(&r, 100), 100);
    rig_free(&r);
}

static void another_history_of_invalidations_empties_the_store(void **state)
{
    struct rig r;
    (void)state;
    rig_init(&r, 1000, 32 * MIB);
    rig_start(&r);
    fill(&r, 50);
    rig_stop(&r);
    memset(r.sh.inval, 0, inval_page_size()); /* inval.page was lost */
    inval_page_init(r.sh.inval);
    rig_restart_all(&r, 1000, 32 * MIB);
    assert_int_equal(found(&r, 50), 0);
    assert_true(rig_logged(&r, "history of invalidations"));
    assert_int_equal(stores(&r), 1);
    rig_free(&r);
}

/* As from a backup: of the same history, but from before some of it. */
static void an_older_page_of_invalidations_empties_the_store(void **state)
{
    struct rig r;
    (void)state;
    rig_init(&r, 1000, 32 * MIB);
    void *backup = malloc(inval_page_size());
    assert_non_null(backup);
    memcpy(backup, r.sh.inval, inval_page_size());
    rig_start(&r);
    for (unsigned i = 0; i < 20; i++)
        inval_mark_tag(r.sh.inval, "tag", 3, false);
    fill(&r, 50);
    rig_stop(&r);
    memcpy(r.sh.inval, backup, inval_page_size());
    free(backup);
    rig_restart_all(&r, 1000, 32 * MIB);
    assert_int_equal(found(&r, 50), 0); /* no number that comes next would be larger than theirs */
    rig_free(&r);
}

static void no_invalidation_is_forgotten_over_a_restart(void **state)
{
    struct rig r;
    (void)state;
    rig_init(&r, 1000, 32 * MIB);
    rig_start(&r);
    fill(&r, 20);
    rig_stop(&r);
    inval_mark_url(r.sh.inval, "h/3", 3, false);
    rig_restart_all(&r, 1000, 32 * MIB);
    if (rig_look(&r, "h/3") > 0)
        assert_int_equal(rig_state(&r, "h/3"), INVAL_HARD);
    assert_int_equal(rig_state(&r, "h/4"), INVAL_VALID);
    rig_wait(rig_look(&r, "h/3") == 0); /* the look at everything after a start */
    rig_free(&r);
}

/* Makes the store one of another boot, as it looks after a reboot. */
static void reboot(const struct rig *r)
{
    struct store *s = calloc(1, sizeof *s);
    struct store_meta meta;
    char dir[256];
    const char *what;
    store_path(r, "", dir, sizeof dir);
    s->ref = r->sh.ref;
    s->shared = r->sh.cache;
    assert_int_equal(store_init(s), 0);
    assert_int_equal(store_open(s, 1, dir, store_map_for(8 * MIB), STORE_EXISTING, &what), 0);
    assert_int_equal(store_meta_read(s, &meta), 0);
    meta.boot_id[0] ^= 0xff;
    assert_int_equal(store_begin(s), 0);
    assert_int_equal(store_meta_write(s, &meta), 0);
    assert_int_equal(store_commit(s), 0);
    store_close(s, true);
    store_fini(s);
    free(s);
}

static void a_reboot_keeps_only_what_is_proven(void **state)
{
    struct rig r;
    (void)state;
    rig_init(&r, 1000, 8 * MIB);
    rig_start(&r);
    fill(&r, 30);
    rig_stop(&r); /* closed cleanly, then the machine went down */
    reboot(&r);
    rig_restart_all(&r, 1000, 8 * MIB);
    assert_int_equal(found(&r, 30), 30);
    rig_stop(&r);
    inval_mark_url(r.sh.inval, "h/1", 3, false); /* it may not have reached the disk */
    reboot(&r);
    rig_restart_all(&r, 1000, 8 * MIB);
    assert_int_equal(found(&r, 30), 0);
    assert_true(rig_logged(&r, "there were invalidations after it was closed"));
    fill(&r, 30);
    rig_kill(&r); /* not closed at all */
    reboot(&r);
    rig_restart_all(&r, 1000, 8 * MIB);
    assert_int_equal(found(&r, 30), 0);
    assert_true(rig_logged(&r, "the machine went down before it was closed"));
    rig_free(&r);
}

/* ---- deaths ---- */

struct tally {
    _Atomic uint64_t pushed, looked, hits, wrong, damaged, torn;
    _Atomic uint32_t newest[64];
    _Atomic uint64_t allowed; /* to be pushed; 0: as many as can be */
    _Atomic uint32_t stop;
};

static bool may_push(const struct tally *t)
{
    const uint64_t allowed = atomic_load(&t->allowed);
    return allowed == 0 || atomic_load(&t->pushed) < allowed;
}

static void produce(struct rig *r, struct tally *t, unsigned ring)
{
    char url[32];
    unsigned seed = ring + 1;
    for (uint64_t i = 0; !atomic_load(&t->stop); i++) {
        while (!may_push(t) && !atomic_load(&t->stop))
            rig_nap();
        const unsigned n = (unsigned)rand_r(&seed) % 64;
        const uint32_t version = atomic_fetch_add(&t->newest[n], 1) + 1;
        const size_t len = (size_t)rand_r(&seed) % 20000;
        snprintf(url, sizeof url, "h/%u", n);
        const int rc = i % 16 == 15 ? rig_stream(r, ring, i, url, version, 30000 + len * 10)
                                    : rig_store(r, ring, url, version, len);
        if (rc == 0)
            atomic_fetch_add(&t->pushed, 1);
        else
            usleep(200);
    }
    _exit(0);
}

static void consume(struct rig *r, struct tally *t)
{
    char url[32];
    unsigned seed = 99;
    while (!atomic_load(&t->stop)) {
        const unsigned n = (unsigned)rand_r(&seed) % 64;
        snprintf(url, sizeof url, "h/%u", n);
        const int version = rig_look(r, url);
        atomic_fetch_add(&t->looked, 1);
        if (version == -1 || version > (int)atomic_load(&t->newest[n]))
            atomic_fetch_add(&t->wrong, 1);
        else if (version == -2)
            atomic_fetch_add(&t->damaged, 1);
        else if (version == -3)
            atomic_fetch_add(&t->torn, 1);
        else if (version > 0)
            atomic_fetch_add(&t->hits, 1);
    }
    _exit(0);
}

static void the_keeper_may_be_killed_at_any_instant(void **state)
{
    struct rig r;
    pid_t child[4];
    unsigned seed = 3;
    (void)state;
    struct tally *t = rig_map(sizeof *t);
    /* Fewer objects than there are URLs: evictions all the time. And room for all that is pushed, for a
     * reader that waits for a processor keeps every page from being used again. */
    rig_init(&r, 60, 512 * MIB);
    rig_start(&r);
    for (unsigned i = 0; i < 4; i++) {
        child[i] = fork();
        if (child[i] == 0 && i < 2)
            produce(&r, t, i);
        else if (child[i] == 0)
            consume(&r, t);
    }
    for (unsigned i = 0; i < 300; i++) {
        atomic_store(&t->allowed, (i + 1) * 40);
        usleep((useconds_t)rand_r(&seed) % 9000);
        rig_kill(&r);
        rig_keeper_fork(&r);
    }
    atomic_fetch_add(&t->allowed, 100);
    rig_wait(atomic_load(&r.sh.proc->slot[PROC_SLOT_KEEPER].state) == PROC_READY);
    const uint64_t pushed = atomic_load(&t->pushed);
    rig_wait(atomic_load(&t->pushed) > pushed + 50); /* it still works */
    atomic_store(&t->stop, 1);
    for (unsigned i = 0; i < 4; i++)
        waitpid(child[i], NULL, 0);
    if (getenv("POLDER_TEST_VERBOSE"))
        print_message("pushed %lu looked %lu hits %lu wrong %lu damaged %lu torn %lu\n",
                      (unsigned long)t->pushed, (unsigned long)t->looked, (unsigned long)t->hits,
                      (unsigned long)t->wrong, (unsigned long)t->damaged, (unsigned long)t->torn);
    assert_int_equal(atomic_load(&t->wrong), 0);
    assert_int_equal(atomic_load(&t->damaged), 0);
    assert_int_equal(atomic_load(&t->torn), 0);
    assert_true(atomic_load(&t->hits) > 1000);
    assert_false(rig_logged(&r, "given up"));
    assert_false(rig_logged(&r, "failed its checks"));
    rig_wait(rig_drained(&r));
    assert_true(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) <= 60);
    rig_restart_all(&r, 60, 512 * MIB); /* every page is examined */
    assert_false(rig_logged(&r, "failed its checks"));
    rig_free(&r);
    munmap(t, sizeof *t);
}

/* What is stored during the life of one reader is a small part of the map, for one that waits for a
 * processor keeps pages too; what is stored in all is more than the map. */
static void readers_may_be_killed_in_the_middle(void **state)
{
    struct rig r;
    const uint64_t one = 1;
    unsigned seed = 5;
    (void)state;
    struct tally *t = rig_map(sizeof *t);
    rig_init(&r, 60, 8 * MIB);
    rig_start(&r);
    atomic_store(&t->allowed, 60);
    const pid_t producer = fork();
    if (producer == 0)
        produce(&r, t, 0);
    for (unsigned i = 1; i <= 150; i++) {
        atomic_store(&t->allowed, i * 60);
        const pid_t reader = fork();
        if (reader == 0)
            consume(&r, t);
        usleep(500 + (useconds_t)rand_r(&seed) % 5000);
        kill(reader, SIGKILL);
        waitpid(reader, NULL, 0);
        /* as the master does */
        atomic_fetch_add(&r.sh.proc->slot[PROC_SLOT_WORKER0 + 5].incarnation, 1);
        assert_int_equal(write(r.sh.keeper_event, &one, sizeof one), sizeof one);
        rig_wait(atomic_load(&t->pushed) >= i * 60);
    }
    atomic_store(&t->stop, 1);
    waitpid(producer, NULL, 0);
    assert_int_equal(atomic_load(&t->wrong), 0);
    assert_int_equal(atomic_load(&t->damaged), 0);
    assert_false(rig_logged(&r, "map")); /* nobody kept pages from being used again */
    assert_int_equal(waitpid(r.keeper, NULL, WNOHANG), 0);
    rig_free(&r);
    munmap(t, sizeof *t);
}

static void a_stop_takes_what_was_pushed_before(void **state)
{
    struct rig r;
    char url[32];
    (void)state;
    rig_init(&r, 1000, 32 * MIB);
    rig_start(&r);
    kill(r.keeper, SIGSTOP);
    for (unsigned i = 0; i < 200; i++) {
        snprintf(url, sizeof url, "h/%u", i);
        assert_int_equal(rig_store(&r, i % 4, url, i + 1, 3000), 0);
    }
    kill(r.keeper, SIGTERM);
    kill(r.keeper, SIGCONT);
    rig_reap(&r);
    rig_restart_all(&r, 1000, 32 * MIB);
    assert_int_equal(found(&r, 200), 200);
    rig_free(&r);
}

/* ---- damage ---- */

static void damage(const char *path, unsigned kind, unsigned *seed)
{
    struct stat st;
    char noise[4096];
    const int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)rand_r(seed);
    const off_t used = 400 * 4096; /* about what is in use */
    if (kind == 0)
        assert_int_equal(ftruncate(fd, 0), 0);
    else if (kind == 1)
        assert_int_equal(ftruncate(fd, 8192 + rand_r(seed) % 100000), 0);
    else if (kind == 2)
        assert_int_equal(pwrite(fd, noise, sizeof noise, rand_r(seed) % 2 * 4096), sizeof noise);
    else if (kind == 3) {
        static const char foreign[] = "SQLite format 3";
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, foreign, sizeof foreign, 0), sizeof foreign);
        assert_int_equal(ftruncate(fd, 65536), 0);
    } else if (kind == 4) {
        memset(noise, 0, sizeof noise);
        for (unsigned i = 0; i < 8; i++)
            assert_int_equal(pwrite(fd, noise, sizeof noise, (off_t)(rand_r(seed) % 400) * 4096),
                             sizeof noise);
    } else
        for (unsigned i = 0; i < (kind == 5 ? 1 : 200); i++)
            assert_int_equal(pwrite(fd, noise + i, 1, (off_t)((unsigned)rand_r(seed) % used)), 1);
    close(fd);
}

static void a_damaged_file_never_yields_a_wrong_byte(void **state)
{
    struct rig r;
    char path[256];
    unsigned seed = 11, kept = 0, emptied = 0;
    (void)state;
    rig_init(&r, 1000, 8 * MIB);
    rig_start(&r);
    for (unsigned round = 0; round < 42; round++) {
        fill(&r, 60);
        rig_reader_close(&r);
        rig_stop(&r);
        store_path(&r, "data.mdb", path, sizeof path);
        damage(path, round % 7, &seed);
        rig_restart_all(&r, 1000, 8 * MIB);
        const unsigned there = found(&r, 60);
        assert_true(there == 0 || there == 60);
        kept += there == 60;
        emptied += there == 0;
        assert_int_equal(stores(&r), 1);
        if (there == 0)
            assert_true(rig_logged(&r, "failed its checks ("));
        if (round % 7 < 4)
            assert_int_equal(there, 0);
    }
    assert_true(emptied >= 24);
    if (getenv("POLDER_TEST_VERBOSE"))
        print_message("kept %u emptied %u\n", kept, emptied);
    rig_free(&r);
}

static void a_file_of_another_format_or_a_directory_in_its_place_is_no_reason_to_fail(void **state)
{
    struct rig r;
    char path[256];
    (void)state;
    rig_init(&r, 1000, 8 * MIB);
    rig_start(&r);
    fill(&r, 5);
    rig_reader_close(&r);
    rig_stop(&r);
    store_path(&r, "data.mdb", path, sizeof path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    rig_restart_all(&r, 1000, 8 * MIB);
    assert_int_equal(found(&r, 5), 0);
    fill(&r, 5);
    rig_reader_close(&r);
    rig_stop(&r);
    store_path(&r, "lock.mdb", path, sizeof path);
    FILE *f = fopen(path, "w");
    fputs("no lock file of anybody's", f);
    fclose(f);
    rig_restart_all(&r, 1000, 8 * MIB);
    rig_must_store(&r, "h/after", 1, 10);
    rig_wait(rig_look(&r, "h/after") == 1);
    rig_free(&r);
}

static void a_store_that_kills_is_given_up_and_readers_follow(void **state)
{
    struct rig r;
    (void)state;
    rig_init(&r, 1000, 8 * MIB);
    rig_start(&r);
    fill(&r, 20);
    assert_int_equal(found(&r, 20), 20); /* the reader is open */
    for (unsigned i = 0; i < 3; i++) {
        const uint64_t epoch = atomic_load(&r.sh.cache->epoch);
        rotation_ask(&r);
        rig_wait(atomic_load(&r.sh.cache->epoch) > epoch);
        rig_wait(atomic_load(&r.sh.cache->rotate_requested) == 0);
        assert_int_equal(found(&r, 20), 0);
        fill(&r, 20);
        assert_int_equal(found(&r, 20), 20);
        assert_int_equal(stores(&r), 1);
    }
    /* the fourth time in ten minutes: off, and claims are still released */
    rotation_ask(&r);
    rig_wait(atomic_load(&r.sh.cache->epoch) == 0);
    assert_true(rig_logged(&r, "the cache is off"));
    assert_true(rig_raised(&r, COND_STORE_OFF));
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_READY) == 0);
    struct fetch_permit permit;
    struct cache_record record = rig_record(&r, "h/off", 1, RIG_HEAD);
    assert_int_equal(
        fetch_lock_claim(r.sh.fetch_locks, &record.key, 0, 1, clock_mono_ms(), &permit),
        FETCH_LOCK_LEAD);
    char body[10];
    rig_store_record(&r, 0, &permit, &record, "h/off", body, sizeof body);
    rig_wait(!fetch_lock_pending(r.sh.fetch_locks, &permit, clock_mono_ms()));
    assert_true(fetch_lock_is_noshare(r.sh.fetch_locks, &record.key, clock_mono_ms()));
    assert_int_equal(rig_look(&r, "h/off"), 0);
    /* and prefixes can be invalidated for ever, though there is nothing to sweep */
    uint64_t seq;
    for (unsigned i = 0; i < 2 * INVAL_BANS; i++)
        rig_wait(inval_mark_prefix(r.sh.inval, "h/p/", 4, false, &seq) == 0);
    assert_int_equal(inval_check(r.sh.inval, seq - 1, 0, NULL, 0, "h/p/x", 5), INVAL_HARD);
    rig_free(&r);
}

/* A process of its own, for the signal ends it. The wait status. */
static int look_in_a_child(struct rig *r, unsigned n)
{
    int status;
    const pid_t pid = fork();
    if (pid == 0) {
        char url[32];
        const int fd = open(r->log, O_WRONLY | O_APPEND);
        dup2(fd, STDERR_FILENO);
        map_fault_install(&r->sh, PROC_SLOT_WORKER0 + 3);
        for (unsigned i = 0; i < n; i++) {
            snprintf(url, sizeof url, "h/%u", i);
            rig_look(r, url);
        }
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void a_file_cut_short_under_their_feet_kills_nobody_for_long(void **state)
{
    struct rig r;
    char path[256];
    (void)state;
    rig_init(&r, 1000, 8 * MIB);
    blind = true;
    rig_start(&r);
    blind = false;
    fill(&r, 60);
    store_path(&r, "data.mdb", path, sizeof path);
    assert_int_equal(truncate(path, 8192), 0);
    const int status = look_in_a_child(&r, 60);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 128 + SIGBUS);
    assert_int_equal(atomic_load(&r.sh.proc->slot[PROC_SLOT_WORKER0 + 3].poison),
                     cache_poison_of(atomic_load(&r.sh.cache->epoch)));
    rig_store(&r, 0, "h/after", 1, 100);
    rig_wait(waitpid(r.keeper, NULL, WNOHANG) == r.keeper);
    assert_int_equal(atomic_load(&r.sh.proc->slot[PROC_SLOT_KEEPER].poison),
                     cache_poison_of(atomic_load(&r.sh.cache->epoch)));
    rig_start(&r);                          /* as the master would */
    rig_wait(rig_look(&r, "h/after") == 1); /* it was still in the ring */
    assert_true(rig_logged(&r, "failed its checks (the file is cut short)"));
    rig_free(&r);
}

static void other_faults_are_not_blamed_on_the_store(void **state)
{
    struct rig r;
    int status;
    (void)state;
    rig_init(&r, 1000, 8 * MIB);
    rig_start(&r);
    fill(&r, 5);
    const pid_t pid = fork();
    if (pid == 0) {
        const int fd = open(r.log, O_WRONLY | O_APPEND);
        dup2(fd, STDERR_FILENO);
        signal(SIGSEGV, SIG_DFL); /* not the test library's */
        map_fault_install(&r.sh, PROC_SLOT_WORKER0 + 3);
        rig_look(&r, "h/1");
        raise(SIGSEGV);
        raise(SIGSEGV);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(atomic_load(&r.sh.proc->slot[PROC_SLOT_WORKER0 + 3].poison), 0);
    assert_int_equal(atomic_load(&r.sh.cache->suspect), 0);
    rig_free(&r);
}

static void a_reader_that_finds_damage_has_the_store_replaced_once(void **state)
{
    struct rig r;
    const uint64_t one = 1;
    (void)state;
    rig_init(&r, 1000, 8 * MIB);
    rig_start(&r);
    fill(&r, 20);
    const uint64_t epoch = atomic_load(&r.sh.cache->epoch);
    for (unsigned i = 0; i < 5; i++) /* many workers say so, some of them late */
        atomic_store(&r.sh.cache->damaged_epoch, epoch);
    assert_int_equal(write(r.sh.keeper_event, &one, sizeof one), sizeof one);
    rig_wait(atomic_load(&r.sh.cache->epoch) == epoch + 1);
    atomic_store(&r.sh.cache->damaged_epoch, epoch);
    fill(&r, 20);
    assert_int_equal(found(&r, 20), 20);
    assert_int_equal(rig_counter(&r, STATS_CACHE_ROTATIONS), 1);
    rig_free(&r);
}

static void a_file_put_in_the_place_of_the_store_is_nobodys(void **state)
{
    struct rig r;
    char path[256], other[300];
    (void)state;
    rig_init(&r, 1000, 8 * MIB);
    rig_start(&r);
    fill(&r, 20);
    const uint64_t epoch = atomic_load(&r.sh.cache->epoch);
    store_path(&r, "data.mdb", path, sizeof path);
    snprintf(other, sizeof other, "%s.other", path);
    const int fd = open(other, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, 8192), 0);
    close(fd);
    assert_int_equal(rename(other, path), 0); /* who opens the store now opens this */
    rig_wait(atomic_load(&r.sh.cache->epoch) > epoch);
    assert_true(rig_logged(&r, "data.mdb was moved or removed"));
    fill(&r, 20);
    assert_int_equal(found(&r, 20), 20);
    rig_free(&r);
}

static void a_foreign_directory_with_a_huge_number_is_left_alone(void **state)
{
    struct rig r;
    char path[256];
    (void)state;
    rig_init(&r, 1000, 8 * MIB);
    snprintf(path, sizeof path, "%s/cache.18446744073709551615", r.dir);
    assert_int_equal(mkdir(path, 0700), 0);
    rig_start(&r);
    fill(&r, 20);
    assert_int_equal(found(&r, 20), 20);
    assert_int_equal(rmdir(path), 0);
    rig_free(&r);
}

/* ---- room ---- */

static void a_reader_that_never_lets_go_costs_the_store_and_not_the_service(void **state)
{
    struct rig r;
    struct cache_key key;
    struct cache_view view;
    char url[32];
    (void)state;
    rig_init(&r, 1000, 8 * MIB);
    rig_start(&r);
    rig_must_store(&r, "h/held", 1, 1000);
    rig_wait(rig_look(&r, "h/held") == 1);
    rig_key(&r, "h/held", &key);
    assert_int_equal(cache_reader_get(r.reader, &key, &view), 1);
    /* Nothing that goes can be used again. Whether the map is full for the third time, or so full
     * that nothing can even be deleted, depends on how the batches fall. */
    unsigned stored = 0;
    while (stored < 20000 && rig_counter(&r, STATS_CACHE_ROTATIONS) == 0) {
        snprintf(url, sizeof url, "h/%u", stored++);
        rig_must_store(&r, url, stored, 30000);
    }
    rig_wait(rig_drained(&r));
    assert_true(rig_logged(&r, "is full; gave up a part of it"));
    assert_true(rig_logged(&r, "the store is given up ("));
    assert_int_equal(view.record->etag_hash, 1); /* what it reads is still whole */
    cache_reader_release(r.reader);
    rig_must_store(&r, "h/after", 7, 30000);
    rig_wait(rig_look(&r, "h/after") == 7);
    assert_int_equal(waitpid(r.keeper, NULL, WNOHANG), 0); /* the same keeper */
    rig_free(&r);
}

static void a_second_keeper_keeps_its_hands_off(void **state)
{
    struct rig r;
    char path[128];
    (void)state;
    rig_init(&r, 1000, 8 * MIB);
    snprintf(path, sizeof path, "%s/keeper.lock", r.dir);
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    rig_start(&r);
    assert_true(rig_logged(&r, "another keeper has it"));
    assert_int_equal(stores(&r), 0);
    assert_int_equal(atomic_load(&r.sh.cache->epoch), 0);
    flock(fd, LOCK_UN); /* it leaves */
    close(fd);
    rig_wait(atomic_load(&r.sh.cache->epoch) != 0);
    fill(&r, 5);
    rig_free(&r);
}

static void ids_are_never_used_twice(void **state)
{
    struct rig r;
    struct cache_key key;
    struct cache_view view;
    uint64_t last = 0;
    (void)state;
    rig_init(&r, 1000, 8 * MIB);
    rig_start(&r);
    rig_key(&r, "h/a", &key);
    for (unsigned i = 0; i < 12; i++) {
        rig_must_store(&r, "h/a", i + 1, 10);
        rig_wait(rig_look(&r, "h/a") == (int)i + 1);
        assert_int_equal(cache_reader_get(r.reader, &key, &view), 1);
        assert_true(view.record->obj_id > last);
        last = view.record->obj_id;
        cache_reader_release(r.reader);
        if (i % 3 == 0) {
            rig_kill(&r);
            rig_start(&r);
        } else if (i % 3 == 1) {
            rig_restart_all(&r, 1000, 8 * MIB);
        } else if (i < 9) {
            const uint64_t epoch = atomic_load(&r.sh.cache->epoch);
            rotation_ask(&r);
            rig_wait(atomic_load(&r.sh.cache->epoch) != epoch);
        }
    }
    rig_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restart_finds_everything),
        cmocka_unit_test(after_kill_9_of_everything_in_the_same_boot_it_is_still_there),
        cmocka_unit_test(another_history_of_invalidations_empties_the_store),
        cmocka_unit_test(an_older_page_of_invalidations_empties_the_store),
        cmocka_unit_test(no_invalidation_is_forgotten_over_a_restart),
        cmocka_unit_test(a_reboot_keeps_only_what_is_proven),
        cmocka_unit_test(the_keeper_may_be_killed_at_any_instant),
        cmocka_unit_test(readers_may_be_killed_in_the_middle),
        cmocka_unit_test(a_stop_takes_what_was_pushed_before),
        cmocka_unit_test(a_damaged_file_never_yields_a_wrong_byte),
        cmocka_unit_test(a_file_of_another_format_or_a_directory_in_its_place_is_no_reason_to_fail),
        cmocka_unit_test(a_store_that_kills_is_given_up_and_readers_follow),
        cmocka_unit_test(a_file_cut_short_under_their_feet_kills_nobody_for_long),
        cmocka_unit_test(other_faults_are_not_blamed_on_the_store),
        cmocka_unit_test(a_reader_that_finds_damage_has_the_store_replaced_once),
        cmocka_unit_test(a_file_put_in_the_place_of_the_store_is_nobodys),
        cmocka_unit_test(a_foreign_directory_with_a_huge_number_is_left_alone),
        cmocka_unit_test(a_reader_that_never_lets_go_costs_the_store_and_not_the_service),
        cmocka_unit_test(a_second_keeper_keeps_its_hands_off),
        cmocka_unit_test(ids_are_never_used_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
