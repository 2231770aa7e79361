/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * take_over: a start with all that the program before has left: children, sockets, shared memory.
 *
 * What it leaves is judged twice, by the same steps: in a child of the old program, which goes on if
 * anything is wrong, and then in earnest. Configurations are read again: they hold pointers into
 * the old program. In earnest that is the text that was judged, whatever the file says by then. A segment whose layout is another one is made anew; children of the old program
 * keep theirs until they leave.
 */
#include "daemons/master/upgrade.h"
#include "polder/access_log.h"
#include "polder/cache.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/log.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENIENT_MS 3000 /* no watchdog: nobody has looked for a while */

static bool unchanged(const char *key, const char *was, const char *is, char *why, size_t size)
{
    if (!strcmp(was, is))
        return true;
    snprintf(why, size,
             "%s cannot change in an upgrade (\"%s\", not \"%s\"); restart Polder for that", key,
             was, is);
    return false;
}

/* Counts of a table of another size would begin at nothing. */
static bool same_table(const struct inherited *in, const struct config *config, char *why,
                       size_t size)
{
    char was[16], is[16];
    snprintf(was, sizeof was, "%u", in->limit_entries);
    snprintf(is, sizeof is, "%u", config->limit_entries);
    return !in->limit_entries || unchanged("limit_entries", was, is, why, size);
}

static bool same_place(const struct inherited *in, const struct config *config, char *why,
                       size_t size)
{
    return same_table(in, config, why, size) &&
           unchanged("state_dir", in->state_dir, config->state_dir, why, size) &&
           unchanged("runtime_dir", in->runtime_dir, config->runtime_dir, why, size) &&
           unchanged("user", in->user, config->user, why, size);
}

/* For the proof: what fails later cannot be taken back. */
static bool log_opens(const struct config *config, char *why, size_t size)
{
    int fd;
    const int code = access_log_open(config, &fd);
    if (code < 0)
        access_log_explain(config, code, why, size);
    else if (fd >= 0)
        close(fd);
    return code == 0;
}

