/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The master with real forks, sockets and signals. Its children are replaced by small ones below:
 * a worker answers each connection with "index generation pid" and closes it.
 */
#include "daemons/master/master.h"
#include "daemons/master/upgrade.h"
#include "polder/cache.h"
#include "polder/clock.h"
#include "polder/fetch_lock.h"
#include "polder/stats.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define WAIT_MS 10000 /* until a condition must hold; reached only by a failing test */

struct site {
    char dir[64], config[96], log[96];
    uint16_t port;
    pid_t master;
};

/* ---- the children that the tests put in place of the real ones ---- */

static volatile sig_atomic_t told_to_leave;

static void leave(int sig)
{
    (void)sig;
    told_to_leave = 1;
}

static bool flag_is_set(const struct process *p, const char *name)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", p->region->config->state_dir, name);
    return access(path, F_OK) == 0;
}

static void pid_show(const struct process *p, const char *name)
{
    char path[160], tmp[170], text[16];
    snprintf(path, sizeof path, "%s/%s.pid", p->region->config->state_dir, name);
    snprintf(tmp, sizeof tmp, "%s.new", path);
    const int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const int n = snprintf(text, sizeof text, "%d", (int)getpid());
    if (fd < 0 || write(fd, text, (size_t)n) != n || close(fd) < 0 || rename(tmp, path) < 0)
        _exit(99);
}

static int idle_run(const struct process *p, const char *name)
{
    process_start(p, name);
    signal(SIGTERM, leave);
    pid_show(p, name);
    process_ready(p);
    while (!told_to_leave) {
        process_heartbeat(p, clock_mono_ms());
        poll(NULL, 0, 20);
    }
    return 0;
}

int keeper_run(const struct process *p)
{
    if (flag_is_set(p, "keeper_crashes") && !atomic_load(&p->shared->cache->rotate_requested))
        abort();
    if (atomic_load(&p->shared->cache->rotate_requested))
        pid_show(p, "rotated");
    if (flag_is_set(p, "killed_early") && p->incarnation <= 8)
        raise(SIGKILL); /* nobody can tell that from a kill from outside */
    return idle_run(p, "keeper");
}

int control_run(const struct process *p)
{
    atomic_store(&p->shared->proc->was_ready, 1); /* it has nobody to wait for */
    return idle_run(p, "control");
}

static void answer(const struct process *p, int listener)
{
    char text[64];
    const int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        return;
    const int n =
        snprintf(text, sizeof text, "%u %u %d\n", p->index, p->region->generation, (int)getpid());
    if (write(fd, text, (size_t)n) != n)
        _exit(98);
    close(fd);
}

/* The first incarnation holds whatever a worker can hold; the second looks what is left of it. */
static void hold_or_look(const struct process *p)
{
    static const struct cache_key key = {{1, 2, 3}};
    struct stats_slab *stats = &p->shared->stats[p->slot];
    struct proc_slot *slot = &p->shared->proc->slot[p->slot];
    _Atomic uint64_t *pin = p->shared->cache->pin[p->slot - PROC_SLOT_WORKER0];
    struct fetch_permit permit;
    if (p->incarnation > 1 &&
        (stats->gauge[STATS_GAUGE_CONNECTIONS_OPEN] || pin[CACHE_PINS - 1] || slot->connections ||
         slot->holding || stats->counter[STATS_REQUESTS] != 11))
        _exit(97);
    stats_add(stats, STATS_REQUESTS, 11);
    stats_gauge_set(stats, STATS_GAUGE_CONNECTIONS_OPEN, 5);
    pin[CACHE_PINS - 1] = 9;
    slot->connections = 7;
    slot->holding = 1;
    if (fetch_lock_claim(p->shared->fetch_locks, &key, p->slot - PROC_SLOT_WORKER0, p->incarnation,
                         1, &permit) != FETCH_LOCK_LEAD)
        _exit(96);
}

