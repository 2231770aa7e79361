/* SPDX-License-Identifier: BSD-2-Clause */
/* One host fetches for all, and dies, or fails, or gets what is for one client alone: the others go on. */
#include "fleet_rig.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct backend *backend;
static struct fleet fleet = {.sharing = "shared = true shared_timeout = 10s"};
static _Atomic unsigned delay_ms, under_way, at_once;
static const char *_Atomic status_line = "200 OK";
static const char *_Atomic cache_control = "max-age=300";

static bool answers(struct asked *ask)
{
    const unsigned now = atomic_fetch_add(&under_way, 1) + 1;
    if (now > atomic_load(&at_once))
        atomic_store(&at_once, now);
    nap_ms(atomic_load(&delay_ms));
    atomic_fetch_sub(&under_way, 1);
    return reply(ask, "HTTP/1.1 %s\r\nCache-Control: %s\r\nContent-Length: 4\r\n\r\nbody",
                 atomic_load(&status_line), atomic_load(&cache_control));
}

static int begin(int host, const char *path)
{
    const int fd = client_connect(fleet.host[host].port);
    client_send(fd, "GET %s HTTP/1.1\r\nHost: example.org\r\n\r\n", path);
    return fd;
}

static int end(int fd)
{
    struct message m;
    client_read(fd, &m, false);
    close(fd);
    const int status = m.status;
    message_free(&m);
    return status;
}

/* ---- deaths ---- */

static void kill_children(struct house *h, const char *title)
{
    pid_t pid[8];
    const size_t n = house_children(h, title, pid, 8);
    assert_true(n > 0);
    for (size_t i = 0; i < n; i++)
        kill(pid[i], SIGKILL);
}

static void kill_workers(struct house *h)
{
    kill_children(h, "polderd: worker");
}

static void kill_control(struct house *h)
{
    kill_children(h, "polderd: control");
}

static void kill_host(struct house *h)
{
    house_kill(h);
    house_remove(h);
    *h = (struct house){0};
}

/* The first host fetches for both, and dies: the other one has it with at most one call more, as soon as
 * the claim can have ended. */
static void others_go_on(void (*die)(struct house *h), const char *path)
{
    const unsigned calls = backend_calls(backend), waits = fleet_number(&fleet.host[1], "waits");
    atomic_store(&delay_ms, 600);
    const int first = begin(0, path);
    wait_until(atomic_load(&under_way) == 1, 5000);
    const int second = begin(1, path);
    wait_until(fleet_number(&fleet.host[1], "waits") == waits + 1, 5000);
    const uint64_t began = mono_ms();
    die(&fleet.host[0]);
    assert_int_equal(end(second), 200);
    assert_true(mono_ms() - began < harness_patience(6000)); /* a lease of 2 s, and a fetch */
    assert_true(backend_calls(backend) - calls <= 2);
    close(first);
    wait_until(atomic_load(&under_way) == 0, 5000);
    atomic_store(&delay_ms, 0);
}

static void be_well(void)
{
    if (!fleet.host[0].pid)
        fleet_start_host(&fleet, 0, FLEET_SECRET);
    for (int i = 0; i < FLEET_HOSTS; i++)
        wait_until(fleet_says(&fleet.host[i], "cache     in use"), 15000);
    wait_until(get(fleet.host[0].ops_port, "/readyz", NULL) == 200, 15000);
}

static void a_worker_that_fetches_dies(void **state)
{
    (void)state;
    others_go_on(kill_workers, "/worker");
    be_well();
}

static void its_control_dies(void **state)
{
    (void)state;
    others_go_on(kill_control, "/control");
    be_well();
}

static void its_host_dies(void **state)
{
    (void)state;
    others_go_on(kill_host, "/host");
    be_well();
}

/* ---- nothing that could be shared ---- */

/* All hosts ask at once: one fetches, then the others both at the same time. */
static void others_do_not_queue(const char *path, int status)
{
    int fd[FLEET_HOSTS];
    const unsigned calls = backend_calls(backend);
    atomic_store(&delay_ms, 250);
    fd[0] = begin(0, path);
    wait_until(atomic_load(&under_way) == 1, 5000);
    for (int i = 1; i < FLEET_HOSTS; i++) {
        const unsigned waits = fleet_number(&fleet.host[i], "waits");
        fd[i] = begin(i, path);
        wait_until(fleet_number(&fleet.host[i], "waits") == waits + 1, 5000);
    }
    atomic_store(&at_once, 0);
    for (int i = 0; i < FLEET_HOSTS; i++)
        assert_int_equal(end(fd[i]), status);
    assert_int_equal(backend_calls(backend) - calls, FLEET_HOSTS);
    assert_int_equal(atomic_load(&at_once), FLEET_HOSTS - 1);
    atomic_store(&delay_ms, 0);
}

static void a_fetch_that_fails_is_not_repeated_in_turn(void **state)
{
    (void)state;
    atomic_store(&status_line, "500 Internal Server Error");
    atomic_store(&cache_control, "must-revalidate"); /* with a lifetime it would be shared */
    others_do_not_queue("/failure", 500);
    atomic_store(&status_line, "200 OK");
    atomic_store(&cache_control, "max-age=300");
}

static void what_is_for_one_client_is_not_waited_for_in_turn(void **state)
{
    (void)state;
    atomic_store(&cache_control, "private");
    others_do_not_queue("/private", 200);
    atomic_store(&cache_control, "max-age=300");
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(a_fetch_that_fails_is_not_repeated_in_turn),
        cmocka_unit_test(what_is_for_one_client_is_not_waited_for_in_turn),
        cmocka_unit_test(a_worker_that_fetches_dies),
        cmocka_unit_test(its_control_dies),
        cmocka_unit_test(its_host_dies),
    };
    return run_with_fleet(stories, &fleet, &backend, answers, NULL);
}
