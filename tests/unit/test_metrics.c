/* SPDX-License-Identifier: BSD-2-Clause */
/* What /metrics says can be read by Prometheus, in both forms, and says what was counted. */
#include "daemons/control/ops/metrics.h"
#include "daemons/control/control.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/server_state.h"
#include "polder/config.h"
#include "polder/limit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
/* after the others: it wants them */
#include <cmocka.h>

#define LINES_MAX 2000

struct rig {
    struct control control;
    struct shared shared;
    struct shm_segment conditions;
    struct config config;
    struct config_limit limit[2];
    struct config_upstream upstream;
    struct config_server server;
    struct runtime_page runtime;
    struct text text;
    char *line[LINES_MAX];
    size_t n;
};

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    r->shared.proc = aligned_alloc(128, (sizeof *r->shared.proc + 127) / 128 * 128);
    r->shared.stats = mmap(NULL, sizeof *r->shared.stats * PROC_SLOTS, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(r->shared.stats, MAP_FAILED);
    memset(r->shared.proc, 0, sizeof *r->shared.proc);
    r->limit[0].name = "status";
    r->limit[1].name = "od\"d\\\n";
    r->limit[1].index = 1;
    r->limit[0].id = 11;
    r->limit[1].id = 12;
    r->server = (struct config_server){.upstream = &r->upstream, .address.text = "127.0.0.1:8001"};
    r->upstream = (struct config_upstream){.name = "api", .servers = &r->server, .n_servers = 1};
    r->config = (struct config){.workers = 2,
                                .limits = r->limit,
                                .n_limits = 2,
                                .upstreams = &r->upstream,
                                .n_upstreams = 1,
                                .n_servers = 1,
                                .cost = {"EUR", 0.5, 2}};
    r->shared.limits = mmap(NULL, limit_table_size(1024), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(r->shared.limits, MAP_FAILED);
    limit_table_init(r->shared.limits, 1024);
    assert_int_equal(conditions_open(&r->conditions, NULL, CONDITIONS_OF_POLDERD), 0);
    r->shared.conditions = conditions_of(&r->conditions);
    r->shared.servers = aligned_alloc(128, sizeof *r->shared.servers);
    memset(r->shared.servers, 0, sizeof *r->shared.servers);
    r->control.shared = &r->shared;
    r->control.config = &r->config;
    r->control.runtime = &r->runtime;
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    free(r->shared.proc);
    free(r->shared.servers);
    munmap(r->shared.stats, sizeof *r->shared.stats * PROC_SLOTS);
    munmap(r->shared.limits, limit_table_size(1024));
    shm_close(&r->conditions);
    free(r->text.at);
    free(r);
    return 0;
}

static void scrape(struct rig *r, bool openmetrics)
{
    free(r->text.at);
    memset(&r->text, 0, sizeof r->text);
    r->n = 0;
    metrics_write(&r->control, openmetrics, NULL, &r->text);
    assert_false(r->text.failed);
    assert_int_equal(r->text.at[r->text.len - 1], '\n');
    for (char *at = r->text.at, *end; (end = strchr(at, '\n')); at = end + 1) {
        *end = 0;
        assert_true(r->n < LINES_MAX);
        assert_true(*at);
        r->line[r->n++] = at;
    }
}

/* The value of a sample, which stands there exactly once. */
static double value_of(const struct rig *r, const char *sample)
{
    const char *found = NULL;
    const size_t len = strlen(sample);
    for (size_t i = 0; i < r->n; i++)
        if (!strncmp(r->line[i], sample, len) && r->line[i][len] == ' ') {
            assert_null(found);
            found = r->line[i] + len;
        }
    if (!found)
        fail_msg("no sample %s", sample);
    return strtod(found, NULL);
}

static bool starts(const char *text, const char *with)
{
    return !strncmp(text, with, strlen(with));
}

/* The samples below a TYPE line are its own: the name, with one of the suffixes of the type. */
static bool belongs(const char *sample, const char *name, const char *type, bool openmetrics)
{
    static const char *const of_histogram[] = {"_bucket", "_sum", "_count", NULL};
    static const char *const of_counter[] = {"_total", NULL}, *const of_info[] = {"_info", NULL};
    static const char *const plain[] = {"", NULL};
    const size_t len = strlen(name);
    const char *const *suffix = !strcmp(type, "histogram")                ? of_histogram
                                : !strcmp(type, "counter") && openmetrics ? of_counter
                                : !strcmp(type, "info")                   ? of_info
                                                                          : plain;
    if (!starts(sample, name))
        return false;
    for (; *suffix; suffix++) {
        const size_t n = strlen(*suffix);
        if (!strncmp(sample + len, *suffix, n) && strchr(" {", sample[len + n]))
            return true;
    }
    return false;
}

static void check_form(struct rig *r, bool openmetrics)
{
    char name[96] = "", type[16] = "", text[96];
    static char seen[LINES_MAX][96];
    size_t families = 0;
    scrape(r, openmetrics);
    const size_t n = r->n - openmetrics;
    if (openmetrics)
        assert_string_equal(r->line[n], "# EOF");
    for (size_t i = 0; i < n; i++) {
        const char *line = r->line[i];
        if (sscanf(line, "# TYPE %95s %15s", name, type) == 2) {
            for (size_t k = 0; k < families; k++)
                assert_string_not_equal(seen[k], name);
            strcpy(seen[families++], name);
            assert_true(openmetrics || strcmp(type, "info"));
            assert_true(!openmetrics || !strstr(name, "_total"));
        } else if (starts(line, "# HELP ") || starts(line, "# UNIT ")) {
            assert_int_equal(sscanf(line + 7, "%95s", text), 1);
            assert_string_equal(text, name);
        } else {
            if (!belongs(line, name, type, openmetrics))
                fail_msg("%s stands below %s %s", line, name, type);
            const char *space = strrchr(line, ' ');
            char *end;
            strtod(space + 1, &end);
            assert_true(end > space + 1 && !*end);
            for (size_t k = 0; k < i; k++) /* no sample twice */
                assert_false(!strncmp(r->line[k], line, (size_t)(space - line) + 1));
        }
    }
    assert_true(families > 30);
}

static void families_stand_together_in_the_older_text(void **state)
{
    check_form(*state, false);
}

static void families_stand_together_in_openmetrics(void **state)
{
    check_form(*state, true);
}

static void counters_and_gauges_of_all_slots_are_added(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < PROC_SLOTS; i++) {
        stats_add(&r->shared.stats[i], STATS_RESPONSES_2XX, 2);
        stats_gauge_set(&r->shared.stats[i], STATS_GAUGE_UPSTREAM_IDLE, 3);
    }
    scrape(r, false);
    assert_true(value_of(r, "polder_responses_total{class=\"2xx\"}") == 2. * PROC_SLOTS);
    assert_true(value_of(r, "polder_responses_total{class=\"3xx\"}") == 0);
    assert_true(value_of(r, "polder_upstream_connections{state=\"idle\"}") == 3. * PROC_SLOTS);
}

