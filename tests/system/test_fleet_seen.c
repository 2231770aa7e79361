/* SPDX-License-Identifier: BSD-2-Clause */
/* What operators see of a fleet: in every place the same, in time, and nothing that is secret. */
#include "fleet_host.h"
#include "harness.h"
#include "redis.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOSTS  3
#define SECRET "a secret of sixteen or more"

static struct backend *backend;

static bool answers(struct asked *ask)
{
    return reply_ok(ask, "Cache-Control: max-age=300\r\nCache-Tag: t\r\n", "here");
}

struct fleet {
    struct redis redis[2];
    struct house host[HOSTS];
};

static const char *const names[HOSTS] = {"amber", "birch", "cedar"};

static void start_host(struct fleet *f, int i, const char *name, const char *more)
{
    house_start(&f->host[i], 1,
                "fleet { store = {\"redis://127.0.0.1:%u\", \"redis://127.0.0.1:%u\"} "
                "name = \"test\" host = \"%s\" secret = \"" SECRET "\" }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "cache { shared = true shared_timeout = 10s }\n%s",
                f->redis[0].port, f->redis[1].port, name, backend_port(backend), more);
}

static bool says(struct house *h, const char *command, const char *text)
{
    const char *out;
    ctl(h, &out, "%s", command);
    return out && strstr(out, text);
}

static bool is_member(struct house *h)
{
    return says(h, "fleet", "state     member");
}

#define ROUTES "route \"/*\" { upstream = \"u\" cache { } }\n"
#define LIMITS                                                                                     \
    "limit \"few\" { requests = 100 window = 1s key = \"global\" scope = fleet }\n"                \
    "route \"/*\" { upstream = \"u\" limits = {\"few\"} cache { } }\n"

static void start(struct fleet *f, int hosts, const char *more)
{
    *f = (struct fleet){0};
    f->redis[0].port = free_port();
    f->redis[1].port = free_port();
    redis_start(&f->redis[0]);
    for (int i = 0; i < hosts; i++)
        start_host(f, i, names[i], more);
    for (int i = 0; i < hosts; i++)
        wait_until(is_member(&f->host[i]), 10000);
}

static void stop(struct fleet *f)
{
    for (int i = 0; i < HOSTS; i++)
        if (f->host[i].pid)
            house_remove(&f->host[i]);
    for (int i = 0; i < 2; i++)
        if (*f->redis[i].dir)
            redis_remove(&f->redis[i]);
}

static bool page_says(struct house *h, const char *target, const char *text)
{
    struct message m;
    get(h->ops_port, target, &m);
    const bool there = m.body && strstr(m.body, text);
    message_free(&m);
    return there;
}

static bool has_condition(struct house *h, const char *name, const char *subject)
{
    char sample[200], row[100], fleet_alert[100];
    snprintf(sample, sizeof sample, "\npolder_condition{name=\"%s\",subject=\"%s\"} 1\n", name,
             subject);
    snprintf(row, sizeof row, "\"condition\": \"%s\"", name);
    snprintf(fleet_alert, sizeof fleet_alert, "\"condition\":\"%s\"", name);
    return page_says(h, "/metrics", sample) && says(h, "--json status", row) &&
           page_says(h, "/api/telemetry/conditions", fleet_alert);
}