int worker_run(const struct process *p)
{
    struct pollfd mine[PROCESS_LISTENERS_MAX];
    nfds_t n = 0;
    process_start(p, "worker");
    if (p->region->generation > 1 && flag_is_set(p, "die_early"))
        abort();
    if (flag_is_set(p, "holds"))
        hold_or_look(p);
    if (flag_is_set(p, "poison") && !atomic_load(&p->shared->cache->rotate_requested)) {
        atomic_store(&p->shared->proc->slot[p->slot].poison, 1);
        _exit(1);
    }
    if (flag_is_set(p, "poison_old") && p->incarnation <= 3) {
        atomic_store(&p->shared->cache->epoch, 2);
        atomic_store(&p->shared->proc->slot[p->slot].poison, cache_poison_of(1));
        _exit(1);
    }
    signal(SIGTERM, flag_is_set(p, "stubborn") ? SIG_IGN : leave);
    for (uint32_t i = 0; i < p->n_listeners; i++)
        if (p->listeners[i].worker == UINT32_MAX || p->listeners[i].worker == p->index)
            mine[n++] = (struct pollfd){p->listeners[i].fd, POLLIN, 0};
    process_ready(p);
    while (!told_to_leave && getppid() == p->master_pid) {
        process_heartbeat(p, clock_mono_ms());
        if (poll(mine, n, 20) > 0)
            for (nfds_t i = 0; i < n; i++)
                if (mine[i].revents)
                    answer(p, mine[i].fd);
    }
    return 0;
}

/* The watchdog takes its time: this one's worker is stopped before all tests and looked at last. */
static struct site hung;
static int hung_pid;

/* Masters that a failed test has left behind. */
static pid_t running[4];

static void running_note(pid_t pid, bool runs)
{
    for (unsigned i = 0; i < 4; i++)
        if (running[i] == (runs ? 0 : pid)) {
            running[i] = runs ? pid : 0;
            return;
        }
}

/* After a test: all but the one that hangs. */
static int running_end(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++)
        if (running[i] && running[i] != hung.master) {
            kill(running[i], SIGKILL);
            waitpid(running[i], NULL, 0);
            running[i] = 0;
        }
    return 0;
}

/* ---- a site: a directory, a configuration, a running master ---- */

static uint16_t port_free(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    close(fd);
    return ntohs(sa.sin_port);
}

static void site_write(const struct site *s, const char *listen, unsigned workers,
                       const char *state, const char *more)
{
    FILE *f = fopen(s->config, "w");
    assert_non_null(f);
    fprintf(f,
            "listen = {%s}\nworkers = %u\nstate_dir = \"%s/%s\"\nruntime_dir = \"%s/run\"\n"
            "upstream \"u\" { server \"127.0.0.1:9\" { } }\nroute \"/*\" { upstream = \"u\" }\n%s",
            listen, workers, s->dir, state, s->dir, more);
    fclose(f);
}

static void site_make(struct site *s, unsigned workers)
{
    char where[64];
    strcpy(s->dir, "/tmp/polder-master-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    snprintf(s->config, sizeof s->config, "%s/polder.conf", s->dir);
    snprintf(s->log, sizeof s->log, "%s/log", s->dir);
    s->port = port_free();
    s->master = 0;
    snprintf(where, sizeof where, "\"127.0.0.1:%u\"", s->port);
    site_write(s, where, workers, "state", "");
}

static void site_start(struct site *s)
{
    s->master = fork();
    assert_true(s->master >= 0);
    if (s->master == 0) {
        const int fd = open(s->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, STDERR_FILENO);
        _exit(master_run("", s->config, -1));
    }
    running_note(s->master, true);
}

static void site_flag(const struct site *s, const char *name)
{
    char path[160];
    snprintf(path, sizeof path, "%s/state", s->dir);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/state/%s", s->dir, name);
    close(open(path, O_WRONLY | O_CREAT, 0600));
}

static bool site_says(const struct site *s, const char *text)
{
    static char log[1 << 20];
    const int fd = open(s->log, O_RDONLY);
    if (fd < 0)
        return false;
    const ssize_t n = read(fd, log, sizeof log - 1);
    close(fd);
    log[n > 0 ? n : 0] = '\0';
    return strstr(log, text) != NULL;
}

static int site_wait_exit(struct site *s)
{
    int status = -1;
    const uint64_t end = clock_mono_ms() + WAIT_MS;
    while (waitpid(s->master, &status, WNOHANG) == 0) {
        if (clock_mono_ms() > end) {
            kill(s->master, SIGKILL);
            fail_msg("the master did not leave");
        }
        poll(NULL, 0, 5);
    }
    running_note(s->master, false);
    s->master = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void site_remove(struct site *s)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", s->dir);
    assert_int_equal(system(command), 0);
}

static void site_stop(struct site *s)
{
    kill(s->master, SIGTERM);
    assert_int_equal(site_wait_exit(s), 0);
    site_remove(s);
}

struct reply {
    unsigned index, generation;
    int pid;
};

static bool port_ask(uint16_t port, struct reply *r)
{
    struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char text[64];
    const struct timeval limit = {1, 0};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ssize_t n = -1;
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0)
        n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return false;
    text[n] = '\0';
    return sscanf(text, "%u %u %d", &r->index, &r->generation, &r->pid) == 3;
}

