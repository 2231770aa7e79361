/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * restore: makes a state block into the sessions and counts of this process.
 *
 * The whole block is read twice. The first time nothing is changed and all is judged; what is wrong
 * with it ends the attempt. The second time it is taken over, and nothing can be wrong with it but
 * that memory ends: then a session ends.
 */
#include "daemons/rpc/server.h"
#include "daemons/supervisor/carry/carry.h"
#include "daemons/supervisor/carry/process.h"
#include "daemons/supervisor/survive/survive.h"
#include "polder/config_keys.h"
#include "polder/log.h"
#include "polder/sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- the process ---- */

struct process_record {
    uint64_t n[PROCESS_NUMBERS], lifetime[LIFETIME_NUMBERS], leaked[LEAKED_NUMBERS];
    const char *runtime_dir, *calls;
    int intake, rpc, servers;
};

static void read_process(struct state_reader *r, struct process_record *p)
{
    carry_get_numbers(r, p->n, PROCESS_NUMBERS);
    p->runtime_dir = state_get_text(r);
    p->calls = state_get_text(r);
    p->intake = state_get_fd(r, STATE_FD_LISTENER);
    p->rpc = state_get_fd(r, STATE_FD_LISTENER);
    p->servers = state_get_fd(r, STATE_FD_SEGMENT);
    carry_get_numbers(r, p->lifetime, LIFETIME_NUMBERS);
    carry_get_numbers(r, p->leaked, LEAKED_NUMBERS);
}

static void judge_process(struct state_reader *r, enum carry_to to, const struct config *config)
{
    char missing[64];
    struct process_record p;
    read_process(r, &p);
    if (!state_good(r))
        return;
    if (p.n[PROCESS_TO] != (uint64_t)to)
        state_refuse(r, "it was made for %s",
                     to == CARRY_PROGRAM ? "another process" : "another program of its process");
    if (to == CARRY_PROGRAM && (p.intake < 0 || p.rpc < 0))
        state_refuse(r, "a listening socket is missing");
    if (strcmp(p.runtime_dir, config->runtime_dir) != 0)
        state_refuse(r, "runtime_dir was %s, and cannot change without a restart", p.runtime_dir);
    if (*p.calls && !sandbox_covers(SANDBOX_SUPERVISOR, p.calls, missing, sizeof missing))
        state_refuse(r, "the filter of system calls that applies lacks %s: a restart is needed",
                     missing);
    if (p.leaked[LEAKED_HELD] > UINT32_MAX)
        state_refuse(r, "a count is too large");
}

static void take_lifetimes(struct lifetimes *l, const uint64_t *n)
{
    l->sum_s = carry_double(n[LIFETIME_SUM_S]);
    l->max_ms = n[LIFETIME_MAX_MS];
    atomic_store_explicit(&l->histogram.sum_ns, n[LIFETIME_SUM_NS], memory_order_relaxed);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        atomic_store_explicit(&l->histogram.bucket[i], n[LIFETIME_BUCKETS + i],
                              memory_order_relaxed);
}

static void take_leaked(struct supervisor *s, const uint64_t *n)
{
    struct leaked *l = &s->leaked;
    if (n[LEAKED_COUNTED_MS] > s->now_ms || n[LEAKED_SINCE_MS] > n[LEAKED_COUNTED_MS])
        return; /* of another boot */
    l->since_ms = n[LEAKED_SINCE_MS];
    l->counted_ms = n[LEAKED_COUNTED_MS];
    l->hours = carry_double(n[LEAKED_CONNECTION_HOURS]);
    l->held = 0;
    for (unsigned i = 0; i < LEAKED_HOURS; i++) {
        l->reaped[i] = (uint32_t)n[LEAKED_REAPED + i];
        l->held += l->reaped[i];
    }
}

static void take_numbers(struct supervisor *s, const uint64_t *n)
{
    s->next_id = n[PROCESS_NEXT_ID];
    s->ping_secret = n[PROCESS_PING_SECRET];
    s->opened = n[PROCESS_OPENED];
    s->refused = n[PROCESS_REFUSED];
    s->heartbeats = n[PROCESS_HEARTBEATS];
    s->heartbeats_acked = n[PROCESS_HEARTBEATS_ACKED];
    s->pings = n[PROCESS_PINGS];
    s->pongs = n[PROCESS_PONGS];
    s->messages_in = n[PROCESS_MESSAGES_IN];
    s->messages_out = n[PROCESS_MESSAGES_OUT];
    s->refusal_logged_ms = n[PROCESS_REFUSAL_LOGGED_MS];
    s->too_long_logged_ms = n[PROCESS_TOO_LONG_LOGGED_MS];
    s->refusals_unlogged = (uint32_t)n[PROCESS_REFUSALS_UNLOGGED];
    s->upgrade.done = n[PROCESS_UPGRADES] + (n[PROCESS_TO] == CARRY_PROGRAM);
    if (n[PROCESS_TO] == CARRY_PROGRAM)
        s->upgrade.since_ms = n[PROCESS_SINCE_MS];
    if (n[PROCESS_LOG_LEVEL] != n[PROCESS_FILE_LOG_LEVEL] &&
        n[PROCESS_FILE_LOG_LEVEL] == (uint64_t)s->config->log_level &&
        n[PROCESS_LOG_LEVEL] <= LOG_LEVEL_DEBUG) {
        s->log_level = (enum log_level)n[PROCESS_LOG_LEVEL];
        log_set_level(s->log_level);
    }
}