static void money_is_counted_events_times_their_price(void **state)
{
    struct rig *r = *state;
    stats_add(&r->shared.stats[3], STATS_UPSTREAM_REQUESTS, 8);
    stats_add(&r->shared.stats[4], STATS_CACHE_HITS, 10);
    stats_add(&r->shared.stats[5], STATS_POLL_KEPT, 4);
    stats_add(&r->shared.stats[5], STATS_LIMIT_REFUSED, 2);
    scrape(r, false);
    assert_true(value_of(r, "polder_cost_estimated") == 4);
    assert_true(value_of(r, "polder_cost_savings{optimisation=\"polling\"}") == 2);
    assert_true(value_of(r, "polder_cost_savings{optimisation=\"caching\"}") == 3);
    assert_true(value_of(r, "polder_cost_savings{optimisation=\"rateLimiting\"}") == 1);
    assert_true(value_of(r, "polder_cost_savings{optimisation=\"websocket\"}") == 0);
    struct config_websocket ws = {0};
    struct config_route route = {.pattern = "/ws", .websocket = &ws};
    r->config.routes = &route;
    r->config.n_routes = 1;
    scrape(r, false); /* nobody says what was reaped: that is not nothing */
    for (size_t i = 0; i < r->n; i++)
        assert_null(strstr(r->line[i], "optimisation=\"websocket\""));
}

