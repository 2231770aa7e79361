/* SPDX-License-Identifier: BSD-2-Clause */
/* upgrade: see upgrade.h. */
#include "daemons/supervisor/upgrade.h"
#include "daemons/rpc/server.h"
#include "daemons/supervisor/carry/carry.h"
#include "daemons/supervisor/program.h"
#include "daemons/supervisor/survive/custodian.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/log.h"
#include "polder/state_block.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SUBJECT      "polder-supervisor"
#define LOOK_S       0.01
#define QUIET_MS     200 /* for answers that are under way */
#define PROOF_GRACE  1000
#define CANNOT_START 126

enum { IDLE, PROVING, SETTLING };

/* ---- it is over ---- */

static void upgrade_over(struct supervisor *s)
{
    struct upgrade *u = &s->upgrade;
    ev_io_stop(s->loop, &u->said);
    ev_timer_stop(s->loop, &u->look);
    if (u->pipe >= 0)
        close(u->pipe);
    u->pipe = -1;
    u->state = IDLE;
    u->reply = NULL;
}

static void note_failure(struct supervisor *s, const char *what, const char *why)
{
    struct upgrade *u = &s->upgrade;
    snprintf(u->why, sizeof u->why, "%s%s%.400s", what ? what : "", what ? ": " : "", why);
    condition_raise(s->conditions, COND_UPGRADE_FAILED, SUBJECT, u->why, clock_real_ms());
    u->failures++;
}

static void upgrade_failed(struct supervisor *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void upgrade_failed(struct supervisor *s, const char *format, ...)
{
    char why[512];
    va_list args;
    struct upgrade *u = &s->upgrade;
    void (*const then)(struct supervisor *) = u->failed;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    log_error("upgrade: %s %s goes on: %s", SUBJECT, supervisor_version(), why);
    note_failure(s, NULL, why);
    if (u->reply)
        rpc_reply_error(u->reply, RPC_FAILED, "%s", why);
    upgrade_over(s);
    u->failed = NULL;
    if (then)
        then(s);
}

void upgrade_give_up(struct supervisor *s, const char *why)
{
    if (s->upgrade.state != IDLE)
        upgrade_failed(s, "%s", why);
}

/* ---- in place ---- */

/* All that is not in the block closes by itself. Signals wait until the next program takes them. */
static int replace(struct supervisor *s)
{
    sigset_t all, before;
    const int block = carry_save(s, CARRY_PROGRAM, clock_mono_ns());
    if (block < 0)
        return block;
    int code = state_block_inherit(block, true);
    if (code == 0 && (dup2(block, PROGRAM_BLOCK_FD) < 0 || fcntl(block, F_SETFD, FD_CLOEXEC) < 0))
        code = -errno;
    if (code == 0)
        code = fcntl(PROGRAM_FILE_FD, F_SETFD, 0) < 0 ? -errno : 0;
    fcntl(PROGRAM_CHANNEL_FD, F_SETFD, 0);
    if (code == 0) {
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, &before);
        code = program_run(PROGRAM_RESUMES);
        sigprocmask(SIG_SETMASK, &before, NULL);
    }
    fcntl(PROGRAM_BLOCK_FD, F_SETFD, FD_CLOEXEC);
    fcntl(PROGRAM_FILE_FD, F_SETFD, FD_CLOEXEC);
    fcntl(PROGRAM_CHANNEL_FD, F_SETFD, FD_CLOEXEC);
    state_block_inherit(block, false);
    close(block);
    return code;
}

static void settle(struct supervisor *s)
{
    struct upgrade *u = &s->upgrade;
    if (!rpc_server_is_quiet(s->rpc) && s->now_ms < u->until_ms)
        return;
    s->before_replaced(s);
    const int code = replace(s);
    upgrade_failed(s, "%s cannot be executed: %s", program_path(), strerror(-code));
}

/* ---- the proof ---- */

