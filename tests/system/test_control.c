/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of the control process: who gets in, what it does while others hang or die, and that what
 * it changes reaches every process. */
#include "harness.h"

#include <errno.h>
#include <grp.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct backend *backend;

static bool answers(struct asked *a)
{
    return reply_ok(a, "Cache-Control: max-age=60\r\nSurrogate-Key: all-of-it\r\n", a->target);
}

static void start(struct house *h, const char *head)
{
    house_start(
        h, 2,
        "%s\nupstream \"u\" { server \"127.0.0.1:%u\" { weight = 100 } }\n"
        "limit \"ip\" { requests = 3 window = \"60s\" }\n"
        "limit \"key\" { requests = 2 window = \"60s\" key = \"header:X-Api-Key\" }\n"
        "limit \"both\" { requests = 2 window = \"60s\" key = \"client+header:X-Api-Key\" }\n"
        "route \"/c/*\" { upstream = \"u\" cache { } }\n"
        "route \"/ip\" { upstream = \"u\" limits = {\"ip\"} }\n"
        "route \"/key\" { upstream = \"u\" limits = {\"key\"} }\n"
        "route \"/both\" { upstream = \"u\" limits = {\"both\"} }\n"
        "route \"/*\" { upstream = \"u\" }\n",
        head, backend_port(backend));
}

static json_t *ctl_json(struct house *h, const char *command)
{
    const char *out;
    json_error_t e;
    const int status = ctl(h, &out, "--json %s", command);
    if (status)
        fail_msg("%s: status %d: %s", command, status, out);
    json_t *j = json_loads(out, 0, &e);
    if (!j)
        fail_msg("%s: no JSON document: %s: %s", command, e.text, out);
    return j;
}

static pid_t one_child(struct house *h, const char *title)
{
    pid_t pid[4];
    assert_int_equal(house_children(h, title, pid, 4), 1);
    return pid[0];
}

/* ---- others hang or die ---- */

static void an_invalidation_is_acknowledged_while_the_keeper_hangs(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, "");
    assert_int_equal(get(h.port, "/c/1", NULL), 200);
    wait_until(ctl(&h, NULL, "cache show http://test.example/c/1") == 0, 3000);
    const pid_t keeper = one_child(&h, "polderd: keeper");
    kill(keeper, SIGSTOP);
    const uint64_t before = mono_ms();
    assert_int_equal(ctl(&h, NULL, "cache invalidate --tag all-of-it"), 0);
    assert_true(mono_ms() - before < harness_patience(1000));
    const unsigned calls = backend_calls(backend);
    assert_int_equal(get(h.port, "/c/1", NULL), 200);
    assert_int_equal(backend_calls(backend), calls + 1);
    assert_int_equal(ctl(&h, &out, "cache list"), 1); /* told so, in time */
    assert_non_null(strstr(out, "keeper"));
    assert_int_equal(ctl(&h, NULL, "status"), 0);
    kill(keeper, SIGCONT); /* the watchdog may have ended it by now: both are fine */
    wait_until(ctl(&h, NULL, "cache list") == 0, 10000);
    house_remove(&h);
}

static void a_killed_control_leaves_nothing_that_its_successor_minds(void **state)
{
    (void)state;
    struct house h;
    start(&h, "");
    assert_int_equal(ctl(&h, NULL, "limit set ip requests=5"), 0);
    for (int i = 0; i < 3; i++) {
        const pid_t control = one_child(&h, "polderd: control");
        kill(control, SIGKILL);
        wait_until(ctl(&h, NULL, "status") == 0, 3000);
    }
    json_t *j = ctl_json(&h, "limit show ip"); /* what ran still runs */
    assert_int_equal(json_integer_value(json_object_get(j, "requests")), 5);
    assert_true(json_is_true(json_object_get(j, "changed")));
    json_decref(j);
    wait_until(house_ready(&h), 3000);
    house_remove(&h);
    assert_int_equal(access(h.sock, F_OK), -1);
}

