/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * methods_reload: reload, and what a new configuration does to values that were changed at run
 * time: what is persisted is kept, all else is as the new file says. It is logged, and told to
 * those who wait for the reload.
 */
#include "daemons/control/control.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RELOAD_PATIENCE_MS 90000
#define REPORT_LINES       32 /* of either kind; further ones are only in the log */
#define REPORT_LINE        160

/* ---- what became of changes ---- */

struct reload_report {
    unsigned n_kept, n_reset;
    char kept[REPORT_LINES][REPORT_LINE], reset[REPORT_LINES][REPORT_LINE];
};

static void note_kept(struct reload_report *r, const char *what)
{
    log_info("reload: kept %s", what);
    if (r->n_kept < REPORT_LINES)
        snprintf(r->kept[r->n_kept++], REPORT_LINE, "%s", what);
}

static void note_reset(struct reload_report *r, const char *what)
{
    log_warning("reload: reset %s: changed at run time and not persisted", what);
    if (r->n_reset < REPORT_LINES)
        snprintf(r->reset[r->n_reset++], REPORT_LINE, "%s", what);
}

/* A value was `file` in the old file, ran as `was`, and runs as `is`. */
static void note_number(struct reload_report *r, const char *what, uint64_t file, uint64_t was,
                        uint64_t is)
{
    char text[REPORT_LINE];
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

static void note_limit(struct reload_report *r, const struct config_limit *l,
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

static void note_limits(struct reload_report *r, const struct config *old,
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

static void note_servers(struct reload_report *r, const struct config *old,
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

static void note_cache(struct reload_report *r, const struct runtime_cache *file,
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

void reload_report(struct control *c, const struct config *old, const struct runtime_page *page)
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

static void put_lines(struct rpc_out *o, const char *key, unsigned n,
                      const char (*line)[REPORT_LINE])
{
    rpc_out_list(o, key);
    for (unsigned i = 0; i < n; i++)
        rpc_out_str(o, NULL, line[i]);
    rpc_out_end(o);
}

/* ---- reload ---- */

struct reload_wait {
    struct reload_wait *next;
    struct rpc_reply *reply;
    uint32_t asked;
    uint64_t until_ms;
};

static void reloaded(struct control *c, struct rpc_reply *reply)
{
    struct rpc_out *o = rpc_reply_result(reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "reloaded", true);
    rpc_out_u64(o, "generation", atomic_load(&c->shared->proc->generation));
    put_lines(o, "kept", c->report ? c->report->n_kept : 0, c->report ? c->report->kept : NULL);
    put_lines(o, "reset", c->report ? c->report->n_reset : 0, c->report ? c->report->reset : NULL);
    rpc_out_end(o);
    rpc_reply_send(reply);
}

/* true: it is over, and answered */
static bool reload_look(struct control *c, const struct reload_wait *w)
{
    struct proc_table *proc = c->shared->proc;
    const int32_t past = (int32_t)(atomic_load(&proc->reload_done) - w->asked);
    const uint32_t state = atomic_load(&proc->reload_state);
    if (past >= 0 && state == PROC_RELOAD_OK) {
        reloaded(c, w->reply);
    } else if (past >= 0 && state == PROC_RELOAD_FAILED) {
        char why[sizeof proc->reload_message];
        memcpy(why, proc->reload_message, sizeof why);
        why[sizeof why - 1] = 0;
        for (size_t n = strlen(why); n && why[n - 1] == '\n';)
            why[--n] = 0;
        admin_error(c, w->reply, RPC_FAILED, "%s", why);
    } else if (clock_mono_ms() > w->until_ms) {
        admin_error(c, w->reply, RPC_FAILED, "the reload is not over yet; see the log");
    } else {
        return false;
    }
    return true;
}

void reload_watch(struct control *c)
{
    for (struct reload_wait **at = &c->reloads; *at;) {
        struct reload_wait *w = *at;
        if (reload_look(c, w)) {
            *at = w->next;
            free(w);
        } else {
            at = &w->next;
        }
    }
}

void reload_run(struct control *c, const struct rpc_call *call)
{
    struct reload_wait *w = calloc(1, sizeof *w);
    if (!w) {
        admin_error(c, call->reply, RPC_FAILED, "out of memory");
        return;
    }
    w->asked = atomic_fetch_add(&c->shared->proc->reload_asked, 1) + 1;
    w->reply = call->reply;
    w->until_ms = clock_mono_ms() + RELOAD_PATIENCE_MS;
    shared_wake_master(c->shared);
    if (!rpc_in_flag(call->params, "no-wait")) {
        w->next = c->reloads;
        c->reloads = w;
        return;
    }
    free(w);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "asked", true);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}
