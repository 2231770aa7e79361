/* SPDX-License-Identifier: BSD-2-Clause */
/* main: the notifier's life, and its queue. See notifier.h. */
#include "daemons/notifier/notifier.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/log.h"
#include "polder/process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS       1000
#define LEAVING_TURNS 100 /* of 5 ms */
#define PAUSE_MS      2000 /* before the second attempt; four times as long before each further one */

/* A notice that is being passed on. */
struct delivery {
    struct alert_notice *at; /* NULL: none */
    uint64_t number, row_id;
    struct program program;
};
struct notifier {
    const struct process *process;
    const char *path;
    struct alert_page *page;
    struct delivery delivery[NOTIFIER_PROGRAMS];
    struct {
        uint64_t number, next_ms;
    } retry[ALERT_NOTICES]; /* by the place of the notice */
    uint64_t minute_ms;     /* of the starts that are counted */
    unsigned starts;
    char mark[sizeof NOTIFIER_MARK + 4096];
    int signal_fd;
    bool leaving;
};

/* ---- what became of one ---- */

static void set_condition(struct notifier *n, bool failed, const char *why)
{
    condition_set(n->process->shared->conditions, COND_ALERT_PROGRAM_FAILED, NULL, failed, why,
                  clock_real_ms());
}

static bool is_still_there(const struct delivery *d)
{
    return atomic_load(&d->at->number) == d->number;
}

static void finish(struct notifier *n, struct delivery *d, bool delivered)
{
    atomic_fetch_add(delivered ? &n->page->delivered : &n->page->failed, 1);
    if (is_still_there(d))
        atomic_store(&d->at->done, 1);
}

static void try_again(struct notifier *n, struct delivery *d, const char *why, uint64_t now_ms)
{
    const uint32_t attempts = atomic_load(&d->at->attempts);
    const size_t place = (size_t)(d->at - n->page->notice);
    if (!is_still_there(d) || attempts >= NOTIFIER_ATTEMPTS) {
        log_error("notifier: %s failed %u times: an alert is not passed on: %s", n->path, attempts,
                  why);
        set_condition(n, true, why);
        finish(n, d, false);
        return;
    }
    const uint64_t pause_ms = (uint64_t)PAUSE_MS << 2 * (attempts - 1);
    n->retry[place].number = d->number;
    n->retry[place].next_ms = now_ms + pause_ms;
    log_warning("notifier: %s failed: %s; trying again in %u s", n->path, why,
                (unsigned)(pause_ms / 1000));
}

static void describe(const struct program *p, int status, char *out, size_t size)
{
    char how[64];
    if (WIFSIGNALED(status))
        snprintf(how, sizeof how, "killed by signal %d", WTERMSIG(status));
    else
        snprintf(how, sizeof how, "exit status %d", WEXITSTATUS(status));
    snprintf(out, size, "%s%s%s%s", how,
             WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? ", perhaps after 10 s" : "",
             p->len ? ": " : "", p->said);
}

static void on_end(struct notifier *n, struct delivery *d, int status, uint64_t now_ms)
{
    char why[PROGRAM_SAID + 128];
    const bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    program_end(&d->program);
    describe(&d->program, status, why, sizeof why);
    if (good) {
        finish(n, d, true);
        set_condition(n, false, NULL);
    } else {
        try_again(n, d, why, now_ms);
    }
    d->at = NULL;
}

static bool is_program(const struct notifier *n, pid_t pid)
{
    for (size_t i = 0; i < NOTIFIER_PROGRAMS; i++)
        if (n->delivery[i].at && n->delivery[i].program.pid == pid)
            return true;
    return false;
}

/* What programs leave behind becomes our child (PR_SET_CHILD_SUBREAPER). */
static void end_leftovers(const struct notifier *n)
{
    pid_t pid[64];
    const size_t count = leftovers_children(pid, sizeof pid / sizeof *pid);
    for (size_t i = 0; i < count; i++)
        if (!is_program(n, pid[i]))
            kill(pid[i], SIGKILL);
}

static void reap(struct notifier *n, uint64_t now_ms)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (size_t i = 0; i < NOTIFIER_PROGRAMS; i++)
            if (n->delivery[i].at && n->delivery[i].program.pid == pid)
                on_end(n, &n->delivery[i], status, now_ms);
}

/* ---- which is next ---- */

static bool is_under_way(const struct notifier *n, uint64_t number)
{
    for (size_t i = 0; i < NOTIFIER_PROGRAMS; i++)
        if (n->delivery[i].at && n->delivery[i].number == number)
            return true;
    return false;
}

static bool has_earlier(const uint64_t *rows, size_t n, uint64_t row)
{
    for (size_t i = 0; i < n; i++)
        if (rows[i] == row)
            return true;
    return false;
}

