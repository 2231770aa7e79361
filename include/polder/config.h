/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config: the configuration file as the processes see it.
 *
 * config_load() parses and checks polder.conf (grammar: polder.conf(5)) into an arena and returns a
 * read-only tree of plain pointers into that arena. The master runs it in a child that writes into
 * a shared region (config_region), so that a parser fault cannot hurt the master, and children that
 * are forked later see the same tree at the same address. Nothing in it changes afterwards: what
 * may change while running lives in the region's runtime page (polder/runtime.h), which starts with
 * the values of the file.
 *
 * Times are milliseconds, sizes bytes, money plain doubles. Strings are NUL-terminated, never NULL
 * unless said so. Arrays come with a count. Index numbers (limit.index, route.index,
 * server.index) are dense from 0 and index the arrays of struct runtime_values and of statistics.
 */
#ifndef POLDER_CONFIG_H
#define POLDER_CONFIG_H
#include "polder/clientip.h"
#include "polder/coding.h"
#include "polder/field.h"
#include "polder/runtime.h"
#include "polder/shared.h"
#include "polder/shm.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define CONFIG_ROUTE_LIMITS_MAX 8
#define CONFIG_KEY_PARTS_MAX    4
#define CONFIG_WORKERS_MAX      64
#define CONFIG_LISTEN_MAX       64
#define CONFIG_RESOLVER_MAX     8
#define CONFIG_ALERTS_MAX       256

struct config_address {
    struct sockaddr_storage sa;
    socklen_t len;
    const char *text; /* as written */
    bool may_lack;    /* to listen on, where the host has it */
};

/* Where a part of a rate-limit key or of a cache partition comes from. */
enum config_key_kind {
    CONFIG_KEY_NONE,
    CONFIG_KEY_CLIENT, /* IPv4 address, IPv6 /64 */
    CONFIG_KEY_HEADER, /* name: lower case */
    CONFIG_KEY_COOKIE,
    CONFIG_KEY_QUERY,
    CONFIG_KEY_JWT, /* claim of an unverified bearer token */
    CONFIG_KEY_ROUTE,
    CONFIG_KEY_GLOBAL,
    CONFIG_KEY_IDENTITY, /* of partitions: all identity fields (polder/identity.h) */
};
struct config_key {
    enum config_key_kind kind;
    const char *name; /* "" where the kind has none */
};

struct config_server {
    struct config_address address; /* len 0: a name; its addresses are in the server's row */
    uint32_t weight; /* the file's; the running one is runtime_values.server[index].weight */
    uint32_t index;  /* among all servers of all upstreams */
    uint32_t max_connections; /* requests at once; 0: any */
    bool backup;              /* only if no other is up */
    struct config_upstream *upstream;
    int line;
};
enum config_balance { CONFIG_BALANCE_WEIGHTED, CONFIG_BALANCE_FEWEST };
struct config_upstream {
    const char *name;
    struct config_server *servers;
    uint32_t n_servers;
    uint32_t connect_timeout_ms, timeout_ms;
    uint32_t stream_timeout_ms; /* silence of an event stream */
    uint32_t idle_timeout_ms;   /* of a connection whose backend states no time; 0: none is kept */
    uint32_t park_ms; /* how long requests wait for a backend that restarts; 0: not at all */
    uint32_t park_requests;
    uint64_t park_bytes;
    uint32_t slow_start_ms; /* after this long a server that is up again has its full share */
    uint32_t refresh_share; /* percent of the requests under way that may be background fetches */
    uint8_t balance;        /* enum config_balance */
    bool eject;             /* servers with too many error answers */
    uint32_t retry_budget;  /* percent of the requests under way that may be second tries */
    uint32_t queue;         /* requests that may wait for room at its servers */
    uint32_t queue_timeout_ms;
    struct config_key sticky;    /* kind NONE, CLIENT, COOKIE (Polder's own) or HEADER */
    const char *health;          /* path of the active check; "" : none */
    uint32_t health_interval_ms; /* 0: none */
    uint32_t health_timeout_ms;
    const char *health_status; /* as in polder/server_check.h */
    const char *health_body;   /* "" : any */
    uint32_t health_rise, health_fall;
    uint32_t index;
    int line;
};

