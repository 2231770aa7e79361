/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of entries that are fetched again before they expire: the most valuable first, at a
 * bounded share of the backend, and nobody waits for it. */
#include "harness.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIFE_MS 6000

static struct backend *backend;
static atomic_bool closed;                  /* refreshes stop at the gate until it opens */
static atomic_bool failing;                 /* refreshes are answered with 503 */
static atomic_uint refreshing, most, again; /* now; at once; in all */
static atomic_uint slow_rank;               /* of /slow among the refreshes */

static void refresh(const struct asked *a)
{
    const unsigned now = atomic_fetch_add(&refreshing, 1) + 1;
    const unsigned rank = atomic_fetch_add(&again, 1) + 1;
    unsigned seen = atomic_load(&most);
    while (seen < now && !atomic_compare_exchange_weak(&most, &seen, now)) {
    }
    if (!strncmp(a->target, "/slow", 5))
        atomic_store(&slow_rank, rank);
    while (!strncmp(a->target, "/gate", 5) && atomic_load(&closed))
        nap_ms(5);
    nap_ms(30);
    atomic_fetch_sub(&refreshing, 1);
}

/* /NAME/LIFE/N; what is asked with the validator that the first answer had is a refresh. */
static bool answers(struct asked *a)
{
    char lines[128];
    unsigned life = 0;
    const char *slash = strchr(a->target + 1, '/');
    if (!strncmp(a->target, "/pass", 5)) {
        nap_ms(100);
        return reply_ok(a, "Cache-Control: no-store\r\n", "pass");
    }
    if (slash)
        life = (unsigned)atoi(slash + 1);
    if (field_of(&a->m, "If-None-Match")) {
        refresh(a);
        if (atomic_load(&failing))
            return reply(a, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    } else if (!strncmp(a->target, "/slow", 5)) {
        nap_ms(300);
    }
    snprintf(lines, sizeof lines, "Cache-Control: max-age=%u\r\nETag: \"1\"\r\n", life);
    return reply_ok(a, lines, "entry");
}

static void start(struct house *h, unsigned workers, const char *cache, const char *upstream)
{
    house_start(h, workers,
                "max_connections_per_client = 10000\n"
                "cache { stale_while_revalidate = \"0s\" %s }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } %s }\n"
                "route \"/pass\" { upstream = \"u\" }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                cache, backend_port(backend), upstream);
    backend_forget(backend);
    atomic_store(&closed, false);
    atomic_store(&failing, false);
    atomic_store(&most, 0);
    atomic_store(&again, 0);
    atomic_store(&slow_rank, 0);
}

/* Stored, and read often enough to be worth a refresh. */
static void make_hot(const struct house *h, const char *target)
{
    wait_until(served_from_store(h->port, target), 3000);
    for (int i = 0; i < 8; i++) /* reads are counted with a chance; so many are surely two */
        assert_true(served_from_store(h->port, target));
}

static json_int_t stat_of(struct house *h, const char *name)
{
    const char *out;
    json_error_t e;
    assert_int_equal(ctl(h, &out, "--json cache stats"), 0);
    json_t *j = json_loads(out, 0, &e);
    assert_non_null(j);
    const json_int_t n = json_integer_value(json_object_get(j, name));
    json_decref(j);
    return n;
}

/* The time of the house. */
static uint64_t moved_ms;

static uint64_t house_ms(void)
{
    return mono_ms() + moved_ms;
}

static void go_to(struct house *h, uint64_t ms)
{
    const uint64_t now = house_ms();
    if (ms <= now)
        return;
    house_advance(h, (unsigned)(ms - now));
    moved_ms += ms - now;
}

/* All of them are read again and again; everybody is answered from the store. */
static void read_until(const struct house *h, char (*target)[32], unsigned n, uint64_t end)
{
    while (house_ms() < end)
        for (unsigned i = 0; i < n && house_ms() < end; i++)
            assert_true(served_from_store(h->port, target[i]));
}

static void the_most_valuable_goes_first_where_only_one_may(void **state)
{
    (void)state;
    struct house h;
    char target[8][32], gate[32];
    const unsigned life = harness_sanitized() ? 20 : 10; /* seconds */
    start(&h, 1, "", "refresh_share = 1");
    snprintf(target[0], sizeof target[0], "/slow/%u/0", life);
    for (unsigned i = 1; i < 8; i++)
        snprintf(target[i], sizeof target[i], "/fast/%u/%u", life, i);
    snprintf(gate, sizeof gate, "/gate/%u/0", life * 8 / 10);
    make_hot(&h, target[0]); /* it alone takes a while */
    const uint64_t begin = house_ms() - 100;
    for (unsigned i = 1; i < 8; i++)
        make_hot(&h, target[i]);
    const uint64_t stored = house_ms();
    make_hot(&h, gate);
    atomic_store(&closed, true);
    go_to(&h, begin + life * 650);
    wait_until(served_from_store(h.port, gate) && atomic_load(&again) == 1, life * 200);
    /* it is under way; the others become due meanwhile, and wait for their turn */
    read_until(&h, target, 8, stored + life * 952);
    assert_int_equal(atomic_load(&again), 1);
    atomic_store(&closed, false);
    wait_until(atomic_load(&again) >= 3, 3000);
    assert_int_equal(atomic_load(&slow_rank), 2);
    assert_int_equal(atomic_load(&most), 1);
    house_remove(&h);
}

static void *pass_load(void *arg)
{
    static unsigned counts[1000];
    storm(*(const unsigned *)arg, "/pass", 800, 40, counts, NULL);
    return NULL;
}

static void two_hundred_that_expire_together_stay_within_the_bound(void **state)
{
    (void)state;
    struct house h;
    static char target[200][32];
    pthread_t load;
    start(&h, 2, "", "");
    const uint64_t begin = house_ms();
    for (unsigned i = 0; i < 200; i++) {
        snprintf(target[i], sizeof target[i], "/many/%u/%u", LIFE_MS / 1000, i);
        get(h.port, target[i], NULL);
    }
    for (unsigned i = 0; i < 200; i++)
        for (unsigned n = 0; n < 8; n++)
            get(h.port, target[i], NULL);
    go_to(&h, begin + LIFE_MS - LIFE_MS / 7);
    assert_int_equal(pthread_create(&load, NULL, pass_load, &h.port), 0);
    read_until(&h, target, 200, begin + LIFE_MS - 150);
    const unsigned at_once = atomic_load(&most), all = atomic_load(&again);
    pthread_join(load, NULL);
    /* two workers, one each, or a tenth of what forty clients have under way */
    assert_in_range(at_once, 2, 6);
    assert_true(all > 10);
    assert_true(stat_of(&h, "refreshed") >= all);
    house_remove(&h);
}

static void nothing_is_refreshed_while_the_backend_fails(void **state)
{
    (void)state;
    struct house h;
    static char target[40][32];
    start(&h, 1, "", "");
    const uint64_t begin = house_ms();
    for (unsigned i = 0; i < 40; i++) {
        snprintf(target[i], sizeof target[i], "/many/%u/%u", LIFE_MS / 1000, i);
        make_hot(&h, target[i]);
    }
    atomic_store(&failing, true);
    go_to(&h, begin + LIFE_MS - LIFE_MS / 7);
    read_until(&h, target, 40, begin + LIFE_MS - 150);
    assert_in_range(atomic_load(&again), 1, 3);
    house_remove(&h);
}

static void nobody_waits_for_a_refresh(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2, "", "");
    const uint64_t begin = house_ms();
    make_hot(&h, "/gate/10/0");
    atomic_store(&closed, true);
    go_to(&h, begin + 8500);
    wait_until(served_from_store(h.port, "/gate/10/0") && atomic_load(&again) == 1, 1300);
    for (int i = 0; i < 20 && house_ms() < begin + 9800; i++)
        assert_true(served_from_store(
            h.port, "/gate/10/0"));           /* it stands at the gate: who waits, waits for ever */
    assert_int_equal(atomic_load(&again), 1); /* over both workers */
    atomic_store(&closed, false);
    wait_until(atomic_load(&refreshing) == 0, 3000);
    house_remove(&h);
}

static void what_is_read_once_in_a_life_is_not_fetched_for_it(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "", "");
    const uint64_t begin = house_ms();
    get(h.port, "/cold/6/0", NULL);
    make_hot(&h, "/off/6/0");
    go_to(&h, begin + 5720);
    assert_true(served_from_store(h.port, "/cold/6/0")); /* its only reader, and it is due */
    nap_ms(200);
    assert_int_equal(atomic_load(&again),
                     0); /* and nobody has read the other one when it was due */
    house_remove(&h);
}

