/* SPDX-License-Identifier: BSD-2-Clause */
/* Each kind of process is asked for what it has given up, and for what it needs. */
#include "polder/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <netinet/in.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static const enum sandbox_kind children[] = {SANDBOX_WORKER,   SANDBOX_KEEPER,
                                             SANDBOX_CONTROL,  SANDBOX_SUPERVISOR,
                                             SANDBOX_RESOLVER, SANDBOX_CUSTODIAN};
#define CHILDREN (sizeof children / sizeof *children)

#define check(condition) /* in the child: the parent is told the line */                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return __LINE__;                                                                       \
    } while (0)

static void (*before_entering)(void);

/* Runs what in a process of that kind; fails the test at the line that it returns. */
static void in_kind(enum sandbox_kind kind, int (*what)(enum sandbox_kind kind))
{
    int fd[2], line = -1;
    assert_int_equal(pipe(fd), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        sandbox_begin(false);
        if (before_entering)
            before_entering();
        const int code = sandbox_enter(kind), result = code < 0 ? code : what(kind);
        _exit(write(fd[1], &result, sizeof result) == sizeof result ? 0 : 1);
    }
    close(fd[1]);
    const ssize_t n = read(fd[0], &line, sizeof line);
    close(fd[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    if (n != sizeof line || line != 0)
        fail_msg("kind %d: line %d says no", (int)kind, n == sizeof line ? line : -1);
}

static bool refused(long rc)
{
    return rc == -1 && (errno == EPERM || errno == ENOSYS);
}

static int try_programs_and_others(enum sandbox_kind kind)
{
    char *const argv[] = {(char *)(uintptr_t) "true", NULL};
    check(refused(execve("/bin/true", argv, argv)));
    check(refused(syscall(SYS_execveat, AT_FDCWD, "/bin/true", argv, argv, 0)));
    check(refused(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL)));
    check(refused(syscall(SYS_process_vm_writev, getppid(), NULL, 0, NULL, 0, 0)));
    check(refused(kill(1, SIGTERM)));
    check(refused(kill(-1, SIGKILL)));
    check(refused(syscall(SYS_tgkill, getppid(), getppid(), SIGTERM)));
    check(kind == SANDBOX_SUPERVISOR || kind == SANDBOX_CUSTODIAN || refused(fork()));
    check(refused(syscall(SYS_clone, CLONE_VM | SIGCHLD, NULL, NULL, NULL, NULL)));
    check(refused(syscall(SYS_unshare, 0x10000000)));
    check(refused(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)));
    check(refused(syscall(SYS_io_uring_setup, 1, NULL)));
    check(refused(syscall(SYS_setuid, 0)));
    check(refused(mkfifo("/tmp/polder-sandbox-fifo", 0600)));
    return 0;
}

static void no_kind_runs_traces_signals_or_forks(void **state)
{
    (void)state;
    for (size_t i = 0; i < CHILDREN; i++)
        in_kind(children[i], try_programs_and_others);
}

/* What it may replace itself with. */
static const char its_program[] = "/bin/true";
static char program_name[] = "true", *program_argv[] = {program_name, NULL},
            *program_env[] = {NULL};

static char *custodian_argv[] = {program_name, NULL};

static void allow_program(void)
{
    sandbox_allow_program(0, &(struct sandbox_program){its_program, program_argv, program_env});
    sandbox_allow_program(SANDBOX_PROGRAMS_OF_SUPERVISOR,
                          &(struct sandbox_program){its_program, custodian_argv, program_env});
}

static int run_program(const char *path, char *const *argv, char *const *env)
{
    int status = -1;
    const pid_t pid = fork();
    if (pid == 0) {
        execve(path, argv, env);
        _exit(errno == EPERM || errno == ENOSYS ? 99 : 98);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status)
                                                                           : -1;
}

static int try_its_program(enum sandbox_kind kind)
{
    char path[] = "/bin/true", *argv[] = {program_name, NULL}, *env[] = {NULL};
    check(run_program(its_program, custodian_argv, program_env) ==
          (kind == SANDBOX_CUSTODIAN ? 0 : 99));
    check(run_program(its_program, program_argv, program_env) == 0);
    check(run_program(path, program_argv, program_env) == 99);
    check(run_program(its_program, argv, program_env) == 99);
    check(run_program(its_program, program_argv, env) == 99);
    return 0;
}

static void the_supervisor_runs_its_own_program_alone(void **state)
{
    (void)state;
    before_entering = allow_program;
    in_kind(SANDBOX_SUPERVISOR, try_its_program);
    in_kind(SANDBOX_CUSTODIAN, try_its_program);
    before_entering = NULL;
}

