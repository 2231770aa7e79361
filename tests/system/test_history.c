/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of what was: the history counts what happened, keeps a day of it over deaths and
 * restarts, and says nothing of the time in which nobody looked. */
#include "harness.h"

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE "/api/telemetry/history"
#define HOUR 3600000u

static struct backend *backend;

static bool answers(struct asked *a)
{
    return reply_ok(a, "Cache-Control: public, max-age=36000000\r\n", "here");
}

static void start(struct house *h)
{
    house_start(h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "telemetry { allow = {\"127.0.0.0/8\"} }\n"
                "cost { currency = \"CHF\" upstream_call = 0.5 }\n"
                "route \"/*\" { upstream = \"u\" cache { leak_guard = 0 } }\n",
                backend_port(backend));
}

static json_t *document(unsigned port, const char *query)
{
    struct message m;
    char target[512];
    json_error_t e;
    snprintf(target, sizeof target, PAGE "?%s", query);
    const int status = get(port, target, &m);
    json_t *j = status == 200 ? json_loads(m.body, 0, &e) : NULL;
    if (!j)
        fail_msg("%s: %d %.300s", target, status, m.body);
    message_free(&m);
    return j;
}

static json_t *values_of(const json_t *j, const char *metric)
{
    json_t *one = json_object_get(json_object_get(j, "metrics"), metric);
    if (!one)
        fail_msg("no %s", metric);
    return json_object_get(one, "values");
}

/* Of the values times their step: what was counted. */
static double counted(struct house *h, const char *metric, const char *since)
{
    char query[256];
    double sum = 0;
    size_t i;
    json_t *value;
    snprintf(query, sizeof query, "metric=%s&since=%s", metric, since);
    json_t *j = document(h->ops_port, query);
    json_array_foreach(values_of(j, metric), i, value) sum += json_number_value(value);
    sum *= (double)json_integer_value(json_object_get(j, "step"));
    json_decref(j);
    return sum;
}

static size_t known(struct house *h, const char *query, const char *metric)
{
    json_t *j = document(h->ops_port, query), *value;
    size_t i, n = 0;
    json_array_foreach(values_of(j, metric), i, value) n += !json_is_null(value);
    json_decref(j);
    return n;
}

static void what_happened_is_what_is_shown(void **state)
{
    (void)state;
    struct house h;
    start(&h);
    wait_until(known(&h, "metric=requests&since=1m", "requests") >= 1, 10000);
    for (int i = 0; i < 60; i++)
        assert_int_equal(get(h.port, "/x", NULL), 200);
    /* a late sample divides by a little more than its second */
    wait_until(counted(&h, "requests", "1m") > 50, 10000);
    assert_true(counted(&h, "hits", "1m") > 45 && counted(&h, "hits", "1m") < 75);
    assert_true(counted(&h, "backendCalls", "1m") > .5 && counted(&h, "backendCalls", "1m") < 5);
    assert_int_equal(ctl(&h, NULL, "reload"), 0);
    assert_true(counted(&h, "hits", "1m") > 45);
    json_t *j = document(h.port, "metric=hitRate,cost,memoryRate,cpu&since=30s");
    assert_int_equal(json_array_size(values_of(j, "hitRate")), 30);
    assert_int_equal(json_integer_value(json_object_get(j, "step")), 1);
    assert_int_equal(json_integer_value(json_object_get(j, "end")) -
                         json_integer_value(json_object_get(j, "start")),
                     29);
    const char *unit = json_string_value(
        json_object_get(json_object_get(json_object_get(j, "metrics"), "cost"), "unit"));
    assert_string_equal(unit, "CHF/h");
    const double memory = json_number_value(json_array_get(values_of(j, "memoryRate"), 29));
    assert_true(memory > 0 && memory < 1);
    json_decref(j);
    house_remove(&h);
}

