/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * run: the master's life.
 *
 * Start: a child reads the file; directories, user, lock; shared memory; the file again, now as the
 * user and into its region; sockets; children. Then a loop that sleeps until a signal or a deadline
 * and lets each part look at the state. Stop: workers drain, control leaves, the keeper stores what
 * is in the rings and syncs, last the supervisor if it was started here.
 */
#include "daemons/master/master.h"
#include "daemons/master/upgrade.h"
#include "polder/clock.h"
#include "polder/fleet.h"
#include "polder/inval.h"
#include "polder/log.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define TICK_MS             1000 /* heartbeats are looked at, ours is shown */
#define LATE_MS             1000 /* a turn this late: the machine stood still, not the children */
#define LENIENT_MS          3000
#define FIRST_READY_MS      10000 /* for what is not ours: then systemd is told without it */
#define INTERRUPT_DRAIN_MS  1000
#define END_MS              2000 /* for requests that came while the others were finished */
#define CONTROL_GRACE_MS    2000
#define KEEPER_GRACE_MS     10000
#define WS_PROCESS_GRACE_MS 16000 /* beside drain_spread: for answers, and bytes that still move */
#define HURRY_MS            1000  /* the second signal */

/* Too large for the stack, one a process. */
static struct master master_context;

/* ---- stop ---- */

static void workers_tell(struct master *m, enum proc_draining stage, uint64_t grace_ms)
{
    atomic_store(&m->shared.proc->draining, stage);
    for (uint32_t r = 0; r < SHARED_REGIONS; r++)
        workers_stop(m, r, grace_ms);
    m->deadline_ms = m->now_ms + grace_ms;
}

static uint64_t ws_process_grace(const struct master *m)
{
    return master_config(m)->websocket.drain_spread_ms + WS_PROCESS_GRACE_MS;
}

static void stop_begin(struct master *m, uint64_t drain_ms)
{
    log_info("service: stopping; workers have %.0f s to finish", (double)drain_ms / 1000);
    m->phase = MASTER_DRAINING;
    notify_stopping();
    notify_status("stopping: workers finish what they have, and serve new clients meanwhile");
    upgrade_cancel(m);
    reload_cancel(m);
    workers_tell(m, PROC_DRAINING_SERVES, drain_ms);
    ws_process_stop(m, drain_ms + ws_process_grace(m));
}

/* From here on nobody is served until a successor is ready. */
static void stop_end(struct master *m)
{
    m->phase = MASTER_ENDING;
    workers_tell(m, PROC_DRAINING_ENDS, END_MS);
    listeners_close(&m->listeners); /* workers close theirs */
    history_file_save(m);           /* beside what follows, which waits for it last */
}

static void stop_hurry(struct master *m)
{
    log_warning("service: told again to stop: not waiting any longer");
    for (uint32_t slot = PROC_SLOT_CONTROL; slot < PROC_SLOTS; slot++)
        if (m->child[slot].pid)
            child_stop(m, slot, 0);
    if (m->phase == MASTER_SYNCING)
        child_stop(m, PROC_SLOT_KEEPER, HURRY_MS);
    ws_process_stop(m, HURRY_MS);
}

static void stop_requested(struct master *m, uint64_t drain_ms)
{
    if (m->phase == MASTER_STOPPED)
        return;
    if (++m->stop_signals == 1)
        stop_begin(m, drain_ms);
    else
        stop_hurry(m);
}

static uint32_t workers_left(const struct master *m)
{
    uint32_t n = 0;
    for (uint32_t r = 0; r < SHARED_REGIONS; r++)
        n += workers_living(m, r);
    return n;
}

/* There are no more invalidations. The page must be on disk before the keeper calls its store
 * clean, and before it is said up to where those of other hosts are in it. */
static void inval_sync(struct master *m)
{
    int rc;
    if (msync(m->shared.inval, inval_page_size(), MS_SYNC) < 0)
        log_error("service: cannot sync inval.page: %s", strerror(errno));
    else if ((rc = fleet_page_close(m->shared.fleet)) < 0)
        log_error("service: cannot sync fleet.page: %s", strerror(-rc));
}

