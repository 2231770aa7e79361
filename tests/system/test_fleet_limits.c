/* SPDX-License-Identifier: BSD-2-Clause */
/* Three daemons and a real Redis: a limit of the fleet holds over all of them, whatever is killed. All
 * stories have one fleet: a new one learns for some seconds. */
#include "harness.h"
#include "redis.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HOSTS     3
#define SECRET    "a secret of sixteen or more"
#define LIMIT     200
#define WINDOW_MS 1000
#define OFTEN_US  3500 /* between requests of a client: three of them send four times the limit */

static struct backend *backend;

static bool answers(struct asked *ask)
{
    return reply_ok(ask, "Cache-Control: no-store\r\n", "good");
}

static const struct {
    const char *path, *terms;
    bool sliding;
} limits[] = {{"/fixed", "algorithm = fixed", false},
              {"/sliding", "algorithm = sliding", true},
              {"/closed", "algorithm = fixed cut_off = closed", false}};
#define LIMITS (sizeof limits / sizeof *limits)

static struct redis redis;
static struct house host[HOSTS];

/* Where host i finds the store, or does not. */
static const char *way(int i)
{
    static char path[128];
    snprintf(path, sizeof path, "%s.%d", redis.sock, i);
    return path;
}

static void way_open(int i)
{
    assert_int_equal(symlink("sock", way(i)), 0);
}

static void start(void)
{
    static const char *const names[HOSTS] = {"amber", "birch", "cedar"};
    char text[2048];
    size_t n = 0;
    redis_start(&redis);
    for (size_t k = 0; k < LIMITS; k++)
        n += (size_t)snprintf(text + n, sizeof text - n,
                              "limit \"%s\" { requests = %d window = %dms key = global "
                              "scope = fleet %s }\n"
                              "route \"%s\" { upstream = \"u\" limits = {\"%s\"} }\n",
                              limits[k].path + 1, LIMIT, WINDOW_MS, limits[k].terms, limits[k].path,
                              limits[k].path + 1);
    for (int i = 0; i < HOSTS; i++) {
        way_open(i);
        house_start(&host[i], 1,
                    "fleet { store = {\"unix:%s\"} name = \"test\" host = \"%s\" secret = "
                    "\"" SECRET "\" limit_timeout = 500ms }\n"
                    "limit \"open\" { requests = 3 window = 1h key = global scope = fleet "
                    "cut_off = open }\n"
                    "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                    "route \"/open\" { upstream = \"u\" limits = {\"open\"} }\n%s",
                    way(i), names[i], backend_port(backend), text);
    }
}

static void stop(void)
{
    for (int i = 0; i < HOSTS; i++)
        house_remove(&host[i]);
    redis_remove(&redis);
}

static void control_kill(int i)
{
    pid_t control;
    if (house_children(&host[i], "polderd: control", &control, 1) == 1)
        kill(control, SIGKILL);
}

/* ---- clients, which keep a log ---- */

struct line {
    uint64_t from_ms, to_ms; /* when it was sent, and answered; the clock that the store has, too */
    unsigned status;
};
struct client {
    pthread_t thread;
    unsigned port;
    const char *path;
    size_t n;
    struct line log[20000];
};
static struct client clients[LIMITS][HOSTS];
static atomic_bool over;

static uint64_t real_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* The status of one request; 0: the connection is gone. */
static unsigned ask(int fd, const char *path)
{
    char text[4096];
    size_t len = 0;
    const int wanted =
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: example.org\r\n\r\n", path);
    if (send(fd, text, (size_t)wanted, MSG_NOSIGNAL) != wanted)
        return 0;
    for (;;) {
        const ssize_t n = recv(fd, text + len, sizeof text - 1 - len, 0);
        if (n <= 0)
            return 0;
        len += (size_t)n;
        text[len] = 0;
        const char *body = strstr(text, "\r\n\r\n"),
                   *length = strcasestr(text, "\r\nContent-Length:");
        if (body && length && len >= (size_t)(body + 4 - text) + strtoul(length + 17, NULL, 10))
            return (unsigned)atoi(text + 9);
    }
}

