/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of alerts: what is wrong fires once and is over when it is over, whoever dies meanwhile;
 * and the program that is told can do nothing to the service. */
#include "ws_client.h"

#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE "/api/telemetry/alerts"

static struct backend *backend;

static bool answers(struct asked *a)
{
    if (!strcmp(a->target, "/fails"))
        return false;
    return reply_ok(a, "Cache-Control: public, max-age=36000000\r\n", "here");
}

/* ---- what is said ---- */

/* The alert of that name and subject (NULL: any), or NULL; the caller's. */
static json_t *alert_of(struct house *h, const char *name, const char *subject)
{
    struct message m;
    json_error_t e;
    json_t *one, *found = NULL;
    size_t i;
    assert_int_equal(get(h->ops_port, PAGE, &m), 200);
    json_t *j = json_loads(m.body, 0, &e);
    if (!j)
        fail_msg("%s", m.body);
    message_free(&m);
    json_array_foreach(
        json_object_get(j, "alerts"), i,
        one) if (!found && !strcmp(json_string_value(json_object_get(one, "name")), name) &&
                 (!subject || !strcmp(json_string_value(json_object_get(one, "subject")), subject)))
        found = json_incref(one);
    json_decref(j);
    return found;
}

static bool is_in_state(struct house *h, const char *name, const char *state)
{
    json_t *j = alert_of(h, name, NULL);
    const bool is = j ? !strcmp(json_string_value(json_object_get(j, "state")), state) : !state[0];
    json_decref(j);
    return is;
}

static unsigned count_in(const char *path, const char *text)
{
    char line[4096];
    unsigned n = 0;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        n += strstr(line, text) != NULL;
    if (f)
        fclose(f);
    return n;
}

/* ---- houses ---- */