/* Shared memory as the configuration wants it. -1: the reason is in why. */
static int shared_take(struct master *m, const struct inherited *in, bool proving, char *why,
                       size_t size)
{
    int code = -1;
    struct config_region *scout =
        mmap(NULL, SHARED_REGION_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (scout == MAP_FAILED) {
        snprintf(why, size, "no memory to read the configuration");
        return -1;
    }
    if (compile_wait(NULL, scout, m->config_path, 1) < 0) {
        snprintf(why, size, "%s", scout->errors);
    } else if (same_place(in, scout->config, why, size) &&
               (!proving || log_opens(scout->config, why, size))) {
        const struct config *config = scout->config;
        const struct shared_options options = {.state_dir = in->state_dir,
                                               .runtime_dir = in->runtime_dir,
                                               .limit_entries = config->limit_entries,
                                               .has_store = m->segments.has_store,
                                               .no_caches = !config_has_caches(config),
                                               .left = in->left,
                                               .n_left = in->n_left,
                                               .proving = proving};
        if (!proving)
            privileges_take_over(config);
        code = shared_create(&m->shared, &options) < 0 ? -1 : 0;
        if (code < 0)
            snprintf(why, size, "cannot make the shared memory; see the log");
    }
    munmap(scout, SHARED_REGION_SIZE);
    return code;
}

/* ---- the proof ---- */

static void prove_answer(const struct master *m, int fd)
{
    if (m->shared.anew[0])
        dprintf(fd, "made anew: %s\n", m->shared.anew);
    if (strstr(m->shared.anew, "inval.page"))
        dprintf(fd, UPGRADE_PURGES "\n");
    dprintf(fd, UPGRADE_PROVEN POLDER_VERSION "\n");
}

int take_over_prove(const char *config_path, int block, int fd)
{
    static struct master master;
    static struct inherited in;
    struct master *m = &master;
    char why[4200];
    m->config_path = config_path;
    log_open("upgrade");
    logs_init(m);
    bool good = upgrade_state_read(m, &in, block, why, sizeof why) == 0;
    config_text_share(in.text);
    good = good && shared_take(m, &in, true, why, sizeof why) == 0;
    if (good)
        prove_answer(m, fd);
    else
        dprintf(fd, "%s\n", why);
    _exit(good ? EXIT_DONE : EXIT_FAILED);
}

/* ---- in earnest ---- */

static bool was_left(const struct master *m, const char *name)
{
    return !strstr(m->shared.anew, name);
}

/* Where the process table is a new one. */
static void proc_fill(struct master *m, const struct inherited *in)
{
    struct proc_table *proc = m->shared.proc;
    const uint32_t number = m->generation[m->current].number;
    atomic_store(&proc->region, m->current);
    atomic_store(&proc->generation, number);
    atomic_store(&proc->started_ms, in->started_ms);
    atomic_store(&proc->log_level, in->log_level);
    atomic_store(&proc->was_ready, in->was_ready);
    atomic_store(&proc->drained, in->drained);
    atomic_store(&proc->reload_requested, in->reload_seen);
    atomic_store(&proc->reload_done, in->reload_seen);
    atomic_store(&proc->upgrade_requested, in->upgrades_requested);
    atomic_store(&proc->upgrade_done, in->upgrade_done);
    atomic_store(&proc->upgrade_state, PROC_UPGRADE_RUNNING);
    atomic_store(&proc->upgrades_ok, in->upgrades_ok);
    atomic_store(&proc->upgrades_failed, in->upgrades_failed);
    atomic_store(&proc->slot[PROC_SLOT_KEEPER].generation, number);
    atomic_store(&proc->slot[PROC_SLOT_CONTROL].generation, number);
    for (uint32_t slot = 0; slot < PROC_SLOTS; slot++)
        atomic_store(&proc->slot[slot].incarnation, in->incarnation[slot]);
}

/* What the service manager keeps for the next start: those that are made anew take the place of those
 * that were refused. */
static void segments_keep(struct master *m)
{
    struct segments *s = &m->segments;
    for (size_t i = 0; i < m->shared.segs && s->n_found < SEGMENTS_FOUND_MAX; i++) {
        const struct shared_segment *seg = &m->shared.seg[i];
        if (!seg->keep || seg->found)
            continue;
        struct shared_found *f = &s->found[s->n_found++];
        memcpy(f->name, seg->name, sizeof f->name);
        f->fd = -1;
    }
    segments_store(s, &m->shared);
}

static void children_adopt(struct master *m, struct inherited *in)
{
    const bool foreign = !was_left(m, "polder-proc");
    children_init(m);
    for (uint32_t slot = PROC_SLOT_KEEPER; slot < PROC_SLOTS; slot++) {
        struct master_child *c = &in->child[slot];
        if (!c->pid && !c->wanted)
            continue;
        c->foreign = c->foreign || foreign;
        child_adopt(m, slot, c);
    }
}

/* The configuration of the current generation, as this program reads it: its workers are of the
 * program before, but a successor of one that dies now is ours. */
static int configure(struct master *m, int block, char *why, size_t size)
{
    struct generation *g = &m->generation[m->current];
    struct config_region *region = m->shared.region[m->current];
    /* where the table of servers was left, the resolver of the program before writes to it */
    if (compile_wait(was_left(m, "polder-servers") ? NULL : &m->shared, region, m->config_path,
                     g->number) < 0) {
        snprintf(why, size, "%s", region->errors);
        return -1;
    }
    running_values_read(region, block);
    if (logs_open(m, m->current, why, size) < 0) /* it did a moment ago; the reload says so too */
        log_error("upgrade: %s; a worker that dies now is followed by one without a log", why);
    listeners_assign(&m->listeners, region->config, g);
    return 0;
}

/* By the text that was proven: what the file says now is for the reload. -1: the reason is in why. */
static int take_all(struct master *m, struct inherited *in, int block, char *why, size_t size)
{
    if (upgrade_state_read(m, in, block, why, size) < 0)
        return -1;
    config_text_share(in->text);
    const int code = shared_take(m, in, false, why, size) < 0 ? -1 : configure(m, block, why, size);
    config_text_share(-1);
    if (in->text >= 0)
        close(in->text);
    return code;
}

static void go_on(struct master *m, struct inherited *in)
{
    struct proc_table *proc = m->shared.proc;
    if (!was_left(m, "polder-proc"))
        proc_fill(m, in);
    /* Old workers say in the old segment what they read of the store just now: nothing of it may be
     * written over, so the keeper begins another store. */
    if (!was_left(m, "polder-cache"))
        atomic_fetch_add(&m->shared.cache->rotate_requested, 1);
    if (master_config(m)->log_level != in->file_log_level) /* as a reload has it */
        atomic_store(&proc->log_level, master_config(m)->log_level);
    segments_keep(m);
    log_follow(&proc->log_level);
    m->now_ms = clock_mono_ms();
    m->lenient_ms = m->now_ms + LENIENT_MS;
    m->reload.seen = in->reload_seen;
    m->upgrade.seen = m->upgrade.requested = in->upgrade_requested;
    m->phase = MASTER_RUNNING;
    children_adopt(m, in);
    master_announce(m);
    names_again(m);
    ws_process_init(m);
    ws_process_take_over(m, in->ws_pid);
    snprintf(m->on_alert, sizeof m->on_alert, "%s", master_config(m)->on_alert);
    upgrade_go_on(m, in->from);
}

int take_over(struct master *m, int block)
{
    struct inherited *in = calloc(1, sizeof *in);
    char why[4200];
    int code = EXIT_FAILED, none;
    segments_adopt(&m->segments, &none, 0); /* is there a store? */
    if (!in || take_all(m, in, block, why, sizeof why) < 0) {
        log_error("upgrade: polderd " POLDER_VERSION " cannot take over: %s",
                  in ? why : "no memory");
    } else {
        log_info("upgrade: polderd " POLDER_VERSION " has taken over from %s", in->from);
        if (m->shared.anew[0])
            log_warning("upgrade: of another layout, and made anew without what was in them: %s",
                        m->shared.anew);
        go_on(m, in);
        code = EXIT_DONE;
    }
    close(block);
    free(in);
    return code;
}