/* Asks until every one of n workers of that generation has answered; their pids. */
static void site_hear_all(const struct site *s, unsigned n, unsigned generation, int *pids)
{
    struct reply r;
    unsigned heard = 0;
    const uint64_t end = clock_mono_ms() + WAIT_MS;
    memset(pids, 0, n * sizeof *pids);
    while (heard < n) {
        assert_true(clock_mono_ms() < end);
        if (!port_ask(s->port, &r)) {
            poll(NULL, 0, 5);
            continue;
        }
        if (r.generation != generation || r.index >= n)
            continue;
        heard += pids[r.index] == 0;
        pids[r.index] = r.pid;
    }
}

static int pid_read(const struct site *s, const char *name)
{
    char path[160];
    int pid = 0;
    snprintf(path, sizeof path, "%s/state/%s.pid", s->dir, name);
    FILE *f = fopen(path, "r");
    if (f) {
        if (fscanf(f, "%d", &pid) != 1)
            pid = 0;
        fclose(f);
    }
    return pid;
}

#define until(condition)                                                                           \
    do {                                                                                           \
        const uint64_t end_ = clock_mono_ms() + WAIT_MS;                                           \
        while (!(condition)) {                                                                     \
            assert_true(clock_mono_ms() < end_);                                                   \
            poll(NULL, 0, 5);                                                                      \
        }                                                                                          \
    } while (0)

/* ---- tests ---- */

