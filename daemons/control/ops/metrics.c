/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics: see metrics.h. Which families there are: libshared/tables/{metrics,counters,gauges}.def.
 * Labels hold names from the configuration only, never what clients send, so their number is
 * bounded.
 */
#include "daemons/control/ops/metrics.h"
#include "daemons/control/control.h"
#include "daemons/control/model/health.h"
#include "daemons/control/ops/metrics_alerts.h"
#include "daemons/control/ops/metrics_cost.h"
#include "daemons/control/ops/metrics_fleet.h"
#include "daemons/control/ops/metrics_rows.h"
#include "daemons/control/ops/metrics_shift.h"
#include "daemons/control/ops/metrics_websocket.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/limit.h"

#include <stdlib.h>

#define ROWS_A_STEP 64
#define PART        (32u << 10) /* of the page, about */
_Static_assert(PART <= HTTP_PART_MAX, "parts of a part's size");

static void put_u64(struct metrics_writer *w, enum metric id, uint64_t value)
{
    if (metrics_family_begin(w, id))
        metrics_u64(w, METRICS_NO_LABELS, value);
}

static void put_f64(struct metrics_writer *w, enum metric id, double value)
{
    if (metrics_family_begin(w, id))
        metrics_f64(w, METRICS_NO_LABELS, value);
}

/* ---- from the tables of process slots ---- */

static void write_counters(struct metrics_run *run)
{
    for (unsigned i = 0; i < STATS_COUNTERS; i++) {
        struct metrics_label labels[METRICS_LABELS_MAX + 1];
        char space[METRICS_VALUE_MAX];
        const char *text;
        const struct metrics_family f = metrics_family_of_counter((enum stats_counter)i, &text);
        if (!metrics_family_row(&run->writer, &f))
            continue;
        metrics_labels_of_row(text, labels, space);
        metrics_u64(&run->writer, labels,
                    stats_total(run->control->shared->stats, (enum stats_counter)i));
    }
}

static void write_gauges(struct metrics_run *run)
{
    for (unsigned i = 0; i < STATS_GAUGES; i++) {
        struct metrics_label labels[METRICS_LABELS_MAX + 1];
        char space[METRICS_VALUE_MAX];
        const char *text;
        const struct metrics_family f = metrics_family_of_gauge((enum stats_gauge)i, &text);
        if (!metrics_family_row(&run->writer, &f))
            continue;
        metrics_labels_of_row(text, labels, space);
        metrics_u64(&run->writer, labels,
                    stats_gauge_total(run->control->shared->stats, (enum stats_gauge)i));
    }
}

static void write_latencies(struct metrics_run *run)
{
    static const char *const source[] = {[STATS_LATENCY_HIT] = "hit",
                                         [STATS_LATENCY_MISS] = "miss",
                                         [STATS_LATENCY_PASS] = "pass",
                                         [STATS_LATENCY_REFUSED] = "refused"};
    if (!metrics_family_begin(&run->writer, METRIC_RESPONSE_SECONDS))
        return;
    for (int h = 0; h < STATS_HISTOGRAMS; h++) {
        struct distribution d;
        stats_distribution_of(run->control->shared->stats, (enum stats_histogram)h, &d);
        metrics_distribution(&run->writer, METRICS_LABELS({"source", source[h]}), &d, NULL);
    }
}

/* ---- limits ---- */

/* The limiter's table: of all limits and processes. */
static void write_limit_table(struct metrics_run *run)
{
    struct metrics_writer *w = &run->writer;
    struct limit_table_stats s;
    limit_table_counters(run->control->shared->limits, &s);
    put_u64(w, METRIC_LIMIT_ENTRIES, s.entries);
    put_u64(w, METRIC_LIMIT_EVICTED, s.evicted_live);
    put_u64(w, METRIC_LIMIT_LOCK_REFUSALS, s.lock_refusals);
    put_u64(w, METRIC_LIMIT_ROWS_FULL, s.rows_full);
    put_u64(w, METRIC_LIMIT_LOCK_STEALS, s.lock_steals);
}

/* ---- conditions ---- */

static void put_condition(struct metrics_writer *w, const char *name, const char *subject,
                          uint64_t value)
{
    char text[METRICS_VALUE_MAX];
    metrics_u64(w, METRICS_LABELS({"name", name}, {"subject", metrics_label_value(subject, text)}),
                value);
}

/* One sample for each that is raised, and one of 0 for each name of which none is: at most
 * CONDITIONS + CONDITION_ROWS. */
static void write_conditions(struct metrics_run *run)
{
    struct metrics_writer *w = &run->writer;
    struct condition list[CONDITION_ROWS];
    const size_t n = conditions_list(run->control->shared->conditions, clock_real_ms(), list);
    if (metrics_family_begin(w, METRIC_CONDITION))
        for (size_t i = 0, id = 0; id < CONDITIONS; id++) {
            const char *name = condition_kind((enum condition_id)id)->name;
            if (i == n || list[i].id != id)
                put_condition(w, name, "", 0);
            for (; i < n && list[i].id == id; i++)
                put_condition(w, name, list[i].subject, 1);
        }
    put_u64(w, METRIC_CONDITIONS_LOST, conditions_lost(run->control->shared->conditions));
}

