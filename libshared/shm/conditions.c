/* SPDX-License-Identifier: BSD-2-Clause */
/* conditions: see conditions.h. */
#include "polder/conditions.h"
#include "polder/log.h"
#include "polder/utf8.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CONDITIONS_ABI 1
#define LOCK_LOOKS     1000 /* of 100 us each: then the holder hangs */
#define LOCK_LOOK_NS   100000
#define READER_TRIES   8
#define RAISED         UINT64_C(1) /* bits of a state word */
#define PAGE_SHIFT     1
#define VERSION        UINT64_C(4)
#define PAGE_OF(state) ((state) >> PAGE_SHIFT & 1)

/* Written by the holder of the lock while the state word shows the other one. */
struct condition_page {
    uint32_t id;                     /* enum condition_id */
    uint32_t owner;                  /* enum condition_owner: that raised it first */
    uint64_t since_ms;               /* real */
    uint64_t expires_ms;             /* real; 0: never */
    char subject[CONDITION_SUBJECT]; /* with a NUL */
    char reason[CONDITION_REASON];
};
_Static_assert(sizeof(struct condition_page) == 256, "wire format");

struct condition_table {
    struct shm_header header;
    _Alignas(64) _Atomic uint32_t lock; /* pid of the holder; 0: free. A crash leaves it set */
    _Atomic uint32_t pad_;
    _Atomic uint64_t lost; /* raised without room; any process adds */
    /* Of each row: RAISED, the page that is shown, a version. Holder of the lock, by compare and
     * swap with release; readers acquire. */
    _Alignas(64) _Atomic uint64_t state[CONDITION_ROWS];
    struct condition_page page[CONDITION_ROWS][2];
};
_Static_assert(offsetof(struct condition_table, state) == 128, "wire format");
_Static_assert(sizeof(struct condition_table) == 128 + 8 * CONDITION_ROWS + 512 * CONDITION_ROWS,
               "wire format");

static const struct condition_kind kinds[CONDITIONS] = {
#define CONDITION(id, name, severity, readyz, meaning, action)                                     \
    {name, meaning, action, CONDITION_##severity, CONDITION_##readyz},
#include "libshared/tables/conditions.def"
#undef CONDITION
};

/* Of this process and the children it forks. */
static enum condition_owner conditions_owner = CONDITIONS_OF_POLDERD;

const struct condition_kind *condition_kind(enum condition_id id)
{
    return &kinds[id];
}

const char *condition_severity_name(enum condition_severity severity)
{
    static const char *const name[] = {"error", "warning", "hint"};
    return name[severity];
}

/* ---- the lock ---- */

static bool holder_is_dead(uint32_t pid)
{
    return kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

static void table_lock(struct condition_table *t)
{
    const struct timespec look = {0, LOCK_LOOK_NS};
    const uint32_t me = (uint32_t)getpid();
    for (unsigned looks = 0;; looks++) {
        uint32_t holder = 0;
        if (atomic_compare_exchange_strong(&t->lock, &holder, me) || holder == me)
            return; /* a predecessor with our pid has died with it */
        if ((holder_is_dead(holder) || looks >= LOCK_LOOKS) &&
            atomic_compare_exchange_strong(&t->lock, &holder, me))
            return;
        nanosleep(&look, NULL);
    }
}

static void table_unlock(struct condition_table *t)
{
    uint32_t me = (uint32_t)getpid();
    atomic_compare_exchange_strong(&t->lock, &me, 0); /* unless it was taken over */
}

/* ---- rows ---- */

static bool page_holds(const struct condition_page *p, uint64_t now_ms)
{
    return p->id < CONDITIONS && (!p->expires_ms || now_ms < p->expires_ms);
}

/* The page that a row shows, copied whole; its state word, 0 if the row is not raised. */
static uint64_t row_read(const struct condition_table *t, unsigned row, struct condition_page *out)
{
    for (unsigned i = 0; i < READER_TRIES; i++) {
        const uint64_t state = atomic_load_explicit(&t->state[row], memory_order_acquire);
        if (!(state & RAISED))
            return 0;
        memcpy(out, &t->page[row][PAGE_OF(state)], sizeof *out);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&t->state[row], memory_order_relaxed) == state) {
            out->subject[sizeof out->subject - 1] = out->reason[sizeof out->reason - 1] = 0;
            return state;
        }
    }
    return 0; /* it changes all the time: the next look sees it */
}

