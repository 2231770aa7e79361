/* SPDX-License-Identifier: BSD-2-Clause */
/* settings: see settings.h. */
#include "daemons/control/model/settings.h"
#include "daemons/control/control.h"
#include "polder/config.h"
#include "polder/config_keys.h"
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

static void value_text(const struct config_row *row, uint64_t number, char *out, size_t size)
{
    const char *word = row ? config_word(row, number) : NULL;
    if (word)
        snprintf(out, size, "%s", word);
    else if (row && row->type == TYPE_TTL && number == RUNTIME_TTL_HEURISTIC)
        snprintf(out, size, "heuristic");
    else
        snprintf(out, size, "%" PRIu64, number);
}

/* A value was `file` in the old file, ran as `was`, and runs as `is`. row NULL: a plain number. */
static void note_number(struct settings_report *r, const char *what, const struct config_row *row,
                        uint64_t file, uint64_t was, uint64_t is)
{
    char text[SETTINGS_REPORT_LINE], before[22], now[22];
    if (was == file)
        return;
    value_text(row, was, before, sizeof before);
    value_text(row, is, now, sizeof now);
    if (is == was) {
        snprintf(text, sizeof text, "%.110s %s", what, now);
        note_kept(r, text);
    } else {
        snprintf(text, sizeof text, "%.110s %s -> %s", what, before, now);
        note_reset(r, text);
    }
}

/* subject: "cache", "limit api" */
static void note_values(struct settings_report *r, enum config_section section, const char *subject,
                        const void *file, const void *was, const void *is)
{
    char what[128];
    for (const struct config_row *row = NULL; (row = config_row_next(section, row));) {
        if (!row->live || row->count_at)
            continue;
        snprintf(what, sizeof what, "%s %s%s", subject, row->key,
                 row->type == TYPE_DURATION || row->type == TYPE_TTL ? "_ms" : "");
        note_number(r, what, row, config_live_number(row, file), config_live_number(row, was),
                    config_live_number(row, is));
    }
}

static void note_limit(struct settings_report *r, const struct config_limit *l,
                       const struct runtime_limit *was, const struct runtime_limit *is)
{
    char subject[80], what[128];
    snprintf(subject, sizeof subject, "limit %.64s", l->name);
    note_values(r, CONFIG_SECTION_LIMIT, subject, &l->value, was, is);
    snprintf(what, sizeof what, "%s exempt list", subject);
    note_number(r, what, NULL, 0, was->exempt != 0, is->exempt != 0);
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
                note_number(r, what, NULL, s->weight, was->server[s->index].weight,
                            is->server[t->index].weight);
        }
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
    note_values(c->report, CONFIG_SECTION_CACHE, "cache", &old->cache.value, &was.cache, &is.cache);
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
