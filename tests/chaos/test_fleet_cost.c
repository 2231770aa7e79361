/* SPDX-License-Identifier: BSD-2-Clause */
/* What a fleet costs: how long an invalidation takes until three hosts have it, and how much of a core
 * and how many commands of the store a thousand of them a second take. With POLDER_LONG=1 the figures
 * are held against what is promised; that wants an idle machine. */
#include "tests/chaos/caller.h"
#include "tests/chaos/chaos.h"
#include "redis.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HOSTS     3
#define MANY      16 /* callers of a host */
#define SAMPLES   4096
#define P99_MS    50.
#define CORE_MOST 5. /* percent */

static struct backend *backend;

static bool answers(struct asked *ask)
{
    if (!strcmp(ask->method, "POST"))
        return reply(ask, "HTTP/1.1 204 No Content\r\n\r\n");
    return reply_ok(ask, "Cache-Control: max-age=300\r\n", "x");
}

struct fleet {
    struct redis redis;
    struct house host[HOSTS];
};

static bool is_member(struct house *h)
{
    const char *out;
    return ctl(h, &out, "fleet") == 0 && strstr(out, "state     member");
}

static int start(void **state)
{
    static struct fleet fleet;
    struct fleet *f = *state = &fleet;
    const char *out;
    backend = backend_start(answers, NULL);
    redis_start(&f->redis);
    for (int i = 0; i < HOSTS; i++)
        house_start(
            &f->host[i], 1,
            "fleet { store = {\"unix:%s\"} host = \"h%d\" secret = \"sixteen characters\" }\n"
            "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
            "route \"/*\" { upstream = \"u\" cache { } }\n",
            f->redis.sock, i, backend_port(backend));
    for (int i = 0; i < HOSTS; i++)
        wait_until(is_member(&f->host[i]), 10000);
    /* while an epoch is young each of them waits */
    assert_int_equal(ctl(&f->host[0], &out, "cache invalidate --all"), 0);
    return 0;
}

