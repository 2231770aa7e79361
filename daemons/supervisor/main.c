/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * polder-supervisor: owns every WebSocket. Reads the same file as polderd; SIGHUP reads it again
 * (proved first), SIGUSR2 replaces the program in place (upgrade.h), SIGTERM closes all with 1012 over
 * some seconds and exits, or leaves all to the next process where systemd restarts it (restart.h). It
 * survives a crash, restart or reload of polderd.
 */
#include "daemons/net/unix_socket.h"
#include "daemons/supervisor/program.h"
#include "daemons/supervisor/restart.h"
#include "daemons/supervisor/supervisor.h"
#include "daemons/supervisor/survive/custodian.h"
#include "daemons/supervisor/survive/manager.h"
#include "daemons/supervisor/survive/survive.h"
#include "daemons/supervisor/upgrade.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/log.h"
#include "polder/process.h"
#include "polder/sandbox.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define DEFAULT_CONFIG "/etc/polder/polder.conf"
/* Descriptors for other uses than WebSockets: links to workers, admin connections, the loop's. A
 * message is lost if there is no room for its descriptor, so sessions are refused before that. */
#define OWN_FILES 256

static void print_error(void *arg, const char *line)
{
    (void)arg;
    fprintf(stderr, "%s\n", line);
}

/* ---- loop ---- */

static void on_due(struct timer *t)
{
    struct session *x = TIMER_OWNER(t, struct session, timer);
    struct supervisor *s = x->supervisor;
    switch (x->state) {
    case SESSION_OPEN:
        heartbeat_due(s, x);
        break;
    case SESSION_CONNECTING:
    case SESSION_ASKING:
        backend_ready(s, x, EV_TIMER);
        break;
    case SESSION_REFUSING:
        refuse_due(s, x);
        break;
    case SESSION_CLOSING:
        session_close_due(s, x);
        break;
    default:
        break;
    }
}

static void on_tick(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    (void)w, (void)revents;
    if ((LIST_EMPTY(&s->sessions) && LIST_EMPTY(&s->leaving)) || s->now_ms >= s->drain_until_ms)
        ev_break(loop, EVBREAK_ALL);
}

static void end_turn(struct supervisor *s)
{
    sessions_bury(s);
    supervisor_log_flush(s);
}

static void before_replaced(struct supervisor *s)
{
    ws_fleet_flush(s);
    end_turn(s);
}

static void before_sleep(struct ev_loop *loop, ev_prepare *w, int revents)
{
    (void)w, (void)revents;
    end_turn(ev_userdata(loop));
}

static void after_sleep(struct ev_loop *loop, ev_check *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    (void)w, (void)revents;
    s->now_ms = clock_mono_ms();
    s->real_ms = clock_real_ms();
}

static void on_stop(struct ev_loop *loop, ev_signal *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    (void)w, (void)revents;
    if (s->draining) {
        ev_break(loop, EVBREAK_ALL);
        return;
    }
    log_info("stopping; %u WebSockets are told to reconnect", s->open);
    survive_say(s, "STOPPING=1\nSTATUS=stopping: WebSockets are told to reconnect");
    s->now_ms = clock_mono_ms();
    drain_begin(s);
    intake_leave(s);
    ev_timer_again(loop, &s->tick);
}

static void reload_and_tell(struct supervisor *s)
{
    s->reload_failed = !config_reload(s);
    presence_tell(s);
}

/* Another program where this one was started from, which a package has put there, reads the
 * configuration, too. */
static void on_reload(struct ev_loop *loop, ev_signal *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    (void)w, (void)revents;
    s->now_ms = clock_mono_ms();
    if (!s->draining && program_differs())
        upgrade_begin(s, NULL, reload_and_tell);
    else
        reload_and_tell(s);
}

static void conditions_path(const struct supervisor *s, char path[4096])
{
    mkdir(s->config->runtime_dir, 0755);
    snprintf(path, 4096, "%s/conditions.page", s->config->runtime_dir);
}