static void a_second_polder_does_not_take_the_socket_of_the_first(void **state)
{
    (void)state;
    struct house h, second;
    char command[700], conf[512], line[600];
    start(&h, "");
    second = h;
    second.port = free_port(), second.ops_port = free_port();
    snprintf(second.conf, sizeof second.conf, "%s/second.conf", h.dir);
    house_write_conf(&second, 1,
                     "upstream \"u\" { server \"127.0.0.1:1\" { } }\nroute \"/*\" { upstream = "
                     "\"u\" }\n");
    /* another state_dir, the same runtime_dir */
    snprintf(command, sizeof command, "sed -i 's|/state\"|/state2\"|' %s", second.conf);
    assert_int_equal(system(command), 0);
    snprintf(conf, sizeof conf, "%s/log2", h.dir);
    snprintf(command, sizeof command, "timeout 2 %s -c %s >%s 2>&1", built("polderd"), second.conf,
             conf);
    (void)!system(command);
    bool told = false;
    FILE *f = fopen(conf, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        told = told || strstr(line, "another Polder answers there");
    fclose(f);
    assert_true(told);
    json_t *j = ctl_json(&h, "status");
    assert_int_equal(json_integer_value(json_object_get(j, "workers")), 2);
    json_decref(j);
    house_remove(&h);
}

/* ---- who gets in ---- */

/* Runs polderctl status as nobody, with `group` as a supplementary group or with none. */
static int status_as_nobody(struct house *h, const gid_t *group)
{
    int status;
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) {
        if (setgroups(group ? 1 : 0, group) || setgid(65534) || setuid(65534))
            _exit(99);
        (void)!freopen("/dev/null", "w", stdout);
        (void)!freopen("/dev/null", "w", stderr);
        execl(built("polderctl"), "polderctl", "-s", h->sock, "status", (char *)NULL);
        _exit(98);
    }
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
}

static void members_of_the_group_get_in_and_strangers_do_not(void **state)
{
    (void)state;
    struct house h;
    struct stat st;
    const struct group *group = getgrnam("daemon");
    if (getuid() != 0 || !group || access(built("polderctl"), X_OK))
        skip();
    start(&h, "admin { mode = \"0660\" group = \"daemon\" }");
    chmod(h.dir, 0755);
    const gid_t gid = group->gr_gid;
    assert_int_equal(stat(h.sock, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    assert_int_equal(st.st_gid, gid);
    const int reachable = status_as_nobody(&h, &gid);
    if (reachable == 98) /* the build lies where nobody may not look */
        goto out;
    assert_int_equal(reachable, 0);
    assert_int_equal(status_as_nobody(&h, NULL), 1);
    chmod(h.sock, 0666); /* the file's mode is not the only guard */
    assert_int_equal(status_as_nobody(&h, NULL), 1);
    assert_true(house_logged(&h, "refused uid 65534"));
    assert_int_equal(ctl(&h, NULL, "status"), 0);
out:
    house_remove(&h);
}

static void secrets_are_not_logged(void **state)
{
    (void)state;
    struct house h;
    start(&h, "");
    assert_int_equal(ctl(&h, NULL, "limit reset key s3cr3t-key"), 0);
    assert_int_equal(ctl(&h, NULL, "limit reset ip 192.0.2.77"), 0);
    assert_int_equal(ctl(&h, NULL, "cache invalidate '/c/1?token=s3cr3t-token'"), 0);
    assert_true(house_logged(&h, "limit.reset name=key"));
    assert_true(house_logged(&h, "192.0.2.77"));
    assert_true(house_logged(&h, "cache.invalidate url=/c/1?"));
    assert_false(house_logged(&h, "s3cr3t"));
    house_remove(&h);
}

/* ---- limits ---- */

static unsigned admitted(struct house *h, const char *path, const char *lines, unsigned n)
{
    unsigned ok = 0;
    for (unsigned i = 0; i < n; i++)
        ok += get_with(h->port, path, lines, NULL) == 200;
    return ok;
}

static void counts_are_reset_by_whatever_the_key_is(void **state)
{
    (void)state;
    struct house h;
    const char *a = "X-Api-Key: a\r\n", *b = "X-Api-Key: b\r\n";
    start(&h, "");
    assert_int_equal(admitted(&h, "/key", a, 4), 2);
    assert_int_equal(admitted(&h, "/key", b, 4), 2);
    assert_int_equal(ctl(&h, NULL, "limit reset key a"), 0);
    assert_int_equal(admitted(&h, "/key", a, 4), 2);
    assert_int_equal(admitted(&h, "/key", b, 4), 0);
    /* without the header the client stands for it */
    assert_int_equal(admitted(&h, "/key", "", 4), 2);
    assert_int_equal(ctl(&h, NULL, "limit reset key 127.0.0.1"), 0);
    assert_int_equal(admitted(&h, "/key", "", 4), 2);
    assert_int_equal(admitted(&h, "/both", a, 4), 2);
    assert_int_equal(ctl(&h, NULL, "limit reset both 127.0.0.1+b"), 0);
    assert_int_equal(admitted(&h, "/both", a, 4), 0);
    assert_int_equal(ctl(&h, NULL, "limit reset both 127.0.0.1+a"), 0);
    assert_int_equal(admitted(&h, "/both", a, 4), 2);
    assert_int_equal(ctl(&h, NULL, "limit reset both nonsense"), 2);
    house_remove(&h);
}

static void what_was_changed_is_shown_and_a_bad_value_changes_nothing(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, "");
    assert_int_equal(ctl(&h, &out, "limit set ip requests=7 window=2m"), 0);
    assert_non_null(strstr(out, "requests: 3 -> 7"));
    assert_non_null(strstr(out, "window: 1 min -> 2 min"));
    assert_int_equal(ctl(&h, &out, "limit set ip requests=9 window=never"), 2);
    assert_non_null(strstr(out, "window"));
    assert_int_equal(ctl(&h, &out, "limit set ip requests=70000"), 2);
    assert_non_null(strstr(out, "65535"));
    assert_int_equal(ctl(&h, &out, "limit list"), 0);
    assert_non_null(strstr(out, "7 (file: 3)"));
    assert_int_equal(admitted(&h, "/ip", "", 10), 7);
    json_t *list = ctl_json(&h, "limit list"), *ip = json_array_get(list, 0);
    assert_string_equal(json_string_value(json_object_get(ip, "name")), "ip");
    assert_int_equal(json_integer_value(json_object_get(ip, "admitted")), 7);
    assert_int_equal(json_integer_value(json_object_get(ip, "refused")), 3);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(ip, "file"), "requests")),
                     3);
    assert_true(json_is_false(json_object_get(ip, "persisted")));
    json_decref(list);
    house_remove(&h);
}

