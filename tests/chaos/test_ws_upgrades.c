/* SPDX-License-Identifier: BSD-2-Clause */
/* The story of twenty upgrades of polder-supervisor within a minute, forth and back, under a thousand
 * WebSockets with echo traffic. */
#include "tests/chaos/chaos.h"
#include "release.h"
#include "ws_client.h"
#include "ws_storm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pauses {
    unsigned n;
    double longest_ms, sum_ms;
};

/* Of all upgrades so far, as the new programs have logged them. */
static struct pauses pauses_of(const struct house *h)
{
    char line[2048];
    struct pauses p = {0};
    FILE *f = fopen(h->log, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        const char *at = strstr(line, "messages waited for ");
        const double ms = at ? strtod(at + strlen("messages waited for "), NULL) : -1;
        if (ms < 0)
            continue;
        p.n++;
        p.sum_ms += ms;
        p.longest_ms = ms > p.longest_ms ? ms : p.longest_ms;
    }
    fclose(f);
    return p;
}

static void twenty_upgrades_in_a_minute_lose_nothing(void **state)
{
    (void)state;
    const unsigned clients = chaos_count("CHAOS_WEBSOCKETS", 1000, 200),
                   upgrades = chaos_count("CHAOS_UPGRADES", 20, 4);
    struct release release;
    struct ws_storm storm;
    struct house h;
    char echo[300], version[64];
    const unsigned port = free_port();
    release_open(&release);
    snprintf(version, sizeof version, "%s", release_real_version(&release));
    version[strlen(version) - 1] = version[strlen(version) - 1] == '9' ? '8' : '9';
    snprintf(echo, sizeof echo, "%s/bench/ws_echo", release.built);
    const pid_t backend = peer_start(echo, NULL, port);
    house_start(&h, 2,
                "websocket { max_connections = 5000 max_per_client = 5000 }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/ws/*\" { upstream = \"u\" websocket { } }\n",
                port);
    wait_for_supervisor(&h);
    const pid_t pid = supervisor_of(&h);
    ws_storm_begin(&storm, h.port, "/ws/x", clients, 2);
    const uint64_t began_ms = mono_ms();
    for (unsigned i = 0; i < upgrades; i++) {
        release_install(&release, "polder-supervisor", i % 2 ? NULL : version, RELEASE_WHOLE);
        assert_int_equal(kill(pid, SIGUSR2), 0);
        wait_until(pauses_of(&h).n > i, 20000);
    }
    const uint64_t took_ms = mono_ms() - began_ms;
    ws_storm_end(&storm);
    const struct pauses p = pauses_of(&h);
    printf("chaos: ws_upgrades: %u upgrades with %u WebSockets in %.1f s, %u messages, none lost, "
           "repeated or reordered; messages waited for %.1f ms on average, %.1f ms at most; the "
           "longest silence of a client: %llu ms\n",
           upgrades, clients, (double)took_ms / 1000, atomic_load(&storm.messages), p.sum_ms / p.n,
           p.longest_ms, (unsigned long long)storm.longest_ms);
    assert_in_range(took_ms, 0, 60000);
    house_remove(&h);
    peer_stop(backend);
    release_close(&release);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twenty_upgrades_in_a_minute_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
