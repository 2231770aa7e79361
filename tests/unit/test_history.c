/* SPDX-License-Identifier: BSD-2-Clause */
/* The history's rings, its file, and the arithmetic between two snapshots. */
#include "polder/history.h"
#include "daemons/control/model/snapshot.h"
#include "polder/config.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* after the others: it wants them */
#include <cmocka.h>

#define NOW UINT64_C(1700000000) /* a multiple of 10 */

struct rig {
    struct history_page *page, *other;
    char dir[64], file[96];
};

static struct history_page *page_new(void)
{
    struct history_page *page = aligned_alloc(64, (sizeof *page + 63) / 64 * 64);
    assert_non_null(page);
    memset(page, 0, sizeof *page);
    return page;
}

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    r->page = page_new();
    r->other = page_new();
    strcpy(r->dir, "/tmp/polder-history.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->file, sizeof r->file, "%s/" HISTORY_FILE, r->dir);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    unlink(r->file);
    rmdir(r->dir);
    free(r->page);
    free(r->other);
    free(r);
    return 0;
}

static void put(struct history_page *page, enum history_ring_id ring, uint64_t at, float value)
{
    float values[HISTORY_WIDTH];
    for (size_t i = 0; i < HISTORY_WIDTH; i++)
        values[i] = value;
    history_put(page, ring, at, values);
}

static double at(const struct history_page *page, uint64_t since_s, uint64_t step, size_t i)
{
    struct history_range range;
    assert_int_equal(history_range(page, since_s, step, NOW, &range), 0);
    assert_true(i < range.n);
    return history_value(page, &range, HISTORY_HITS, i);
}

static void a_sample_that_was_not_taken_is_nothing(void **state)
{
    struct rig *r = *state;
    put(r->page, HISTORY_FINE, NOW - 3600, 7); /* an hour ago: in the place of now */
    put(r->page, HISTORY_FINE, NOW - 2, 1);
    put(r->page, HISTORY_FINE, NOW, 3);
    assert_true(at(r->page, 3, 1, 0) == 1);
    assert_true(isnan(at(r->page, 3, 1, 1)));
    assert_true(at(r->page, 3, 1, 2) == 3);
    assert_true(isnan(at(r->page, 3600, 0, 0)));
    put(r->page, HISTORY_FINE, NOW + 3600, 9); /* the clock was ahead */
    assert_true(isnan(at(r->page, 3, 1, 2)));
}

/* Killed on any line of history_put(): the moment is 0, or the whole sample is there. */
static void half_a_sample_is_none(void **state)
{
    struct rig *r = *state;
    put(r->page, HISTORY_FINE, NOW, 3);
    struct history_sample *s = &r->page->fine[NOW % HISTORY_FINE_SAMPLES];
    atomic_store(&s->at, 0);
    atomic_store(&s->value[HISTORY_HITS], 5.f);
    assert_true(isnan(at(r->page, 1, 1, 0)));
}

static void values_of_a_longer_step_are_means_of_what_is_known(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < 6; i++)
        if (i != 2)
            put(r->page, HISTORY_COARSE, NOW - 10 * i, (float)i);
    put(r->page, HISTORY_COARSE, NOW - 60, NAN);
    assert_true(at(r->page, 60, 60, 0) == (0 + 1 + 3 + 4 + 5) / 5.);
    assert_true(at(r->page, 60, 30, 1) == .5);
    assert_true(at(r->page, 60, 10, 4) == 1);
    assert_true(isnan(at(r->page, 70, 10, 0)));
}

static void a_range_is_within_what_is_kept(void **state)
{
    static const struct {
        uint64_t since_s, step;
        int code;
        size_t n;
    } cases[] = {
        {1, 0, 0, 1},           {3600, 0, 0, 3600},          {3601, 0, 0, 360},
        {86400, 0, 0, 8640},    {86400, 10, 0, 8640},        {86400, 3600, 0, 24},
        {3600, 10, 0, 360},     {86400, 86400, 0, 1},        {0, 0, -EINVAL, 0},
        {86401, 0, -EINVAL, 0}, {UINT64_MAX, 0, -EINVAL, 0}, {3601, 1, -ERANGE, 0},
        {60, 7, -ERANGE, 0},    {60, 70, -ERANGE, 0},        {60, UINT64_MAX, -ERANGE, 0},
        {5, 10, -ERANGE, 0},
    };
    struct rig *r = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct history_range range;
        const int code = history_range(r->page, cases[i].since_s, cases[i].step, NOW, &range);
        if (code != cases[i].code || (!code && range.n != cases[i].n))
            fail_msg("case %zu: %d, %zu values", i, code, code ? 0 : range.n);
        for (size_t k = 0; !code && k < range.n; k++) /* stays within the rings */
            history_value(r->page, &range, HISTORY_WIDTH - 1, k);
    }
}

