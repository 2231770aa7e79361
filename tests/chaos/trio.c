/* SPDX-License-Identifier: BSD-2-Clause */
/* trio: see trio.h. */
#include "tests/chaos/trio.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define READERS   1
#define UPDATES   40 /* a second and host */
#define STORE     6379
#define SENTINEL  26379
#define LIMIT     60 /* a second */
#define WINDOW_MS 1000
#define WINDOWS   3600

/* By windows of the store's clock. */
struct trio_admitted {
    uint64_t from_ms;
    atomic_uint n[TRIO][WINDOWS];
};

static uint64_t real_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- the machines ---- */

static bool answers(struct asked *ask)
{
    return strcmp(ask->target, "/limited") == 0 ? reply_ok(ask, "Cache-Control: no-store\r\n", "in")
                                                : board_answers(ask);
}

static void start_store(struct trio *t, int i)
{
    struct redis *r = &t->at[i].store;
    *r = (struct redis){.port = STORE,
                        .open = true,
                        .master = i ? STORE : 0,
                        .master_host = nets_address(0),
                        .conf = "min-replicas-to-write 1\nmin-replicas-max-lag 3"};
    redis_start(r);
}

static void start_sentinel(struct trio *t, int i)
{
    char conf[512];
    struct redis *r = &t->at[i].sentinel;
    snprintf(conf, sizeof conf,
             "sentinel monitor prod %s %d 2\nsentinel down-after-milliseconds prod 6000\n"
             "sentinel failover-timeout prod 10000\n",
             nets_address(0), STORE);
    *r = (struct redis){.port = SENTINEL, .open = true, .conf = conf, .sentinel = true};
    redis_start(r);
}

static void start_host(struct trio *t, int i)
{
    static const char limit[] = "limit \"all\" { requests = %d window = %dms key = global "
                                "algorithm = fixed scope = fleet }\n"
                                "route \"/limited\" { upstream = \"u\" limits = {\"all\"} }\n";
    struct trio_machine *m = &t->at[i];
    char routes[4096];
    size_t n = (size_t)snprintf(
        routes, sizeof routes,
        "fleet { store = {\"redis://%s\", \"redis://%s\", \"redis://%s\"} host = \"h%d\" "
        "secret = \"sixteen characters\" cut_off = revalidate }\n",
        nets_address(0), nets_address(1), nets_address(2), i);
    n += (size_t)snprintf(routes + n, sizeof routes - n, limit, LIMIT, WINDOW_MS);
    snprintf(routes + n, sizeof routes - n, "cache { shared = true %s",
             board_routes + sizeof "cache {");
    m->backend = backend_start(answers, t->board);
    house_start(&m->host, 1, routes, "64M", backend_port(m->backend));
}

bool trio_is_master(struct trio *t, int machine)
{
    struct redis *r = &t->at[machine].store;
    return r->pid && strstr(redis_do(r, "INFO replication"), "role:master");
}

int trio_master_but(struct trio *t, int machine)
{
    for (int i = 0; i < TRIO; i++)
        if (i != machine && trio_is_master(t, i))
            return i;
    return -1;
}

static bool knows_the_others(struct trio *t, int i)
{
    return strstr(redis_do(&t->at[i].sentinel, "INFO sentinel"), "slaves=2,sentinels=3");
}

bool trio_says(struct trio *t, int host, const char *text)
{
    const char *out;
    return ctl(&t->at[host].host, &out, "--json fleet") == 0 && strstr(out, text);
}

bool trio_follows(struct trio *t, int host, int master)
{
    char store[64];
    snprintf(store, sizeof store, "\"store\": \"redis://%s:%d/0\"", nets_address(master), STORE);
    return trio_says(t, host, "\"state\": \"member\"") && trio_says(t, host, store);
}

/* Of limits: a third. */
static bool has_its_share(struct trio *t, int i)
{
    const char *out;
    return ctl(&t->at[i].host, &out, "fleet") == 0 && strstr(out, "33.3");
}

/* ---- those that read, write and count ---- */