/* Our own children, and what control waits for: the supervisor, where a route has WebSockets. */
static bool start_is_over(struct master *m)
{
    if (!child_ready(m, PROC_SLOT_KEEPER) || !child_ready(m, PROC_SLOT_CONTROL) ||
        workers_ready(m, m->current) < m->generation[m->current].workers)
        return false;
    if (!m->ready_by_ms)
        m->ready_by_ms = m->now_ms + FIRST_READY_MS;
    return !config_has_websockets(master_config(m)) || atomic_load(&m->shared.proc->was_ready) ||
           m->now_ms >= m->ready_by_ms;
}

/* A drain is asked of control, and begins and ends without us. */
static void status_tell(struct master *m)
{
    const struct generation *g = &m->generation[m->current];
    const uint64_t now = (uint64_t)g->number << 1 | atomic_load(&m->shared.proc->drained);
    if (m->phase != MASTER_RUNNING || now == m->status_notified)
        return;
    notify_status("%u workers, generation %u%s", g->workers, g->number,
                  now & 1 ? ", drained: readyz sends clients elsewhere" : "");
    m->status_notified = now;
}

static void phase_step(struct master *m)
{
    const bool hurry = m->stop_signals > 1;
    if (m->phase == MASTER_STARTING && start_is_over(m)) {
        m->phase = MASTER_RUNNING;
        generation_enter(m, m->current, GENERATION_CURRENT);
        log_info("service: ready");
        notify_ready(m);
    }
    status_tell(m);
    if (m->phase == MASTER_DRAINING && (workers_unsettled(m) == 0 || m->now_ms >= m->deadline_ms))
        stop_end(m);
    if (m->phase == MASTER_ENDING && workers_left(m) == 0) {
        m->phase = MASTER_STOPPING;
        child_stop(m, PROC_SLOT_CONTROL, hurry ? 0 : CONTROL_GRACE_MS);
    }
    if (m->phase == MASTER_STOPPING && m->child[PROC_SLOT_CONTROL].pid == 0) {
        m->phase = MASTER_SYNCING;
        notify_status("stopping: the keeper writes the cache to disk");
        inval_sync(m);
        notifier_process_stop(m, hurry);
        child_stop(m, PROC_SLOT_KEEPER, hurry ? HURRY_MS : KEEPER_GRACE_MS);
    }
    if (m->phase == MASTER_SYNCING && m->child[PROC_SLOT_KEEPER].pid == 0 &&
        m->child[PROC_SLOT_NOTIFIER].pid == 0 && m->history_file.pid == 0) {
        m->phase = MASTER_LEAVING;
        ws_process_stop(m, hurry ? HURRY_MS : ws_process_grace(m));
    }
    if (m->phase == MASTER_LEAVING && m->ws_process.pid == 0)
        m->phase = MASTER_STOPPED;
}

/* ---- loop ---- */

/* A reload is an upgrade where a package has put another program in the place of this one. */
static void reload_or_upgrade(struct master *m)
{
    struct proc_table *proc = m->shared.proc;
    if (m->phase != MASTER_RUNNING || m->reload.phase != RELOAD_IDLE ||
        m->upgrade.phase != UPGRADE_IDLE || !upgrade_is_due(m)) {
        reload_ask(m);
        return;
    }
    log_info("reload: %s is another program now: upgrading to it", m->program.path);
    atomic_fetch_add(&proc->upgrade_requested, 1);
    atomic_store(&proc->reload_state, PROC_RELOAD_UPGRADES);
    atomic_store(&proc->reload_done, atomic_load(&proc->reload_requested));
    shared_wake_control(&m->shared);
}

static void signals_take(struct master *m)
{
    struct signalfd_siginfo info;
    while (read(m->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        switch (info.ssi_signo) {
        case SIGTERM:
            stop_requested(m, PROCESS_DRAIN_MS);
            break;
        case SIGINT:
            stop_requested(m, INTERRUPT_DRAIN_MS);
            break;
        case SIGHUP:
            if (m->phase <= MASTER_RUNNING)
                reload_or_upgrade(m);
            break;
        case SIGUSR1:
            m->reopen_logs = true;
            break;
        case SIGUSR2: /* requests_take() sees it */
            atomic_fetch_add(&m->shared.proc->upgrade_requested, 1);
            break;
        default: /* SIGCHLD: a child died; ends_take() sees it */
            break;
        }
    }
}

/* Processes that have ended. */
static void ends_take(struct master *m)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (!child_reaped(m, pid, status) && !reload_reaped(m, pid, status) &&
            !upgrade_reaped(m, pid, status) && !history_file_reaped(m, pid, status))
            ws_process_reaped(m, pid, status);
}

