/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of what an operator does to a running service: reload, drain, stop. */
#include "harness.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static struct backend *backend;

static bool answers(struct asked *a)
{
    return reply_ok(a, "", a->target);
}

static const char *routes_with(unsigned requests, unsigned weight)
{
    static char text[512];
    snprintf(text, sizeof text,
             "upstream \"u\" { server \"127.0.0.1:%u\" { weight = %u } }\n"
             "limit \"kept\" { requests = %u window = 60s key = \"client\" }\n"
             "limit \"lost\" { requests = %u window = 60s key = \"client\" }\n"
             "route \"/*\" { upstream = \"u\" cache { } limits = {\"kept\", \"lost\"} }\n",
             backend_port(backend), weight, requests, requests);
    return text;
}

static const char *routes(void)
{
    return routes_with(100, 100);
}

/* ---- reload ---- */

static void a_reload_waits_and_fails_on_a_broken_file(void **state)
{
    struct house h;
    const char *out;
    char broken[700];
    (void)state;
    house_start(&h, 1, "%s", routes());
    assert_int_equal(ctl(&h, &out, "reload"), 0);
    assert_non_null(strstr(out, "reloaded    yes"));
    assert_non_null(strstr(out, "generation  2"));
    snprintf(broken, sizeof broken, "%snonsense = 1\n", routes());
    house_write_conf(&h, 1, broken);
    assert_int_equal(ctl(&h, &out, "reload"), 1);
    assert_non_null(strstr(out, "nonsense"));
    assert_int_equal(ctl(&h, &out, "reload --no-wait"), 0); /* asked for, no more */
    assert_non_null(strstr(out, "asked  yes"));
    assert_int_equal(get(h.port, "/x", NULL), 200);
    house_remove(&h);
}

static void a_reload_says_what_it_keeps_and_what_it_resets(void **state)
{
    struct house h;
    const char *out;
    (void)state;
    house_start(&h, 1, "%s", routes());
    assert_int_equal(ctl(&h, NULL, "limit set kept requests=50 --persist"), 0);
    assert_int_equal(ctl(&h, NULL, "limit set lost requests=60 window=30s"), 0);
    assert_int_equal(ctl(&h, NULL, "upstream weight u 127.0.0.1:%u 7", backend_port(backend)), 0);
    assert_int_equal(ctl(&h, NULL, "cache set ttl=10s"), 0);
    assert_int_equal(ctl(&h, &out, "--json reload"), 0);
    assert_non_null(strstr(out, "\"reset\": []"));
    assert_non_null(strstr(out, "limit kept requests 50 (file: 100)"));
    assert_non_null(strstr(out, "limit lost requests 60 (file: 100)"));
    assert_non_null(strstr(out, "limit lost window 30s (file: 1m)"));
    assert_non_null(strstr(out, "weight 7 (file: 100)"));
    assert_non_null(strstr(out, "cache ttl 10s (file: 5m)"));
    assert_null(strstr(out, "dry_run"));
    assert_true(house_logged(&h, "reload: kept limit kept requests 50"));
    /* the file's value of a key has changed: that one holds, permanent or not */
    house_write_conf(&h, 1, routes_with(80, 50));
    assert_int_equal(ctl(&h, &out, "--json reload"), 0);
    char *kept = strstr(out, "\"kept\""), *reset = strstr(out, "\"reset\"");
    assert_non_null(kept);
    assert_non_null(reset);
    assert_non_null(strstr(reset, "limit kept requests 50 -> 80"));
    assert_non_null(strstr(reset, "limit lost requests 60 -> 80"));
    assert_non_null(strstr(reset, "weight 7 -> 50"));
    assert_null(strstr(reset, "window_ms"));
    assert_non_null(strstr(kept, "limit lost window 30s (file: 1m)"));
    assert_non_null(strstr(kept, "cache ttl 10s"));
    assert_true(house_logged(&h, "reload: reset limit lost requests 60 -> 80: "));
    assert_int_equal(ctl(&h, &out, "--json reload"), 0); /* the next one has nothing to reset */
    assert_non_null(strstr(out, "\"reset\": []"));
    assert_int_equal(ctl(&h, &out, "--json limit show kept"), 0);
    assert_non_null(strstr(out, "\"requests\": 80"));
    assert_non_null(strstr(out, "\"persisted\": false"));
    house_remove(&h);
}

