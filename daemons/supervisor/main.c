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

static void log_mistake(void *arg, const char *line)
{
    (void)arg;
    log_error("config: %s", line);
}

/* Frees sessions that ended in this iteration: until now a caller may have used them. */
static void bury_ended(struct supervisor *s)
{
    while (!SLIST_EMPTY(&s->ended)) {
        struct session *x = SLIST_FIRST(&s->ended);
        SLIST_REMOVE_HEAD(&s->ended, ended_entry);
        local_free(x);
        free(x->pending);
        free(x->client_id);
        free(x->line);
        free(x);
    }
}

/* ---- configuration ---- */

static void use_config(struct supervisor *s, const struct config *c)
{
    const bool same_level = s->config && s->config->log_level == c->log_level;
    s->config = c;
    if (!same_level) { /* else it is what a command may have set */
        s->log_level = (enum log_level)c->log_level;
        log_set_level(s->log_level);
    }
    s->values = c->websocket;
    for (uint32_t i = 0; i < c->n_routes; i++)
        if (c->routes[i].websocket)
            s->route_values[i].ws = *c->routes[i].websocket;
    for (uint32_t i = 0; i < c->n_upstreams; i++)
        for (uint32_t k = 0; k < c->upstreams[i].n_servers; k++) {
            const struct config_server *server = &c->upstreams[i].servers[k];
            s->weights[server->index] = server->weight;
        }
}

/* A log that cannot be written is no reason to let WebSockets go. */
static void open_log(struct supervisor *s)
{
    char why[512];
    if (supervisor_log_open(s, why, sizeof why) < 0)
        log_error("%s", why);
}

static const struct config_route *same_route(const struct config *c, const struct config_route *old)
{
    for (uint32_t i = 0; i < c->n_routes; i++)
        if (c->routes[i].websocket && !strcmp(c->routes[i].pattern, old->pattern))
            return &c->routes[i];
    return NULL;
}

static bool same_servers(const struct config_upstream *a, const struct config_upstream *b)
{
    if (!a || !b)
        return a == b;
    if (strcmp(a->name, b->name) != 0 || a->n_servers != b->n_servers)
        return false;
    for (uint32_t i = 0; i < a->n_servers; i++)
        if (strcmp(a->servers[i].address.text, b->servers[i].address.text) != 0)
            return false;
    return true;
}

/* Does it go on as if nothing had happened? A handshake waits for one of the route's servers. */
static bool survives(const struct session *x, const struct config_route *to)
{
    return to && (x->state == SESSION_OPEN || x->state == SESSION_CLOSING ||
                  same_servers(x->route->upstream, to->upstream));
}

static void move_over(struct session *x, const struct config_route *to)
{
    if (x->pending && x->pending->server)
        x->pending->server =
            &to->upstream->servers[x->pending->server - x->route->upstream->servers];
    x->route = to;
}

/* Sessions move over to the route of the same pattern; those without a route any more, and
 * handshakes to changed servers, are closed to reconnect. */
