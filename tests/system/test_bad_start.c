/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of what surrounds a start: a second instance, nonsense of a service manager, files of
 * others where sockets belong, no permission, too few descriptors. What can be borne is borne; else
 * the start ends with the reason. */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534

static struct backend *backend;

static bool answers(struct asked *a)
{
    return reply_ok(a, "", "served");
}

static void start(struct house *h)
{
    house_start(h, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/ws/*\" { websocket { } }\nroute \"/*\" { upstream = \"u\" }\n",
                backend_port(backend));
}

/* Runs a program that is to end by itself, with `prepare` in the child. Returns its exit status;
 * what it said is in `text`. */
static char text[16384];
static int ends(const char *program, const char *conf, void (*prepare)(const void *arg),
                const void *arg)
{
    int out[2], status;
    ssize_t n;
    size_t len = 0;
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(out[1], 1);
        dup2(out[1], 2);
        if (prepare)
            prepare(arg);
        execl("/usr/bin/timeout", "timeout", "60", built(program), "-c", conf, (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    while ((n = read(out[0], text + len, sizeof text - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = 0;
    close(out[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void expect_said(const char *what)
{
    if (!strstr(text, what))
        fail_msg("\"%s\" is not in: %s", what, text);
}

static void a_second_instance_is_refused_and_the_first_unharmed(void **state)
{
    struct house h, second;
    (void)state;
    start(&h);
    second = h;
    second.port = free_port();
    second.ops_port = free_port();
    snprintf(second.conf, sizeof second.conf, "%s/second.conf", h.dir);
    house_write_conf(
        &second, 1,
        "upstream \"u\" { server \"127.0.0.1:1\" { } }\nroute \"/*\" { upstream = \"u\" }\n");
    assert_int_equal(ends("polderd", second.conf, NULL, NULL), 1);
    expect_said("another polderd uses state_dir");
    wait_until(house_logged(&h, "supervisor: ready") || house_ready(&h), 10000);
    assert_int_equal(ends("polder-supervisor", h.conf, NULL, NULL), 1);
    expect_said("another polder-supervisor answers on");
    assert_int_equal(get(h.port, "/x", NULL), 200);
    const char *out;
    assert_int_equal(ctl(&h, &out, "ws stats"), 0);
    house_remove(&h);
}

static void pass_variables(void *arg)
{
    for (const char *const *v = arg; *v; v += 2)
        setenv(v[0], v[1], 1);
}

static void pass_bad_number(const void *arg)
{
    setenv("LISTEN_PID", arg, 1);
    setenv("LISTEN_FDS", "1", 1);
}

static void nonsense_of_a_service_manager_is_borne_or_said(void **state)
{
    static char far[200];
    static const char *numbers[] =
        {"WATCHDOG_USEC", "soon", "WATCHDOG_PID", "-", "LISTEN_PID", "1", "LISTEN_FDS", "x", NULL},
                      *large[] = {"WATCHDOG_USEC",
                                  "99999999999999999999",
                                  "LISTEN_PID",
                                  "1",
                                  "LISTEN_FDS",
                                  "-1",
                                  "NOTIFY_SOCKET",
                                  "nowhere",
                                  NULL},
                      *paths[] = {"NOTIFY_SOCKET",
                                  far,
                                  "WATCHDOG_USEC",
                                  "1",
                                  "LISTEN_FDS",
                                  "7",
                                  "LISTEN_FDNAMES",
                                  ":::",
                                  NULL};
    const char **all[] = {numbers, large, paths};
    struct house h;
    (void)state;
    memset(far, '/', sizeof far - 1);
    house_start(
        &h, 1,
        "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"u\" }\n",
        backend_port(backend));
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        assert_int_equal(house_stop(&h), 0);
        house_spawned_by(pass_variables, all[i]);
        house_run(&h);
        house_spawned_by(NULL, NULL);
        assert_int_equal(get(h.port, "/x", NULL), 200);
    }
    assert_int_equal(house_stop(&h), 0);
    assert_int_equal(ends("polderd", h.conf, pass_bad_number, "me"), 1);
    expect_said("LISTEN_FDS=1 does not name sockets");
    assert_int_equal(ends("polderd", h.conf, pass_bad_number, "99999999999"), 1);
    expect_said("LISTEN_FDS=1 does not name sockets");
    assert_int_equal(ends("polder-supervisor", h.conf, pass_bad_number, "me"), 1);
    expect_said("LISTEN_FDS=1 does not name sockets");
    house_remove(&h);
}

/* Whatever is in a directory becomes something else: empty, nonsense, a socket without a listener.
 */
static unsigned spoil(const char *dir, int how)
{
    DIR *d = opendir(dir);
    unsigned n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        struct stat st;
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) || S_ISDIR(st.st_mode))
            continue;
        snprintf(sa.sun_path, sizeof sa.sun_path, "%.60s/%.40s", dir, e->d_name);
        n++;
        unlink(sa.sun_path);
        const int fd = how == 2 ? socket(AF_UNIX, SOCK_STREAM, 0)
                                : open(sa.sun_path, O_WRONLY | O_CREAT, 0600);
        assert_true(fd >= 0);
        if (how == 2)
            assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
        else if (how == 1)
            assert_int_equal(write(fd, "polder\0\377\377\377\377nonsense\n", 21), 21);
        close(fd);
    }
    closedir(d);
    return n;
}

static void stale_files_of_the_runtime_directory_are_replaced(void **state)
{
    struct house h;
    char run[160];
    const char *out;
    (void)state;
    start(&h);
    snprintf(run, sizeof run, "%s/run", h.dir);
    for (int how = 0; how < 3; how++) {
        assert_int_equal(get(h.port, "/x", NULL), 200);
        if (how % 2)
            house_kill(&h);
        else
            assert_int_equal(house_stop(&h), 0);
        assert_true(spoil(run, how) > 0);
        house_run(&h);
        assert_int_equal(get(h.port, "/x", NULL), 200);
        assert_int_equal(ctl(&h, &out, "status"), 0);
        wait_until(ctl(&h, &out, "ws stats") == 0, 10000);
    }
    house_remove(&h);
}

static void become_nobody(const void *arg)
{
    (void)arg;
    if (setgid(NOBODY) || setuid(NOBODY))
        _exit(126);
}

static void without_permission_the_path_is_named(void **state)
{
    struct house h;
    char dir[160];
    (void)state;
    if (geteuid() != 0)
        skip();
    start(&h);
    assert_int_equal(house_stop(&h), 0);
    assert_int_equal(chmod(h.dir, 0755), 0);
    if (faccessat(AT_FDCWD, built("polderd"), X_OK, 0))
        skip();
    assert_int_equal(chmod(h.conf, 0600), 0);
    assert_int_equal(ends("polderd", h.conf, become_nobody, NULL), 2);
    expect_said("cannot read it: Permission denied");
    assert_int_equal(ends("polder-supervisor", h.conf, become_nobody, NULL), 2);
    expect_said("cannot read it: Permission denied");
    assert_int_equal(chmod(h.conf, 0644), 0);
    snprintf(dir, sizeof dir, "%s/state", h.dir);
    assert_int_equal(chmod(dir, 0700), 0);
    assert_int_equal(ends("polderd", h.conf, become_nobody, NULL), 1);
    expect_said("state_dir");
    expect_said("not writable for uid 65534");
    house_run(&h); /* nothing was spoiled */
    assert_int_equal(get(h.port, "/x", NULL), 200);
    house_remove(&h);
}

static void limit_descriptors(const void *arg)
{
    const struct rlimit few = {*(const unsigned *)arg, *(const unsigned *)arg};
    setrlimit(RLIMIT_NOFILE, &few);
    setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1); /* no supervisor is started */
}

static void with_too_few_descriptors_it_does_not_start(void **state)
{
    static const unsigned few[] = {16, 40, 64, 128};
    struct house h;
    (void)state;
    start(&h);
    assert_int_equal(house_stop(&h), 0);
    for (unsigned i = 0; i < sizeof few / sizeof *few; i++) {
        assert_int_equal(ends("polderd", h.conf, limit_descriptors, &few[i]), 1);
        expect_said("open files; at least ");
    }
    house_run(&h);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    house_remove(&h);
}

static void limit_file_size(const void *arg)
{
    const struct rlimit small = {*(const unsigned *)arg, *(const unsigned *)arg};
    setrlimit(RLIMIT_FSIZE, &small);
    setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
}

static void where_files_may_not_grow_it_says_so(void **state)
{
    static const unsigned small = 1 << 20;
    struct house h;
    (void)state;
    start(&h);
    assert_int_equal(house_stop(&h), 0);
    assert_int_equal(ends("polderd", h.conf, limit_file_size, &small), 1);
    expect_said("File too large");
    house_run(&h);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_instance_is_refused_and_the_first_unharmed),
        cmocka_unit_test(nonsense_of_a_service_manager_is_borne_or_said),
        cmocka_unit_test(stale_files_of_the_runtime_directory_are_replaced),
        cmocka_unit_test(without_permission_the_path_is_named),
        cmocka_unit_test(with_too_few_descriptors_it_does_not_start),
        cmocka_unit_test(where_files_may_not_grow_it_says_so),
    };
    return run_with_backend(tests, &backend, answers);
}