/* ---- cache ---- */

static bool is_hit(struct house *h, const char *path)
{
    struct message m;
    const bool good = get(h->port, path, &m) == 200;
    const char *status = good ? field_of(&m, "Cache-Status") : NULL;
    const bool hit = status && strstr(status, "hit");
    message_free(&m);
    return hit;
}

static void urls_are_understood_however_they_are_written(void **state)
{
    (void)state;
    static const char *const forms[] = {
        "'http://test.example/c/a%41?x=1'",
        "'HTTP://TEST.Example:80/c/./a%41?x=1'",
        "'test.example/c/aA?x=1'",
        "'https://test.example/c/aA?x=1'",
        "'/c/aA?x=1'",
        "'/c/b/../a%41?x=1&utm_source=z'",
        "--prefix /c/a",
        "--prefix http://TEST.example/c/",
        "--prefix 'test.example/c/aA?x'",
        "--prefix test.example",
    };
    struct house h;
    start(&h, "cache { ignore_query = {\"utm_*\"} }");
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        assert_int_equal(get(h.port, "/c/aA?x=1", NULL), 200);
        wait_until(is_hit(&h, "/c/aA?x=1"), 3000);
        assert_int_equal(ctl(&h, NULL, "cache invalidate %s", forms[i]), 0);
        const unsigned calls = backend_calls(backend);
        assert_int_equal(get(h.port, "/c/aA?x=1", NULL), 200);
        if (backend_calls(backend) != calls + 1)
            fail_msg("%s did not invalidate it", forms[i]);
    }
    assert_int_equal(ctl(&h, NULL, "cache invalidate test.example"), 2);
    house_remove(&h);
}