static int stop(void **state)
{
    struct fleet *f = *state;
    for (int i = 0; i < HOSTS; i++)
        house_remove(&f->host[i]);
    redis_remove(&f->redis);
    backend_stop(backend);
    return 0;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- those that invalidate ---- */

/* One thread each: at a pace, at one host or all in turn, by command or by POST. */
struct agent {
    struct fleet *fleet;
    pthread_t thread;
    unsigned host, n, number; /* number: among all */
    double every_s;
    bool posts, roams;
    double took_ms[SAMPLES];
    unsigned done, failed;
};

static bool invalidate(struct agent *a, struct caller callers[HOSTS], struct visitor *v, unsigned i)
{
    char path[64], request[160];
    struct answer answer;
    snprintf(path, sizeof path, "/a/%u", (a->number * 131 + i) % 1000);
    if (!a->posts)
        return caller_invalidate(&callers[a->roams ? (unsigned)rand() % HOSTS : a->host], "url",
                                 path) == DONE;
    snprintf(request, sizeof request,
             "POST %s HTTP/1.1\r\nHost: test.example\r\nContent-Length: 2\r\n\r\nok", path);
    return visitor_ask(v, request, false, &answer) == VISIT_DONE && answer.status == 204;
}

static void *run_agent(void *arg)
{
    struct agent *a = arg;
    struct caller callers[HOSTS];
    struct visitor v;
    const double begin = now_s() + a->every_s * a->number / 64;
    for (int i = 0; i < HOSTS; i++)
        callers[i] = (struct caller){.sock = a->fleet->host[i].sock, .fd = -1};
    visitor_init(&v, a->fleet->host[a->host].port);
    for (unsigned i = 0; i < a->n; i++) {
        const double due = begin + a->every_s * i;
        const double wait = due - now_s();
        if (wait > 0)
            nanosleep(&(struct timespec){(time_t)wait, (long)((wait - (double)(time_t)wait) * 1e9)},
                      NULL);
        const double at = now_s();
        if (!invalidate(a, callers, &v, i))
            a->failed++;
        else if (a->done < SAMPLES)
            a->took_ms[a->done++] = (now_s() - at) * 1000;
    }
    visitor_fini(&v);
    for (int i = 0; i < HOSTS; i++)
        if (callers[i].fd >= 0)
            close(callers[i].fd);
    return NULL;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* ---- an invalidation's way ---- */

static void an_invalidation_returns_when_all_hosts_have_it(void **state)
{
    static struct agent a;
    a = (struct agent){.fleet = *state,
                       .n = chaos_count("COST_SAMPLES", 1000, 20),
                       .every_s = 0.05,
                       .roams = true};
    run_agent(&a);
    assert_int_equal(a.failed, 0);
    qsort(a.took_ms, a.done, sizeof *a.took_ms, by_size);
    const double p99 = a.took_ms[a.done * 99 / 100];
    printf("cost: %u invalidations, 20 a second, applied by %d hosts: p50 %.1f ms, p90 %.1f, p99 "
           "%.1f, "
           "most %.1f\n",
           a.done, HOSTS, a.took_ms[a.done / 2], a.took_ms[a.done * 9 / 10], p99,
           a.took_ms[a.done - 1]);
    if (getenv("POLDER_LONG"))
        assert_true(p99 <= P99_MS);
}

/* ---- a thousand a second ---- */

/* ns on a core. */
static uint64_t cpu_of(struct house *h)
{
    char path[64];
    uint64_t ns = 0;
    snprintf(path, sizeof path, "/proc/%d/schedstat", (int)victim_of(h, "polderd: control"));
    FILE *in = fopen(path, "r");
    assert_non_null(in);
    assert_int_equal(fscanf(in, "%" SCNu64, &ns), 1);
    fclose(in);
    return ns;
}

static uint64_t commands_of(struct fleet *f)
{
    static const char name[] = "total_commands_processed:";
    const char *at = strstr(redis_do(&f->redis, "INFO stats"), name);
    assert_non_null(at);
    return strtoull(at + sizeof name - 1, NULL, 10);
}

/* For so long: n agents of each host, `per_second` in all. */
static void measure(struct fleet *f, const char *how, bool posts, unsigned n, double per_second,
                    double seconds)
{
    static struct agent agent[HOSTS * MANY];
    uint64_t cpu[HOSTS], commands = commands_of(f), at_all = 0, failed = 0;
    const unsigned all = n * HOSTS;
    for (int i = 0; i < HOSTS; i++)
        cpu[i] = cpu_of(&f->host[i]);
    const double begin = now_s();
    for (unsigned i = 0; i < all; i++) {
        agent[i] = (struct agent){.fleet = f,
                                  .host = i % HOSTS,
                                  .number = i,
                                  .n = (unsigned)(per_second * seconds / all),
                                  .every_s = all / per_second,
                                  .posts = posts};
        assert_int_equal(pthread_create(&agent[i].thread, NULL, run_agent, &agent[i]), 0);
    }
    if (!all)
        nap_ms((unsigned)(seconds * 1000));
    for (unsigned i = 0; i < all; i++) {
        pthread_join(agent[i].thread, NULL);
        at_all += agent[i].done;
        failed += agent[i].failed;
    }
    const double took = now_s() - begin;
    commands = commands_of(f) - commands;
    printf("cost: %s: %.0f a second for %.1f s; control of each host:", how, (double)at_all / took,
           took);
    double most = 0;
    for (int i = 0; i < HOSTS; i++) {
        const double percent = (double)(cpu_of(&f->host[i]) - cpu[i]) / took / 1e7;
        most = percent > most ? percent : most;
        printf(" %.2f %%", percent);
    }
    printf(" of a core; %.0f commands of the store a second", (double)commands / took);
    if (at_all)
        printf(", %.2f an invalidation", (double)commands / (double)at_all);
    printf("\n");
    assert_int_equal(failed, 0);
    if (getenv("POLDER_LONG") && at_all)
        assert_true(most < CORE_MOST);
}

static void a_thousand_a_second_cost_control_little(void **state)
{
    const double seconds = chaos_count("COST_SECONDS", 20, 1);
    measure(*state, "idle", false, 0, 1, seconds);
    measure(*state, "by POST", true, 1, 1000, seconds);
    measure(*state, "by command", false, MANY, 1000, seconds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_invalidation_returns_when_all_hosts_have_it),
        cmocka_unit_test(a_thousand_a_second_cost_control_little),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
