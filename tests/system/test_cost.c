/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of money: what the backend was asked and what was spared, counted by the test itself,
 * equals what the page, the command and /metrics say. Prices are chosen so that each sum shows
 * where it comes from. */
#include "harness.h"
#include "ws_client.h"

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CALL 0.5
#define PAGE "/api/telemetry/cost"

static struct backend *backend;

static bool answers(struct asked *a)
{
    return reply_ok(a, "", "here");
}

static void start(struct house *h, const char *allow, unsigned ws_port)
{
    house_start(h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "upstream \"w\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"few\" { requests = 2 window = 1h key = \"global\" }\n"
                "cache { ttl = 6h }\n"
                "websocket { heartbeat = ping interval = 500ms timeout = 1s }\n"
                "telemetry { allow = {\"%s\"} }\n"
                "cost { currency = \"CHF\" upstream_call = 0.5 websocket_hour = 1000 }\n"
                "route \"/c/*\" { upstream = \"u\" cache { leak_guard = 0 } }\n"
                "route \"/p/*\" { upstream = \"u\" cache { leak_guard = 0 } poll { } }\n"
                "route \"/few\" { upstream = \"u\" limits = {\"few\"} }\n"
                "%s",
                backend_port(backend), ws_port ? ws_port : 1, allow,
                ws_port ? "route \"/ws/*\" { upstream = \"w\" websocket { } }\n" : "");
    backend_forget(backend);
}

static json_t *page_of(unsigned port)
{
    struct message m;
    json_error_t e;
    assert_int_equal(get(port, PAGE, &m), 200);
    json_t *j = json_loads(m.body, 0, &e);
    if (!j)
        fail_msg("%s", m.body);
    message_free(&m);
    return j;
}

static double member(const json_t *j, const char *name)
{
    const json_t *value = json_object_get(j, name);
    if (!json_is_number(value))
        fail_msg("%s is no number", name);
    return json_number_value(value);
}

static double saved_by(const json_t *j, const char *name)
{
    return member(json_object_get(j, "byOptimisation"), name);
}

static bool same(double a, double b)
{
    return fabs(a - b) < 1e-6 * (1 + fabs(b));
}

/* "NAME{...} VALUE" */
static double metric(struct house *h, const char *sample)
{
    struct message m;
    char line[128];
    snprintf(line, sizeof line, "\n%s ", sample);
    assert_int_equal(get(h->ops_port, "/metrics", &m), 200);
    const char *at = strstr(m.body, line);
    if (!at)
        fail_msg("no %s", sample);
    const double value = strtod(at + strlen(line), NULL);
    message_free(&m);
    return value;
}

struct seen {
    unsigned hits, polls, refused;
};

static unsigned sum_of(const struct seen *s)
{
    return s->hits + s->polls + s->refused;
}

/* n requests; how many of them the backend was spared. */
static unsigned spared(struct house *h, const char *target, unsigned n)
{
    const unsigned before = backend_calls(backend);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(get(h->port, target, NULL), 200);
    const unsigned asked = backend_calls(backend) - before;
    assert_true(asked >= 1 && asked < n);
    return n - asked;
}

static double savings(struct house *h)
{
    json_t *j = page_of(h->ops_port);
    const double sum = member(j, "savingsRealized");
    json_decref(j);
    return sum;
}

static void make_traffic(struct house *h, struct seen *seen)
{
    *seen = (struct seen){spared(h, "/c/x", 40), spared(h, "/p/x", 30), 0};
    for (int i = 0; i < 5; i++)
        seen->refused += get(h->port, "/few", NULL) == 429;
    assert_int_equal(seen->refused, 3);
    /* an answer may be here before the worker has counted it */
    wait_until(same(savings(h), sum_of(seen) * CALL), 5000);
}

static void check_page(const json_t *j, const struct seen *seen)
{
    const double calls = backend_calls(backend);
    assert_string_equal(json_string_value(json_object_get(j, "currency")), "CHF");
    assert_true(same(member(j, "apiCalls"), calls));
    assert_true(same(member(j, "estimatedCost"), calls * CALL));
    assert_true(same(saved_by(j, "caching"), seen->hits * CALL));
    assert_true(same(saved_by(j, "polling"), seen->polls * CALL));
    assert_true(same(saved_by(j, "rateLimiting"), seen->refused * CALL));
    assert_true(same(saved_by(j, "websocket"), 0));
    assert_true(same(member(j, "savingsRealized"), sum_of(seen) * CALL));
    assert_true(member(j, "projectedMonthly") > member(j, "estimatedCost"));
}