/* Before anything is raised. Without the file raised conditions are only in the log. What the
 * program before has raised is still so. */
static void conditions_begin(struct supervisor *s, bool resumes)
{
    static struct shm_segment segment;
    char path[4096];
    conditions_path(s, path);
    const int code =
        (resumes ? conditions_continue : conditions_open)(&segment, path, CONDITIONS_OF_SUPERVISOR);
    s->conditions = code < 0 ? NULL : conditions_of(&segment);
}

static void on_reopen(struct ev_loop *loop, ev_signal *w, int revents)
{
    (void)w, (void)revents;
    config_open_log(ev_userdata(loop));
}

static void on_upgrade(struct ev_loop *loop, ev_signal *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    (void)w, (void)revents;
    s->now_ms = clock_mono_ms();
    upgrade_begin(s, NULL, NULL);
}

static void upgrade_requested(struct supervisor *s, const struct rpc_call *call)
{
    upgrade_begin(s, call, NULL);
}

static int open_sockets(struct supervisor *s)
{
    if (intake_open(s))
        return 1;
    if (methods_open(s)) {
        intake_close(s);
        return 1;
    }
    s->upgrade.since_ms = s->now_ms;
    return 0;
}

static void unblock_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void allow_files(struct supervisor *s)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files))
        return;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    s->may_hold = files.rlim_max > OWN_FILES && files.rlim_max < UINT32_MAX
                      ? (uint32_t)files.rlim_max - OWN_FILES
                      : UINT32_MAX;
}

/* c: NULL: this process has no custodian, and memory of its own. */
static bool begin_buffers(struct supervisor *s, struct custodian *c)
{
    if (c)
        return survive_begin(s, c);
    buffer_pool_init(&s->buffers, SUPERVISOR_CHUNK, SUPERVISOR_CHUNKS);
    s->buffer = malloc(SUPERVISOR_READ + FRAMES_CONTROL_MAX);
    return s->buffer != NULL;
}

/* Before a filter of system calls. */
static void pin_program(void)
{
    if (!program_pin())
        log_warning("upgrade: no memory for what it would need; only a restart replaces %s",
                    program_path());
}

static int run(struct supervisor *s, struct custodian *c, bool resumes)
{
    static ev_check check;
    s->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (!s->loop || !begin_buffers(s, c))
        return 1;
    ev_set_userdata(s->loop, s);
    s->now_ms = clock_mono_ms();
    s->real_ms = clock_real_ms();
    leaked_begin(&s->leaked, s->now_ms);
    timer_wheel_init(&s->wheel, s->loop, &s->now_ms, 0);
    s->seed = random_next(&s->random);
    s->on_local_message = local_message;
    handshake_begin(s);
    s->on_due = on_due;
    s->on_upgrade_requested = upgrade_requested;
    s->before_replaced = before_replaced;
    s->on_custodian_says = upgrade_of_custodian;
    s->on_pack = restart_pack;
    s->on_hand_over = restart_hand_over;
    s->upgrade.custodian_pending = c && !c->forked;
    if (c && c->forked)
        upgrade_begin_forked(s, c->upgrades);
    s->upgrade.pipe = -1;
    ev_timer_init(&s->tick, on_tick, 0, TIMER_TICK_MS / 1000.0);
    ev_prepare_init(&s->prepare, before_sleep);
    ev_prepare_start(s->loop, &s->prepare);
    ev_check_init(&check, after_sleep);
    ev_check_start(s->loop, &check);
    ev_signal_init(&s->on_term, on_stop, SIGTERM);
    ev_signal_init(&s->on_int, on_stop, SIGINT);
    ev_signal_init(&s->on_hup, on_reload, SIGHUP);
    ev_signal_init(&s->on_usr1, on_reopen, SIGUSR1);
    ev_signal_init(&s->on_usr2, on_upgrade, SIGUSR2);
    ev_signal_start(s->loop, &s->on_term);
    ev_signal_start(s->loop, &s->on_int);
    ev_signal_start(s->loop, &s->on_hup);
    ev_signal_start(s->loop, &s->on_usr1);
    ev_signal_start(s->loop, &s->on_usr2);
    survive_signals(s);
    const int box = c ? c->restart.box : s->restart.box;
    conditions_begin(s, resumes || box >= 0);
    config_open_log(s);
    const int code = resumes ? upgrade_resume(s) : open_sockets(s);
    if (code)
        return code;
    const bool follows = restart_resume(s, box, c && c->give_up);
    if (!c && box >= 0)
        manager_remove(CUSTODIAN_STORE); /* else its custodian does, when we are ready */
    values_tell_files(s);
    log_info("ready; at most %u WebSockets on a route", s->values.max_connections);
    pin_program();
    if (!s->filtered)
        s->filtered = sandbox_enter_or_warn(SANDBOX_SUPERVISOR, s->config->sandbox);
    presence_begin(s);
    if (!follows)
        survive_recover(s);
    survive_ready(s);
    unblock_signals();
    ev_run(s->loop, 0);
    presence_end(s);
    ws_fleet_flush(s);
    for (struct session *x = LIST_FIRST(&s->sessions), *next; x; x = next) {
        next = LIST_NEXT(x, entry);
        session_end(s, x, END_DRAIN);
    }
    refuse_end_all(s);
    sessions_bury(s);
    methods_close(s);
    intake_close(s);
    buffer_pool_trim(&s->buffers);
    if (!s->survivor)
        free(s->buffer);
    survive_end(s);
    ev_loop_destroy(s->loop);
    access_log_stop(&s->log);
    log_info("stopped");
    return 0;
}

