/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * renew: the program of the custodian is replaced by the one that its child has just got. Without
 * that a child forked after a death would be of the version before.
 *
 *   1. A new program goes on in the child, and is ready: what is kept belongs to it.
 *   2. A child of its own runs that program with a copy of what the custodian would leave, and says
 *      whether it understands that.
 *   3. The block is written anew, all descriptors stay open, execve(): the same process goes on.
 *      Notes, signals and deaths that come meanwhile wait in the kernel.
 *
 * Whatever goes wrong before the execve() leaves the program that there was: what it forks later is
 * of its own version, and takes up what it can read. The child is told, and says so.
 */
#include "daemons/net/unix_socket.h"
#include "daemons/supervisor/program.h"
#include "daemons/supervisor/survive/custodian.h"
#include "daemons/supervisor/survive/proof.h"
#include "daemons/supervisor/upgrade.h"
#include "polder/clock.h"
#include "polder/log.h"
#include "polder/sandbox.h"
#include "polder/state_block.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define CANNOT_START 126
#define SAID_MAX     400
#define SUBJECT      "polder-supervisor's custodian"

enum { RECORD_CUSTODIAN = 1, RECORD_KEPT, RECORD_LINK, RECORD_HIGHEST = RECORD_LINK };
/* What comes to them comes behind the names of the calls. */
enum {
    NUMBER_PID,
    NUMBER_DEATHS,
    NUMBER_DIED_MS,
    NUMBER_UPGRADES,
    NUMBER_DRAINING,
    NUMBER_PASSED,
    NUMBER_FILTERED,
    NUMBERS
};

/* ---- the block ---- */

/* What its filter lets through, behind all numbers; "": it has none. */
static void put_calls(struct state_writer *w, const struct custodian *c)
{
    char calls[SANDBOX_CALLS_MAX];
    sandbox_calls(SANDBOX_CUSTODIAN, calls, sizeof calls);
    state_put_text(w, c->filtered ? calls : "");
}

static void put_custodian(struct state_writer *w, const struct custodian *c,
                          const char *runtime_dir)
{
    const uint64_t n[NUMBERS] = {[NUMBER_PID] = (uint64_t)c->pid, [NUMBER_DEATHS] = c->deaths,
                                 [NUMBER_DIED_MS] = c->died_ms,   [NUMBER_UPGRADES] = c->upgrades,
                                 [NUMBER_DRAINING] = c->draining, [NUMBER_PASSED] = c->passed,
                                 [NUMBER_FILTERED] = c->filtered};
    state_record(w, RECORD_CUSTODIAN, 0);
    state_put_text(w, runtime_dir);
    state_put_text(w, c->death);
    state_put_fd(w, c->blind ? c->next_fd : c->segment_fd, STATE_FD_SEGMENT);
    state_put_fd(w, c->servers, STATE_FD_SEGMENT);
    state_put_fd(w, c->channel, STATE_FD_CHANNEL);
    state_put_fd(w, c->signals, STATE_FD_SIGNALS);
    state_put_fd(w, c->heartbeat, STATE_FD_FILE);
    state_put_fd(w, c->listening[0], STATE_FD_LISTENER);
    state_put_fd(w, c->listening[1], STATE_FD_LISTENER);
    for (unsigned i = 0; i < NUMBERS; i++)
        state_put_u64(w, n[i]);
    put_calls(w, c);
}

static void put_kept(struct state_writer *w, const struct kept *kept, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (kept[i].fd[0] < 0 && kept[i].fd[1] < 0)
            continue;
        state_record(w, RECORD_KEPT, 0);
        state_put_u64(w, i);
        state_put_fd(w, kept[i].fd[0], STATE_FD_SOCKET);
        state_put_fd(w, kept[i].fd[1], STATE_FD_SOCKET);
    }
}

static void put_links(struct state_writer *w, const struct custodian *c)
{
    for (uint32_t i = 0; i < CUSTODIAN_LINKS; i++) {
        if (c->link[i] < 0)
            continue;
        state_record(w, RECORD_LINK, 0);
        state_put_u64(w, i);
        state_put_fd(w, c->link[i], STATE_FD_CHANNEL);
    }
}

static int save(const struct custodian *c, const char *runtime_dir)
{
    struct state_writer w;
    state_writer_open(&w, STATE_OF_CUSTODIAN, supervisor_version());
    put_custodian(&w, c, runtime_dir);
    put_kept(&w, c->blind ? c->next_kept : c->kept, c->blind ? c->n_next_kept : c->n_kept);
    put_links(&w, c);
    return state_writer_close(&w);
}

struct taken {
    struct custodian *c;
    char runtime_dir[4096];
    bool said; /* the record of the custodian was there */
};

/* A filter that lets through more is narrowed by one of ours. */
static void get_calls(struct state_reader *r, struct custodian *c)
{
    char ours[SANDBOX_CALLS_MAX], missing[64];
    const char *calls = state_more(r) ? state_get_text(r) : "";
    sandbox_calls(SANDBOX_CUSTODIAN, ours, sizeof ours);
    c->filtered = c->filtered && !strcmp(calls, ours);
    if (state_good(r) && *calls &&
        !sandbox_covers(SANDBOX_CUSTODIAN, calls, missing, sizeof missing))
        state_refuse(r, "the filter of system calls that applies lacks %s: a restart is needed",
                     missing);
}