static void write_fleet(struct metrics_run *run)
{
    metrics_write_fleet(&run->writer, run->control);
}

static void write_shifts(struct metrics_run *run)
{
    metrics_write_shifts(&run->writer, run->control);
}

static void write_alerts(struct metrics_run *run)
{
    metrics_write_alerts(&run->writer, run->control);
}

/* ---- processes ---- */

struct of_kind { /* by slot; all workers in one */
    uint64_t crashes, up, hung;
};

static void count_processes(const struct proc_table *proc,
                            struct of_kind kinds[PROC_SLOT_WORKER0 + 1])
{
    for (unsigned i = 0; i < PROC_SLOTS; i++) {
        const struct proc_slot *slot = &proc->slot[i];
        struct of_kind *kind = &kinds[i < PROC_SLOT_WORKER0 ? i : PROC_SLOT_WORKER0];
        kind->crashes += atomic_load(&slot->crashes);
        kind->hung += atomic_load(&slot->hung);
        kind->up += atomic_load(&slot->pid) && atomic_load(&slot->state) == PROC_READY;
    }
    kinds[PROC_SLOT_MASTER].up = 1; /* control dies with it */
}

/* polder-supervisor is a daemon of its own, not in this table; notifier and resolver are not always wanted. */
static void put_kind(struct metrics_writer *w, unsigned kind, uint64_t value)
{
    if (kind != PROC_SLOT_SUPERVISOR && kind != PROC_SLOT_NOTIFIER && kind != PROC_SLOT_RESOLVER)
        metrics_u64(w, METRICS_LABELS({"process", proc_slot_name(kind)}), value);
}

static void write_processes(struct metrics_run *run)
{
    struct metrics_writer *w = &run->writer;
    struct of_kind kinds[PROC_SLOT_WORKER0 + 1] = {0};
    count_processes(run->control->shared->proc, kinds);
    if (metrics_family_begin(w, METRIC_PROCESSES_UP))
        for (unsigned kind = 0; kind <= PROC_SLOT_WORKER0; kind++)
            put_kind(w, kind, kinds[kind].up);
    if (metrics_family_begin(w, METRIC_PROCESS_CRASHES))
        for (unsigned kind = PROC_SLOT_KEEPER; kind <= PROC_SLOT_WORKER0; kind++)
            put_kind(w, kind, kinds[kind].crashes);
    if (metrics_family_begin(w, METRIC_PROCESS_HUNG))
        for (unsigned kind = PROC_SLOT_KEEPER; kind <= PROC_SLOT_WORKER0; kind++)
            metrics_u64(w, METRICS_LABELS({"process", proc_slot_name(kind)}), kinds[kind].hung);
}

/* Of earlier configurations, those that have workers; a slot's generation tells them apart. */
static uint64_t draining_generations(const struct proc_table *proc)
{
    uint32_t seen[SHARED_REGIONS] = {0};
    uint32_t n = 0;
    for (unsigned i = PROC_SLOT_WORKER0; i < PROC_SLOTS; i++) {
        const uint32_t g = atomic_load(&proc->slot[i].generation);
        uint32_t k = 0;
        if (!atomic_load(&proc->slot[i].pid) || g >= atomic_load(&proc->generation))
            continue;
        while (k < n && seen[k] != g)
            k++;
        if (k == n && n < SHARED_REGIONS)
            seen[n++] = g;
    }
    return n;
}

static void write_generations(struct metrics_run *run)
{
    struct metrics_writer *w = &run->writer;
    const struct proc_table *proc = run->control->shared->proc;
    if (metrics_family_begin(w, METRIC_GENERATIONS)) {
        metrics_u64(w, METRICS_LABELS({"state", "current"}), 1);
        metrics_u64(w, METRICS_LABELS({"state", "draining"}), draining_generations(proc));
    }
    put_u64(w, METRIC_GENERATIONS_ENDED, atomic_load(&proc->generations_ended));
    put_u64(w, METRIC_REQUESTS_CUT, atomic_load(&proc->requests_cut));
}

static void write_service(struct metrics_run *run)
{
    struct metrics_writer *w = &run->writer;
    const struct proc_table *proc = run->control->shared->proc;
    const struct runtime_cache *cache = &run->names.values.cache;
    struct workers_count workers;
    const uint64_t up_ms = clock_mono_ms() - atomic_load(&proc->started_ms);
    health_count_workers(run->control, &workers);
    if (metrics_family_begin(w, METRIC_BUILD))
        metrics_u64(w, METRICS_LABELS({"version", POLDER_VERSION}), 1);
    put_f64(w, METRIC_START_TIME, (double)((clock_real_ms() - up_ms) / 1000));
    put_u64(w, METRIC_WORKERS, workers.ready);
    put_u64(w, METRIC_WORKERS_WANTED, workers.wanted);
    put_u64(w, METRIC_WORKERS_DRAINING, workers.draining);
    write_generations(run);
    put_u64(w, METRIC_GENERATION, atomic_load(&proc->generation));
    if (metrics_family_begin(w, METRIC_UPGRADES)) {
        metrics_u64(w, METRICS_LABELS({"result", "ok"}), atomic_load(&proc->upgrades_ok));
        metrics_u64(w, METRICS_LABELS({"result", "failed"}), atomic_load(&proc->upgrades_failed));
    }
    put_u64(w, METRIC_DRAINING, atomic_load(&proc->draining));
    put_u64(w, METRIC_CACHE_MAX_ITEMS, cache->max_items);
    put_u64(w, METRIC_CACHE_MAX_BYTES, cache->max_bytes);
}