/* Requests of children: the steps check which are ready. */
static void requests_take(struct master *m)
{
    uint64_t n;
    const ssize_t got = read(m->shared.master_event, &n, sizeof n);
    (void)got; /* only there to be woken */
    const uint32_t reloads = atomic_load(&m->shared.proc->reload_requested);
    if (reloads != m->reload.seen && m->phase <= MASTER_RUNNING)
        reload_or_upgrade(m);
    m->reload.seen = reloads;
    const uint32_t upgrades = atomic_load(&m->shared.proc->upgrade_requested);
    if (upgrades != m->upgrade.seen && m->phase <= MASTER_RUNNING)
        upgrade_ask(m);
    m->upgrade.seen = upgrades;
    const uint32_t reopens = atomic_load(&m->shared.proc->log_reopen_requested);
    if (m->reopen_logs || reopens != atomic_load(&m->shared.proc->log_reopen_done))
        logs_reopen(m);
    m->reopen_logs = false;
}

static void loop_wait(struct master *m)
{
    uint64_t wake = m->now_ms + TICK_MS;
    wake = earlier(wake, children_deadline(m));
    wake = earlier(wake, m->phase == MASTER_DRAINING ? m->deadline_ms : 0);
    wake = earlier(wake, reload_deadline(m));
    wake = earlier(wake, upgrade_deadline(m));
    wake = earlier(wake, ws_process_deadline(m));
    wake = earlier(wake, history_file_deadline(m));
    if (m->notify.watchdog_ms)
        wake = earlier(wake, m->notify.next_ms);
    const uint64_t wait_ms = wake > m->now_ms ? wake - m->now_ms : 0;
    struct pollfd p[] = {{m->signal_fd, POLLIN, 0},
                         {m->shared.master_event, POLLIN, 0},
                         {m->ws_process.found_fd, POLLIN, 0}}; /* -1: none, which poll() skips */
    poll(p, sizeof p / sizeof *p, (int)wait_ms);

    const uint64_t now = clock_mono_ms();
    if (now > m->now_ms + wait_ms + LATE_MS)
        m->lenient_ms = now + LENIENT_MS;
    m->now_ms = now;
}

static void loop_run(struct master *m)
{
    while (m->phase != MASTER_STOPPED) {
        atomic_store(&m->shared.proc->slot[PROC_SLOT_MASTER].heartbeat_ms, m->now_ms);
        signals_take(m);
        requests_take(m);
        ends_take(m);
        if (m->broken)
            return;
        children_step(m);
        ws_process_step(m);
        watchdog_step(m);
        reload_step(m);
        upgrade_step(m);
        names_step(m);
        history_file_step(m);
        notifier_process_step(m);
        phase_step(m);
        notify_step(m);
        if (m->phase != MASTER_STOPPED)
            loop_wait(m);
    }
}

/* ---- start ---- */

static int signals_open(struct master *m)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    m->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (m->signal_fd < 0)
        log_error("service: cannot make a signalfd: %s", strerror(errno));
    return m->signal_fd;
}

/* As they are, FILE:LINE first, for an editor to jump to. */
static void errors_print(const char *errors)
{
    const size_t len = strlen(errors);
    fprintf(stderr, "%s%s", errors, len && errors[len - 1] == '\n' ? "" : "\n");
}

/* Directories, user, lock, shared memory. */
static int start_prepare(struct master *m, const struct config *config)
{
    const struct shared_options options = {.state_dir = config->state_dir,
                                           .runtime_dir = config->runtime_dir,
                                           .limit_entries = config->limit_entries,
                                           .found = m->segments.found,
                                           .n_found = m->segments.n_found,
                                           .has_store = m->segments.has_store,
                                           .no_caches = !config_has_caches(config)};
    log_set_level((enum log_level)config->log_level);
    if (privileges_prepare(config, &m->lock_fd) < 0 || shared_create(&m->shared, &options) < 0)
        return EXIT_FAILED;
    segments_store(&m->segments, &m->shared);
    return EXIT_DONE;
}