static void get_custodian(struct state_reader *r, struct taken *t)
{
    struct custodian *c = t->c;
    snprintf(t->runtime_dir, sizeof t->runtime_dir, "%s", state_get_text(r));
    snprintf(c->death, sizeof c->death, "%s", state_get_text(r));
    c->segment_fd = state_get_fd(r, STATE_FD_SEGMENT);
    c->servers = state_get_fd(r, STATE_FD_SEGMENT);
    c->channel = state_get_fd(r, STATE_FD_CHANNEL);
    c->signals = state_get_fd(r, STATE_FD_SIGNALS);
    c->heartbeat = state_get_fd(r, STATE_FD_FILE);
    c->listening[0] = state_get_fd(r, STATE_FD_LISTENER);
    c->listening[1] = state_get_fd(r, STATE_FD_LISTENER);
    c->pid = (pid_t)state_get_number(r, INT32_MAX);
    c->deaths = (uint32_t)state_get_number(r, UINT32_MAX);
    c->died_ms = state_get_u64(r);
    c->upgrades = (uint32_t)state_get_number(r, UINT32_MAX);
    c->draining = state_get_number(r, 1);
    c->passed = state_get_number(r, 1);
    c->filtered = state_get_number(r, 1);
    get_calls(r, c);
    if (state_good(r) &&
        (t->said || c->segment_fd < 0 || c->channel < 0 || c->signals < 0 || c->pid <= 0))
        state_refuse(r, "describes no custodian");
    t->said = true;
    c->segment = state_good(r) ? segment_map(fcntl(c->segment_fd, F_DUPFD_CLOEXEC, 0)) : NULL;
    if (state_good(r) && !c->segment)
        state_refuse(r, "has memory of WebSockets of another layout");
}

static void get_kept(struct state_reader *r, struct taken *t)
{
    const uint32_t slot = (uint32_t)state_get_number(r, SEGMENT_SLOTS - 1);
    const struct kept k = {{state_get_fd(r, STATE_FD_SOCKET), state_get_fd(r, STATE_FD_SOCKET)}};
    if (!t->said)
        state_refuse(r, "comes before that of the custodian");
    if (state_good(r) && !custodian_keep(t->c, slot, &k))
        state_refuse(r, "finds no memory, or its slot taken");
}

static void get_link(struct state_reader *r, struct taken *t)
{
    const uint32_t i = (uint32_t)state_get_number(r, CUSTODIAN_LINKS - 1);
    const int fd = state_get_fd(r, STATE_FD_CHANNEL);
    if (state_good(r) && t->c->link[i] >= 0)
        state_refuse(r, "is there twice");
    if (state_good(r))
        t->c->link[i] = fd;
}

/* 0, or -EPROTO and why. */
static int load(int block, bool copy, struct taken *t, char *why, size_t size)
{
    struct state_reader r;
    uint16_t type;
    int code = state_reader_open(&r, block, STATE_OF_CUSTODIAN, RECORD_HIGHEST);
    r.copy = copy;
    t->c = custodian_init();
    while (code == 0 && (type = state_next(&r)) != 0)
        (type == RECORD_CUSTODIAN ? get_custodian
         : type == RECORD_KEPT    ? get_kept
                                  : get_link)(&r, t);
    if (code == 0 && state_good(&r) && !t->said)
        state_refuse(&r, "the custodian is missing");
    if (code == 0 && !state_good(&r))
        code = -EPROTO;
    snprintf(why, size, "what the custodian would leave: %s", r.why);
    state_reader_close(&r);
    return code;
}

/* ---- over ---- */

static void tell(struct custodian *c, enum custodian_says number, const char *text)
{
    struct note n = {.kind = NOTE_CUSTODIAN, .number = number};
    snprintf(n.text, sizeof n.text, "%s", text);
    note_send(c->channel, &n, sizeof n, -1);
}

static void stays(struct custodian *c, const char *why)
{
    log_error("upgrade: %s stays %s: %s", SUBJECT, supervisor_version(), why);
    if (c->pid && c->channel >= 0)
        tell(c, CUSTODIAN_STAYS, why);
    else
        snprintf(c->renewal.why, sizeof c->renewal.why, "%s", why);
    if (c->blind) /* nothing that only another custodian can give back */
        custodian_let_next(c);
}

void custodian_renew_tell(struct custodian *c)
{
    if (*c->renewal.why)
        tell(c, CUSTODIAN_STAYS, c->renewal.why);
    *c->renewal.why = 0;
}

/* ---- in place ---- */