static void proven(struct supervisor *s)
{
    struct upgrade *u = &s->upgrade;
    log_info("upgrade: %s %s understands what it would be left: %u WebSockets", SUBJECT,
             u->said_text + strlen(UPGRADE_OK), s->open);
    if (u->reply) {
        struct rpc_out *o = rpc_reply_result(u->reply);
        rpc_out_map(o, NULL);
        rpc_out_str(o, "from", supervisor_version());
        rpc_out_str(o, "to", u->said_text + strlen(UPGRADE_OK));
        rpc_out_end(o);
        rpc_reply_send(u->reply);
        u->reply = NULL;
    }
    u->state = SETTLING;
    u->until_ms = s->now_ms + QUIET_MS;
}

static void judge(struct supervisor *s, int status)
{
    struct upgrade *u = &s->upgrade;
    u->child = 0;
    u->said_text[u->said_len] = 0;
    u->said_text[strcspn(u->said_text, "\n")] = 0;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        upgrade_failed(s, "%s said nothing within %d s", program_path(), UPGRADE_PROOF_S);
    else if (WIFSIGNALED(status))
        upgrade_failed(s, "%s died of signal %d (%s)", program_path(), WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    else if (WEXITSTATUS(status) || strncmp(u->said_text, UPGRADE_OK, strlen(UPGRADE_OK)) != 0)
        upgrade_failed(s, "%s: %s (exit code %d)", program_path(),
                       u->said_len ? u->said_text : "it said nothing", WEXITSTATUS(status));
    else
        proven(s);
}

static void look_at_child(struct supervisor *s)
{
    struct upgrade *u = &s->upgrade;
    int status = 0;
    const pid_t pid = u->eof || s->now_ms >= u->until_ms ? waitpid(u->child, &status, WNOHANG) : 0;
    if (pid == u->child)
        judge(s, status);
    else if (pid < 0 || s->now_ms >= u->until_ms)
        upgrade_failed(s, "%s does not end", program_path());
}

static void on_look(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    (void)w, (void)revents;
    s->now_ms = clock_mono_ms();
    if (s->draining && s->upgrade.state != IDLE)
        upgrade_failed(s, "the service stops");
    else if (s->upgrade.state == PROVING)
        look_at_child(s);
    else if (s->upgrade.state == SETTLING)
        settle(s);
}

static void on_said(struct ev_loop *loop, ev_io *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    struct upgrade *u = &s->upgrade;
    char more[256];
    (void)revents;
    const ssize_t n = read(w->fd, more, sizeof more);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        u->eof = true;
        ev_io_stop(loop, w);
        return;
    }
    const size_t room = sizeof u->said_text - 1 - u->said_len;
    memcpy(u->said_text + u->said_len, more, (size_t)n < room ? (size_t)n : room);
    u->said_len += (size_t)n < room ? (size_t)n : room;
}

/* Its descriptors are those of the proof alone: the rest closes in execve(). */
static void run_proof(int block, int say)
{
    sigset_t none;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(UPGRADE_PROOF_S); /* which outlives execve(); whatever happens there, it ends */
    signal(SIGTERM, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(block, PROGRAM_BLOCK_FD) >= 0 && dup2(say, PROGRAM_PIPE_FD) >= 0) {
        const int code = program_run(PROGRAM_PROVES);
        dprintf(say, "cannot be executed: %s\n", strerror(-code));
    }
    _exit(CANNOT_START);
}