static void every_worker_serves_and_sigterm_ends_with_zero(void **state)
{
    (void)state;
    struct site s;
    int pids[3];
    site_make(&s, 3);
    site_start(&s);
    site_hear_all(&s, 3, 1, pids);
    until(site_says(&s, "service: ready"));
    kill(s.master, SIGTERM);
    assert_int_equal(site_wait_exit(&s), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(kill(pids[i], 0), -1);
    site_remove(&s);
}

static void whoever_is_killed_is_back_within_a_second(void **state)
{
    (void)state;
    struct site s;
    int before[2], after[2];
    site_make(&s, 2);
    site_start(&s);
    site_hear_all(&s, 2, 1, before);
    until(site_says(&s, "service: ready"));
    const int keeper = pid_read(&s, "keeper"), control = pid_read(&s, "control");
    poll(NULL, 0, 100); /* a death right after the fork is answered a little later */

    const uint64_t start = clock_mono_ms();
    kill(before[0], SIGKILL);
    kill(before[1], SIGKILL);
    kill(keeper, SIGKILL);
    kill(control, SIGKILL);
    do
        site_hear_all(&s, 2, 1, after);
    while (after[0] == before[0] || after[1] == before[1]);
    until(pid_read(&s, "keeper") != keeper && pid_read(&s, "control") != control);
    assert_true(clock_mono_ms() - start < 1000);
    site_stop(&s);
}

static void repeated_kills_do_not_delay_the_return(void **state)
{
    (void)state;
    struct site s;
    int pid[1], previous = 0;
    site_make(&s, 1);
    site_start(&s);
    for (int i = 0; i < 6; i++) {
        const uint64_t start = clock_mono_ms();
        do
            site_hear_all(&s, 1, 1, pid);
        while (pid[0] == previous);
        if (i)
            assert_true(clock_mono_ms() - start < 1000);
        previous = pid[0];
        kill(previous, SIGKILL);
    }
    site_stop(&s);
}

static void who_is_killed_before_it_is_ready_is_back_soon_too(void **state)
{
    (void)state;
    struct site s;
    site_make(&s, 1);
    site_flag(&s, "killed_early");
    const uint64_t start = clock_mono_ms();
    site_start(&s);
    until(site_says(&s, "service: ready"));
    assert_true(clock_mono_ms() - start < 3000); /* eight times; a crash would have cost 11 s */
    assert_int_equal(pid_read(&s, "rotated"), 0);
    site_stop(&s);
}

static void what_a_dead_worker_held_is_cleared(void **state)
{
    (void)state;
    struct site s;
    int before[1], after[1];
    site_make(&s, 1);
    site_flag(&s, "holds");
    site_start(&s);
    site_hear_all(&s, 1, 1, before);
    kill(before[0], SIGKILL);
    do
        site_hear_all(&s, 1, 1, after);
    while (after[0] == before[0]);
    assert_false(site_says(&s, "exit code 9"));
    site_stop(&s);
}

static void a_suspected_store_is_rotated(const char *flag)
{
    struct site s;
    site_make(&s, 1);
    site_flag(&s, flag);
    site_start(&s);
    until(pid_read(&s, "rotated") != 0);
    until(site_says(&s, "service: ready"));
    site_stop(&s);
}

static void three_crashes_of_the_keeper_ask_for_an_empty_store(void **state)
{
    (void)state;
    a_suspected_store_is_rotated("keeper_crashes");
}

static void two_poisoned_workers_ask_for_an_empty_store(void **state)
{
    (void)state;
    a_suspected_store_is_rotated("poison");
}

static void who_died_of_the_store_before_does_not_accuse_this_one(void **state)
{
    (void)state;
    struct site s;
    site_make(&s, 2);
    site_flag(&s, "poison_old");
    site_start(&s);
    until(site_says(&s, "service: ready")); /* six deaths later */
    assert_false(site_says(&s, "asking the keeper"));
    site_stop(&s);
}

static void a_reload_replaces_the_workers_and_changes_their_number(void **state)
{
    (void)state;
    struct site s;
    int before[2], after[3];
    char where[64];
    site_make(&s, 2);
    site_start(&s);
    site_hear_all(&s, 2, 1, before);
    until(site_says(&s, "service: ready"));
    snprintf(where, sizeof where, "\"127.0.0.1:%u\"", s.port);
    site_write(&s, where, 3, "state", "");
    kill(s.master, SIGHUP);
    site_hear_all(&s, 3, 2, after);
    until(kill(before[0], 0) < 0 && kill(before[1], 0) < 0);
    site_stop(&s);
}

static void a_reload_moves_listeners(void **state)
{
    (void)state;
    struct site s;
    int pids[1];
    struct reply r;
    char where[64];
    site_make(&s, 1);
    site_start(&s);
    site_hear_all(&s, 1, 1, pids);
    until(site_says(&s, "service: ready"));
    const uint16_t old_port = s.port;
    s.port = port_free();
    snprintf(where, sizeof where, "\"127.0.0.1:%u\"", s.port);
    site_write(&s, where, 1, "state", "");
    kill(s.master, SIGHUP);
    site_hear_all(&s, 1, 2, pids);
    until(!port_ask(old_port, &r)); /* refused: closed in every process */
    site_stop(&s);
}

static void reload_refused(const char *flag, const char *listen, const char *state_dir,
                           const char *more, const char *reason)
{
    struct site s;
    int before[1], after[1];
    char usual[64];
    site_make(&s, 1);
    if (flag)
        site_flag(&s, flag);
    site_start(&s);
    site_hear_all(&s, 1, 1, before);
    until(site_says(&s, "service: ready"));
    snprintf(usual, sizeof usual, "\"127.0.0.1:%u\"", s.port);
    site_write(&s, listen ? listen : usual, 1, state_dir, more);
    kill(s.master, SIGHUP);
    until(site_says(&s, "reload: failed"));
    if (!site_says(&s, reason))
        fail_msg("the log lacks: %s", reason);
    site_hear_all(&s, 1, 1, after);
    assert_int_equal(before[0], after[0]);
    site_stop(&s);
}

static void a_broken_file_changes_nothing(void **state)
{
    (void)state;
    reload_refused(NULL, NULL, "state", "this is { broken\n", "polder.conf:");
}

static void another_state_dir_is_refused_by_a_reload(void **state)
{
    (void)state;
    reload_refused(NULL, NULL, "elsewhere", "", "state_dir cannot change");
}

static void a_reload_whose_workers_crash_changes_nothing(void **state)
{
    (void)state;
    reload_refused("die_early", NULL, "state", "", "die before they are ready");
}

static void a_reload_to_a_taken_port_changes_nothing(void **state)
{
    (void)state;
    char taken[64];
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    snprintf(taken, sizeof taken, "\"127.0.0.1:%u\"", ntohs(sa.sin_port));
    reload_refused(NULL, taken, "state", "", "another process listens there");
    close(fd);
}

static void a_taken_port_is_an_error_even_with_reuseport(void **state)
{
    (void)state;
    struct site s;
    const int on = 1;
    site_make(&s, 1);
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons(s.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(fd, 1), 0);
    site_start(&s);
    assert_int_equal(site_wait_exit(&s), 1);
    assert_true(site_says(&s, "another process listens there"));
    close(fd);
    site_remove(&s);
}

static void a_wrong_configuration_ends_with_two(void **state)
{
    (void)state;
    struct site s;
    site_make(&s, 1);
    site_write(&s, "\"127.0.0.1:1\"", 1, "state", "this is { broken\n");
    site_start(&s);
    assert_int_equal(site_wait_exit(&s), 2);
    site_remove(&s);
}

static void one_state_dir_serves_one_master(void **state)
{
    (void)state;
    struct site s, other;
    int pids[1];
    site_make(&s, 1);
    site_start(&s);
    site_hear_all(&s, 1, 1, pids);
    other = s;
    site_start(&other);
    /* the lock comes before the sockets; the second one waits for it until the first is gone */
    assert_false(site_says(&other, "another process listens"));
    kill(s.master, SIGTERM);
    assert_int_equal(site_wait_exit(&s), 0);
    site_hear_all(&other, 1, 1, pids);
    site_stop(&other);
}

static void a_worker_that_will_not_leave_is_killed(void **state)
{
    (void)state;
    struct site s;
    int pids[1];
    site_make(&s, 1);
    site_flag(&s, "stubborn");
    site_start(&s);
    site_hear_all(&s, 1, 1, pids);
    const uint64_t start = clock_mono_ms();
    kill(s.master, SIGINT);
    poll(NULL, 0, 50);
    kill(s.master, SIGINT); /* the second one does not wait for the drain */
    assert_int_equal(site_wait_exit(&s), 0);
    assert_true(clock_mono_ms() - start < 1000);
    site_remove(&s);
}

/* It serves already, and the answer waits for the old workers. */
static void a_stop_while_old_workers_accept_is_no_failed_reload(void **state)
{
    (void)state;
    struct site s;
    int pids[1];
    site_make(&s, 1);
    site_flag(&s, "stubborn");
    site_start(&s);
    site_hear_all(&s, 1, 1, pids);
    until(site_says(&s, "service: ready"));
    kill(s.master, SIGHUP);
    until(site_says(&s, "generation 2 serves"));
    kill(s.master, SIGINT);
    until(site_says(&s, "service: stopping"));
    kill(s.master, SIGINT);
    assert_int_equal(site_wait_exit(&s), 0);
    assert_false(site_says(&s, "reload: failed"));
    site_remove(&s);
}

static void a_stale_unix_socket_is_replaced_and_removed_at_the_end(void **state)
{
    (void)state;
    struct site s;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char where[128], text[64];
    site_make(&s, 2);
    snprintf(un.sun_path, sizeof un.sun_path, "%s/http.sock", s.dir);
    const int stale = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(stale, (struct sockaddr *)&un, sizeof un), 0);
    close(stale);
    snprintf(where, sizeof where, "\"unix:%s\"", un.sun_path);
    site_write(&s, where, 2, "state", "");
    site_start(&s);
    until(site_says(&s, "service: ready"));
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof un), 0);
    assert_true(read(fd, text, sizeof text) > 0);
    close(fd);
    kill(s.master, SIGTERM);
    assert_int_equal(site_wait_exit(&s), 0);
    assert_int_equal(access(un.sun_path, F_OK), -1);
    site_remove(&s);
}

