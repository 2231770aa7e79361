/* SPDX-License-Identifier: BSD-2-Clause */
/* Real WebSocket clients, through what `make run` starts to its FastAPI application: Node's ws,
 * Python's websockets, Chromium. */
#include "demo.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct house h;

static int set_up(void **state)
{
    (void)state;
    demo_start(&h, "both");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    demo_stop(&h);
    return 0;
}

static bool nobody_is_left(void)
{
    struct message m;
    const int fd = client_connect(h.ops_port);
    client_send(fd, "GET /api/telemetry/websocket-health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client_read(fd, &m, false);
    const bool none = m.status == 200 && strstr(m.body, "\"activeConnections\":0,");
    message_free(&m);
    close(fd);
    return none;
}

/* The client has ended well and has said each of these; and Polder has let go of its sockets. */
static void expect_said(const char *out, const char *const *lines, size_t n)
{
    if (!strstr(out, "exit 0\n"))
        fail_msg("the client failed: %s", out);
    for (size_t i = 0; i < n; i++)
        if (!strstr(out, lines[i]))
            fail_msg("the client did not say \"%s\": %s", lines[i], out);
    wait_until(nobody_is_left(), 10000);
}

static void node_with_deflate_and_without(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "echo ok, order ok, heartbeat ok, close ok, extensions \"permessage-deflate\"\n",
        "echo ok, order ok, heartbeat ok, close ok, extensions \"\"\n", "fragments ok, pings ok\n"};
    expect_said(
        shell("node tests/clients/ws/node.mjs ws://127.0.0.1:%u/ws/node-1 2>&1; echo exit $?",
              h.port),
        lines, 3);
}

static void python_with_deflate_and_without(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "echo ok, order ok, heartbeat ok, ping ok, close ok, extensions permessage-deflate\n",
        "echo ok, order ok, heartbeat ok, ping ok, close ok, extensions none\n"};
    expect_said(shell("/usr/bin/python3 tests/clients/echo.py ws://127.0.0.1:%u/ws/python-1 2>&1; "
                      "echo exit $?",
                      h.port),
                lines, 2);
}

/* A page that came through Polder, in a real browser, opens its sockets through Polder. */
static void a_browser(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "echo ok, order ok, heartbeat ok, close ok, extensions \"permessage-deflate"};
    expect_said(shell("node tests/clients/ws/chromium.mjs http://127.0.0.1:%u/api/items/2 "
                      "ws://127.0.0.1:%u/ws/browser-1 2>&1; echo exit $?",
                      h.port, h.port),
                lines, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(node_with_deflate_and_without),
        cmocka_unit_test(python_with_deflate_and_without),
        cmocka_unit_test(a_browser),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