/* A directory that any user may write to: the program may be nobody. */
static void make_program(char *dir, size_t size, const char *script)
{
    char path[200];
    snprintf(dir, size, "/tmp/polder-alert.XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chmod(dir, 0777), 0);
    snprintf(path, sizeof path, "%s/program", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "#!/bin/sh\ncd %s\n%s\n", dir, script);
    fclose(f);
    assert_int_equal(chmod(path, 0755), 0);
}

static void remove_program(const char *dir)
{
    static const char *const files[] = {"program", "told", "said", "pid", "left"};
    char path[200];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    rmdir(dir);
}

#define QUICK                                                                                      \
    "alert \"cache_hit_rate\" { for = 0 }\n"                                                       \
    "route \"/*\" { upstream = \"u\" cache { leak_guard = 0 } }\n"

static void start(struct house *h, const char *more)
{
    house_start(h, 2, "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n%s", backend_port(backend),
                more);
}

static void load(struct house *h, unsigned n, bool same)
{
    char target[64];
    static unsigned number;
    for (unsigned i = 0; i < n; i++) {
        snprintf(target, sizeof target, "/%u", same ? 0 : ++number);
        assert_int_equal(get(h->port, target, NULL), 200);
    }
}

static bool later(struct house *h, const char *name, const char *state)
{
    house_advance(h, 10000);
    nap_ms(300);
    return is_in_state(h, name, state);
}

/* ---- stories ---- */

static pid_t control_of(struct house *h)
{
    pid_t pid[2];
    return house_children(h, "polderd: control", pid, 2) == 1 ? pid[0] : 0;
}

static void a_low_hit_rate_fires_once_and_is_over_when_it_is_high_again(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    const char *out;
    start(&h, QUICK);
    for (int i = 0; i < 3; i++) /* without traffic there is no ratio */
        assert_true(later(&h, "cache_hit_rate", ""));
    load(&h, 30, false);
    wait_until(later(&h, "cache_hit_rate", "firing"), 20000);
    json_t *j = alert_of(&h, "cache_hit_rate", "");
    assert_true(json_number_value(json_object_get(j, "threshold")) == 60);
    assert_true(json_number_value(json_object_get(j, "value")) < 10);
    assert_string_equal(json_string_value(json_object_get(j, "runbook")), "alert cache_hit_rate");
    json_decref(j);
    const pid_t control = control_of(&h);
    kill(control, SIGKILL);
    wait_until(control_of(&h) && control_of(&h) != control &&
                   get(h.ops_port, "/healthz", NULL) == 200,
               10000);
    assert_true(is_in_state(&h, "cache_hit_rate", "firing"));
    load(&h, 30, false);
    wait_until(!later(&h, "cache_hit_rate", "pending") && house_ready(&h), 20000);
    assert_true(is_in_state(&h, "cache_hit_rate", "firing"));
    assert_int_equal(count_in(h.log, "alert cache_hit_rate is firing"), 1);
    assert_int_equal(ctl(&h, &out, "alert list"), 0);
    assert_non_null(strstr(out, "firing cache_hit_rate (warning) for "));
    assert_non_null(strstr(out, "do: ask polderctl cache why"));
    assert_int_equal(ctl(&h, &out, "status"), 0);
    assert_non_null(strstr(out, "\nalerts:"));
    assert_non_null(strstr(out, "\ncache_hit_rate "));
    assert_int_equal(get(h.ops_port, "/metrics", &m), 200);
    assert_non_null(strstr(m.body, "polder_alert_state{alert=\"cache_hit_rate\",subject=\"\","
                                   "severity=\"warning\"} 2\n"));
    assert_non_null(strstr(m.body, "polder_alert_state{alert=\"memory\""));
    message_free(&m);
    load(&h, 200, true);
    wait_until(later(&h, "cache_hit_rate", "resolved"), 20000);
    assert_int_equal(count_in(h.log, "alert cache_hit_rate is firing"), 1);
    assert_true(house_logged(&h, "alert cache_hit_rate is over"));
    house_advance(&h, 3700000);
    wait_until(is_in_state(&h, "cache_hit_rate", ""), 10000);
    house_remove(&h);
}

static bool share(struct house *h, bool half_fails, const char *state)
{
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(get(h->port, "/works", NULL), 200);
        if (half_fails)
            assert_in_range(get(h->port, "/fails", NULL), 502, 504);
    }
    return later(h, "server_errors", state);
}

static void a_server_that_fails_at_half_of_its_requests_fires_until_it_works(void **state)
{
    (void)state;
    struct house h;
    char subject[64];
    snprintf(subject, sizeof subject, "u/127.0.0.1:%u", backend_port(backend));
    start(&h, "route \"/*\" { upstream = \"u\" }\n");
    wait_until(share(&h, false, ""), 10000);
    wait_until(share(&h, true, "pending"), 20000);
    wait_until(share(&h, true, "firing"), 30000); /* after a minute */
    json_t *j = alert_of(&h, "server_errors", subject);
    assert_non_null(j);
    const double percent = json_number_value(json_object_get(j, "value"));
    assert_true(percent > 5 && percent <= 60);
    json_decref(j);
    wait_until(share(&h, false, "resolved"), 30000);
    assert_int_equal(count_in(h.log, "alert server_errors u/127.0.0.1"), 2); /* firing, over */
    house_remove(&h);
}

static bool refused(struct house *h, const char *state)
{
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(status_of(h->port, "/live"), 503);
    return later(h, "websockets", state);
}

static void more_websockets_than_may_be_open_fire_until_none_is_refused(void **state)
{
    (void)state;
    struct house h;
    int open[2];
    start(&h, "websocket { max_connections = 2 max_per_client = 2 connect_rate = 100000\n"
              "heartbeat = off }\n" /* nobody is reaped where the clock is moved */
              "route \"/live\" { websocket { } }\n");
    wait_for_supervisor(&h);
    for (size_t i = 0; i < 2; i++)
        open[i] = open_ws(h.port, "/live");
    for (unsigned i = 0; i < 3; i++) /* all that there may be, and nothing wrong */
        assert_true(later(&h, "websockets", ""));
    wait_until(refused(&h, "firing"), 20000);
    json_t *j = alert_of(&h, "websockets", NULL);
    assert_true(json_number_value(json_object_get(j, "threshold")) == 2);
    assert_true(json_number_value(json_object_get(j, "value")) >= 2);
    json_decref(j);
    wait_until(later(&h, "websockets", "resolved"), 30000); /* a minute without a refusal */
    for (size_t i = 0; i < 2; i++)
        close(open[i]);
    house_remove(&h);
}

