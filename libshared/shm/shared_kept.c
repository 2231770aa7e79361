/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shared_kept: the limiter's counts, the states of servers and the history of an earlier run, or new
 * ones.
 *
 * Looked for among the descriptors of an earlier run; else, where nobody keeps descriptors, in a
 * file of runtime_dir; else made in memory.
 */
#include "libshared/shm/shared_kept.h"
#include "libshared/shm/shared_left.h"
#include "polder/clock.h"
#include "polder/history.h"
#include "polder/limit.h"
#include "polder/log.h"
#include "polder/server_state.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LIMITS_NAME "polder-limits"
#define ROWS_NAME   "polder-limit-rows"
#define LIMITS_FILE "limits.page"

struct shared_segment *shared_next(struct shared *sh, const char *name)
{
    struct shared_segment *seg = &sh->seg[sh->segs];
    seg->keep = seg->found = seg->in_use = false;
    snprintf(seg->name, sizeof seg->name, "%s", name);
    return seg;
}

static int found_take(const struct shared_options *opt, const char *name)
{
    for (size_t i = 0; i < opt->n_found; i++)
        if (!strcmp(opt->found[i].name, name)) {
            const int fd = opt->found[i].fd;
            opt->found[i].fd = -1;
            return fd;
        }
    return -1;
}

static void tell_unused(const char *what, const char *why)
{
    if (why[0])
        log_warning("shared: %s of an earlier run cannot be used: %s; started anew", what, why);
}

/* In a file, where there is a place for it; else the service manager is to keep its descriptor. */
static bool file_is_kept(const struct shared_options *opt, const char *file)
{
    return file && opt->runtime_dir && !opt->has_store;
}

static int kept_in_memory(struct shared_segment *seg, const struct kept_request *want)
{
    seg->keep = true;
    return shm_create(&seg->shm, want->name, want->kind, want->abi, want->layout, want->size);
}

static int kept_in_file(struct shared_segment *seg, const struct kept_request *want,
                        const char *dir, const char *file, bool refused, const char *without)
{
    char path[PATH_MAX], why[160];
    if (snprintf(path, sizeof path, "%s/%s", dir, file) >= (int)sizeof path)
        return -ENAMETOOLONG;
    if (refused)
        unlink(path); /* those who use it keep it, and its lock */
    const int rc = kept_file(&seg->shm, want, path, &seg->found, why, sizeof why);
    tell_unused(path, why);
    if (rc == 0)
        return 0;
    log_warning("shared: cannot keep %s (%zu bytes): %s; %s", path, want->size,
                rc == -EBUSY ? "another process uses it" : strerror(-rc), without);
    return shm_create(&seg->shm, want->name, want->kind, want->abi, want->layout, want->size);
}

/* file: where it is kept without a store; NULL: nowhere. NULL with the reason logged. */
static struct shared_segment *shared_kept(struct shared *sh, const struct shared_options *opt,
                                          const struct kept_request *want, const char *file,
                                          const char *without)
{
    struct shared_segment *seg = shared_next(sh, want->name);
    const int fd = found_take(opt, want->name);
    char why[160] = "";
    int rc = -ENOENT;
    if (left_adopt(sh, opt, seg, want->kind, want->abi, want->layout, want->size)) {
        seg->keep = !file_is_kept(opt, file);
        seg->found = seg->in_use = true;
        sh->segs++;
        return seg;
    }
    if (fd >= 0 && (rc = kept_adopt(&seg->shm, want, fd, why, sizeof why)) == 0)
        seg->keep = seg->found = true;
    tell_unused(want->name, why);
    if (rc < 0 && file_is_kept(opt, file) && !opt->proving)
        rc =
            kept_in_file(seg, want, opt->runtime_dir, file, left_fd(opt, want->name) >= 0, without);
    else if (rc < 0)
        rc = kept_in_memory(seg, want);
    if (rc < 0) {
        log_error("shared: cannot make the %zu byte segment %s: %s", want->size, want->name,
                  strerror(-rc));
        return NULL;
    }
    sh->segs++;
    return seg;
}

/* ---- limits ---- */