static int take_listeners(struct supervisor *s, struct state_reader *r,
                          const struct process_record *p)
{
    char path[CARRY_PATH_MAX] = "";
    s->intake_passed = !p->n[PROCESS_OWN_INTAKE];
    if (!s->intake_passed)
        snprintf(path, sizeof path, "%s/supervisor.sock", s->config->runtime_dir);
    int code = intake_adopt(s, p->intake, path);
    if (code == 0)
        code = methods_adopt(s, p->rpc);
    if (code)
        state_refuse(r, "a listening socket cannot be taken over: %s", strerror(-code));
    return code;
}

static int take_process(struct supervisor *s, struct state_reader *r, struct carried *to)
{
    struct process_record p;
    read_process(r, &p);
    const bool same = p.n[PROCESS_TO] == CARRY_PROGRAM;
    const int code = same ? take_listeners(s, r, &p) : 0;
    if (code)
        return code;
    if (p.servers >= 0)
        servers_take_table(s, p.servers);
    take_numbers(s, p.n);
    take_lifetimes(&s->lifetimes, p.lifetime);
    take_leaked(s, p.leaked);
    to->started_ns = p.n[PROCESS_STARTED_NS];
    char calls[SANDBOX_CALLS_MAX];
    sandbox_calls(SANDBOX_SUPERVISOR, calls, sizeof calls);
    s->filtered = same && !strcmp(calls, p.calls); /* a wider one is narrowed */
    return 0;
}

/* ---- counts and values ---- */

static void take_end(struct supervisor *s, struct state_reader *r)
{
    const char *name = state_get_text(r);
    const uint64_t n = state_get_u64(r);
    for (unsigned i = 0; s && i < END_REASONS; i++)
        if (!strcmp(session_end_names[i], name))
            s->ends[i] = n;
}

static const struct config_route *route_of(const struct config *c, const char *pattern)
{
    for (uint32_t i = 0; i < c->n_routes; i++)
        if (c->routes[i].websocket && !strcmp(c->routes[i].pattern, pattern))
            return &c->routes[i];
    return NULL;
}

static void take_route(struct supervisor *s, struct state_reader *r)
{
    uint64_t n[ROUTE_NUMBERS];
    const char *pattern = state_get_text(r);
    carry_get_numbers(r, n, ROUTE_NUMBERS);
    const struct config_route *route = s ? route_of(s->config, pattern) : NULL;
    if (!route)
        return;
    struct route_count *c = &s->routes[route->index];
    struct bucket *b = &s->route_values[route->index].bucket;
    const double tokens = carry_double(n[ROUTE_TOKENS]);
    c->opened = n[ROUTE_OPENED];
    c->refused = n[ROUTE_REFUSED];
    c->reaped = n[ROUTE_REAPED];
    c->messages_in = n[ROUTE_MESSAGES_IN];
    c->messages_out = n[ROUTE_MESSAGES_OUT];
    b->tokens = tokens >= 0 && tokens < 1e9 ? tokens : 0;
    b->ms = n[ROUTE_TOKENS_MS] <= s->now_ms ? n[ROUTE_TOKENS_MS] : s->now_ms;
}

static void take_value(struct supervisor *s, struct state_reader *r, bool is_list)
{
    struct changed_value v = {.route = state_get_text(r), .key = state_get_text(r)};
    if (is_list) {
        v.file_origins = state_get_text(r);
        v.origins = state_get_text(r);
    } else {
        v.file = state_get_u64(r);
        v.running = state_get_u64(r);
    }
    if (s)
        values_resume(s, &v);
}

static const struct config_server *server_of(const struct config *c, const char *upstream,
                                             const char *address)
{
    for (uint32_t i = 0; i < c->n_upstreams; i++) {
        const struct config_upstream *u = &c->upstreams[i];
        for (uint32_t k = 0; k < u->n_servers && !strcmp(u->name, upstream); k++)
            if (!strcmp(u->servers[k].address.text, address))
                return &u->servers[k];
    }
    return NULL;
}