static void what_is_persisted_outlives_reloads_and_restarts(void **state)
{
    struct house h;
    const char *out;
    const unsigned port = backend_port(backend);
    (void)state;
    house_start(&h, 1, "%s", routes());
    assert_int_equal(ctl(&h, NULL, "upstream weight u 127.0.0.1:%u 7 --persist", port), 0);
    assert_int_equal(ctl(&h, NULL, "cache set ttl=10s max_items=77 --persist"), 0);
    assert_int_equal(ctl(&h, &out, "--json reload"), 0);
    char *reset = strstr(out, "\"reset\"");
    assert_non_null(strstr(out, "cache ttl 10s"));
    assert_non_null(strstr(out, "cache max_items 77"));
    assert_non_null(strstr(out, "weight 7"));
    assert_true(strstr(out, "weight 7") < reset);
    assert_int_equal(house_stop(&h), 0);
    house_run(&h);
    assert_int_equal(ctl(&h, &out, "--json upstream list"), 0);
    assert_non_null(strstr(out, "\"weight\": 7"));
    assert_int_equal(ctl(&h, &out, "cache set max_items=78"), 0);
    assert_non_null(strstr(out, "max items: 77 -> 78"));
    assert_int_equal(ctl(&h, &out, "upstream revert u 127.0.0.1:%u", port), 0);
    assert_int_equal(ctl(&h, &out, "cache revert"), 0);
    assert_int_equal(ctl(&h, &out, "--json upstream list"), 0);
    assert_null(strstr(out, "\"weight\": 7"));
    assert_int_equal(house_stop(&h), 0);
    house_run(&h);
    assert_int_equal(ctl(&h, &out, "cache set max_items=79"), 0);
    assert_non_null(strstr(out, "max items: 1000 -> 79"));
    house_remove(&h);
}

static bool ws_is(struct house *h, const char *change)
{
    const char *out;
    /* prints what is running */
    assert_int_equal(ctl(h, &out, "--json ws set max_per_client=1"), 0);
    return strstr(out, change) != NULL;
}

static void write_websocket(struct house *h, const char *defaults)
{
    char text[700];
    snprintf(text, sizeof text,
             "%swebsocket { %s }\nroute \"/ws\" { upstream = \"u\" websocket { } }\n", routes(),
             defaults);
    house_write_conf(h, 1, text);
}

static void what_ws_set_persists_outlives_reloads_and_restarts(void **state)
{
    struct house h;
    const char *out;
    (void)state;
    house_start(&h, 1, "%sroute \"/ws\" { upstream = \"u\" websocket { } }\n", routes());
    assert_int_equal(ctl(&h, NULL, "ws set max_connections=5 interval=7s --persist"), 0);
    assert_int_equal(ctl(&h, NULL, "ws set route=/ws max_message=64K --persist"), 0);
    assert_int_equal(ctl(&h, &out, "ws set interval=never --persist"), 2);
    assert_int_equal(ctl(&h, NULL, "ws set timeout=9s"), 0);
    assert_true(ws_is(&h, "\"timeout_ms\": 9000"));
    assert_int_equal(ctl(&h, &out, "--json reload"), 0);
    assert_non_null(strstr(strstr(out, "\"kept\""), "what ws set has changed"));
    wait_until(house_logged(&h, "kept websocket timeout 9s (file: "), 10000);
    assert_true(ws_is(&h, "\"max_connections\": 5,"));
    assert_true(ws_is(&h, "\"interval_ms\": 7000"));
    assert_true(ws_is(&h, "\"timeout_ms\": 9000"));
    write_websocket(&h, "timeout = 8s");
    assert_int_equal(ctl(&h, NULL, "reload"), 0);
    wait_until(house_logged(&h, "reset websocket timeout 9s -> 8s"), 10000);
    assert_true(ws_is(&h, "\"timeout_ms\": 8000"));
    assert_true(ws_is(&h, "\"interval_ms\": 7000"));
    assert_int_equal(house_stop(&h), 0);
    house_run(&h);
    assert_true(ws_is(&h, "\"max_connections\": 5,"));
    assert_int_equal(ctl(&h, &out, "--json ws set route=/ws max_per_client=2"), 0);
    assert_non_null(strstr(out, "\"max_message_bytes\": 65536"));
    assert_int_equal(ctl(&h, NULL, "ws revert --route /ws"), 0);
    assert_int_equal(ctl(&h, &out, "--json ws set route=/ws max_per_client=2"), 0);
    assert_null(strstr(out, "\"max_message_bytes\": 65536"));
    assert_int_equal(ctl(&h, NULL, "ws revert"), 0);
    assert_false(ws_is(&h, "\"max_connections\": 5,"));
    assert_int_equal(house_stop(&h), 0);
    house_run(&h);
    assert_false(ws_is(&h, "\"max_connections\": 5,"));
    assert_int_equal(ctl(&h, NULL, "ws revert --route /nowhere"), 1);
    house_remove(&h);
}

