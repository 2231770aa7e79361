/* SPDX-License-Identifier: BSD-2-Clause */
/* Three hosts, and invalidations at random ones: who reads on any host after the acknowledgement
 * never sees what was before it; nor while the store is killed, emptied, stopped and replaced, and
 * while control dies and hangs, as hosts that are cut off validate what they serve. */
#include "tests/chaos/chaos.h"
#include "redis.h"
#include "cable.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define HOSTS   3
#define WRITERS 24

struct fleet {
    struct redis redis[2];
    struct cable *wire[HOSTS][2]; /* NULL: none, the port itself */
    struct house host[HOSTS];
    struct board *board;
    struct backend *backend;
    struct readers readers[HOSTS];
    pid_t writer[WRITERS];
};

static bool is_member(struct house *h)
{
    const char *out;
    return ctl(h, &out, "fleet") == 0 && strstr(out, "state     member");
}

static void wait_for_members(struct fleet *f)
{
    for (int i = 0; i < HOSTS; i++)
        wait_until(is_member(&f->host[i]), 15000);
}

/* What stands before the other keys of all caches. */
static const char cache[] = "cache {", shared[] = "cache { shared = true shared_timeout = 100ms";

static unsigned store_port(const struct fleet *f, int host, int server)
{
    return f->wire[host][server] ? cable_port(f->wire[host][server]) : f->redis[server].port;
}

/* begin: of the section cache. */
static void start_host(struct fleet *f, int i, struct house *h, const char *begin,
                       const char *cut_off)
{
    char routes[4096];
    snprintf(routes, sizeof routes,
             "fleet { store = {\"redis://127.0.0.1:%u\", \"redis://127.0.0.1:%u\"} "
             "name = \"chaos\" host = \"h%d\" secret = \"sixteen characters\" "
             "cut_off = %s }\n%s%s",
             store_port(f, i % HOSTS, 0), store_port(f, i % HOSTS, 1), i, cut_off, begin,
             board_routes + sizeof cache - 1);
    house_start(h, 2, routes, "64M", backend_port(f->backend));
}

static void start(struct fleet *f, const char *begin, const char *cut_off, unsigned per_second,
                  bool tolerant)
{
    const char *out;
    for (int i = 0; i < 2; i++)
        f->redis[i].port = f->redis[i].port ? f->redis[i].port : free_port();
    f->redis[1].master = f->redis[0].port;
    for (int i = 0; i < 2; i++)
        redis_start(&f->redis[i]);
    f->board = board_open();
    f->backend = backend_start(board_answers, f->board);
    for (int i = 0; i < HOSTS; i++)
        start_host(f, i, &f->host[i], begin, cut_off);
    wait_for_members(f);
    /* while an epoch is young each of them waits */
    assert_int_equal(ctl(&f->host[0], &out, "cache invalidate --all"), 0);
    atomic_store(&f->board->delay_us, 3000);
    f->board->began_ms = mono_ms();
    for (int i = 0; i < HOSTS; i++)
        readers_start(&f->readers[i], f->board, f->host[i].port, 5);
    for (unsigned i = 0; i < WRITERS; i++)
        f->writer[i] = writer_start(f->board, f->host[i % HOSTS].sock, f->host[i % HOSTS].port,
                                    (struct writer_plan){.per_second = per_second / WRITERS,
                                                         .tolerant = tolerant,
                                                         .fleet = true});
}

static void stop(struct fleet *f, const char *story)
{
    const char *out;
    for (int i = 0; i < HOSTS; i++)
        readers_join(&f->readers[i], f->board);
    for (unsigned i = 0; i < WRITERS; i++)
        waitpid(f->writer[i], NULL, 0);
    for (int i = 0; i < HOSTS; i++)
        if (ctl(&f->host[i], &out, "--json fleet") == 0)
            printf("chaos: %s: %s", story, out);
    board_judge(f->board, story);
    for (int i = 0; i < HOSTS; i++)
        house_remove(&f->host[i]);
    for (int i = 0; i < 2; i++)
        redis_remove(&f->redis[i]);
    backend_stop(f->backend);
    board_close(f->board);
}

static void for_a_while(unsigned ms)
{
    for (const uint64_t end = mono_ms() + ms; mono_ms() < end;)
        nap_ms(20);
}

static void no_host_serves_what_another_has_invalidated(void **state)
{
    (void)state;
    static struct fleet f;
    memset(&f, 0, sizeof f);
    start(&f, cache, "serve", chaos_count("CHAOS_UPDATES", 1000, 1000), false);
    for_a_while(chaos_count("CHAOS_SECONDS", 60, 3) * 1000);
    stop(&f, "fleet");
}

/* It takes what the others have shared before it came. */
static void join(struct fleet *f, struct house *h, struct readers *readers)
{
    start_host(f, HOSTS, h, shared, "serve");
    wait_until(is_member(h), 15000);
    readers_start(readers, f->board, h->port, 5);
}

static void show_joined(struct fleet *f, struct house *h, struct readers *readers)
{
    const char *out;
    readers_join(readers, f->board);
    assert_int_equal(ctl(h, &out, "--json fleet"), 0);
    printf("chaos: host that has joined: %s", out);
    assert_null(strstr(out, "\"hits\": 0,"));
}