static void admit(struct trio_admitted *a, int i, struct visitor *v)
{
    struct answer got;
    const uint64_t window = real_ms() / WINDOW_MS, at = window - a->from_ms / WINDOW_MS;
    const enum outcome how =
        visitor_ask(v, "GET /limited HTTP/1.1\r\nHost: test.example\r\n\r\n", false, &got);
    if (how == VISIT_DONE && got.status == 200 && real_ms() / WINDOW_MS == window && at < WINDOWS)
        atomic_fetch_add(&a->n[i][at], 1);
}

static pid_t client_start(struct trio *t, int i)
{
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid)
        return pid;
    struct visitor v;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    visitor_init(&v, t->at[i].host.port);
    while (!atomic_load(&t->board->stop)) {
        admit(t->admitted, i, &v);
        nap_ms(1000 / (2 * LIMIT));
    }
    _exit(0);
}

static void start_people(struct trio *t, int i)
{
    struct trio_machine *m = &t->at[i];
    readers_start(&m->readers, t->board, m->host.port, READERS);
    m->writer =
        writer_start(t->board, m->host.sock, m->host.port,
                     (struct writer_plan){.per_second = UPDATES, .tolerant = true, .fleet = true});
    m->client = client_start(t, i);
}

static void judge_limit(struct trio *t, const char *story)
{
    const struct trio_admitted *a = t->admitted;
    const uint64_t last = (real_ms() - a->from_ms) / WINDOW_MS;
    unsigned all = 0, most = 0;
    for (uint64_t w = 0; w <= last && w < WINDOWS; w++) {
        unsigned sum = 0;
        for (int i = 0; i < TRIO; i++)
            sum += a->n[i][w];
        if (sum > LIMIT)
            print_error("%s: second %u: %u + %u + %u admitted\n", story, (unsigned)w, a->n[0][w],
                        a->n[1][w], a->n[2][w]);
        most = sum > most ? sum : most;
        all += sum;
    }
    printf("chaos: %s: %u admitted in %u s, at most %u of %d in a second\n", story, all,
           (unsigned)last, most, LIMIT);
    assert_true(most <= LIMIT || t->limits_lapse);
}

/* ---- from the beginning to the end ---- */

static void each(struct trio *t, void (*start)(struct trio *t, int i))
{
    for (int i = 0; i < TRIO; i++) {
        nets_enter(i);
        start(t, i);
        nets_enter(-1);
    }
}

void trio_start(struct trio *t)
{
    const char *out;
    *t = (struct trio){.board = board_open()};
    t->admitted =
        mmap(NULL, sizeof *t->admitted, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(t->admitted != MAP_FAILED);
    t->admitted->from_ms = real_ms();
    each(t, start_store);
    each(t, start_sentinel);
    each(t, start_host);
    for (int i = 0; i < TRIO; i++)
        wait_until(trio_follows(t, i, 0) && has_its_share(t, i), 20000);
    assert_int_equal(ctl(&t->at[0].host, &out, "cache invalidate --all"), 0);
    t->board->began_ms = mono_ms();
    atomic_store(&t->board->delay_us, 3000);
    each(t, start_people);
    for (int i = 0; i < TRIO; i++)
        wait_until(knows_the_others(t, i), 15000);
}

void trio_stop(struct trio *t, const char *story)
{
    for (int i = 0; i < TRIO; i++) {
        readers_join(&t->at[i].readers, t->board);
        waitpid(t->at[i].writer, NULL, 0);
        waitpid(t->at[i].client, NULL, 0);
    }
    board_judge(t->board, story);
    judge_limit(t, story);
    for (int i = 0; i < TRIO; i++) {
        house_remove(&t->at[i].host);
        backend_stop(t->at[i].backend);
        redis_remove(&t->at[i].sentinel);
        redis_remove(&t->at[i].store);
    }
    munmap(t->admitted, sizeof *t->admitted);
    board_close(t->board);
}

bool trio_prepare(const char *story)
{
    const char *why = nets_make(TRIO);
    setlinebuf(stdout); /* a child has nothing of it */
    if (*why)
        fprintf(stderr, "%s: NOT TESTED: %s\n", story, why);
    return !*why;
}

void trio_lose_all(int machine, bool lose)
{
    for (int i = 0; i < TRIO; i++)
        if (i != machine) {
            nets_lose(machine, i, lose);
            nets_lose(i, machine, lose);
        }
}