/* A region that keeper and control have left is free at once: it was rested for 10 s each. */
static void many_reloads_in_a_row_do_not_wait_for_each_other(void **state)
{
    struct house h;
    (void)state;
    house_start(&h, 1, "%s", routes());
    for (unsigned i = 0; i < 8; i++) {
        const uint64_t began = mono_ms();
        assert_int_equal(ctl(&h, NULL, "reload"), 0);
        assert_true(mono_ms() - began < 5000);
    }
    assert_int_equal(get(h.port, "/x", NULL), 200);
    house_remove(&h);
}

/* One route, and another one or not. */
static const char *routes_and(bool more)
{
    static char text[512];
    snprintf(text, sizeof text,
             "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n%s"
             "route \"/old/*\" { upstream = \"u\" }\n",
             backend_port(backend), more ? "route \"/new/*\" { upstream = \"u\" }\n" : "");
    return text;
}

static pid_t reload_begin(struct house *h)
{
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(ctl(h, NULL, "reload"));
    return pid;
}

/* One that has no time to look at its signals would still accept: it gets time, or dies. */
static void reload_waits_until(int signal)
{
    struct house h;
    pid_t old[4];
    int status;
    house_start(&h, 2, "%s", routes());
    assert_int_equal(house_children(&h, "polderd: worker", old, 4), 2);
    kill(old[1], SIGSTOP);
    const pid_t reload = reload_begin(&h);
    wait_until(house_logged(&h, "generation 2 serves"), 10000);
    usleep(100000); /* it has time to end too early */
    const pid_t ended = waitpid(reload, &status, WNOHANG);
    kill(old[1], signal);
    if (ended == 0)
        assert_int_equal(waitpid(reload, &status, 0), reload);
    else /* only a machine that stood still for a second */
        assert_true(house_logged(&h, "1 of the old workers may still accept"));
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    house_remove(&h);
}

static void a_reload_ends_when_the_old_workers_accept_no_more(void **state)
{
    (void)state;
    reload_waits_until(SIGCONT);
    reload_waits_until(SIGKILL);
}

static void an_old_worker_that_stands_still_delays_a_reload_by_a_second(void **state)
{
    struct house h;
    pid_t old[4];
    (void)state;
    house_start(&h, 2, "%s", routes());
    assert_int_equal(house_children(&h, "polderd: worker", old, 4), 2);
    kill(old[0], SIGSTOP);
    assert_int_equal(ctl(&h, NULL, "reload"), 0);
    assert_true(house_logged(&h, "1 of the old workers may still accept"));
    kill(old[0], SIGKILL); /* or a stop would wait for it */
    assert_int_equal(get(h.port, "/x", NULL), 200);
    house_remove(&h);
}

