/* SPDX-License-Identifier: BSD-2-Clause */
/* What /metrics says can be read by Prometheus, in each form, and says what was counted; its names
 * are those of tests/golden/metrics.txt. */
#include "daemons/control/ops/metrics.h"
#include "daemons/control/control.h"
#include "daemons/control/ops/query.h"
#include "polder/clock.h"
#include "polder/alerts.h"
#include "polder/conditions.h"
#include "polder/server_state.h"
#include "polder/shift.h"
#include "polder/config.h"
#include "polder/fleet_grants.h"
#include "polder/fleet_slots.h"
#include "polder/limit.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
/* after the others: it wants them */
#include <cmocka.h>

#define LINES_MAX 2000

struct rig {
    struct control control;
    struct shared shared;
    struct shm_segment conditions;
    struct config config;
    struct config_limit limit[2];
    struct config_alert alert;
    struct config_upstream upstream;
    struct config_server server;
    struct config_route route[2];
    struct config_websocket websocket;
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
    r->route[0] = (struct config_route){.pattern = "/api/items/*", .id = 21};
    r->route[1] = (struct config_route){.pattern = "/ws/*", .id = 22, .index = 1};
    r->config = (struct config){.workers = 2,
                                .routes = r->route,
                                .n_routes = 2,
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
    r->shared.alerts = aligned_alloc(64, sizeof *r->shared.alerts);
    memset(r->shared.alerts, 0, sizeof *r->shared.alerts);
    r->shared.shift = aligned_alloc(64, (shift_page_size() + 63) / 64 * 64);
    memset(r->shared.shift, 0, shift_page_size());
    assert_true(shift_write(r->shared.shift, &(struct shift_state){.upstream = "api",
                                                                   .server = "127.0.0.1:8001",
                                                                   .percent = 10,
                                                                   .phase = SHIFT_WATCHED}));
    r->shared.fleet_grants = mmap(NULL, sizeof *r->shared.fleet_grants, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(r->shared.fleet_grants, MAP_FAILED);
    r->shared.fleet_slots = mmap(NULL, sizeof *r->shared.fleet_slots, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(r->shared.fleet_slots, MAP_FAILED);
    r->config.on_alert = "";
    r->alert = (struct config_alert){.name = "memory", .severity = "critical", .enabled = true};
    r->config.alerts = &r->alert;
    r->config.n_alerts = 1;
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
    free(r->shared.alerts);
    free(r->shared.shift);
    munmap(r->shared.stats, sizeof *r->shared.stats * PROC_SLOTS);
    munmap(r->shared.limits, limit_table_size(1024));
    munmap(r->shared.fleet_grants, sizeof *r->shared.fleet_grants);
    munmap(r->shared.fleet_slots, sizeof *r->shared.fleet_slots);
    shm_close(&r->conditions);
    free(r->text.at);
    free(r);
    return 0;
}

/* What is asked for, whole. query NULL: all. */
static void write_all(struct rig *r, enum metrics_form form, const struct metrics_query *query,
                      const msgpack_object *websocket)
{
    struct metrics_run run;
    free(r->text.at);
    memset(&r->text, 0, sizeof r->text);
    assert_true(metrics_run_begin(&run, &r->control, form, query, websocket, &r->text));
    while (metrics_run_step(&run))
        ;
    metrics_run_free(&run);
    assert_false(r->text.failed);
}

static void cut_lines(struct rig *r)
{
    r->n = 0;
    assert_int_equal(r->text.at[r->text.len - 1], '\n');
    for (char *at = r->text.at, *end; (end = strchr(at, '\n')); at = end + 1) {
        *end = 0;
        assert_true(r->n < LINES_MAX);
        assert_true(*at);
        r->line[r->n++] = at;
    }
}

static void scrape(struct rig *r, bool openmetrics)
{
    write_all(r, openmetrics ? METRICS_OPENMETRICS : METRICS_TEXT, NULL, NULL);
    cut_lines(r);
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
    r->route[1].websocket = &r->websocket;
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
    atomic_store(&proc->slot[PROC_SLOT_SUPERVISOR].hung, 3);
    scrape(r, false);
    assert_true(value_of(r, "polder_workers") == 2);
    assert_true(value_of(r, "polder_workers_draining") == 1);
    assert_true(value_of(r, "polder_process_crashes_total{process=\"worker\"}") == 6);
    assert_true(value_of(r, "polder_process_crashes_total{process=\"keeper\"}") == 1);
    assert_true(value_of(r, "polder_process_hung_total{process=\"supervisor\"}") == 3);
    assert_true(value_of(r, "polder_process_hung_total{process=\"worker\"}") == 0);
    assert_true(value_of(r, "polder_build_info{version=\"" POLDER_VERSION "\"}") == 1);
}

static void a_house_without_limits_and_backends_has_metrics_too(void **state)
{
    struct rig *r = *state;
    r->config.n_limits = r->config.n_upstreams = r->config.n_servers = r->config.n_routes = 0;
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

static void routes_have_their_own(void **state)
{
    struct rig *r = *state;
    struct stats_slab *slab = &r->shared.stats[PROC_SLOT_WORKER0 + 1];
    stats_adopt(slab, &r->config);
    struct stats_route_row *row = stats_route_row(slab, 21);
    stats_bump(&row->answers[1], 6);
    stats_bump(&row->answers[3], 1);
    stats_bump(&row->lookup[STATS_LOOKUP_HIT], 4);
    stats_bump(&row->lookup[STATS_LOOKUP_STALE], 1);
    stats_bump(&row->lookup[STATS_LOOKUP_MISS], 2);
    stats_bump(&row->bytes, 4711);
    stats_bump(&row->calls, 3);
    stats_bump(&row->background, 1);
    stats_bump(&row->refused, 2);
    stats_bump(&row->last_hit_ms, 1750000000500);
    stats_observe(slab, STATS_LATENCY_HIT, row, 500000000);
    stats_bump(&stats_route_row(slab, STATS_NO_ROUTE)->answers[3], 9);
    struct stats_server_row *server = stats_server_row(slab, stats_server_id(&r->server));
    stats_bump(&server->bytes_in, 100);
    stats_bump(&server->bytes_out, 10);
    histogram_add(&server->latency, histogram_bucket(HISTOGRAM_LATENCY, 1000000000), 1000000000);
    scrape(r, true);
#define OF_ITEMS(name, labels)                                                                     \
    value_of(r, "polder_route_" name "{route=\"/api/items/*\"" labels "}")
    assert_true(OF_ITEMS("responses_total", ",class=\"2xx\"") == 6);
    assert_true(OF_ITEMS("responses_total", ",class=\"4xx\"") == 1);
    assert_true(OF_ITEMS("cache_lookups_total", ",result=\"hit\"") == 4);
    assert_true(OF_ITEMS("cache_lookups_total", ",result=\"miss\"") == 2);
    assert_true(OF_ITEMS("avoided_requests_total", "") == 7);
    assert_true(OF_ITEMS("upstream_requests_total", "") == 3);
    assert_true(OF_ITEMS("background_requests_total", "") == 1);
    assert_true(OF_ITEMS("limit_refused_total", "") == 2);
    assert_true(OF_ITEMS("response_bytes_total", "") == 4711);
    assert_true(OF_ITEMS("last_hit_timestamp_seconds", "") == 1750000000.5);
    assert_true(OF_ITEMS("response_seconds_bucket", ",le=\"0.25\"") == 0);
    assert_true(OF_ITEMS("response_seconds_bucket", ",le=\"0.5\"") == 1); /* at most so long */
    assert_true(value_of(r, "polder_route_responses_total{route=\"none\",class=\"4xx\"}") == 9);
#define OF_SERVER(name, labels)                                                                    \
    value_of(r, "polder_upstream_server_" name                                                     \
                "{upstream=\"api\",server=\"127.0.0.1:8001\"" labels "}")
    assert_true(OF_SERVER("bytes_total", ",direction=\"in\"") == 100);
    assert_true(OF_SERVER("bytes_total", ",direction=\"out\"") == 10);
    assert_true(OF_SERVER("response_seconds_bucket", ",le=\"1.0\"") == 1);
    assert_true(OF_SERVER("response_seconds_sum", "") == 1);
}

/* ---- what is asked for ---- */

static const char *parse(struct metrics_query *q, const char *text)
{
    return metrics_query_parse(q, (struct str){text, strlen(text)});
}

static void nothing_is_written_where_there_is_no_room(void **state)
{
    (void)state;
    char out[2] = "x";
    struct metrics_query q;
    char text[METRICS_QUERY_MAX + 64] = "metrics=";
    assert_int_equal(query_decode((struct str){"", 0}, out, 0), -ENOBUFS);
    assert_int_equal(out[0], 'x');
    memset(text + 8, 'a', METRICS_QUERY_MAX - 2); /* with '*' and its end it fills the room */
    strcpy(text + 8 + METRICS_QUERY_MAX - 2, "*");
    assert_null(parse(&q, text));
    strcat(text, "&scope=");
    assert_string_equal(parse(&q, text), "The query is too long.");
}

/* How many families are written for a query. */
static size_t families_of(struct rig *r, const char *query, const char *all_start_with)
{
    struct metrics_query q;
    size_t families = 0;
    assert_null(parse(&q, query));
    write_all(r, METRICS_OPENMETRICS, &q, NULL);
    cut_lines(r);
    for (size_t i = 0; i + 1 < r->n; i++) {
        families += starts(r->line[i], "# TYPE ");
        assert_true(starts(r->line[i] + (starts(r->line[i], "# ") ? 7 : 0), all_start_with));
    }
    return families;
}

static void only_what_is_asked_for_is_written(void **state)
{
    struct rig *r = *state;
    assert_int_equal(families_of(r, "scope=limits", "polder_limit_"), 12);
    const size_t cache =
        families_of(r, "scope=cache&metrics=-compress%2A,-poll_*", "polder_cache_");
    assert_true(cache > 20);
    assert_int_equal(families_of(r, "metrics=cache_items", "polder_cache_items"), 1);
    assert_int_equal(families_of(r, "metrics=polder_limit_quota", "polder_limit_quota"), 1);
    assert_int_equal(families_of(r, "metrics=limit_requests_total", "polder_limit_requests"), 1);
    assert_int_equal(families_of(r, "metrics=route_response_seconds_bucket", "polder_route_"), 1);
    assert_int_equal(families_of(r, "metrics=limit_*,-limit_quota", "polder_limit_"), 11);
    assert_int_equal(families_of(r, "scope=cache%2Climits&metrics=limit_quota", "polder_l"), 1);
    assert_int_equal(families_of(r, "scope=cache&metrics=limit_quota", ""), 0);
    const size_t all = families_of(r, "", "polder_");
    assert_int_equal(families_of(r, "metrics=-cache_items&metrics=-build", "polder_"), all - 2);
    size_t sum = 0;
    for (unsigned i = 0; i < METRICS_SCOPE_COUNT; i++) {
        char query[64];
        snprintf(query, sizeof query, "scope=%s", metrics_scope_names[i]);
        sum += families_of(r, query, "polder_");
    }
    assert_int_equal(sum, all); /* each belongs to one scope */
}

static void what_nobody_knows_is_refused(void **state)
{
    (void)state;
    struct metrics_query q;
    static const char *const bad[] = {"scope=nonsense",
                                      "scope=",
                                      "scope",
                                      "scope=cache,",
                                      "metrics=nonsense",
                                      "metrics=-",
                                      "metrics=*x",
                                      "metrics=cache_items%2",
                                      "metrics=cache_items%zz",
                                      "scopes=cache",
                                      "metrics=cache_items%00",
                                      "metrics=polder_",
                                      "name[]=x",
                                      "scope=cache&metrics=build_total_info"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (!parse(&q, bad[i]))
            fail_msg("%s is taken", bad[i]);
    char many[4096] = "metrics=build";
    for (int i = 0; i < 64; i++)
        strcat(many, ",build");
    assert_non_null(parse(&q, many));
    memset(many, 'a', sizeof many - 1);
    many[sizeof many - 1] = 0;
    assert_non_null(parse(&q, many));
    assert_null(parse(&q, ""));
    assert_null(parse(&q, "&"));
}

static void the_form_is_the_one_that_is_liked_best(void **state)
{
    (void)state;
    static const struct {
        const char *accept;
        enum metrics_form form;
    } of[] = {
        {"", METRICS_TEXT},
        {"*/*", METRICS_TEXT},
        {"text/html, application/openmetrics-text", METRICS_OPENMETRICS},
        {"application/openmetrics-text;version=1.0.0,application/"
         "openmetrics-text;version=0.0.1;q=0.75,"
         "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
         METRICS_OPENMETRICS},
        {"application/"
         "vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
         "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/"
         "*;q=0.1",
         METRICS_PROTOBUF},
        {"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
         METRICS_TEXT},
        {"application/vnd.google.protobuf;proto=other;encoding=delimited;q=1,text/plain;q=0.1",
         METRICS_TEXT},
        {"application/openmetrics-text;q=0, text/plain;q=0.1", METRICS_TEXT},
        {"application/openmetrics-text;q=nonsense", METRICS_TEXT},
        {"text/plain;q=0.5, application/openmetrics-text;q=0.6", METRICS_OPENMETRICS},
        {"application/vnd.google.protobuf; proto=\"io.prometheus.client.MetricFamily\"; "
         "encoding=\"delimited\"",
         METRICS_PROTOBUF},
    };
    for (size_t i = 0; i < sizeof of / sizeof *of; i++)
        if (metrics_form_of((struct str){of[i].accept, strlen(of[i].accept)}) != of[i].form)
            fail_msg("%s", of[i].accept);
}

/* ---- labels ---- */

static void labels_are_utf_8_and_bounded(void **state)
{
    struct rig *r = *state;
    char out[METRICS_VALUE_MAX], other[METRICS_VALUE_MAX], text[2000];
    assert_string_equal(metrics_label_value("a\xff\xc3", out), "a\xef\xbf\xbd\xef\xbf\xbd");
    assert_string_equal(metrics_label_value("gr\xc3\xbc\xc3\x9f", out), "gr\xc3\xbc\xc3\x9f");
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    metrics_label_value(text, out);
    text[1500] = 'y';
    metrics_label_value(text, other);
    assert_string_not_equal(out, other);
    assert_true(strlen(out) < METRICS_VALUE_MAX);
    memset(text, 0xff, sizeof text - 1);
    assert_true(strlen(metrics_label_value(text, out)) < METRICS_VALUE_MAX);
    r->route[0].pattern = "/a\"b\\\n\xff";
    scrape(r, false);
    assert_true(
        value_of(r, "polder_route_limit_refused_total{route=\"/a\\\"b\\\\\\n\xef\xbf\xbd\"}") == 0);
}

/* ---- names that nobody may change ---- */

/* As ws.stats answers. */
static msgpack_object *websocket_stats(msgpack_zone *zone)
{
    msgpack_sbuffer buffer;
    msgpack_packer p;
    static const char *const numbers[] = {"maxConnections", "jsonHeartbeats", "pings",
                                          "pongs",          "durationSum",    "leakedHours"};
    static const char *const of_route[] = {"open",   "maxConnections", "opened",     "refused",
                                           "reaped", "messagesIn",     "messagesOut"};
#define PUT(text) msgpack_pack_str_with_body(&p, text, strlen(text))
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&p, &buffer, msgpack_sbuffer_write);
    msgpack_pack_map(&p, 9);
    for (size_t i = 0; i < 6; i++) {
        PUT(numbers[i]);
        msgpack_pack_uint64(&p, i);
    }
    PUT("ends");
    msgpack_pack_map(&p, 1);
    PUT("client");
    msgpack_pack_uint64(&p, 3);
    PUT("durationCounts");
    msgpack_pack_array(&p, HISTOGRAM_BUCKETS);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        msgpack_pack_uint64(&p, i == 40);
    PUT("routes");
    msgpack_pack_array(&p, 1);
    msgpack_pack_map(&p, 8);
    PUT("route");
    PUT("/ws/*");
    for (size_t i = 0; i < 7; i++) {
        PUT(of_route[i]);
        msgpack_pack_uint64(&p, i);
    }
    static msgpack_object object;
    size_t off = 0;
    assert_int_equal(msgpack_unpack(buffer.data, buffer.size, &off, zone, &object),
                     MSGPACK_UNPACK_SUCCESS);
    /* the texts point into the buffer */
    msgpack_zone_push_finalizer(zone, free, msgpack_sbuffer_release(&buffer));
    return &object;
}

/* NAME TYPE LABEL[=VALUE]... of a family; what names of the configuration say is left out. */
static void describe_sample(const char *line, const char *type, char *out, size_t size)
{
    static const char *const named[] = {"route",   "limit",   "upstream", "server",
                                        "subject", "version", "currency", "name"};
    const char *at = strchr(line, '{'), *end = strrchr(line, ' ');
    snprintf(out, size, "%.*s %s", (int)strcspn(line, "{ "), line, type);
    while (at && at < end && *at != '}') {
        char name[64], value[128];
        size_t n = strlen(out);
        assert_int_equal(sscanf(at + 1, "%63[^=]=\"%127[^\"]", name, value) >= 1, 1);
        bool free_text = !strcmp(name, "le");
        for (size_t i = 0; i < sizeof named / sizeof *named; i++)
            free_text = free_text || !strcmp(name, named[i]);
        snprintf(out + n, size - n, free_text ? " %s" : " %s=%s", name, value);
        at = strstr(at, "\",");
        at = at ? at + 1 : NULL;
    }
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All lines of names, sorted and each once. */
static char *all_names(struct rig *r)
{
    static char name[LINES_MAX][256];
    static char *sorted[LINES_MAX];
    char type[32] = "";
    size_t n = 0, len = 0;
    for (size_t i = 0; i < r->n; i++)
        if (sscanf(r->line[i], "# TYPE %*s %31s", type) != 1 && r->line[i][0] != '#') {
            describe_sample(r->line[i], type, name[n], sizeof name[n]);
            sorted[n] = name[n];
            n++;
        }
    qsort(sorted, n, sizeof *sorted, compare);
    char *all = calloc(LINES_MAX, sizeof name[0]);
    for (size_t i = 0; i < n; i++)
        if (!i || strcmp(sorted[i], sorted[i - 1]))
            len += (size_t)sprintf(all + len, "%s\n", sorted[i]);
    return all;
}

static char *read_file(const char *path)
{
    char *text = calloc(1, 1 << 20);
    FILE *f = fopen(path, "r");
    if (f) {
        const size_t n = fread(text, 1, (1 << 20) - 1, f);
        text[n] = 0;
        fclose(f);
    }
    return text;
}

/* Tells the lines that the other text lacks. */
static size_t only_in(const char *text, const char *other, char mark)
{
    size_t n = 0;
    char line[256];
    for (; *text; text += strlen(line)) {
        const size_t len = strcspn(text, "\n") + 1;
        snprintf(line, sizeof line, "%.*s", (int)len, text);
        const char *at = strstr(other, line);
        while (at && at != other && at[-1] != '\n')
            at = strstr(at + 1, line);
        if (!at) {
            print_error("%c%s", mark, line);
            n++;
        }
    }
    return n;
}

/* Dashboards and alerts of others are made of these names. One that is new is added to the file;
 * one that is there stays. */
static void names_are_those_of_the_golden_file(void **state)
{
    struct rig *r = *state;
    msgpack_zone zone;
    msgpack_zone_init(&zone, 4096);
    r->route[1].websocket = &r->websocket;
    write_all(r, METRICS_TEXT, NULL, websocket_stats(&zone));
    cut_lines(r);
    msgpack_zone_destroy(&zone);
    char *now = all_names(r), *golden = read_file("tests/golden/metrics.txt");
    size_t differ = only_in(now, golden, '+');
    differ += only_in(golden, now, '-');
    assert_int_equal(differ, 0); /* as tests/golden/metrics.txt has to change; told above */
    free(now);
    free(golden);
}

/* ---- many series ---- */

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Four workers, 200 routes with all they have. */
static void ten_thousand_series_are_cheap(void **state)
{
    struct rig *r = *state;
    static struct config_route route[260];
    static char pattern[260][24];
    double best_ms = 1e9;
    for (uint32_t i = 0; i < 260; i++) {
        snprintf(pattern[i], sizeof pattern[i], "/api/route-%u/*", i);
        route[i] = (struct config_route){.pattern = pattern[i], .id = 1000 + i, .index = i};
    }
    r->config.routes = route;
    r->config.n_routes = 260;
    for (unsigned slot = 0; slot < 4; slot++) {
        struct stats_slab *slab = &r->shared.stats[PROC_SLOT_WORKER0 + slot];
        stats_adopt(slab, &r->config);
        for (uint32_t i = 0; i < 260; i++)
            for (uint64_t ns = 10000; ns < 1000000000; ns *= 2)
                stats_observe(slab, STATS_LATENCY_HIT, stats_route_row(slab, 1000 + i), ns);
    }
    for (int form = 0; form < METRICS_FORMS; form++) {
        size_t samples = 0;
        for (int round = 0; round < 3; round++) {
            const double begin_ms = cpu_ms();
            write_all(r, (enum metrics_form)form, NULL, NULL);
            const double took_ms = cpu_ms() - begin_ms;
            best_ms = round && best_ms < took_ms ? best_ms : took_ms;
        }
        for (const char *at = r->text.at; form != METRICS_PROTOBUF && (at = strchr(at, '\n')); at++)
            samples += at[1] != '#';
        assert_true(form == METRICS_PROTOBUF || samples > 10000);
        print_message("%zu samples, %zu bytes: %.1f ms of CPU\n", samples, r->text.len, best_ms);
#if !defined __SANITIZE_ADDRESS__
        assert_true(best_ms < 60); /* the promise is 20 on a machine that does nothing else */
#endif
    }
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
        TEST(routes_have_their_own),
        cmocka_unit_test(nothing_is_written_where_there_is_no_room),
        TEST(only_what_is_asked_for_is_written),
        cmocka_unit_test(what_nobody_knows_is_refused),
        cmocka_unit_test(the_form_is_the_one_that_is_liked_best),
        TEST(labels_are_utf_8_and_bounded),
        TEST(names_are_those_of_the_golden_file),
        TEST(ten_thousand_series_are_cheap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
