/* SPDX-License-Identifier: BSD-2-Clause */
/* The configuration: what is read, what is refused, with which line and which words. */
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/config_keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static char errors[16384];
static char *memory;
static char path[] = "/tmp/polder-config.XXXXXX";

static void collect(void *arg, const char *line)
{
    (void)arg;
    strncat(errors, line, sizeof errors - strlen(errors) - 1);
    strncat(errors, "\n", sizeof errors - strlen(errors) - 1);
}

static const struct config *load_bytes(const void *bytes, size_t len)
{
    struct config_arena arena;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fwrite(bytes, 1, len, f);
    fclose(f);
    errors[0] = 0;
    config_arena_init(&arena, memory, 4 << 20);
    const struct config *c = config_load(&arena, path, collect, NULL);
    assert_true(!c == (errors[0] != 0));
    return c;
}

static const struct config *load(const char *text)
{
    return load_bytes(text, strlen(text));
}

/* Some message names this line and has these words in it. */
static void assert_complains(const char *text, int line, const char *words)
{
    char where[128];
    assert_null(load(text));
    snprintf(where, sizeof where, "%s:%d: ", path, line);
    for (const char *at = errors; (at = strstr(at, where)); at += strlen(where)) {
        const char *end = strchr(at, '\n'), *found = strstr(at, words);
        if (found && found < end)
            return;
    }
    fail_msg("no \"%s\" on line %d in:\n%s", words, line, errors);
}

#define UPSTREAM "upstream \"u\" { server \"127.0.0.1:1\" { } }\n"

static void an_empty_file_has_the_documented_defaults(void **state)
{
    (void)state;
    const struct config *c = load("");
    assert_int_equal(c->n_listen, 1);
    assert_string_equal(c->listen[0].text, "127.0.0.1:8000");
    assert_in_range(c->workers, 1, CONFIG_WORKERS_MAX);
    assert_string_equal(c->state_dir, "/var/lib/polder");
    assert_int_equal(c->admin_mode, 0660);
    assert_int_equal(c->cache.value.ttl_ms, 300000);
    assert_int_equal(c->cache.value.max_items, 1000);
    assert_int_equal(c->cache.value.max_bytes, 256u << 20);
    assert_int_equal(c->websocket.heartbeat, CONFIG_HEARTBEAT_PING);
    assert_int_equal(c->ops_listen.len, 0);
    assert_int_equal(c->client_half_close, CONFIG_HALF_CLOSE_AUTO);
    assert_int_equal(c->request_buffer, 64 << 10);
    assert_int_equal(c->request_buffers_total, 64 << 20);
    assert_int_equal(c->request_min_rate, 500);
    assert_int_equal(c->n_routes, 0);
}

static void what_half_a_close_means_can_be_chosen(void **state)
{
    (void)state;
    assert_int_equal(load("client_half_close = answer\n")->client_half_close,
                     CONFIG_HALF_CLOSE_ANSWER);
    assert_int_equal(load("client_half_close = abort\n")->client_half_close,
                     CONFIG_HALF_CLOSE_ABORT);
    assert_complains("client_half_close = on\n", 1, "auto, answer or abort");
}

static void the_buffers_of_request_bodies_have_bounds(void **state)
{
    (void)state;
    const struct config *c =
        load("request_buffer = 0\nrequest_buffers_total = 1M\nrequest_min_rate = 2K\n");
    assert_int_equal(c->request_buffer, 0);
    assert_int_equal(c->request_buffers_total, 1 << 20);
    assert_int_equal(c->request_min_rate, 2048);
    assert_complains("\nrequest_buffer = 17M\n", 2, "a size up to 16M");
    assert_complains("request_min_rate = fast\n", 1, "request_min_rate");
}

static void a_fleet_has_stores_and_a_secret(void **state)
{
    (void)state;
    assert_int_equal(load("")->fleet.n_store, 0);
    const struct config_fleet *f =
        &load("fleet {\n  store = {\"redis://a.example\", \"redis://me:p%40ss%2Fw@[::1]:7000/3\", "
              "\"redis://only@10.0.0.1\", \"unix:/run/redis.sock\", "
              "\"unix://me:p%2Fw@/run/r.sock?db=4\"}\n"
              "  secret = \"0123456789abcdef\"\n  host = \"amber\"\n  cut_off = bypass\n}\n")
             ->fleet;
    const struct config_store *s = f->stores;
    assert_int_equal(f->n_store, 5);
    assert_string_equal(s[4].path, "/run/r.sock");
    assert_string_equal(s[4].user, "me");
    assert_string_equal(s[4].password, "p/w");
    assert_int_equal(s[4].database, 4);
    assert_string_equal(s[4].text, "unix:/run/r.sock?db=4");
    assert_string_equal(f->name, "polder");
    assert_string_equal(f->host, "amber");
    assert_int_equal(f->cut_off, CONFIG_CUT_OFF_BYPASS);
    assert_string_equal(s[0].host, "a.example");
    assert_int_equal(s[0].port, 6379);
    assert_null(s[0].password);
    assert_string_equal(s[1].host, "::1");
    assert_int_equal(s[1].port, 7000);
    assert_int_equal(s[1].database, 3);
    assert_string_equal(s[1].user, "me");
    assert_string_equal(s[1].password, "p@ss/w");
    assert_string_equal(s[1].text, "redis://[::1]:7000/3"); /* as it is logged */
    assert_string_equal(s[2].password, "only");
    assert_null(s[2].user);
    assert_string_equal(s[3].path, "/run/redis.sock");
    assert_null(s[3].host);
}

#define A_FLEET "fleet { store = {\"redis://a\"} secret = \"0123456789abcdef\" }\n"

static void a_limit_of_the_fleet_needs_one_and_counts_what_a_store_can(void **state)
{
    (void)state;
    const struct config *c =
        load(A_FLEET "limit \"a\" { requests = 5 }\n"
                     "limit \"b\" { requests = 5 scope = fleet cut_off = open }\n");
    assert_int_equal(c->limits[0].scope, CONFIG_SCOPE_HOST);
    assert_int_equal(c->limits[1].scope, CONFIG_SCOPE_FLEET);
    assert_int_equal(c->limits[0].cut_off, CONFIG_LIMIT_SHARE);
    assert_int_equal(c->limits[1].cut_off, CONFIG_LIMIT_OPEN);
    assert_int_equal(c->fleet.limit_timeout_ms, 20);
    assert_complains("limit \"a\" {\n  requests = 5\n  scope = fleet\n}\n", 3,
                     "needs a section fleet");
    c = load(A_FLEET "limit \"a\" { requests = 5 scope = fleet algorithm = gcra }\n");
    assert_int_equal(c->limits[0].value.algorithm, RUNTIME_GCRA);
    c = load(A_FLEET "limit \"a\" { requests = 5 scope = fleet concurrent = 3 }\n");
    assert_int_equal(c->limits[0].value.concurrent, 3);
    assert_complains(A_FLEET "limit \"a\" {\n  requests = 5\n  scope = world\n}\n", 4,
                     "host or fleet");
}

static void websockets_may_count_over_the_fleet(void **state)
{
    (void)state;
    const struct config *c =
        load(A_FLEET "websocket { scope = fleet cut_off = closed }\n"
                     "route \"/a\" { websocket { } }\n"
                     "route \"/b\" { websocket { scope = host cut_off = open } }\n");
    assert_int_equal(c->routes[0].websocket->scope, CONFIG_SCOPE_FLEET);
    assert_int_equal(c->routes[0].websocket->cut_off, CONFIG_LIMIT_CLOSED);
    assert_int_equal(c->routes[1].websocket->scope, CONFIG_SCOPE_HOST);
    assert_int_equal(c->routes[1].websocket->cut_off, CONFIG_LIMIT_OPEN);
    assert_true(config_has_fleet_websockets(c));
    assert_int_equal(c->fleet.slots_keep_ms, 60000);
    c = load("route \"/a\" { websocket { } }\n");
    assert_false(config_has_fleet_websockets(c));
    assert_complains("websocket {\n  scope = fleet\n}\n", 2, "needs a section fleet");
    assert_complains("route \"/a\" {\n  websocket {\n    scope = fleet\n  }\n}\n", 3,
                     "needs a section fleet");
}