static void a_server_keeps_its_row_and_a_new_one_begins_without_a_past(void **state)
{
    struct rig *r = *state;
    const uint64_t id[] = {11, 22}, other[] = {33, 22};
    const char subject[2][HISTORY_SUBJECT] = {"u/a", "u/b"},
               next[2][HISTORY_SUBJECT] = {"u/c", "u/b"};
    size_t row[HISTORY_SERVERS + 1], again[HISTORY_SERVERS + 1], column;
    struct history_range range;
    history_servers_put(r->page, id, subject, 2, NOW - 60, row);
    put(r->page, HISTORY_FINE, NOW - 1, 4);
    history_servers_put(r->page, id, subject, 2, NOW - 1, again);
    assert_memory_equal(row, again, 2 * sizeof *row);
    assert_int_equal(history_find(r->page, "serverP95:u/a", 13, &column), 0);
    assert_int_equal(history_range(r->page, 1, 1, NOW - 1, &range), 0);
    assert_true(history_value(r->page, &range, column, 0) == 4);
    for (uint64_t i = 0; i < HISTORY_SERVERS; i++) { /* many others come and go */
        const uint64_t many[] = {100 + i, 22};
        history_servers_put(r->page, many, next, 2, NOW, again);
        assert_int_equal(again[1], row[1]);
    }
    assert_int_equal(history_find(r->page, "serverP95:u/a", 13, &column), -ENOENT);
    history_servers_put(r->page, other, next, 2, NOW, again);
    column = history_server_column(again[0], HISTORY_SERVER_P95);
    assert_true(isnan(history_value(r->page, &range, column, 0)));
}

static void more_servers_than_rows_have_no_history(void **state)
{
    struct rig *r = *state;
    uint64_t id[HISTORY_SERVERS + 4];
    static char subject[HISTORY_SERVERS + 4][HISTORY_SUBJECT];
    size_t row[HISTORY_SERVERS + 4];
    for (size_t i = 0; i < HISTORY_SERVERS + 4; i++)
        id[i] = i + 1;
    history_servers_put(r->page, id, (const char(*)[HISTORY_SUBJECT])subject, HISTORY_SERVERS + 4,
                        NOW, row);
    for (size_t i = 0; i < HISTORY_SERVERS + 4; i++)
        assert_true(i < HISTORY_SERVERS ? row[i] < HISTORY_SERVERS : row[i] == HISTORY_SERVERS);
}

/* ---- the file ---- */

static void what_was_saved_is_there_again(void **state)
{
    struct rig *r = *state;
    const uint64_t id[] = {11};
    const char subject[1][HISTORY_SUBJECT] = {"u/a"};
    size_t row[1], column;
    history_servers_put(r->page, id, subject, 1, NOW - 60, row);
    put(r->page, HISTORY_FINE, NOW - 5, 4);
    put(r->page, HISTORY_COARSE, NOW - 50000, 5);
    put(r->page, HISTORY_FINE, NOW + 5, 6); /* the clock is set back meanwhile */
    assert_int_equal(history_save(r->page, r->dir, NOW), 0);
    assert_int_equal(history_load(r->other, r->dir, NOW), 0);
    assert_true(at(r->other, 6, 1, 0) == 4);
    assert_true(at(r->other, 86400, 10, 8640 - 1 - 5000) == 5);
    assert_int_equal(atomic_load(&r->other->newest[HISTORY_FINE]), NOW - 5);
    assert_int_equal(history_find(r->other, "serverMean:u/a", 14, &column), 0);
}

static void no_file_is_no_mistake(void **state)
{
    struct rig *r = *state;
    assert_int_equal(history_load(r->page, r->dir, NOW), 0);
}

static void spoil(const struct rig *r, off_t offset, char byte)
{
    const int fd = open(r->file, O_WRONLY);
    assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
    close(fd);
}

static void a_damaged_file_is_not_believed(void **state)
{
    struct rig *r = *state;
    static const off_t places[] = {0, 9, 17, 25, 33, 500, 100000};
    put(r->page, HISTORY_FINE, NOW - 5, 4);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        assert_int_equal(history_save(r->page, r->dir, NOW), 0);
        spoil(r, places[i], 'x');
        assert_true(history_load(r->other, r->dir, NOW) < 0);
    }
    for (size_t len = 0; len < history_file_size(); len += history_file_size() / 3) {
        assert_int_equal(history_save(r->page, r->dir, NOW), 0);
        assert_int_equal(truncate(r->file, (off_t)len), 0);
        assert_true(history_load(r->other, r->dir, NOW) < 0);
    }
    assert_int_equal(history_save(r->page, r->dir, NOW), 0);
    assert_int_equal(truncate(r->file, (off_t)history_file_size() + 1), 0);
    assert_true(history_load(r->other, r->dir, NOW) < 0);
    for (size_t i = 0; i < HISTORY_FINE_SAMPLES; i++)
        assert_int_equal(atomic_load(&r->other->fine[i].at), 0);
    assert_true(history_save(r->page, "/nonexistent", NOW) < 0);
}

