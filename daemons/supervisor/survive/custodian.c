/* SPDX-License-Identifier: BSD-2-Clause */
/* custodian: see custodian.h. */
#include "daemons/supervisor/survive/custodian.h"
#include "daemons/supervisor/carry/parcel.h"
#include "daemons/supervisor/program.h"
#include "polder/clock.h"
#include "polder/heartbeat.h"
#include "polder/log.h"
#include "polder/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#define OFFER_MS       2000 /* for a custodian whose queue is full */
#define LISTEN_BACKLOG 128
#define LOOK_EVERY_MS  250
#define STOOD_MS       1500 /* between two looks: all of us stood still */
#define KILL_AFTER_MS  2000 /* of the abort, which may write a core file */
#define STILL_MS       2000 /* it has not run at all */
#define FAILURES_MAX   8    /* then what there is seems to be what kills */
#define PATIENCE       10
#ifdef __SANITIZE_ADDRESS__
#define STALE_MS 10000
#else
#define STALE_MS 3000
#endif

/* ---- what is kept ---- */

static void let(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Room for that slot; false: no memory. */
static bool make_room(struct kept **kept, uint32_t *n_kept, uint32_t slot)
{
    const uint32_t n = slot + slot / 2 + 64;
    if (slot < *n_kept)
        return true;
    struct kept *more = realloc(*kept, n * sizeof *more);
    if (!more)
        return false;
    for (uint32_t i = *n_kept; i < n; i++)
        more[i] = (struct kept){{-1, -1}};
    *kept = more;
    *n_kept = n;
    return true;
}

static struct kept *kept_of(struct custodian *c, uint32_t slot)
{
    const bool next = c->next_fd >= 0;
    struct kept **kept = next ? &c->next_kept : &c->kept;
    if (slot >= SEGMENT_SLOTS || (!next && c->blind) ||
        !make_room(kept, next ? &c->n_next_kept : &c->n_kept, slot))
        return NULL;
    return *kept + slot;
}

/* NULL: only the child can read the one in use. */
static struct segment *segment_of(const struct custodian *c)
{
    return c->next_segment ? c->next_segment : c->blind ? NULL : c->segment;
}

static void let_slot(struct custodian *c, uint32_t i)
{
    struct kept *k = kept_of(c, i);
    struct segment *g = segment_of(c);
    if (!k)
        return;
    let(&k->fd[0]);
    let(&k->fd[1]);
    if (g)
        atomic_store_explicit(&segment_slot(g, i)->phase, SLOT_FREE, memory_order_release);
}

/* All that have gone, of which not every note has come. */
static void let_gone(struct custodian *c)
{
    struct segment *g = segment_of(c);
    const uint32_t used = g ? segment_used(g) : 0;
    for (uint32_t i = 0; i < used; i++)
        if (atomic_load(&segment_slot(g, i)->phase) == SLOT_GONE)
            let_slot(c, i);
}

static void keep(int *at, int fd)
{
    let(at);
    *at = fd;
}

/* Takes fd. */
static void keep_of_slot(struct custodian *c, uint32_t slot, unsigned leg, int fd)
{
    struct kept *k = kept_of(c, slot);
    if (k)
        keep(&k->fd[leg], fd);
    else
        let(&fd);
}

bool custodian_keep(struct custodian *c, uint32_t slot, const struct kept *kept)
{
    struct kept *k = kept_of(c, slot);
    if (!k || k->fd[0] >= 0 || k->fd[1] >= 0)
        return false;
    *k = *kept;
    return true;
}

static void let_all(struct kept **kept, uint32_t *n)
{
    for (uint32_t i = 0; i < *n; i++) {
        let(&(*kept)[i].fd[0]);
        let(&(*kept)[i].fd[1]);
    }
    free(*kept);
    *kept = NULL;
    *n = 0;
}

/* ---- another program in place of the working one ---- */

void custodian_let_next(struct custodian *c)
{
    segment_free(c->next_segment);
    c->next_segment = NULL;
    let(&c->next_fd);
    let_all(&c->next_kept, &c->n_next_kept);
}

/* It has begun, and holds the same connections. Until it is ready its predecessor's state counts. */
static void take_segment(struct custodian *c, int fd)
{
    custodian_let_next(c);
    c->next_segment = segment_map(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    c->next_fd = fd;
    c->replaced = true;
    c->ready = false;
    c->heartbeat_seen_ms = clock_mono_ms();
    for (unsigned i = 0; i < CUSTODIAN_LINKS; i++)
        let(&c->link[i]);
    let(&c->servers);
    if (c->next_segment)
        return;
    c->blind = true;
    let_all(&c->kept, &c->n_kept);
    log_info("custodian: the new program keeps its state otherwise, as only its own custodian can "
             "read it");
}

static void switch_to_next(struct custodian *c)
{
    if (c->replaced && !c->blind) {
        c->next_segment->survived = c->segment->survived;
        let_all(&c->kept, &c->n_kept);
        segment_free(c->segment);
        c->kept = c->next_kept;
        c->n_kept = c->n_next_kept;
        c->segment = c->next_segment;
        let(&c->segment_fd);
        c->segment_fd = c->next_fd;
        c->next_fd = -1;
        c->next_segment = NULL;
        c->next_kept = NULL;
        c->n_next_kept = 0;
    }
    c->replaced = false;
}

/* ---- what the working process says ---- */

static void take_ready(struct custodian *c, const char *runtime_dir)
{
    char path[4096];
    const bool another = c->replaced;
    switch_to_next(c);
    for (int i = 0; i < 2; i++)
        if (c->listening[i] >= 0)
            listen(c->listening[i], LISTEN_BACKLOG); /* whoever connects sees this process */
    c->ready = c->was_ready = true;
    c->failures = c->own_failures = 0;
    c->give_up = false;
    c->heartbeat_seen_ms = clock_mono_ms();
    custodian_restart_over(c);
    if (c->draining && !c->stop_notified) /* a second time it would cut */
        custodian_stop(c, SIGTERM);
    c->stop_notified = c->draining;
    c->upgrades += another;
    if (another)
        custodian_renew(c, runtime_dir);
    else
        custodian_renew_tell(c);
    if (c->heartbeat >= 0)
        return;
    snprintf(path, sizeof path, "%s/" HEARTBEAT_FILE, runtime_dir);
    c->heartbeat = heartbeat_open(path);
    if (c->heartbeat < 0)
        log_warning("cannot write %s: %s; that we hang would not be noticed", path,
                    strerror(-c->heartbeat));
    heartbeat_write(c->heartbeat, clock_mono_ms());
    sd_notify(0, "READY=1");
}

static void take_note(struct custodian *c, const struct note *n, int fd, const char *runtime_dir)
{
    int none = -1;
    switch (n->kind) {
    case NOTE_KEEP_CLIENT:
    case NOTE_KEEP_BACKEND:
        keep_of_slot(c, n->number, n->kind == NOTE_KEEP_BACKEND, fd);
        return;
    case NOTE_LET_CLIENT:
    case NOTE_LET_BACKEND:
        keep_of_slot(c, n->number, n->kind == NOTE_LET_BACKEND, -1);
        break;
    case NOTE_LET:
        let_slot(c, n->number);
        break;
    case NOTE_KEEP_LINK:
    case NOTE_LET_LINK:
        keep(n->number < CUSTODIAN_LINKS ? &c->link[n->number] : &none, fd);
        let(&none);
        return;
    case NOTE_SERVERS:
        keep(&c->servers, fd);
        return;
    case NOTE_SEGMENT:
        take_segment(c, fd);
        return;
    case NOTE_READY:
        take_ready(c, runtime_dir);
        break;
    case NOTE_READ_AGAIN:
        c->read_again(c->arg);
        break;
    case NOTE_SAY:
        sd_notify(0, n->text);
        break;
    case NOTE_PACKED:
        custodian_packed(c, fd, n->text);
        return;
    case NOTE_HANDED_OVER:
        custodian_handed_over(c, n->number, n->text);
        break;
    default:
        break;
    }
    let(&fd);
}

/* False: the child has ended its side. */
static bool take_notes(struct custodian *c, const char *runtime_dir)
{
    struct note note;
    int fd, code;
    while ((code = note_receive(c->channel, &note, &fd)) > 0)
        take_note(c, &note, fd, runtime_dir);
    struct segment *g = segment_of(c);
    if (g && atomic_exchange(&g->missed, 0))
        let_gone(c);
    return code == 0;
}

/* ---- the child ---- */

static void become_child(struct custodian *c, int channel, pid_t parent)
{
    sigset_t none;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || dup3(channel, PROGRAM_CHANNEL_FD, O_CLOEXEC) < 0)
        _exit(1);
    close(channel);
    /* others mean the custodian; it forwards */
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    let(&c->signals);
    let(&c->heartbeat);
    let(&c->segment_fd);
    let(&c->renewal.pipe);
    let(&c->restart.pipe);
    c->forked = true;
    c->channel = PROGRAM_CHANNEL_FD; /* where a program that replaces this one finds it */
    process_title_set(CUSTODIAN_CHILD);
}

/* True in the child. */
static bool fork_child(struct custodian *c)
{
    int pair[2];
    const pid_t parent = getpid();
    const int room = 4 << 20;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        log_error("custodian: no socket pair: %s", strerror(errno));
        return false;
    }
    setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    c->pid = fork();
    if (c->pid == 0) {
        close(pair[0]);
        become_child(c, pair[1], parent);
        return true;
    }
    close(pair[1]);
    if (c->pid < 0) {
        log_error("custodian: cannot fork: %s", strerror(errno));
        c->pid = 0;
        close(pair[0]);
        return false;
    }
    c->channel = pair[0];
    c->ready = c->stop_notified = false;
    c->killed_ms = 0;
    c->heartbeat_seen_ms = clock_mono_ms();
    return false;
}