static void a_fleet_that_cannot_be_is_named_without_its_secrets(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "a.example",         "redis://",          "redis://:hidden@",
        "redis://hidden:@a", "redis://u:hid%4@a", "redis://u:hid%00den@a",
        "redis://a:0",       "redis://a:65536",   "redis://a:b",
        "redis://a/b",       "redis://a/65536",   "redis://[::1",
        "redis://[::1]7000", "unix:redis.sock",   "rediss://a",
        "unix://hidden@",    "unix://hidden/run", "unix:/r?db=x"};
    char text[512];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(text, sizeof text,
                 "fleet {\n  store = {\"redis://good\",\n    \"%s\"}\n  secret = "
                 "\"0123456789abcdef\"\n}\n",
                 wrong[i]);
        assert_complains(text, 3, "number 2 is wrong");
        assert_null(strstr(errors, "hid"));
    }
    assert_complains("fleet {\n  store = {\"redis://a\"}\n  secret = \"hidden\"\n}\n", 3,
                     "at least 16 characters");
    assert_null(strstr(errors, "hidden"));
    assert_complains("fleet {\n  secret = \"0123456789abcdef\"\n}\n", 1, "0 servers");
    assert_complains(
        "fleet {\n  store = {\"redis://a\"}\n  secret = \"0123456789abcdef\"\n  host = "
        "\"a b\"\n}\n",
        4, "fleet.host");
    assert_complains("fleet {\n  store = {\"redis://a\"}\n  secret = \"0123456789abcdef\"\n  "
                     "cut_off = off\n}\n",
                     4, "serve, revalidate or bypass");
}

static void codings_are_inherited_and_can_be_chosen(void **state)
{
    (void)state;
    const struct config *c =
        load("cache { compress = {\"zstd\", \"gzip\"} compress_min = 2K }\n" UPSTREAM
             "route \"/a\" { upstream = u cache { } }\n"
             "route \"/b\" { upstream = u cache { compress = {br} } }\n"
             "route \"/c\" { upstream = u cache { compress = {off} } }\n");
    if (!c)
        fail_msg("%s", errors);
    assert_int_equal(c->routes[0].cache->n_compress, 2);
    assert_int_equal(c->routes[0].cache->compress[0], CODING_ZSTD);
    assert_int_equal(c->routes[0].cache->compress_min, 2048);
    assert_int_equal(c->routes[1].cache->n_compress, 1);
    assert_int_equal(c->routes[1].cache->compress[0], CODING_BR);
    assert_int_equal(c->routes[2].cache->n_compress, 0);
    c = load(UPSTREAM "route \"/a\" { upstream = u cache { } }\n");
    assert_int_equal(c->routes[0].cache->n_compress, 3);
    assert_complains("cache {\n compress = {\"deflate\"} }\n", 2, "br, zstd and gzip");
    assert_complains("cache {\n compress = {gzip, br, gzip} }\n", 2, "each once");
    assert_complains("cache {\n compress = {off, br} }\n", 2, "alone");
    assert_complains("cache {\n compress = {identity} }\n", 2, "expected br, zstd and gzip");
}

static void every_section_is_read(void **state)
{
    (void)state;
    const struct config *c =
        load("listen = {\"0.0.0.0:8000\", \"[::]:8000\", \"unix:/tmp/x.sock\"}\nworkers = 3\nuser "
             "= nobody\n"
             "trusted_proxies = {\"10.0.0.0/8\", ::1}\nproxy_protocol = yes\naccess_log = "
             "\"json:/tmp/log\"\n"
             "ops { listen = \"127.0.0.1:9145\" hosts = {\"ops.example\"} }\nadmin { mode = "
             "\"0600\" group = \"polder\" }\n"
             "telemetry { path = \"/t\" allow = {\"127.0.0.0/8\"} }\n"
             "cache { ttl = heuristic max_body = 64K partition = "
             "\"header:Authorization+cookie:sid\" warm = {\"/a\"} }\n"
             "websocket { heartbeat = json interval = 5s }\n"
             "upstream \"api\" { server \"127.0.0.1:8001\" { weight = 75 } server "
             "\"127.0.0.1:8002\" { weight = 0 } timeout = 250ms health = \"/healthz\" }\n"
             "limit \"a\" { requests = 20 window = 60s key = \"client+header:X-Key\" algorithm = "
             "gcra dry_run = true exempt = {\"10.0.0.0/8\", \"admin\"} }\n"
             "route \"/x/*\" { upstream = api limits = {a} cost = 3 cache { ttl = 1s ignore_query "
             "= {\"utm_*\"} } websocket { timeout = 90s } poll { min_interval = 3s } }\n"
             "alert \"memory\" { above = 80 unit = percent severity = critical for = 5m }\ncost { "
             "currency = EUR upstream_call = 0.5 }\n");
    if (!c)
        fail_msg("%s", errors);
    assert_int_equal(c->n_listen, 3);
    assert_int_equal(c->workers, 3);
    assert_int_equal(c->n_trusted_proxies, 2);
    assert_int_equal(c->trusted_proxies[0].bits, 104);
    assert_true(c->proxy_protocol);
    assert_int_equal(c->access_log, CONFIG_LOG_JSON);
    assert_string_equal(c->access_log_path, "/tmp/log");
    assert_int_equal(c->admin_mode, 0600);
    assert_int_equal(c->n_ops_hosts, 1);
    assert_string_equal(c->ops_hosts[0], "ops.example");
    assert_string_equal(c->telemetry_path, "/t");
    assert_true(c->cache.value.ttl_ms == RUNTIME_TTL_HEURISTIC);
    assert_int_equal(c->cache.n_partition, 2);
    assert_string_equal(c->cache.partition[0].name, "authorization");
    assert_int_equal(c->n_servers, 2);
    assert_int_equal(c->upstreams[0].servers[0].weight, 75);
    assert_int_equal(c->upstreams[0].servers[1].index, 1);
    assert_int_equal(c->upstreams[0].timeout_ms, 250);
    const struct config_limit *l = &c->limits[0];
    assert_int_equal(l->value.requests, 20);
    assert_int_equal(l->value.window_ms, 60000);
    assert_int_equal(l->value.algorithm, RUNTIME_GCRA);
    assert_int_equal(l->value.dry_run, 1);
    assert_int_equal(l->n_key, 2);
    assert_int_equal(l->n_exempt_nets, 1);
    assert_int_equal(l->n_exempt_values, 1);
    const struct config_route *r = &c->routes[0];
    assert_ptr_equal(r->upstream, &c->upstreams[0]);
    assert_ptr_equal(r->limits[0], l);
    assert_int_equal(r->cost, 3);
    assert_int_equal(r->cache->value.ttl_ms, 1000);
    assert_int_equal(r->cache->value.max_body, 64u << 10); /* inherited */
    assert_int_equal(r->cache->n_partition, 2);
    assert_int_equal(r->websocket->timeout_ms, 90000);
    assert_int_equal(r->websocket->interval_ms, 5000);
    assert_int_equal(r->websocket->heartbeat, CONFIG_HEARTBEAT_JSON);
    assert_int_equal(r->poll->min_interval_ms, 3000);
    for (uint32_t i = 0; i < c->n_alerts; i++)
        if (!strcmp(c->alerts[i].name, "memory"))
            assert_int_equal(c->alerts[i].for_ms, 300000);
    assert_true(c->cost.upstream_call > 0.49);
}