/* CONDITION_ROWS: there is none. */
static unsigned row_find(const struct condition_table *t, enum condition_id id, const char *subject,
                         uint64_t *state, struct condition_page *out)
{
    for (unsigned row = 0; row < CONDITION_ROWS; row++) {
        *state = row_read(t, row, out);
        if (*state && out->id == (uint32_t)id && !strcmp(out->subject, subject))
            return row;
    }
    return CONDITION_ROWS;
}

/* Shows `page` in a row if its word is still `was`. */
static bool row_show(struct condition_table *t, unsigned row, uint64_t was,
                     const struct condition_page *page)
{
    const uint64_t other = !PAGE_OF(was);
    const uint64_t next = (was / VERSION + 1) * VERSION | other << PAGE_SHIFT | RAISED;
    memcpy(&t->page[row][other], page, sizeof *page);
    return atomic_compare_exchange_strong(&t->state[row], &was, next);
}

static bool row_hide(struct condition_table *t, unsigned row, uint64_t was)
{
    const uint64_t next = (was + VERSION) & ~RAISED;
    return atomic_compare_exchange_strong(&t->state[row], &was, next);
}

/* A row that is not raised, or shows what has expired, or a hint where `for_id` is none.
 * CONDITION_ROWS: there is no room. */
static unsigned row_free(const struct condition_table *t, enum condition_id for_id, uint64_t now_ms,
                         uint64_t *state)
{
    unsigned hint = CONDITION_ROWS, unused = CONDITION_ROWS, same = 0;
    uint64_t was, of_hint = 0;
    for (unsigned row = 0; row < CONDITION_ROWS; row++) {
        struct condition_page page;
        was = atomic_load(&t->state[row]); /* before the look: what changes after it is not taken */
        if (!row_read(t, row, &page) || !page_holds(&page, now_ms)) {
            if (unused == CONDITION_ROWS) {
                unused = row;
                *state = was;
            }
            continue;
        }
        same += page.id == (uint32_t)for_id;
        if (kinds[page.id].severity == CONDITION_HINT) {
            hint = row;
            of_hint = was;
        }
    }
    if (same >= CONDITION_ROWS_EACH)
        return CONDITION_ROWS;
    if (unused == CONDITION_ROWS && kinds[for_id].severity != CONDITION_HINT) {
        unused = hint;
        *state = of_hint;
    }
    return unused;
}

/* Cut to the whole characters that there is room for; without what would drive a terminal, break a
 * line of text, or is no UTF-8. */
static void text_put(char *to, size_t size, const char *from)
{
    const size_t len = from ? strlen(from) : 0;
    size_t n = 0, used;
    for (; n < len; n += used) {
        used = utf8_length(from + n, len - n);
        const bool good = used > 1 || (used && from[n] >= 0x20 && from[n] != 0x7f);
        used = used ? used : 1;
        if (n + used >= size)
            break;
        memcpy(to + n, good ? from + n : "?", used);
    }
    memset(to + n, 0, size - n);
}

/* ---- changes ---- */

static void log_rise(const struct condition_page *p)
{
    static const enum log_level level[] = {LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO};
    const struct condition_kind *k = &kinds[p->id];
    log_write(level[k->severity], "condition %s%s%s: %s%s%s; see polder-runbook(7)", k->name,
              *p->subject ? " " : "", p->subject, k->meaning, *p->reason ? ": " : "", p->reason);
}

static void log_fall(const struct condition_page *p, uint64_t now_ms)
{
    const uint64_t ms = now_ms > p->since_ms ? now_ms - p->since_ms : 0;
    log_info("condition %s%s%s: is over after %.1f s", kinds[p->id].name, *p->subject ? " " : "",
             p->subject, (double)ms / 1000);
}

enum change { CHANGE_NONE, CHANGE_REASON, CHANGE_RISE };

/* Under the lock. */
static enum change raise_locked(struct condition_table *t, struct condition_page *wanted,
                                uint64_t now_ms)
{
    struct condition_page is;
    uint64_t state;
    const enum condition_id id = (enum condition_id)wanted->id;
    unsigned row = row_find(t, id, wanted->subject, &state, &is);
    if (row < CONDITION_ROWS && page_holds(&is, now_ms)) {
        if (kinds[id].severity == CONDITION_HINT || !strcmp(is.reason, wanted->reason))
            return CHANGE_NONE;
        wanted->since_ms = is.since_ms;
        wanted->owner = is.owner;
        return row_show(t, row, state, wanted) ? CHANGE_REASON : CHANGE_NONE;
    }
    if (row == CONDITION_ROWS && (row = row_free(t, id, now_ms, &state)) == CONDITION_ROWS) {
        atomic_fetch_add(&t->lost, 1);
        return CHANGE_NONE;
    }
    return row_show(t, row, state, wanted) ? CHANGE_RISE : CHANGE_NONE;
}