static int begin_proof(struct supervisor *s)
{
    int says[2];
    struct upgrade *u = &s->upgrade;
    int code = program_copy_file();
    const int block = code ? code : carry_save(s, CARRY_PROGRAM, 0);
    if (block < 0)
        return block;
    code = pipe2(says, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno : 0;
    if (code == 0) {
        u->child = fork();
        if (u->child == 0)
            run_proof(block, says[1]);
        code = u->child < 0 ? -errno : 0;
        close(says[1]);
        u->pipe = says[0];
    }
    close(block);
    return code;
}

/* One that never came to an end is taken leave of, where it has ended since. */
static void reap_late(struct upgrade *u)
{
    if (u->child > 0)
        waitpid(u->child, NULL, WNOHANG);
    u->child = 0;
}

void upgrade_begin(struct supervisor *s, const struct rpc_call *call,
                   void (*failed)(struct supervisor *s))
{
    struct upgrade *u = &s->upgrade;
    if (u->state != IDLE) {
        if (call)
            rpc_reply_error(call->reply, RPC_BUSY, "an upgrade is under way");
        else
            log_info("upgrade: one is under way");
        return;
    }
    reap_late(u);
    u->reply = call ? call->reply : NULL;
    u->failed = failed;
    u->pipe = -1;
    u->said_len = 0;
    u->eof = false;
    u->until_ms = s->now_ms + UPGRADE_PROOF_S * 1000 + PROOF_GRACE;
    u->state = PROVING;
    ev_timer_init(&u->look, on_look, LOOK_S, LOOK_S);
    const int code = s->draining || s->restart.wanted ? -ECANCELED : begin_proof(s);
    if (code) {
        upgrade_failed(s, "the proof cannot begin: %s", strerror(-code));
        return;
    }
    ev_io_init(&u->said, on_said, u->pipe, EV_READ);
    ev_io_start(s->loop, &u->said);
    ev_timer_start(s->loop, &u->look);
}

/* ---- the custodian ---- */

void upgrade_of_custodian(struct supervisor *s, uint32_t says, const char *text)
{
    struct upgrade *u = &s->upgrade;
    u->custodian_pending = says == CUSTODIAN_TRIES;
    if (says != CUSTODIAN_STAYS) {
        snprintf(u->custodian, sizeof u->custodian, "%s", text);
        return;
    }
    note_failure(s, "the custodian stays as it is", text);
}

void upgrade_begin_forked(struct supervisor *s, uint64_t upgrades)
{
    s->upgrade.done = upgrades;
    snprintf(s->upgrade.custodian, sizeof s->upgrade.custodian, "%s", supervisor_version());
}

/* ---- the new program ---- */

static char first_mistake[400];

static void on_mistake(void *arg, const char *line)
{
    (void)arg;
    if (!*first_mistake)
        snprintf(first_mistake, sizeof first_mistake, "%s", line);
}

/* NULL: it was said why. */
static const struct config *prove_file(const char *config_path)
{
    void *memory;
    signal(SIGPIPE, SIG_DFL);
    const struct config *c = supervisor_read_config(config_path, &memory, on_mistake);
    if (!c)
        dprintf(PROGRAM_PIPE_FD, "%s\n", first_mistake);
    return c;
}

static int prove_block(int wrong, const char *why)
{
    if (wrong) {
        dprintf(PROGRAM_PIPE_FD, "%s\n", why);
        return 1;
    }
    return dprintf(PROGRAM_PIPE_FD, UPGRADE_OK "%s\n", supervisor_version()) > 0 ? 0 : 1;
}

int upgrade_prove(const char *config_path)
{
    char why[400];
    const struct config *c = prove_file(config_path);
    return c ? prove_block(carry_check(PROGRAM_BLOCK_FD, CARRY_PROGRAM, c, why, sizeof why), why)
             : 2;
}

int upgrade_prove_custodian(const char *config_path)
{
    char why[400];
    const struct config *c = prove_file(config_path);
    if (!c)
        return 2;
    return prove_block(custodian_check(PROGRAM_BLOCK_FD, c->runtime_dir, why, sizeof why), why);
}

int upgrade_prove_follower(const char *config_path)
{
    char why[400];
    const struct config *c = prove_file(config_path);
    return c ? prove_block(carry_check(PROGRAM_BLOCK_FD, CARRY_SUCCESSOR, c, why, sizeof why), why)
             : 2;
}

int upgrade_resume(struct supervisor *s)
{
    char why[400];
    struct carried c;
    const int code = carry_restore(s, PROGRAM_BLOCK_FD, &c, why, sizeof why);
    fcntl(PROGRAM_BLOCK_FD, F_SETFD, FD_CLOEXEC);
    if (code) {
        log_error("upgrade: what the program before has left cannot be taken over: %s", why);
        return 1;
    }
    program_forget();
    condition_clear(s->conditions, COND_UPGRADE_FAILED, SUBJECT, clock_real_ms());
    s->upgrade.pause_ns = clock_mono_ns() - c.started_ns;
    log_info("upgrade: %s %s goes on in place of %s, with %u WebSockets%s; messages waited for "
             "%.1f ms",
             SUBJECT, supervisor_version(), c.version, s->open,
             c.ended ? " (others were of routes that are gone)" : "",
             (double)s->upgrade.pause_ns / 1e6);
    return 0;
}
