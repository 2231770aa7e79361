/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of what needs somebody: each trouble is made, seen in status, readyz, metrics and log,
 * mended, and gone. */
#include "ws_client.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct backend *backend;

static bool answers(struct asked *a)
{
    return reply_ok(a, "", a->target);
}

static const char *routes(void)
{
    static char text[512];
    snprintf(text, sizeof text,
             "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
             "route \"/*\" { upstream = \"u\" cache { } }\n",
             backend_port(backend));
    return text;
}

static bool in_metrics(struct house *h, const char *name, const char *subject)
{
    char sample[300];
    struct message m;
    snprintf(sample, sizeof sample, "\npolder_condition{name=\"%s\",subject=\"%s\"} 1\n", name,
             subject);
    assert_int_equal(get(h->ops_port, "/metrics", &m), 200);
    const bool there = strstr(m.body, sample) != NULL;
    message_free(&m);
    return there;
}

static bool in_reasons(struct house *h, const char *name)
{
    struct message m;
    get(h->ops_port, "/readyz", &m);
    const bool there = m.body && strstr(m.body, name) != NULL;
    message_free(&m);
    return there;
}

static bool in_status(struct house *h, const char *name)
{
    const char *out;
    char row[128];
    assert_int_equal(ctl(h, &out, "--json status"), 0);
    snprintf(row, sizeof row, "\"condition\": \"%s\"", name);
    return strstr(out, row) != NULL;
}

static void edit(struct house *h, const char *extra)
{
    char text[1024];
    snprintf(text, sizeof text, "%s%s", routes(), extra);
    house_write_conf(h, 1, text);
}

static void a_reload_that_failed_is_told_until_one_succeeds(void **state)
{
    struct house h;
    const char *out;
    (void)state;
    house_start(&h, 1, "%s", routes());
    assert_false(in_status(&h, "reload_failed"));
    edit(&h, "nonsense = 1\nworkers = many\n");
    assert_int_equal(ctl(&h, &out, "reload --wait"), 1);
    assert_true(in_reasons(&h, " (and 1 more)")); /* one line, whole */
    assert_true(in_status(&h, "reload_failed"));
    assert_true(in_metrics(&h, "reload_failed", ""));
    assert_true(in_reasons(&h, "reload_failed: "));
    assert_int_equal(get(h.ops_port, "/readyz", NULL), 200); /* it serves on */
    assert_true(house_logged(&h, "condition reload_failed: "));
    edit(&h, "");
    assert_int_equal(ctl(&h, &out, "reload --wait"), 0);
    assert_false(in_status(&h, "reload_failed"));
    assert_false(in_metrics(&h, "reload_failed", ""));
    assert_true(house_logged(&h, "condition reload_failed: is over after"));
    house_remove(&h);
}

static void too_few_descriptors_are_told_until_less_is_wanted(void **state)
{
    struct house h;
    (void)state;
    house_start(&h, 1, "max_connections = 9000000\n%s", routes());
    assert_true(in_status(&h, "descriptors_short"));
    assert_true(in_metrics(&h, "descriptors_short", "polderd"));
    assert_true(in_reasons(&h, "descriptors_short polderd: "));
    edit(&h, "max_connections = 10\n");
    assert_int_equal(ctl(&h, NULL, "reload --wait"), 0);
    assert_false(in_status(&h, "descriptors_short"));
    house_remove(&h);
}

/* ---- the supervisor ---- */