static int try_supervisor_of_custodian(enum sandbox_kind kind)
{
    (void)kind;
    int status;
    const pid_t pid = fork();
    if (pid == 0)
        _exit(sandbox_enter(SANDBOX_SUPERVISOR) ? 98 : try_its_program(SANDBOX_SUPERVISOR) % 97);
    check(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    check(WEXITSTATUS(status) == 0);
    const pid_t hangs = fork();
    if (hangs == 0)
        for (;;)
            pause();
    check(kill(hangs, SIGTERM) < 0 && kill(hangs, SIGABRT) == 0 && kill(hangs, SIGCONT) == 0);
    check(waitpid(hangs, &status, 0) == hangs && WIFSIGNALED(status));
    return 0;
}

static void the_supervisors_filter_goes_on_top_of_its_custodians(void **state)
{
    (void)state;
    before_entering = allow_program;
    in_kind(SANDBOX_CUSTODIAN, try_supervisor_of_custodian);
    before_entering = NULL;
}

static int try_memory(enum sandbox_kind kind)
{
    (void)kind;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(page != MAP_FAILED);
    check(mprotect(page, 4096, PROT_READ) == 0);
    check(refused(mprotect(page, 4096, PROT_READ | PROT_EXEC)));
    check(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
          MAP_FAILED);
    return 0;
}

#define PROTECTED_AT  ((char *)0x1000000000)
#define PROTECTED_END ((char *)0x1000100000)

static void *map_at(void *at, int how)
{
    return mmap(at, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | how, -1, 0);
}

static void protect(void)
{
    sandbox_protect_below((uintptr_t)PROTECTED_END);
    if (map_at(PROTECTED_AT, MAP_FIXED_NOREPLACE) != PROTECTED_AT)
        _exit(1);
    strcpy(PROTECTED_AT, "/bin/true");
}

/* It is what a program is found by: read-only is all that it can become. */
static int try_protected_memory(enum sandbox_kind kind)
{
    char *const page = PROTECTED_AT, *const other = map_at(NULL, 0);
    (void)kind;
    check(other != MAP_FAILED);
    check(mprotect(page, 8192, PROT_READ) == 0);
    check(refused(mprotect(page, 8192, PROT_READ | PROT_WRITE)));
    check(refused(mprotect(page - 4096, 16384, PROT_READ | PROT_WRITE)));
    check(refused(munmap(page, 8192)));
    check(refused(munmap(page - 4096, (size_t)1 << 30)));
    check(refused(madvise(page, 8192, MADV_DONTNEED)));
    check(map_at(page, MAP_FIXED) == MAP_FAILED && map_at(page - 4096, MAP_FIXED) == MAP_FAILED);
    check(mremap(page, 8192, 16384, MREMAP_MAYMOVE) == MAP_FAILED);
    check(mremap(other, 8192, 8192, MREMAP_MAYMOVE | MREMAP_FIXED, page) == MAP_FAILED);
    check(strcmp(page, "/bin/true") == 0);
    /* and the next program can have its own there */
    check(map_at(PROTECTED_END - 8192, MAP_FIXED_NOREPLACE) == PROTECTED_END - 8192);
    /* elsewhere all is as it was */
    char *const more = mremap(other, 8192, 65536, MREMAP_MAYMOVE);
    check(more != MAP_FAILED && madvise(more, 65536, MADV_DONTNEED) == 0);
    check(map_at(more, MAP_FIXED) == more && mprotect(more, 8192, PROT_READ) == 0);
    check(munmap(more, 65536) == 0);
    return 0;
}

static void what_programs_are_found_by_cannot_be_changed(void **state)
{
    (void)state;
    before_entering = protect;
    in_kind(SANDBOX_SUPERVISOR, try_protected_memory);
    in_kind(SANDBOX_CUSTODIAN, try_protected_memory);
    in_kind(SANDBOX_SUPERVISOR, try_memory);
    in_kind(SANDBOX_CUSTODIAN, try_memory);
    before_entering = NULL;
}

static void a_list_of_calls_covers_the_same_and_fewer(void **state)
{
    (void)state;
    char calls[SANDBOX_CALLS_MAX], missing[64] = "";
    sandbox_calls(SANDBOX_SUPERVISOR, calls, sizeof calls);
    assert_true(sandbox_covers(SANDBOX_SUPERVISOR, calls, missing, sizeof missing));
    char *last = strrchr(calls, ' ');
    assert_non_null(last);
    assert_false(sandbox_covers(SANDBOX_SUPERVISOR, "", missing, sizeof missing));
    assert_string_equal(missing, "brk");
    *last = 0;
    assert_false(sandbox_covers(SANDBOX_SUPERVISOR, calls, missing, sizeof missing));
    assert_string_equal(missing, last + 1);
}

static void no_kind_makes_memory_executable(void **state)
{
    (void)state;
    for (size_t i = 0; i < CHILDREN; i++)
        in_kind(children[i], try_memory);
}

static int try_sockets(enum sandbox_kind kind)
{
    static const int strange[] = {AF_PACKET, AF_NETLINK, AF_VSOCK, AF_ALG, AF_KEY};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++)
        check(refused(socket(strange[i], SOCK_DGRAM, 0)));
    check(socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
    const int internet = socket(AF_INET, SOCK_STREAM, 0);
    check(kind == SANDBOX_KEEPER ? refused(internet) : internet >= 0);
    return 0;
}

static void sockets_are_of_the_families_that_it_speaks(void **state)
{
    (void)state;
    for (size_t i = 0; i < CHILDREN; i++)
        in_kind(children[i], try_sockets);
}

static int try_modes(enum sandbox_kind kind)
{
    (void)kind;
    check(refused(chmod("/tmp", 01777)));
    check(refused(fchmodat(AT_FDCWD, "/tmp", 01777, 0)));
    check(refused(chown("/tmp", 0, 0)));
    check(refused(mkdir("/tmp/polder-sandbox", 0700)));
    check(refused(truncate("/tmp/polder-none", 0)));
    return 0;
}

static void a_worker_changes_no_modes_and_sizes(void **state)
{
    (void)state;
    in_kind(SANDBOX_WORKER, try_modes);
}

static int try_to_listen(enum sandbox_kind kind)
{
    const struct sockaddr_in any = {.sin_family = AF_INET};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    check(fd >= 0);
    check(refused(bind(fd, (const struct sockaddr *)&any, sizeof any)));
    check(refused(listen(fd, 1)));
    check(refused(accept4(fd, NULL, NULL, 0)));
    check(refused(unlink("/tmp/polder-none")));
    return try_modes(kind);
}

static void a_resolver_only_asks(void **state)
{
    (void)state;
    in_kind(SANDBOX_RESOLVER, try_to_listen);
}

static int try_needed(enum sandbox_kind kind)
{
    (void)kind;
    check(raise(SIGURG) == 0);
    check(kill(getpid(), 0) == 0);
    check(kill(getppid(), 0) == 0);
    check(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1); /* even to ask is refused */
    const int fd = open("/dev/null", O_RDONLY);
    check(fd >= 0 && read(fd, &(char){0}, 1) == 0 && close(fd) == 0);
    return 0;
}

static void what_is_needed_stays(void **state)
{
    (void)state;
    for (size_t i = 0; i < CHILDREN; i++)
        in_kind(children[i], try_needed);
}

static int try_master(enum sandbox_kind kind)
{
    (void)kind;
    check(refused(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL)));
    check(refused(syscall(SYS_unshare, 0x10000000)));
    const pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/true", "true", (char *)NULL);
        _exit(1);
    }
    int status;
    check(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return 0;
}

