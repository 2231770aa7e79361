/* SPDX-License-Identifier: BSD-2-Clause */
/* What `make run` starts, as a newcomer sees it: a real FastAPI application behind, real curl in
 * front. */
#include "harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct house h; /* only ports, socket and pid are used */
static unsigned backend_port_number;

static const char *shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static const char *shell(const char *fmt, ...)
{
    static char text[65536];
    char command[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    FILE *p = popen(command, "re");
    assert_non_null(p);
    text[fread(text, 1, sizeof text - 1, p)] = 0;
    pclose(p);
    return text;
}

static int set_up(void **state)
{
    (void)state;
    char port[16], ops[16], back[16], dir[160];
    strcpy(h.dir, "/tmp/polder-demo.XXXXXX");
    assert_non_null(mkdtemp(h.dir));
    h.port = free_port(), h.ops_port = free_port(), backend_port_number = free_port();
    snprintf(h.sock, sizeof h.sock, "%s/admin.sock", h.dir);
    snprintf(h.log, sizeof h.log, "%s/log", h.dir);
    snprintf(port, sizeof port, "%u", h.port), snprintf(ops, sizeof ops, "%u", h.ops_port);
    snprintf(back, sizeof back, "%u", backend_port_number),
        snprintf(dir, sizeof dir, "%s/state", h.dir);
    setenv("PORT", port, 1), setenv("OPS_PORT", ops, 1), setenv("BACKEND_PORT", back, 1);
    setenv("POLDER_STATE_DIR", dir, 1), setenv("POLDER_RUNTIME_DIR", h.dir, 1),
        setenv("WS_INTERVAL", "1s", 1);
    h.pid = fork();
    if (h.pid == 0) {
        assert_non_null(freopen(h.log, "w", stdout));
        dup2(1, 2);
        execl("tests/demo/run", "run", getenv("POLDER_BUILD") ? getenv("POLDER_BUILD") : "build",
              (char *)NULL);
        _exit(127);
    }
    wait_until(house_logged(&h, "Ctrl-C stops"), 20000);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    int status;
    kill(h.pid, SIGINT);
    for (uint64_t end = mono_ms() + harness_patience(15000);
         waitpid(h.pid, &status, WNOHANG) == 0 && mono_ms() < end; nap_ms(10))
        ;
    shell("rm -rf '%s'", h.dir);
    return 0;
}

static void twenty_five_curls_and_a_changed_limit(void **state)
{
    (void)state;
    const char *out = shell("for i in $(seq 25); do curl -s -o /dev/null -w '%%{http_code}\\n' "
                            "http://127.0.0.1:%u/api/quota/status; done | uniq -c",
                            h.port);
    int ok, refused;
    assert_int_equal(sscanf(out, " %d 200 %d 429", &ok, &refused), 2);
    assert_int_equal(ok, 20);
    assert_int_equal(refused, 5);
    assert_non_null(strcasestr(shell("curl -si http://127.0.0.1:%u/api/quota/status", h.port),
                               "\nRetry-After: "));
    assert_int_equal(ctl(&h, NULL, "limit set status requests=40 window=60s"), 0);
    out = shell("for i in $(seq 25); do curl -s -o /dev/null -w '%%{http_code}\\n' "
                "http://127.0.0.1:%u/api/quota/status; done | sort | uniq -c",
                h.port);
    assert_int_equal(sscanf(out, " %d 200 %d 429", &ok, &refused), 2);
    assert_int_equal(ok, 20);
}

static void reads_are_hits_and_a_post_cleans_up(void **state)
{
    (void)state;
    assert_non_null(
        strcasestr(shell("curl -si http://127.0.0.1:%u/api/items/1", h.port), "fwd=uri-miss"));
    wait_until(strcasestr(shell("curl -si http://127.0.0.1:%u/api/items/1", h.port),
                          "polder; hit") != NULL,
               3000);
    assert_non_null(
        strstr(shell("curl -s http://127.0.0.1:%u/api/items/1", h.port), "\"version\":1"));
    assert_non_null(
        strstr(shell("curl -s -X POST http://127.0.0.1:%u/api/items/1", h.port), "\"version\":2"));
    assert_non_null(
        strstr(shell("curl -s http://127.0.0.1:%u/api/items/1", h.port), "\"version\":2"));
    assert_non_null(
        strstr(shell("curl -s http://127.0.0.1:%u/api/calls", h.port), "\"GET /api/items/1\":"));
}

static void sockets_echo_and_beat(void **state)
{
    (void)state;
    assert_non_null(strstr(
        shell("/usr/bin/python3 tests/clients/echo.py ws://127.0.0.1:%u/ws/dash-1 2>&1", h.port),
        "echo ok, heartbeat ok"));
}

/* The npm package ws, with permessage-deflate and without. */
static void node_clients_echo_and_hear_heartbeats(void **state)
{
    (void)state;
    const char *out =
        shell("node tests/clients/ws/node.mjs ws://127.0.0.1:%u/ws/node-1 2>&1", h.port);
    if (!strstr(out, "extensions \"permessage-deflate\"\n") || !strstr(out, "extensions \"\"\n") ||
        !strstr(out, "pong ok\n"))
        fail_msg("node: %s", out);
}

/* A page that came through Polder, in a real browser, opens a socket through Polder. */
static void a_browser_echoes_and_hears_heartbeats(void **state)
{
    (void)state;
    const char *out = shell("node tests/clients/ws/chromium.mjs http://127.0.0.1:%u/api/items/2 "
                            "ws://127.0.0.1:%u/ws/browser-1 2>&1",
                            h.port, h.port);
    if (!strstr(out, "echo ok, order ok, heartbeat ok, close ok"))
        fail_msg("chromium: %s", out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twenty_five_curls_and_a_changed_limit),
        cmocka_unit_test(reads_are_hits_and_a_post_cleans_up),
        cmocka_unit_test(sockets_echo_and_beat),
        cmocka_unit_test(node_clients_echo_and_hear_heartbeats),
        cmocka_unit_test(a_browser_echoes_and_hears_heartbeats),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