static bool raise_until(struct condition_table *t, enum condition_id id, const char *subject,
                        const char *reason, uint64_t now_ms, uint64_t expires_ms)
{
    struct condition_page wanted = {.id = (uint32_t)id,
                                    .owner = (uint32_t)conditions_owner,
                                    .since_ms = now_ms,
                                    .expires_ms = expires_ms},
                          is;
    uint64_t state;
    if (!t)
        return false;
    text_put(wanted.subject, sizeof wanted.subject, subject);
    text_put(wanted.reason, sizeof wanted.reason, reason);
    if (row_find(t, id, wanted.subject, &state, &is) < CONDITION_ROWS && page_holds(&is, now_ms) &&
        (expires_ms || !strcmp(is.reason, wanted.reason)))
        return false; /* mostly */
    table_lock(t);
    const enum change change = raise_locked(t, &wanted, now_ms);
    table_unlock(t);
    if (change == CHANGE_RISE)
        log_rise(&wanted);
    return change == CHANGE_RISE;
}

bool condition_raise(struct condition_table *table, enum condition_id id, const char *subject,
                     const char *reason, uint64_t now_ms)
{
    return raise_until(table, id, subject, reason, now_ms, 0);
}

bool condition_hint(struct condition_table *table, enum condition_id id, const char *subject,
                    const char *reason, uint64_t now_ms)
{
    assert(kinds[id].severity == CONDITION_HINT);
    return raise_until(table, id, subject, reason, now_ms, now_ms + CONDITION_HINT_MS);
}

bool condition_clear(struct condition_table *table, enum condition_id id, const char *subject,
                     uint64_t now_ms)
{
    struct condition_page is, next;
    uint64_t state;
    char wanted[CONDITION_SUBJECT];
    if (!table)
        return false;
    text_put(wanted, sizeof wanted, subject);
    if (row_find(table, id, wanted, &state, &is) == CONDITION_ROWS)
        return false; /* mostly */
    bool cleared = false;
    unsigned row;
    table_lock(table);
    /* a process that lost the lock may have raised it a second time */
    while ((row = row_find(table, id, wanted, &state, &next)) < CONDITION_ROWS &&
           row_hide(table, row, state)) {
        is = next;
        cleared = true;
    }
    table_unlock(table);
    if (cleared && page_holds(&is, now_ms))
        log_fall(&is, now_ms);
    return cleared;
}

bool condition_subject_is(const char *subject, const char *text)
{
    char cut[CONDITION_SUBJECT];
    text_put(cut, sizeof cut, text);
    return !strcmp(subject, cut);
}

void condition_clear_except(struct condition_table *table, enum condition_id id,
                            bool (*keep)(void *arg, const char *subject), void *arg,
                            uint64_t now_ms)
{
    struct condition_page page;
    for (unsigned row = 0; table && row < CONDITION_ROWS; row++)
        if (row_read(table, row, &page) && page.id == (uint32_t)id &&
            !(keep && keep(arg, page.subject)))
            condition_clear(table, id, page.subject, now_ms);
}

/* ---- readers ---- */

static int compare(const void *a, const void *b)
{
    const struct condition *x = a, *y = b;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    if (x->since_ms != y->since_ms)
        return x->since_ms < y->since_ms ? -1 : 1;
    return strcmp(x->subject, y->subject);
}

/* Cleared and raised again in another row while the rows are read, it may be met in both. */
static struct condition *slot_of(struct condition *out, size_t n, const struct condition_page *p)
{
    for (size_t i = 0; i < n; i++)
        if (out[i].id == p->id && !strcmp(out[i].subject, p->subject))
            return &out[i];
    return &out[n];
}

size_t conditions_list(const struct condition_table *table, uint64_t now_ms,
                       struct condition out[CONDITION_ROWS])
{
    size_t n = 0;
    for (unsigned row = 0; table && row < CONDITION_ROWS; row++) {
        struct condition_page page;
        if (!row_read(table, row, &page) || !page_holds(&page, now_ms))
            continue;
        struct condition *c = slot_of(out, n, &page);
        n += c == &out[n];
        c->id = (enum condition_id)page.id;
        c->since_ms = page.since_ms;
        memcpy(c->subject, page.subject, sizeof c->subject);
        memcpy(c->reason, page.reason, sizeof c->reason);
    }
    if (n)
        qsort(out, n, sizeof *out, compare);
    return n;
}

