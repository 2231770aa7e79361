/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main: the loop of the resolver; see resolver.h.
 *
 * Once a second it looks whether files that c-ares reads have changed: then a new channel reads
 * them, and all names are due.
 */
#include "daemons/resolver/resolver.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/log.h"
#include "polder/process.h"
#include "polder/resolve.h"
#include "polder/sandbox.h"
#include "polder/server_names.h"
#include "polder/server_state.h"
#include "polder/stats.h"

#include <poll.h>
#include <stdlib.h>

#define TICK_MS       1000
#define UNDER_WAY_MAX 64 /* lookups under way */

struct name {
    struct names *all;
    const struct config_server *server;
    struct server_row *row; /* NULL: the table of servers is full */
    uint64_t due_ms;
    bool requested; /* a lookup is under way */
};
struct names {
    const struct process *process;
    struct resolver *resolver; /* NULL: none could be made */
    char servers[RESOLVE_SERVERS_MAX * 64];
    struct name *name;
    size_t n, under_way;
    uint64_t looked_ms; /* at the files */
    struct resolver_files files;
};

/* ---- files ---- */

/* What was under way is requested again. */
static void resolver_open(struct names *names)
{
    resolver_free(names->resolver);
    names->resolver = resolver_new(names->servers);
    names->under_way = 0;
    for (size_t i = 0; i < names->n; i++)
        names->name[i].requested = false;
    if (!names->resolver)
        log_error("resolver: cannot begin to resolve names; trying again in a second");
}

static void follow_files(struct names *names, uint64_t now_ms)
{
    if (now_ms < names->looked_ms + TICK_MS)
        return;
    names->looked_ms = now_ms;
    const bool changed = files_changed(&names->files);
    if (!changed && names->resolver)
        return;
    if (changed)
        log_info("resolver: files of the system have changed: all names are resolved again");
    resolver_open(names);
    for (size_t i = 0; changed && i < names->n; i++)
        names->name[i].due_ms = now_ms;
}

/* ---- lookups ---- */

static void on_answer(void *arg, const struct resolve_answer *answer)
{
    struct name *name = arg;
    const uint64_t now_ms = clock_mono_ms();
    name->requested = false;
    name->all->under_way--;
    name->due_ms = server_names_store(name->server, name->row, answer,
                                      name->all->process->shared->conditions, now_ms);
}

static void ask_what_is_due(struct names *names, uint64_t now_ms)
{
    for (size_t i = 0; names->resolver && i < names->n; i++) {
        struct name *name = &names->name[i];
        if (name->requested || name->due_ms > now_ms || names->under_way == UNDER_WAY_MAX)
            continue;
        name->requested = true;
        names->under_way++;
        resolver_ask(names->resolver, name->server->address.text, on_answer, name);
    }
}

static unsigned until_due_ms(const struct names *names, uint64_t now_ms)
{
    uint64_t wait_ms = TICK_MS;
    for (size_t i = 0; i < names->n; i++) {
        const struct name *name = &names->name[i];
        if (!name->requested && name->due_ms < now_ms + wait_ms)
            wait_ms = name->due_ms > now_ms ? name->due_ms - now_ms : 0;
    }
    return names->under_way == UNDER_WAY_MAX ? TICK_MS : (unsigned)wait_ms;
}

static void wait_for_answers(struct names *names)
{
    const unsigned wait_ms = until_due_ms(names, clock_mono_ms());
    if (names->resolver)
        resolver_step(names->resolver, wait_ms);
    else
        poll(NULL, 0, TICK_MS);
}

/* ---- life ---- */

static bool names_begin(struct names *names)
{
    const struct config *config = names->process->region->config;
    const uint64_t now_ms = clock_mono_ms();
    const size_t n = server_names(config, NULL);
    const struct config_server **server = calloc(n + 1, sizeof *server);
    names->name = calloc(n + 1, sizeof *names->name);
    if (!server || !names->name) {
        free(server);
        return false;
    }
    names->n = server_names(config, server);
    for (size_t i = 0; i < names->n; i++) {
        struct server_row *row =
            server_claim(names->process->shared->servers, stats_server_id(server[i]), now_ms);
        names->name[i] =
            (struct name){names, server[i], row, row ? atomic_load(&row->due_ms) : 0, false};
    }
    free(server);
    server_names_servers(config, names->servers, sizeof names->servers);
    files_changed(&names->files);
    return true;
}

int resolver_run(const struct process *process)
{
    static struct names names;
    names.process = process;
    process_start(process, "resolver");
    if (!names_begin(&names)) {
        log_error("resolver: no memory for the names of servers");
        return 1;
    }
    sandbox_enter_or_warn(SANDBOX_RESOLVER, process->region->config->sandbox);
    resolver_open(&names);
    process_ready(process);
    for (;;) {
        const uint64_t now_ms = clock_mono_ms();
        process_heartbeat(process, now_ms);
        follow_files(&names, now_ms);
        ask_what_is_due(&names, now_ms);
        wait_for_answers(&names);
    }
}