/* Of the program: it can gain nothing, and knows nothing of our environment. */
static void check_privileges(const char *dir)
{
    char said[200];
    snprintf(said, sizeof said, "%s/said", dir);
    assert_int_equal(count_in(said, "NoNewPrivs:\t1"), 1);
    assert_int_equal(count_in(said, "CapEff:\t0000000000000000"), 1);
    assert_int_equal(count_in(said, "POLDER_CLOCK"), 0);
    FILE *f = fopen(said, "r");
    char line[32];
    assert_non_null(fgets(line, sizeof line, f));
    fclose(f);
    assert_string_not_equal(line, "0\n");
}

static void what_needs_somebody_is_an_alert_that_a_program_is_told(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    json_error_t e;
    char dir[64], told[200], conf[1024], subject[64];
    make_program(dir, sizeof dir,
                 "{ id -u; grep -E 'NoNewPrivs|CapEff' /proc/self/status; env; } > $$; mv $$ said\n"
                 "cat >> told");
    snprintf(told, sizeof told, "%s/told", dir);
    snprintf(subject, sizeof subject, "dead/127.0.0.1:%u", free_port());
    snprintf(conf, sizeof conf,
             "on_alert = \"%s/program\"\nupstream \"dead\" { server \"%s\" { } }\n"
             "alert \"memory\" { enabled = off }\n"
             "route \"/dead\" { upstream = \"dead\" }\n",
             dir, subject + 5);
    start(&h, conf);
    wait_until(get(h.port, "/dead", &m) == 502 && (message_free(&m), true), 5000);
    wait_until(is_in_state(&h, "backend_down", "pending"), 10000);
    house_advance(&h, 11000);
    wait_until(is_in_state(&h, "backend_down", "firing"), 10000);
    wait_until(count_in(told, "\"name\":\"backend_down\"") == 1, 10000);
    FILE *f = fopen(told, "r");
    json_t *j = json_loadf(f, JSON_DISABLE_EOF_CHECK, &e);
    fclose(f);
    assert_non_null(j);
    assert_string_equal(json_string_value(json_object_get(j, "state")), "firing");
    json_decref(j);
    j = alert_of(&h, "backend_down", subject);
    assert_non_null(j);
    assert_string_equal(json_string_value(json_object_get(j, "runbook")), "condition backend_down");
    assert_non_null(strstr(json_string_value(json_object_get(j, "action")), "upstream weight"));
    json_decref(j);
    check_privileges(dir);
    /* a rule that is taken away is over, and that is told too */
    snprintf(
        conf, sizeof conf,
        "upstream \"dead\" { server \"%s\" { } }\non_alert = \"%s/program\"\n"
        "alert \"backend_down\" { enabled = off }\nalert \"no_server_left\" { enabled = off }\n"
        "route \"/dead\" { upstream = \"dead\" }\n",
        subject + 5, dir);
    house_write_conf(&h, 2, conf);
    assert_int_equal(ctl(&h, NULL, "reload"), 0);
    wait_until(is_in_state(&h, "backend_down", "resolved"), 10000);
    wait_until(count_in(told, "\"state\":\"resolved\"") >= 1, 10000);
    assert_int_equal(get(h.ops_port, "/metrics", &m), 200);
    assert_null(strstr(m.body, "alert=\"backend_down\""));
    assert_non_null(strstr(m.body, "polder_alert_notices_total{result=\"failed\"} 0\n"));
    message_free(&m);
    house_remove(&h);
    remove_program(dir);
}