static void descriptors_are_wanted_for_what_is_stated(void **state)
{
    (void)state;
    const struct config *c = load("workers = 1\n");
    assert_int_equal(c->max_connections, 10000);
    assert_int_equal(c->connections_wanted, CONFIG_CONNECTIONS_MIN);
    c = load("max_connections = 10000\n");
    assert_int_equal(c->connections_wanted, 10000);
}

static void a_route_of_websockets_means_what_it_says(void **state)
{
    (void)state;
    const struct config *c =
        load("websocket { max_connections = 5 connect_rate = 2 max_connections_total = 300 }\n"
             "route \"/a\" { websocket { max_connections = 200 max_per_client = 150 "
             "connect_rate = 1000 max_message = 1K origins = {\"https://a.example\"} } }\n"
             "route \"/b\" { websocket { max_connections = 1 max_message_backend = 2K } }\n"
             "route \"/c\" { websocket { } }\n");
    const struct config_websocket *a = c->routes[0].websocket, *b = c->routes[1].websocket,
                                  *r = c->routes[2].websocket;
    assert_int_equal(c->websocket.max_connections_total, 300);
    assert_int_equal(c->websocket.max_per_client_total, 0);
    assert_int_equal(a->max_connections, 200);
    assert_int_equal(config_websocket_per_client(a), 150);
    assert_true(a->connect_rate > 999);
    assert_int_equal(a->max_message, 1024);
    assert_int_equal(a->n_origins, 1);
    assert_int_equal(b->max_connections, 1);
    assert_int_equal(config_websocket_per_client(b), 1);
    assert_int_equal(b->max_message, 16u << 20);
    assert_int_equal(b->max_message_backend, 2048);
    assert_int_equal(r->max_connections, 5);
    assert_int_equal(config_websocket_per_client(r), 3); /* half, rounded up */
    assert_int_equal(r->max_message_backend, 0);
    assert_true(r->connect_rate > 1 && r->connect_rate < 3);
    assert_int_equal(r->set, 0);
    assert_int_equal(b->set, CONFIG_BIT(WEBSOCKET, max_connections) |
                                 CONFIG_BIT(WEBSOCKET, max_message_backend));
}

static void the_leak_guard_is_on_unless_a_route_says_otherwise(void **state)
{
    (void)state;
    const struct config *c =
        load(UPSTREAM "cache { leak_guard_headers = {\"X-Shop-*\", \"Desk\"} }\n"
                      "route \"/a\" { upstream = u cache { } }\n"
                      "route \"/b\" { upstream = u cache { leak_guard = 0.5 leak_guard_headers = "
                      "{\"X-Own\"} } }\n");
    if (!c)
        fail_msg("%s", errors);
    const struct config_route *a = &c->routes[0], *b = &c->routes[1];
    assert_true(a->cache->leak_guard > 0.0099 && a->cache->leak_guard < 0.0101);
    assert_int_equal(a->cache->n_guard_fields, 2);
    assert_string_equal(a->cache->guard_fields[0], "x-shop-*");
    assert_string_equal(a->cache->guard_fields[1], "desk");
    assert_true(b->cache->leak_guard == 0.5);
    assert_int_equal(b->cache->n_guard_fields, 1);
    assert_string_equal(b->cache->guard_fields[0], "x-own");
    assert_true(a->id && b->id && a->id != b->id);
    assert_complains("cache { leak_guard = 2 }", 1, "leak_guard");
    assert_complains("cache {\n leak_guard_headers = {\"X-A\", \"X B\"} }", 2, "X B");
    assert_complains("cache { leak_guard_headers = {\"*\"} }", 1, "name of a header");
}

static void checks_of_servers_have_their_keys(void **state)
{
    (void)state;
    const struct config *c = load(UPSTREAM);
    assert_string_equal(c->upstreams[0].health, "");
    assert_int_equal(c->upstreams[0].health_interval_ms, 5000);
    assert_int_equal(c->upstreams[0].health_timeout_ms, 1000);
    assert_string_equal(c->upstreams[0].health_status, "200-299");
    assert_int_equal(c->upstreams[0].health_rise, 2);
    assert_int_equal(c->upstreams[0].health_fall, 3);
    c = load("upstream u { server \"a:1\" { } health = \"/h?full=1\" health_interval = 0 "
             "health_status = \"200, 301-303\" health_body = \"ok\" }\n");
    assert_string_equal(c->upstreams[0].health, "/h?full=1");
    assert_int_equal(c->upstreams[0].health_interval_ms, 0);
    assert_string_equal(c->upstreams[0].health_status, "200, 301-303");
    assert_string_equal(c->upstreams[0].health_body, "ok");
    assert_complains("upstream u { server \"a:1\" { }\n health = \"h\" }\n", 2, "/");
    assert_complains("upstream u { server \"a:1\" { }\n health = \"/a b\" }\n", 2, "visible");
    assert_complains("upstream u { server \"a:1\" { }\n health = \"/a#b\" }\n", 2, "visible");
    assert_complains("upstream u { server \"a:1\" { }\n health_status = \"2xx\" }\n", 2,
                     "\"200-299\"");
    assert_complains("upstream u { server \"a:1\" { }\n health_rise = 0 }\n", 2, "between 1 and");
}

static void bounds_of_servers_have_their_keys(void **state)
{
    (void)state;
    const struct config *c = load(UPSTREAM);
    assert_int_equal(c->upstreams[0].balance, CONFIG_BALANCE_WEIGHTED);
    assert_true(c->upstreams[0].eject);
    assert_int_equal(c->upstreams[0].retry_budget, 20);
    assert_int_equal(c->upstreams[0].queue, 1000);
    assert_int_equal(c->upstreams[0].queue_timeout_ms, 5000);
    assert_int_equal(c->upstreams[0].servers[0].max_connections, 0);
    assert_false(c->upstreams[0].servers[0].backup);
    c = load("upstream u { server \"a:1\" { max_connections = 8 } server \"a:2\" { backup = yes }\n"
             "balance = least_conn eject = off retry_budget = 0 queue = 0 queue_timeout = 1m }\n");
    assert_int_equal(c->upstreams[0].balance, CONFIG_BALANCE_FEWEST);
    assert_false(c->upstreams[0].eject);
    assert_int_equal(c->upstreams[0].retry_budget, 0);
    assert_int_equal(c->upstreams[0].queue, 0);
    assert_int_equal(c->upstreams[0].servers[0].max_connections, 8);
    assert_true(c->upstreams[0].servers[1].backup);
    assert_complains("upstream u { server \"a:1\" { }\n balance = random }\n", 2,
                     "weighted or least_conn");
    assert_complains("upstream u { server \"a:1\" { }\n retry_budget = 101 }\n", 2, "up to 100");
    assert_complains("upstream u {\n server \"a:1\" { backup = 2 } }\n", 2, "true or false");
}

static const struct config_alert *rule(const struct config *c, const char *name)
{
    for (uint32_t i = 0; i < c->n_alerts; i++)
        if (!strcmp(c->alerts[i].name, name))
            return &c->alerts[i];
    fail_msg("no alert %s", name);
    return NULL;
}