static void describe_death(struct custodian *c, int status)
{
    if (WIFEXITED(status))
        snprintf(c->death, sizeof c->death, "exit code %d", WEXITSTATUS(status));
    else
        snprintf(c->death, sizeof c->death, "signal %d (%s)%s", WTERMSIG(status),
                 strsignal(WTERMSIG(status)), c->killed_ms ? " after its heartbeat stopped" : "");
}

/* A process before us has left WebSockets, which are still there for the next child: what the one
 * that has died has made of them is not. */
static bool begins_anew(struct custodian *c)
{
    if (c->restart.box < 0 || !parcel_is_there(c->restart.box))
        return false;
    for (uint32_t i = 0; i < segment_used(c->segment); i++)
        let_slot(c, i);
    atomic_store(&c->segment->used, 0);
    c->segment->blocks_used = 0;
    c->segment->reading.slot = UINT32_MAX;
    for (unsigned i = 0; i < CUSTODIAN_LINKS; i++)
        let(&c->link[i]);
    let(&c->servers);
    return true;
}

/* -1: goes on; else the exit code. */
static int reap(struct custodian *c, const char *runtime_dir)
{
    int status;
    if (!c->pid || waitpid(c->pid, &status, WNOHANG) != c->pid)
        return -1;
    take_notes(c, runtime_dir);
    let(&c->channel);
    const bool holds = c->was_ready || c->restart.box >= 0;
    if (c->restart.done)
        return 0;
    if (WIFEXITED(status) && (c->ready || !holds || c->own_failures == FAILURES_MAX))
        return WEXITSTATUS(status);
    describe_death(c, status);
    c->deaths++;
    c->died_ms = clock_mono_ms();
    log_warning("custodian: the process of the WebSockets[%d] died: %s", (int)c->pid, c->death);
    c->pid = 0;
    custodian_restart_died(c);
    if (!holds || c->blind)
        return 1;
    if (c->replaced) /* what its predecessor has left is as it was */
        custodian_let_next(c);
    c->replaced = false;
    c->failures += !c->ready;
    c->own_failures += !c->ready && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    c->give_up = c->own_failures >= FAILURES_MAX;
    c->ready = false; /* and no other program finds a custodian without one */
    if (!begins_anew(c))
        let_gone(c);
    return -1;
}