static void the_master_may_start_programs_and_little_else(void **state)
{
    (void)state;
    in_kind(SANDBOX_MASTER, try_master);
}

static int try_child_of_master(enum sandbox_kind kind)
{
    (void)kind;
    check(sandbox_enter(SANDBOX_WORKER) == 0);
    return try_programs_and_others(SANDBOX_WORKER);
}

static void a_filter_goes_on_top_of_the_masters(void **state)
{
    (void)state;
    in_kind(SANDBOX_MASTER, try_child_of_master);
}

/* As the unit's SystemCallFilter= of a systemd that does not count seccomp(2) to @system-service.
 */
static void refuse_seccomp(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) < 0)
        _exit(1);
}

static void a_filter_goes_under_one_that_refuses_seccomp(void **state)
{
    (void)state;
    before_entering = refuse_seccomp;
    in_kind(SANDBOX_WORKER, try_programs_and_others);
    in_kind(SANDBOX_MASTER, try_child_of_master);
    before_entering = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_kind_runs_traces_signals_or_forks),
        cmocka_unit_test(the_supervisor_runs_its_own_program_alone),
        cmocka_unit_test(the_supervisors_filter_goes_on_top_of_its_custodians),
        cmocka_unit_test(what_programs_are_found_by_cannot_be_changed),
        cmocka_unit_test(a_list_of_calls_covers_the_same_and_fewer),
        cmocka_unit_test(no_kind_makes_memory_executable),
        cmocka_unit_test(sockets_are_of_the_families_that_it_speaks),
        cmocka_unit_test(a_worker_changes_no_modes_and_sizes),
        cmocka_unit_test(a_resolver_only_asks),
        cmocka_unit_test(what_is_needed_stays),
        cmocka_unit_test(the_master_may_start_programs_and_little_else),
        cmocka_unit_test(a_filter_goes_on_top_of_the_masters),
        cmocka_unit_test(a_filter_goes_under_one_that_refuses_seccomp),
    };
#ifdef __SANITIZE_ADDRESS__
    puts("a build with a sanitizer has no filter: nothing to try");
    (void)tests;
    return 0;
#else
    return cmocka_run_group_tests(tests, NULL, NULL);
#endif
}