static void alerts_are_built_in_and_the_file_changes_them(void **state)
{
    (void)state;
    const struct config *c = load("");
    assert_int_equal(c->n_alerts, 5 + CONDITIONS);
    const struct config_alert *a = rule(c, "cache_hit_rate");
    assert_true(a->enabled && a->below && a->threshold == 60 && a->clear == 63);
    assert_string_equal(a->unit, "percent");
    assert_int_equal(a->for_ms, 300000);
    assert_true(rule(c, "websockets")->of_limit);
    assert_true(rule(c, "server_errors")->of_server);
    assert_true(rule(c, "backend_down")->of_condition);
    assert_int_equal(rule(c, "backend_down")->for_ms, 10000);
    assert_string_equal(c->on_alert, "");
    c = load("alert \"websockets\" { above = 20 }\n"
             "alert \"memory\" { enabled = off }\n"
             "alert \"cache_hit_rate\" { below = 0.98 unit = ratio for = 1s }\n"
             "alert \"backend_down\" { severity = info for = 0 }\n"
             "alert \"slow\" { metric = serverP95 above = 800 unit = ms clear = 100 }\n"
             "alert \"busy\" { metric = connections above = 0 }\n"
             "on_alert = \"/bin/true\"\n");
    assert_non_null(c);
    assert_int_equal(c->n_alerts, 5 + CONDITIONS + 2);
    a = rule(c, "websockets");
    assert_true(!a->of_limit && a->threshold == 20 && a->clear == 19);
    assert_string_equal(a->severity, "critical");
    assert_false(rule(c, "memory")->enabled);
    a = rule(c, "cache_hit_rate");
    assert_true(a->threshold == .98 && a->clear == 1 && a->factor == 1 && a->for_ms == 1000);
    assert_string_equal(rule(c, "backend_down")->severity, "info");
    a = rule(c, "slow");
    assert_true(a->of_server && !a->below && a->factor == 1000 && a->clear == 100);
    assert_string_equal(rule(c, "busy")->severity, "warning");
    assert_string_equal(c->on_alert, "/bin/true");
}

static void alerts_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    assert_complains("alert \"a\" { }\n", 1, "metric = \"p95\" or another");
    assert_complains("alert \"a\" { metric = p95 }\n", 1, "either above or below");
    assert_complains("alert \"a\" { metric = p96 above = 1 }\n", 1, "there is no metric \"p96\"");
    assert_complains("\nalert \"memory\" { above = 1 below = 2 }\n", 2, "either above or below");
    assert_complains("alert \"memory\" { above = 101 }\n", 1, "more than 100 percent");
    assert_complains("alert \"memory\" { above = 80 unit = seconds }\n", 1, "percent or ratio");
    assert_complains("alert \"response_time\" { above = 1 unit = percent }\n", 1, "seconds or ms");
    assert_complains("alert \"memory\" { above = 80 clear = 90 }\n", 1, "clear is above");
    assert_complains("alert \"cache_hit_rate\" { clear = 50 }\n", 1, "clear is below");
    assert_complains("alert \"memory\" { metric = cpu above = 1 }\n", 1, "has its metric");
    assert_complains("alert \"backend_down\" { above = 1 }\n", 1, "that of a condition");
    assert_complains("alert \"memory\" { above = -1 }\n", 1, "above");
    assert_complains("alert \"memory\" { for = 2d }\n", 1, "for");
    assert_complains("on_alert = \"alert.sh\"\n", 1, "an absolute path");
}

static void cost_has_prices_and_a_currency(void **state)
{
    (void)state;
    const struct config *c =
        load("cost { currency = \"CHF\" upstream_call = 0.5 websocket_hour = 0 }\n");
    assert_non_null(c);
    assert_string_equal(c->cost.currency, "CHF");
    assert_true(c->cost.upstream_call == 0.5 && c->cost.websocket_hour == 0);
    c = load("");
    assert_non_null(c);
    assert_string_equal(c->cost.currency, "EUR");
    assert_complains("cost {\n currency = \"Euro\" }\n", 2, "three capital letters");
    assert_complains("cost { currency = \"\" }\n", 1, "three capital letters");
    assert_complains("cost { upstream_call = -1 }\n", 1, "upstream_call");
    assert_complains("cost {\n\n websocket_hour = 2000000 }\n", 3, "websocket_hour");
}

static void cost_may_tell_tenants_apart(void **state)
{
    (void)state;
    const struct config *c = load("");
    assert_int_equal(c->n_cost_by, 0);
    assert_int_equal(c->cost_by_id, 0);
    c = load("cost { by = \"header:X-Workspace\" }\n");
    assert_non_null(c);
    assert_int_equal(c->n_cost_by, 1);
    assert_string_equal(c->cost_by[0].name, "x-workspace");
    assert_false(c->cost_by_is_secret);
    const uint64_t id = c->cost_by_id;
    assert_int_not_equal(id, 0);
    c = load("cost { by = \"header:X-Workspace\" upstream_call = 1 }\n");
    assert_true(c->cost_by_id == id); /* a reload that changes a price forgets nobody */
    c = load("cost { by = \"header:X-Team\" }\n");
    assert_true(c->cost_by_id != id);
    c = load("cost { by = \"header:X-Workspace+cookie:sid\" }\n");
    assert_true(c && c->cost_by_is_secret);
    c = load("cost { by = \"header:Authorization\" }\n");
    assert_true(c && c->cost_by_is_secret);
    assert_complains("cost {\n by = \"colour\" }\n", 2, "by");
}

static void mistakes_have_their_line_and_what_would_be_right(void **state)
{
    (void)state;
    assert_complains("workers = many\n", 1, "a whole number");
    assert_complains("\n# a comment\nworkers = 100\n", 3, "a whole number up to 64");
    assert_complains("/* two\n lines */ // and more\ncache { ttl = \"5 parsecs\" }\n", 3,
                     "\"30s\"");
    assert_complains("rouet \"/\" { }\n", 1, "did you mean \"route\"");
    assert_complains("timeout = 5s\n", 1, "it belongs to upstream { } or websocket { }");
    assert_complains("poll { }\n", 1, "it belongs to route { }");
    assert_complains("include = \"x\"\n", 1, "one file holds everything");
    assert_complains("workers = $CORES\n", 1, "${CORES} would be the environment's");
    assert_complains("cache {\n  tlt = 5s\n}\n", 2, "did you mean \"ttl\"");
    assert_complains("listen = {\n\"127.0.0.1:8000\",\n\"127.0.0.1:0\"}\n", 3,
                     "\"127.0.0.1:8000\"");
    assert_complains("listen = {\"1.2.3.4:80\", \"1.2.3.4:80\"}\n", 1, "twice");
    assert_complains("resolver = {\"127.0.0.1:53\",\n\"dns.example:53\"}\n", 2, "resolver");
    assert_complains("resolver = {\"unix:/run/dns\"}\n", 1, "expected an address such as");
    assert_complains("resolver = {\"127.0.0.1\"}\n", 1, "expected an address such as");
    assert_complains("resolver = {\"[::1]:0\"}\n", 1, "expected an address such as");
    assert_complains("resolver = {\"1.1.1.1:1\", \"1.1.1.1:2\", \"1.1.1.1:3\", \"1.1.1.1:4\", "
                     "\"1.1.1.1:5\", \"1.1.1.1:6\", \"1.1.1.1:7\", \"1.1.1.1:8\", "
                     "\"1.1.1.1:9\"}\n",
                     1, "resolver: 9 addresses; expected at most 8");
    assert_complains("trusted_proxies = {\"10.0.0.0/33\"}\n", 1, "\"10.0.0.0/8\"");
    assert_complains("proxy_protocol = maybe\n", 1, "true or false");
    assert_complains("admin { mode = \"rw\" }\n", 1, "octal");
    assert_complains("access_log = \"xml:/x\"\n", 1, "combined");
    assert_complains("state_dir = \"relative\"\n", 1, "absolute");
    assert_complains("cache { }\n\ncache { }\n", 3, "second cache");
    assert_complains("cache {\n max_bytes = 16M\n max_body = 5M }\n", 3, "a quarter of max_bytes");
    assert_complains("upstream \"u\" { server \"127.0.0.1:1\" { } }\ncache { max_bytes = 16M }\n"
                     "route \"/*\" { upstream = \"u\"\ncache { max_body = 8M } }\n",
                     4, "expected at most 4M");
}

