/* SPDX-License-Identifier: BSD-2-Clause */
/* custodian: see custodian.h. */
#include "daemons/supervisor/survive/custodian.h"
#include "daemons/supervisor/survive/child.h"
#include "daemons/supervisor/survive/held.h"
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

/* ---- what the working process says ---- */

static void take_ready(struct custodian *c, const char *runtime_dir)
{
    char path[4096];
    const bool another = c->replaced;
    held_switch(c);
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
        held_keep_slot(c, n->number, n->kind == NOTE_KEEP_BACKEND, fd);
        return;
    case NOTE_LET_CLIENT:
    case NOTE_LET_BACKEND:
        held_keep_slot(c, n->number, n->kind == NOTE_LET_BACKEND, -1);
        break;
    case NOTE_LET:
        held_free_slot(c, n->number);
        break;
    case NOTE_KEEP_LINK:
    case NOTE_LET_LINK:
        held_replace(n->number < CUSTODIAN_LINKS ? &c->link[n->number] : &none, fd);
        held_close(&none);
        return;
    case NOTE_SERVERS:
        held_replace(&c->servers, fd);
        return;
    case NOTE_SEGMENT:
        held_take_segment(c, fd);
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
    held_close(&fd);
}

/* False: the child has ended its side. */
static bool take_notes(struct custodian *c, const char *runtime_dir)
{
    struct note note;
    int fd, code;
    while ((code = note_receive(c->channel, &note, &fd)) > 0)
        take_note(c, &note, fd, runtime_dir);
    struct segment *g = held_segment(c);
    if (g && atomic_exchange(&g->missed, 0))
        held_free_gone(c);
    return code == 0;
}

/* -1: goes on; else the exit code. */
static int custodian_reap(struct custodian *c, const char *runtime_dir)
{
    int status;
    if (!c->pid || waitpid(c->pid, &status, WNOHANG) != c->pid)
        return -1;
    take_notes(c, runtime_dir);
    return child_ended(c, status);
}

/* Shows that this process runs. */
static void heartbeat_show(struct custodian *c, uint64_t now_ms)
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

static void signal_forward(struct custodian *c, int number)
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
            signal_forward(c, (int)info.ssi_signo);
    }
    const int code = died ? custodian_reap(c, runtime_dir) : -1;
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
        child_watch(c, now_ms);
    custodian_restart_due(c, now_ms);
    heartbeat_show(c, now_ms);
    return -1;
}

static void custodian_end(struct custodian *c)
{
    for (uint32_t i = 0; i < c->n_kept; i++)
        held_free_slot(c, i);
    heartbeat_withdraw(c->heartbeat);
}

int custodian_run(struct custodian *c, const char *runtime_dir)
{
    int code = c->pid ? custodian_reap(c, runtime_dir) : -1;
    if (c->pid)
        held_free_gone(c); /* while nobody looked */
    while (code < 0) {
        if (!c->pid && clock_mono_ms() >= c->died_ms + child_pause_ms(c) && child_fork(c))
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
    if (!custodian_is_there(channel))
        return NULL;
    fcntl(channel, F_SETFD, FD_CLOEXEC);
    struct custodian *c = custodian_init();
    if (!(c->segment = segment_new_fd(&fd)))
        return NULL;
    c->channel = channel;
    offer_segment(channel, fd);
    close(fd);
    return c;
}

struct custodian *custodian_new(void)
{
    struct custodian *c = custodian_init();
    uint64_t interval_us;
    int fd = -1;
    if (!(c->segment = segment_new_fd(&fd))) {
        log_warning("custodian: no shared memory: %s; WebSockets will not survive this process",
                    strerror(errno));
        return NULL;
    }
    c->segment_fd = fd;
    c->signals = open_signals();
    c->watchdog = sd_watchdog_enabled(0, &interval_us) > 0;
    return c;
}