/* Waits for one line of a polderctl watch. */
static void expect_event(struct house *h, const char *noun, const char *text)
{
    char command[400], line[1000] = "";
    int out[2];
    snprintf(command, sizeof command, "exec timeout 20 %s -s %s watch %s --events 0 2>&1",
             built("polderctl"), h->sock, noun);
    assert_int_equal(pipe(out), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        dup2(out[1], 1);
        close(out[0]);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    FILE *f = fdopen(out[0], "r");
    bool seen = false;
    while (!seen && fgets(line, sizeof line, f))
        seen = strstr(line, text) != NULL;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    fclose(f);
    if (!seen)
        fail_msg("polderctl watch %s: no \"%s\": %s", noun, text, line);
}

static void being_a_member_and_being_cut_off_is_seen_everywhere(void **state)
{
    (void)state;
    struct fleet f;
    start(&f, 2, LIMITS);
    struct house *h = &f.host[0];
    get(h->port, "/a", NULL);
    wait_until(says(h, "fleet", "\namber  yes"), 5000); /* in the order of their names */
    assert_true(says(h, "--json fleet", "\"accepted\": 0"));
    assert_true(says(h, "status", "member of test"));
    assert_false(says(h, "--json verify --only polling", "\"note\""));
    wait_until(page_says(h, "/metrics", "\npolder_fleet_hosts 2\n"), 5000);
    assert_true(page_says(h, "/metrics", "\npolder_fleet_degraded{mode=\"serve\"} 0\n"));
    assert_true(page_says(h, "/metrics?scope=fleet", "\npolder_fleet_lag_seconds 0\n"));
    assert_false(page_says(h, "/metrics?scope=fleet", "polder_cache"));
    assert_true(page_says(h, "/api/telemetry/fleet", "\"state\":\"member\""));
    expect_event(h, "fleet", "member test");

    redis_kill(&f.redis[0]);
    wait_until(has_condition(h, "fleet_cut_off", "test"), 10000);
    assert_true(says(h, "fleet", "state     cut off"));
    assert_true(says(h, "fleet", "Connection refused"));
    assert_true(says(h, "status", "cut off from test"));
    assert_true(says(h, "top", "fleet_cut_off test"));
    assert_true(says(h, "verify --only polling", "note: this host is cut off from its fleet"));
    assert_true(says(h, "--json verify --only polling", "\"note\": \"this host is cut off"));
    assert_true(page_says(h, "/metrics", "\npolder_fleet_degraded{mode=\"serve\"} 1\n"));
    assert_true(page_says(h, "/metrics", "\npolder_fleet_limit_degraded 1\n"));
    assert_true(page_says(h, "/metrics", "\npolder_fleet_hosts 0\n"));
    assert_true(page_says(h, "/api/telemetry/fleet", "\"state\":\"cut off\""));
    assert_true(page_says(h, "/readyz", "fleet_cut_off test: "));
    assert_int_equal(get(h->ops_port, "/readyz", NULL), 200); /* it serves on */
    expect_event(h, "fleet", "cut off test");

    redis_run(&f.redis[0]);
    wait_until(is_member(h), 10000);
    wait_until(!has_condition(h, "fleet_cut_off", "test"), 5000);
    wait_until(has_condition(h, "fleet_learning", "test"), 5000); /* it has another history */
    assert_true(page_says(h, "/metrics", "\npolder_fleet_degraded{mode=\"serve\"} 0\n"));
    stop(&f);
}

static bool has_condition_like(struct house *h, const char *subject)
{
    struct message m;
    get(h->ops_port, "/metrics", &m);
    const char *at = m.body ? strstr(m.body, "polder_condition{name=\"fleet_lag\"") : NULL;
    bool there = false;
    for (; at && !there; at = strstr(at + 1, "polder_condition{name=\"fleet_lag\""))
        there = memmem(at, strcspn(at, "\n"), subject, strlen(subject)) != NULL;
    message_free(&m);
    return there;
}

/* They renew their lease, whatever they apply. */
static bool renew(struct fleet *f, const char *host, unsigned applied)
{
    fleet_host_put(&f->redis[0], &(struct fleet_host_is){.fleet = "test",
                                                         .secret = SECRET,
                                                         .host = host,
                                                         .instance = 0xabc,
                                                         .applied = applied});
    return true;
}

static void hosts_that_are_late_or_have_one_name_are_named(void **state)
{
    (void)state;
    static const char mole[] = "\x1b[2Jmole\xff\n";
    struct fleet f;
    start(&f, 1, ROUTES);
    start_host(&f, 1, "amber", ROUTES);
    wait_until(has_condition(&f.host[1], "fleet_name_taken", "amber"), 10000);
    assert_true(page_says(&f.host[1], "/readyz", "fleet_name_taken amber: "));
    assert_false(has_condition(&f.host[0], "fleet_name_taken", "amber"));
    renew(&f, "sloth", 0);
    assert_int_equal(ctl(&f.host[0], NULL, "cache invalidate /a --local"), 0);
    wait_until(renew(&f, "sloth", 0) && has_condition(&f.host[0], "fleet_lag", "sloth"), 15000);
    wait_until(renew(&f, "sloth", 0) &&
                   says(&f.host[0], "fleet", "\nsloth  no    member        0    1") &&
                   page_says(&f.host[0], "/api/telemetry/fleet",
                             "\"host\":\"sloth\",\"state\":\"member\",\"applied\":0,\"lag\":1,"),
               5000);
    /* names come from the store: what a terminal would act on is none */
    wait_until(renew(&f, mole, 0) && says(&f.host[0], "fleet", "mole"), 5000);
    wait_until(renew(&f, mole, 0) && has_condition_like(&f.host[0], "mole"), 15000);
    assert_false(says(&f.host[0], "fleet", "\x1b"));
    assert_false(says(&f.host[0], "status", "\x1b"));
    assert_false(house_logged(&f.host[0], "\x1b"));
    assert_false(page_says(&f.host[0], "/metrics", "\x1b"));
    assert_false(page_says(&f.host[0], "/metrics", "\xff"));
    assert_false(page_says(&f.host[0], "/api/telemetry/fleet", "\x1b"));
    wait_until(renew(&f, "sloth", 1) && !has_condition(&f.host[0], "fleet_lag", "sloth"), 10000);
    stop(&f);
}

static void another_store_is_named(void **state)
{
    (void)state;
    struct fleet f;
    char moved[200];
    start(&f, 1, ROUTES);
    f.redis[1].master = f.redis[0].port;
    redis_start(&f.redis[1]);
    redis_kill(&f.redis[0]);
    redis_do(&f.redis[1], "REPLICAOF NO ONE");
    wait_until(has_condition(&f.host[0], "fleet_store_changed", "test"), 15000);
    snprintf(moved, sizeof moved, "redis://127.0.0.1:%u/0, before redis://127.0.0.1:%u/0",
             f.redis[1].port, f.redis[0].port);
    assert_true(says(&f.host[0], "--json status", moved));
    assert_true(has_condition(&f.host[0], "fleet_learning", "test"));
    assert_true(is_member(&f.host[0]));
    snprintf(moved, sizeof moved, "{\"server\":\"redis://127.0.0.1:%u/0\",\"state\":\"followed\"",
             f.redis[1].port);
    wait_until(page_says(&f.host[0], "/api/telemetry/fleet", moved), 5000);
    assert_true(page_says(&f.host[0], "/api/telemetry/fleet", "\"state\":\"unreachable\""));
    stop(&f);
}

static unsigned ask_for(struct house *h, const char *path, const char *status)
{
    struct message m;
    const int fd = client_connect(h->port);
    client_send(fd, "GET %s HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n", path);
    client_read(fd, &m, false);
    close(fd);
    const char *says_it = field_of(&m, "Cache-Status");
    const bool as_wanted = m.status == 200 && says_it && strstr(says_it, status);
    message_free(&m);
    return as_wanted;
}

/* Of what was taken from the store, too. */
static void cache_why_names_the_host_that_has_invalidated(void **state)
{
    (void)state;
    static const char *const ways[] = {"/a --soft", "/a", "--tag t", "--prefix /", "--all"};
    struct fleet f;
    const char *out;
    char id[40];
    start(&f, HOSTS, ROUTES);
    for (int i = 0; i < HOSTS; i++)
        wait_until(says(&f.host[i], "fleet", "cache     in use"), 10000);
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
        wait_until(ask_for(&f.host[0], "/a", "hit"), 10000);
        wait_until(ask_for(&f.host[1], "/a", "hit"), 10000);
        assert_int_equal(ctl(&f.host[2], &out, "cache invalidate %s", ways[i]), 0);
        snprintf(id, sizeof id, "\"fleet_id\": %u", i + 1);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(ctl(&f.host[k], &out, "--json cache why http://example.org/a"), 0);
            if (!strstr(out, "\"host\": \"cedar\"") || !strstr(out, id))
                fail_msg("invalidate %s, %s: %s", ways[i], names[k], out);
        }
    }
    stop(&f);
}