/* ---- polder-supervisor without systemd ---- */

static const char with_websocket[] = "route \"/ws/*\" { upstream = \"u\" websocket { } }\n";

/* A stand-in on PATH that says who it is and waits to be told to leave. */
static void supervisor_fake(const struct site *s)
{
    char path[128], search[256];
    snprintf(path, sizeof path, "%s/polder-supervisor", s->dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "#!/bin/sh\necho $$ > %s/state/new; mv %s/state/new %s/state/supervisor.pid\n"
            "exec sleep 30\n",
            s->dir, s->dir, s->dir);
    fclose(f);
    assert_int_equal(chmod(path, 0755), 0);
    snprintf(search, sizeof search, "%s:/usr/bin:/bin", s->dir);
    setenv("PATH", search, 1);
}

static int supervisor_site(struct site *s)
{
    char where[64];
    site_make(s, 1);
    snprintf(where, sizeof where, "\"127.0.0.1:%u\"", s->port);
    site_write(s, where, 1, "state", with_websocket);
    supervisor_fake(s);
    site_start(s);
    until(pid_read(s, "supervisor") != 0);
    return pid_read(s, "supervisor");
}

static void a_supervisor_is_started_respawned_and_stopped(void **state)
{
    (void)state;
    struct site s;
    const int first = supervisor_site(&s);
    assert_int_equal(getsid(first), first); /* a killed terminal or master does not reach it */
    kill(first, SIGKILL);
    until(pid_read(&s, "supervisor") != first);
    const int second = pid_read(&s, "supervisor");
    until(site_says(&s, "service: ready"));
    kill(s.master, SIGTERM);
    assert_int_equal(site_wait_exit(&s), 0);
    assert_int_equal(kill(second, 0), -1);
    site_remove(&s);
}

