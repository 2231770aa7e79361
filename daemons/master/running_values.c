/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * running_values: what commands have changed while Polder runs, over an upgrade. A value goes with
 * what the file said, by name: it stays unless the file says another one now, as at a reload.
 */
#include "daemons/master/upgrade.h"
#include "polder/config.h"
#include "polder/config_keys.h"
#include "polder/log.h"
#include "polder/runtime.h"
#include "polder/state_block.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- write ---- */

/* section: of config_keys.def; name: "" or that of the limit. */
static void put_values(struct state_writer *w, enum config_section section, const char *name,
                       const void *file, const void *running)
{
    for (const struct config_row *row = NULL; (row = config_row_next(section, row));) {
        if (!row->live || row->count_at ||
            config_live_number(row, file) == config_live_number(row, running))
            continue;
        state_record(w, STATE_VALUE, STATE_SKIPPABLE);
        state_put_text(w, config_section_names[section]);
        state_put_text(w, name);
        state_put_text(w, row->key);
        state_put_u64(w, config_live_number(row, file));
        state_put_u64(w, config_live_number(row, running));
    }
}

static void put_list(struct state_writer *w, const char *name, const struct exempt *list)
{
    if (!list)
        return;
    state_record(w, STATE_EXEMPT, STATE_SKIPPABLE);
    state_put_text(w, name);
    state_put_bytes(w, list, sizeof *list);
}

/* A change that waits to be confirmed: what it goes back to. */
static void put_pending(struct state_writer *w, const struct config_limit *l,
                        const struct runtime_page *page)
{
    const struct pending_change *change = &page->trial[l->index];
    const struct exempt *list = runtime_exempt_of(page, l->index, &change->before);
    const uint64_t until_ms = atomic_load(&change->until_ms);
    if (!until_ms)
        return;
    state_record(w, STATE_PENDING, STATE_SKIPPABLE);
    state_put_text(w, l->name);
    state_put_u64(w, until_ms);
    state_put_bytes(w, list, list ? sizeof *list : 0);
    for (const struct config_row *row = NULL; (row = config_row_next(CONFIG_SECTION_LIMIT, row));) {
        if (!row->live || row->count_at)
            continue;
        state_put_text(w, row->key);
        state_put_u64(w, config_live_number(row, &change->before));
    }
}

static void put_limit(struct state_writer *w, const struct config_limit *l,
                      const struct runtime_page *page, const struct runtime_values *values)
{
    const struct runtime_limit *running = &values->limit[l->index];
    put_values(w, CONFIG_SECTION_LIMIT, l->name, &l->value, running);
    put_list(w, l->name, runtime_exempt_of(page, l->index, running));
    put_pending(w, l, page);
}

static void put_weights(struct state_writer *w, const struct config_upstream *u,
                        const struct runtime_values *values)
{
    for (uint32_t i = 0; i < u->n_servers; i++) {
        const struct config_server *s = &u->servers[i];
        if (values->server[s->index].weight == s->weight)
            continue;
        state_record(w, STATE_WEIGHT, STATE_SKIPPABLE);
        state_put_text(w, u->name);
        state_put_text(w, s->address.text);
        state_put_u64(w, s->weight);
        state_put_u64(w, values->server[s->index].weight);
    }
}

void running_values_write(const struct master *m, struct state_writer *w)
{
    const struct config *config = master_config(m);
    const struct runtime_page *page = &m->shared.region[m->current]->runtime;
    struct runtime_values values;
    runtime_read(page, &values);
    put_values(w, CONFIG_SECTION_CACHE, "", &config->cache.value, &values.cache);
    for (uint32_t i = 0; i < config->n_limits; i++)
        put_limit(w, &config->limits[i], page, &values);
    for (uint32_t i = 0; i < config->n_upstreams; i++)
        put_weights(w, &config->upstreams[i], &values);
}

/* ---- read ---- */

struct target {
    const struct config *config;
    struct runtime_page *page;
    struct runtime_values values;
};

static const struct config_limit *limit_of(const struct config *config, const char *name)
{
    for (uint32_t i = 0; i < config->n_limits; i++)
        if (!strcmp(config->limits[i].name, name))
            return &config->limits[i];
    return NULL;
}

/* A number of this program's range, into the struct of running values. */
static bool live_put(enum config_section section, const char *key, void *live, uint64_t number)
{
    const struct config_row *row = config_live_row(section, key);
    if (!row || row->count_at || config_number_check(row, number))
        return false;
    config_number_put(row, (char *)live + row->live_at, number);
    return true;
}