static void a_path_alone_means_that_path_and_no_longer_one(void **state)
{
    (void)state;
    struct house h;
    static const char *const path[] = {"/c/1", "/c/11", "/c/1?q", "/c/1/2"};
    start(&h, "");
    for (int i = 0; i < 4; i++)
        assert_int_equal(get(h.port, path[i], NULL), 200);
    json_t *j = NULL;
    wait_until((json_decref(j), j = ctl_json(&h, "cache list /c/"),
                json_array_size(json_object_get(j, "objects")) == 4),
               3000);
    json_decref(j);
    assert_int_equal(ctl(&h, NULL, "cache invalidate /c/1"), 0);
    const unsigned calls = backend_calls(backend);
    for (int i = 1; i < 4; i++)
        assert_int_equal(get(h.port, path[i], NULL), 200);
    assert_int_equal(backend_calls(backend), calls);
    assert_int_equal(get(h.port, path[0], NULL), 200);
    assert_int_equal(backend_calls(backend), calls + 1);
    house_remove(&h);
}

static void listings_go_on_where_they_stopped(void **state)
{
    (void)state;
    struct house h;
    unsigned seen = 0, pages = 0;
    char path[32], command[1200] = "cache list --limit 10";
    start(&h, "");
    for (int i = 0; i < 25; i++) {
        snprintf(path, sizeof path, "/c/%02d", i);
        assert_int_equal(get(h.port, path, NULL), 200);
    }
    json_t *stats = NULL;
    wait_until((json_decref(stats), stats = ctl_json(&h, "cache stats"),
                json_integer_value(json_object_get(stats, "items")) == 25),
               5000);
    json_decref(stats);
    for (bool more = true; more; pages++) {
        json_t *j = ctl_json(&h, command);
        const char *cursor = json_string_value(json_object_get(j, "cursor"));
        seen += (unsigned)json_array_size(json_object_get(j, "objects"));
        more = cursor != NULL;
        if (more)
            snprintf(command, sizeof command, "cache list --limit 10 --cursor %s", cursor);
        json_decref(j);
        assert_true(pages < 5);
    }
    assert_int_equal(seen, 25);
    house_remove(&h);
}

/* ---- the configuration ---- */

static void a_reload_moves_the_ops_pages_and_the_telemetry(void **state)
{
    (void)state;
    struct house h;
    char routes[512];
    start(&h, "telemetry { path = \"/_t\" allow = {\"127.0.0.0/8\"} }");
    assert_int_equal(get(h.port, "/_t/cache-stats", NULL), 200);
    assert_int_equal(get(h.port, "/_t/websocket-health", NULL), 200);
    assert_int_equal(get(h.port, "/_t/metrics", NULL), 404);
    assert_int_equal(get(h.port, "/_t/../metrics", NULL), 404);
    assert_int_equal(get(h.ops_port, "/api/telemetry/cache-stats", NULL), 200);
    const unsigned old = h.ops_port;
    h.ops_port = free_port();
    snprintf(routes, sizeof routes,
             "admin { mode = \"0600\" }\ntelemetry { path = \"/_s\" allow = {\"127.0.0.0/8\"} }\n"
             "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"u\" }\n",
             backend_port(backend));
    house_write_conf(&h, 2, routes);
    assert_int_equal(ctl(&h, NULL, "reload --wait"), 0);
    wait_until(house_ready(&h), 3000);
    assert_int_equal(get(old, "/healthz", NULL), 0);
    assert_int_equal(get(h.port, "/_s/cache-stats", NULL), 200);
    struct stat st;
    assert_int_equal(stat(h.sock, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_invalidation_is_acknowledged_while_the_keeper_hangs),
        cmocka_unit_test(a_killed_control_leaves_nothing_that_its_successor_minds),
        cmocka_unit_test(a_second_polder_does_not_take_the_socket_of_the_first),
        cmocka_unit_test(members_of_the_group_get_in_and_strangers_do_not),
        cmocka_unit_test(secrets_are_not_logged),
        cmocka_unit_test(counts_are_reset_by_whatever_the_key_is),
        cmocka_unit_test(what_was_changed_is_shown_and_a_bad_value_changes_nothing),
        cmocka_unit_test(urls_are_understood_however_they_are_written),
        cmocka_unit_test(a_path_alone_means_that_path_and_no_longer_one),
        cmocka_unit_test(listings_go_on_where_they_stopped),
        cmocka_unit_test(a_reload_moves_the_ops_pages_and_the_telemetry),
    };
    return run_with_backend(tests, &backend, answers);
}