static void a_small_store_takes_smaller_bodies(void **state)
{
    (void)state;
    const struct config *c =
        load("upstream \"u\" { server \"127.0.0.1:1\" { } }\ncache { max_bytes = 16M }\n"
             "route \"/*\" { upstream = \"u\" cache { } }\n");
    if (!c)
        fail_msg("%s", errors);
    assert_int_equal(c->cache.value.max_body, 4u << 20);
    assert_int_equal(c->routes[0].cache->value.max_body, 4u << 20);
}

static void a_server_may_be_a_name(void **state)
{
    (void)state;
    const struct config *c =
        load("upstream \"u\" { server \"back-1.example:80\" { } server \"[::1]:81\" { } }\n");
    if (!c)
        fail_msg("%s", errors);
    assert_int_equal(c->upstreams[0].servers[0].address.len, 0); /* looked for elsewhere */
    assert_string_equal(c->upstreams[0].servers[0].address.text, "back-1.example:80");
    assert_true(c->upstreams[0].servers[1].address.len > 0);
    assert_int_equal(c->upstreams[0].slow_start_ms, 0);
    c = load("upstream \"u\" { server \"a:80\" { } slow_start = 30s }\n");
    assert_int_equal(c->upstreams[0].slow_start_ms, 30000);
    assert_complains("upstream \"u\" { server \"a:80\" { }\n slow_start = 2h }\n", 2, "1h");
    assert_complains("upstream \"u\" { server \"[name]:80\" { } }\n", 1, "[name]:80");
    assert_complains("upstream \"u\" { server \"1.2.3.4.5:80\" { } }\n", 1, "1.2.3.4.5:80");
    assert_complains("upstream \"u\" { server \"-a:80\" { } }\n", 1, "-a:80");
    assert_complains("upstream \"u\" { server \"a b:80\" { } }\n", 1, "a b:80");
}

static void references_are_checked(void **state)
{
    (void)state;
    assert_complains(UPSTREAM "\nroute \"/\" {\n upstream = v\n}\n", 4, "no upstream \"v\"");
    assert_complains(UPSTREAM "route \"/\" { upstream = u\n limits = {x} }\n", 3, "no limit \"x\"");
    assert_complains("upstream \"u\" {\n timeout = 1s }\n", 1, "no server");
    assert_complains("upstream \"u\" {\n server \"h:1:2\" { } }\n", 2, "\"h:1:2\"");
    assert_complains(UPSTREAM "route \"x\" { upstream = u }\n", 2, "starts with");
    assert_complains(UPSTREAM "route \"/a*b\" { upstream = u }\n", 2, "last character");
    assert_complains(UPSTREAM "route \"/a/./b\" { upstream = u }\n", 2, "expected \"/a/b\"");
    assert_complains(UPSTREAM "route \"/a\" { }\n", 2, "has no upstream");
    assert_complains(UPSTREAM "route \"/a\" { upstream = u }\nroute \"/a\" { upstream = u }\n", 3,
                     "/a");
    assert_complains(UPSTREAM "route \"/a\" { upstream = u poll { } }\n", 2, "cache { }");
    assert_complains("limit \"l\" { window = 1s }\n", 1, "has no requests");
    assert_complains("limit \"l\" {\n requests = 70000 }\n", 2, "65535");
    assert_complains("limit \"l\" { requests = 1 window = 1ms }\n", 1, "100ms");
    assert_complains("limit \"l\" { requests = 1 window = 31d }\n", 1, "30d");
    assert_complains("limit \"l\" { requests = 4294967296 algorithm = fixed }\n", 1, "4294967295");
    assert_complains("limit \"l\" { requests = 4294967295 }\n", 1, "fixed and gcra");
    assert_complains("limit \"l\" { requests = 1\n exempt = {\"k\", \"10.0.0.0/33\"} }\n", 2,
                     "\"10.0.0.0/33\"");
    assert_complains("limit \"l\" { requests = 1\n exempt = {\"::/129\"} }\n", 2, "\"::/129\"");
    assert_complains("limit \"l\" { requests = 1\n exempt = {\"10.0.0\"} }\n", 2, "\"10.0.0.0/8\"");
    assert_complains("limit \"l\" { requests = 1 key = \"header:\" }\n", 1, "header:NAME");
    assert_complains("limit \"l\" { requests = 1 key = \"client+client+client+client+client\" }\n",
                     1, "four");
}

static void all_mistakes_are_reported_at_once(void **state)
{
    (void)state;
    assert_null(load("workers = a\nmax_connections = b\nroute \"/\" { upstream = c }\n"));
    assert_non_null(strstr(errors, ":1: "));
    assert_non_null(strstr(errors, ":2: "));
    assert_non_null(strstr(errors, ":3: "));
}

static void the_environment_is_expanded(void **state)
{
    (void)state;
    setenv("POLDER_T_WORKERS", "5", 1);
    setenv("POLDER_T_QUOTE", "a\" } { \"", 1);
    unsetenv("POLDER_T_NONE");
    const struct config *c =
        load("workers = ${POLDER_T_WORKERS}\nuser = \"${POLDER_T_QUOTE}\"\nlisten = "
             "{\"127.0.0.1:${POLDER_T_NONE:-81}\"}\n"
             "state_dir = '/x/${POLDER_T_NONE}'\n# ${POLDER_T_NONE}\n");
    if (!c)
        fail_msg("%s", errors);
    assert_int_equal(c->workers, 5);
    assert_string_equal(c->user, "a\" } { \"");
    assert_string_equal(c->listen[0].text, "127.0.0.1:81");
    assert_string_equal(c->state_dir, "/x/${POLDER_T_NONE}");
    assert_complains("\nuser = \"x${POLDER_T_NONE}\"\n", 2, "POLDER_T_NONE");
    assert_complains("workers = ${POLDER_T_NONE}\n", 1, "POLDER_T_NONE");
}

static void broken_text_is_refused_with_its_place(void **state)
{
    (void)state;
    static const char nul[] = "workers = 1\0\n";
    assert_complains("user = \"abc\n", 1, "does not end on its line");
    assert_complains("user = x\nroute \"/\" {\n upstream = u\n", 2, "not closed");
    assert_complains("}\n", 1, "brace");
    assert_complains("include(\"/etc/passwd\")\n", 1, "include");
    assert_complains("workers 5\n", 1, "equal");
    assert_null(load_bytes(nul, sizeof nul - 1));
    assert_non_null(strstr(errors, "NUL"));
    char *big = calloc(1, (1 << 20) + 100);
    memset(big, '\n', (1 << 20) + 50);
    assert_null(load(big));
    assert_non_null(strstr(errors, "1 MiB"));
    free(big);
    struct config_arena arena;
    errors[0] = 0;
    config_arena_init(&arena, memory, 4 << 20);
    assert_null(config_load(&arena, "/nonexistent/polder.conf", collect, NULL));
    assert_non_null(strstr(errors, "/nonexistent/polder.conf: cannot read"));
}

/* Every prefix of a good file, and single bytes changed: never a crash, always a message or a tree.
 */