/* Signals are blocked, and read from a descriptor by the next program, too. */
static void replace(struct custodian *c, const char *runtime_dir)
{
    char why[SAID_MAX];
    const int block = save(c, runtime_dir);
    int code = block < 0 ? block : state_block_inherit(block, true);
    if (code == 0 && dup2(block, PROGRAM_BLOCK_FD) < 0)
        code = -errno;
    if (code == 0) {
        fcntl(block, F_SETFD, FD_CLOEXEC);
        fcntl(PROGRAM_FILE_FD, F_SETFD, 0);
        code = program_run(PROGRAM_HOLDS);
    }
    if (block >= 0) {
        state_block_inherit(block, false);
        close(block);
    }
    program_forget();
    snprintf(why, sizeof why, "%s cannot be executed: %s", program_path(), strerror(-code));
    stays(c, why);
}

/* ---- the proof ---- */

static void run_proof(const struct custodian *c, int block, int say)
{
    sigset_t none;
    const int segment = c->blind ? c->next_fd : c->segment_fd;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(UPGRADE_PROOF_S);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (fcntl(segment, F_SETFD, 0) == 0 && dup2(block, PROGRAM_BLOCK_FD) >= 0 &&
        dup2(say, PROGRAM_PIPE_FD) >= 0) {
        const int code = program_run(PROGRAM_HOLDS_PROVES);
        dprintf(say, "cannot be executed: %s\n", strerror(-code));
    }
    _exit(CANNOT_START);
}

static int begin_proof(struct custodian *c, const char *runtime_dir)
{
    int says[2];
    int code = program_copy_file();
    const int block = code ? code : save(c, runtime_dir);
    if (block < 0)
        return block;
    code = pipe2(says, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno : 0;
    if (code == 0) {
        c->renewal.pid = fork();
        if (c->renewal.pid == 0)
            run_proof(c, block, says[1]);
        code = c->renewal.pid < 0 ? -errno : 0;
        close(says[1]);
        c->renewal.pipe = says[0];
    }
    close(block);
    return code;
}

void custodian_renew(struct custodian *c, const char *runtime_dir)
{
    char why[SAID_MAX];
    tell(c, CUSTODIAN_TRIES, supervisor_version());
    c->renewal.again = c->renewal.pid > 0;
    if (c->renewal.pid > 0 || c->draining)
        return;
    const int code = begin_proof(c, runtime_dir);
    if (!code)
        return;
    c->renewal.pid = 0;
    snprintf(why, sizeof why, "the proof cannot begin: %s", strerror(-code));
    stays(c, why);
}

static void describe(int status, const char *said, char why[SAID_MAX])
{
    if (WIFSIGNALED(status))
        snprintf(why, SAID_MAX, "the proof died of signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(why, SAID_MAX, "%.300s (exit code %d)", *said ? said : "it said nothing",
                 WEXITSTATUS(status));
}

void custodian_renew_look(struct custodian *c, const char *runtime_dir)
{
    char said[SAID_MAX], why[SAID_MAX];
    int status;
    if (c->renewal.pid <= 0 || waitpid(c->renewal.pid, &status, WNOHANG) != c->renewal.pid)
        return;
    c->renewal.pid = 0;
    proof_said(&c->renewal.pipe, said, sizeof said);
    if (c->replaced || c->draining) /* another one comes, which asks again when it is ready */
        return;
    if (c->renewal.again) {
        custodian_renew(c, runtime_dir);
    } else if (!proof_holds(status, said)) {
        describe(status, said, why);
        stays(c, why);
    } else if (!c->ready || c->killed_ms) {
        stays(c, "the process of the WebSockets has died before that");
    } else {
        replace(c, runtime_dir);
    }
}

/* ---- the new program ---- */

int custodian_check(int block, const char *runtime_dir, char *why, size_t size)
{
    struct taken t = {0};
    const int code = load(block, true, &t, why, size);
    if (code || !strcmp(t.runtime_dir, runtime_dir))
        return code;
    snprintf(why, size, "runtime_dir cannot change in an upgrade (\"%s\", not \"%s\")",
             t.runtime_dir, runtime_dir);
    return -EPROTO;
}

static void inherit_socket(int fd, const char *runtime_dir, const char *name, int type, bool passed)
{
    struct unix_socket u;
    char path[sizeof u.path];
    snprintf(path, sizeof path, "%s/%s", runtime_dir, name);
    if (fd < 0 || unix_socket_adopt(&u, fd, passed ? "" : path, type))
        return;
    memcpy(u.path, path, sizeof path);
    unix_socket_inherit(&u);
}

struct custodian *custodian_take_over(int block, char *why, size_t size)
{
    struct taken t = {0};
    uint64_t interval_us;
    if (load(block, false, &t, why, size))
        return NULL;
    struct custodian *c = t.c;
    program_forget();
    inherit_socket(c->listening[0], t.runtime_dir, "supervisor.sock", SOCK_SEQPACKET, c->passed);
    inherit_socket(c->listening[1], t.runtime_dir, "supervisor-rpc.sock", SOCK_STREAM, false);
    c->ready = c->was_ready = true;
    c->heartbeat_seen_ms = clock_mono_ms();
    c->watchdog = sd_watchdog_enabled(0, &interval_us) > 0;
    tell(c, CUSTODIAN_IS, supervisor_version());
    log_info("upgrade: %s is %s now", SUBJECT, supervisor_version());
    return c;
}