static uint64_t pause_ms(const struct custodian *c)
{
    return c->failures < 4 ? 0 : c->failures < 10 ? 10u << (c->failures - 4) : 500;
}

/* ---- does it hang? ---- */

static uint64_t cpu_ms(pid_t pid)
{
    clockid_t id;
    struct timespec t;
    if (clock_getcpuclockid(pid, &id) != 0 || clock_gettime(id, &t) < 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* One that runs now and then on a busy machine gets more time than one that does not run, or that
 * does nothing else. */
static bool hangs(struct custodian *c, uint64_t now_ms)
{
    static uint64_t cpu_first_ms, cpu_last_ms, ran_ms;
    const uint64_t shown = atomic_load(&c->segment->heartbeats), cpu = cpu_ms(c->pid);
    if (cpu != cpu_last_ms)
        ran_ms = now_ms;
    cpu_last_ms = cpu;
    if (c->blind || shown != c->heartbeat_shown) {
        c->heartbeat_shown = shown;
        c->heartbeat_seen_ms = ran_ms = now_ms;
        cpu_first_ms = cpu;
        return false;
    }
    /* a program that has just become ready was seen after this look began */
    const uint64_t stale_ms = now_ms > c->heartbeat_seen_ms ? now_ms - c->heartbeat_seen_ms : 0;
    if (stale_ms < STALE_MS)
        return false;
    /* one that is not ready yet may have much to take up */
    return now_ms - ran_ms >= STILL_MS || (c->ready && cpu - cpu_first_ms >= STALE_MS) ||
           stale_ms >= (uint64_t)STALE_MS * PATIENCE;
}

static void look(struct custodian *c, uint64_t now_ms)
{
    if (c->killed_ms) {
        if (now_ms >= c->killed_ms + KILL_AFTER_MS)
            kill(c->pid, SIGKILL);
    } else if (hangs(c, now_ms)) {
        log_error("custodian: the process of the WebSockets[%d] has shown no heartbeat for %llu "
                  "ms: it is aborted, and another takes them up",
                  (int)c->pid, (unsigned long long)(now_ms - c->heartbeat_seen_ms));
        c->killed_ms = now_ms;
        kill(c->pid, SIGABRT);
        kill(c->pid, SIGCONT); /* a stopped process does not die of an abort */
    }
}

/* Shows that this process runs. */
static void show(struct custodian *c, uint64_t now_ms)
{
    static uint64_t shown_ms;
    if (!c->was_ready || now_ms - shown_ms < HEARTBEAT_EVERY_MS)
        return;
    shown_ms = now_ms;
    heartbeat_write(c->heartbeat, now_ms);
    if (c->watchdog)
        sd_notify(0, "WATCHDOG=1");
}

/* ---- the loop ---- */

static void forward(struct custodian *c, int number)
{
    const bool stops = number == SIGTERM || number == SIGINT;
    c->draining |= stops;
    if (stops && c->ready) {
        custodian_stop(c, number);
        c->stop_notified = true;
    } else if (c->pid && !stops) { /* else it is told when it is ready */
        note_send(c->channel, &(struct note){.kind = NOTE_SIGNAL, .number = (uint32_t)number},
                  offsetof(struct note, text), -1);
    }
}

static int take_signals(struct custodian *c, const char *runtime_dir)
{
    struct signalfd_siginfo info;
    bool died = false;
    while (read(c->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            died = true;
        else
            forward(c, (int)info.ssi_signo);
    }
    const int code = died ? reap(c, runtime_dir) : -1;
    if (died && code < 0) {
        custodian_renew_look(c, runtime_dir);
        custodian_restart_look(c);
    }
    return code;
}

static int custodian_turn(struct custodian *c, const char *runtime_dir)
{
    static uint64_t looked_ms;
    struct pollfd p[2] = {{.fd = c->signals, .events = POLLIN},
                          {.fd = c->channel, .events = POLLIN}};
    poll(p, 2, LOOK_EVERY_MS);
    const uint64_t now_ms = clock_mono_ms();
    if (now_ms - looked_ms > STOOD_MS)
        c->heartbeat_seen_ms = now_ms;
    looked_ms = now_ms;
    if (c->pid && p[1].revents && !take_notes(c, runtime_dir) && !(p[0].revents & POLLIN))
        poll(NULL, 0, 1); /* it ends */
    const int code = p[0].revents ? take_signals(c, runtime_dir) : -1;
    if (code >= 0)
        return code;
    if (c->pid)
        look(c, now_ms);
    custodian_restart_due(c, now_ms);
    show(c, now_ms);
    return -1;
}

static void custodian_end(struct custodian *c)
{
    for (uint32_t i = 0; i < c->n_kept; i++)
        let_slot(c, i);
    heartbeat_withdraw(c->heartbeat);
}

int custodian_run(struct custodian *c, const char *runtime_dir)
{
    int code = c->pid ? reap(c, runtime_dir) : -1;
    if (c->pid)
        let_gone(c); /* while nobody looked */
    while (code < 0) {
        if (!c->pid && clock_mono_ms() >= c->died_ms + pause_ms(c) && fork_child(c))
            return -1;
        code = custodian_turn(c, runtime_dir);
    }
    custodian_end(c);
    return code;
}

static int open_signals(void)
{
    static const int taken[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        sigaddset(&set, taken[i]);
        signal(taken[i], SIG_DFL); /* one that is ignored would not be seen */
    }
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The one of this process. */
static struct custodian custodian;

struct custodian *custodian_init(void)
{
    struct custodian *c = &custodian;
    for (unsigned i = 0; i < CUSTODIAN_LINKS; i++)
        c->link[i] = -1;
    c->servers = c->channel = c->heartbeat = c->signals = c->listening[0] = c->listening[1] = -1;
    c->segment_fd = c->next_fd = c->renewal.pipe = c->restart.pipe = c->restart.box = -1;
    return c;
}

bool custodian_is_there(int channel)
{
    int type = 0;
    socklen_t len = sizeof type;
    return getsockopt(channel, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_SEQPACKET;
}

/* What follows would be filed under the segment before: without it this program must not go on, and
 * the one before it takes up. */
static void offer_segment(int channel, int fd)
{
    const struct note offer = {.kind = NOTE_SEGMENT, .number = SEGMENT_LAYOUT};
    struct pollfd room = {.fd = channel, .events = POLLOUT};
    if (note_send(channel, &offer, offsetof(struct note, text), fd))
        return;
    poll(&room, 1, OFFER_MS);
    if (note_send(channel, &offer, offsetof(struct note, text), fd))
        return;
    log_error("custodian: it takes no messages: this program cannot take over");
    _exit(1);
}

struct custodian *custodian_adopt(int channel)
{
    int fd;
    struct custodian *c = &custodian;
    if (!custodian_is_there(channel))
        return NULL;
    fcntl(channel, F_SETFD, FD_CLOEXEC);
    if (!(c->segment = segment_new_fd(&fd)))
        return NULL;
    custodian_init();
    c->channel = channel;
    offer_segment(channel, fd);
    close(fd);
    return c;
}

struct custodian *custodian_new(void)
{
    struct custodian *c = &custodian;
    uint64_t interval_us;
    int fd = -1;
    if (!(c->segment = segment_new_fd(&fd))) {
        log_warning("custodian: no shared memory: %s; WebSockets will not survive this process",
                    strerror(errno));
        return NULL;
    }
    custodian_init();
    c->segment_fd = fd;
    c->signals = open_signals();
    c->watchdog = sd_watchdog_enabled(0, &interval_us) > 0;
    return c;
}
