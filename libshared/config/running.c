/* SPDX-License-Identifier: BSD-2-Clause */
/* running: see running.h. */
#include "polder/running.h"
#include "polder/config_keys.h"
#include "polder/settings.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- what became of a value ---- */

/* row NULL: a plain number. */
static void value_text(const struct config_row *row, uint64_t number, char out[CONFIG_NUMBER_TEXT])
{
    if (row)
        config_number_text(row, number, out);
    else
        snprintf(out, CONFIG_NUMBER_TEXT, "%" PRIu64, number);
}

/* A value of the old file, what ran, the new file's, and what runs now. */
struct change {
    uint64_t old_file, was, file, is;
};

static void note(const struct running_notes *notes, const char *what, const struct config_row *row,
                 const struct change *x)
{
    char text[RUNNING_NOTE], was[CONFIG_NUMBER_TEXT], is[CONFIG_NUMBER_TEXT],
        file[CONFIG_NUMBER_TEXT];
    if (!notes || x->was == x->old_file || (x->is == x->was && x->is == x->file))
        return;
    value_text(row, x->was, was);
    value_text(row, x->is, is);
    value_text(row, x->file, file);
    if (x->is == x->was)
        snprintf(text, sizeof text, "%.130s %s (file: %s)", what, is, file);
    else
        snprintf(text, sizeof text, "%.130s %s -> %s", what, was, is);
    notes->note(notes->arg, x->is == x->was, text);
}

/* One section before and now. */
struct carried {
    enum config_section section;
    const void *old_file, *was, *file;
    void *is;
};

static const struct config_row *next_value(enum config_section section,
                                           const struct config_row *row)
{
    while ((row = config_row_next(section, row)) && (!row->live || row->count_at))
        ;
    return row;
}

/* Where the file says what it said, that which ran runs on. */
static void carry(const struct carried *s)
{
    for (const struct config_row *row = NULL; (row = next_value(s->section, row));) {
        const uint64_t file = config_live_number(row, s->file);
        const bool same = file == config_live_number(row, s->old_file);
        config_number_put(row, (char *)s->is + row->live_at,
                          same ? config_live_number(row, s->was) : file);
    }
}

static void note_all(const struct running_notes *notes, const char *subject,
                     const struct carried *s)
{
    char what[160];
    for (const struct config_row *row = NULL; (row = next_value(s->section, row));) {
        const struct change x = {config_live_number(row, s->old_file),
                                 config_live_number(row, s->was), config_live_number(row, s->file),
                                 config_live_number(row, s->is)};
        snprintf(what, sizeof what, "%s %s", subject, row->key);
        note(notes, what, row, &x);
    }
}

/* ---- limits ---- */

bool running_file_exempt(const struct config_limit *l, struct exempt *out)
{
    const char *why;
    char text[64];
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < l->n_exempt_nets; i++) {
        clientip_net_format(&l->exempt_nets[i], text);
        if (exempt_add(out, text, &why))
            return false;
    }
    for (uint32_t i = 0; i < l->n_exempt_values; i++)
        if (exempt_add(out, l->exempt_values[i], &why))
            return false;
    return true;
}

static bool same_exempt(const struct config_limit *a, const struct config_limit *b)
{
    if (a->n_exempt_nets != b->n_exempt_nets || a->n_exempt_values != b->n_exempt_values)
        return false;
    for (uint32_t i = 0; i < a->n_exempt_nets; i++)
        if (memcmp(&a->exempt_nets[i], &b->exempt_nets[i], sizeof *a->exempt_nets))
            return false;
    for (uint32_t i = 0; i < a->n_exempt_values; i++)
        if (strcmp(a->exempt_values[i], b->exempt_values[i]))
            return false;
    return true;
}

static const struct config_limit *limit_named(const struct config *config, const char *name)
{
    for (uint32_t i = 0; i < config->n_limits; i++)
        if (!strcmp(config->limits[i].name, name))
            return &config->limits[i];
    return NULL;
}

static void note_limit(const struct running_notes *notes, const struct config_limit *l,
                       const struct carried *s)
{
    const struct runtime_limit *was = s->was, *is = s->is;
    const struct change list = {0, was->exempt != 0, 0, is->exempt != 0};
    char subject[80], what[128];
    snprintf(subject, sizeof subject, "limit %.64s", l->name);
    note_all(notes, subject, s);
    snprintf(what, sizeof what, "%s exempt list", subject);
    note(notes, what, NULL, &list);
}

static void carry_limit(const struct config_limit *l, const struct config_limit *old,
                        struct runtime_page *page, const struct runtime_page *old_page,
                        const struct runtime_limit *was, struct runtime_limit *is,
                        const struct running_notes *notes)
{
    const struct carried s = {CONFIG_SECTION_LIMIT, &old->value, was, &l->value, is};
    const struct exempt *list = runtime_exempt_of(old_page, old->index, was);
    const char *why;
    carry(&s);
    is->exempt =
        list && same_exempt(l, old) ? runtime_exempt_put(page, l->index, list) : l->value.exempt;
    if (runtime_limit_check(is, &why)) /* what stayed does not go with what is new */
        *is = l->value;
    note_limit(notes, l, &s);
}