/* Where the shared memory belongs is written in the file, which is read into shared memory: so a
 * first reading goes into a private place that is given up afterwards. */
static int start_scout(struct master *m)
{
    struct config_region *scout =
        mmap(NULL, SHARED_REGION_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (scout == MAP_FAILED) {
        log_error("service: no memory to read the configuration");
        return EXIT_FAILED;
    }
    int code = EXIT_CONFIG;
    if (compile_wait(NULL, scout, m->config_path, 1) < 0)
        errors_print(scout->errors);
    else
        code = start_prepare(m, scout->config);
    munmap(scout, SHARED_REGION_SIZE);
    return code;
}

static int start_configure(struct master *m)
{
    struct config_region *region = m->shared.region[0];
    char why[1024];
    if (compile_wait(&m->shared, region, m->config_path, 1) < 0) {
        errors_print(region->errors);
        return EXIT_CONFIG;
    }
    if (logs_open(m, 0, why, sizeof why) < 0 ||
        listeners_open(&m->listeners, region->config, why, sizeof why) < 0 ||
        listeners_listen(&m->listeners, why, sizeof why) < 0) {
        log_error("service: %s", why);
        return EXIT_FAILED;
    }
    listeners_keep(&m->listeners);
    atomic_store(&m->shared.proc->log_level, region->config->log_level);
    log_follow(&m->shared.proc->log_level);
    return EXIT_DONE;
}

static void start_children(struct master *m)
{
    struct proc_table *proc = m->shared.proc;
    struct generation *g = &m->generation[0];
    m->current = 0;
    m->generations = g->number = 1;
    g->workers = master_config(m)->workers;
    generation_enter(m, 0, GENERATION_STARTING);
    listeners_assign(&m->listeners, master_config(m), g);
    atomic_store(&proc->region, 0);
    atomic_store(&proc->generation, 1);
    atomic_store(&proc->started_ms, m->now_ms);
    names_again(m);
    children_init(m);
    child_start(m, PROC_SLOT_KEEPER, 0, 0); /* first: it opens the store that workers read */
    child_start(m, PROC_SLOT_CONTROL, 0, 0);
    workers_start(m, 0);
}

/* The first program of this process. */
static int start(struct master *m)
{
    int passed[PROCESS_LISTENERS_MAX];
    const int n_passed = segments_adopt(&m->segments, passed, PROCESS_LISTENERS_MAX);
    if (n_passed < 0 || listeners_adopt(&m->listeners, passed, n_passed) < 0)
        return EXIT_FAILED;
    int code = start_scout(m);
    if (code == EXIT_DONE)
        code = start_configure(m);
    if (code != EXIT_DONE)
        return code;
    master_announce(m);
    m->now_ms = clock_mono_ms();
    ws_process_init(m);
    start_children(m);
    return EXIT_DONE;
}

static void master_init(struct master *m, const char *program, const char *config_path)
{
    memset(m, 0, sizeof *m);
    m->config_path = config_path;
    m->lock_fd = -1;
    m->upgrade.answer = m->upgrade.text = -1;
    program_init(&m->program, program);
    logs_init(m);
    m->now_ms = clock_mono_ms();
    log_open("master");
    process_title_set("polderd: master");
}

int master_run(const char *program, const char *config_path, int block)
{
    struct master *m = &master_context;
    master_init(m, program, config_path);
    if (signals_open(m) < 0)
        return EXIT_FAILED;
    notify_init(&m->notify);
    int code = block < 0 ? start(m) : take_over(m, block);
    if (code == EXIT_DONE) {
        loop_run(m);
        log_info("service: stopped");
        if (m->broken)
            code = EXIT_FAILED;
    }
    listeners_close(&m->listeners);
    log_follow(NULL);
    if (m->shared.proc)
        shared_destroy(&m->shared);
    if (m->lock_fd >= 0)
        close(m->lock_fd);
    close(m->signal_fd);
    return code;
}
