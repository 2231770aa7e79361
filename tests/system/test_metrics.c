/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of /metrics and telemetry: what is counted for each route, limit and server shows, over
 * reloads and deaths; a real Prometheus reads it; who may not see it does not. */
#include "harness.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct backend *backend;

static bool answers(struct asked *a)
{
    return reply_ok(a, "Cache-Control: max-age=60\r\n", "0123456789");
}

#define ROUTES                                                                                     \
    "route \"/c/*\" { upstream = \"u\" cache { leak_guard = 0 } }\n"                               \
    "route \"/few\" { upstream = \"u\" limits = {\"few\"} }\n"

static void describe(char *out, size_t size, const char *allow, const char *routes)
{
    snprintf(out, size,
             "telemetry { allow = {\"%s\"} }\n"
             "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
             "limit \"few\" { requests = 3 window = \"60s\" }\n%s",
             allow, backend_port(backend), routes);
}

static void start(struct house *h, const char *allow, const char *routes)
{
    char text[2048];
    describe(text, sizeof text, allow, routes);
    house_start(h, 2, "%s", text);
}

/* The value of a sample; -1: there is none. */
static double sample(struct house *h, const char *name)
{
    struct message m;
    double value = -1;
    const size_t len = strlen(name);
    assert_int_equal(get(h->ops_port, "/metrics", &m), 200);
    for (const char *at = m.body; at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
        if (!strncmp(at, name, len) && at[len] == ' ')
            value = strtod(at + len, NULL);
    message_free(&m);
    return value;
}

static json_t *document(unsigned port, const char *target, int status)
{
    struct message m;
    json_error_t e;
    assert_int_equal(get(port, target, &m), status);
    json_t *j = json_loads(m.body, 0, &e);
    if (!j)
        fail_msg("%s: %s: %s", target, e.text, m.body);
    message_free(&m);
    return j;
}

/* ---- counts ---- */

#define OF_C(name, labels) "polder_route_" name "{route=\"/c/*\"" labels "}"

static void ask_some(struct house *h)
{
    assert_int_equal(get(h->port, "/c/1", NULL), 200);
    wait_until(ctl(h, NULL, "cache show http://test.example/c/1") == 0, 5000);
    for (int i = 0; i < 4; i++)
        assert_int_equal(get(h->port, "/c/1", NULL), 200);
    for (int i = 0; i < 5; i++)
        get(h->port, "/few", NULL);
    get(h->port, "/no-route", NULL);
}

static void each_route_limit_and_server_has_its_counts(void **state)
{
    (void)state;
    struct house h;
    char server[128];
    start(&h, "10.0.0.0/8", ROUTES);
    ask_some(&h);
    assert_true(sample(&h, OF_C("responses_total", ",class=\"2xx\"")) == 5);
    assert_true(sample(&h, OF_C("cache_lookups_total", ",result=\"hit\"")) == 4);
    assert_true(sample(&h, OF_C("cache_lookups_total", ",result=\"miss\"")) == 1);
    assert_true(sample(&h, OF_C("avoided_requests_total", "")) == 4);
    assert_true(sample(&h, OF_C("upstream_requests_total", "")) == 1);
    assert_true(sample(&h, OF_C("response_bytes_total", "")) == 50);
    assert_true(sample(&h, OF_C("response_seconds_count", "")) == 5);
    assert_true(sample(&h, OF_C("last_hit_timestamp_seconds", "")) > 1.7e9);
    assert_true(sample(&h, "polder_route_responses_total{route=\"/few\",class=\"4xx\"}") == 2);
    assert_true(sample(&h, "polder_route_limit_refused_total{route=\"/few\"}") == 2);
    assert_true(sample(&h, "polder_route_avoided_requests_total{route=\"/few\"}") == 2);
    assert_true(sample(&h, "polder_route_response_seconds_count{route=\"/few\"}") == 3);
    assert_true(sample(&h, "polder_route_responses_total{route=\"none\",class=\"4xx\"}") == 1);
    assert_true(sample(&h, "polder_limit_evaluations_total{limit=\"few\"}") == 5);
    snprintf(server, sizeof server, "upstream=\"u\",server=\"127.0.0.1:%u\"",
             backend_port(backend));
    char name[256];
    snprintf(name, sizeof name, "polder_upstream_server_response_seconds_count{%s}", server);
    assert_true(sample(&h, name) == 4);
    snprintf(name, sizeof name, "polder_upstream_server_bytes_total{%s,direction=\"in\"}", server);
    assert_true(sample(&h, name) > 4 * 50);
    house_remove(&h);
}

static void no_sum_falls_when_workers_die_and_routes_come_and_go(void **state)
{
    (void)state;
    struct house h;
    char text[2048];
    pid_t pid[4];
    start(&h, "10.0.0.0/8", ROUTES);
    ask_some(&h);
    const size_t n = house_children(&h, "polderd: worker", pid, 4);
    for (size_t i = 0; i < n; i++)
        kill(pid[i], SIGKILL);
    wait_until(house_ready(&h) && get(h.port, "/c/1", NULL) == 200, 10000);
    assert_true(sample(&h, OF_C("responses_total", ",class=\"2xx\"")) == 6);
    /* other routes, in another order; then the first ones again */
    describe(text, sizeof text, "10.0.0.0/8",
             "route \"/a\" { upstream = \"u\" }\nroute \"/few\" { upstream = \"u\" }\n");
    house_write_conf(&h, 2, text);
    assert_int_equal(ctl(&h, NULL, "reload"), 0);
    assert_true(sample(&h, OF_C("responses_total", ",class=\"2xx\"")) == -1);
    assert_true(sample(&h, "polder_route_responses_total{route=\"/few\",class=\"4xx\"}") == 2);
    assert_int_equal(get(h.port, "/a", NULL), 200);
    assert_true(sample(&h, "polder_route_responses_total{route=\"/a\",class=\"2xx\"}") == 1);
    describe(text, sizeof text, "10.0.0.0/8", ROUTES);
    house_write_conf(&h, 2, text);
    assert_int_equal(ctl(&h, NULL, "reload"), 0);
    assert_true(sample(&h, OF_C("responses_total", ",class=\"2xx\"")) == 6);
    assert_int_equal(get(h.port, "/c/1", NULL), 200);
    assert_true(sample(&h, OF_C("responses_total", ",class=\"2xx\"")) == 7);
    house_remove(&h);
}

/* ---- a real Prometheus ---- */

static pid_t run_prometheus(struct house *h, unsigned port)
{
    char path[300], store[300], address[64];
    snprintf(path, sizeof path, "%s/prometheus.yml", h->dir);
    snprintf(store, sizeof store, "--storage.tsdb.path=%s/prometheus", h->dir);
    snprintf(address, sizeof address, "--web.listen-address=127.0.0.1:%u", port);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(
        f,
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\n"
        "scrape_configs:\n- {job_name: polder, static_configs: [{targets: ['127.0.0.1:%u']}]}\n",
        h->ops_port);
    fclose(f);
    snprintf(path, sizeof path, "--config.file=%s/prometheus.yml", h->dir);
    const pid_t pid = fork();
    if (pid == 0) {
        const int null = open("/dev/null", O_RDWR);
        dup2(null, 1);
        dup2(null, 2);
        execlp("prometheus", "prometheus", path, store, address,
               "--enable-feature=native-histograms", (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

/* The one value that a query has; -1: none yet. */
static double ask_prometheus(unsigned port, const char *query)
{
    char target[512] = "/api/v1/query?query=";
    struct message m;
    double value = -1;
    for (size_t n = strlen(target); *query; n += 3, query++)
        snprintf(target + n, sizeof target - n, "%%%02x", (unsigned char)*query);
    const int fd = client_connect(port);
    if (fd < 0)
        return -1;
    close(fd);
    if (get(port, target, &m) != 200) {
        message_free(&m);
        return -1;
    }
    json_t *j = json_loads(m.body, 0, NULL),
           *result = json_object_get(json_object_get(j, "data"), "result"),
           *pair = json_object_get(json_array_get(result, 0), "value");
    if (json_array_size(result) == 1)
        value = strtod(json_string_value(json_array_get(pair, 1)), NULL);
    json_decref(j);
    message_free(&m);
    return value;
}

/* Native histograms: no _bucket, no le. */
static void prometheus_reads_native_histograms(void **state)
{
    (void)state;
    struct house h;
    start(&h, "10.0.0.0/8", ROUTES);
    ask_some(&h);
    const unsigned port = free_port();
    const pid_t pid = run_prometheus(&h, port);
    wait_until(
        ask_prometheus(port, "histogram_count(polder_route_response_seconds{route=\"/c/*\"})") == 5,
        30000);
    assert_true(ask_prometheus(port, "up") == 1);
    assert_true(
        ask_prometheus(port, "polder_route_responses_total{route=\"/c/*\",class=\"2xx\"}") == 5);
    const double p95 =
        ask_prometheus(port, "histogram_quantile(0.95,polder_upstream_server_response_seconds)");
    assert_true(p95 > 1e-6 && p95 < 10);
    const double sum =
        ask_prometheus(port, "histogram_sum(polder_response_seconds{source=\"miss\"})");
    assert_true(sum > 0 && sum < 10);
    assert_true(ask_prometheus(port, "polder_build_info") == 1);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    house_remove(&h);
}

/* ---- what is asked for, and by how many ---- */

/* What Prometheus' own check says of names, types and help. */
static void check_with_promtool(struct house *h, const struct message *m)
{
    char command[700];
    snprintf(command, sizeof command, "%s/metrics.txt", h->dir);
    FILE *f = fopen(command, "w");
    assert_non_null(f);
    fwrite(m->body, 1, m->body_len, f);
    fclose(f);
    snprintf(command, sizeof command, "promtool check metrics < %s/metrics.txt", h->dir);
    assert_int_equal(system(command), 0);
}

static void a_scraper_may_choose_and_is_told_what_it_may(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, "10.0.0.0/8", ROUTES);
    assert_int_equal(get(h.ops_port, "/metrics", &m), 200);
    check_with_promtool(&h, &m);
    message_free(&m);
    assert_int_equal(get(h.ops_port, "/metrics?scope=limits&metrics=-limit_quota", &m), 200);
    assert_non_null(strstr(m.body, "polder_limit_window_seconds{limit=\"few\"} 60\n"));
    assert_null(strstr(m.body, "limit_quota"));
    assert_null(strstr(m.body, "polder_route"));
    message_free(&m);
    assert_int_equal(get(h.ops_port, "/metrics?scope=nonsense", &m), 400);
    assert_non_null(strstr(m.body, "websockets"));
    assert_null(strstr(m.body, "nonsense"));
    message_free(&m);
    assert_int_equal(get(h.ops_port, "/metrics?metrics=nonsense", NULL), 400);
    assert_int_equal(get_with(h.ops_port, "/metrics",
                              "Accept: application/openmetrics-text;version=1.0.0\r\n", &m),
                     200);
    assert_non_null(strstr(m.body, "# UNIT polder_route_response_seconds seconds\n"));
    assert_string_equal(m.body + strlen(m.body) - 6, "# EOF\n");
    message_free(&m);
    house_remove(&h);
}

static size_t count_series(struct house *h)
{
    struct message m;
    size_t n = 0;
    assert_int_equal(get(h->ops_port, "/metrics", &m), 200);
    for (const char *at = m.body; (at = strchr(at, '\n')); at++)
        n += at[1] && at[1] != '#';
    message_free(&m);
    return n;
}

static void no_client_makes_a_series(void **state)
{
    (void)state;
    struct house h;
    char target[128], lines[256];
    start(&h, "10.0.0.0/8", ROUTES "route \"/*\" { upstream = \"u\" cache { } }\n");
    ask_some(&h);
    const size_t series = count_series(&h);
    for (int i = 0; i < 60; i++) {
        snprintf(target, sizeof target, "/%c%%22%%0a%%ff-%d?%d=\"", 'a' + i % 26, i, i);
        snprintf(lines, sizeof lines,
                 "Cookie: sid=%d\xff\"\r\nX-Api-Key: k\"%d\r\nUser-Agent: u%d\r\n", i, i, i);
        get_with(h.port, target, lines, NULL);
        request(h.port, i % 2 ? "POST" : "PROPFIND", target, lines, "x", NULL);
    }
    assert_int_equal(count_series(&h), series);
    house_remove(&h);
}

static void scrapers_that_do_not_read_keep_nobody_from_it(void **state)
{
    (void)state;
    enum { SLOW = 300 };
    struct house h;
    static int fd[SLOW];
    start(&h, "10.0.0.0/8", ROUTES);
    for (int i = 0; i < SLOW; i++) {
        fd[i] = client_connect(h.ops_port);
        client_send(fd[i], "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(get(h.ops_port, "/metrics", NULL), 200);
    assert_int_equal(ctl(&h, NULL, "status"), 0);
    for (int i = 0; i < SLOW; i++)
        close(fd[i]);
    house_remove(&h);
}

/* ---- telemetry ---- */

static void telemetry_on_public_listeners_is_for_those_who_are_named(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, "127.0.0.0/8", "route \"/*\" { upstream = \"u\" }\n");
    static const char *const names[] = {"cache-stats", "websocket-health", "cost",
                                        "limits",      "upstreams",        "routes",
                                        "history",     "alerts",           "openapi.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char target[64];
        snprintf(target, sizeof target, "/api/telemetry/%s", names[i]);
        json_decref(document(h.port, target, 200));
        assert_int_equal(request(h.port, "HEAD", target, "", "", NULL), 200);
        assert_int_equal(request(h.port, "POST", target, "", "x", &m), 405);
        assert_non_null(strstr(m.head, "Allow: GET, HEAD\r\n"));
        message_free(&m);
    }
    assert_int_equal(get(h.port, "/api/telemetry/overview", NULL), 404);
    assert_int_equal(get(h.port, "/api/telemetry", NULL), 404);
    assert_int_equal(get(h.port, "/api/telemetry/history?since=nonsense", NULL), 400);
    assert_int_equal(get(h.port, "/api/telemetryx", NULL), 200); /* somebody else's */
    const unsigned calls = backend_calls(backend);
    char text[2048];
    describe(text, sizeof text, "10.0.0.0/8", "route \"/*\" { upstream = \"u\" }\n");
    house_write_conf(&h, 2, text);
    assert_int_equal(ctl(&h, NULL, "reload"), 0);
    assert_int_equal(get(h.port, "/api/telemetry/cost", NULL), 404);
    assert_int_equal(request(h.port, "POST", "/api/telemetry/cost", "", "x", NULL), 404);
    assert_int_equal(backend_calls(backend), calls); /* nor does the backend see it */
    assert_int_equal(get(h.ops_port, "/api/telemetry/cost", NULL), 200);
    house_remove(&h);
}

static void the_description_names_each_route_and_its_limits(void **state)
{
    (void)state;
    struct house h;
    start(&h, "127.0.0.0/8", ROUTES "route \"/br{ace}/\\\"q\" { upstream = \"u\" }\n");
    assert_int_equal(ctl(&h, NULL, "limit set few requests=7"), 0);
    json_t *j = document(h.port, "/api/telemetry/openapi.json", 200);
    json_t *paths = json_object_get(j, "paths"), *path;
    const char *name;
    assert_string_equal(json_string_value(json_object_get(j, "openapi")), "3.1.0");
    assert_true(json_is_string(json_object_get(json_object_get(j, "info"), "version")));
    json_t *limits = json_object_get(json_object_get(paths, "/few"), "x-ratelimit");
    assert_int_equal(json_array_size(limits), 1);
    json_t *few = json_array_get(limits, 0);
    assert_string_equal(json_string_value(json_object_get(few, "name")), "few");
    assert_int_equal(json_integer_value(json_object_get(few, "requests")), 7); /* in force */
    assert_true(json_number_value(json_object_get(few, "windowSeconds")) == 60);
    assert_non_null(json_object_get(paths, "/c/{rest}"));
    assert_non_null(json_object_get(paths, "/br%7Bace%7D/\"q"));
    json_object_foreach(paths, name, path)
    { /* what OpenAPI wants of each */
        json_t *get_it = json_object_get(path, "get"), *parameter;
        size_t i;
        assert_int_equal(name[0], '/');
        assert_true(json_object_size(json_object_get(get_it, "responses")) > 0);
        assert_true(json_is_string(json_object_get(get_it, "operationId")));
        if (strstr(name, "{rest}")) {
            json_array_foreach(json_object_get(path, "parameters"), i, parameter)
                assert_true(json_is_true(json_object_get(parameter, "required")));
            assert_int_equal(i, 1);
        }
        if (!strncmp(name, "/api/telemetry/", 15))
            assert_int_equal(get(h.ops_port, name, NULL), 200);
    }
    json_decref(j);
    house_remove(&h);
}

/* ---- documents as they are described ---- */

static bool is_of_type(const json_t *value, const char *type)
{
    return !strcmp(type, "object")    ? json_is_object(value)
           : !strcmp(type, "array")   ? json_is_array(value)
           : !strcmp(type, "string")  ? json_is_string(value)
           : !strcmp(type, "boolean") ? json_is_boolean(value)
           : !strcmp(type, "integer") ? json_is_integer(value)
           : !strcmp(type, "number")  ? json_is_number(value)
                                      : false;
}

/* "integer", or ["integer", "null"]. */
static bool is_described(const json_t *schema, const json_t *value)
{
    const json_t *type = json_object_get(schema, "type");
    if (json_is_string(type))
        return is_of_type(value, json_string_value(type));
    return json_is_null(value) || is_of_type(value, json_string_value(json_array_get(type, 0)));
}

static void compare(const char *where, json_t *schema, json_t *value);

static void compare_members(const char *where, json_t *schema, json_t *value)
{
    json_t *known = json_object_get(schema, "properties"),
           *more = json_object_get(schema, "additionalProperties"), *member;
    const char *name;
    char inner[400];
    json_object_foreach(value, name, member)
    {
        json_t *of = known ? json_object_get(known, name) : more;
        snprintf(inner, sizeof inner, "%s.%s", where, name);
        if (of)
            compare(inner, of, member);
        else if (strncmp(where, "openapi.json.paths.", 19)) /* only said to be an object */
            fail_msg("%s is not described", inner);
    }
    json_object_foreach(known, name, member)
    {
        if (!json_object_get(value, name) && strncmp(where, "history", 7))
            fail_msg("%s has no %s, which is described", where, name);
    }
}

static void compare(const char *where, json_t *schema, json_t *value)
{
    json_t *element;
    char inner[400];
    size_t i;
    if (!is_described(schema, value))
        fail_msg("%s is described as another type", where);
    if (json_is_object(value))
        compare_members(where, schema, value);
    json_array_foreach(value, i, element)
    {
        snprintf(inner, sizeof inner, "%s[%zu]", where, i);
        compare(inner, json_object_get(schema, "items"), element);
    }
}

static json_t *schema_of(json_t *description, const char *target)
{
    static const char *const steps[] = {"get",     "responses",        "200",
                                        "content", "application/json", "schema"};
    json_t *at = json_object_get(json_object_get(description, "paths"), target);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        at = json_object_get(at, steps[i]);
    assert_non_null(at);
    return at;
}

/* Of each list there is an element, each number that may be unknown is one once. */
static void let_all_be_told(struct house *h)
{
    char text[2048];
    describe(text, sizeof text, "127.0.0.0/8",
             ROUTES "route \"/ws\" { upstream = \"u\" websocket { } }\n"
                    "route \"/gone\" { upstream = \"gone\" }\n"
                    "upstream \"gone\" { server \"127.0.0.1:1\" { } }\n"
                    "cost { upstream_call = 0.001 by = \"header:X-Team\" }\n"
                    "alert \"busy\" { metric = \"workers\" above = 0 for = \"0s\" }\n");
    house_start(h, 2, "%s", text);
    ask_some(h);
    get(h->port, "/gone", NULL);
    get_with(h->port, "/c/2", "X-Team: red\r\n", NULL);
}

static bool has_alert(struct house *h)
{
    json_t *j = document(h->ops_port, "/api/telemetry/alerts", 200);
    const size_t n = json_array_size(json_object_get(j, "alerts"));
    json_decref(j);
    return n > 0;
}

static void each_document_is_as_the_description_says(void **state)
{
    (void)state;
    struct house h;
    let_all_be_told(&h);
    wait_until(has_alert(&h), 20000);
    json_t *description = document(h.ops_port, "/api/telemetry/openapi.json", 200);
    static const char *const targets[] = {"cache-stats",  "websocket-health",
                                          "cost",         "limits",
                                          "upstreams",    "routes",
                                          "history",      "history?metric=hitRate,p95&since=1m",
                                          "openapi.json", "alerts"};
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        char target[96];
        snprintf(target, sizeof target, "/api/telemetry/%s", targets[i]);
        json_t *j = document(h.ops_port, target, 200);
        target[strcspn(target, "?")] = 0;
        compare(target + strlen("/api/telemetry/"), schema_of(description, target), j);
        json_decref(j);
    }
    json_decref(description);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_route_limit_and_server_has_its_counts),
        cmocka_unit_test(no_sum_falls_when_workers_die_and_routes_come_and_go),
        cmocka_unit_test(prometheus_reads_native_histograms),
        cmocka_unit_test(a_scraper_may_choose_and_is_told_what_it_may),
        cmocka_unit_test(no_client_makes_a_series),
        cmocka_unit_test(scrapers_that_do_not_read_keep_nobody_from_it),
        cmocka_unit_test(telemetry_on_public_listeners_is_for_those_who_are_named),
        cmocka_unit_test(the_description_names_each_route_and_its_limits),
        cmocka_unit_test(each_document_is_as_the_description_says),
    };
    return run_with_backend(tests, &backend, answers);
}
