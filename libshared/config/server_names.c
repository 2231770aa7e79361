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
#include <string.h>

#define LIST_TEXT 512 /* of addresses, for a line of the log */

/* ---- which ---- */

size_t server_names(const struct config *config, const struct config_server **out)
{
    size_t n = 0;
    for (uint32_t u = 0; u < config->n_upstreams; u++)
        for (uint32_t i = 0; i < config->upstreams[u].n_servers; i++) {
            const struct config_server *s = &config->upstreams[u].servers[i];
            if (s->address.len)
                continue;
            if (out)
                out[n] = s;
            n++;
        }
    return n;
}

void server_names_servers(const struct config *config, char *out, size_t size)
{
    struct server_address a;
    char text[64];
    size_t len = 0;
    *out = 0;
    for (uint32_t i = 0; i < config->n_resolver; i++) {
        if (!server_address_from((const struct sockaddr *)&config->resolver[i].sa, &a))
            continue;
        server_address_text(&a, text, sizeof text);
        const int n = snprintf(out + len, size - len, "%s%s", len ? "," : "", text);
        len += (size_t)n < size - len ? (size_t)n : 0;
    }
}

void server_subject(const struct config_server *server, char *out, size_t size)
{
    snprintf(out, size, "%s/%s", server->upstream->name, server->address.text);
}

/* ---- what a lookup has brought ---- */

static void list_text(const struct server_addresses *list, char *out, size_t size)
{
    char text[64];
    size_t len = 0;
    snprintf(out, size, "none");
    for (uint32_t i = 0; i < list->n; i++) {
        server_address_text(&list->at[i], text, sizeof text);
        const int n = snprintf(out + len, size - len, "%s%s", len ? ", " : "", text);
        len += (size_t)n < size - len ? (size_t)n : 0;
    }
}

static uint64_t next_due_ms(const struct resolve_answer *answer, uint32_t failed, uint64_t now_ms)
{
    uint64_t pause_s = answer->ttl_s;
    if (!answer->n)
        pause_s = UINT64_C(1) << (failed < 16 ? failed - 1 : 15);
    const uint64_t max_s = answer->n ? SERVER_NAMES_TTL_MAX_S : SERVER_NAMES_AGAIN_MAX_S;
    if (pause_s < SERVER_NAMES_TTL_MIN_S)
        pause_s = SERVER_NAMES_TTL_MIN_S;
    return now_ms + (pause_s < max_s ? pause_s : max_s) * 1000;
}

static void store_found(const struct config_server *server, struct server_row *row,
                        const struct resolve_answer *answer)
{
    char before[LIST_TEXT], after[LIST_TEXT];
    struct server_addresses list = {0};
    const bool had = server_addresses_get(row, &list) && list.n;
    list_text(&list, before, sizeof before);
    server_addresses_merge(&list, answer->at, answer->n);
    list_text(&list, after, sizeof after);
    const bool changed = server_addresses_put(row, &list);
    if (changed && had)
        log_info("upstream %s: server %s has other addresses now: %s; before: %s",
                 server->upstream->name, server->address.text, after, before);
    else if (changed)
        log_info("upstream %s: server %s has the addresses %s", server->upstream->name,
                 server->address.text, after);
    if (atomic_load(&row->lookups_failed) && had)
        log_info("upstream %s: server %s resolves again", server->upstream->name,
                 server->address.text);
}

static bool has_address(const struct server_row *row)
{
    struct server_addresses list;
    return row && server_addresses_get(row, &list) && list.n;
}

uint64_t server_names_store(const struct config_server *server, struct server_row *row,
                            const struct resolve_answer *answer, struct condition_table *conditions,
                            uint64_t now_ms)
{
    char subject[CONDITION_SUBJECT], why[CONDITION_REASON];
    const bool had = has_address(row);
    uint32_t failed = 0;
    if (row && answer->n)
        store_found(server, row, answer);
    if (!answer->n)
        failed = (row ? atomic_load(&row->lookups_failed) : 0) + 1;
    if (failed == 1 && had)
        log_warning("upstream %s: server %s does not resolve now: %s; its last addresses are used",
                    server->upstream->name, server->address.text, answer->why);
    const uint64_t due_ms = next_due_ms(answer, failed, now_ms);
    if (row) {
        atomic_store(&row->lookups_failed, failed);
        atomic_store(&row->due_ms, due_ms);
    }
    server_subject(server, subject, sizeof subject);
    snprintf(why, sizeof why, "%s%s", answer->why, had ? "; its last addresses are used" : "");
    condition_set(conditions, COND_NAME_UNRESOLVED, subject,
                  failed && (!had || failed >= SERVER_NAMES_STALE), why, clock_real_ms());
    return due_ms;
}

/* ---- all at once ---- */

struct names {
    const struct config_server **server;
    struct resolve_name *name;
    size_t n;
};

static bool names_ask(const struct config *config, struct names *names)
{
    char servers[RESOLVE_SERVERS_MAX * 64];
    names->n = server_names(config, NULL);
    names->server = calloc(names->n + 1, sizeof *names->server);
    names->name = calloc(names->n + 1, sizeof *names->name);
    if (!names->server || !names->name)
        return false;
    server_names(config, names->server);
    for (size_t i = 0; i < names->n; i++)
        names->name[i].text = names->server[i]->address.text;
    server_names_servers(config, servers, sizeof servers);
    resolve_all(servers, names->name, names->n, SERVER_NAMES_MS);
    return true;
}

static void names_free(struct names *names)
{
    free(names->server);
    free(names->name);
}

void server_names_resolve(const struct config *config, struct server_table *table,
                          struct condition_table *conditions)
{
    struct names names;
    const bool requested = names_ask(config, &names);
    const uint64_t now_ms = clock_mono_ms();
    for (size_t i = 0; requested && i < names.n; i++)
        server_names_store(names.server[i],
                           server_claim(table, stats_server_id(names.server[i]), now_ms),
                           &names.name[i].answer, conditions, now_ms);
    names_free(&names);
}

void server_names_check(const struct config *config, config_error_fn on_missing, void *arg)
{
    struct names names;
    char line[512];
    const bool requested = names_ask(config, &names);
    for (size_t i = 0; requested && i < names.n; i++) {
        if (names.name[i].answer.n)
            continue;
        snprintf(line, sizeof line,
                 "%s:%d: warning: server \"%s\" does not resolve now: %s; Polder starts all the "
                 "same and tries again",
                 config->path, names.server[i]->line, names.name[i].text, names.name[i].answer.why);
        on_missing(arg, line);
    }
    names_free(&names);
}