static void a_share_of_nothing_refreshes_nothing(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1, "", "refresh_share = 0");
    const uint64_t begin = house_ms();
    make_hot(&h, "/many/6/0");
    go_to(&h, begin + 5200);
    while (house_ms() < begin + 5800)
        assert_true(served_from_store(h.port, "/many/6/0"));
    assert_int_equal(atomic_load(&again), 0);
    house_remove(&h);
}

static atomic_uint fetching, fetching_most;

static bool counts_at_once(struct asked *a)
{
    const unsigned now = atomic_fetch_add(&fetching, 1) + 1;
    unsigned seen = atomic_load(&fetching_most);
    while (seen < now && !atomic_compare_exchange_weak(&fetching_most, &seen, now)) {
    }
    nap_ms(20);
    atomic_fetch_sub(&fetching, 1);
    return reply_ok(a, "Cache-Control: max-age=600\r\n", "warm");
}

static void the_warm_list_keeps_within_the_bound_too(void **state)
{
    (void)state;
    struct house h;
    char list[2000] = "";
    struct backend *b = backend_start(counts_at_once, NULL);
    for (unsigned i = 0; i < 30; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s\"test.example/w/%u\"",
                 i ? ", " : "", i);
    house_start(&h, 2,
                "cache { warm = {%s} }\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                list, backend_port(b));
    wait_until(backend_calls(b) == 30, 5000);
    assert_int_equal(atomic_load(&fetching_most), 1);
    house_remove(&h);
    backend_stop(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_most_valuable_goes_first_where_only_one_may),
        cmocka_unit_test(two_hundred_that_expire_together_stay_within_the_bound),
        cmocka_unit_test(nothing_is_refreshed_while_the_backend_fails),
        cmocka_unit_test(nobody_waits_for_a_refresh),
        cmocka_unit_test(what_is_read_once_in_a_life_is_not_fetched_for_it),
        cmocka_unit_test(a_share_of_nothing_refreshes_nothing),
        cmocka_unit_test(the_warm_list_keeps_within_the_bound_too),
    };
    return run_with_backend(tests, &backend, answers);
}