static void a_supervisor_outlives_a_killed_master(void **state)
{
    (void)state;
    struct site s;
    const int pid = supervisor_site(&s);
    until(site_says(&s, "service: ready"));
    kill(s.master, SIGKILL);
    assert_int_equal(site_wait_exit(&s), 1000 + SIGKILL);
    poll(NULL, 0, 100);
    assert_int_equal(kill(pid, 0), 0);
    kill(pid, SIGKILL);
    site_remove(&s);
}

static void an_answering_supervisor_is_left_alone(void **state)
{
    (void)state;
    struct site s;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char where[64], path[80];
    site_make(&s, 1);
    supervisor_fake(&s);
    snprintf(where, sizeof where, "\"127.0.0.1:%u\"", s.port);
    site_write(&s, where, 1, "state", with_websocket);
    snprintf(path, sizeof path, "%s/run", s.dir);
    mkdir(path, 0700);
    snprintf(un.sun_path, sizeof un.sun_path, "%s/run/supervisor.sock", s.dir);
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    assert_int_equal(listen(fd, 1), 0);
    signal(SIGHUP, SIG_IGN); /* we are the supervisor that is told to read the file again */
    site_start(&s);
    until(site_says(&s, "service: ready"));
    until(site_says(&s, "was there"));
    close(fd);
    kill(s.master, SIGTERM);
    assert_int_equal(site_wait_exit(&s), 0);
    assert_false(site_says(&s, "supervisor: started"));
    site_remove(&s);
}

static int hang_start(void **state)
{
    (void)state;
#if !defined(                                                                                      \
    __SANITIZE_ADDRESS__) /* there the watchdog waits longer than this program may take   \
                                    */
    site_make(&hung, 1);
    site_start(&hung);
    site_hear_all(&hung, 1, 1, &hung_pid);
    kill(hung_pid, SIGSTOP);
#endif
    return 0;
}

static void a_hung_worker_is_aborted_and_replaced(void **state)
{
    (void)state;
    int after[1];
    if (!hung_pid)
        skip();
    until(site_says(&hung, "no heartbeat"));
    site_hear_all(&hung, 1, 1, after);
    assert_int_not_equal(hung_pid, after[0]);
    site_stop(&hung);
}