enum config_scope { CONFIG_SCOPE_HOST, CONFIG_SCOPE_FLEET };
/* What a limit of a fleet does on a host that cannot reach the store. */
enum config_limit_cut_off {
    CONFIG_LIMIT_SHARE,  /* admits this host's share of the limit */
    CONFIG_LIMIT_OPEN,   /* admits the whole limit on this host alone */
    CONFIG_LIMIT_CLOSED, /* refuses */
};
enum config_missing { CONFIG_MISSING_CLIENT, CONFIG_MISSING_REFUSE, CONFIG_MISSING_SKIP };
struct config_limit {
    const char *name;
    struct runtime_limit value; /* requests, window, algorithm, dry_run, concurrent */
    struct config_key key[CONFIG_KEY_PARTS_MAX];
    uint32_t n_key;
    enum config_missing missing;
    enum config_scope scope;
    enum config_limit_cut_off cut_off;
    const struct clientip_net *exempt_nets; /* exempt = {"10.0.0.0/8", …} */
    uint32_t n_exempt_nets;
    const char *const *exempt_values; /* other strings: values of the key */
    uint32_t n_exempt_values;
    bool legacy_headers; /* X-RateLimit-* too */
    bool preflights;     /* count those of browsers' scripts too */
    uint64_t id;         /* XXH3 of the name: counts survive a reload */
    uint32_t index;
    int line;
};

/* Whether a route counts WebSockets over the fleet. */
struct config;
bool config_has_fleet_websockets(const struct config *c);

/* Which stored responses an identified request may share (polder-cache(7)). */
enum config_share {
    CONFIG_SHARE_STATED, /* those stated to be for shared caches, or varying by identity */
    CONFIG_SHARE_ALL,    /* all: the content does not depend on the identity */
    CONFIG_SHARE_RFC,    /* what RFC 9111 allows */
};

struct config_cache {
    /* CONFIG_BIT(CACHE, key): the section states this value itself; otherwise the running value of
     * the top-level cache section applies */
    uint64_t set;
    struct runtime_cache value;
    bool store_set_cookie;
    const char *const *ignore_query; /* names, may end in '*' */
    uint32_t n_ignore_query;
    const char *const *only_query; /* none: all but the ignored ones */
    uint32_t n_only_query;
    bool sort_query;
    uint8_t compress[CODINGS]; /* enum coding; preferred one first; codings of stored variants */
    uint32_t n_compress;       /* 0: none */
    uint64_t compress_min;     /* bytes; shorter bodies are only stored plain */
    struct config_key partition[CONFIG_KEY_PARTS_MAX];
    uint32_t n_partition;
    uint8_t share;                     /* enum config_share */
    const char *const *ignore_cookies; /* names, may end in '*' */
    uint32_t n_ignore_cookies;
    const char *const *identity_headers; /* beside the known ones; lower case, may end in '*' */
    uint32_t n_identity_headers;
    double leak_guard;               /* share of hits, 0..1; 0: off */
    const char *const *guard_fields; /* further ones, lower case, as in polder/leak_guard.h */
    uint32_t n_guard_fields;
    bool shared; /* over the hosts of the fleet */
    uint64_t shared_max_body;
    uint32_t shared_timeout_ms;
    const char *const *warm; /* of the top level alone */
    uint32_t n_warm;
};

