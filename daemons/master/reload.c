/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * reload: a new configuration, proven before anything changes.
 *
 *   ASKED -> COMPILING (a child reads the file into a free region)
 *         -> LOADED    (new addresses are bound; worker slots are free)
 *         -> STARTING  (workers of the new generation) -> all ready: commit
 *         -> SERVING   (old workers let go of their listening sockets) -> done
 *
 * The commit publishes the region, tells keeper and control, and lets the old workers drain. Any
 * failure before it takes back what was made and leaves the running configuration as it is. A
 * region is used again only when its workers have left and keeper and control use the current one.
 * Where none is free, or too few worker slots, the oldest generation leaves at once.
 *
 * An old worker accepts what is in its queues before it leaves them. The reload is done after that,
 * so that a connection that begins then is served by the new configuration; it does not wait for
 * long, as a worker may hang.
 */
#include "daemons/master/master.h"
#include "daemons/master/upgrade.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/log.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define REGION_REST_MS  10000 /* keeper and control follow within a heartbeat, or are killed */
#define START_LIMIT_MS  30000
#define EARLY_DEATHS    3
#define LOOK_AGAIN_MS   100
#define FAILED_GRACE_MS 1000
#define LET_GO_LIMIT_MS 1000 /* for old workers to leave their listening sockets */

void reload_ask(struct master *m)
{
    if (m->reload.phase == RELOAD_IDLE)
        m->reload.phase = RELOAD_REQUESTED;
    else if (m->reload.phase != RELOAD_REQUESTED)
        m->reload.again = true;
}

static void event_signal(int fd)
{
    const uint64_t one = 1;
    const ssize_t n = write(fd, &one, sizeof one);
    (void)n; /* EAGAIN: it is set already */
}

static void reload_finish(struct master *m, enum proc_reload_state state)
{
    struct proc_table *proc = m->shared.proc;
    if (state == PROC_RELOAD_OK)
        m->reload.good = m->reload.begun;
    atomic_store(&proc->reload_state, state);
    atomic_store(&proc->reload_done, m->reload.requested);
    event_signal(m->shared.control_event);
    m->reload.phase = m->reload.again ? RELOAD_REQUESTED : RELOAD_IDLE;
    names_again(m);
    m->reload.again = false;
    if (m->phase == MASTER_RUNNING) /* ends RELOADING=1, also when nothing changed */
        notify_ready(m);
}

static void log_lines(const char *text)
{
    while (*text) {
        const size_t len = strcspn(text, "\n");
        if (len)
            log_error("%.*s", (int)len, text);
        text += len + (text[len] == '\n');
    }
}

/* For where there is one line: the first mistake, and how many the log has besides. */
static void summarize(const char *text, char *out, size_t room)
{
    char more[32] = "";
    unsigned lines = 0;
    for (const char *at = text; *at; at += strcspn(at, "\n"), at += *at == '\n')
        lines++;
    if (lines > 1)
        snprintf(more, sizeof more, " (and %u more)", lines - 1);
    const size_t first = strcspn(text, "\n"), left = room - strlen(more) - 1;
    snprintf(out, room, "%.*s%s", (int)(first < left ? first : left), text, more);
}

static void reload_fail(struct master *m, const char *why)
{
    char summary[CONDITION_REASON];
    summarize(why, summary, sizeof summary);
    snprintf(m->shared.proc->reload_message, sizeof m->shared.proc->reload_message, "%s", why);
    log_lines(why);
    log_error("reload: failed; the running configuration stays");
    if (m->phase == MASTER_RUNNING)
        condition_raise(m->shared.conditions, COND_RELOAD_FAILED, NULL, summary, clock_real_ms());
    listeners_revert(&m->listeners);
    struct generation *g = &m->generation[m->reload.region];
    if (m->reload.phase == RELOAD_STARTING) {
        generation_enter(m, m->reload.region, GENERATION_ENDING);
        workers_stop(m, m->reload.region, FAILED_GRACE_MS);
    } else if (g->state == GENERATION_LOADING) {
        g->state = GENERATION_NONE; /* no other process has used it yet */
        g->since_ms = 0;
        logs_close(m, m->reload.region);
    }
    notify_status("reload failed, generation %u stays: %s", m->generation[m->current].number,
                  summary);
    reload_finish(m, PROC_RELOAD_FAILED);
}

/* ---- steps ---- */

/* A dead one looks at the current configuration when it comes back. */
static bool has_followed(const struct master *m, uint32_t slot)
{
    const struct proc_slot *s = &m->shared.proc->slot[slot];
    return m->child[slot].pid == 0 ||
           atomic_load(&s->followed) == m->shared.region[m->current]->generation;
}

