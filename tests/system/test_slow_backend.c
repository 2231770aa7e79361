/* SPDX-License-Identifier: BSD-2-Clause */
/* A backend that thinks longer than the lease of a claim lasts is still asked once; a keeper that
 * stands still holds nobody up for long. */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define CLIENTS  6
#define LEASE_MS 10000 /* FETCH_LOCK_LEASE_MS */

static struct backend *backend;
static struct house house;
static atomic_bool thinks;
static atomic_uint answered;

static bool answers_when_told(struct asked *a)
{
    while (atomic_load(&thinks))
        nap_ms(5);
    return reply_ok(a, "Cache-Control: max-age=600\r\n", "content");
}

static void *ask(void *arg)
{
    const int fd = client_connect(house.port);
    struct message m;
    (void)arg;
    client_send(fd, "GET /slow HTTP/1.1\r\nHost: test.example\r\n\r\n");
    while (atomic_load(&thinks)) /* client_read() has less patience */
        nap_ms(5);
    client_read(fd, &m, false);
    if (m.status == 200 && !strcmp(m.body, "content"))
        atomic_fetch_add(&answered, 1);
    message_free(&m);
    return NULL;
}

static void a_slow_backend_is_asked_once_by_all(void **state)
{
    pthread_t client[CLIENTS];
    (void)state;
    atomic_store(&thinks, true);
    backend = backend_start(answers_when_told, NULL);
    house_start(&house, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } timeout = \"60s\" }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(backend));
    for (unsigned i = 0; i < CLIENTS; i++)
        pthread_create(&client[i], NULL, ask, NULL);
    wait_until(backend_calls(backend) == 1, 5000);
    const uint64_t lapsed_ms = mono_ms() + LEASE_MS + 1000; /* had nobody renewed it */
    wait_until(mono_ms() > lapsed_ms || backend_calls(backend) > 1, LEASE_MS + 5000);
    assert_int_equal(backend_calls(backend), 1);
    atomic_store(&thinks, false);
    for (unsigned i = 0; i < CLIENTS; i++)
        pthread_join(client[i], NULL);
    assert_int_equal(atomic_load(&answered), CLIENTS);
    assert_int_equal(backend_calls(backend), 1);
    house_remove(&house);
    backend_stop(backend);
}

static bool answers_at_once(struct asked *a)
{
    return reply_ok(a, "Cache-Control: max-age=600\r\n", "content");
}

/* How long the second one who asks has to wait while the first one's response is not stored. */
static uint64_t waited_ms(const char *target)
{
    const uint64_t start = mono_ms();
    assert_int_equal(get(house.port, target, NULL), 200);
    assert_int_equal(get(house.port, target, NULL), 200);
    return mono_ms() - start;
}

static void a_keeper_that_stands_still_holds_nobody_up(void **state)
{
    uint64_t best = UINT64_MAX;
    (void)state;
    backend = backend_start(answers_at_once, NULL);
    house_start(&house, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(backend));
    for (int i = 0; i < 3 && best > 2500; i++) { /* the watchdog takes four seconds and more */
        char target[32];
        pid_t keeper;
        assert_int_equal(house_children(&house, "polderd: keeper", &keeper, 1), 1);
        kill(keeper, SIGSTOP);
        snprintf(target, sizeof target, "/still/%d", i);
        const uint64_t ms = waited_ms(target);
        best = ms < best ? ms : best;
        kill(keeper, SIGCONT);
        wait_until(served_from_store(house.port, "/still/0"), 20000);
    }
    print_message("the second one waited for %u ms\n", (unsigned)best);
    assert_in_range(best, 0, 2500);
    house_remove(&house);
    backend_stop(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_backend_is_asked_once_by_all),
        cmocka_unit_test(a_keeper_that_stands_still_holds_nobody_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