static void page_command_and_metrics_say_what_was_counted(void **state)
{
    (void)state;
    struct house h;
    struct seen seen;
    const char *out;
    json_error_t e;
    start(&h, "127.0.0.0/8", 0);
    make_traffic(&h, &seen);
    for (int public = 0; public < 2; public ++) { /* asking costs nothing */
        json_t *j = page_of(public ? h.port : h.ops_port);
        check_page(j, &seen);
        assert_true(json_is_null(json_object_get(json_object_get(j, "projections"), "lastHour")));
        json_decref(j);
    }
    assert_int_equal(ctl(&h, &out, "--json cost"), 0);
    json_t *j = json_loads(out, 0, &e);
    assert_non_null(j);
    assert_true(same(member(j, "api_calls"), backend_calls(backend)));
    assert_true(same(member(j, "savings_realized"), sum_of(&seen) * CALL));
    const json_t *list = json_object_get(j, "by_optimisation");
    const double counted[] = {seen.polls, 0, seen.hits, seen.refused};
    assert_int_equal(json_array_size(list), 4);
    for (size_t i = 0; i < 4; i++)
        assert_true(same(member(json_array_get(list, i), "spared"), counted[i]));
    json_decref(j);
    assert_int_equal(ctl(&h, &out, "cost"), 0);
    assert_non_null(strstr(out, "rateLimiting"));
    assert_non_null(strstr(out, "since start"));
    assert_null(strstr(out, "last hour"));
    assert_true(same(metric(&h, "polder_cost_estimated"), backend_calls(backend) * CALL));
    assert_true(
        same(metric(&h, "polder_cost_savings{optimisation=\"caching\"}"), seen.hits * CALL));
    assert_true(
        same(metric(&h, "polder_cost_savings{optimisation=\"polling\"}"), seen.polls * CALL));
    assert_true(same(metric(&h, "polder_cost_info{currency=\"CHF\"}"), 1));
    assert_true(metric(&h, "polder_cost_projected_monthly{window=\"start\"}") > 0);
    house_remove(&h);
}

static void who_is_not_allowed_sees_no_money(void **state)
{
    (void)state;
    struct house h;
    start(&h, "10.0.0.0/8", 0);
    assert_int_equal(get(h.port, PAGE, NULL), 404);
    assert_int_equal(get(h.ops_port, PAGE, NULL), 200);
    house_remove(&h);
}

static pid_t control_of(struct house *h)
{
    pid_t pid[2];
    return house_children(h, "polderd: control", pid, 2) == 1 ? pid[0] : 0;
}

static bool knows_last_hour(struct house *h)
{
    json_t *j = page_of(h->ops_port),
           *hour = json_object_get(json_object_get(j, "projections"), "lastHour");
    const bool known = json_is_object(hour);
    json_decref(j);
    return known;
}

static void counts_outlive_control_and_the_last_hour_does_not(void **state)
{
    (void)state;
    struct house h;
    struct seen seen;
    const char *out;
    start(&h, "127.0.0.0/8", 0);
    assert_int_equal(ctl(&h, &out, "cost"), 0);
    wait_until(!knows_last_hour(&h), 5000);
    make_traffic(&h, &seen);
    house_advance(&h, 3700000);
    wait_until(knows_last_hour(&h), 10000);
    assert_true(metric(&h, "polder_cost_projected_monthly{window=\"hour\"}") > 0);
    const pid_t control = control_of(&h);
    assert_true(control > 0);
    kill(control, SIGKILL);
    wait_until(control_of(&h) && control_of(&h) != control &&
                   get(h.ops_port, "/healthz", NULL) == 200,
               10000);
    json_t *j = page_of(h.ops_port);
    check_page(j, &seen);
    json_decref(j);
    assert_false(knows_last_hour(&h));
    house_remove(&h);
}

/* New prices hold for all that was counted. */
static void a_reload_changes_the_prices(void **state)
{
    (void)state;
    struct house h;
    struct seen seen;
    char routes[512];
    start(&h, "127.0.0.0/8", 0);
    make_traffic(&h, &seen);
    snprintf(routes, sizeof routes,
             "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
             "cost { currency = \"USD\" upstream_call = 2 }\nroute \"/*\" { upstream = \"u\" }\n",
             backend_port(backend));
    house_write_conf(&h, 2, routes);
    assert_int_equal(ctl(&h, NULL, "reload"), 0);
    json_t *j = page_of(h.ops_port);
    assert_string_equal(json_string_value(json_object_get(j, "currency")), "USD");
    assert_true(same(member(j, "savingsRealized"), sum_of(&seen) * 2.));
    json_decref(j);
    house_remove(&h);
}

static double websocket_savings(struct house *h)
{
    json_t *j = page_of(h->ops_port);
    const double saved = saved_by(j, "websocket");
    json_decref(j);
    return saved;
}

static double reaped(struct house *h)
{
    const char *out;
    json_error_t e;
    assert_int_equal(ctl(h, &out, "--json ws stats"), 0);
    json_t *j = json_loads(out, 0, &e);
    assert_non_null(j);
    const double n = member(j, "reaped");
    json_decref(j);
    return n;
}