/* Twenty-four hours, a request in each. */
static void a_day_is_kept_and_a_death_of_control_is_a_gap(void **state)
{
    (void)state;
    struct house h;
    pid_t pid[2], again[2];
    start(&h);
    wait_until(known(&h, "metric=requests&since=1m", "requests") >= 1, 10000);
    const size_t first = known(&h, "metric=requests&since=24h", "requests");
    for (int hour = 0; hour < 12; hour++) {
        house_advance(&h, HOUR);
        known(&h, "metric=requests&since=1m", "requests");
    }
    assert_in_range(known(&h, "metric=requests&since=24h", "requests"), first + 12, first + 14);
    assert_int_equal(house_children(&h, "polderd: control", pid, 2), 1);
    kill(pid[0], SIGKILL);
    house_advance(&h, 6 * HOUR); /* nobody looks */
    wait_until(house_children(&h, "polderd: control", again, 2) == 1 && again[0] != pid[0] &&
                   get(h.ops_port, "/healthz", NULL) == 200,
               10000);
    house_advance(&h, 10000); /* the new one needs a beginning and an end */
    const size_t before = known(&h, "metric=requests&since=24h", "requests");
    assert_in_range(before, first + 12, first + 16);
    house_advance(&h, 10 * HOUR); /* now the first hours are more than a day ago */
    assert_in_range(known(&h, "metric=requests&since=24h", "requests"), 8, before - 1);
    assert_true(known(&h, "metric=requests&since=1h", "requests") < 10);
    house_remove(&h);
}

static pid_t control_of(struct house *h)
{
    pid_t pid[2];
    return house_children(h, "polderd: control", pid, 2) == 1 ? pid[0] : 0;
}

/* Killed at any moment, each time while it samples: what was counted is never more than it was. */
static void a_control_that_dies_again_and_again_makes_no_wild_values(void **state)
{
    (void)state;
    struct house h;
    json_t *value;
    size_t i;
    start(&h);
    for (int round = 0; round < 6; round++) {
        for (int n = 0; n < 20; n++)
            assert_int_equal(get(h.port, "/x", NULL), 200);
        const pid_t control = control_of(&h);
        nap_ms((unsigned)round * 37);
        house_advance(&h, 1000);
        kill(control, SIGKILL);
        wait_until(control_of(&h) && control_of(&h) != control &&
                       get(h.ops_port, "/healthz", NULL) == 200,
                   10000);
    }
    house_advance(&h, 1000);
    json_t *j = document(h.ops_port, "metric=requests,cpu&since=1m");
    json_array_foreach(values_of(j, "requests"), i, value)
        assert_true(json_is_null(value) || json_number_value(value) <= 6 * 20);
    json_array_foreach(values_of(j, "cpu"), i, value)
        assert_true(json_is_null(value) || json_number_value(value) < 64);
    json_decref(j);
    assert_true(counted(&h, "requests", "1m") <= 6 * 20 * 1.1);
    house_remove(&h);
}

static double summed(struct house *h, const char *metric)
{
    json_t *j = document(h->ops_port, metric), *value;
    double sum = 0;
    size_t i;
    json_array_foreach(values_of(j, strchr(metric, '=') + 1), i, value) sum +=
        json_number_value(value);
    json_decref(j);
    return sum;
}

static void a_restart_keeps_it_and_shows_the_time_in_between_as_a_gap(void **state)
{
    (void)state;
    struct house h;
    struct stat st;
    char path[200];
    start(&h);
    wait_until(known(&h, "metric=requests&since=1m", "requests") >= 1, 10000);
    for (int i = 0; i < 30; i++)
        assert_int_equal(get(h.port, "/x", NULL), 200);
    wait_until(summed(&h, "metric=hits") > 20, 10000);
    const double before = summed(&h, "metric=hits");
    assert_int_equal(house_stop(&h), 0);
    house_advance(&h, 10 * 60000); /* down for ten minutes */
    house_run(&h);
    assert_true(summed(&h, "metric=hits") >= before - .01);
    assert_true(known(&h, "metric=requests&since=9m", "requests") < 10);
    snprintf(path, sizeof path, "%s/state/history.page", h.dir);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size < 8 << 20 && (st.st_mode & 0777) == 0600);
    /* each minute, for the master may be killed */
    const ino_t saved = st.st_ino;
    wait_until(house_logged(&h, "service: ready"), 10000);
    house_advance(&h, 61000);
    wait_until(stat(path, &st) == 0 && st.st_ino != saved, 10000);
    house_kill(&h);
    assert_int_equal(truncate(path, 1000000), 0); /* and a damaged file costs only itself */
    house_run(&h);
    assert_true(house_logged(&h, "history.page: it is damaged"));
    assert_true(summed(&h, "metric=hits") == 0);
    house_remove(&h);
}