enum config_heartbeat {
    CONFIG_HEARTBEAT_OFF,
    CONFIG_HEARTBEAT_PING,
    CONFIG_HEARTBEAT_JSON,
    CONFIG_HEARTBEAT_BOTH
};
#define CONFIG_WS_HALF UINT32_MAX
struct config_websocket {
    /* CONFIG_BIT(WEBSOCKET, key): the section states this value itself; otherwise a route has the
     * value of the top-level section */
    uint64_t set;
    enum config_heartbeat heartbeat;
    uint32_t interval_ms, timeout_ms;
    uint32_t max_connections;
    uint32_t max_per_client;      /* CONFIG_WS_HALF: half of max_connections */
    uint64_t max_message;         /* of a client */
    uint64_t max_message_backend; /* 0: any */
    double connect_rate;          /* handshakes a second, 0: unlimited */
    enum config_scope scope;      /* of max_connections, max_per_client */
    enum config_limit_cut_off cut_off;
    uint32_t drain_spread_ms;   /* of the top level alone: of the close frames at a stop */
    const char *const *origins; /* allowed Origin values; none: all */
    uint32_t n_origins;
    /* of the top level alone, over all routes; 0: any number */
    uint32_t max_connections_total, max_per_client_total;
};
static inline uint32_t config_websocket_per_client(const struct config_websocket *w)
{
    return w->max_per_client == CONFIG_WS_HALF ? (w->max_connections + 1) / 2 : w->max_per_client;
}
/* As browsers send it: "https://app.example.org:8443", no path; or "null". */
bool config_is_origin(const char *text);

struct config_poll {
    uint32_t min_interval_ms;
    uint32_t max_wait_ms; /* longest Prefer: wait */
};

/* For answers of Polder's own: which scripts may read them. */
struct config_cors {
    const char *const *origins; /* lower case; one may hold a '*' */
    uint32_t n_origins;         /* 0: none is named */
    bool credentials;
};

struct config_route {
    const char *pattern; /* as written: "/api/items/" "*" */
    const char *prefix;  /* without the '*' */
    uint32_t prefix_len;
    bool exact;                             /* no '*' */
    const struct config_upstream *upstream; /* NULL: answered by Polder alone (websocket only) */
    const struct config_limit *limits[CONFIG_ROUTE_LIMITS_MAX];
    uint32_t n_limits;
    bool has_fleet_limits;
    uint32_t cost;                            /* what a request is charged, default 1 */
    const struct config_cache *cache;         /* NULL: no cache */
    const struct config_websocket *websocket; /* NULL: upgrades are refused */
    const struct config_poll *poll;           /* NULL */
    const struct config_cors *cors;           /* NULL: the top-level one */
    const char *verify;                       /* what polderctl verify asks for; "": not stated */
    int verify_line;
    uint8_t compress[CODINGS]; /* enum coding, the best one first; of its cache section */
    uint32_t n_compress;       /* 0: none */
    uint64_t compress_min;
    bool compress_is_stated; /* all answers are compressed, not only those that may be stored */
    uint64_t id;             /* XXH3 of the pattern, never 0: its statistics survive a reload */
    uint32_t index;
    int line;
};

/* A rule in force: from alerts.def and conditions.def, as modified by the file, and those that the
 * file adds. */
struct config_alert {
    const char *name, *meaning, *action;
    const char *severity; /* "info", "warning" or "critical" */
    bool enabled, built_in;
    uint32_t for_ms;
    /* of a condition, or of a metric of the history */
    bool of_condition;
    uint32_t condition; /* enum condition_id */
    const char *metric;
    uint32_t series;         /* enum history_series; of_server: enum history_server_series */
    bool of_server;          /* for each server by itself */
    bool below;              /* else above */
    bool of_limit;           /* the threshold is the limit in force */
    double threshold, clear; /* in the unit; clear: how far it has to come back, default 5 % */
    const char *unit;
    double factor; /* from the metric's unit */
    int line;      /* 0: not in the file */
};

struct config_cost {
    const char *currency;
    double upstream_call, websocket_hour;
};

