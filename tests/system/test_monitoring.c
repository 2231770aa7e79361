/* SPDX-License-Identifier: BSD-2-Clause */
/* The monitoring kit with the real Prometheus: its rules are good, each of their alerts fires and is
 * resolved; a running Prometheus that scrapes a running Polder fires some of them, and has data for
 * every query of the Grafana dashboard. */
#include "harness.h"
#include "ws_client.h"

#include <ctype.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define KIT "admin/monitoring/"

static struct backend *backend;

static bool answers(struct asked *a)
{
    return reply_ok(a, "", "here");
}

static char *read_file(const char *path)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = fopen(path, "r");
    if (!f || getdelim(&text, &size, 0, f) < 0)
        fail_msg("cannot read %s", path);
    fclose(f);
    return text;
}

/* All of `from` become `to`; takes text. */
static char *replaced(char *text, const char *from, const char *to)
{
    char *out = NULL;
    size_t size;
    FILE *f = open_memstream(&out, &size);
    const char *at = text;
    for (const char *hit; (hit = strstr(at, from)); at = hit + strlen(from))
        fprintf(f, "%.*s%s", (int)(hit - at), at, to);
    fputs(at, f);
    fclose(f);
    free(text);
    return out;
}

static void write_file(const char *dir, const char *name, char *text)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    free(text);
}

/* ---- a Prometheus that looks each second ---- */

struct prometheus {
    pid_t pid;
    unsigned port;
};

/* Waits of alerts are cut, or the story would take minutes. */
static char *without_waits(char *rules)
{
    static const char *const waits[] = {"for: 15s", "for: 30s", "for: 1m",
                                        "for: 2m",  "for: 5m",  "for: 10m"};
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++)
        rules = replaced(rules, waits[i], "for: 0s");
    return rules;
}