static void get_value(struct state_reader *r, struct target *t)
{
    const char *section = state_get_text(r), *name = state_get_text(r), *key = state_get_text(r);
    const uint64_t file = state_get_u64(r), running = state_get_u64(r);
    const bool is_limit = !strcmp(section, config_section_names[CONFIG_SECTION_LIMIT]);
    const enum config_section of = is_limit ? CONFIG_SECTION_LIMIT : CONFIG_SECTION_CACHE;
    const struct config_limit *l = is_limit ? limit_of(t->config, name) : NULL;
    const struct config_row *row = state_good(r) ? config_live_row(of, key) : NULL;
    if (!row || (is_limit && !l) || strcmp(section, config_section_names[of]))
        return;
    const void *said = is_limit ? (const void *)&l->value : &t->config->cache.value;
    void *live = is_limit ? (void *)&t->values.limit[l->index] : &t->values.cache;
    if (config_live_number(row, said) == file)
        live_put(of, key, live, running);
}

static void get_weight(struct state_reader *r, struct target *t)
{
    const char *upstream = state_get_text(r), *address = state_get_text(r);
    const uint64_t file = state_get_u64(r), running = state_get_number(r, UINT32_MAX);
    for (uint32_t u = 0; state_good(r) && u < t->config->n_upstreams; u++)
        for (uint32_t i = 0; i < t->config->upstreams[u].n_servers; i++) {
            const struct config_server *s = &t->config->upstreams[u].servers[i];
            if (s->weight == file && !strcmp(s->address.text, address) &&
                !strcmp(s->upstream->name, upstream))
                t->values.server[s->index].weight = (uint32_t)running;
        }
}

/* Where it lies in the page from now on; 0: it is none, or of another layout: the file's applies. */
static uint32_t list_put(struct target *t, uint32_t index, const void *bytes, size_t len)
{
    static struct exempt list; /* large */
    if (!bytes || len != sizeof list)
        return 0;
    memcpy(&list, bytes, sizeof list);
    const bool fits = list.n_nets <= EXEMPT_NETS_MAX && list.text_len <= EXEMPT_TEXT_BYTES;
    return fits ? runtime_exempt_put(t->page, index, &list) : 0;
}

static void get_exempt(struct state_reader *r, struct target *t)
{
    size_t len;
    const struct config_limit *l = limit_of(t->config, state_get_text(r));
    const void *bytes = state_get_bytes(r, &len);
    if (!l)
        return;
    t->values.limit[l->index].exempt = list_put(t, l->index, bytes, len);
    runtime_publish(t->page, &t->values); /* its place is taken */
}

static void get_pending(struct state_reader *r, struct target *t)
{
    const struct config_limit *l = limit_of(t->config, state_get_text(r));
    const uint64_t until_ms = state_get_u64(r);
    size_t len;
    const void *list = state_get_bytes(r, &len);
    if (!l || !state_good(r))
        return;
    struct runtime_limit before = t->values.limit[l->index];
    before.exempt = list_put(t, l->index, list, len);
    while (state_more(r)) {
        const char *key = state_get_text(r);
        const uint64_t number = state_get_u64(r);
        if (state_good(r))
            live_put(CONFIG_SECTION_LIMIT, key, &before, number);
    }
    t->page->trial[l->index].before = before;
    atomic_store(&t->page->trial[l->index].until_ms, until_ms);
}

/* The block was judged before; a value that does not fit here is left to the file. */
void running_values_read(struct config_region *region, int block)
{
    struct state_reader r;
    struct target *t = calloc(1, sizeof *t);
    uint16_t type;
    if (!t || state_reader_open(&r, block, STATE_OF_POLDERD, STATE_RECORDS_END - 1) < 0) {
        free(t);
        return;
    }
    t->config = region->config;
    t->page = &region->runtime;
    runtime_read(t->page, &t->values);
    while ((type = state_next(&r)))
        if (type == STATE_VALUE)
            get_value(&r, t);
        else if (type == STATE_WEIGHT)
            get_weight(&r, t);
        else if (type == STATE_EXEMPT)
            get_exempt(&r, t);
        else if (type == STATE_PENDING)
            get_pending(&r, t);
    if (!state_good(&r))
        log_warning("upgrade: some values that were changed at run time are the file's again: %s",
                    r.why);
    runtime_publish(t->page, &t->values);
    state_reader_close(&r);
    free(t);
}