static void no_text_brings_it_down(void **state)
{
    (void)state;
    const char *good =
        "workers = 2 # c\n" UPSTREAM
        "limit \"l\" { requests = 1 key = \"client\" exempt = {\"10.0.0.0/8\"} }\nroute \"/a/*\" { "
        "upstream = u limits = {\"l\"} cache { ttl = \"${X:-5s}\" } }\n";
    const size_t len = strlen(good);
    char copy[512];
    for (size_t i = 0; i <= len; i++) {
        memcpy(copy, good, len + 1);
        copy[i] = 0;
        load(copy);
    }
    unsigned seed = 3;
    for (int i = 0; i < 400; i++) {
        memcpy(copy, good, len + 1);
        copy[(size_t)rand_r(&seed) % len] = "{}\"'=#$\\\n,+()/*x"[rand_r(&seed) % 16];
        load(copy);
    }
}

static void a_small_arena_is_a_mistake_not_a_crash(void **state)
{
    (void)state;
    struct config_arena arena;
    assert_non_null(load(UPSTREAM "route \"/\" { upstream = u cache { } }\n"));
    for (size_t size = 0; size < 4096; size += 64) {
        config_arena_init(&arena, memory, size);
        config_load(&arena, path, collect, NULL);
    }
}

static void durations_and_sizes_are_exact(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int code;
        uint64_t ms;
    } durations[] = {{"250ms", 0, 250},
                     {"30s", 0, 30000},
                     {"5m", 0, 300000},
                     {"12h", 0, 43200000},
                     {"7d", 0, 604800000},
                     {"90", 0, 90000},
                     {"1.5s", 0, 1500},
                     {"0", 0, 0},
                     {"", -1, 0},
                     {"s", -1, 0},
                     {"-1s", -1, 0},
                     {"1x", -1, 0},
                     {"1 s", -1, 0},
                     {"1e3s", -1, 0},
                     {"0x10", -1, 0},
                     {"1.s", -1, 0},
                     {"99999999999999999999d", -1, 0}};
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
        uint64_t ms = 0;
        const int code = config_parse_duration(durations[i].text, &ms);
        if (!code != !durations[i].code || (!code && ms != durations[i].ms))
            fail_msg("%s: %d, %llu", durations[i].text, code, (unsigned long long)ms);
    }
    uint64_t bytes;
    assert_int_equal(config_parse_size("64K", &bytes), 0);
    assert_int_equal(bytes, 65536);
    assert_int_equal(config_parse_size("2G", &bytes), 0);
    assert_int_equal(bytes, UINT64_C(2) << 30);
    assert_true(config_parse_size("2GB", &bytes) != 0);
}

static void a_region_starts_with_the_values_of_the_file(void **state)
{
    (void)state;
    struct config_region *region =
        mmap(NULL, SHARED_REGION_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char text[512];
    snprintf(text, sizeof text,
             "state_dir = \"/tmp\"\n" UPSTREAM
             "limit \"l\" { requests = 7 }\ncache { max_items = 5 }\n");
    load(text);
    assert_int_equal(config_region_load(region, path, 3, NULL), 0);
    struct runtime_values v;
    runtime_read(&region->runtime, &v);
    assert_int_equal(v.limit[0].requests, 7);
    assert_int_equal(v.server[0].weight, 100);
    assert_int_equal(v.cache.max_items, 5);
    assert_int_equal(region->generation, 3);
    load("workers = x\n");
    assert_int_not_equal(config_region_load(region, path, 4, NULL), 0);
    assert_null(region->config);
    assert_non_null(strstr(region->errors, ":1: workers"));
    munmap(region, SHARED_REGION_SIZE);
}

static int set_up(void **state)
{
    (void)state;
    memory = malloc(4 << 20);
    const int fd = mkstemp(path);
    close(fd);
    return fd < 0;
}
static int tear_down(void **state)
{
    (void)state;
    free(memory);
    return unlink(path);
}

/* Valid, and probably not meant. */
static void assert_warns(const char *text, int line, const char *words)
{
    char where[160];
    const struct config *c = load(text);
    assert_non_null(c);
    snprintf(where, sizeof where, "%s:%d: warning: ", path, line);
    for (uint32_t i = 0; i < c->n_warnings; i++)
        if (strstr(c->warnings[i], where) && strstr(c->warnings[i], words))
            return;
    fail_msg("no warning \"%s\" on line %d", words, line);
}

static unsigned warnings_about(const char *text, const char *words)
{
    const struct config *c = load(text);
    unsigned n = 0;
    assert_non_null(c);
    for (uint32_t i = 0; i < c->n_warnings; i++)
        n += strstr(c->warnings[i], words) != NULL;
    return n;
}

static void what_does_not_work_together_is_told(void **state)
{
    (void)state;
    assert_int_equal(warnings_about("workers = 1\n", "there is no route"), 1);
    assert_int_equal(warnings_about(UPSTREAM "route \"/\" { upstream = \"u\" }\n", "route"), 0);
    static const char *const literal[] = {"/api/items/{id}", "/api/items/:id", "/api/items/<id>",
                                          "/{id}/x", "/api/<int:id>/y*"};
    for (size_t i = 0; i < sizeof literal / sizeof *literal; i++) {
        char text[256];
        snprintf(text, sizeof text, UPSTREAM "\nroute \"%s\" { upstream = \"u\" }\n", literal[i]);
        assert_warns(text, 3, "is taken literally");
    }
    assert_warns(UPSTREAM "\nroute \"/a/{id}\" { upstream = \"u\" }\n", 3, "\"/a/*\" would");
    assert_warns(UPSTREAM "limit \"l\" { requests = 1 exempt = {\"10.0.0.0/8\", \"k\"} }\n"
                          "route \"/*\" { upstream = u limits = {\"l\"} }\n",
                 2, "\"k\" is no network");
    static const char *const fine[] = {"/a:b", "/time/12:30", "/a/{", "/a/:", "/x/:1*", "/<", "/*"};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        char text[256];
        snprintf(text, sizeof text, UPSTREAM "route \"%s\" { upstream = \"u\" }\n", fine[i]);
        assert_int_equal(warnings_about(text, "literally"), 0);
    }
    assert_warns("upstream \"u\" {\nserver \"127.0.0.1:1\" { weight = 0 }\nserver \"127.0.0.1:2\" "
                 "{ weight = 0 } }\n",
                 1, "the weight of each server is 0");
    assert_int_equal(warnings_about("upstream \"u\" {\nserver \"127.0.0.1:1\" { weight = 0 }\n"
                                    "server \"127.0.0.1:2\" { } }\n",
                                    "weight"),
                     0);
    assert_warns(UPSTREAM "limit \"l\" { requests = 5 }\nroute \"/\" { upstream = \"u\" limits = "
                          "{\"l\"} cost = 6 }\n",
                 3, "cost 6 is more than limit \"l\" admits");
    assert_warns(UPSTREAM "\nlimit \"l\" { requests = 5 }\nroute \"/\" { upstream = \"u\" }\n", 3,
                 "limits nothing");
    assert_complains("ops {\n hosts = {\"http://ops.example\"} }\n", 2, "without scheme and port");
    assert_complains("listen = {\"127.0.0.1:8000\"}\nops { listen = \"127.0.0.1:8000\" }\n", 2,
                     "is in listen too");
}

static void telemetry_for_loopback_wants_a_trusted_proxy(void **state)
{
    (void)state;
    assert_warns("\ntelemetry { allow = {\"127.0.0.0/8\"} }\n", 2, "trusted_proxies");
    assert_warns("telemetry { allow = {\"10.0.0.0/8\", \"::1\"} }\n", 1, "trusted_proxies");
    static const char *const fine[] = {
        "telemetry { }\n", "telemetry { allow = {\"10.0.0.0/8\"} }\n",
        "trusted_proxies = {\"127.0.0.1\"}\ntelemetry { allow = {\"127.0.0.0/8\"} }\n",
        "proxy_protocol = true\ntelemetry { allow = {\"127.0.0.0/8\"} }\n"};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
        assert_int_equal(warnings_about(fine[i], "telemetry"), 0);
}