static void nor_takes_it_from_the_store(void **state)
{
    (void)state;
    static struct fleet f;
    static struct readers readers;
    struct house late;
    memset(&f, 0, sizeof f);
    start(&f, shared, "serve", chaos_count("CHAOS_UPDATES", 1000, 1000), false);
    for_a_while(chaos_count("CHAOS_SECONDS", 60, 2) * 500);
    join(&f, &late, &readers);
    for_a_while(chaos_count("CHAOS_SECONDS", 60, 2) * 500);
    show_joined(&f, &late, &readers);
    stop(&f, "fleet with a shared cache");
    house_remove(&late); /* writers may still have waited for it */
}

static struct redis *master_of(struct fleet *f)
{
    return &f->redis[f->redis[0].master ? 1 : 0];
}

/* The other one becomes the master; the one before comes back as its replica. */
static void fail_over(struct fleet *f)
{
    struct redis *old = master_of(f), *next = &f->redis[old == &f->redis[0]];
    redis_kill(old);
    redis_do(next, "REPLICAOF NO ONE");
    next->master = 0;
    old->master = next->port;
    redis_run(old);
}

#define WAYS 7

static void disturb(struct fleet *f, unsigned n)
{
    struct redis *master = master_of(f);
    const pid_t control = victim_of(&f->host[n / WAYS % HOSTS], "polderd: control");
    switch (n % WAYS) {
    case 0:
        redis_do(master, "FLUSHALL");
        break;
    case 1:
        redis_kill(master);
        for_a_while(300);
        redis_run(master);
        break;
    case 2: /* leases run out meanwhile */
        kill(master->pid, SIGSTOP);
        for_a_while(4000);
        kill(master->pid, SIGCONT);
        break;
    case 3:
        fail_over(f);
        break;
    case 4:
        if (control)
            kill(control, SIGKILL);
        break;
    case 5: /* its host's lease runs out before it is replaced */
        if (control)
            kill(control, SIGSTOP);
        break;
    case 6: /* numbers go backwards in the same history */
        redis_do(master, "DEL polder:{chaos}:log polder:{chaos}:count");
        break;
    }
}

static void nor_while_the_store_fails_in_all_ways(void **state)
{
    (void)state;
    static struct fleet f;
    memset(&f, 0, sizeof f);
    start(&f, shared, "revalidate", 600, true);
    const unsigned rounds = chaos_count("CHAOS_ROUNDS", 49, WAYS);
    for (unsigned n = 0; n < rounds; n++) {
        disturb(&f, n);
        for_a_while(500);
    }
    wait_for_members(&f);
    for_a_while(500);
    stop(&f, "fleet in trouble");
}

static void mend(struct fleet *f)
{
    cable_mend(f->wire[0][0]);
    cable_mend(f->wire[0][1]);
    cable_mend(f->wire[2][0]);
    cable_mend(f->wire[2][1]);
}

/* Which one that host follows; the first if none. */
static int followed(struct fleet *f, int host)
{
    char store[64];
    const char *out;
    snprintf(store, sizeof store, "store     redis://127.0.0.1:%u/", store_port(f, host, 1));
    return ctl(&f->host[host], &out, "fleet") == 0 && strstr(out, store) ? 1 : 0;
}

/* h1 always reaches both: without such a host nothing is promised. */
static void disturb_masters(struct fleet *f, unsigned n)
{
    const unsigned turn = n / 5 % 4;
    const int now = followed(f, 1);
    const unsigned part_ms =
        chaos_count("CHAOS_PART_MS", 4000, 1500); /* leases run out, or not yet */
    switch (n % 5) {
    case 0:
        cable_cut(f->wire[turn & 1 ? 0 : 2][turn >> 1]);
        break;
    case 1:
        redis_do(&f->redis[!now], "REPLICAOF NO ONE");
        break;
    case 2:
        cable_cut(f->wire[turn & 1 ? 2 : 0][!(turn >> 1)]);
        for_a_while(part_ms);
        break;
    case 3: /* as an election does that has found out late */
        redis_do(&f->redis[turn & 2 ? now : !now], "REPLICAOF 127.0.0.1 %u",
                 f->redis[turn & 2 ? !now : now].port);
        for_a_while(part_ms);
        break;
    case 4:
        mend(f);
        wait_for_members(f);
        break;
    }
}

static void nor_while_there_are_two_masters(void **state)
{
    (void)state;
    static struct fleet f;
    memset(&f, 0, sizeof f);
    for (int k = 0; k < 2; k++) {
        f.redis[k].port = free_port();
        f.wire[0][k] = cable_start(f.redis[k].port);
        f.wire[2][k] = cable_start(f.redis[k].port);
    }
    start(&f, shared, "revalidate", 600, true);
    const unsigned rounds = chaos_count("CHAOS_ROUNDS", 60, 5);
    for (unsigned n = 0; n < rounds; n++) {
        disturb_masters(&f, n);
        for_a_while(500);
    }
    mend(&f);
    wait_for_members(&f);
    for_a_while(500);
    stop(&f, "fleet with two masters");
    for (int k = 0; k < 2; k++) {
        cable_stop(f.wire[0][k]);
        cable_stop(f.wire[2][k]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_host_serves_what_another_has_invalidated),
        cmocka_unit_test(nor_takes_it_from_the_store),
        cmocka_unit_test(nor_while_the_store_fails_in_all_ways),
        cmocka_unit_test(nor_while_there_are_two_masters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