static unsigned status_of(int i, const char *path)
{
    const int fd = client_connect(host[i].port);
    const unsigned status = ask(fd, path);
    close(fd);
    return status;
}

static void *client_run(void *arg)
{
    struct client *c = arg;
    int fd = -1;
    while (!atomic_load(&over) && c->n < sizeof c->log / sizeof *c->log) {
        struct line *l = &c->log[c->n];
        if (fd < 0)
            fd = client_connect(c->port);
        l->from_ms = real_ms();
        l->status = ask(fd, c->path);
        l->to_ms = real_ms();
        if (!l->status) {
            close(fd);
            fd = -1;
        }
        c->n++;
        usleep(OFTEN_US);
    }
    close(fd);
    return NULL;
}

static void clients_start(void)
{
    atomic_store(&over, false);
    for (size_t k = 0; k < LIMITS; k++)
        for (int i = 0; i < HOSTS; i++) {
            struct client *c = &clients[k][i];
            c->port = host[i].port;
            c->path = limits[k].path;
            c->n = 0;
            assert_int_equal(pthread_create(&c->thread, NULL, client_run, c), 0);
        }
}

static void clients_stop(void)
{
    atomic_store(&over, true);
    for (size_t k = 0; k < LIMITS; k++)
        for (int i = 0; i < HOSTS; i++)
            pthread_join(clients[k][i].thread, NULL);
}

struct counts {
    unsigned admitted, offered;
};
/* Of what was sent and answered within the span. */
static struct counts within(size_t k, uint64_t from_ms, uint64_t to_ms)
{
    struct counts n = {0};
    for (int i = 0; i < HOSTS; i++)
        for (size_t at = 0; at < clients[k][i].n; at++) {
            const struct line *l = &clients[k][i].log[at];
            if (l->from_ms < from_ms || l->to_ms >= to_ms)
                continue;
            n.offered++;
            n.admitted += l->status == 200;
        }
    return n;
}

static uint64_t began(void)
{
    return clients[0][0].log[0].from_ms;
}

static uint64_t ended(void)
{
    return clients[0][0].log[clients[0][0].n - 1].to_ms;
}

/* In no window of the store's clock; sliding: in no window at all. */
static void assert_never_above(size_t k, unsigned max)
{
    for (uint64_t at = began() / WINDOW_MS * WINDOW_MS; at < ended();
         at += limits[k].sliding ? 50 : WINDOW_MS) {
        const struct counts n = within(k, at, at + WINDOW_MS);
        if (n.admitted > max)
            fail_msg("%s: %u admitted of %u in the window from %llu ms", limits[k].path, n.admitted,
                     n.offered, (unsigned long long)(at - began()));
    }
}

/* ---- stories ---- */

static bool says(int i, const char *command, const char *text)
{
    const char *out;
    return ctl(&host[i], &out, "%s", command) == 0 && strstr(out, text);
}

static void wait_for_grants(void)
{
    for (size_t k = 0; k < LIMITS; k++)
        for (int i = 0; i < HOSTS; i++)
            wait_until(status_of(i, limits[k].path) == 200, 20000);
    for (int i = 0; i < HOSTS; i++)
        wait_until(says(i, "fleet", "33.3"), 20000); /* the part that each has */
}

/* Of a limit in any window, in percent, where enough was offered; 0: it was in none. */
static unsigned percent_of(size_t k)
{
    const uint64_t window_ms = limits[k].sliding ? WINDOW_MS * 6 / 5 : WINDOW_MS;
    unsigned admitted = 0, windows = 0;
    for (uint64_t at = (began() / window_ms + 1) * window_ms; at + window_ms < ended();
         at += window_ms) {
        const struct counts n = within(k, at, at + window_ms);
        if (n.offered < LIMIT * window_ms / WINDOW_MS * 3 / 2)
            continue; /* this machine has other things to do */
        admitted += n.admitted;
        windows++;
    }
    return windows
               ? (unsigned)(admitted * UINT64_C(100) * WINDOW_MS / (windows * window_ms * LIMIT))
               : 0;
}

