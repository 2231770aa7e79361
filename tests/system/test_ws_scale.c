/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many WebSockets at once: workers die under them, polderd comes and goes, thousands beat, and a
 * million come and leave. The sizes are small by default; POLDER_LONG=1 runs them in full (two
 * minutes and 9 500 connections).
 */
#include "harness.h"
#include "ws_client.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t echo_pid;
static unsigned echo_port;

/* Small under a sanitizer, middling as a rule, in full where asked for. */
static unsigned sized(unsigned small, unsigned middle, unsigned full)
{
    return getenv("POLDER_LONG") ? full : harness_sanitized() ? small : middle;
}

static int set_up(void **state)
{
    (void)state;
    echo_port = free_port();
    echo_pid = peer_start(built("bench/ws_echo"), NULL, echo_port);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    peer_stop(echo_pid);
    return 0;
}

static void routes(char *out, size_t size, const char *websocket)
{
    snprintf(
        out, size,
        "websocket { max_connections = 20000 max_per_client = 20000 connect_rate = 100000 %s }\n"
        "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
        "route \"/*\" { upstream = \"u\" websocket { } }\n",
        websocket, echo_port);
}

static void start(struct house *h, unsigned workers, const char *websocket)
{
    char text[1024], path[256];
    routes(text, sizeof text, websocket);
    house_start(h, workers, "%s", text);
    snprintf(path, sizeof path, "%s/run/supervisor-rpc.sock", h->dir);
    wait_until(access(path, F_OK) == 0, 5000);
}

/* ---- the load client ---- */

struct load {
    pid_t pid;
    FILE *out;
    char report[1024];
};

static void load_start(struct load *l, unsigned port, const char *mode, unsigned connections,
                       unsigned amount, const char *size)
{
    char p[16], n[16], a[16];
    int pipe_fd[2];
    snprintf(p, sizeof p, "%u", port);
    snprintf(n, sizeof n, "%u", connections);
    snprintf(a, sizeof a, "%u", amount);
    assert_int_equal(pipe(pipe_fd), 0);
    l->pid = fork();
    if (l->pid == 0) {
        dup2(pipe_fd[1], 1);
        close(pipe_fd[0]);
        execl(built("bench/ws_load"), "ws_load", mode, p, "/ws/x", n, a, size, (char *)NULL);
        _exit(127);
    }
    close(pipe_fd[1]);
    l->out = fdopen(pipe_fd[0], "r");
}

static void load_ready(struct load *l)
{
    assert_non_null(fgets(l->report, sizeof l->report, l->out));
    assert_string_equal(l->report, "ready\n");
}

static unsigned long reported(const struct load *l, const char *name)
{
    char key[64];
    snprintf(key, sizeof key, "%s ", name);
    const char *at = strstr(l->report, key);
    assert_non_null(at);
    return strtoul(at + strlen(key), NULL, 10);
}