static void the_command_draws_it(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    json_error_t e;
    start(&h);
    wait_until(known(&h, "metric=requests&since=1m", "requests") >= 2, 10000);
    setenv("LC_ALL", "C.UTF-8", 1);
    assert_int_equal(ctl(&h, &out, "history workers --since 10s"), 0);
    assert_non_null(strstr(out, "\u2588"));
    assert_non_null(strstr(out, "10 s until "));
    assert_non_null(strstr(out, "avg 2"));
    setenv("LC_ALL", "C", 1);
    assert_int_equal(ctl(&h, &out, "history workers --since 10s"), 0);
    assert_null(strstr(out, "\u2588"));
    assert_non_null(strstr(out, "#\n"));
    unsetenv("LC_ALL");
    assert_int_equal(ctl(&h, &out, "history"), 0);
    assert_non_null(strstr(out, "savingsRateLimiting"));
    assert_int_equal(ctl(&h, &out, "--json history memoryRate --since 24h --step 1h"), 0);
    json_t *j = json_loads(out, 0, &e);
    assert_int_equal(json_array_size(json_object_get(j, "values")), 24);
    json_decref(j);
    assert_int_equal(ctl(&h, &out, "history nothing"), 1);
    assert_non_null(strstr(out, "there is no metric"));
    assert_int_equal(ctl(&h, &out, "history hits --since 2d"), 2);
    assert_int_equal(ctl(&h, &out, "history hits --since never"), 2);
    house_remove(&h);
}

static void wrong_questions_are_answered_with_what_was_expected(void **state)
{
    (void)state;
    static const struct {
        const char *query, *says;
    } wrong[] = {
        {"metric=nothing", "there is no metric nothing"},
        {"metric=%22%3Cscript%3E", "there is no metric ?"},
        {"metric=hits%0a", "there is no metric"},
        {"metric=hits,", "there is no metric"},
        {"metric=hits,hits", "hits is asked for twice"},
        {"metric=hits&metric=misses", "metric is stated twice"},
        {"metric=hits&since=25h", "since is out of range"},
        {"metric=hits&since=0", "since is wrong"},
        {"metric=hits&since=-1", "since is wrong"},
        {"metric=hits&since=99999999999999999999", "since is wrong"},
        {"metric=hits&since=1h&since=1h", "since is stated twice"},
        {"metric=hits&since=24h&step=1", "step is out of range"},
        {"metric=hits&since=1h&step=7", "step is out of range"},
        {"metric=hits&since=10s&step=20", "step is out of range"},
        {"metric=hits&step=x", "step is wrong"},
        {"metric=hits&colour=red", "a parameter is not known"},
        {"metric=requests,hits,stale,misses,hitRate,collapsed,bypass,p50,p95,p99,mean,errors&since="
         "24h",
         "more than 100000 values"},
        {"metric=requests,hits,stale,misses,hitRate,collapsed,bypass,p50,p95,p99,mean,errors,cost,"
         "savings,memory,cpu,items,bytes,wsOpen,wsMax,wsRefused,wsDemand,workers,conditions,retries"
         "&since=1m",
         "too many metrics"},
    };
    struct house h;
    struct message m;
    char target[512];
    start(&h);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(target, sizeof target, PAGE "?%s", wrong[i].query);
        const int status = get(h.ops_port, target, &m);
        if (status != 400 || !strstr(m.body, wrong[i].says))
            fail_msg("%s: %d %s", target, status, m.body);
        json_error_t e;
        json_decref(json_loads(m.body, 0, &e));
        message_free(&m);
    }
    json_t *j = document(h.ops_port, "");
    assert_true(json_object_size(json_object_get(j, "metrics")) > 40);
    json_decref(j);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_happened_is_what_is_shown),
        cmocka_unit_test(a_day_is_kept_and_a_death_of_control_is_a_gap),
        cmocka_unit_test(a_control_that_dies_again_and_again_makes_no_wild_values),
        cmocka_unit_test(a_restart_keeps_it_and_shows_the_time_in_between_as_a_gap),
        cmocka_unit_test(the_command_draws_it),
        cmocka_unit_test(wrong_questions_are_answered_with_what_was_expected),
    };
    return run_with_backend(tests, &backend, answers);
}