static void take_server(struct supervisor *s, struct state_reader *r)
{
    uint64_t n[SERVER_NUMBERS];
    const char *upstream = state_get_text(r), *address = state_get_text(r);
    carry_get_numbers(r, n, SERVER_NUMBERS);
    const struct config_server *server = s ? server_of(s->config, upstream, address) : NULL;
    if (!server)
        return;
    if (n[SERVER_FILE_WEIGHT] == server->weight &&
        n[SERVER_WEIGHT] <= config_rows[CONFIG_SERVER_weight].max)
        s->weights[server->index] = (uint32_t)n[SERVER_WEIGHT];
    s->places[server->index] = (uint32_t)n[SERVER_PLACE];
    const int64_t turn = (int64_t)n[SERVER_TURN];
    if (turn > -INT32_MAX && turn < INT32_MAX)
        s->turns[server->index] = turn;
}

/* ---- sessions ---- */

/* Its route is not there any more, or its servers are others: as in a reload. */
static void end_orphan(struct supervisor *s, const struct session_record *record)
{
    static struct config_upstream nothing = {.name = ""};
    static const struct config_route gone = {
        .pattern = "", .upstream = &nothing, .index = SUPERVISOR_ROUTES};
    static struct pending_record pending;
    struct session_record r = *record;
    if (r.pending) { /* it is not asked any more */
        pending = *r.pending;
        pending.server = UINT32_MAX;
        r.pending = &pending;
    }
    struct session *x = session_resume(s, &gone, &r);
    if (!x)
        return;
    if (x->state != SESSION_CLOSING)
        session_close(s, x, 1012, "the service has changed", END_DRAIN);
    session_end(s, x, END_DRAIN);
}

static void take_session(struct supervisor *s, struct state_reader *r, struct carried *to)
{
    struct carry_session c;
    struct session *x;
    if (!carry_get_session(r, &c))
        return;
    const struct config_route *route = route_of(s->config, c.record.route);
    const uint64_t next_id = s->next_id; /* which it does not take */
    if (!session_record_survives(&c.record, route)) {
        end_orphan(s, &c.record);
    } else if ((x = session_resume(s, route, &c.record))) {
        survive_adopt(s, x);
        to->sessions++;
    }
    to->ended += !session_record_survives(&c.record, route);
    s->next_id = next_id;
}

static void take_leaving(struct supervisor *s, struct state_reader *r)
{
    struct carry_leaving l;
    struct chain out = {0};
    struct bytes piece;
    if (!carry_get_leaving(r, &l))
        return;
    while ((piece = carry_get_piece(r, &l)).len)
        if (s && !chain_append(&s->buffers, &out, piece.at, piece.len))
            l.record.reset = true; /* it is seen to be cut */
    if (s)
        refuse_resume_leaving(s, &l.record, &out);
}

/* ---- the whole ---- */

/* Which descriptors have been seen. */
struct seen {
    uint8_t *bits;
    size_t size;
};

static bool judge_fd(struct seen *seen, int fd)
{
    const size_t at = (size_t)fd / 8;
    if (fd < 0)
        return true;
    if (at >= seen->size) {
        const size_t size = at + 4096;
        uint8_t *bits = at < (1u << 24) ? realloc(seen->bits, size) : NULL;
        if (!bits)
            return false;
        memset(bits + seen->size, 0, size - seen->size);
        seen->bits = bits;
        seen->size = size;
    }
    const bool twice = seen->bits[at] >> (fd % 8) & 1;
    seen->bits[at] |= (uint8_t)(1u << (fd % 8));
    return !twice;
}

static void judge_fds(struct state_reader *r, struct seen *seen, int a, int b)
{
    if (state_good(r) && (!judge_fd(seen, a) || !judge_fd(seen, b)))
        state_refuse(r, "a descriptor belongs to two");
}

static void judge_session(struct state_reader *r, struct seen *seen)
{
    struct carry_session c;
    if (carry_get_session(r, &c))
        judge_fds(r, seen, c.record.client.fd, c.record.backend.fd);
}

static void judge_leaving(struct state_reader *r, struct seen *seen)
{
    struct carry_leaving l;
    if (!carry_get_leaving(r, &l))
        return;
    judge_fds(r, seen, l.record.fd, -1);
    while (l.pieces && state_good(r))
        carry_get_piece(r, &l);
}

