/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * restart: another process takes the place of the custodian and its child, by the service manager, and
 * no WebSocket ends.
 *
 *   1. Told to stop, the custodian asks the service manager whether that is half of a restart.
 *   2. Its child makes a state block; the program that is to come reads a copy of it, and the
 *      configuration, in a child of its own, and says whether it understands them. All relaying goes
 *      on meanwhile.
 *   3. The service manager keeps one end of a socket pair.
 *   4. The child puts all that it has into the other end (carry/parcel.h) and ends, and so do we.
 *      Messages wait from here on, in the kernel.
 *   5. The next process is started with that end. Its child restores what is there, takes it out,
 *      and relays. Killed before it has taken it out, the next one finds all of it again.
 *
 * Whatever goes wrong in 1 to 4 ends as a stop does: WebSockets are told to reconnect. After 4 only
 * the end of the service manager's store ends them: a stop, or a program that cannot be started.
 */
#include "daemons/supervisor/carry/parcel.h"
#include "daemons/supervisor/program.h"
#include "daemons/supervisor/survive/custodian.h"
#include "daemons/supervisor/survive/manager.h"
#include "daemons/supervisor/survive/proof.h"
#include "daemons/supervisor/upgrade.h"
#include "polder/clock.h"
#include "polder/log.h"

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
#define HANDING_MS   4000 /* of 2 without the proof, and of 4 */

static void tell(struct custodian *c, enum note_kind kind, uint32_t number)
{
    if (c->pid)
        note_send(c->channel, &(struct note){.kind = kind, .number = number},
                  offsetof(struct note, text), -1);
}

/* ---- as a stop ---- */

static void drain(struct custodian *c, const char *why)
{
    if (why)
        log_warning("restart: WebSockets are told to reconnect: %s", why);
    if (c->restart.state == RESTART_HANDING)
        manager_remove(CUSTODIAN_STORE);
    c->restart.state = RESTART_NONE;
    c->restart.failed = true;
    tell(c, NOTE_SIGNAL, SIGTERM);
}

/* ---- 1 ---- */

static bool is_restart(void)
{
    char type[64], why[SAID_MAX];
    if (!manager_is_there())
        return false;
    if (manager_job(type, sizeof type, why, sizeof why)) {
        log_warning("restart: not known whether the service stops or restarts, so WebSockets are "
                    "told to reconnect: %s",
                    why);
        return false;
    }
    return !strcmp(type, "restart");
}

void custodian_stop(struct custodian *c, int signal_number)
{
    if (c->restart.state != RESTART_NONE) {
        drain(c, "the service is told to stop once more");
        return;
    }
    if (c->restart.failed || signal_number != SIGTERM || !is_restart()) {
        c->restart.failed = true; /* what comes later is no first signal */
        tell(c, NOTE_SIGNAL, (uint32_t)signal_number);
        return;
    }
    c->restart.state = RESTART_PACKING;
    c->restart.until_ms = clock_mono_ms() + HANDING_MS;
    tell(c, NOTE_PACK, 0);
}

/* ---- 2 ---- */

static void run_proof(int block, int say)
{
    sigset_t none;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(UPGRADE_PROOF_S);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (dup2(block, PROGRAM_BLOCK_FD) >= 0 && dup2(say, PROGRAM_PIPE_FD) >= 0) {
        const int code = program_run(PROGRAM_FOLLOWS_PROVES);
        dprintf(say, "cannot be executed: %s\n", strerror(-code));
    }
    _exit(CANNOT_START);
}

static int begin_proof(struct custodian *c, int block)
{
    int says[2];
    if (pipe2(says, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    c->restart.pid = fork();
    if (c->restart.pid == 0)
        run_proof(block, says[1]);
    const int code = c->restart.pid < 0 ? -errno : 0;
    close(says[1]);
    c->restart.pipe = says[0];
    return code;
}

void custodian_packed(struct custodian *c, int block, const char *why)
{
    char text[SAID_MAX];
    if (c->restart.state == RESTART_PACKING && block < 0) {
        drain(c, why);
    } else if (c->restart.state == RESTART_PACKING) {
        const int code = begin_proof(c, block);
        c->restart.state = RESTART_PROVING;
        c->restart.until_ms = clock_mono_ms() + UPGRADE_PROOF_S * 1000 + HANDING_MS;
        if (code) {
            c->restart.pid = 0;
            snprintf(text, sizeof text, "the proof cannot begin: %s", strerror(-code));
            drain(c, text);
        }
    }
    if (block >= 0)
        close(block);
}

/* ---- 3 and 4 ---- */

static void hand_over(struct custodian *c)
{
    const struct note note = {.kind = NOTE_HAND_OVER};
    char why[SAID_MAX];
    int box[2];
    int code = parcel_box(box);
    if (code) {
        drain(c, strerror(-code));
        return;
    }
    code = manager_keep(box, CUSTODIAN_STORE, why, sizeof why);
    c->restart.state = RESTART_HANDING;
    c->restart.until_ms = clock_mono_ms() + HANDING_MS;
    if (code == 0 && !note_send(c->channel, &note, offsetof(struct note, text), box[1]))
        snprintf(why, sizeof why, "their process does not listen");
    else if (code == 0)
        *why = 0;
    close(box[1]);
    if (*why)
        drain(c, why);
    else
        sd_notify(0, "STOPPING=1\nSTATUS=restarting: WebSockets are kept for the next process");
}

void custodian_handed_over(struct custodian *c, uint32_t failed, const char *why)
{
    if (c->restart.state != RESTART_HANDING)
        return;
    if (failed) {
        drain(c, why);
        return;
    }
    c->restart.state = RESTART_NONE;
    c->restart.done = true;
}

static bool proven(int status, const char *said, char why[SAID_MAX])
{
    if (proof_holds(status, said))
        return true;
    if (WIFSIGNALED(status))
        snprintf(why, SAID_MAX, "%.200s died of signal %d (%s)", program_path(), WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(why, SAID_MAX, "%.100s: %.200s (exit code %d)", program_path(),
                 *said ? said : "it said nothing", WEXITSTATUS(status));
    return false;
}

void custodian_restart_look(struct custodian *c)
{
    char said[SAID_MAX], why[SAID_MAX];
    int status;
    if (c->restart.pid <= 0 || waitpid(c->restart.pid, &status, WNOHANG) != c->restart.pid)
        return;
    c->restart.pid = 0;
    proof_said(&c->restart.pipe, said, sizeof said);
    if (c->restart.state != RESTART_PROVING)
        return;
    if (!proven(status, said, why))
        drain(c, why);
    else if (c->ready && !c->killed_ms)
        hand_over(c);
    else
        drain(c, "their process has died before that");
}

void custodian_restart_due(struct custodian *c, uint64_t now_ms)
{
    if (c->restart.state != RESTART_NONE && now_ms >= c->restart.until_ms)
        drain(c, c->restart.state == RESTART_PROVING ? "the next program does not end its proof"
                                                     : "their process does not hand them over");
}

void custodian_restart_died(struct custodian *c)
{
    if (c->restart.state != RESTART_NONE)
        drain(c, "their process has died before they were handed over");
}

/* ---- 5 ---- */

void custodian_restart_over(struct custodian *c)
{
    if (c->restart.box < 0)
        return;
    close(c->restart.box);
    c->restart.box = -1;
    manager_remove(CUSTODIAN_STORE);
}
