/* SPDX-License-Identifier: BSD-2-Clause */
/* settings: see settings.h. */
#include "daemons/control/model/settings.h"
#include "daemons/control/control.h"
#include "polder/config.h"
#include "polder/log.h"
#include "polder/settings.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What was made permanent after the master's child had read it for the new configuration. */
static void settings_adopt(const struct control *c)
{
    struct runtime_values values, before;
    runtime_read(c->runtime, &before);
    values = before;
    struct runtime_page *page = &c->shared->region[c->region]->runtime;
    if (runtime_persist_load(c->config->state_dir, c->config, page, &values) == 0 &&
        settings_load(c->config->state_dir, c->config, &values) == 0 &&
        memcmp(&values, &before, sizeof values))
        runtime_publish(page, &values);
}

/* ---- what became of changes ---- */

static void note_kept(struct settings_report *r, const char *what)
{
    log_info("reload: kept %s", what);
    if (r->n_kept < SETTINGS_REPORT_LINES)
        snprintf(r->kept[r->n_kept++], SETTINGS_REPORT_LINE, "%s", what);
}

static void note_reset(struct settings_report *r, const char *what)
{
    log_warning("reload: reset %s: changed at run time and not persisted", what);
    if (r->n_reset < SETTINGS_REPORT_LINES)
        snprintf(r->reset[r->n_reset++], SETTINGS_REPORT_LINE, "%s", what);
}

/* A value was `file` in the old file, ran as `was`, and runs as `is`. */
static void note_number(struct settings_report *r, const char *what, uint64_t file, uint64_t was,
                        uint64_t is)
{
    char text[SETTINGS_REPORT_LINE];
    if (was == file)
        return;
    if (is == was) {
        snprintf(text, sizeof text, "%.110s %" PRIu64, what, is);
        note_kept(r, text);
    } else {
        snprintf(text, sizeof text, "%.110s %" PRIu64 " -> %" PRIu64, what, was, is);
        note_reset(r, text);
    }
}

static void note_limit(struct settings_report *r, const struct config_limit *l,
                       const struct runtime_limit *was, const struct runtime_limit *is)
{
    const struct runtime_limit *file = &l->value;
    const struct {
        const char *key;
        uint64_t file, was, is;
    } row[] = {
        {"requests", file->requests, was->requests, is->requests},
        {"window_ms", file->window_ms, was->window_ms, is->window_ms},
        {"algorithm", file->algorithm, was->algorithm, is->algorithm},
        {"dry_run", file->dry_run != 0, was->dry_run != 0, is->dry_run != 0},
        {"concurrent", file->concurrent, was->concurrent, is->concurrent},
        {"exempt list", 0, was->exempt != 0, is->exempt != 0},
    };
    char what[128];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        snprintf(what, sizeof what, "limit %.64s %s", l->name, row[i].key);
        note_number(r, what, row[i].file, row[i].was, row[i].is);
    }
}

static void note_limits(struct settings_report *r, const struct config *old,
                        const struct runtime_values *was, const struct config *now,
                        const struct runtime_values *is)
{
    for (uint32_t i = 0; i < old->n_limits; i++)
        for (uint32_t k = 0; k < now->n_limits; k++)
            if (!strcmp(old->limits[i].name, now->limits[k].name))
                note_limit(r, &old->limits[i], &was->limit[old->limits[i].index],
                           &is->limit[now->limits[k].index]);
}

static const struct config_server *same_server(const struct config *now,
                                               const struct config_server *s)
{
    for (uint32_t u = 0; u < now->n_upstreams; u++) {
        const struct config_upstream *upstream = &now->upstreams[u];
        for (uint32_t i = 0; i < upstream->n_servers; i++)
            if (!strcmp(upstream->name, s->upstream->name) &&
                !strcmp(upstream->servers[i].address.text, s->address.text))
                return &upstream->servers[i];
    }
    return NULL;
}

static void note_servers(struct settings_report *r, const struct config *old,
                         const struct runtime_values *was, const struct config *now,
                         const struct runtime_values *is)
{
    char what[128];
    for (uint32_t u = 0; u < old->n_upstreams; u++)
        for (uint32_t i = 0; i < old->upstreams[u].n_servers; i++) {
            const struct config_server *s = &old->upstreams[u].servers[i], *t = same_server(now, s);
            snprintf(what, sizeof what, "upstream %.40s %.60s weight", s->upstream->name,
                     s->address.text);
            if (t)
                note_number(r, what, s->weight, was->server[s->index].weight,
                            is->server[t->index].weight);
        }
}

static void note_cache(struct settings_report *r, const struct runtime_cache *file,
                       const struct runtime_cache *was, const struct runtime_cache *is)
{
    const struct {
        const char *what;
        uint64_t file, was, is;
    } row[] = {
        {"cache ttl_ms", file->ttl_ms, was->ttl_ms, is->ttl_ms},
        {"cache ttl heuristic", file->ttl_heuristic, was->ttl_heuristic, is->ttl_heuristic},
        {"cache ttl_negative_ms", file->ttl_negative_ms, was->ttl_negative_ms, is->ttl_negative_ms},
        {"cache max_items", file->max_items, was->max_items, is->max_items},
        {"cache max_bytes", file->max_bytes, was->max_bytes, is->max_bytes},
        {"cache max_body", file->max_body, was->max_body, is->max_body},
        {"cache stale_while_revalidate_ms", file->stale_while_revalidate_ms,
         was->stale_while_revalidate_ms, is->stale_while_revalidate_ms},
        {"cache stale_if_error_ms", file->stale_if_error_ms, was->stale_if_error_ms,
         is->stale_if_error_ms},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        note_number(r, row[i].what, row[i].file, row[i].was, row[i].is);
}

static void settings_note(struct control *c, const struct config *old,
                          const struct runtime_page *page)
{
    struct runtime_values was, is;
    if (!c->report && !(c->report = malloc(sizeof *c->report)))
        return;
    c->report->n_kept = c->report->n_reset = 0;
    runtime_read(page, &was);
    runtime_read(c->runtime, &is);
    note_limits(c->report, old, &was, c->config, &is);
    note_servers(c->report, old, &was, c->config, &is);
    note_cache(c->report, &old->cache.value, &was.cache, &is.cache);
    if (c->ws_changed) /* which, the supervisor knows */
        note_reset(c->report, "what ws set has changed");
    c->ws_changed = false;
}

void settings_carry_over(struct control *c, const struct config *old,
                         const struct runtime_page *page)
{
    settings_adopt(c);
    settings_note(c, old, page);
}