/* Fires at once: there is always some memory in use. */
#define ALWAYS "alert \"memory\" { above = 0 }\nroute \"/*\" { upstream = \"u\" }\n"

/* The process whose number is in that file; which is empty while it is written. */
static bool is_gone(const char *path)
{
    int pid = 0;
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    const bool is_read = fscanf(f, "%d", &pid) == 1;
    fclose(f);
    return is_read && kill(pid, 0) != 0;
}

static void a_program_that_hangs_and_floods_is_ended_and_tried_again(void **state)
{
    (void)state;
    struct house h;
    char dir[64], conf[512], pids[200];
    make_program(dir, sizeof dir,
                 "read -r alert\n"
                 "case $alert in *'\"name\":\"memory\"'*) ;; *) exit 0 ;; esac\n"
                 "echo $$ >> pid\n"
                 "setsid sleep 1000 & echo $! > left\n"
                 "[ $(wc -l < pid) -gt 1 ] && { echo \"$alert\" >> told; exit 0; }\n"
                 "yes flood >&2 & yes flood & exec sleep 1000");
    snprintf(pids, sizeof pids, "%s/pid", dir);
    snprintf(conf, sizeof conf, "on_alert = \"%s/program\"\n" ALWAYS, dir);
    start(&h, conf);
    wait_until(later(&h, "memory", "firing"), 20000);
    wait_until(count_in(pids, "") >= 1, 10000);
    assert_int_equal(get(h.port, "/x", NULL), 200); /* nobody waits for it */
    house_advance(&h, 11000);
    wait_until(house_logged(&h, "killed by signal 9"), 10000);
    house_advance(&h, 3000);
    wait_until(count_in(pids, "") >= 2, 10000);
    snprintf(pids, sizeof pids, "%s/left", dir);
    wait_until(is_gone(pids), 10000);
    snprintf(pids, sizeof pids, "%s/told", dir);
    wait_until(count_in(pids, "\"name\":\"memory\"") == 1, 10000);
    house_remove(&h);
    remove_program(dir);
}

/* Whoever is killed: no process of a program stays. */
static void what_a_program_began_ends_with_the_notifier(void **state)
{
    (void)state;
    struct house h;
    char dir[64], conf[512], path[200], left[200];
    pid_t pid;
    for (int whole = 0; whole < 2; whole++) {
        make_program(dir, sizeof dir,
                     "[ -e pid ] && exit 0\n"
                     "setsid sleep 1000 & echo $! > left\n"
                     "sleep 1000 & echo $! > said\n"
                     "echo $$ > pid\n"
                     "wait");
        snprintf(conf, sizeof conf, "on_alert = \"%s/program\"\n" ALWAYS, dir);
        start(&h, conf);
        snprintf(path, sizeof path, "%s/pid", dir);
        wait_until(later(&h, "memory", "firing"), 20000);
        wait_until(count_in(path, "\n") == 1, 10000);
        if (whole) {
            house_kill(&h);
        } else {
            assert_int_equal(house_children(&h, "polderd: notifier", &pid, 1), 1);
            kill(pid, SIGKILL);
        }
        snprintf(left, sizeof left, "%s/left", dir);
        wait_until(is_gone(path), 10000);
        wait_until(is_gone(left), 10000);
        snprintf(left, sizeof left, "%s/said", dir);
        wait_until(is_gone(left), 10000);
        house_remove(&h);
        remove_program(dir);
    }
}

static bool is_raised(struct house *h, const char *condition)
{
    struct message m;
    assert_int_equal(get(h->ops_port, "/api/telemetry/conditions", &m), 200);
    const bool is = strstr(m.body, condition);
    message_free(&m);
    return is;
}

