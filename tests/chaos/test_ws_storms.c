/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Upgrades, deaths, reloads and stops of polder-supervisor on top of each other, in random order and
 * with random pauses, under the traffic of 200 WebSockets: none of them ends but at a stop, and a
 * stop ends. $CHAOS_SECONDS (60 at full length, 4 else), $CHAOS_SEED.
 */
#include "tests/chaos/chaos.h"
#include "ws_client.h"
#include "ws_storm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLIENTS 200

static unsigned below(unsigned n)
{
    return (unsigned)random() % n;
}

struct rig {
    struct house h;
    pid_t backend, pid;
    struct ws_storm storm;
    unsigned upgrades, deaths, reloads;
};

static void rig_start(struct rig *r)
{
    const unsigned port = free_port();
    memset(r, 0, sizeof *r);
    r->backend = peer_start(built("bench/ws_echo"), NULL, port);
    house_start(&r->h, 1,
                "websocket { max_connections = 1000 max_per_client = 1000 connect_rate = 100000 "
                "heartbeat = \"off\" drain_spread = 1s }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/ws/*\" { upstream = \"u\" websocket { } }\n",
                port);
    wait_for_supervisor(&r->h);
    r->pid = supervisor_of(&r->h);
}

static void rig_stop(struct rig *r)
{
    house_remove(&r->h);
    peer_stop(r->backend);
}

/* ---- what happens to it ---- */

static void upgrade(struct rig *r)
{
    kill(r->pid, SIGUSR2);
    r->upgrades++;
}

/* Any child: that of the WebSockets, or a proof. */
static void kill_a_child(struct rig *r)
{
    const pid_t child = working_process(r->pid);
    if (child > 0 && kill(child, SIGKILL) == 0)
        r->deaths++;
}

static void kill_behind_an_upgrade(struct rig *r)
{
    upgrade(r);
    usleep(below(60000));
    kill_a_child(r);
}

static void reload(struct rig *r)
{
    kill(r->pid, SIGHUP);
    r->reloads++;
}

static void reload_within_an_upgrade(struct rig *r)
{
    upgrade(r);
    usleep(below(20000));
    reload(r);
    upgrade(r);
}

static void stand_still(struct rig *r)
{
    const pid_t who = below(2) ? r->pid : working_process(r->pid);
    if (who <= 0 || kill(who, SIGSTOP))
        return;
    if (below(2))
        upgrade(r);
    usleep(below(100000));
    kill(who, SIGCONT);
}

/* All go on behind it. */
static void expect_talk(struct rig *r)
{
    const unsigned before = atomic_load(&r->storm.messages);
    if (below(4))
        return; /* behind the next one */
    wait_until(atomic_load(&r->storm.messages) > before + 2 * CLIENTS, 30000);
}

static void nothing_ends_but_at_a_stop(void **state)
{
    static void (*const events[])(struct rig *) = {
        upgrade,    kill_a_child, kill_behind_an_upgrade, reload, reload_within_an_upgrade,
        stand_still};
    static struct rig r;
    (void)state;
    rig_start(&r);
    ws_storm_begin(&r.storm, r.h.port, "/ws/x", CLIENTS, 2);
    for (const uint64_t end = mono_ms() + chaos_count("CHAOS_SECONDS", 60, 4) * 1000ull;
         mono_ms() < end;) {
        events[below(sizeof events / sizeof *events)](&r);
        usleep(below(80000));
        expect_talk(&r);
        assert_int_equal(supervisor_of(&r.h), r.pid);
    }
    ws_storm_end(&r.storm);
    print_message("%u messages of %u WebSockets over %u upgrades, %u deaths and %u reloads; the "
                  "longest silence of one: %llu ms\n",
                  atomic_load(&r.storm.messages), CLIENTS, r.upgrades, r.deaths, r.reloads,
                  (unsigned long long)r.storm.longest_ms);
    rig_stop(&r);
}

/* ---- a stop ---- */

static void a_stop_ends_whatever_is_under_way(void **state)
{
    static void (*const events[])(struct rig *) = {upgrade, kill_a_child, kill_behind_an_upgrade,
                                                   reload_within_an_upgrade};
    static struct rig r;
    (void)state;
    const unsigned rounds = chaos_count("CHAOS_ROUNDS", 30, 3);
    for (unsigned i = 0; i < rounds; i++) {
        int fd[20];
        rig_start(&r);
        for (unsigned k = 0; k < 20; k++)
            fd[k] = open_ws(r.h.port, "/ws/x");
        events[below(sizeof events / sizeof *events)](&r);
        usleep(below(40000));
        kill(r.pid, SIGTERM);
        if (below(2))
            events[below(sizeof events / sizeof *events)](&r);
        for (unsigned k = 0; k < 20; k++) {
            assert_int_equal(expect_close(fd[k]), 1012);
            close(fd[k]);
        }
        wait_until(has_ended(r.pid), 20000);
        rig_stop(&r);
    }
}

int main(void)
{
    const char *given = getenv("CHAOS_SEED");
    const unsigned seed = given ? (unsigned)atoi(given) : (unsigned)getpid();
    printf("CHAOS_SEED=%u\n", seed);
    srandom(seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_ends_but_at_a_stop),
        cmocka_unit_test(a_stop_ends_whatever_is_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