/* As a proxy may that knows no AUTH. */
static void repeats_what_it_was_asked(int fd)
{
    char in[4096], out[5000];
    const ssize_t n = read(fd, in, sizeof in - 1);
    if (n <= 0)
        return;
    for (ssize_t i = 0; i < n; i++)
        in[i] = (unsigned char)in[i] < ' ' ? ' ' : in[i];
    in[n] = 0;
    const int len = snprintf(out, sizeof out, "-ERR unknown command, with args: %s\r\n", in);
    if (write(fd, out, (size_t)len) < 0)
        return;
    while (read(fd, in, sizeof in) > 0)
        ;
}

static void no_secret_is_seen(void **state)
{
    (void)state;
    struct house h;
    struct backend *store = backend_start_raw(repeats_what_it_was_asked, 0);
    house_start(&h, 1,
                "fleet { store = {\"redis://joe:open%%20sesame@localhost:%u\"} secret = \"" SECRET
                "\" }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n" ROUTES,
                backend_port(store), backend_port(backend));
    wait_until(says(&h, "fleet", "unknown command, with args: "), 10000);
    wait_until(has_condition(&h, "fleet_cut_off", "polder"), 10000);
    static const char *const pages[] = {"/metrics", "/api/telemetry/fleet",
                                        "/api/telemetry/conditions", "/readyz"};
    static const char *const secrets[] = {"open sesame", "sesame", SECRET};
    for (unsigned s = 0; s < 3; s++) {
        for (unsigned i = 0; i < 4; i++)
            assert_false(page_says(&h, pages[i], secrets[s]));
        assert_false(says(&h, "fleet", secrets[s]));
        assert_false(says(&h, "status", secrets[s]));
        assert_false(house_logged(&h, secrets[s]));
    }
    house_remove(&h);
    backend_stop(store);
}