static void both_wildcards_share_a_port(void **state)
{
    (void)state;
    static struct listeners l;
    char why[256] = "";
    struct config_address a[2] = {{.len = sizeof(struct sockaddr_in), .text = "0.0.0.0"},
                                  {.len = sizeof(struct sockaddr_in6), .text = "[::]"}};
    struct sockaddr_in *v4 = (void *)&a[0].sa;
    struct sockaddr_in6 *v6 = (void *)&a[1].sa;
    const uint16_t port = port_free();
    *v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    *v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port)};
    const struct config both = {.listen = a, .n_listen = 2, .workers = 2};
    const struct config dual = {.listen = a + 1, .n_listen = 1, .workers = 2};
    const int v6_here = socket(AF_INET6, SOCK_STREAM, 0);
    if (v6_here < 0)
        skip();
    close(v6_here);
    memset(&l, 0, sizeof l);
    assert_int_equal(listeners_open(&l, &both, why, sizeof why), 0);
    assert_int_equal(listeners_listen(&l, why, sizeof why), 0);
    assert_int_equal(l.count, 16);
    listeners_close(&l);
    assert_int_equal(listeners_open(&l, &dual, why, sizeof why), 0);
    assert_int_equal(listeners_listen(&l, why, sizeof why), 0);
    struct sockaddr_in to = *v4;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK); /* alone, [::] takes IPv4 as well */
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    close(fd);
    listeners_close(&l);
}

static struct config_address ipv4(in_addr_t host, uint16_t port)
{
    struct config_address a = {.len = sizeof(struct sockaddr_in), .text = "it"};
    const struct sockaddr_in sa = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(host)};
    memcpy(&a.sa, &sa, sizeof sa);
    return a;
}

/* Control lets go of the old address before it takes the new one. */
static void the_ops_pages_may_move_to_another_address_of_their_port(void **state)
{
    (void)state;
    char why[256] = "";
    const uint16_t port = port_free(), other = port_free();
    const struct config now = {.ops_listen = ipv4(INADDR_LOOPBACK, port)};
    const struct config wider = {.ops_listen = ipv4(INADDR_ANY, port)};
    const struct config taken = {.ops_listen = ipv4(INADDR_LOOPBACK, other)};
    const int ops = socket(AF_INET, SOCK_STREAM, 0), stranger = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(ops, (const void *)&now.ops_listen.sa, now.ops_listen.len), 0);
    assert_int_equal(listen(ops, 1), 0);
    assert_int_equal(bind(stranger, (const void *)&taken.ops_listen.sa, taken.ops_listen.len), 0);
    assert_int_equal(listen(stranger, 1), 0);
    assert_int_equal(listeners_probe_ops(&now, &wider, why, sizeof why), 0);
    assert_int_equal(listeners_probe_ops(&now, &taken, why, sizeof why), -EADDRINUSE);
    close(ops);
    close(stranger);
}

static int hang_end(void **state)
{
    hung.master = 0; /* its turn, if it still runs */
    return running_end(state);
}

static void the_delay_doubles_up_to_five_seconds(void **state)
{
    (void)state;
    assert_int_equal(respawn_delay_ms(0), 0);
    assert_int_equal(respawn_delay_ms(1), 0);
    assert_int_equal(respawn_delay_ms(2), 100);
    assert_int_equal(respawn_delay_ms(3), 200);
    assert_int_equal(respawn_delay_ms(7), 3200);
    assert_int_equal(respawn_delay_ms(8), 5000);
    assert_int_equal(respawn_delay_ms(4000000000u), 5000);
}

static void sockets_are_spread_so_that_no_worker_is_without(void **state)
{
    (void)state;
    static struct listeners l;
    static struct generation g;
    char why[256] = "";
    for (uint32_t workers = 1; workers <= 24; workers++) {
        struct config_address a = {.len = sizeof(struct sockaddr_in), .text = "127.0.0.1:0"};
        struct sockaddr_in *sa = (void *)&a.sa;
        sa->sin_family = AF_INET;
        sa->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        const struct config config = {.listen = &a, .n_listen = 1, .workers = workers};
        unsigned of[24] = {0};
        memset(&l, 0, sizeof l);
        assert_int_equal(listeners_open(&l, &config, why, sizeof why), 0);
        g.workers = workers;
        listeners_assign(&l, &config, &g);
        assert_true(g.n_listeners >= 8 && g.n_listeners % workers == 0);
        for (uint32_t i = 0; i < g.n_listeners; i++)
            of[g.listeners[i].worker]++;
        for (uint32_t w = 0; w < workers; w++)
            assert_int_equal(of[w], g.n_listeners / workers);
        listeners_close(&l);
    }
}