static bool region_rested(const struct master *m, uint32_t region)
{
    const struct generation *g = &m->generation[region];
    return g->state == GENERATION_NONE &&
           (g->since_ms == 0 || m->now_ms - g->since_ms >= REGION_REST_MS ||
            (has_followed(m, PROC_SLOT_KEEPER) && has_followed(m, PROC_SLOT_CONTROL)));
}

static void reload_begin(struct master *m)
{
    uint32_t region = 0;
    if (m->phase != MASTER_RUNNING || upgrade_holds_reload(m))
        return;
    while (region < SHARED_REGIONS && !region_rested(m, region))
        region++;
    if (region == SHARED_REGIONS) {
        generations_hurry(m);
        return;
    }
    struct reload *r = &m->reload;
    r->requested = atomic_load(&m->shared.proc->reload_requested);
    r->region = region;
    r->begun++;
    atomic_store(&m->shared.proc->reload_state, PROC_RELOAD_RUNNING);
    log_info("reload: reading %s again", m->config_path);
    notify_reloading();
    generation_enter(m, region, GENERATION_LOADING);
    names_stop(m);
    r->compiler =
        compile_start(&m->shared, m->shared.region[region], m->config_path, m->generations + 1);
    if (r->compiler < 0) {
        char why[128];
        snprintf(why, sizeof why, "cannot fork to read the configuration: %s",
                 strerror(-r->compiler));
        r->compiler = 0;
        reload_fail(m, why);
        return;
    }
    r->deadline_ms = m->now_ms + COMPILE_TIMEOUT_MS;
    r->phase = RELOAD_COMPILING;
}

static bool unchanged(const char *key, const char *now, const char *then, char *why, size_t size)
{
    if (strcmp(now, then) == 0)
        return true;
    snprintf(why, size,
             "%s cannot change while Polder runs (\"%s\", not \"%s\"); restart it for that", key,
             now, then);
    return false;
}

static bool same_table(const struct config *now, const struct config *then, char *why, size_t size)
{
    char is[16], was[16];
    snprintf(is, sizeof is, "%u", now->limit_entries);
    snprintf(was, sizeof was, "%u", then->limit_entries);
    return unchanged("limit_entries", is, was, why, size);
}

static void reload_loaded(struct master *m)
{
    const struct config *now = master_config(m);
    const struct config *then = m->shared.region[m->reload.region]->config;
    char why[1024];
    if (!unchanged("state_dir", now->state_dir, then->state_dir, why, sizeof why) ||
        !unchanged("runtime_dir", now->runtime_dir, then->runtime_dir, why, sizeof why) ||
        !unchanged("user", now->user, then->user, why, sizeof why) ||
        !same_table(now, then, why, sizeof why) ||
        listeners_probe_ops(now, then, why, sizeof why) < 0 ||
        logs_open(m, m->reload.region, why, sizeof why) < 0 ||
        listeners_open(&m->listeners, then, why, sizeof why) < 0)
        reload_fail(m, why);
    else
        m->reload.phase = RELOAD_LOADED;
}

bool reload_reaped(struct master *m, pid_t pid, int status)
{
    struct reload *r = &m->reload;
    if (r->compiler == 0 || pid != r->compiler)
        return false;
    r->compiler = 0;
    if (r->phase != RELOAD_COMPILING)
        return true; /* given up meanwhile */
    struct config_region *region = m->shared.region[r->region];
    if (compile_result(region, status) < 0)
        reload_fail(m, region->errors);
    else
        reload_loaded(m);
    return true;
}

static void reload_start_workers(struct master *m)
{
    struct reload *r = &m->reload;
    struct generation *g = &m->generation[r->region];
    const struct config *config = m->shared.region[r->region]->config;
    char why[256];
    if (workers_free_slots(m) < config->workers) {
        generations_hurry(m);
        return;
    }
    if (listeners_listen(&m->listeners, why, sizeof why) < 0) {
        reload_fail(m, why);
        return;
    }
    g->number = ++m->generations;
    g->workers = config->workers;
    g->early_deaths = g->cut = 0;
    g->hurried = false;
    listeners_assign(&m->listeners, config, g);
    generation_enter(m, r->region, GENERATION_STARTING);
    r->deadline_ms = m->now_ms + START_LIMIT_MS;
    r->phase = RELOAD_STARTING;
    workers_start(m, r->region);
}