/* ---- between two snapshots ---- */

static const struct config_cost prices = {
    .currency = "EUR", .upstream_call = 2, .websocket_hour = 1};

static void rates_ratios_and_money_of_an_interval(void **state)
{
    (void)state;
    static struct snapshot then, now;
    float v[HISTORY_WIDTH];
    then = (struct snapshot){.mono_ms = 1000, .ws = {.known = true, .refused = 5}};
    now = (struct snapshot){.mono_ms = 3000,
                            .cpu_ns = 500000000,
                            .memory = {.known = true, .used = 3, .limit = 4},
                            .ws = {.known = true,
                                   .open = 40,
                                   .max = 50,
                                   .refused = 25,
                                   .heartbeats = 100,
                                   .answered = 10,
                                   .leaked_hours = 3}};
    then.counter[STATS_CACHE_HITS] = 100;
    now.counter[STATS_CACHE_HITS] = 160;
    now.counter[STATS_CACHE_STALE] = 20;
    now.counter[STATS_CACHE_MISSES] = 20;
    now.counter[STATS_UPSTREAM_REQUESTS] = 30;
    now.counter[STATS_LIMIT_REFUSED] = 4;
    now.counter[STATS_RESPONSES_2XX] = 90;
    now.counter[STATS_RESPONSES_5XX] = 10;
    interval_values(&then, &now, &then, &prices, v);
    assert_true(v[HISTORY_HITS] == 30 && v[HISTORY_BACKEND_CALLS] == 15);
    assert_true(fabsf(v[HISTORY_HIT_RATE] - .8f) < 1e-6f);
    assert_true(fabsf(v[HISTORY_ERROR_RATE] - .1f) < 1e-6f);
    assert_true(v[HISTORY_AVOIDED_CALLS] == (60 + 4) / 2.f);
    assert_true(fabsf(v[HISTORY_COST] - 30 * 2 * 1800.f) < 1);
    assert_true(fabsf(v[HISTORY_SAVINGS_RATE_LIMITING] - 4 * 2 * 1800.f) < 1);
    assert_true(fabsf(v[HISTORY_SAVINGS_WEBSOCKET] - 3 * 1800.f) < 1);
    assert_true(v[HISTORY_CPU] == .25f && v[HISTORY_MEMORY] == 3 && v[HISTORY_MEMORY_RATE] == .75f);
    assert_true(v[HISTORY_WS_OPEN] == 40 && v[HISTORY_WS_DEMAND] == 60);
    assert_true(fabsf(v[HISTORY_HEARTBEAT_SUCCESS] - .9f) < 1e-6f);
    assert_true(isnan(v[HISTORY_P95]));
}

static void without_traffic_there_is_no_ratio_and_no_percentile(void **state)
{
    (void)state;
    static struct snapshot then, now;
    float v[HISTORY_WIDTH];
    then = (struct snapshot){.mono_ms = 1000};
    now = (struct snapshot){.mono_ms = 2000};
    interval_values(&then, &now, &then, &prices, v);
    assert_true(isnan(v[HISTORY_HIT_RATE]) && isnan(v[HISTORY_ERROR_RATE]));
    assert_true(isnan(v[HISTORY_P50]) && isnan(v[HISTORY_MEAN]));
    assert_true(isnan(v[HISTORY_WS_OPEN]) && isnan(v[HISTORY_MEMORY]));
    assert_true(v[HISTORY_REQUESTS] == 0 && v[HISTORY_COST] == 0);
    for (size_t i = HISTORY_SERIES; i < HISTORY_WIDTH; i++)
        assert_true(isnan(v[i]));
}

