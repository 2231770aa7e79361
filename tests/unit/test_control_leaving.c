/* SPDX-License-Identifier: BSD-2-Clause */
/* The last turns of control's loop: the answers to what was asked get out, and whatever comes then finds
 * nothing that is gone. */
#include "polder/config.h"
#include "polder/log.h"
#include "polder/process.h"
#include "polder/shared.h"

#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <ftw.h>
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
/* after the others: it wants them */
#include <cmocka.h>

#define TICK_US 60000 /* a little more than its first ones */

int __real_ev_run(struct ev_loop *loop, int flags);
int __wrap_ev_run(struct ev_loop *loop, int flags);

static struct {
    char dir[64];
    struct shared shared;
    struct process process;
    void (*before)(struct ev_loop *loop); /* in the child: it serves, and is then told to leave */
    void (*last)(void);                   /* and before each of its last turns */
    int client, keeper;                   /* sockets */
    char answer[4096];
    size_t answer_len;
} rig;

/* ---- its loop ---- */

static void take_answer(void)
{
    const ssize_t n = rig.client < 0 ? 0
                                     : recv(rig.client, rig.answer + rig.answer_len,
                                            sizeof rig.answer - rig.answer_len, MSG_DONTWAIT);
    rig.answer_len += n > 0 ? (size_t)n : 0;
}

int __wrap_ev_run(struct ev_loop *loop, int flags)
{
    if (!flags) {
        rig.before(loop);
        raise(SIGTERM);
    } else {
        rig.last();
    }
    const int active = __real_ev_run(loop, flags);
    take_answer();
    return active;
}

static void turn(struct ev_loop *loop)
{
    __real_ev_run(loop, EVRUN_NOWAIT);
}

/* ---- a client, and a keeper that is silent ---- */

static int socket_at(const char *name, struct sockaddr_un *at)
{
    *at = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(at->sun_path, sizeof at->sun_path, "%s/%s", rig.dir, name);
    return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static void client_open(struct ev_loop *loop)
{
    struct sockaddr_un at;
    rig.client = socket_at("admin.sock", &at);
    if (connect(rig.client, (struct sockaddr *)&at, sizeof at))
        abort();
    turn(loop);
}

/* [0, 1, method, {}] */
static void call(const char *method)
{
    char bytes[64];
    const int n = snprintf(bytes, sizeof bytes, "%c%c%c%c%s%c", 0x94, 0, 1,
                           (int)(0xa0 | strlen(method)), method, 0x80);
    if (send(rig.client, bytes, (size_t)n, MSG_NOSIGNAL) != n)
        abort();
}

static void keeper_open(void)
{
    struct sockaddr_un at;
    rig.keeper = socket_at("keeper.sock", &at);
    if (bind(rig.keeper, (struct sockaddr *)&at, sizeof at) || listen(rig.keeper, 8))
        abort();
}

/* ---- the process ---- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static int set_up(void **state)
{
    char path[96];
    (void)state;
    memset(&rig, 0, sizeof rig);
    rig.client = rig.keeper = -1;
    strcpy(rig.dir, "/tmp/polder-leaving-XXXXXX");
    assert_non_null(mkdtemp(rig.dir));
    log_set_level((enum log_level)0); /* there is no store */
    const struct shared_options options = {.state_dir = rig.dir, .limit_entries = 4096};
    assert_int_equal(shared_create(&rig.shared, &options), 0);
    snprintf(path, sizeof path, "%s/polder.conf", rig.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "listen = {\"127.0.0.1:1\"}\nworkers = 1\nsandbox = \"off\"\nstate_dir = \"%s\"\n"
            "runtime_dir = \"%s\"\nfleet { store = {\"unix:%s/none\"} name = \"test\" host = \"h\" "
            "secret = \"a secret of sixteen or more\" }\n"
            "upstream \"u\" { health = \"/health\" server \"127.0.0.1:1\" { } "
            "server \"127.0.0.1:2\" { } }\nroute \"/*\" { upstream = \"u\" cache { } }\n",
            rig.dir, rig.dir, rig.dir);
    fclose(f);
    if (config_region_load(rig.shared.region[0], path, 1, NULL))
        fail_msg("%s", rig.shared.region[0]->errors);
    rig.process = (struct process){.shared = &rig.shared,
                                   .region = rig.shared.region[0],
                                   .slot = PROC_SLOT_CONTROL,
                                   .incarnation = 1,
                                   .master_pid = getpid(),
                                   .access_log = -1,
                                   .channel = -1};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    shared_destroy(&rig.shared);
    return nftw(rig.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* cmocka would have the child go on with the stories. */
static void let_faults_kill(void)
{
    static const int fault[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};
    for (size_t i = 0; i < sizeof fault / sizeof *fault; i++)
        signal(fault[i], SIG_DFL);
}

/* Runs it till its end; is_good is asked there. */
static void run(bool (*is_good)(void))
{
    int status;
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        let_faults_kill();
        const int rc = control_run(&rig.process);
        take_answer();
        _exit(rc ? rc : is_good() ? 0 : 9);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail_msg("it ended with status %#x", (unsigned)status);
}

/* ---- stories ---- */

static void nothing(struct ev_loop *loop)
{
    (void)loop;
}

/* A worker has noted something, another process has died, and it is time for a look. */
static void much_happens(void)
{
    usleep(TICK_US / 4);
    shared_wake_control(&rig.shared);
}

static bool is_at_rest(void)
{
    return true;
}

static void what_happens_in_its_last_turns_is_for_the_next_one(void **state)
{
    (void)state;
    rig.before = nothing;
    rig.last = much_happens;
    run(is_at_rest);
}

static void invalidate_once(void)
{
    static bool done;
    if (!done)
        call("cache.invalidate");
    done = true;
}

/* The client is told that the connection has ended, and asks the next one. */
static bool was_not_taken(void)
{
    return !rig.answer_len && recv(rig.client, rig.answer, 1, MSG_DONTWAIT) <= 0 && errno != EAGAIN;
}

/* Without its fleet it could not tell the other hosts. */
static void a_call_in_its_last_turns_is_not_taken(void **state)
{
    (void)state;
    rig.before = client_open;
    rig.last = invalidate_once;
    run(was_not_taken);
}

static void list(struct ev_loop *loop)
{
    keeper_open();
    client_open(loop);
    call("cache.list");
    while (accept4(rig.keeper, NULL, NULL, SOCK_CLOEXEC) < 0)
        turn(loop);
}

static void nothing_comes(void)
{
}

static bool says_that_it_stops(void)
{
    return memmem(rig.answer, rig.answer_len, "stopping", 8) != NULL;
}

static void a_call_under_way_is_answered(void **state)
{
    (void)state;
    rig.before = list;
    rig.last = nothing_comes;
    run(says_that_it_stops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_happens_in_its_last_turns_is_for_the_next_one, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_call_in_its_last_turns_is_not_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_call_under_way_is_answered, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