static void judge_record(struct state_reader *r, uint16_t type, enum carry_to to,
                         const struct config *config, struct seen *seen)
{
    switch ((enum carry_type)type) {
    case CARRY_PROCESS:
        judge_process(r, to, config);
        break;
    case CARRY_END:
        take_end(NULL, r);
        break;
    case CARRY_ROUTE:
        take_route(NULL, r);
        break;
    case CARRY_VALUE:
    case CARRY_ORIGINS:
        take_value(NULL, r, type == CARRY_ORIGINS);
        break;
    case CARRY_SERVER:
        take_server(NULL, r);
        break;
    case CARRY_LINK:
    case CARRY_ADMIN:
        judge_fds(r, seen, state_get_fd(r, STATE_FD_CHANNEL), -1);
        break;
    case CARRY_SESSION:
        judge_session(r, seen);
        break;
    case CARRY_LEAVING:
        judge_leaving(r, seen);
        break;
    case CARRY_TYPES:
        break;
    }
}

static int explain(const struct state_reader *r, char *why, size_t size)
{
    snprintf(why, size, "%s", r->why);
    return -EPROTO;
}

/* moved: NULL: descriptors have their numbers. */
struct reading_way {
    enum carry_to to;
    bool copy;
    const struct carry_moved *moved;
};
static void set_way(struct state_reader *r, const struct reading_way *way)
{
    r->copy = way->copy;
    r->moved = way->moved ? way->moved->moved : NULL;
    r->n_moved = way->moved ? way->moved->n : 0;
}

static int judge(int fd, const struct reading_way *way, const struct config *config, char *why,
                 size_t size)
{
    struct state_reader r;
    struct seen seen = {NULL, 0};
    uint16_t type;
    uint64_t processes = 0, n = 0;
    if (state_reader_open(&r, fd, STATE_OF_SUPERVISOR, CARRY_HIGHEST))
        return explain(&r, why, size);
    set_way(&r, way);
    while ((type = state_next(&r))) {
        processes += type == CARRY_PROCESS;
        if (n++ == 0 && type != CARRY_PROCESS)
            state_refuse(&r, "is of another record than the first");
        judge_record(&r, type, way->to, config, &seen);
    }
    if (processes != 1)
        state_refuse(&r, "there is not one record of the process, but %llu",
                     (unsigned long long)processes);
    free(seen.bits);
    const int code = state_good(&r) ? 0 : explain(&r, why, size);
    state_reader_close(&r);
    return code;
}

int carry_check(int fd, enum carry_to to, const struct config *config, char *why, size_t size)
{
    return judge(fd, &(struct reading_way){to, true, NULL}, config, why, size);
}

static void take_record(struct supervisor *s, struct state_reader *r, uint16_t type,
                        struct carried *to)
{
    switch ((enum carry_type)type) {
    case CARRY_PROCESS:
        take_process(s, r, to);
        break;
    case CARRY_END:
        take_end(s, r);
        break;
    case CARRY_ROUTE:
        take_route(s, r);
        break;
    case CARRY_VALUE:
    case CARRY_ORIGINS:
        take_value(s, r, type == CARRY_ORIGINS);
        break;
    case CARRY_SERVER:
        take_server(s, r);
        break;
    case CARRY_LINK:
        intake_take_link(s, state_get_fd(r, STATE_FD_CHANNEL));
        break;
    case CARRY_ADMIN:
        rpc_server_take(s->rpc, state_get_fd(r, STATE_FD_CHANNEL));
        break;
    case CARRY_SESSION:
        take_session(s, r, to);
        break;
    case CARRY_LEAVING:
        take_leaving(s, r);
        break;
    case CARRY_TYPES:
        break;
    }
}

static int restore(struct supervisor *s, int fd, const struct reading_way *way, struct carried *to,
                   char *why, size_t size)
{
    struct state_reader r;
    uint16_t type;
    *to = (struct carried){0};
    int code = judge(fd, way, s->config, why, size);
    if (code)
        return code;
    if (state_reader_open(&r, fd, STATE_OF_SUPERVISOR, CARRY_HIGHEST))
        return explain(&r, why, size);
    set_way(&r, way);
    memcpy(to->version, r.version, sizeof to->version);
    while ((type = state_next(&r)))
        take_record(s, &r, type, to);
    code = state_good(&r) ? 0 : explain(&r, why, size);
    state_reader_close(&r);
    die_here(DIE_RESUMED);
    return code;
}

int carry_restore(struct supervisor *s, int fd, struct carried *to, char *why, size_t size)
{
    return restore(s, fd, &(struct reading_way){CARRY_PROGRAM, false, NULL}, to, why, size);
}

int carry_restore_moved(struct supervisor *s, int fd, const struct carry_moved *moved,
                        struct carried *to, char *why, size_t size)
{
    return restore(s, fd, &(struct reading_way){CARRY_SUCCESSOR, false, moved}, to, why, size);
}
