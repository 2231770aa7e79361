/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * servers: which server a handshake goes to, by the shared table of server states.
 *
 * The table of server states is polderd's. Each worker hands its descriptor over when it connects
 * (HANDOVER_SERVERS); that of a new polderd replaces the old one. Without a table, or for a server
 * that polderd does not have, all servers count as up and failures are not shared.
 *
 * A handshake is a GET without a body and without an answer so far: it can be a trial,
 * and goes to one other server where the first one fails before its response is there. All tries
 * together take at most twice the upstream's timeout.
 */
#include "daemons/supervisor/supervisor.h"
#include "daemons/supervisor/survive/survive.h"
#include "polder/log.h"
#include "polder/server_choice.h"
#include "polder/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define ATTEMPTS_MAX 2

/* ---- the table ---- */

/* NULL: it is none of ours. A sealed one cannot be cut short under us. */
static struct server_table *table_map(int fd)
{
    struct stat st;
    const int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0 ||
        (uint64_t)st.st_size < sizeof(struct server_table))
        return NULL;
    void *base = mmap(NULL, sizeof(struct server_table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    const struct shm_segment seg = {base, sizeof(struct server_table), fd};
    if (base == MAP_FAILED)
        return NULL;
    if (shm_check(&seg, SHM_SERVERS, SHARED_ABI, server_table_layout()) == 0)
        return base;
    munmap(base, sizeof(struct server_table));
    return NULL;
}

void servers_take_table(struct supervisor *s, int fd)
{
    struct server_table *table = table_map(fd), *old = s->servers;
    if (table)
        survive_servers(s, fd);
    if (!table) {
        close(fd);
        log_warning("intake: a table of servers of another layout was dropped; this daemon and "
                    "polderd are of different versions");
        return;
    }
    if (old && !memcmp(old->header.uuid, table->header.uuid, sizeof old->header.uuid)) {
        munmap(table, sizeof *table);
        close(fd);
        return;
    }
    s->servers = table;
    if (old) {
        munmap(old, sizeof *old);
        close(s->servers_fd);
    }
    s->servers_fd = fd;
}

static struct server_row *row_of(const struct supervisor *s, const struct config_server *server)
{
    return s->servers ? server_find(s->servers, stats_server_id(server)) : NULL;
}

/* ---- choice ---- */

uint64_t servers_digest(const struct config_upstream *u)
{
    uint64_t digest = XXH3_64bits(u->name, strlen(u->name) + 1);
    for (uint32_t i = 0; i < u->n_servers; i++) {
        const char *text = u->servers[i].address.text;
        digest = XXH3_64bits_withSeed(text, strlen(text) + 1, digest);
    }
    return digest;
}

/* WebSockets take turns by weight whatever `balance` says: how many requests are under way at a
 * server says little of them. */
static uint32_t options_of(struct supervisor *s, const struct session *x,
                           struct server_option option[SERVERS_TRIED_MAX])
{
    const struct config_upstream *u = x->route->upstream;
    uint32_t n = 0;
    for (; n < u->n_servers && n < SERVERS_TRIED_MAX; n++) {
        const struct config_server *server = &u->servers[n];
        option[n] = (struct server_option){.row = row_of(s, server),
                                           .weight = s->weights[server->index],
                                           .tried = x->pending->tried >> n & 1,
                                           .turn = &s->turns[server->index],
                                           .backup = server->backup};
    }
    return n;
}

static const struct config_server *choose(struct supervisor *s, struct session *x)
{
    struct server_option option[SERVERS_TRIED_MAX];
    const struct server_choice choice = {.upstream = x->route->upstream,
                                         .option = option,
                                         .n = options_of(s, x, option),
                                         .repeatable = true,
                                         .now_ms = s->now_ms,
                                         .sticky = &x->pending->sticky};
    uint64_t lease_ms;
    const int n = server_choose(&choice, &lease_ms);
    if (n < 0)
        return NULL;
    if (lease_ms)
        x->pending->lease_ms = lease_ms;
    x->pending->anyway = !lease_ms && option[n].row && !server_is_up(option[n].row);
    return &x->route->upstream->servers[n];
}

static void answered_badly(struct supervisor *s, const struct session *x,
                           const struct server_name *name, bool trial)
{
    struct server_option option[SERVERS_TRIED_MAX];
    const struct config_upstream *u = x->route->upstream;
    const struct server_choice choice = {u,    option,    options_of(s, x, option),
                                         true, s->now_ms, NULL};
    server_choice_error(&choice, (uint32_t)(x->pending->server - u->servers), name, trial);
}

/* ---- outcomes ---- */

static void report(struct supervisor *s, struct session *x, enum server_reason reason,
                   const char *what)
{
    struct pending *p = x->pending;
    const struct str id = ws_request_id(p);
    char text[256];
    if (id.len) {
        snprintf(text, sizeof text, "%s (request %.*s)", what, (int)id.len, id.at);
        what = text;
    }
    const struct server_name name = {row_of(s, p->server), s->conditions, p->server->upstream->name,
                                     p->server->address.text};
    if (name.row)
        server_report_failure(&name, reason, what, p->lease_ms != 0, s->now_ms);
    p->lease_ms = 0;
}

void servers_answered(struct supervisor *s, struct session *x, unsigned status)
{
    struct pending *p = x->pending;
    const struct config_server *server = p->server;
    const struct server_name name = {row_of(s, server), s->conditions, server->upstream->name,
                                     server->address.text};
    const bool trial = p->lease_ms || p->anyway;
    p->lease_ms = 0;
    s->places[server->index] = p->place;
    if (!name.row)
        return;
    if (server_is_error(status))
        answered_badly(s, x, &name, trial);
    else
        server_report_answer(&name, trial, s->now_ms);
}

void servers_forget(struct supervisor *s, struct session *x)
{
    struct pending *p = x->pending;
    struct server_row *row = p && p->lease_ms && p->server ? row_of(s, p->server) : NULL;
    if (row)
        server_untry(row, p->lease_ms, s->now_ms);
    if (p)
        p->lease_ms = 0;
}

void servers_count(struct supervisor *s, const struct session *x)
{
    struct server_row *row = row_of(s, x->pending->server);
    if (row && !x->probe)
        atomic_fetch_add_explicit(&row->upgrades, 1, memory_order_relaxed);
}

bool servers_failed(struct supervisor *s, struct session *x, enum server_reason reason,
                    const char *format, ...)
{
    char what[160];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    report(s, x, reason, what);
    return ++x->pending->failed_attempts < ATTEMPTS_MAX && s->now_ms < x->pending->until_ms;
}

uint64_t servers_deadline(const struct supervisor *s, const struct session *x, uint64_t allowed_ms)
{
    const uint64_t due_ms = s->now_ms + allowed_ms;
    return due_ms < x->pending->until_ms ? due_ms : x->pending->until_ms;
}

/* ---- connections ---- */

/* The address of the server for this try, of those of a name beginning with the one that has
 * answered last; 0: it has no further one. */
static socklen_t address_of(const struct supervisor *s, struct pending *p,
                            struct sockaddr_storage *out)
{
    struct server_addresses list = {0};
    const struct config_server *server = p->server;
    const struct server_row *row = row_of(s, server);
    if (server->address.len) {
        *out = server->address.sa;
        return p->address ? 0 : server->address.len;
    }
    if (!row || !server_addresses_get(row, &list) || p->address >= list.n)
        return 0;
    p->place = (s->places[server->index] + p->address) % list.n;
    return server_address_to(&list.at[p->place], out);
}

static int begin(const struct sockaddr_storage *sa, socklen_t len)
{
    const int fd = socket(sa->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)sa, len) < 0 && errno != EINPROGRESS) {
        const int code = -errno;
        close(fd);
        return code;
    }
    return fd;
}

