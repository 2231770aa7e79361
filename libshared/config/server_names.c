/* SPDX-License-Identifier: BSD-2-Clause */
/* server_names: see server_names.h. */
#include "polder/server_names.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/log.h"
#include "polder/resolve.h"
#include "polder/server_state.h"
#include "polder/stats.h"

#include <stdio.h>
#include <stdlib.h>

struct names {
    const struct config_server **server;
    struct resolve_name *name;
    size_t n;
};

static bool has_address(const struct config_server *server, struct server_table *table)
{
    struct server_addresses list;
    const struct server_row *row = server_find(table, stats_server_id(server));
    return row && server_addresses_get(row, &list) && list.n;
}

/* out NULL: only counted. table NULL: all names, else those that have no address there. */
static size_t named(const struct config *config, struct server_table *table,
                    const struct config_server **out)
{
    size_t n = 0;
    for (uint32_t u = 0; u < config->n_upstreams; u++)
        for (uint32_t i = 0; i < config->upstreams[u].n_servers; i++) {
            const struct config_server *s = &config->upstreams[u].servers[i];
            if (s->address.len || (table && has_address(s, table)))
                continue;
            if (out)
                out[n] = s;
            n++;
        }
    return n;
}

bool server_names_missing(const struct config *config, struct server_table *table)
{
    return named(config, table, NULL) != 0;
}

static bool ask(const struct config *config, struct server_table *table, struct names *names)
{
    names->n = named(config, table, NULL);
    names->server = calloc(names->n + 1, sizeof *names->server);
    names->name = calloc(names->n + 1, sizeof *names->name);
    if (!names->server || !names->name)
        return false;
    named(config, table, names->server);
    for (size_t i = 0; i < names->n; i++)
        names->name[i].text = names->server[i]->address.text;
    resolve_all(names->name, names->n, SERVER_NAMES_MS);
    return true;
}

static void names_free(struct names *names)
{
    free(names->server);
    free(names->name);
}

void server_subject(const struct config_server *server, char *out, size_t size)
{
    snprintf(out, size, "%s/%s", server->upstream->name, server->address.text);
}

static void put(const struct config_server *server, const struct resolve_name *name,
                struct server_table *table, struct condition_table *conditions)
{
    char subject[CONDITION_SUBJECT];
    struct server_row *row = server_claim(table, stats_server_id(server), clock_mono_ms());
    const bool had = has_address(server, table);
    if (row && name->list.n)
        server_addresses_put(row, &name->list);
    if (!name->list.n && had)
        log_warning("upstream %s: server %s does not resolve now: %s; its last addresses are used",
                    server->upstream->name, server->address.text, name->why);
    server_subject(server, subject, sizeof subject);
    condition_set(conditions, COND_NAME_UNRESOLVED, subject, !name->list.n && !had, name->why,
                  clock_real_ms());
}

void server_names_resolve(const struct config *config, struct server_table *table,
                          struct condition_table *conditions, bool missing_only)
{
    struct names names;
    if (ask(config, missing_only ? table : NULL, &names))
        for (size_t i = 0; i < names.n; i++)
            put(names.server[i], &names.name[i], table, conditions);
    names_free(&names);
}

void server_names_check(const struct config *config, config_error_fn on_missing, void *arg)
{
    struct names names;
    char line[512];
    const bool requested = ask(config, NULL, &names);
    for (size_t i = 0; requested && i < names.n; i++) {
        if (names.name[i].list.n)
            continue;
        snprintf(line, sizeof line,
                 "%s:%d: warning: server \"%s\" does not resolve now: %s; Polder starts all the "
                 "same and tries again",
                 config->path, names.server[i]->line, names.name[i].text, names.name[i].why);
        on_missing(arg, line);
    }
    names_free(&names);
}