static void a_program_that_is_missing_is_given_up_and_said(void **state)
{
    (void)state;
    static const unsigned pauses_ms[] = {3000, 9000, 33000, 129000};
    static const char *const said[] = {"again in 8 s", "again in 32 s", "again in 128 s",
                                       "failed 5 times"};
    struct house h;
    pid_t pid[2], again[2];
    start(&h, "on_alert = \"/nonexistent/program\"\n" ALWAYS);
    assert_true(house_logged(&h, "on_alert: /nonexistent/program is no program"));
    wait_until(later(&h, "memory", "firing"), 20000);
    wait_until(house_logged(&h, "trying again in 2 s"), 10000);
    assert_int_equal(house_children(&h, "polderd: notifier", pid, 2), 1);
    kill(pid[0], SIGKILL); /* what it has tried is known to the next one */
    wait_until(house_children(&h, "polderd: notifier", again, 2) == 1 && again[0] != pid[0], 10000);
    for (size_t i = 0; i < sizeof pauses_ms / sizeof *pauses_ms; i++) {
        house_advance(&h, pauses_ms[i]);
        wait_until(house_logged(&h, said[i]), 10000);
    }
    wait_until(is_raised(&h, "alert_program_failed"), 10000);
    assert_true(house_logged(&h, "cannot run /nonexistent/program: No such file"));
    assert_int_equal(get(h.port, "/x", NULL), 200);
    house_remove(&h);
}

/* ---- the example ---- */

static char hooked[4096];

static bool takes_hook(struct asked *a)
{
    if (!strcmp(a->target, "/hook") && strstr(a->m.body, "] memory:"))
        snprintf(hooked, sizeof hooked, "%s", a->m.body);
    return reply_ok(a, "", "ok");
}

static void the_example_posts_to_a_hook(void **state)
{
    (void)state;
    struct house h;
    char url[64], conf[PATH_MAX + 256], dir[64], cwd[PATH_MAX];
    json_error_t e;
    struct backend *hook = backend_start(takes_hook, NULL);
    snprintf(url, sizeof url, "http://127.0.0.1:%u/hook", backend_port(hook));
    setenv("POLDER_ALERT_HOOK", url, 1);
    assert_non_null(getcwd(cwd, sizeof cwd));
    /* where nobody may read it, too */
    make_program(dir, sizeof dir, "");
    snprintf(conf, sizeof conf, "cp %s/admin/examples/alert-slack %s/program", cwd, dir);
    assert_int_equal(system(conf), 0);
    snprintf(conf, sizeof conf, "on_alert = \"%s/program\"\n" ALWAYS, dir);
    start(&h, conf);
    unsetenv("POLDER_ALERT_HOOK");
    wait_until(later(&h, "memory", "firing"), 20000);
    wait_until(hooked[0], 10000);
    json_t *j = json_loads(hooked, 0, &e);
    if (!j)
        fail_msg("%s", hooked);
    const char *text = json_string_value(json_object_get(j, "text"));
    assert_non_null(
        strstr(text, "[firing] memory: memory runs short: Memory that cannot be given back, "));
    assert_non_null(strstr(text, "What to do: see what takes it"));
    json_decref(j);
    house_remove(&h);
    backend_stop(hook);
    remove_program(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_low_hit_rate_fires_once_and_is_over_when_it_is_high_again),
        cmocka_unit_test(a_server_that_fails_at_half_of_its_requests_fires_until_it_works),
        cmocka_unit_test(more_websockets_than_may_be_open_fire_until_none_is_refused),
        cmocka_unit_test(what_needs_somebody_is_an_alert_that_a_program_is_told),
        cmocka_unit_test(a_program_that_hangs_and_floods_is_ended_and_tried_again),
        cmocka_unit_test(what_a_program_began_ends_with_the_notifier),
        cmocka_unit_test(a_program_that_is_missing_is_given_up_and_said),
        cmocka_unit_test(the_example_posts_to_a_hook),
    };
    return run_with_backend(tests, &backend, answers);
}