static void prometheus_start(struct prometheus *p, const struct house *h)
{
    char target[64], config[320], storage[320], listen[64], log[320];
    p->port = free_port();
    snprintf(target, sizeof target, "127.0.0.1:%u", h->ops_port);
    char *text = replaced(read_file(KIT "prometheus.yml"), "127.0.0.1:9145", target);
    write_file(h->dir, "prometheus.yml", replaced(text, "interval: 15s", "interval: 1s"));
    write_file(h->dir, "polder.rules.yml", without_waits(read_file(KIT "polder.rules.yml")));
    snprintf(config, sizeof config, "--config.file=%s/prometheus.yml", h->dir);
    snprintf(storage, sizeof storage, "--storage.tsdb.path=%s/tsdb", h->dir);
    snprintf(listen, sizeof listen, "--web.listen-address=127.0.0.1:%u", p->port);
    snprintf(log, sizeof log, "%s/prometheus.log", h->dir);
    p->pid = fork();
    if (p->pid == 0) {
        const int fd = open(log, O_WRONLY | O_CREAT, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* also where the story fails */
        execlp("prometheus", "prometheus", config, storage, listen, (char *)NULL);
        _exit(127);
    }
    wait_until(waitpid(p->pid, NULL, WNOHANG) == 0 && get(p->port, "/-/ready", NULL) == 200, 30000);
}

static void prometheus_stop(struct prometheus *p)
{
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
}

static void escape(const char *text, char *out, size_t size)
{
    size_t n = 0;
    for (; *text && n + 4 < size; text++)
        n += (size_t)snprintf(out + n, size - n, isalnum((unsigned char)*text) ? "%c" : "%%%02X",
                              (unsigned char)*text);
    out[n] = 0;
}

static json_t *prometheus_ask(const struct prometheus *p, const char *path)
{
    struct message m;
    json_error_t e;
    if (get(p->port, path, &m) != 200)
        fail_msg("%s: %s", path, m.body);
    json_t *j = json_loads(m.body, 0, &e);
    assert_non_null(j);
    message_free(&m);
    return j;
}

/* Samples that are a number. */
static size_t samples_of(const struct prometheus *p, const char *query)
{
    char escaped[4096], path[4200];
    size_t i, n = 0;
    json_t *one;
    escape(query, escaped, sizeof escaped);
    snprintf(path, sizeof path, "/api/v1/query?query=%s", escaped);
    json_t *j = prometheus_ask(p, path);
    json_array_foreach(json_object_get(json_object_get(j, "data"), "result"), i, one)
    {
        const char *value = json_string_value(json_array_get(json_object_get(one, "value"), 1));
        n += value && strcmp(value, "NaN") != 0;
    }
    json_decref(j);
    return n;
}

static bool fires(const struct prometheus *p, const char *alert)
{
    size_t i;
    json_t *one;
    bool found = false;
    json_t *j = prometheus_ask(p, "/api/v1/alerts");
    json_array_foreach(json_object_get(json_object_get(j, "data"), "alerts"), i, one) found |=
        !strcmp(json_string_value(json_object_get(json_object_get(one, "labels"), "alertname")),
                alert) &&
        !strcmp(json_string_value(json_object_get(one, "state")), "firing");
    json_decref(j);
    return found;
}

/* ---- stories ---- */

static void the_rules_are_good_and_each_fires_and_is_resolved(void **state)
{
    (void)state;
    assert_int_equal(system("promtool check rules " KIT "polder.rules.yml >/dev/null"), 0);
    assert_int_equal(system("promtool test rules " KIT "polder.rules.test.yml >/dev/null"), 0);
    assert_int_equal(system("promtool check config --syntax-only " KIT "prometheus.yml >/dev/null"),
                     0);
    /* none is without its test */
    char *rules = read_file(KIT "polder.rules.yml"),
         *tests = read_file(KIT "polder.rules.test.yml");
    unsigned n = 0;
    for (char *at = rules; (at = strstr(at, "- alert: ")); n++) {
        char name[80];
        at += strlen("- alert: ");
        snprintf(name, sizeof name, "alertname: %.*s\n", (int)strcspn(at, "\n"), at);
        if (!strstr(tests, name))
            fail_msg("no test of %s", name);
    }
    assert_true(n > 8);
    free(rules);
    free(tests);
}

static void traffic(const struct house *h)
{
    get(h->port, "/c/1", NULL);
    get(h->port, "/c/2", NULL);
    get(h->port, "/few", NULL);
    get(h->port, "/plain", NULL);
    get(h->port, "/dead", NULL);
}

/* "" once every query of the dashboard has data, or the first one that has none. */
static const char *without_data(const struct prometheus *p, const json_t *dashboard,
                                unsigned *queries)
{
    static char query[4096];
    size_t i, k;
    json_t *panel, *target;
    *queries = 0;
    json_array_foreach(json_object_get(dashboard, "panels"), i, panel)
        json_array_foreach(json_object_get(panel, "targets"), k, target)
    {
        char *text = strdup(json_string_value(json_object_get(target, "expr")));
        text = replaced(replaced(text, "$__rate_interval", "30s"), "$instance", ".*");
        snprintf(query, sizeof query, "%s", text);
        free(text);
        ++*queries;
        if (!samples_of(p, query))
            return query;
    }
    return "";
}

static void a_running_prometheus_has_data_and_fires(void **state)
{
    struct house h;
    struct prometheus p;
    json_error_t e;
    unsigned queries = 0;
    const unsigned dead_port = free_port(), ws_port = free_port();
    (void)state;
    const pid_t echo = peer_start("/usr/bin/python3", "tests/clients/echo_server.py", ws_port);
    house_start(&h, 1,
                "fleet { store = {\"unix:/nowhere/redis.sock\"} secret = \"sixteen characters\" }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "upstream \"dead\" { server \"127.0.0.1:%u\" { } park = 0 }\n"
                "upstream \"w\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"few\" { requests = 1 window = 1h key = \"global\" }\n"
                "cache { ttl = 6h }\n"
                "websocket { heartbeat = ping interval = 200ms timeout = 5s }\n"
                "route \"/c/*\" { upstream = \"u\" cache { } }\n"
                "route \"/few\" { upstream = \"u\" limits = {\"few\"} }\n"
                "route \"/plain\" { upstream = \"u\" }\n"
                "route \"/dead\" { upstream = \"dead\" }\n"
                "route \"/ws/*\" { upstream = \"w\" websocket { } }\n",
                backend_port(backend), dead_port, ws_port);
    prometheus_start(&p, &h);
    wait_for_supervisor(&h);
    const int ws = open_ws(h.port, "/ws/1");
    wait_until((traffic(&h), fires(&p, "PolderServerDown")), 30000);
    wait_until((traffic(&h), fires(&p, "PolderCondition")), 30000);
    wait_until((traffic(&h), fires(&p, "PolderFleetCutOff")), 30000);

    json_t *dashboard = json_load_file(KIT "grafana-dashboard.json", 0, &e);
    assert_non_null(dashboard);
    const uint64_t end = mono_ms() + harness_patience(30000);
    const char *missing;
    while (traffic(&h), *(missing = without_data(&p, dashboard, &queries)))
        if (mono_ms() > end)
            fail_msg("no data: %s", missing);
    assert_true(queries > 20);
    json_decref(dashboard);

    /* it is there again: the alert is resolved */
    const pid_t again = peer_start("/usr/bin/python3", "tests/clients/echo_server.py", dead_port);
    wait_until((get(h.port, "/dead", NULL), !fires(&p, "PolderServerDown")), 30000);
    peer_stop(again);
    close(ws);
    house_stop(&h);
    wait_until(fires(&p, "PolderDown"), 30000);
    prometheus_stop(&p);
    peer_stop(echo);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(the_rules_are_good_and_each_fires_and_is_resolved),
        cmocka_unit_test(a_running_prometheus_has_data_and_fires),
    };
    return run_with_backend(stories, &backend, answers);
}