/* Sockets that all working processes find open. polderd sees by them whose they are: the custodian
 * says so again when each of those has begun to listen. */
static void open_for_all(struct supervisor *s, struct custodian *c)
{
    static const struct {
        const char *name;
        int type;
    } sockets[] = {{"supervisor.sock", SOCK_SEQPACKET}, {"supervisor-rpc.sock", SOCK_STREAM}};
    int left[2];
    mkdir(s->config->runtime_dir, 0755);
    restart_take_listeners(c, left);
    for (size_t i = 0; i < sizeof sockets / sizeof *sockets; i++) {
        char path[128];
        struct unix_socket u;
        snprintf(path, sizeof path, "%s/%s", s->config->runtime_dir, sockets[i].name);
        if (i == 0 && s->intake_passed) {
            c->listening[i] = SD_LISTEN_FDS_START;
            if (left[i] >= 0)
                close(left[i]);
        } else if (left[i] >= 0 && unix_socket_adopt(&u, left[i], path, sockets[i].type) == 0) {
            unix_socket_inherit(&u);
            c->listening[i] = left[i];
        } else if (unix_socket_listen(&u, path, sockets[i].type, 0600, (gid_t)-1) == 0) {
            unix_socket_inherit(&u);
            c->listening[i] = u.fd;
        }
    }
}

static int hold(struct supervisor *s, struct custodian *c)
{
    static char runtime_dir[4096]; /* the configuration's own goes when it is read again */
    c->read_again = config_reload_copy;
    c->arg = s;
    snprintf(runtime_dir, sizeof runtime_dir, "%s", s->config->runtime_dir);
    const int code = custodian_run(c, runtime_dir);
    return code < 0 ? run(s, c, false) : code;
}

static int hold_on(struct supervisor *s)
{
    char why[400];
    struct custodian *c = custodian_take_over(PROGRAM_BLOCK_FD, why, sizeof why);
    if (!c) {
        log_error("upgrade: the custodian cannot go on: %s", why);
        return 1;
    }
    s->intake_passed = c->passed;
    pin_program();
    if (!c->filtered)
        c->filtered = sandbox_enter_or_warn(SANDBOX_CUSTODIAN, s->config->sandbox);
    return hold(s, c);
}