/* A server of the store that the hosts of a fleet share. */
struct config_store {
    const char *text; /* without the password, for messages */
    const char *host; /* NULL: path is a UNIX socket's */
    const char *path;
    uint16_t port;
    uint32_t database;
    const char *user, *password; /* NULL: none */
};
/* What the cache does while the store cannot be reached. */
enum config_cut_off {
    CONFIG_CUT_OFF_SERVE,      /* what has been received in the last CONFIG_CUT_OFF_MS is fresh */
    CONFIG_CUT_OFF_REVALIDATE, /* nothing is */
    CONFIG_CUT_OFF_BYPASS
};
#define CONFIG_CUT_OFF_MS 60000
#define CONFIG_STORES_MAX 8
#define CONFIG_SECRET_MIN 16
struct config_fleet {
    const char *const *store;
    uint32_t n_store; /* 0: this host is in no fleet */
    const struct config_store *stores;
    const char *name, *host, *secret;
    enum config_cut_off cut_off;
    uint32_t limit_timeout_ms; /* the longest that a request waits for what the store grants */
    uint32_t slots_keep_ms;    /* the store keeps those of a host that is gone; fleet_slots.h */
};

/* How FIN from a client whose request waits is taken. */
enum config_half_close {
    CONFIG_HALF_CLOSE_AUTO,
    CONFIG_HALF_CLOSE_ANSWER,
    CONFIG_HALF_CLOSE_ABORT
};
enum config_access_log { CONFIG_LOG_OFF, CONFIG_LOG_STDERR, CONFIG_LOG_JSON, CONFIG_LOG_COMBINED };

/* What a process must have descriptors for where max_connections is not stated. */
#define CONFIG_CONNECTIONS_MIN 1000

struct config {
    const char *path; /* of the file */
    struct config_address *listen;
    uint32_t n_listen;
    uint32_t workers; /* resolved: never 0 */
    const char *user; /* "" : unset */
    const char *state_dir, *runtime_dir;
    const struct clientip_net *trusted_proxies;
    uint32_t n_trusted_proxies;
    const struct str *drop_headers; /* as in polder/override.h */
    uint32_t n_drop_headers;
    const char *via; /* "" : one is made up */
    bool proxy_protocol;
    enum config_access_log access_log;
    const char *access_log_path; /* "" for off and stderr */
    bool sandbox, core_dumps;    /* polder/sandbox.h */
    bool request_id;             /* on answers */
    uint32_t log_level;          /* enum log_level */
    uint32_t max_connections, max_connections_per_client;
    uint32_t connections_wanted; /* max_connections if stated, else CONFIG_CONNECTIONS_MIN */
    uint32_t client_timeout_ms;  /* idle and slow clients */
    uint32_t keepalive_timeout_ms;
    uint32_t drain_timeout_ms; /* of workers of earlier configurations */
    enum config_half_close client_half_close;
    size_t request_buffer;
    uint64_t request_buffers_total; /* over all workers */
    uint64_t request_min_rate;      /* bytes a second; 0: any */
    uint32_t limit_entries;         /* of the limiter's table */

    struct config_address ops_listen; /* len 0: none */
    const char *const *ops_hosts;     /* further names of it */
    uint32_t n_ops_hosts;
    uint32_t admin_mode;     /* 0660 */
    const char *admin_group; /* "" : none */

    const char *telemetry_path; /* "" : not on public listeners */
    const struct clientip_net *telemetry_allow;
    uint32_t n_telemetry_allow;

    struct config_cache cache;         /* the defaults */
    struct config_websocket websocket; /* the defaults */
    struct config_cors cors;           /* of routes that have none */

    struct config_upstream *upstreams;
    uint32_t n_upstreams, n_servers;
    bool sticky_cookie; /* some upstream has sticky = "cookie" */
    struct config_limit *limits;
    uint32_t n_limits;
    struct config_route *routes; /* most specific first: exact ones, then longest prefix */
    uint32_t n_routes;
    const struct route_index *route_index;  /* of routes, for route_find() */
    const struct config_key *identity_keys; /* header and cookie parts of all limits, partitions */
    uint32_t n_identity_keys;
    struct config_alert *alerts;
    uint32_t n_alerts;
    const char *on_alert;            /* program; "" : none */
    struct config_address *resolver; /* name servers to ask; none: those of the system */
    uint32_t n_resolver;
    struct config_cost cost;
    struct config_key cost_by[CONFIG_KEY_PARTS_MAX]; /* what tells tenants apart */
    uint32_t n_cost_by;                              /* 0: tenants are not counted */
    bool cost_by_is_secret;                          /* their values are not displayed */
    uint64_t cost_by_id;                             /* of those parts; 0: there are none */