static void edit(struct house *h, const char *fleet)
{
    char text[600];
    snprintf(text, sizeof text, "%supstream \"u\" { server \"127.0.0.1:%u\" { } }\n" ROUTES, fleet,
             backend_port(backend));
    house_write_conf(h, 1, text);
    assert_int_equal(ctl(h, NULL, "reload --wait"), 0);
}

static void where_there_is_no_fleet_nothing_is_seen(void **state)
{
    (void)state;
    struct house h;
    struct redis r = {0};
    char fleet[300];
    house_start(&h, 1, "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n" ROUTES,
                backend_port(backend));
    assert_true(says(&h, "fleet", "this host is in no fleet"));
    assert_false(says(&h, "status", "fleet"));
    assert_true(page_says(&h, "/api/telemetry/fleet", "null\n"));
    assert_true(page_says(&h, "/metrics", "\npolder_fleet_degraded{mode=\"serve\"} 0\n"));
    /* a reload makes it a host of a fleet, of another one, and of none again */
    redis_start(&r);
    snprintf(fleet, sizeof fleet,
             "fleet { store = {\"unix:%s\"} host = \"amber\" cut_off = bypass secret = \"" SECRET
             "\" }\n",
             r.sock);
    edit(&h, fleet);
    wait_until(is_member(&h), 10000);
    assert_true(page_says(&h, "/metrics", "\npolder_fleet_degraded{mode=\"bypass\"} 0\n"));
    edit(&h, "fleet { store = {\"unix:/nowhere\"} host = \"amber\" secret = \"" SECRET "\" }\n");
    wait_until(has_condition(&h, "fleet_cut_off", "polder"), 10000);
    assert_true(says(&h, "fleet", "unix:/nowhere"));
    edit(&h, "");
    wait_until(says(&h, "fleet", "this host is in no fleet"), 5000);
    assert_false(has_condition(&h, "fleet_cut_off", "polder"));
    assert_true(page_says(&h, "/api/telemetry/fleet", "null\n"));
    house_remove(&h);
    redis_remove(&r);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(being_a_member_and_being_cut_off_is_seen_everywhere),
        cmocka_unit_test(hosts_that_are_late_or_have_one_name_are_named),
        cmocka_unit_test(another_store_is_named),
        cmocka_unit_test(cache_why_names_the_host_that_has_invalidated),
        cmocka_unit_test(no_secret_is_seen),
        cmocka_unit_test(where_there_is_no_fleet_nothing_is_seen),
    };
    return run_with_backend(stories, &backend, answers);
}