static bool reload(struct supervisor *s)
{
    void *memory, *old_memory = s->arena[0];
    const struct config *c = supervisor_read_config(s->path, &memory, log_mistake),
                        *old = s->config;
    if (!c) {
        log_error("config: nothing has changed");
        return false;
    }
    if (strcmp(c->runtime_dir, old->runtime_dir)) {
        log_error("config: runtime_dir cannot change while polder-supervisor runs (\"%s\", not "
                  "\"%s\"); restart it for that; nothing has changed",
                  old->runtime_dir, c->runtime_dir);
        munmap(memory, SHARED_REGION_SIZE);
        return false;
    }
    struct route_count *counts = calloc(SUPERVISOR_ROUTES, sizeof *counts);
    struct values_before *before = counts ? values_before(s) : NULL;
    if (!before) {
        free(counts);
        munmap(memory, SHARED_REGION_SIZE);
        return false;
    }
    for (uint32_t i = 0; i < old->n_routes; i++) {
        const struct config_route *to = same_route(c, &old->routes[i]);
        if (to) {
            counts[to->index] = s->routes[i];
            counts[to->index].open = 0;
        }
    }
    for (struct session *x = LIST_FIRST(&s->sessions), *next; x; x = next) {
        next = LIST_NEXT(x, entry);
        if (survives(x, same_route(c, x->route)))
            continue;
        if (x->state != SESSION_CLOSING)
            session_close(s, x, 1012, "the service has changed", END_DRAIN);
        session_end(s, x, END_DRAIN); /* its configuration goes */
    }
    for (struct session *x = LIST_FIRST(&s->sessions); x; x = LIST_NEXT(x, entry)) {
        move_over(x, same_route(c, x->route));
        counts[x->route->index].open++;
    }
    bury_ended(s);
    memcpy(s->routes, counts, SUPERVISOR_ROUTES * sizeof *counts);
    free(counts);
    use_config(s, c);
    open_log(s);
    values_load(s);
    values_carry(s, before, old);
    values_before_free(before);
    values_tell_files(s);
    s->arena[0] = memory;
    munmap(old_memory, SHARED_REGION_SIZE);
    ws_fleet_read_config(s);
    survive_read_again(s);
    for (struct session *x = LIST_FIRST(&s->sessions); x; x = LIST_NEXT(x, entry))
        if (x->state == SESSION_OPEN && !x->deadline_ms)
            heartbeat_arm(s, x); /* in the intervals of now */
    log_info("config: read again");
    return true;
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
    bury_ended(s);
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
    s->reload_failed = !reload(s);
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

/* Before anything is raised. Without the file raised conditions are only in the log. What the
 * program before has raised is still so. */
static void conditions_begin(struct supervisor *s, bool resumes)
{
    static struct shm_segment segment;
    char path[4096];
    mkdir(s->config->runtime_dir, 0755);
    snprintf(path, sizeof path, "%s/conditions.page", s->config->runtime_dir);
    const int code =
        (resumes ? conditions_continue : conditions_open)(&segment, path, CONDITIONS_OF_SUPERVISOR);
    s->conditions = code < 0 ? NULL : conditions_of(&segment);
}

static void on_reopen(struct ev_loop *loop, ev_signal *w, int revents)
{
    (void)w, (void)revents;
    open_log(ev_userdata(loop));
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
    intake_begin(s);
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
    open_log(s);
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
    bury_ended(s);
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

/* The custodian's copy, for working processes to come. */
static void read_again(void *arg)
{
    struct supervisor *s = arg;
    void *memory, *old = s->arena[0];
    const struct config *c = supervisor_read_config(s->path, &memory, log_mistake);
    if (!c)
        return;
    use_config(s, c);
    s->arena[0] = memory;
    values_load(s);
    munmap(old, SHARED_REGION_SIZE);
}

static int hold(struct supervisor *s, struct custodian *c)
{
    static char runtime_dir[4096]; /* the configuration's own goes when it is read again */
    c->read_again = read_again;
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

static const struct config *read_config(struct supervisor *s, config_error_fn fn)
{
    return supervisor_read_config(s->path, &s->arena[0], fn);
}

/* The file as it is; or, where it has become wrong since the proof, as it was then. */
static const struct config *read_proven(struct supervisor *s)
{
    char path[32];
    const struct config *c = read_config(s, log_mistake);
    snprintf(path, sizeof path, "/proc/self/fd/%d", PROGRAM_FILE_FD);
    return c ? c : supervisor_read_config(path, &s->arena[0], log_mistake);
}

/* Too large for the stack, one a process. */
static struct supervisor the_supervisor;

int main(int argc, char **argv)
{
    struct options o = {.config = DEFAULT_CONFIG};
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
    const struct config *c = o.resumes || o.holds ? read_proven(s) : read_config(s, print_error);
    if (!c)
        return 2;
    if (o.tests) {
        if (!presence_agrees(c))
            return 2;
        printf("%s: ok\n", s->path);
        return 0;
    }
    use_config(s, c);
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