bool condition_is_raised(const struct condition_table *table, enum condition_id id,
                         const char *subject, uint64_t now_ms)
{
    struct condition_page page;
    uint64_t state;
    char wanted[CONDITION_SUBJECT];
    text_put(wanted, sizeof wanted, subject);
    return table && row_find(table, id, wanted, &state, &page) < CONDITION_ROWS &&
           page_holds(&page, now_ms);
}

uint64_t conditions_lost(const struct condition_table *table)
{
    return table ? atomic_load(&table->lost) : 0;
}

/* ---- where it lives ---- */

/* The names are numbers in it: another list of them is another layout (FNV-1a). */
static uint64_t table_layout(void)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ sizeof(struct condition_table);
    for (unsigned i = 0; i < CONDITIONS; i++)
        for (const char *c = kinds[i].name;; c++) {
            hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
            if (!*c)
                break;
        }
    return hash;
}

static int table_map(struct shm_segment *seg, const char *path)
{
    struct stat st;
    const int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    *seg = (struct shm_segment){NULL, sizeof(struct condition_table), fd};
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != (off_t)seg->size) {
        shm_close(seg);
        return -EPROTO;
    }
    void *base = mmap(NULL, seg->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        const int code = -errno;
        shm_close(seg);
        return code;
    }
    seg->base = base;
    const int code = shm_check(seg, SHM_CONDITIONS, CONDITIONS_ABI, table_layout());
    if (code < 0)
        shm_close(seg);
    return code;
}

/* Made under a temporary name and renamed when it is complete. The first of two daemons wins; an
 * unreadable file is replaced, and processes that have it mapped keep the old one. */
static int table_make(struct shm_segment *seg, const char *path, bool replace)
{
    char fresh[PATH_MAX];
    int reused;
    if (snprintf(fresh, sizeof fresh, "%s.%d", path, (int)getpid()) >= (int)sizeof fresh)
        return -ENAMETOOLONG;
    unlink(fresh);
    int code = shm_create_file(seg, fresh, SHM_CONDITIONS, CONDITIONS_ABI, table_layout(),
                               sizeof(struct condition_table), &reused);
    if (code < 0) {
        unlink(fresh);
        return code;
    }
    shm_publish(seg);
    if (replace ? rename(fresh, path) < 0 : link(fresh, path) < 0)
        code = -errno;
    if (code < 0 || !replace)
        unlink(fresh);
    if (code < 0)
        shm_close(seg);
    return code;
}

static int table_file(struct shm_segment *seg, const char *path)
{
    int code = table_map(seg, path);
    if (code == -ENOENT) {
        code = table_make(seg, path, false);
        if (code == -EEXIST)
            code = table_map(seg, path);
    }
    if (code == -EPROTO)
        code = table_make(seg, path, true);
    return code;
}

static void forget_own(struct condition_table *t, enum condition_owner owner)
{
    struct condition_page page;
    table_lock(t);
    for (unsigned row = 0; row < CONDITION_ROWS; row++) {
        const uint64_t state = row_read(t, row, &page);
        if (state && page.owner == (uint32_t)owner)
            row_hide(t, row, state);
    }
    table_unlock(t);
}

int conditions_continue(struct shm_segment *seg, const char *path, enum condition_owner owner)
{
    int code = path ? table_file(seg, path) : -ENOENT;
    if (code < 0 && path)
        log_warning("conditions: cannot use %s: %s; each daemon shows its own", path,
                    strerror(-code));
    if (code < 0) {
        code = shm_create(seg, "polder-conditions", SHM_CONDITIONS, CONDITIONS_ABI, table_layout(),
                          sizeof(struct condition_table));
        if (code < 0)
            return code;
        shm_publish(seg);
    }
    conditions_owner = owner;
    return 0;
}

/* What is in the way is said by those that use it. */
void conditions_make(const char *path)
{
    struct shm_segment seg;
    if (table_file(&seg, path) == 0)
        shm_close(&seg);
}

int conditions_open(struct shm_segment *seg, const char *path, enum condition_owner owner)
{
    const int code = conditions_continue(seg, path, owner);
    if (code == 0)
        forget_own(seg->base, owner);
    return code;
}