static void a_row_of_the_tables_is_never_missing(void **state)
{
    struct rig *r = *state;
    static const char *const sample[] = {
#define COUNTER(id, metric, labels, help)                                                          \
    sizeof labels > 1 ? "polder_" metric "_total{" labels "}" : "polder_" metric "_total",
#include "libshared/tables/counters.def"
#undef COUNTER
#define GAUGE(id, metric, labels, help)                                                            \
    sizeof labels > 1 ? "polder_" metric "{" labels "}" : "polder_" metric,
#include "libshared/tables/gauges.def"
#undef GAUGE
    };
    for (int form = 0; form < 2; form++) {
        scrape(r, form);
        for (size_t i = 0; i < sizeof sample / sizeof *sample; i++)
            assert_true(value_of(r, sample[i]) == 0);
    }
}

static void histograms_only_rise_and_end_with_the_count(void **state)
{
    struct rig *r = *state;
    struct stats_slab *slab = &r->shared.stats[PROC_SLOT_WORKER0];
    static const uint64_t ns[] = {900, 60000, 700000, 2000000, 2000000, 300000000, 40000000000};
    double last = 0, sum = 0;
    size_t buckets = 0;
    for (size_t i = 0; i < sizeof ns / sizeof *ns; i++) {
        stats_observe(slab, STATS_LATENCY_HIT, NULL, ns[i]);
        sum += (double)ns[i] / 1e9;
    }
    scrape(r, true);
    for (size_t i = 0; i < r->n; i++)
        if (starts(r->line[i], "polder_response_seconds_bucket{source=\"hit\"")) {
            const double value = strtod(strrchr(r->line[i], ' '), NULL);
            assert_true(value >= last);
            last = value;
            buckets++;
        }
    assert_true(buckets > 10);
    assert_true(last == 7);
    assert_true(value_of(r, "polder_response_seconds_bucket{source=\"hit\",le=\"0.00390625\"}") ==
                5);
    assert_true(value_of(r, "polder_response_seconds_bucket{source=\"hit\",le=\"1.0\"}") == 6);
    assert_true(value_of(r, "polder_response_seconds_bucket{source=\"hit\",le=\"+Inf\"}") == 7);
    assert_true(value_of(r, "polder_response_seconds_count{source=\"hit\"}") == 7);
    assert_true(value_of(r, "polder_response_seconds_count{source=\"miss\"}") == 0);
    const double told = value_of(r, "polder_response_seconds_sum{source=\"hit\"}");
    assert_true(told > sum - 1e-6 && told < sum + 1e-6);
}

static void limits_and_servers_have_their_names(void **state)
{
    struct rig *r = *state;
    struct stats_slab *slab = &r->shared.stats[PROC_SLOT_WORKER0 + 1];
    stats_adopt(slab, &r->config);
    stats_bump(&stats_limit_row(slab, 11)->admitted, 20);
    stats_bump(&stats_limit_row(slab, 11)->refused, 5);
    stats_bump(&stats_limit_row(slab, 12)->dry_refused, 1);
    struct server_row *row = server_claim(r->shared.servers, stats_server_id(&r->server), 1);
    for (int i = 0; i < 3; i++)
        server_note_failure(row, SERVER_TIMEOUT, false, 1000);
    r->runtime.copy[0].limit[0].requests = 40;
    r->runtime.copy[0].limit[0].window_ms = 60000;
    scrape(r, false);
    assert_true(value_of(r, "polder_limit_requests_total{limit=\"status\",result=\"admitted\"}") ==
                20);
    assert_true(value_of(r, "polder_limit_requests_total{limit=\"status\",result=\"refused\"}") ==
                5);
    assert_true(value_of(r, "polder_limit_requests_total{limit=\"od\\\"d\\\\\\n\",result=\"dry_run_"
                            "refused\"}") == 1);
    assert_true(value_of(r, "polder_limit_quota{limit=\"status\"}") == 40);
    assert_true(value_of(r, "polder_limit_window_seconds{limit=\"status\"}") == 60);
    assert_true(value_of(r, "polder_upstream_server_errors_total{upstream=\"api\",server=\"127.0.0."
                            "1:8001\",reason=\"timeout\"}") == 3);
    assert_true(value_of(r, "polder_upstream_server_errors_total{upstream=\"api\",server=\"127.0.0."
                            "1:8001\",reason=\"refused\"}") == 0);
    assert_true(value_of(r, "polder_upstream_server_up{upstream=\"api\",server=\"127.0.0."
                            "1:8001\"}") == 0);
}

