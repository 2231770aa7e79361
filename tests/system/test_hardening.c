/* SPDX-License-Identifier: BSD-2-Clause */
/* What is left to a process that someone has taken over: seen from outside, on the running daemon.
 */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUTES                                                                                     \
    "user = \"nobody\"\n"                                                                          \
    "upstream \"u\" { server \"127.0.0.1:1\" { } }\n"                                              \
    "route \"/ws/*\" { websocket { } }\n"                                                          \
    "route \"/*\" { upstream = \"u\" cache { } }\n"

static const char *const titles[] = {"polderd: master", "polderd: worker", "polderd: keeper",
                                     "polderd: control"};
#define TITLES (sizeof titles / sizeof *titles)

static void start_as_nobody(struct house *h, const char *more)
{
    house_start(h, 1, "%s%s", ROUTES, more);
}

/* The rest of the line of /proc/PID/status that begins with key. */
static long status_of(pid_t pid, const char *key)
{
    char path[64], line[256];
    long value = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':')
            value = strtol(line + strlen(key) + 1, NULL, 10);
    fclose(f);
    return value;
}

static pid_t process_of(struct house *h, const char *title)
{
    pid_t pid = h->pid;
    if (strcmp(title, "polderd: master") != 0)
        assert_int_equal(house_children(h, title, &pid, 1), 1);
    return pid;
}

static void every_process_has_a_filter_and_no_way_to_more(void **state)
{
    (void)state;
    struct house h;
    start_as_nobody(&h, "");
    for (size_t i = 0; i < TITLES; i++) {
        const pid_t pid = process_of(&h, titles[i]);
        wait_until(status_of(pid, "Seccomp") == 2, 2000);
        assert_int_equal(status_of(pid, "NoNewPrivs"), 1);
    }
    house_remove(&h);
}

static uid_t owner_of(pid_t pid)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    assert_int_equal(stat(path, &st), 0);
    return st.st_uid;
}

/* What belongs to root under /proc can neither be traced nor read by another process of the user.
 */
static void core_dumps_decide_who_may_look_into_a_process(void **state)
{
    (void)state;
    struct house h;
    start_as_nobody(&h, "");
    for (size_t i = 0; i < TITLES; i++)
        assert_int_equal(owner_of(process_of(&h, titles[i])), 0);
    house_remove(&h);
    start_as_nobody(&h, "core_dumps = true\n");
    for (size_t i = 0; i < TITLES; i++)
        assert_int_not_equal(owner_of(process_of(&h, titles[i])), 0);
    house_remove(&h);
}

static void sandbox_can_be_turned_off(void **state)
{
    (void)state;
    struct house h;
    start_as_nobody(&h, "sandbox = false\n");
    assert_int_equal(status_of(process_of(&h, "polderd: worker"), "Seccomp"), 0);
    house_remove(&h);
}

static unsigned writable_configurations(pid_t pid)
{
    char path[64], line[512], next[512] = "";
    unsigned n = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        unsigned long from, to;
        char modes[8];
        if (!strstr(line, "polder-config-0") || sscanf(line, "%lx-%lx %7s", &from, &to, modes) != 3)
            continue;
        n += modes[1] == 'w' && to - from > (8 << 20); /* more than the running values */
        memcpy(next, line, sizeof next);
    }
    fclose(f);
    assert_true(next[0]); /* it was seen at all */
    return n;
}

static void a_configuration_cannot_be_changed_once_it_is_read(void **state)
{
    (void)state;
    struct house h;
    start_as_nobody(&h, "");
    for (size_t i = 0; i < TITLES; i++)
        assert_int_equal(writable_configurations(process_of(&h, titles[i])), 0);
    house_remove(&h);
}

/* The supervisor reads it into memory of its own. */
static bool has_read_only_configuration(pid_t pid)
{
    char path[64], line[512];
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        unsigned long from, to, inode;
        char modes[8];
        if (sscanf(line, "%lx-%lx %7s %*s %*s %lu", &from, &to, modes, &inode) == 4 &&
            !strcmp(modes, "r--p") && inode == 0 && to - from >= (16 << 20))
            found = true;
    }
    fclose(f);
    return found;
}