static bool is_ours(int code)
{
    return code == EMFILE || code == ENFILE || code == ENOBUFS || code == ENOMEM;
}

/* The last error of a server that has no further address. */
static void unconnected(struct supervisor *s, struct session *x, int code)
{
    char what[160];
    if (code == 0) {
        report(s, x, SERVER_NO_ADDRESS, "has a name without an address");
    } else if (code == ETIMEDOUT) {
        snprintf(what, sizeof what, "took no connection for %g s",
                 x->route->upstream->connect_timeout_ms / 1000.);
        report(s, x, SERVER_CONNECT_TIMEOUT, what);
    } else {
        const bool refused = code == ECONNREFUSED || code == ENOENT;
        snprintf(what, sizeof what, "%s: %s",
                 refused ? "refused the connection" : "cannot be reached", strerror(code));
        report(s, x, refused ? SERVER_REFUSED : SERVER_UNREACHABLE, what);
    }
}

int servers_connect(struct supervisor *s, struct session *x, int failed)
{
    struct pending *p = x->pending;
    struct sockaddr_storage sa;
    if (!p->until_ms)
        p->until_ms = s->now_ms + (uint64_t)2 * x->route->upstream->timeout_ms;
    int code = failed;
    bool more = failed != 0; /* addresses of the same server */
    while (s->now_ms < p->until_ms) {
        const struct config_server *server = more ? p->server : choose(s, x);
        if (!server)
            break;
        p->address = more ? p->address + 1 : 0;
        p->server = server;
        const socklen_t len = address_of(s, p, &sa);
        const int fd = len ? begin(&sa, len) : 0;
        if (len && fd >= 0)
            return fd;
        if (len && is_ours(-fd)) {
            servers_forget(s, x);
            return fd;
        }
        code = len ? -fd : more ? code : 0;
        more = len != 0;
        if (more)
            continue; /* the next address */
        unconnected(s, x, code);
        p->tried |= UINT64_C(1) << (server - server->upstream->servers);
    }
    servers_forget(s, x);
    return -ECONNREFUSED;
}