static void crashes_and_workers_are_told_by_kind(void **state)
{
    struct rig *r = *state;
    struct proc_table *proc = r->shared.proc;
    atomic_store(&proc->generation, 4);
    for (unsigned i = 0; i < 3; i++) {
        struct proc_slot *slot = &proc->slot[PROC_SLOT_WORKER0 + i];
        atomic_store(&slot->pid, 100 + i);
        atomic_store(&slot->crashes, 2);
        atomic_store(&slot->generation, i == 2 ? 3 : 4);
        atomic_store(&slot->state, i == 2 ? PROC_DRAINING : PROC_READY);
    }
    atomic_store(&proc->slot[PROC_SLOT_KEEPER].crashes, 1);
    scrape(r, false);
    assert_true(value_of(r, "polder_workers") == 2);
    assert_true(value_of(r, "polder_workers_draining") == 1);
    assert_true(value_of(r, "polder_process_crashes_total{process=\"worker\"}") == 6);
    assert_true(value_of(r, "polder_process_crashes_total{process=\"keeper\"}") == 1);
    assert_true(value_of(r, "polder_build_info{version=\"" POLDER_VERSION "\"}") == 1);
}

static void a_house_without_limits_and_backends_has_metrics_too(void **state)
{
    struct rig *r = *state;
    r->config.n_limits = r->config.n_upstreams = r->config.n_servers = 0;
    check_form(r, true);
}

static void a_condition_that_holds_is_one(void **state)
{
    struct rig *r = *state;
    char sample[160];
    condition_raise(r->shared.conditions, COND_LIMIT_TABLE_FULL, NULL, "7 times", clock_real_ms());
    condition_raise(r->shared.conditions, COND_BACKEND_DOWN, "a\"b", NULL, clock_real_ms());
    condition_raise(r->shared.conditions, COND_BACKEND_DOWN, "c", NULL, clock_real_ms());
    check_form(r, true);
    assert_true(value_of(r, "polder_condition{name=\"limit_table_full\",subject=\"\"}") == 1);
    assert_true(value_of(r, "polder_condition{name=\"backend_down\",subject=\"a\\\"b\"}") == 1);
    assert_true(value_of(r, "polder_condition{name=\"backend_down\",subject=\"c\"}") == 1);
    for (unsigned i = 0; i < CONDITIONS; i++) { /* the others are there as 0 */
        if (i == COND_BACKEND_DOWN || i == COND_LIMIT_TABLE_FULL)
            continue;
        snprintf(sample, sizeof sample, "polder_condition{name=\"%s\",subject=\"\"}",
                 condition_kind((enum condition_id)i)->name);
        assert_true(value_of(r, sample) == 0);
    }
    assert_true(value_of(r, "polder_conditions_lost_total") == 0);
    assert_true(value_of(r, "polder_limit_entries") == 1176);
    assert_true(value_of(r, "polder_limit_evicted_live_total") == 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(families_stand_together_in_the_older_text),
        TEST(families_stand_together_in_openmetrics),
        TEST(counters_and_gauges_of_all_slots_are_added),
        TEST(money_is_counted_events_times_their_price),
        TEST(a_row_of_the_tables_is_never_missing),
        TEST(histograms_only_rise_and_end_with_the_count),
        TEST(limits_and_servers_have_their_names),
        TEST(crashes_and_workers_are_told_by_kind),
        TEST(a_condition_that_holds_is_one),
        TEST(a_house_without_limits_and_backends_has_metrics_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