static uint32_t judged(uint32_t good, enum proc_reload_state last)
{
    static struct master m;
    static struct proc_table proc;
    memset(&m, 0, sizeof m);
    m.shared.proc = &proc;
    m.shared.control_event = -1;
    m.upgrade.phase = UPGRADE_WORKERS;
    m.upgrade.text = m.upgrade.answer = -1;
    m.upgrade.reloads = 4;
    m.reload.begun = 6;
    m.reload.good = good;
    atomic_store(&proc.reload_state, last);
    upgrade_step(&m);
    assert_int_equal(m.upgrade.phase, UPGRADE_IDLE);
    return atomic_load(&proc.upgrade_state);
}

static void an_upgrade_is_judged_by_its_own_reload(void **state)
{
    (void)state;
    assert_int_equal(judged(6, PROC_RELOAD_OK), PROC_UPGRADE_OK);
    assert_int_equal(judged(5, PROC_RELOAD_FAILED), PROC_UPGRADE_OK); /* the next one's file */
    assert_int_equal(judged(4, PROC_RELOAD_FAILED), PROC_UPGRADE_FAILED);
    assert_int_equal(judged(4, PROC_RELOAD_OK), PROC_UPGRADE_FAILED); /* one before it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_delay_doubles_up_to_five_seconds, running_end),
        cmocka_unit_test_teardown(sockets_are_spread_so_that_no_worker_is_without, running_end),
        cmocka_unit_test_teardown(both_wildcards_share_a_port, running_end),
        cmocka_unit_test(the_ops_pages_may_move_to_another_address_of_their_port),
        cmocka_unit_test_teardown(every_worker_serves_and_sigterm_ends_with_zero, running_end),
        cmocka_unit_test_teardown(whoever_is_killed_is_back_within_a_second, running_end),
        cmocka_unit_test_teardown(repeated_kills_do_not_delay_the_return, running_end),
        cmocka_unit_test_teardown(who_is_killed_before_it_is_ready_is_back_soon_too, running_end),
        cmocka_unit_test_teardown(what_a_dead_worker_held_is_cleared, running_end),
        cmocka_unit_test_teardown(three_crashes_of_the_keeper_ask_for_an_empty_store, running_end),
        cmocka_unit_test_teardown(two_poisoned_workers_ask_for_an_empty_store, running_end),
        cmocka_unit_test_teardown(who_died_of_the_store_before_does_not_accuse_this_one,
                                  running_end),
        cmocka_unit_test_teardown(a_reload_replaces_the_workers_and_changes_their_number,
                                  running_end),
        cmocka_unit_test_teardown(a_reload_moves_listeners, running_end),
        cmocka_unit_test_teardown(a_broken_file_changes_nothing, running_end),
        cmocka_unit_test_teardown(another_state_dir_is_refused_by_a_reload, running_end),
        cmocka_unit_test_teardown(a_reload_whose_workers_crash_changes_nothing, running_end),
        cmocka_unit_test_teardown(a_reload_to_a_taken_port_changes_nothing, running_end),
        cmocka_unit_test_teardown(a_taken_port_is_an_error_even_with_reuseport, running_end),
        cmocka_unit_test_teardown(a_wrong_configuration_ends_with_two, running_end),
        cmocka_unit_test_teardown(one_state_dir_serves_one_master, running_end),
        cmocka_unit_test_teardown(a_worker_that_will_not_leave_is_killed, running_end),
        cmocka_unit_test_teardown(a_stop_while_old_workers_accept_is_no_failed_reload, running_end),
        cmocka_unit_test_teardown(a_stale_unix_socket_is_replaced_and_removed_at_the_end,
                                  running_end),
        cmocka_unit_test_teardown(a_supervisor_is_started_respawned_and_stopped, running_end),
        cmocka_unit_test_teardown(a_supervisor_outlives_a_killed_master, running_end),
        cmocka_unit_test_teardown(an_answering_supervisor_is_left_alone, running_end),
        cmocka_unit_test(an_upgrade_is_judged_by_its_own_reload),
        cmocka_unit_test_teardown(a_hung_worker_is_aborted_and_replaced, hang_end),
    };
    return cmocka_run_group_tests(tests, hang_start, NULL);
}