/* One client that answers no ping, and each hour that it would have been held since. */
static void a_reaped_websocket_saves_hour_by_hour(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    const unsigned echo_port = free_port();
    const pid_t echo = peer_start("/usr/bin/python3", "tests/clients/echo_server.py", echo_port);
    start(&h, "127.0.0.0/8", echo_port);
    wait_for_supervisor(&h);
    assert_true(same(websocket_savings(&h), 0));
    const int client = open_ws(h.port, "/ws/x");
    wait_until(reaped(&h) == 1, 20000);
    house_advance(&h, 2 * 3600000);
    wait_until(websocket_savings(&h) >= 2000, 10000);
    assert_true(websocket_savings(&h) < 2500); /* and not by what was reaped long before */
    close(client);
    const pid_t supervisor = supervisor_of(&h);
    assert_true(supervisor > 1);
    const pid_t working = working_process(supervisor);
    kill(supervisor, SIGSTOP); /* else it would replace the other one */
    kill(working, SIGSTOP);    /* nobody says: not that there was nothing */
    assert_int_equal(get(h.ops_port, PAGE, &m), 200);
    assert_non_null(strstr(m.body, "\"websocket\":null"));
    message_free(&m);
    kill(working, SIGCONT);
    kill(supervisor, SIGCONT);
    house_remove(&h);
    peer_stop(echo);
}

/* ---- by tenant ---- */

static const json_t *tenant_of(const json_t *page, const char *name)
{
    const json_t *list = json_object_get(page, "byTenant");
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one) if (!strcmp(json_string_value(json_object_get(one, "tenant")),
                                                 name)) return one;
    fail_msg("no tenant %s", name);
    return NULL;
}

/* Counts of an answer may come a moment after it. */
static bool all_is_counted(unsigned port)
{
    json_t *page = page_of(port);
    const bool counted = same(saved_by(page, "caching"), 4 * CALL) &&
                         same(saved_by(page, "rateLimiting"), 1 * CALL) &&
                         same(member(page, "apiCalls"), 4) &&
                         same(saved_by(tenant_of(page, "acme"), "caching"), 4 * CALL);
    json_decref(page);
    return counted;
}

static void cost_and_savings_are_shared_out_to_tenants(void **state)
{
    struct house h;
    const char *out;
    (void)state;
    house_start(&h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"few\" { requests = 2 window = 1h key = \"header:x-workspace\" }\n"
                "cache { ttl = 6h }\n"
                "cost { currency = \"CHF\" upstream_call = 0.5 by = \"header:X-Workspace\" }\n"
                "route \"/c/*\" { upstream = \"u\" cache { leak_guard = 0 share = true } }\n"
                "route \"/few\" { upstream = \"u\" limits = {\"few\"} }\n",
                backend_port(backend));
    const int fd = client_connect(h.port);
    struct message m;
    for (int i = 0; i < 5; i++) { /* on one connection, with the same bytes */
        client_send(fd, "GET /c/1 HTTP/1.1\r\nHost: t\r\nX-Workspace: acme\r\n\r\n");
        client_read(fd, &m, false);
        assert_int_equal(m.status, 200);
        message_free(&m);
    }
    close(fd);
    for (int i = 0; i < 3; i++)
        get_with(h.port, "/few", "X-Workspace: \"quoted\"\r\n", NULL);
    get(h.port, "/c/2", NULL); /* nobody's */

    wait_until(all_is_counted(h.ops_port), 10000);
    json_t *page = page_of(h.ops_port);
    const json_t *acme = tenant_of(page, "acme"), *quoted = tenant_of(page, "\"quoted\""),
                 *rest = tenant_of(page, "unassigned");
    assert_true(same(member(acme, "apiCalls"), 1));
    assert_true(same(saved_by(acme, "caching"), 4 * CALL));
    assert_true(same(member(quoted, "apiCalls"), 2));
    assert_true(same(saved_by(quoted, "rateLimiting"), 1 * CALL));
    assert_true(same(member(rest, "apiCalls"), 1));
    assert_true(same(member(acme, "savingsRealized") + member(quoted, "savingsRealized") +
                         member(rest, "savingsRealized"),
                     member(page, "savingsRealized")));
    assert_true(same(member(page, "estimatedCost"), 4 * CALL));
    json_decref(page);
    assert_int_equal(ctl(&h, &out, "cost"), 0);
    assert_non_null(strstr(out, "TENANT"));
    assert_non_null(strstr(out, "acme"));
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_command_and_metrics_say_what_was_counted),
        cmocka_unit_test(who_is_not_allowed_sees_no_money),
        cmocka_unit_test(counts_outlive_control_and_the_last_hour_does_not),
        cmocka_unit_test(a_reload_changes_the_prices),
        cmocka_unit_test(a_reaped_websocket_saves_hour_by_hour),
        cmocka_unit_test(cost_and_savings_are_shared_out_to_tenants),
    };
    return run_with_backend(tests, &backend, answers);
}