static void carry_limits(const struct config *config, struct runtime_page *page,
                         const struct config_region *before, const struct runtime_values *was,
                         struct runtime_values *is, const struct running_notes *notes)
{
    for (uint32_t i = 0; i < config->n_limits; i++) {
        const struct config_limit *l = &config->limits[i],
                                  *old = limit_named(before->config, l->name);
        if (old)
            carry_limit(l, old, page, &before->runtime, &was->limit[old->index],
                        &is->limit[l->index], notes);
    }
}

/* ---- servers, cache ---- */

static const struct config_server *same_server(const struct config *config,
                                               const struct config_server *s)
{
    for (uint32_t u = 0; u < config->n_upstreams; u++) {
        const struct config_upstream *upstream = &config->upstreams[u];
        for (uint32_t i = 0; i < upstream->n_servers && !strcmp(upstream->name, s->upstream->name);
             i++)
            if (!strcmp(upstream->servers[i].address.text, s->address.text))
                return &upstream->servers[i];
    }
    return NULL;
}

static void carry_server(const struct config_server *s, const struct config_server *old,
                         uint32_t was, uint32_t *is, const struct running_notes *notes)
{
    char what[128];
    *is = s->weight == old->weight ? was : s->weight;
    snprintf(what, sizeof what, "upstream %.40s %.60s weight", s->upstream->name, s->address.text);
    const struct change x = {old->weight, was, s->weight, *is};
    note(notes, what, NULL, &x);
}

static void carry_servers(const struct config *config, const struct config *before,
                          const struct runtime_values *was, struct runtime_values *is,
                          const struct running_notes *notes)
{
    for (uint32_t u = 0; u < config->n_upstreams; u++)
        for (uint32_t i = 0; i < config->upstreams[u].n_servers; i++) {
            const struct config_server *s = &config->upstreams[u].servers[i],
                                       *old = same_server(before, s);
            if (old)
                carry_server(s, old, was->server[old->index].weight, &is->server[s->index].weight,
                             notes);
        }
}

static void carry_cache(const struct config *config, const struct config *before,
                        const struct runtime_cache *was, struct runtime_cache *is,
                        const struct running_notes *notes)
{
    const struct carried s = {CONFIG_SECTION_CACHE, &before->cache.value, was, &config->cache.value,
                              is};
    carry(&s);
    if (is->max_body > config_max_body_of(is->max_bytes))
        *is = config->cache.value;
    note_all(notes, "cache", &s);
}

/* ---- all ---- */

static void fill_from_file(const struct config *config, struct runtime_values *values)
{
    memset(values, 0, sizeof *values);
    for (uint32_t i = 0; i < config->n_limits; i++)
        values->limit[i] = config->limits[i].value;
    for (uint32_t i = 0; i < config->n_upstreams; i++)
        for (uint32_t k = 0; k < config->upstreams[i].n_servers; k++)
            values->server[config->upstreams[i].servers[k].index].weight =
                config->upstreams[i].servers[k].weight;
    values->cache = config->cache.value;
}

void running_fill(const struct config *config, struct runtime_page *page,
                  const struct config_region *before, struct runtime_values *values,
                  const struct running_notes *notes)
{
    struct runtime_values was;
    fill_from_file(config, values);
    runtime_persist_load(config->state_dir, config, page, values);
    settings_load(config->state_dir, config, values);
    if (!before)
        return;
    runtime_read(&before->runtime, &was);
    carry_limits(config, page, before, &was, values, notes);
    carry_servers(config, before->config, &was, values, notes);
    carry_cache(config, before->config, &was.cache, &values->cache, notes);
}

/* ---- changes that wait to be confirmed ---- */

/* Where the file has changed, that has decided. */
static bool may_wait(const struct config_limit *l, const struct config_limit *old)
{
    return old && config_live_equal(CONFIG_SECTION_LIMIT, &l->value, &old->value) &&
           same_exempt(l, old);
}

static void carry_trial(const struct config_limit *l, const struct config_limit *old,
                        struct runtime_page *page, const struct runtime_page *old_page)
{
    struct pending_change *t = &page->trial[l->index];
    const struct pending_change *was = &old_page->trial[old->index];
    const uint64_t until_ms = atomic_load(&was->until_ms);
    const struct exempt *list =
        until_ms ? runtime_exempt_of(old_page, old->index, &was->before) : NULL;
    atomic_store(&t->until_ms, 0);
    if (!until_ms)
        return;
    t->before = was->before;
    t->before.exempt = 0; /* its place is free to be written */
    t->before.exempt = list ? runtime_exempt_put(page, l->index, list) : 0;
    atomic_store(&t->until_ms, until_ms);
}

void running_carry_trials(const struct config *config, struct runtime_page *page,
                          const struct config_region *before)
{
    for (uint32_t i = 0; i < config->n_limits; i++) {
        const struct config_limit *l = &config->limits[i],
                                  *old = limit_named(before->config, l->name);
        if (may_wait(l, old))
            carry_trial(l, old, page, &before->runtime);
        else
            atomic_store(&page->trial[l->index].until_ms, 0);
    }
}