    struct config_fleet fleet;

    /* valid, but probably not intended: "FILE:LINE: warning: ..." */
    const char *const *warnings;
    uint32_t n_warnings;
    /* where what only the machine can judge is stated; 0: nowhere */
    struct config_lines {
        int user, access_log, state_dir, runtime_dir, admin_group, listen, ops_listen;
    } line;
};

static inline bool config_has_websockets(const struct config *config)
{
    for (uint32_t i = 0; i < config->n_routes; i++)
        if (config->routes[i].websocket)
            return true;
    return false;
}

/* NULL: not known; then it may. */
static inline bool config_has_caches(const struct config *config)
{
    for (uint32_t i = 0; config && i < config->n_routes; i++)
        if (config->routes[i].cache)
            return true;
    return !config;
}
/* The longest body that may be stored in a store of that size. */
#define CONFIG_BODY_SHARE 4
static inline uint64_t config_max_body_of(uint64_t max_bytes)
{
    return max_bytes / CONFIG_BODY_SHARE;
}

/* A bump allocator inside one mapping; full: allocations return NULL and config_load reports it. */
struct config_arena {
    char *base;
    size_t used, size;
};
void config_arena_init(struct config_arena *arena, void *memory, size_t size);
void *config_arena_alloc(struct config_arena *arena, size_t size); /* zeroed, 16-byte aligned */
char *config_arena_strdup(struct config_arena *arena, const char *text);

/* One region of shared memory: header, running values, result, arena. Every process follows its
 * pointers, the master too, so all but the running values can be written only by the child that
 * loads it (config_region_protect). */
#define CONFIG_PROTECT_ALIGN 65536 /* a multiple of every page size */
struct config_region {
    struct shm_header header;
    _Alignas(64) struct runtime_page runtime; /* written by control while it runs */
    char pad_[CONFIG_PROTECT_ALIGN -
              (sizeof(struct shm_header) + sizeof(struct runtime_page)) % CONFIG_PROTECT_ALIGN];
    struct config *config; /* NULL until loaded; set last */
    uint32_t generation;
    char errors[4096]; /* of the load that failed, lines */
    _Alignas(64) char arena[];
};

_Static_assert(offsetof(struct config_region, config) % CONFIG_PROTECT_ALIGN == 0, "whole pages");

/* Called for each mistake with a complete line: "FILE:LINE: what is wrong, and what is
 * expected". */
typedef void (*config_error_fn)(void *arg, const char *line);

/* Parses and checks path. Returns the tree, or NULL after at least one call of on_error. Reports
 * all mistakes it can find, not only the first. Never prints anything itself. */
struct config *config_load(struct config_arena *arena, const char *path, config_error_fn on_error,
                           void *arg);

/* For several readings that must not differ: what a file says is kept in fd, which is empty, and is
 * read from there from then on, also by another program. -1: files are read again. */
void config_text_share(int fd);

/* Loads into a fresh region: zeroes its arena, parses, fills the runtime page with the file's
 * values and what runs over them (polder/running.h). before: the configuration that it follows, or
 * NULL. 0 or -EINVAL with the mistakes in region->errors. */
int config_region_load(struct config_region *region, const char *path, uint32_t generation,
                       const struct config_region *before);
/* Sets whether this process may write to the region beside the running values; its children inherit
 * it. 0 or a negative errno. */
int config_region_protect(struct config_region *region, bool writable);

/* "250ms" "30s" "5m" "12h" "7d" or a bare number of seconds, to ms. 0, or -EINVAL, or -ERANGE. */
int config_parse_duration(const char *text, uint64_t *ms);
/* "64K" "256M" "2G" or a bare number of bytes. */
int config_parse_size(const char *text, uint64_t *bytes);
/* "client", "header:NAME", "cookie:a+query:b" into at most max parts; count or -EINVAL with *why
 * set. */
int config_parse_key(struct config_arena *arena, const char *text, struct config_key *parts,
                     uint32_t max, const char **why);
#endif