static void a_secret_that_is_no_part_of_the_key_is_warned_of(void **state)
{
    (void)state;
    assert_warns("cache { ignore_query = {\"utm_*\",\n\"api_key\"} }\n", 2, "api_key");
    assert_warns("cache { ignore_query = {\"Tok*\"} }\n", 1, "Tok*");
    assert_warns("upstream \"u\" { server \"127.0.0.1:1\" { } }\n"
                 "route \"/a\" { upstream = \"u\" cache { ignore_query = {\"sig\"} } }\n",
                 2, "sig");
    static const char keyed[] = "upstream \"u\" { server \"127.0.0.1:1\" { } }\n"
                                "limit \"l\" { requests = 1 key = \"query:who\" }\n"
                                "route \"/a\" { upstream = \"u\" limits = {\"l\"} cache { %s } }\n";
    char text[512];
    snprintf(text, sizeof text, keyed, "only_query = {\"page\"}");
    assert_warns(text, 3, "only_query drops \"who\"");
    snprintf(text, sizeof text, keyed, "ignore_query = {\"w*\"}");
    assert_warns(text, 3, "ignore_query drops \"who\"");
    static const char *const fine[] = {"", "only_query = {\"page\", \"who\"}",
                                       "ignore_query = {\"utm_*\", \"fbclid\", \"page\"}"};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        snprintf(text, sizeof text, keyed, fine[i]);
        assert_int_equal(load(text)->n_warnings, 0);
    }
}

static void who_asks_is_configured_for_all_and_for_routes(void **state)
{
    (void)state;
    const struct config *c =
        load("cache { identity_headers = {\"X-Top\"} }\n"
             "upstream \"u\" { server \"127.0.0.1:1\" { } }\n"
             "limit \"l\" { requests = 1 key = \"header:X-Who+client+cookie:id\" }\n"
             "route \"/a\" { upstream = \"u\" cache { identity_headers = {\"X-Own-*\"} } }\n"
             "route \"/b\" { upstream = \"u\" cache { share = true ignore_cookies = \"off\" } }\n"
             "route \"/c\" { upstream = \"u\" cache { } poll { } }\n"
             "route \"/d\" { upstream = \"u\" cache { partition = \"\" } poll { } }\n"
             "route \"/e\" { upstream = \"u\" cache { share = \"rfc\" } poll { } }\n"
             "route \"/f\" { upstream = \"u\" cache { partition = \"cookie:f\" } poll { } }\n");
    assert_non_null(c);
    const struct config_route *r = c->routes;
    assert_int_equal(r[0].cache->n_identity_headers, 2);
    assert_string_equal(r[0].cache->identity_headers[0], "x-own-*");
    assert_string_equal(r[0].cache->identity_headers[1], "x-top");
    assert_int_equal(r[0].cache->share, CONFIG_SHARE_STATED);
    assert_int_equal(r[0].cache->n_partition, 0);
    assert_string_equal(r[0].cache->ignore_cookies[0], "_ga*");
    assert_int_equal(r[1].cache->share, CONFIG_SHARE_ALL);
    assert_int_equal(r[1].cache->n_ignore_cookies, 0);
    assert_int_equal(r[2].cache->n_partition, 1);
    assert_int_equal(r[2].cache->partition[0].kind, CONFIG_KEY_IDENTITY);
    assert_int_equal(r[3].cache->n_partition, 0);
    assert_int_equal(r[4].cache->n_partition, 0);
    assert_int_equal(r[4].cache->share, CONFIG_SHARE_RFC);
    assert_int_equal(r[5].cache->partition[0].kind, CONFIG_KEY_COOKIE);
    assert_int_equal(c->n_identity_keys, 3);
    assert_complains("cache { share = \"some\" }\n", 1, "share");
    assert_complains("cache { ignore_cookies = {\"a b\"} }\n", 1, "ignore_cookies");
    assert_complains("cache { identity_headers = {\"x y\"} }\n", 1, "identity_headers");
    assert_complains("limit \"l\" { requests = 1 key = \"identity\" }\n", 1, "identity");
}

static void drop_headers_has_defaults_and_can_be_turned_off(void **state)
{
    (void)state;
    const struct config *c = load("workers = 1\n");
    assert_in_range(c->n_drop_headers, 16, 64);
    c = load("drop_headers = {\"X_Shop-*\", \"X-A\"}\n");
    assert_int_equal(c->n_drop_headers, 2);
    assert_string_equal(c->drop_headers[0].at, "x-shop-*");
    assert_int_equal(load("drop_headers = {\"off\"}\n")->n_drop_headers, 0);
    assert_complains("drop_headers = {\"a b\"}\n", 1, "drop_headers");
    assert_complains("drop_headers = {\"x\",\n\"*\"}\n", 2, "drop_headers");
}

static void a_name_in_via_is_a_token(void **state)
{
    (void)state;
    assert_string_equal(load("via = \"edge-1\"\n")->via, "edge-1");
    assert_string_equal(load("workers = 1\n")->via, "");
    assert_complains("\nvia = \"edge 1\"\n", 2, "via");
    assert_complains("via = \"a,b\"\n", 1, "via");
}

static void compress_of_a_route_is_that_of_its_cache_section_too(void **state)
{
    (void)state;
    const struct config *c =
        load(UPSTREAM "route \"/a\" { upstream = u compress = {\"gzip\", \"br\"} "
                      "compress_min = \"2K\" }\n"
                      "route \"/b\" { upstream = u compress = {\"zstd\"} cache { } }\n"
                      "route \"/c\" { upstream = u compress = {\"off\"} cache { } }\n"
                      "route \"/d\" { upstream = u compress = {\"br\"} cache { compress "
                      "= {\"gzip\"} compress_min = \"3K\" } }\n"
                      "route \"/e\" { upstream = u cache { } }\n"
                      "route \"/f\" { upstream = u }\n");
    static const struct {
        uint32_t n;
        uint8_t first;
        uint64_t min;
        bool stated;
    } want[] = {{2, CODING_GZIP, 2048, true}, {1, CODING_ZSTD, 1024, true}, {0, 0, 1024, true},
                {1, CODING_GZIP, 3072, true}, {3, CODING_BR, 1024, false},  {0, 0, 1024, false}};
    for (uint32_t i = 0; i < c->n_routes; i++) {
        const struct config_route *r = &c->routes[i];
        const size_t k = (size_t)(r->pattern[1] - 'a');
        assert_int_equal(r->n_compress, want[k].n);
        assert_int_equal(r->compress[0], want[k].first);
        assert_int_equal(r->compress_min, want[k].min);
        assert_int_equal(r->compress_is_stated, want[k].stated);
        if (r->cache) {
            assert_int_equal(r->cache->n_compress, want[k].n);
            assert_int_equal(r->cache->compress_min, want[k].min);
        }
    }
    assert_complains(UPSTREAM "route \"/\" { upstream = u\ncompress = {\"deflate\"} }\n", 3,
                     "compress");
    assert_complains(UPSTREAM "route \"/\" { upstream = u\ncompress = {\"br\", \"off\"} }\n", 3,
                     "compress");
}