static pid_t start_supervisor(struct house *h)
{
    const pid_t pid = fork();
    if (pid == 0) {
        const int log = open(h->log, O_WRONLY | O_APPEND);
        dup2(log, STDERR_FILENO);
        execl(built("polder-supervisor"), "polder-supervisor", "-c", h->conf, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

static bool health_says(struct house *h, const char *text)
{
    struct message m;
    assert_int_equal(get(h->ops_port, "/api/telemetry/websocket-health", &m), 200);
    const bool says = strstr(m.body, text) != NULL;
    message_free(&m);
    return says;
}

/* Under systemd it is a unit of its own, so polderd starts none. */
static void the_supervisor_is_waited_for_and_then_missed(void **state)
{
    struct house h;
    char conf[700];
    (void)state;
    house_start(&h, 1, "%s", routes());
    house_stop(&h);
    snprintf(conf, sizeof conf, "%sroute \"/ws\" { upstream = \"u\" websocket { } }\n", routes());
    house_write_conf(&h, 1, conf);
    setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
    h.pid = fork();
    if (h.pid == 0) {
        const int log = open(h.log, O_WRONLY | O_APPEND);
        dup2(log, STDERR_FILENO);
        execl(built("polderd"), "polderd", "-c", h.conf, (char *)NULL);
        _exit(127);
    }
    unsetenv("NOTIFY_SOCKET");
    wait_until(in_reasons(&h, "polder-supervisor does not answer yet"), 10000);
    assert_int_equal(get(h.ops_port, "/readyz", NULL), 503);
    assert_int_equal(get(h.port, "/x", NULL), 200); /* it works as far as it goes */
    const pid_t supervisor = start_supervisor(&h);
    wait_until(get(h.ops_port, "/readyz", NULL) == 200, 10000);
    assert_true(health_says(&h, "\"supervisor\":\"ok\""));
    assert_false(in_status(&h, "supervisor_missing"));
    /* what the supervisor raises is shown by polderd */
    assert_int_equal(ctl(&h, NULL, "ws set max_connections=9000000"), 0);
    assert_true(in_metrics(&h, "descriptors_short", "polder-supervisor"));
    assert_int_equal(ctl(&h, NULL, "ws set max_connections=50"), 0);
    assert_false(in_metrics(&h, "descriptors_short", "polder-supervisor"));
    const pid_t working = working_process(supervisor);
    kill(supervisor, SIGSTOP); /* else it would replace the other one */
    kill(working, SIGSTOP);
    wait_until(in_status(&h, "supervisor_hung"), 15000);
    assert_true(in_metrics(&h, "supervisor_hung", ""));
    assert_int_equal(get(h.ops_port, "/readyz", NULL), 200); /* plain requests are served */
    assert_true(in_reasons(&h, "supervisor_hung: "));
    assert_true(health_says(&h, "\"supervisor\":\"does not answer\",\"activeConnections\":null"));
    kill(working, SIGCONT);
    kill(supervisor, SIGCONT);
    wait_until(!in_status(&h, "supervisor_hung"), 15000);
    kill(supervisor, SIGKILL);
    waitpid(supervisor, NULL, 0);
    wait_until(in_status(&h, "supervisor_missing"), 15000);
    assert_int_equal(get(h.ops_port, "/readyz", NULL), 200);
    assert_true(in_reasons(&h, "supervisor_missing: "));
    assert_true(health_says(&h, "\"supervisor\":\"missing\""));
    house_remove(&h);
}

/* ---- disks ---- */

/* A place of our own where something may be mounted; false: not allowed here. */
static bool may_mount(void)
{
    static int may = -1;
    if (may < 0)
        may = geteuid() == 0 && unshare(CLONE_NEWNS) == 0 &&
              mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    return may == 1;
}

static void begin_on_disk(struct house *h, const char *options)
{
    char path[160];
    const char *tmp = getenv("TMPDIR");
    memset(h, 0, sizeof *h);
    snprintf(h->dir, sizeof h->dir, "%.80s/polder-test.XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(h->dir));
    snprintf(h->conf, sizeof h->conf, "%s/polder.conf", h->dir);
    snprintf(h->log, sizeof h->log, "%s/log", h->dir);
    snprintf(h->sock, sizeof h->sock, "%s/run/admin.sock", h->dir);
    snprintf(path, sizeof path, "%s/state", h->dir);
    assert_int_equal(mkdir(path, 0700), 0);
    if (mount("disk", path, "tmpfs", 0, options) < 0)
        fail_msg("cannot mount a tmpfs with %s", options);
    h->port = free_port();
    h->ops_port = free_port();
    house_write_conf(h, 1, routes());
}

static void remount(const struct house *h, unsigned long flags, const char *options)
{
    char path[160];
    snprintf(path, sizeof path, "%s/state", h->dir);
    assert_int_equal(mount("disk", path, "tmpfs", MS_REMOUNT | flags, options), 0);
}

static void end_on_disk(struct house *h)
{
    char path[160];
    house_stop(h);
    snprintf(path, sizeof path, "%s/state", h->dir);
    assert_int_equal(umount2(path, MNT_DETACH), 0);
    house_remove(h);
}

static void a_full_disk_is_told_until_there_is_room(void **state)
{
    struct house h;
    (void)state;
    if (!may_mount())
        skip();
    begin_on_disk(&h, "size=40m");
    house_run(&h);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    assert_true(in_status(&h, "disk_full"));
    assert_true(in_metrics(&h, "disk_full", ""));
    assert_true(in_reasons(&h, "disk_full: "));
    remount(&h, 0, "size=2g");
    wait_until(!in_status(&h, "disk_full"), 60000); /* tried again every 30 s */
    assert_true(house_logged(&h, "condition disk_full: is over"));
    end_on_disk(&h);
}

static void a_disk_that_cannot_be_written_is_no_reason_not_to_serve(void **state)
{
    struct house h;
    (void)state;
    if (!may_mount())
        skip();
    begin_on_disk(&h, "size=40m");
    remount(&h, MS_RDONLY, "size=40m");
    house_run(&h);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    assert_true(in_status(&h, "state_read_only"));
    assert_true(in_reasons(&h, "state_read_only: "));
    assert_int_equal(ctl(&h, NULL, "reload --wait"), 0);
    end_on_disk(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reload_that_failed_is_told_until_one_succeeds),
        cmocka_unit_test(too_few_descriptors_are_told_until_less_is_wanted),
        cmocka_unit_test(the_supervisor_is_waited_for_and_then_missed),
        cmocka_unit_test(a_full_disk_is_told_until_there_is_room),
        cmocka_unit_test(a_disk_that_cannot_be_written_is_no_reason_not_to_serve),
    };
    return run_with_backend(tests, &backend, answers);
}
