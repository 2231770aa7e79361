/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A restart of polder-supervisor by its service manager ends no WebSocket; a stop tells all to
 * reconnect, and so does each restart in which something is wrong.
 */
#include "release.h"
#include "unit.h"
#include "ws_client.h"
#include "ws_storm.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct release release;

static const char routes[] = "websocket { max_connections = 500 max_per_client = 500 connect_rate "
                             "= 10000 heartbeat = \"off\" }\n"
                             "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                             "route \"/ws/*\" { upstream = \"u\" websocket { } }\n"
                             "route \"/live/*\" { websocket { } }\n";

static void open_unit(struct unit *u, struct house *h, unsigned port, bool has_socket)
{
    const char *out;
    char text[1024];
    setenv("NOTIFY_SOCKET", "@polder-test-nothing", 1); /* then a service manager starts it */
    house_start(
        h, 1, "upstream \"u\" { server \"127.0.0.1:1\" { } }\nroute \"/*\" { upstream = \"u\" }\n");
    unsetenv("NOTIFY_SOCKET");
    snprintf(text, sizeof text, routes, port);
    house_write_conf(h, 1, text);
    assert_int_equal(ctl(h, &out, "reload"), 0);
    unit_open(u, h, has_socket);
    unit_start(u);
}

static void close_unit(struct unit *u)
{
    struct house *h = u->house;
    unit_close(u);
    house_remove(h);
}

/* ---- it goes on ---- */

#define CLIENTS 60

static void restarts_under_load_lose_nothing(void **state)
{
    (void)state;
    struct house h;
    struct unit u;
    static struct ws_storm storm; /* its thread outlives a failed story */
    const unsigned port = free_port();
    char echo[300];
    snprintf(echo, sizeof echo, "%s/bench/ws_echo", release.built);
    const pid_t backend = peer_start(echo, NULL, port);
    for (int has_socket = 1; has_socket >= 0; has_socket--) {
        open_unit(&u, &h, port, has_socket);
        ws_storm_begin(&storm, h.port, "/ws/x", CLIENTS, 4);
        for (int i = 0; i < 5; i++) {
            const unsigned before = atomic_load(&storm.messages);
            unit_restart(&u);
            wait_until(atomic_load(&storm.messages) > before + CLIENTS, 20000);
            wait_until(!atomic_load(&u.stored), 10000);
            assert_int_equal(status_of(h.port, "/live/x"), 101);
        }
        ws_storm_end(&storm);
        assert_int_equal(house_times_logged(&h, "goes on where"), 5);
        print_message("%u messages, 5 restarts; the longest silence of a client: %llu ms\n",
                      atomic_load(&storm.messages), (unsigned long long)storm.longest_ms);
        close_unit(&u);
    }
    peer_stop(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(restarts_under_load_lose_nothing),
    };
    signal(SIGHUP, SIG_IGN); /* which polderd sends to what holds the socket */
    release_open(&release);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    release_close(&release);
    return failed;
}