static void percentiles_are_of_the_interval_alone(void **state)
{
    (void)state;
    static struct snapshot then, now;
    float v[HISTORY_WIDTH];
    static struct histogram h;
    then = (struct snapshot){.mono_ms = 1000, .answers = distribution_empty(HISTOGRAM_LATENCY)};
    now = (struct snapshot){.mono_ms = 2000, .n_servers = 1, .server = {{.id = 9, .row = 2}}};
    then.n_servers = 1;
    then.server[0] = now.server[0];
    for (int i = 0; i < 1000; i++) /* long ago all took ten seconds */
        histogram_add(&h, histogram_bucket(HISTOGRAM_LATENCY, 10000000000), 10000000000);
    distribution_add(&then.answers, &h);
    for (int i = 0; i < 100; i++)
        histogram_add(&h, histogram_bucket(HISTOGRAM_LATENCY, 1000000), 1000000);
    now.answers = distribution_empty(HISTOGRAM_LATENCY);
    distribution_add(&now.answers, &h);
    then.server[0].latency = then.answers;
    now.server[0].latency = now.answers;
    now.server[0].requests = 8;
    now.server[0].errors = 2;
    interval_values(&then, &now, &then, &prices, v);
    assert_true(v[HISTORY_P95] > .0008f && v[HISTORY_P95] < .0013f);
    assert_true(fabsf(v[HISTORY_MEAN] - .001f) < 1e-5f);
    assert_true(v[history_server_column(2, HISTORY_SERVER_P95)] < .0013f);
    assert_true(v[history_server_column(2, HISTORY_SERVER_ERROR_RATE)] == .25f);
    assert_true(isnan(v[history_server_column(1, HISTORY_SERVER_ERROR_RATE)]));
}

/* The supervisor has started again: its counts are lower than before. */
static void counts_that_began_again_are_no_wild_rates(void **state)
{
    (void)state;
    static struct snapshot then, now;
    float v[HISTORY_WIDTH];
    then =
        (struct snapshot){.mono_ms = 1000, .ws = {.known = true, .opened = 1e6, .messages = 1e9}};
    now = (struct snapshot){.mono_ms = 2000, .ws = {.known = true, .opened = 3, .messages = 7}};
    interval_values(&then, &now, &then, &prices, v);
    assert_true(v[HISTORY_WS_OPENED] == 3 && v[HISTORY_WS_MESSAGES] == 7);
}

/* ---- memory ---- */

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void make_dir(const char *dir, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void memory_is_the_cgroups_or_the_hosts(void **state)
{
    struct rig *r = *state;
    struct usage_memory m;
    static const char *const files[] = {"self/cgroup",   "meminfo",        "a/memory.max",
                                        "a/memory.stat", "a/b/memory.max", "a/b/memory.stat"};
    static const char *const dirs[] = {"a/b", "a", "self"};
    char path[256];
    make_dir(r->dir, "self");
    make_dir(r->dir, "a");
    make_dir(r->dir, "a/b");
    usage_look_at_memory(&m, r->dir, r->dir);
    assert_false(m.known);
    write_file(r->dir, "meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable:    250 kB\n");
    write_file(r->dir, "self/cgroup", "0::/a/b\n");
    write_file(r->dir, "a/b/memory.max", "max\n");
    write_file(r->dir, "a/b/memory.stat",
               "anon 10\nfile 999\nkernel 5\nkernel_stack 77\nshmem 3\n");
    usage_look_at_memory(&m, r->dir, r->dir); /* no limit anywhere: the host's */
    assert_true(m.known && !m.of_cgroup && m.used == 750 * 1024 && m.limit == 1000 * 1024);
    write_file(r->dir, "a/memory.max", "400\n");
    write_file(r->dir, "a/memory.stat", "anon 100\nshmem 50\nkernel 50\nfile 100000\n");
    usage_look_at_memory(&m, r->dir, r->dir); /* the one above has one */
    assert_true(m.of_cgroup && m.used == 200 && m.limit == 400);
    write_file(r->dir, "a/b/memory.max", "20\n");
    usage_look_at_memory(&m, r->dir, r->dir); /* its own is nearer */
    assert_true(m.of_cgroup && m.used == 18 && m.limit == 20);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", r->dir, files[i]);
        unlink(path);
    }
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
        snprintf(path, sizeof path, "%s/%s", r->dir, dirs[i]);
        rmdir(path);
    }
}

#define with_page(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        with_page(a_sample_that_was_not_taken_is_nothing),
        with_page(half_a_sample_is_none),
        with_page(values_of_a_longer_step_are_means_of_what_is_known),
        with_page(a_range_is_within_what_is_kept),
        with_page(a_server_keeps_its_row_and_a_new_one_begins_without_a_past),
        with_page(more_servers_than_rows_have_no_history),
        with_page(what_was_saved_is_there_again),
        with_page(no_file_is_no_mistake),
        with_page(a_damaged_file_is_not_believed),
        cmocka_unit_test(rates_ratios_and_money_of_an_interval),
        cmocka_unit_test(without_traffic_there_is_no_ratio_and_no_percentile),
        cmocka_unit_test(percentiles_are_of_the_interval_alone),
        cmocka_unit_test(counts_that_began_again_are_no_wild_rates),
        with_page(memory_is_the_cgroups_or_the_hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
