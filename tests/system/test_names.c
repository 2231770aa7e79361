/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of servers given by name. The names are in a hosts file of this program's own, which it
 * mounts where it alone, and the daemon that it starts, see it; without the right to, it skips. */
#include "harness.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static char hosts[] = "/tmp/polder-hosts.XXXXXX";
static bool may_mount;
static struct backend *backend;
static struct house house;

/* In place: the file is mounted. */
static void hosts_are(const char *lines)
{
    const int fd = open(hosts, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_true(dprintf(fd, "127.0.0.1 localhost\n%s", lines) > 0);
    close(fd);
}

static int private_hosts(void **state)
{
    (void)state;
    const int fd = mkstemp(hosts);
    if (fd < 0 || fchmod(fd, 0644) < 0)
        return -1;
    close(fd);
    may_mount = unshare(CLONE_NEWNS) == 0 &&
                mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                mount(hosts, "/etc/hosts", NULL, MS_BIND, NULL) == 0;
    return 0;
}

static int shared_hosts(void **state)
{
    (void)state;
    if (may_mount)
        umount("/etc/hosts");
    unlink(hosts);
    return 0;
}

static bool says_well(struct asked *a)
{
    return reply_ok(a, "", "well");
}

static int begin(void **state)
{
    (void)state;
    if (may_mount)
        backend = backend_start(says_well, NULL);
    return 0;
}

static int end(void **state)
{
    (void)state;
    if (!may_mount)
        return 0;
    house_remove(&house);
    backend_stop(backend);
    return 0;
}

static bool shows(const char *command, const char *what)
{
    const char *out;
    return ctl(&house, &out, "%s", command) == 0 && strstr(out, what);
}

static void house_with(const char *name)
{
    house_start(&house, 2,
                "upstream \"n\" { server \"%s:%u\" { } park = \"0s\" }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/n\" { upstream = \"n\" }\nroute \"/*\" { upstream = \"u\" }\n",
                name, backend_port(backend), backend_port(backend));
}

static void a_name_that_is_nothing_yet_is_asked_for_again(void **state)
{
    (void)state;
    if (!may_mount)
        skip();
    hosts_are("");
    house_with("late.invalid"); /* starts */
    assert_int_equal(get(house.port, "/n", NULL), 502);
    assert_int_equal(get(house.port, "/other", NULL), 200);
    assert_true(shows("status", "name_unresolved"));
    assert_true(shows("upstream list", "name without an address"));
    assert_int_equal(ctl(&house, NULL, "reload --wait"), 0); /* nor is it a reason to refuse one */
    assert_int_equal(get(house.port, "/n", NULL), 502);
    hosts_are("127.0.0.1 late.invalid\n");
    wait_until(get(house.port, "/n", NULL) == 200, 20000);
    wait_until(!shows("status", "name_unresolved"), 5000);
    assert_true(shows("upstream list", "127.0.0.1:"));
    hosts_are(""); /* what was known is better than nothing */
    assert_int_equal(ctl(&house, NULL, "reload --wait"), 0);
    assert_int_equal(get(house.port, "/n", NULL), 200);
    assert_true(house_logged(&house, "its last addresses are used"));
}

static void all_addresses_of_a_name_are_tried(void **state)
{
    (void)state;
    if (!may_mount)
        skip();
    hosts_are("127.0.0.2 many.invalid\n::1 many.invalid\n127.0.0.3 many.invalid\n"
              "127.0.0.1 many.invalid\n");
    house_with("many.invalid");
    for (int i = 0; i < 10; i++)
        assert_int_equal(get(house.port, "/n", NULL), 200);
    assert_true(shows("upstream list", "[::1]:"));
    assert_false(house_logged(&house, "refused")); /* the server has answered */
    assert_int_equal(request(house.port, "POST", "/n", "", "x", NULL), 200);
}

static void a_reload_learns_new_addresses(void **state)
{
    (void)state;
    if (!may_mount)
        skip();
    hosts_are("127.0.0.2 moved.invalid\n");
    house_with("moved.invalid");
    assert_int_equal(get(house.port, "/n", NULL), 502);
    assert_true(house_logged(&house, "refused the connection"));
    hosts_are("127.0.0.1 moved.invalid\n");
    assert_int_equal(ctl(&house, NULL, "reload --wait"), 0);
    assert_int_equal(get(house.port, "/n", NULL), 200);
}

static void the_file_of_hosts_is_followed(void **state)
{
    (void)state;
    if (!may_mount)
        skip();
    hosts_are("127.0.0.2 moved.invalid\n");
    house_with("moved.invalid");
    assert_int_equal(get(house.port, "/n", NULL), 502);
    hosts_are("127.0.0.1 moved.invalid\n");
    wait_until(get(house.port, "/n", NULL) == 200, 10000);
    wait_until(house_logged(&house, "files of the system have changed"), 10000);
}

static void the_check_of_a_file_warns_of_names_that_are_nothing(void **state)
{
    char command[400], line[512], all[4096] = "";
    (void)state;
    if (!may_mount)
        skip();
    hosts_are("");
    house_with("nothing.invalid");
    snprintf(command, sizeof command, "%s -c %s -t 2>&1", built("polderd"), house.conf);
    FILE *p = popen(command, "r");
    while (fgets(line, sizeof line, p))
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s", line);
    assert_int_equal(pclose(p), 0);
    assert_non_null(strstr(all, "warning: server \"nothing.invalid:"));
    assert_non_null(strstr(all, ": ok"));
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(a_name_that_is_nothing_yet_is_asked_for_again),
        STORY(all_addresses_of_a_name_are_tried),
        STORY(a_reload_learns_new_addresses),
        STORY(the_file_of_hosts_is_followed),
        STORY(the_check_of_a_file_warns_of_names_that_are_nothing),
    };
    return cmocka_run_group_tests(tests, private_hosts, shared_hosts);
}