static void load_end(struct load *l)
{
    int status;
    if (!fgets(l->report, sizeof l->report, l->out))
        l->report[0] = 0;
    fclose(l->out);
    waitpid(l->pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("ws_load: %s", l->report);
}

/* ---- stories ---- */

static void echoes_go_on_while_workers_are_killed(void **state)
{
    (void)state;
    struct house h;
    struct load l;
    const unsigned n = sized(200, 1000, 5000), seconds = sized(4, 6, 60);
    start(&h, 4, "heartbeat = json interval = 1s");
    const pid_t supervisor = supervisor_of(&h);
    load_start(&l, h.port, "echo", n, seconds, "200");
    load_ready(&l);
    unsigned killed = 0;
    for (const uint64_t end = mono_ms() + seconds * 1000u; mono_ms() < end; nap_ms(100)) {
        pid_t pid[8];
        const size_t workers = house_children(&h, "polderd: worker", pid, 8);
        if (workers)
            killed += kill(pid[killed % workers], SIGKILL) == 0;
    }
    load_end(&l); /* none dropped, lost, repeated, reordered or changed */
    assert_int_equal(reported(&l, "opened"), n);
    assert_true(reported(&l, "messages") > n);
    assert_true(killed > seconds); /* respawning is held back at that rate */
    assert_int_equal(supervisor_of(&h), supervisor);
    house_remove(&h);
}

/* As under systemd: the supervisor is a daemon of its own. */
static void polderd_may_stop_and_come_again(void **state)
{
    (void)state;
    struct house h;
    struct load l;
    start(&h, 2, "heartbeat = off");
    assert_int_equal(house_stop(&h), 0);
    char path[256];
    snprintf(path, sizeof path, "%s/run/supervisor-rpc.sock", h.dir);
    wait_until(access(path, F_OK) != 0, 5000); /* the one it had started has left with it */
    const pid_t supervisor = fork();
    if (supervisor == 0) {
        execl(built("polder-supervisor"), "polder-supervisor", "-c", h.conf, (char *)NULL);
        _exit(127);
    }
    wait_until(access(path, F_OK) == 0, 5000);
    house_run(&h);
    load_start(&l, h.port, "echo", 100, sized(6, 4, 10), "64");
    load_ready(&l);
    assert_int_equal(house_stop(&h), 0);
    house_run(&h);
    house_kill(&h); /* and a crash of all of it */
    house_run(&h);
    load_end(&l);
    assert_int_equal(waitpid(supervisor, NULL, WNOHANG), 0);
    kill(supervisor, SIGTERM);
    int status;
    waitpid(supervisor, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    house_remove(&h);
}

static void a_reload_reaches_the_supervisor(void **state)
{
    (void)state;
    struct house h;
    struct load l;
    struct message m;
    char text[1024];
    start(&h, 2, "heartbeat = off");
    const pid_t supervisor = supervisor_of(&h);
    load_start(&l, h.port, "echo", 50, sized(6, 3, 6), "64");
    load_ready(&l);
    routes(text, sizeof text, "heartbeat = off max_message = \"64K\"");
    char *limit = strstr(text, "max_connections = 20000");
    memcpy(limit, "max_connections = 12345", strlen("max_connections = 12345"));
    house_write_conf(&h, 2, text);
    kill(h.pid, SIGHUP);
    wait_until(get(h.ops_port, "/api/telemetry/websocket-health", &m) == 200 &&
                   (strstr(m.body, "\"maxConnections\":12345") || (message_free(&m), false)),
               10000);
    message_free(&m);
    load_end(&l);
    assert_int_equal(supervisor_of(&h), supervisor);
    house_remove(&h);
}

/* Of both processes of the supervisor. */
static long resident(pid_t supervisor)
{
    return resident_kib(supervisor) + resident_kib(working_process(supervisor));
}

static void idle_ones_beat_and_weigh_little(void **state)
{
    (void)state;
    struct house h;
    struct load l;
    struct message m;
    char want[64];
    const unsigned n = sized(300, 2000, 9500), seconds = sized(7, 5, 65);
    start(&h, 2,
          getenv("POLDER_LONG") ? "heartbeat = json interval = 30s"
                                : "heartbeat = both interval = 1s timeout = 30s");
    const pid_t pid = supervisor_of(&h);
    load_start(&l, h.port, "churn", 100, 500, "64"); /* what handshakes need is kept for others */
    load_end(&l);
    const long before = resident(pid);
    load_start(&l, h.port, "hold", n, seconds, "64");
    load_ready(&l);
    if (!harness_sanitized()) {
        const long each = (resident(pid) - before) * 1024 / (long)n;
        printf("an idle relayed connection: %ld bytes of user space\n", each);
        assert_in_range(each, 0, 1024);
    }
    assert_int_equal(get(h.ops_port, "/metrics", &m), 200);
    snprintf(want, sizeof want, "polder_websocket_connections{route=\"/*\"} %u\n", n);
    assert_non_null(strstr(m.body, want));
    assert_non_null(strstr(m.body, "\npolder_websocket_supervisor_up 1\n"));
    message_free(&m);
    load_end(&l);
    assert_true(reported(&l, "heartbeats") >= n);
    wait_until(get(h.ops_port, "/metrics", &m) == 200 &&
                   (strstr(m.body, "polder_websocket_connections{route=\"/*\"} 0\n") ||
                    (message_free(&m), false)),
               10000);
    snprintf(want, sizeof want, "polder_websocket_duration_seconds_count %u\n", n + 500);
    assert_non_null(strstr(m.body, want));
    message_free(&m);
    house_remove(&h);
}

static void coming_and_going_grows_nothing(void **state)
{
    (void)state;
    struct house h;
    struct load l;
    const unsigned n = sized(3000, 30000, 1000000);
    start(&h, 2, "heartbeat = json");
    const pid_t pid = supervisor_of(&h);
    load_start(&l, h.port, "churn", 100, 2000, "64");
    load_end(&l);
    const size_t before = supervisor_descriptors(pid);
    const long memory = resident(pid);
    load_start(&l, h.port, "churn", 100, n, "64");
    load_end(&l);
    if (reported(&l, "opened") != n)
        fail_msg("not all were opened: %s", l.report);
    wait_until(supervisor_descriptors(pid) <= before, 10000);
    if (!harness_sanitized())
        assert_true(resident(pid) - memory < 1024);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echoes_go_on_while_workers_are_killed),
        cmocka_unit_test(polderd_may_stop_and_come_again),
        cmocka_unit_test(a_reload_reaches_the_supervisor),
        cmocka_unit_test(idle_ones_beat_and_weigh_little),
        cmocka_unit_test(coming_and_going_grows_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