static void three_hosts_together_admit_the_limit_and_no_more(void **state)
{
    (void)state;
    start();
    wait_for_grants();
    clients_start();
    sleep(3);
    clients_stop();
    for (size_t k = 0; k < LIMITS; k++) {
        const unsigned percent = percent_of(k);
        assert_never_above(k, LIMIT);
        print_message("%s: %u %%\n", limits[k].path, percent);
        if (percent)
            assert_in_range(percent, limits[k].sliding ? 65 : 85, 100);
    }
}

static bool cut[HOSTS], dead;

static void store_dies(void)
{
    if (dead)
        redis_run(&redis); /* empty */
    else
        redis_kill(&redis);
    dead = !dead;
}

/* Something happens to a host or to the store. */
static void mischief(bool loses)
{
    const int i = rand() % HOSTS;
    switch (rand() % (loses ? 8 : 5)) {
    case 0:
    case 1:
        control_kill(i);
        break;
    case 6:
        if (!dead)
            redis_do(&redis, "FLUSHALL");
        break;
    case 7:
        store_dies();
        break;
    default:
        if (cut[i])
            way_open(i);
        else
            unlink(way(i));
        cut[i] = !cut[i];
        control_kill(i); /* its link ends */
    }
}

static void play(bool loses, uint64_t ms)
{
    clients_start();
    for (const uint64_t until = real_ms() + ms; real_ms() < until;) {
        usleep((useconds_t)(rand() % 1200 + 100) * 1000);
        mischief(loses);
    }
    clients_stop();
}

static void make_well(void)
{
    for (int i = 0; i < HOSTS; i++)
        if (cut[i])
            way_open(i);
    if (dead)
        store_dies();
    memset(cut, 0, sizeof cut);
    wait_for_grants();
}

/* What a host that is cut off has of limits a store that has lost its data does not know. */
static void whatever_is_killed_no_window_has_more(void **state)
{
    (void)state;
    const unsigned seed = (unsigned)getpid();
    srand(seed);
    print_message("seed %u\n", seed);
    for (int loses = 0; loses < 2; loses++) {
        play(loses, loses ? 4000 : 7000);
        for (size_t k = 0; k < LIMITS; k++)
            assert_never_above(k, loses ? LIMIT + LIMIT * (HOSTS - 1) / HOSTS : LIMIT);
    }
    make_well();
}

static unsigned admitted_of(int i, const char *path, unsigned n)
{
    unsigned admitted = 0;
    while (n--)
        admitted += status_of(i, path) == 200;
    return admitted;
}

static void without_a_store_each_limit_does_what_the_file_says(void **state)
{
    (void)state;
    wait_for_grants();
    redis_kill(&redis);
    for (int i = 0; i < HOSTS; i++) {
        wait_until(status_of(i, "/closed") == 429, 5000);
        wait_until(status_of(i, "/fixed") == 200, 10000); /* of its share */
        assert_int_equal(status_of(i, "/closed"), 429);
        assert_int_equal(admitted_of(i, "/open", 10), 3);
    }
    wait_until(says(0, "status", "fleet_limit_cut_off"), 10000);
    const uint64_t last = real_ms() / WINDOW_MS; /* in which it may still have a grant */
    wait_until(real_ms() / WINDOW_MS > last, 2 * WINDOW_MS);
    const uint64_t before = real_ms();
    const unsigned admitted = admitted_of(0, "/fixed", LIMIT);
    /* it may have ended in the middle of another one */
    const uint64_t windows = (real_ms() - before) / WINDOW_MS + 2;
    assert_in_range(admitted, 1, windows * (LIMIT / HOSTS));
    assert_true(says(0, "limit show fixed", "cut off"));
    redis_run(&redis);
    wait_until(!says(0, "status", "fleet_limit_cut_off"), 20000);
    assert_true(says(0, "limit show fixed", "granted"));
    stop();
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(three_hosts_together_admit_the_limit_and_no_more),
        cmocka_unit_test(whatever_is_killed_no_window_has_more),
        cmocka_unit_test(without_a_store_each_limit_does_what_the_file_says),
    };
    return run_with_backend(stories, &backend, answers);
}