static bool may_start(struct notifier *n, uint64_t now_ms)
{
    if (now_ms - n->minute_ms >= 60000) {
        n->minute_ms = now_ms;
        n->starts = 0;
    }
    return n->starts < NOTIFIER_STARTS;
}

/* The attempt is counted before it begins: one that kills us is not tried for ever. */
static void start(struct notifier *n, struct delivery *d, struct alert_notice *at,
                  const struct alert_notice *notice, uint64_t now_ms)
{
    const uint64_t number = atomic_load(&notice->number);
    *d = (struct delivery){.at = at, .number = number, .row_id = notice->row_id};
    n->starts++;
    atomic_fetch_add(&at->attempts, 1);
    const int code =
        program_start(&d->program, n->path, n->mark, notice->text, notice->len, now_ms);
    if (code) {
        try_again(n, d, strerror(-code), now_ms);
        d->at = NULL;
    }
}

static struct delivery *free_delivery(struct notifier *n)
{
    for (size_t i = 0; i < NOTIFIER_PROGRAMS; i++)
        if (!n->delivery[i].at)
            return &n->delivery[i];
    return NULL;
}

/* The oldest first; but not one whose alert has an older one that is not done. */
static void start_what_is_due(struct notifier *n, uint64_t now_ms)
{
    uint64_t rows[ALERT_NOTICES], number = 0;
    struct alert_notice *at, notice;
    size_t earlier = 0;
    while (earlier < ALERT_NOTICES && alert_notice_next(n->page, number, &at, &notice)) {
        number = atomic_load(&notice.number);
        const size_t place = (size_t)(at - n->page->notice);
        const bool waits = n->retry[place].number == number && n->retry[place].next_ms > now_ms;
        struct delivery *d = free_delivery(n);
        if (!waits && d && !is_under_way(n, number) && may_start(n, now_ms) &&
            !has_earlier(rows, earlier, notice.row_id))
            start(n, d, at, &notice, now_ms);
        rows[earlier++] = notice.row_id;
    }
}

/* ---- the loop ---- */

/* A flood waits for the tick. */
static int fd_to_poll(const struct delivery *d)
{
    return d->at && d->program.len < PROGRAM_SAID ? d->program.err_fd : -1;
}

static void wait_for_events(struct notifier *n)
{
    struct pollfd p[2 + NOTIFIER_PROGRAMS] = {{n->signal_fd, POLLIN, 0},
                                              {n->process->shared->notifier_event, POLLIN, 0}};
    struct signalfd_siginfo info;
    uint64_t count;
    for (size_t i = 0; i < NOTIFIER_PROGRAMS; i++)
        p[2 + i] = (struct pollfd){fd_to_poll(&n->delivery[i]), POLLIN, 0};
    poll(p, 2 + NOTIFIER_PROGRAMS, TICK_MS);
    while (read(n->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        n->leaving |= info.ssi_signo == SIGTERM;
    if (p[1].revents && read(n->process->shared->notifier_event, &count, sizeof count) < 0)
        return;
}

static void look_at_programs(struct notifier *n, uint64_t now_ms)
{
    for (size_t i = 0; i < NOTIFIER_PROGRAMS; i++) {
        struct delivery *d = &n->delivery[i];
        if (!d->at)
            continue;
        program_read(&d->program);
        if (now_ms >= d->program.kill_ms)
            program_kill(&d->program);
    }
}

/* Nothing of what was begun stays: what is killed may leave its children to us. */
static void leave(struct notifier *n)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    for (size_t i = 0; i < NOTIFIER_PROGRAMS; i++)
        if (n->delivery[i].at)
            program_kill(&n->delivery[i].program);
    memset(n->delivery, 0, sizeof n->delivery);
    for (unsigned i = 0; i < LEAVING_TURNS && waitpid(-1, NULL, WNOHANG) >= 0; i++) {
        end_leftovers(n);
        nanosleep(&pause, NULL);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}

static void run(struct notifier *n)
{
    while (!n->leaving) {
        const uint64_t now_ms = clock_mono_ms();
        process_heartbeat(n->process, now_ms);
        reap(n, now_ms);
        look_at_programs(n, now_ms);
        end_leftovers(n);
        start_what_is_due(n, now_ms);
        wait_for_events(n);
    }
    leave(n);
}

static int signals_open(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

int notifier_run(const struct process *process, const char *program)
{
    static struct notifier n;
    n.process = process;
    n.path = program;
    n.page = process->shared->alerts;
    snprintf(n.mark, sizeof n.mark, NOTIFIER_MARK "%s", process->region->config->state_dir);
    process_start(process, "notifier");
    n.signal_fd = signals_open();
    if (n.signal_fd < 0) {
        log_error("notifier: cannot make a signalfd: %s", strerror(errno));
        return 1;
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    leftovers_end_marked(n.mark);
    process_ready(process);
    run(&n);
    return 0;
}