static void a_new_connection_after_a_reload_finds_the_new_routes(void **state)
{
    struct house h;
    (void)state;
    house_start(&h, 2, "%s", routes());
    for (unsigned i = 0; i < 50; i++) {
        house_write_conf(&h, 2, routes_and(i % 2 == 0));
        assert_int_equal(ctl(&h, NULL, "reload"), 0);
        for (unsigned k = 0; k < 4; k++)
            assert_int_equal(get(h.port, "/new/x", NULL), i % 2 == 0 ? 200 : 404);
    }
    assert_false(house_logged(&h, "may still accept"));
    house_remove(&h);
}

/* ---- limit top ---- */

static void a_few_requests_are_counted_exactly(void **state)
{
    struct house h;
    const char *out;
    (void)state;
    house_start(&h, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"few\" { requests = 3 window = 1h key = \"client\" }\n"
                "route \"/*\" { upstream = \"u\" cache { } limits = {\"few\"} }\n",
                backend_port(backend));
    const int fd = client_connect(h.port);
    for (unsigned i = 0; i < 7; i++) {
        struct message m;
        client_send(fd, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        client_read(fd, &m, false);
        assert_int_equal(m.status, i < 3 ? 200 : 429);
        message_free(&m);
    }
    close(fd);
    assert_int_equal(ctl(&h, &out, "--json limit top few"), 0);
    char *heaviest = strstr(out, "\"heaviest\""), *refused = strstr(out, "\"refused\"");
    assert_non_null(heaviest);
    assert_non_null(refused);
    assert_int_equal(atoi(strstr(heaviest, "\"requests\": ") + 12), 7);
    assert_int_equal(atoi(strstr(refused, "\"requests\": ") + 12), 4);
    assert_int_equal(atoi(strstr(refused, "\"overcount\": ") + 13), 0);
    assert_int_equal(ctl(&h, &out, "limit top few"), 0);
    assert_non_null(strstr(out, "OVERCOUNT"));
    assert_null(strstr(out, "ERROR"));
    house_remove(&h);
}

/* ---- drain and stop ---- */

static bool is_kept_open(struct house *h)
{
    struct message m;
    const int fd = client_connect(h->port);
    client_send(fd, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    client_read(fd, &m, false);
    const bool keeps = field_of(&m, "connection") == NULL;
    message_free(&m);
    close(fd);
    return keeps;
}

static void drain_sends_clients_elsewhere_until_it_is_off(void **state)
{
    struct house h;
    struct message m;
    const char *out;
    (void)state;
    house_start(&h, 2, "%s", routes());
    const int fd = client_connect(h.port);
    client_send(fd, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    client_read(fd, &m, false);
    assert_null(field_of(&m, "connection"));
    message_free(&m);
    assert_int_equal(ctl(&h, &out, "drain"), 0);
    assert_true(client_closed(fd, 8000)); /* it was idle */
    close(fd);
    assert_int_equal(get(h.ops_port, "/readyz", &m), 503);
    assert_non_null(strstr(m.body, "draining: "));
    message_free(&m);
    for (unsigned i = 0; i < 4; i++) { /* who comes all the same is served, and then sent away */
        const int late = client_connect(h.port);
        client_send(late, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        client_read(late, &m, false);
        assert_int_equal(m.status, 200);
        assert_string_equal(field_of(&m, "connection"), "close");
        message_free(&m);
        close(late);
    }
    assert_int_equal(ctl(&h, NULL, "reload"), 0); /* changes nothing of it */
    assert_int_equal(get(h.ops_port, "/readyz", NULL), 503);
    assert_int_equal(ctl(&h, &out, "--json status"), 0);
    assert_non_null(strstr(out, "\"drained\": true"));
    assert_int_equal(kill(h.pid, 0), 0);
    assert_int_equal(ctl(&h, &out, "drain --off"), 0);
    assert_int_equal(get(h.ops_port, "/readyz", NULL), 200);
    wait_until(is_kept_open(&h), 5000); /* workers look within a second, if nothing wakes them */
    house_remove(&h);
}

static void stop_under_systemd_says_what_stops_it(void **state)
{
    struct house h;
    const char *out;
    int status;
    (void)state;
    setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
    house_start(&h, 1, "%s", routes());
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(ctl(&h, &out, "stop"), 1);
    assert_non_null(strstr(out, "systemctl stop polder.service"));
    assert_int_equal(get(h.port, "/x", NULL), 200);
    assert_int_equal(waitpid(h.pid, &status, WNOHANG), 0);
    house_remove(&h);
}

static bool told(int fd, const char *what)
{
    char text[512];
    const ssize_t n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
    text[n > 0 ? n : 0] = 0;
    return strstr(text, what) != NULL;
}

static void systemd_is_told_of_a_drain(void **state)
{
    struct house h;
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    char dir[] = "/tmp/polder-notify.XXXXXX";
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(sa.sun_path, sizeof sa.sun_path, "%s/notify", dir);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    setenv("NOTIFY_SOCKET", sa.sun_path, 1);
    house_start(&h, 1, "%s", routes());
    unsetenv("NOTIFY_SOCKET");
    wait_until(told(fd, "STATUS=1 workers, generation 1"), 10000);
    assert_int_equal(ctl(&h, NULL, "drain"), 0);
    wait_until(told(fd, "generation 1, drained"), 10000);
    assert_int_equal(ctl(&h, NULL, "drain --off"), 0);
    wait_until(told(fd, "STATUS=1 workers, generation 1"), 10000);
    house_remove(&h);
    close(fd);
    unlink(sa.sun_path);
    rmdir(dir);
}

/* ---- polderd -t, and sockets of systemd ---- */

static int check(const char *conf, const char **out)
{
    static char text[8192];
    char command[300];
    snprintf(command, sizeof command, "%s -t -c %s 2>&1", built("polderd"), conf);
    FILE *p = popen(command, "re");
    assert_non_null(p);
    text[fread(text, 1, sizeof text - 1, p)] = 0;
    *out = text;
    return WEXITSTATUS(pclose(p));
}

static void check_knows_what_this_machine_lacks(void **state)
{
    (void)state;
    char dir[] = "/tmp/polder-check.XXXXXX", conf[64], log[64];
    const char *out;
    const unsigned port = free_port();
    assert_non_null(mkdtemp(dir));
    snprintf(conf, sizeof conf, "%s/polder.conf", dir);
    snprintf(log, sizeof log, "%s/private/access.json", dir);
#define CONF(...)                                                                                  \
    do {                                                                                           \
        FILE *f_ = fopen(conf, "w");                                                               \
        assert_non_null(f_);                                                                       \
        fprintf(f_, "state_dir = \"%s\"\nruntime_dir = \"%s\"\n", dir, dir);                       \
        fprintf(f_, __VA_ARGS__);                                                                  \
        fclose(f_);                                                                                \
    } while (0)
    CONF("listen = {\"127.0.0.1:%u\"}\n", port);
    assert_int_equal(check(conf, &out), 0);
    assert_null(strstr(out, "cannot be bound"));
    assert_non_null(strstr(out, ": ok\n"));
    struct scripted taken;
    scripted_open_at(&taken, port);
    assert_int_equal(check(conf, &out), 0); /* it may be free by the time of a start */
    assert_non_null(strstr(out, "warning: listen: 127.0.0.1:"));
    assert_non_null(strstr(out, "cannot be bound now: Address already in use"));
    close(taken.fd);
    CONF("admin { group = \"no-such-group\" }\n");
    assert_int_equal(check(conf, &out), 0);
    assert_non_null(strstr(out, ":3: warning: admin.group: there is no group \"no-such-group\""));
    CONF("on_alert = \"/nonexistent/program\"\n");
    assert_int_equal(check(conf, &out), 0);
    assert_non_null(strstr(out, "on_alert: /nonexistent/program is no program"));
    if (geteuid() == 0) {
        CONF("user = \"no-such-user\"\n");
        assert_int_equal(check(conf, &out), 2);
        assert_non_null(strstr(out, ":3: user: there is no user \"no-such-user\""));
        char private[64];
        snprintf(private, sizeof private, "%s/private", dir);
        assert_int_equal(mkdir(private, 0700), 0);
        CONF("access_log = \"json:%s\"\nuser = \"nobody\"\n", log);
        assert_int_equal(check(conf, &out), 2);
        assert_non_null(strstr(out, ":3: access_log: user nobody cannot write"));
        assert_int_equal(access(log, F_OK), -1); /* nothing was made */
        CONF("access_log = \"json:%s\"\n", log);
        assert_int_equal(check(conf, &out), 0);
        rmdir(private);
    }
    unlink(conf);
    rmdir(dir);
#undef CONF
}

/* As systemd would start it: one socket as descriptor 3. */
static void start_activated(struct house *h, int listener)
{
    char pid[16];
    h->pid = fork();
    if (h->pid == 0) {
        const int log = open(h->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(log, STDERR_FILENO);
        dup2(listener, 3);
        snprintf(pid, sizeof pid, "%d", (int)getpid());
        setenv("LISTEN_PID", pid, 1);
        setenv("LISTEN_FDS", "1", 1);
        setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
        execl(built("polderd"), "polderd", "-c", h->conf, (char *)NULL);
        _exit(127);
    }
}

static void sockets_of_systemd_are_shown_instead_of_the_files(void **state)
{
    struct house h;
    const char *out;
    char real[32], file[32];
    (void)state;
    house_start(&h, 1, "%s", routes());
    house_stop(&h);
    struct scripted given;
    scripted_open(&given);
    snprintf(real, sizeof real, "127.0.0.1:%u", given.port);
    snprintf(file, sizeof file, "127.0.0.1:%u", h.port);
    start_activated(&h, given.fd);
    close(given.fd);
    wait_until(house_ready(&h), 10000);
    assert_int_equal(get(given.port, "/x", NULL), 200);
    assert_int_equal(ctl(&h, &out, "--json status"), 0);
    assert_non_null(strstr(out, real));
    assert_null(strstr(out, file));
    assert_non_null(strstr(out, "\"listeners_from\": \"systemd; listen in the file is not used\""));
    assert_true(house_logged(&h, "`listen` of"));
    assert_int_equal(check(h.conf, &out), 0);
    assert_non_null(strstr(out, "listen is not used"));
    assert_non_null(strstr(out, real));
    assert_int_equal(ctl(&h, &out, "stop"), 1);
    assert_non_null(strstr(out, "systemctl stop polder.socket polder.service"));
    assert_int_equal(ctl(&h, &out, "reload"), 0);
    assert_int_equal(ctl(&h, &out, "--json status"), 0);
    assert_non_null(strstr(out, real));
    house_stop(&h);
    assert_int_equal(check(h.conf, &out), 0); /* nobody runs: the file's again */
    assert_null(strstr(out, "listen is not used"));
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reload_waits_and_fails_on_a_broken_file),
        cmocka_unit_test(a_reload_says_what_it_keeps_and_what_it_resets),
        cmocka_unit_test(what_is_persisted_outlives_reloads_and_restarts),
        cmocka_unit_test(what_ws_set_persists_outlives_reloads_and_restarts),
        cmocka_unit_test(many_reloads_in_a_row_do_not_wait_for_each_other),
        cmocka_unit_test(a_reload_ends_when_the_old_workers_accept_no_more),
        cmocka_unit_test(an_old_worker_that_stands_still_delays_a_reload_by_a_second),
        cmocka_unit_test(a_new_connection_after_a_reload_finds_the_new_routes),
        cmocka_unit_test(a_few_requests_are_counted_exactly),
        cmocka_unit_test(drain_sends_clients_elsewhere_until_it_is_off),
        cmocka_unit_test(stop_under_systemd_says_what_stops_it),
        cmocka_unit_test(systemd_is_told_of_a_drain),
        cmocka_unit_test(check_knows_what_this_machine_lacks),
        cmocka_unit_test(sockets_of_systemd_are_shown_instead_of_the_files),
    };
    return run_with_backend(tests, &backend, answers);
}