static const char *limits_mend(void *base, int fd, const struct kept_request *want)
{
    return limit_table_mend(base, want->size, fd, want->mono_ms);
}

/* A segment moves to where it has to lie. */
static bool segment_move(struct shm_segment *seg, void *to)
{
    void *at = mremap(seg->base, seg->size, seg->size, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    if (at == MAP_FAILED)
        return false;
    seg->base = at;
    return true;
}

/* Rows name places in the counts: those of other counts are of no use. */
static struct shm_segment *rows_make(struct shared *sh, const struct shared_options *opt,
                                     bool in_use)
{
    struct shared_segment *named = shared_next(sh, ROWS_NAME);
    struct shm_segment *seg = &named->shm;
    if (!in_use)
        left_refuse(sh, opt, ROWS_NAME);
    if (!(in_use && left_adopt(sh, opt, named, SHM_LIMIT_ROWS, LIMIT_ABI, limit_rows_layout(),
                               limit_rows_size())) &&
        shm_create(seg, ROWS_NAME, SHM_LIMIT_ROWS, LIMIT_ABI, limit_rows_layout(),
                   limit_rows_size()) < 0)
        return NULL;
    sh->segs++;
    return seg;
}

/* Counts that are kept and rows that are not, one behind the other. */
struct limit_table *shared_limits(struct shared *sh, const struct shared_options *opt)
{
    const size_t entries = opt->limit_entries ? opt->limit_entries : LIMIT_ENTRIES_DEFAULT;
    const struct kept_request want = {.name = LIMITS_NAME,
                                      .kind = SHM_LIMIT,
                                      .abi = LIMIT_ABI,
                                      .layout = limit_table_layout(),
                                      .size = limit_counts_size(entries),
                                      .mono_ms = clock_mono_ms(),
                                      .mend = limits_mend};
    struct shared_segment *counts =
        shared_kept(sh, opt, &want, LIMITS_FILE, "counts of limits will not outlive a restart");
    struct shm_segment *rows = counts ? rows_make(sh, opt, counts->in_use) : NULL;
    char *place = !rows ? MAP_FAILED
                        : mmap(NULL, limit_table_size(entries), PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED || !segment_move(&counts->shm, place) ||
        !segment_move(rows, place + want.size)) {
        log_error("shared: cannot make the limiter's table: %s", strerror(errno));
        return NULL;
    }
    struct limit_table *table = counts->shm.base;
    if (counts->in_use)
        return table;
    if (counts->found)
        log_info("shared: goes on with the counts of limits of an earlier run");
    else
        limit_table_init(table, entries);
    return table;
}

/* ---- servers ---- */

static const char *servers_mend(void *base, int fd, const struct kept_request *want)
{
    server_table_mend(base, fd, want->mono_ms);
    return NULL;
}

struct server_table *shared_servers(struct shared *sh, const struct shared_options *opt)
{
    const struct kept_request want = {.name = "polder-servers",
                                      .kind = SHM_SERVERS,
                                      .abi = SHARED_ABI,
                                      .layout = server_table_layout(),
                                      .size = sizeof(struct server_table),
                                      .mono_ms = clock_mono_ms(),
                                      .mend = servers_mend};
    struct shared_segment *seg = shared_kept(sh, opt, &want, NULL, "");
    if (seg && seg->found && !seg->in_use)
        log_info("shared: goes on with the states of servers of an earlier run");
    return seg ? seg->shm.base : NULL;
}

/* ---- history ---- */

static const char *history_mend_page(void *base, int fd, const struct kept_request *want)
{
    (void)fd;
    history_mend(base, want->real_ms / 1000);
    return NULL;
}

struct history_page *shared_history(struct shared *sh, const struct shared_options *opt)
{
    const struct kept_request want = {.name = "polder-history",
                                      .kind = SHM_HISTORY,
                                      .abi = HISTORY_LAYOUT,
                                      .layout = history_page_layout(),
                                      .size = sizeof(struct history_page),
                                      .real_ms = clock_real_ms(),
                                      .mend = history_mend_page};
    struct shared_segment *seg = shared_kept(sh, opt, &want, NULL, "");
    return seg ? seg->shm.base : NULL;
}