static void origins_are_named_for_all_routes_or_for_one(void **state)
{
    (void)state;
    const struct config *c =
        load(UPSTREAM "cors { origins = {\"https://App.example\", \"https://*.b.example:8443\"} "
                      "credentials = true }\n"
                      "route \"/a\" { upstream = u }\n"
                      "route \"/b\" { upstream = u cors { origins = {\"*\"} } }\n"
                      "limit \"l\" { requests = 1 preflights = true }\n");
    assert_int_equal(c->cors.n_origins, 2);
    assert_string_equal(c->cors.origins[0], "https://app.example");
    assert_true(c->cors.credentials);
    assert_true(c->limits[0].preflights);
    for (uint32_t i = 0; i < c->n_routes; i++)
        assert_int_equal(c->routes[i].cors != NULL, c->routes[i].pattern[1] == 'b');
    static const char *const bad[] = {
        "app.example",        "https://",  "https://a.example/x", "https://a.*.exam",
        "*://a.example",      "https://*", "https://a b",         "",
        "https://*.*.example"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[128];
        snprintf(text, sizeof text, "cors { origins = {\"%s\"} }\n", bad[i]);
        assert_complains(text, 1, "origins");
    }
    assert_complains("cors { credentials = true\norigins = {\"*\"} }\n", 2, "credentials");
}

static void localhost_is_both_loopback_addresses(void **state)
{
    (void)state;
    const struct config *c = load("listen = {\"localhost:8000\", \"127.0.0.1:8001\"}\n");
    assert_int_equal(c->n_listen, 3);
    assert_string_equal(c->listen[0].text, "localhost:8000");
    assert_string_equal(c->listen[1].text, "[::1]:8000");
    assert_true(c->listen[1].may_lack && !c->listen[0].may_lack && !c->listen[2].may_lack);
    c = load("listen = {\"[::1]:8000\", \"localhost:8000\"}\n");
    assert_int_equal(c->n_listen, 2);
    assert_int_equal(load("workers = 1\n")->n_listen, 1);
}

static void what_verify_asks_for_goes_to_its_route(void **state)
{
    (void)state;
#define BEFORE "upstream \"u\" { server \"127.0.0.1:1\" { } }\nroute \"/*\" { upstream = \"u\" }\n"
    const struct config *c =
        load(BEFORE "route \"/a/*\" { upstream = \"u\" verify = \"/a/b%20c?q=1\" }");
    assert_non_null(c);
    assert_string_equal(c->routes[0].verify, "/a/b%20c?q=1");
    assert_string_equal(c->routes[1].verify, "");
    assert_complains(BEFORE "route \"/a/*\" { upstream = \"u\"\n verify = \"/b\" }", 4,
                     "a path that goes to this route");
    assert_complains(BEFORE "route \"/a/*\" { upstream = \"u\"\n verify = \"a/b\" }", 4, "\"/\"");
    assert_complains(BEFORE "route \"/a/*\" { upstream = \"u\"\n verify = \"/a/b c\" }", 4,
                     "visible ASCII");
    assert_complains(BEFORE "route \"/a/*\" { upstream = \"u\"\n verify = \"/a/%zz\" }", 4,
                     "a path that goes to this route");
#undef BEFORE
}

static void what_keeps_a_client_at_a_server_can_be_chosen(void **state)
{
#define STICKY(value) "upstream \"u\" { server \"a:80\" { }\n sticky = \"" value "\" }\n"
    static const char right[] = "none, client, cookie or header:NAME";
    (void)state;
    const struct config *c = load("upstream \"u\" { server \"a:80\" { } }\n");
    assert_int_equal(c->upstreams[0].sticky.kind, CONFIG_KEY_NONE);
    assert_int_equal(load(STICKY("none"))->upstreams[0].sticky.kind, CONFIG_KEY_NONE);
    assert_int_equal(load(STICKY("client"))->upstreams[0].sticky.kind, CONFIG_KEY_CLIENT);
    assert_false(load(STICKY("client"))->sticky_cookie);
    assert_int_equal(load(STICKY("cookie"))->upstreams[0].sticky.kind, CONFIG_KEY_COOKIE);
    assert_true(load(STICKY("cookie"))->sticky_cookie);
    c = load(STICKY("header:Mcp-Session-Id"));
    assert_int_equal(c->upstreams[0].sticky.kind, CONFIG_KEY_HEADER);
    assert_string_equal(c->upstreams[0].sticky.name, "mcp-session-id");
    assert_complains(STICKY("header:"), 2, right);
    assert_complains(STICKY("header"), 2, right);
    assert_complains(STICKY("header:a b"), 2, right);
    assert_complains(STICKY("header:a(b"), 2, right);
    assert_complains(STICKY("cookie:sid"), 2, right);
    assert_complains(STICKY("clients"), 2, right);
    assert_complains(STICKY("query:a"), 2, right);
    assert_complains(STICKY(""), 2, right);
#undef STICKY
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_file_has_the_documented_defaults),
        cmocka_unit_test(what_keeps_a_client_at_a_server_can_be_chosen),
        cmocka_unit_test(what_half_a_close_means_can_be_chosen),
        cmocka_unit_test(the_buffers_of_request_bodies_have_bounds),
        cmocka_unit_test(a_fleet_has_stores_and_a_secret),
        cmocka_unit_test(a_limit_of_the_fleet_needs_one_and_counts_what_a_store_can),
        cmocka_unit_test(websockets_may_count_over_the_fleet),
        cmocka_unit_test(a_fleet_that_cannot_be_is_named_without_its_secrets),
        cmocka_unit_test(codings_are_inherited_and_can_be_chosen),
        cmocka_unit_test(every_section_is_read),
        cmocka_unit_test(descriptors_are_wanted_for_what_is_stated),
        cmocka_unit_test(a_route_of_websockets_means_what_it_says),
        cmocka_unit_test(the_leak_guard_is_on_unless_a_route_says_otherwise),
        cmocka_unit_test(checks_of_servers_have_their_keys),
        cmocka_unit_test(bounds_of_servers_have_their_keys),
        cmocka_unit_test(alerts_are_built_in_and_the_file_changes_them),
        cmocka_unit_test(alerts_that_make_no_sense_are_refused),
        cmocka_unit_test(cost_has_prices_and_a_currency),
        cmocka_unit_test(cost_may_tell_tenants_apart),
        cmocka_unit_test(mistakes_have_their_line_and_what_would_be_right),
        cmocka_unit_test(a_small_store_takes_smaller_bodies),
        cmocka_unit_test(a_server_may_be_a_name),
        cmocka_unit_test(references_are_checked),
        cmocka_unit_test(all_mistakes_are_reported_at_once),
        cmocka_unit_test(the_environment_is_expanded),
        cmocka_unit_test(broken_text_is_refused_with_its_place),
        cmocka_unit_test(no_text_brings_it_down),
        cmocka_unit_test(a_small_arena_is_a_mistake_not_a_crash),
        cmocka_unit_test(durations_and_sizes_are_exact),
        cmocka_unit_test(a_region_starts_with_the_values_of_the_file),
        cmocka_unit_test(what_does_not_work_together_is_told),
        cmocka_unit_test(telemetry_for_loopback_wants_a_trusted_proxy),
        cmocka_unit_test(a_secret_that_is_no_part_of_the_key_is_warned_of),
        cmocka_unit_test(who_asks_is_configured_for_all_and_for_routes),
        cmocka_unit_test(drop_headers_has_defaults_and_can_be_turned_off),
        cmocka_unit_test(a_name_in_via_is_a_token),
        cmocka_unit_test(compress_of_a_route_is_that_of_its_cache_section_too),
        cmocka_unit_test(origins_are_named_for_all_routes_or_for_one),
        cmocka_unit_test(localhost_is_both_loopback_addresses),
        cmocka_unit_test(what_verify_asks_for_goes_to_its_route),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