static int run_under_custodian(struct supervisor *s)
{
    if (intake_take_passed(s, &s->restart.box))
        return 1;
    static struct custodian *c; /* lives as long as the process */
    c = custodian_new();
    if (!c)
        return run(s, NULL, false);
    c->restart.box = s->restart.box;
    open_for_all(s, c);
    c->passed = s->intake_passed;
    char conditions[4096];
    conditions_path(s, conditions);
    conditions_make(conditions); /* its child inherits the filter, and may come before polderd */
    pin_program();
    c->filtered = sandbox_enter_or_warn(SANDBOX_CUSTODIAN, s->config->sandbox);
    return hold(s, c);
}

static int usage(FILE *to, int code)
{
    fprintf(to, "usage: polder-supervisor [-c FILE] [-t] [-V] [-h]\n"
                "  -c FILE  configuration (" DEFAULT_CONFIG
                ")\n  -t       check it and exit\n  -V       version\n  -h       this\n");
    return code;
}

struct options {
    const char *config;
    bool tests, resumes, holds;
    int (*prove)(const char *config_path);
};

/* -1: go on; else the exit status. -P, -R, -p, -r and -s are for the program that this one replaces. */
static int read_options(int argc, char **argv, struct options *o)
{
    int option;
    while ((option = getopt(argc, argv, "c:tVhPRprs")) != -1)
        switch (option) {
        case 'c':
            o->config = optarg;
            break;
        case 't':
            o->tests = true;
            break;
        case 'P':
            o->prove = upgrade_prove;
            break;
        case 'p':
            o->prove = upgrade_prove_custodian;
            break;
        case 's':
            o->prove = upgrade_prove_follower;
            break;
        case 'r':
            o->holds = true;
            break;
        case 'R':
            o->resumes = true;
            break;
        case 'V':
            printf("polder-supervisor %s\n", supervisor_version());
            return 0;
        case 'h':
            return usage(stdout, 0);
        default:
            return usage(stderr, 2);
        }
    return optind < argc ? usage(stderr, 2) : -1;
}

/* Signals that are sent to all processes may come before there are handlers. */
static void ignore_signals(void)
{
    signal(SIGHUP, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
}

/* Too large for the stack, one a process. */
static struct supervisor the_supervisor;

int main(int argc, char **argv)
{
    struct options o = {.config = DEFAULT_CONFIG};
    /* a file that may not grow is an EFBIG, as a full disk is an ENOSPC */
    signal(SIGXFSZ, SIG_IGN);
    clock_open();
    process_title_init(argc, argv);
    const int wrong = read_options(argc, argv, &o);
    if (wrong >= 0)
        return wrong;
    struct supervisor *s = &the_supervisor;
    s->path = strdup(o.config); /* the title is written over argv */
    s->log.fd = s->restart.box = -1;
    if (!s->path)
        return 1;
    if (o.prove)
        _exit(o.prove(s->path)); /* nothing of it is to be given back */
    program_begin(s->path);
    if (!o.resumes && !o.holds)
        ignore_signals();
    const struct config *c = o.resumes || o.holds
                                 ? config_read_proven(s)
                                 : supervisor_read_config(s->path, &s->arena[0], print_error);
    if (!c)
        return 2;
    if (o.tests) {
        if (!presence_agrees(c))
            return 2;
        printf("%s: ok\n", s->path);
        return 0;
    }
    config_use(s, c);
    process_title_set(o.resumes && custodian_is_there(PROGRAM_CHANNEL_FD) ? CUSTODIAN_CHILD
                                                                          : "polder-supervisor");
    log_open("supervisor");
    values_load(s);
    sandbox_begin(c->core_dumps);
    allow_files(s);
    signal(SIGPIPE, SIG_IGN);
    if (o.holds)
        return hold_on(s);
    return o.resumes ? run(s, custodian_adopt(PROGRAM_CHANNEL_FD), true) : run_under_custodian(s);
}
