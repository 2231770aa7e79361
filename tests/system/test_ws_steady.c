/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Node's ws and Python's websockets, compressing with a context that stays and with one that begins
 * anew, and not compressing, talk on while polder-supervisor is upgraded and killed: each message
 * comes back once and in order. A byte that is lost or comes twice would end a compressed stream.
 * $POLDER_LONG: 20 upgrades and 20 deaths, else fewer.
 */
#include "demo.h"
#include "ws_client.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KINDS 3

static unsigned rounds(void)
{
    return getenv("POLDER_LONG") ? 20 : 4;
}

struct client {
    FILE *in; /* it talks until this ends */
    char said[300];
};

static void client_start(struct client *c, const struct house *h, const char *command)
{
    char text[900];
    snprintf(c->said, sizeof c->said, "%s/%.8s.said", h->dir, strrchr(command, '/') + 1);
    snprintf(text, sizeof text, "%s ws://127.0.0.1:%u/ws/x > %s 2>&1; echo exit $? >> %s", command,
             h->port, c->said, c->said);
    c->in = popen(text, "w");
    assert_non_null(c->in);
}

/* All of its messages have come back; extensions: of each kind, in order. */
static void client_end(struct client *c, const char *const extensions[KINDS])
{
    char said[4096] = "";
    static const char *const kinds[KINDS] = {"context", "no-context", "plain"};
    pclose(c->in);
    FILE *f = fopen(c->said, "r");
    assert_non_null(f);
    said[fread(said, 1, sizeof said - 1, f)] = 0;
    fclose(f);
    if (!strstr(said, "exit 0\n"))
        fail_msg("the client failed: %s", said);
    for (int i = 0; i < KINDS; i++) {
        char line[160];
        snprintf(line, sizeof line, "%s: all came back, extensions %s\n", kinds[i], extensions[i]);
        const char *first = strstr(said, line);
        if (!first || !strstr(first + 1, line))
            fail_msg("the clients did not say \"%s\": %s", line, said);
    }
}

static bool all_are_open(struct house *h, unsigned n)
{
    const char *out;
    char text[48];
    snprintf(text, sizeof text, "\"activeConnections\": %u,", n);
    return ctl(h, &out, "--json ws stats") == 0 && strstr(out, text);
}

static void upgrade(struct house *h, pid_t pid)
{
    const unsigned before = house_times_logged(h, "custodian is ");
    assert_int_equal(kill(pid, SIGUSR2), 0);
    wait_until(house_times_logged(h, "custodian is ") > before, 30000);
}

static void kill_working(struct house *h, pid_t pid)
{
    const unsigned before = house_times_logged(h, "custodian: taken up");
    const pid_t working = working_process(pid);
    assert_true(working > 0);
    assert_int_equal(kill(working, SIGKILL), 0);
    wait_until(house_times_logged(h, "custodian: taken up") > before, 30000);
}

static void clients_notice_neither_upgrades_nor_deaths(void **state)
{
    (void)state;
    struct house h;
    struct client node, python;
    char path[256];
    static const char *const by_node[KINDS] = {"\"permessage-deflate\"", "\"permessage-deflate\"",
                                               "\"\""},
                             *const by_python[KINDS] = {"permessage-deflate",
                                                        "permessage-deflate no context", "none"};
    const unsigned port = free_port();
    snprintf(path, sizeof path, "%s", shell("command -v node"));
    path[strcspn(path, "\n")] = 0;
    const pid_t backend = peer_start(path, "tests/clients/ws/echo_server.mjs", port);
    house_start(&h, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/ws/*\" { upstream = \"u\" websocket { heartbeat = \"off\" } }\n",
                port);
    wait_for_supervisor(&h);
    const pid_t pid = supervisor_of(&h);
    client_start(&node, &h, "node tests/clients/ws/steady.mjs");
    client_start(&python, &h, "/usr/bin/python3 tests/clients/steady.py");
    wait_until(all_are_open(&h, 4 * KINDS), 30000);
    for (unsigned i = 0; i < rounds(); i++) {
        upgrade(&h, pid);
        kill_working(&h, pid);
        nap_ms(100); /* of undisturbed talk */
    }
    assert_true(all_are_open(&h, 4 * KINDS));
    client_end(&node, by_node);
    client_end(&python, by_python);
    assert_int_equal(supervisor_of(&h), pid);
    house_remove(&h);
    peer_stop(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clients_notice_neither_upgrades_nor_deaths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