/* ---- all of it, in steps ---- */

static void (*const once[])(struct metrics_run *run) = {
    write_service, write_processes, write_conditions,  write_alerts, write_counters,
    write_gauges,  write_latencies, write_limit_table, write_shifts, write_fleet,
};
#define ONCE (sizeof once / sizeof *once)

bool metrics_run_begin(struct metrics_run *run, struct control *c, enum metrics_form form,
                       const struct metrics_query *query, const msgpack_object *websocket,
                       struct text *out)
{
    *run = (struct metrics_run){.control = c};
    metrics_begin(&run->writer, form, query, out);
    if (!metrics_names_take(&run->names, c))
        return false;
    /* while there is an answer of the supervisor */
    metrics_write_cost(&run->writer, c, websocket);
    if (config_has_websockets(c->config))
        metrics_write_websockets(&run->writer, websocket);
    return true;
}

/* Some rows of the family; false: they were the last. */
static bool rows_step(struct metrics_run *run, const struct metrics_rows_family *f)
{
    const struct metrics_source from = {run->control->shared, &run->names};
    const uint32_t n = run->names.rows[f->of], first = run->row;
    const uint32_t end = n - first < ROWS_A_STEP ? n : first + ROWS_A_STEP;
    if (!n || (!first && !metrics_family_begin(&run->writer, f->metric)))
        return false;
    for (run->row = first; run->row < end; run->row++)
        f->write(&run->writer, &from, &run->names.row[f->of][run->row]);
    return run->row < n;
}

bool metrics_run_step(struct metrics_run *run)
{
    if (run->step < ONCE) {
        once[run->step++](run);
    } else if (run->step < ONCE + metrics_rows_count) {
        if (!rows_step(run, &metrics_rows_families[run->step - ONCE])) {
            run->row = 0;
            run->step++;
        }
    } else {
        metrics_end(&run->writer);
        return false;
    }
    return true;
}

void metrics_run_free(struct metrics_run *run)
{
    metrics_free(&run->writer);
    metrics_names_free(&run->names);
}

/* ---- the page ---- */

struct scrape {
    struct control *control;
    struct http_request *request;
    enum metrics_form form;
    struct metrics_query query;
    struct metrics_run run;
    struct text text; /* what was written and not taken */
    size_t taken;
    bool written; /* all of it */
};

static void scrape_free(void *arg)
{
    struct scrape *s = arg;
    metrics_run_free(&s->run);
    text_free(&s->text);
    free(s);
}

static bool next_part(void *arg, const char **part, size_t *len)
{
    struct scrape *s = arg;
    if (s->taken == s->text.len)
        s->taken = s->text.len = 0;
    while (!s->written && s->text.len - s->taken < PART && !s->text.failed)
        s->written = !metrics_run_step(&s->run);
    if (s->text.failed)
        return false;
    *part = s->text.at + s->taken;
    *len = s->text.len - s->taken;
    if (*len > HTTP_PART_MAX)
        *len = HTTP_PART_MAX;
    s->taken += *len;
    return true;
}

static void on_websockets(void *arg, enum rpc_error code, const char *message,
                          const msgpack_object *result)
{
    struct scrape *s = arg;
    (void)message;
    if (metrics_run_begin(&s->run, s->control, s->form, &s->query, code ? NULL : result,
                          &s->text)) {
        http_answer_parts(s->request, metrics_form_type(s->form), next_part, scrape_free, s);
        return;
    }
    http_answer(s->request, 503, metrics_form_type(METRICS_TEXT), "", 0);
    scrape_free(s);
}

static enum metrics_form form_of(const struct h1_head *h)
{
    char accept[1024];
    return metrics_form_of((struct str){accept, h1_join(h, H1_ACCEPT, accept, sizeof accept)});
}

void metrics_page(struct control *c, const struct http_call *call)
{
    struct scrape *s = calloc(1, sizeof *s);
    if (!s) {
        http_answer(call->request, 503, metrics_form_type(METRICS_TEXT), "", 0);
        return;
    }
    const char *wrong = metrics_query_parse(&s->query, call->head->query);
    if (wrong) {
        http_answer_problem(call->request, 400, wrong);
        free(s);
        return;
    }
    s->control = c;
    s->request = call->request;
    s->form = form_of(call->head);
    if (config_has_websockets(c->config))
        rpc_client_call(&c->peers.supervisor, "ws.stats", NULL, PEERS_ANSWER_MS, on_websockets, s);
    else
        on_websockets(s, RPC_UNAVAILABLE, NULL, NULL);
}