/* As with other running values: a level that a command has set stays until the file's changes. */
static void log_level_follow(struct master *m, const struct config *old, const struct config *now)
{
    _Atomic uint32_t *level = &m->shared.proc->log_level;
    const enum log_level was = (enum log_level)atomic_load(level);
    if (now->log_level == old->log_level)
        return;
    atomic_store(level, now->log_level);
    if (was != old->log_level && was != now->log_level)
        log_warning("reload: reset log level %s -> %s: the file's value has changed",
                    log_level_word(was), log_level_word((enum log_level)now->log_level));
}

static void reload_commit(struct master *m)
{
    struct proc_table *proc = m->shared.proc;
    const uint32_t old = m->current;
    struct generation *g = &m->generation[m->reload.region];
    const struct config *config = m->shared.region[m->reload.region]->config;

    m->current = m->reload.region;
    atomic_store(&proc->region, m->current);
    atomic_store(&proc->generation, g->number);
    atomic_store(&proc->slot[PROC_SLOT_KEEPER].generation, g->number);
    atomic_store(&proc->slot[PROC_SLOT_CONTROL].generation, g->number);
    event_signal(m->shared.keeper_event);
    listeners_keep(&m->listeners);
    generation_enter(m, m->current, GENERATION_CURRENT);
    generation_drain(m, old, config->drain_timeout_ms);
    for (uint32_t i = 0; i < config->n_warnings; i++)
        log_warning("config: %s", config->warnings[i]);
    log_level_follow(m, m->shared.region[old]->config, config);
    ws_process_reload(m);
    log_info("reload: generation %u serves with %u workers", g->number, g->workers);
    listeners_tell(&m->listeners, config);
    listeners_publish(m);
    condition_clear(m->shared.conditions, COND_RELOAD_FAILED, NULL, clock_real_ms());
    privileges_tell_files(m->shared.conditions, config);
    m->reload.deadline_ms = m->now_ms + LET_GO_LIMIT_MS;
    m->reload.phase = RELOAD_SERVING;
}

static void reload_watch_old(struct master *m)
{
    const uint32_t accepting = workers_accepting(m);
    if (accepting && m->now_ms < m->reload.deadline_ms)
        return; /* woken when one has let go, or is dead */
    if (accepting)
        log_warning("reload: %u of the old workers may still accept connections after %u ms",
                    accepting, LET_GO_LIMIT_MS);
    reload_finish(m, PROC_RELOAD_OK);
}

static void reload_watch_start(struct master *m)
{
    struct reload *r = &m->reload;
    const struct generation *g = &m->generation[r->region];
    char why[160];
    if (workers_ready(m, r->region) == g->workers) {
        reload_commit(m);
    } else if (g->early_deaths >= EARLY_DEATHS) {
        snprintf(why, sizeof why, "workers with the new configuration die before they are ready");
        reload_fail(m, why);
    } else if (m->now_ms >= r->deadline_ms) {
        snprintf(why, sizeof why, "only %u of %u workers with the new configuration got ready",
                 workers_ready(m, r->region), g->workers);
        reload_fail(m, why);
    }
}

void reload_step(struct master *m)
{
    struct reload *r = &m->reload;
    if (generations_retire(m) && (r->phase <= RELOAD_REQUESTED || r->phase == RELOAD_SERVING))
        listeners_prune(&m->listeners, master_config(m));
    if (r->phase == RELOAD_REQUESTED)
        reload_begin(m);
    if (r->phase == RELOAD_COMPILING && m->now_ms >= r->deadline_ms) {
        kill(r->compiler, SIGKILL); /* its end is the error */
        r->deadline_ms = m->now_ms + COMPILE_TIMEOUT_MS;
    }
    if (r->phase == RELOAD_LOADED)
        reload_start_workers(m);
    if (r->phase == RELOAD_STARTING)
        reload_watch_start(m);
    if (r->phase == RELOAD_SERVING)
        reload_watch_old(m);
}

uint64_t reload_deadline(const struct master *m)
{
    switch (m->reload.phase) {
    case RELOAD_IDLE:
        break;
    case RELOAD_REQUESTED:
    case RELOAD_LOADED:
        return m->now_ms + LOOK_AGAIN_MS;
    case RELOAD_COMPILING:
    case RELOAD_STARTING:
    case RELOAD_SERVING:
        return m->reload.deadline_ms;
    }
    return UINT64_MAX;
}

void reload_cancel(struct master *m)
{
    struct reload *r = &m->reload;
    if (r->phase == RELOAD_SERVING)
        reload_finish(m, PROC_RELOAD_OK); /* it was committed; one asked for meanwhile fails */
    r->again = false;
    if (r->phase == RELOAD_IDLE)
        return;
    if (r->compiler)
        kill(r->compiler, SIGKILL);
    r->requested = atomic_load(&m->shared.proc->reload_requested);
    reload_fail(m, "Polder is stopping");
}