static void the_supervisor_cannot_change_its_configuration(void **state)
{
    (void)state;
    struct house h;
    pid_t pid;
    start_as_nobody(&h, "");
    wait_until(house_children(&h, "polder-supervisor", &pid, 1) == 1, 20000);
    wait_until(has_read_only_configuration(pid), 20000);
    assert_int_equal(kill(pid, SIGHUP), 0); /* what it reads later neither */
    wait_until(house_logged(&h, "config: read again"), 20000);
    assert_true(has_read_only_configuration(pid));
    house_remove(&h);
}

static void data_path(const struct house *h, char path[512])
{
    char dir[256];
    snprintf(dir, sizeof dir, "%s/state", h->dir);
    DIR *d = opendir(dir);
    assert_non_null(d);
    path[0] = '\0';
    for (struct dirent *e; (e = readdir(d));)
        if (!strncmp(e->d_name, "cache.", 6))
            snprintf(path, 512, "%s/%.64s/data.mdb", dir, e->d_name);
    closedir(d);
    assert_true(path[0]);
}

/* As the user of the workers; 0 or an errno. */
static int open_as_nobody(const char *path, int flags)
{
    const struct passwd *pw = getpwnam("nobody");
    int status;
    assert_non_null(pw);
    const pid_t pid = fork();
    if (pid == 0) {
        if (setgid(pw->pw_gid) || setuid(pw->pw_uid))
            _exit(255);
        _exit(open(path, flags | O_CLOEXEC) < 0 ? errno : 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void workers_cannot_open_the_store_for_writing(void **state)
{
    (void)state;
    struct house h;
    char path[512];
    pid_t keeper;
    start_as_nobody(&h, "");
    data_path(&h, path);
    assert_int_equal(open_as_nobody(path, O_RDONLY), 0);
    assert_int_equal(open_as_nobody(path, O_RDWR), EACCES);
    keeper = process_of(&h, "polderd: keeper");
    assert_int_equal(kill(keeper, SIGKILL), 0); /* its successor can still open it */
    wait_until(house_children(&h, "polderd: keeper", &keeper, 1) == 1 && house_ready(&h), 5000);
    data_path(&h, path);
    wait_until(open_as_nobody(path, O_RDWR) == EACCES, 5000);
    house_remove(&h);
}

static void programs_are_linked_with_all_protections(void **state)
{
    (void)state;
    static const char *const programs[] = {"polderd", "polder-supervisor", "polderctl"};
    char command[512], line[512];
    for (size_t i = 0; i < 3; i++) {
        unsigned seen = 0;
        snprintf(command, sizeof command, "readelf -W -hldsr %s", built(programs[i]));
        FILE *f = popen(command, "r"); /* NOLINT(cert-env33-c) */
        assert_non_null(f);
        while (fgets(line, sizeof line, f))
            seen |= (strstr(line, "Type:") && strstr(line, "DYN") ? 1u : 0u) |
                    (strstr(line, "BIND_NOW") ? 2u : 0u) | (strstr(line, "GNU_RELRO") ? 4u : 0u) |
                    (strstr(line, "__stack_chk_fail") ? 8u : 0u) |
                    (strstr(line, "_chk@") || strstr(line, "_chk ") ? 16u : 0u);
        pclose(f);
        assert_int_equal(seen, 31);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_process_has_a_filter_and_no_way_to_more),
        cmocka_unit_test(core_dumps_decide_who_may_look_into_a_process),
        cmocka_unit_test(sandbox_can_be_turned_off),
        cmocka_unit_test(a_configuration_cannot_be_changed_once_it_is_read),
        cmocka_unit_test(the_supervisor_cannot_change_its_configuration),
        cmocka_unit_test(workers_cannot_open_the_store_for_writing),
        cmocka_unit_test(programs_are_linked_with_all_protections),
    };
    if (harness_sanitized() || geteuid() != 0) {
        puts("needs root, and a build without sanitizer: nothing to try");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
