/* SPDX-License-Identifier: BSD-2-Clause */
/* What make install puts where, with a careless umask and without a compiler; make uninstall. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

/* Runs a command of the shell, in which $D is our directory and $B the build's. */
static int run(const char *command)
{
    char text[2048];
    const char *build = getenv("POLDER_BUILD");
    snprintf(text, sizeof text,
             "unset MAKEFLAGS MFLAGS MAKELEVEL; exec >%s/log 2>&1; D=%s; B=%s; %s", dir, dir,
             build ? build : "build", command);
    return system(text);
}

static bool empty(const char *find)
{
    char text[512];
    snprintf(text, sizeof text, "[ -z \"$(find $D/root %s)\" ]", find);
    return run(text) == 0;
}

static void all_of_it_is_there_and_may_be_read_by_everybody(void **state)
{
    (void)state;
    assert_int_equal(
        run("umask 077; make -s install CC=/nonexistent BUILD=$B DESTDIR=$D/root PREFIX=/opt/p"),
        0);
    assert_false(empty("-type f"));
    assert_true(empty("-mindepth 1 -type d ! -perm 755"));
    assert_true(empty("-type f ! -perm 644 ! -perm 755"));
    assert_true(empty("-type f -empty"));
    static const char *const some[] = {"sbin/polderd",
                                       "sbin/polder-supervisor",
                                       "bin/polderctl",
                                       "lib/systemd/system/polder.socket",
                                       "lib/systemd/system/polder-supervisor.service",
                                       "lib/systemd/system/polder-supervisor.socket",
                                       "lib/sysusers.d/polder.conf",
                                       "lib/tmpfiles.d/polder.conf",
                                       "share/man/man8/polder-supervisor.8",
                                       "share/man/man5/polder.conf.5",
                                       "share/doc/polder/drop-ins/polder.socket.conf",
                                       "share/doc/polder/polder.logrotate"};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        char path[256];
        struct stat st;
        snprintf(path, sizeof path, "%s/root/opt/p/%s", dir, some[i]);
        if (stat(path, &st) < 0)
            fail_msg("%s is missing", path);
        assert_int_equal(st.st_mode & 0777, i < 3 ? 0755 : 0644);
    }
    assert_int_equal(run("$D/root/opt/p/bin/polderctl --version"), 0);
    assert_int_equal(run("grep -rE '/usr/s?bin/polder' $D/root/opt/p/lib"), 256); /* none */
}

static void uninstall_leaves_what_is_not_its_own(void **state)
{
    (void)state;
    assert_int_equal(run("mkdir -p $D/root/etc/polder && touch $D/root/etc/polder/polder.conf "
                         "$D/root/opt/p/bin/other"),
                     0);
    for (int i = 0; i < 2; i++) { /* once more finds nothing, which is well */
        assert_int_equal(run("make -s uninstall BUILD=$B DESTDIR=$D/root PREFIX=/opt/p"), 0);
        assert_true(empty("-type f ! -name other ! -name polder.conf"));
        assert_false(empty("-name other"));
        assert_false(empty("-path '*/etc/polder/polder.conf'"));
        assert_true(empty("-path '*doc/polder*'"));
    }
}

static void what_is_not_built_is_said(void **state)
{
    (void)state;
    assert_int_not_equal(
        run("make -s install CC=/nonexistent BUILD=$D/none DESTDIR=$D/root2 PREFIX=/usr"), 0);
    assert_int_equal(run("[ ! -e $D/root2 ]"), 0);
}

static void the_units_are_exposed_by_one_and_a_half_at_most(void **state)
{
    (void)state;
    if (run("systemd-analyze security --offline=true --threshold=100 systemd/polder.service") != 0)
        skip(); /* none is here, or an older one */
    assert_int_equal(run("for u in systemd/*.service; do systemd-analyze security --offline=true "
                         "--threshold=15 $u || exit 1; done"),
                     0);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(all_of_it_is_there_and_may_be_read_by_everybody),
        cmocka_unit_test(uninstall_leaves_what_is_not_its_own),
        cmocka_unit_test(what_is_not_built_is_said),
        cmocka_unit_test(the_units_are_exposed_by_one_and_a_half_at_most),
    };
    snprintf(dir, sizeof dir, "/tmp/polder-install.XXXXXX");
    if (!mkdtemp(dir))
        return 1;
    const int failed = cmocka_run_group_tests(stories, NULL, NULL);
    char clean[96];
    snprintf(clean, sizeof clean, "rm -rf %s", dir);
    return system(clean) || failed;
}
