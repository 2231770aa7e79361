/* SPDX-License-Identifier: BSD-2-Clause */
/* Three daemons whose clocks differ and a real Redis: a limit of the fleet holds over all of them,
 * whatever is killed. All stories have one fleet: a new one learns for some seconds. POLDER_LONG: for
 * longer. What cannot be had here at will, such as replies that are lost, is in test_fleet_races. */
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
#define WINDOW_MS 1000
#define OFTEN_MS  10 /* between bursts of a client: three of them send three times the limit */
#define HOUR      30

static struct backend *backend;

static bool answers(struct asked *ask)
{
    return reply_ok(ask, "Cache-Control: max-age=3600\r\n", "good");
}

enum kind { FIXED, SLIDING, GCRA };
static const struct {
    const char *path, *terms;
    enum kind kind;
    unsigned requests;
} limits[] = {{"/fixed", "algorithm = fixed", FIXED, 1000},
              {"/sliding", "algorithm = sliding", SLIDING, 1000},
              {"/gcra", "algorithm = gcra", GCRA, 300},
              {"/closed", "algorithm = fixed cut_off = closed", FIXED, 300}};
#define LIMITS (sizeof limits / sizeof *limits)

static bool is_long(void)
{
    return getenv("POLDER_LONG") != NULL;
}

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

static const char small_limits[] =
    "limit \"one\" { requests = 1 window = 1h key = \"header:X-Key\" scope = fleet "
    "algorithm = gcra exempt = {\"free\"} }\n"
    "route \"/one\" { upstream = \"u\" limits = {\"one\"} }\n"
    "limit \"dear\" { requests = 30 window = 1h key = global scope = fleet algorithm = gcra }\n"
    "route \"/dear\" { upstream = \"u\" limits = {\"dear\"} cost = 10 }\n"
    "limit \"both\" { requests = 90 window = 1h key = global scope = fleet }\n"
    "limit \"all\" { requests = 120 window = 1h key = global scope = fleet algorithm = gcra }\n"
    "route \"/cheap\" { upstream = \"u\" limits = {\"both\", \"all\"} }\n"
    "route \"/costly\" { upstream = \"u\" limits = {\"both\", \"all\"} cost = 20 }\n"
    "limit \"wide\" { requests = 5 window = 1h key = global scope = fleet algorithm = gcra }\n"
    "limit \"narrow\" { requests = 3 window = 1h key = \"header:X-Key\" scope = fleet }\n"
    "route \"/two\" { upstream = \"u\" limits = {\"wide\", \"narrow\"} }\n";

static void start(void)
{
    static const char *const names[HOSTS] = {"amber", "birch", "cedar"};
    char text[4096];
    size_t n = 0;
    redis_start(&redis);
    n += (size_t)snprintf(text, sizeof text, "%s", small_limits);
    for (size_t k = 0; k < LIMITS; k++)
        n += (size_t)snprintf(text + n, sizeof text - n,
                              "limit \"%s\" { requests = %d window = %dms key = global "
                              "scope = fleet %s }\n"
                              "route \"%s\" { upstream = \"u\" limits = {\"%s\"} }\n",
                              limits[k].path + 1, limits[k].requests, WINDOW_MS, limits[k].terms,
                              limits[k].path, limits[k].path + 1);
    for (int i = 0; i < HOSTS; i++) {
        way_open(i);
        house_start(&host[i], 1,
                    "fleet { store = {\"unix:%s\"} name = \"test\" host = \"%s\" secret = "
                    "\"" SECRET "\" limit_timeout = 500ms }\n"
                    "limit \"open\" { requests = 3 window = 1h key = global scope = fleet "
                    "cut_off = open }\n"
                    "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                    "limit \"moved\" { requests = 20 window = 1h key = global scope = host }\n"
                    "route \"/moved\" { upstream = \"u\" limits = {\"moved\"} }\n"
                    "limit \"hour\" { requests = %d window = 1h key = global scope = fleet }\n"
                    "route \"/hour\" { upstream = \"u\" limits = {\"hour\"} }\n"
                    "limit \"day\" { requests = 9 window = 1d key = global scope = fleet "
                    "algorithm = fixed }\n"
                    "route \"/day\" { upstream = \"u\" limits = {\"day\"} }\n"
                    "route \"/open\" { upstream = \"u\" limits = {\"open\"} }\n%s",
                    way(i), names[i], backend_port(backend), HOUR, text);
        house_advance(&host[i], (unsigned)i * 2000);
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
    unsigned port, burst;
    const char *path;
    size_t n;
    struct line log[100000];
};
static struct client clients[LIMITS][HOSTS];
static atomic_bool over;

static uint64_t real_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

#define BURST_MAX 16

static bool send_burst(int fd, const char *path, unsigned n)
{
    char text[BURST_MAX * 96] = "";
    size_t len = 0;
    while (n--)
        len += (size_t)snprintf(text + len, sizeof text - len,
                                "GET %s HTTP/1.1\r\nHost: example.org\r\n\r\n", path);
    return send(fd, text, len, MSG_NOSIGNAL) == (ssize_t)len;
}

/* Bytes of the first response; 0: it is not all there. */
static size_t response_size(const char *text, size_t len)
{
    const char *body = strstr(text, "\r\n\r\n"), *length = strcasestr(text, "\r\nContent-Length:");
    if (!body || !length || length > body)
        return 0;
    const size_t size = (size_t)(body + 4 - text) + strtoul(length + 17, NULL, 10);
    return size <= len ? size : 0;
}

/* The statuses of n requests, one behind the other; 0 where the connection was gone. */
static void ask(int fd, const char *path, unsigned n, unsigned status[])
{
    char text[BURST_MAX * 1024];
    size_t len = 0;
    memset(status, 0, n * sizeof *status);
    if (!send_burst(fd, path, n))
        return;
    for (unsigned i = 0; i < n;) {
        const ssize_t got = recv(fd, text + len, sizeof text - 1 - len, 0);
        if (got <= 0)
            return;
        len += (size_t)got;
        text[len] = 0;
        for (size_t size; i < n && (size = response_size(text, len)); i++) {
            status[i] = (unsigned)atoi(text + 9);
            memmove(text, text + size, len - size + 1);
            len -= size;
        }
    }
}

static unsigned status_of(int i, const char *path)
{
    const int fd = client_connect(host[i].port);
    unsigned status;
    ask(fd, path, 1, &status);
    close(fd);
    return status;
}

static void *client_run(void *arg)
{
    struct client *c = arg;
    int fd = -1;
    while (!atomic_load(&over) && c->n + BURST_MAX < sizeof c->log / sizeof *c->log) {
        unsigned status[BURST_MAX];
        if (fd < 0)
            fd = client_connect(c->port);
        const uint64_t from_ms = real_ms();
        ask(fd, c->path, c->burst, status);
        const uint64_t to_ms = real_ms();
        for (unsigned i = 0; i < c->burst; i++)
            c->log[c->n++] = (struct line){from_ms, to_ms, status[i]};
        if (!status[c->burst - 1]) {
            close(fd);
            fd = -1;
        }
        if (to_ms < from_ms + OFTEN_MS)
            usleep((useconds_t)(from_ms + OFTEN_MS - to_ms) * 1000);
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
            c->burst = limits[k].requests * 3 / HOSTS / (1000 / OFTEN_MS);
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

/* In no window of the store's clock; sliding, gcra: in no window at all. */
static void assert_never_above(size_t k, unsigned max)
{
    for (uint64_t at = began() / WINDOW_MS * WINDOW_MS; at < ended();
         at += limits[k].kind == FIXED ? WINDOW_MS : 50) {
        const struct counts n = within(k, at, at + WINDOW_MS);
        if (n.admitted > max)
            fail_msg("%s: %u admitted of %u in the window from %llu ms", limits[k].path, n.admitted,
                     n.offered, (unsigned long long)(at - began()));
    }
}

static unsigned max_of(size_t k)
{
    return limits[k].kind == GCRA ? 2 * limits[k].requests : limits[k].requests;
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

/* Of a limit in a second, in percent, where enough was offered; 0: it was in none. */
static unsigned percent_of(size_t k)
{
    const uint64_t window_ms = limits[k].kind == SLIDING ? WINDOW_MS * 6 / 5 : WINDOW_MS;
    unsigned admitted = 0, windows = 0;
    for (uint64_t at = (began() / window_ms + 1) * window_ms; at + window_ms < ended();
         at += window_ms) {
        unsigned offered = 0, n = 0;
        for (int i = 0; i < HOSTS; i++)
            for (size_t l = 0; l < clients[k][i].n; l++) {
                const struct line *line = &clients[k][i].log[l];
                if (line->to_ms < at || line->to_ms >= at + window_ms)
                    continue;
                offered++;
                n += line->status == 200;
            }
        if (offered < limits[k].requests * window_ms / WINDOW_MS * 2)
            continue; /* this machine has other things to do */
        print_message("%s: %u of %u in %u ms\n", limits[k].path, n, offered, (unsigned)window_ms);
        admitted += n;
        windows++;
    }
    return windows ? (unsigned)(admitted * UINT64_C(100) * WINDOW_MS /
                                (windows * window_ms * limits[k].requests))
                   : 0;
}

static void three_hosts_together_admit_the_limit_and_no_more(void **state)
{
    static const struct {
        unsigned min, max;
    } percent[] = {[FIXED] = {90, 101}, [SLIDING] = {75, 84}, [GCRA] = {88, 201}};
    (void)state;
    start();
    wait_for_grants();
    clients_start();
    usleep(is_long() ? 20000000 : 2500000);
    clients_stop();
    for (size_t k = 0; k < LIMITS; k++) {
        const unsigned is = percent_of(k);
        assert_never_above(k, max_of(k));
        print_message("%s: %u %%\n", limits[k].path, is);
        if (is) /* of one or two windows, on a machine with other things to do */
            assert_in_range(is, percent[limits[k].kind].min - (is_long() ? 0 : 25),
                            percent[limits[k].kind].max);
    }
}

static unsigned admitted_of(int i, const char *path, unsigned n)
{
    unsigned admitted = 0;
    while (n--)
        admitted += status_of(i, path) == 200;
    return admitted;
}

static unsigned all_of(const char *path, unsigned n)
{
    unsigned admitted = 0;
    for (int i = 0; i < HOSTS; i++)
        admitted += admitted_of(i, path, n);
    return admitted;
}

/* Whether it was admitted; the response's text is in a static buffer. */
static bool admits(int i, const char *path, const char *key, const char **out)
{
    static char text[2048];
    const int fd = client_connect(host[i].port);
    size_t len = (size_t)snprintf(
        text, sizeof text, "GET %s HTTP/1.1\r\nHost: example.org\r\nX-Key: %s\r\n\r\n", path, key);
    assert_int_equal(send(fd, text, len, MSG_NOSIGNAL), len);
    for (len = 0; !response_size(text, len);) {
        const ssize_t got = recv(fd, text + len, sizeof text - 1 - len, 0);
        assert_true(got > 0);
        len += (size_t)got;
        text[len] = 0;
    }
    close(fd);
    if (out)
        *out = text;
    return atoi(text + 9) == 200;
}

/* Of requests that all hosts get in turn, some of which may be too early or, on a slow machine, too
 * late for the store's answer. */
static unsigned turns(const char *path, const char *key, unsigned rounds)
{
    unsigned n = 0;
    for (unsigned k = 0; k < rounds * HOSTS; k++)
        n += admits((int)(k % HOSTS), path, key, NULL);
    return n;
}

static void what_costs_more_than_a_host_holds_is_admitted(void **state)
{
    (void)state;
    assert_true(admits(0, "/cheap", "", NULL)); /* it holds two of a lease of three */
    wait_until(admits(0, "/costly", "", NULL), 10000);
    wait_until(admits(0, "/cheap", "", NULL), 10000);
    assert_in_range(turns("/costly", "", 4), 1, 3); /* of 90 */
}

static void small_limits_costs_and_odd_keys_hold_over_all_hosts(void **state)
{
    (void)state;
    const char *out;
    assert_true(admits(1, "/dear", "", &out));
    assert_non_null(strstr(out, "RateLimit: \"dear\";r=20;"));
    assert_int_equal(turns("/dear", "", 3), 2);
    assert_false(admits(0, "/dear", "", &out));
    assert_non_null(strstr(out, "RateLimit: \"dear\";r=0;"));
    static const char *const odd[] = {"a",   "a a",   "a\ta", "\xff\xfe", "%00",
                                      "%20", "\"a\"", "a,b",  "A"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        assert_int_equal(turns("/one", odd[i], 2), 1);
    assert_int_equal(turns("/one", "free", 2), 2 * HOSTS);
    assert_int_equal(turns("/two", "a", 4), 3); /* what one refuses is charged to neither */
    assert_int_equal(turns("/two", "b", 4), 2);
    unsigned n = 0;
    for (unsigned k = 0; k < 150; k++) {
        char key[16];
        snprintf(key, sizeof key, "key-%u", k);
        const unsigned one = (unsigned)admits((int)(k % HOSTS), "/one", key, NULL) +
                             admits((int)((k + 1) % HOSTS), "/one", key, NULL);
        assert_true(one <= 1);
        n += one;
    }
    assert_in_range(n, 140, 150);
}

/* What was taken in an hour that has not ended is known to all hosts that are left. */
static void a_store_that_has_lost_its_data_goes_on_in_the_same_hour(void **state)
{
    (void)state;
    unsigned n = all_of("/hour", 4);
    assert_in_range(n, 1, 12); /* some may have come too late, where this machine is slow */
    redis_do(&redis, "FLUSHALL");
    wait_until(says(0, "limit show hour", "cut off"), 5000);
    wait_until(says(0, "limit show hour", "granted"), 20000);
    wait_until(status_of(0, "/hour") == 200, 10000);
    n++;
    for (int i = 0; i < HOSTS; i++) {
        wait_until(says(i, "limit show hour", "granted"), 20000);
        n += admitted_of(i, "/hour", HOUR);
    }
    assert_in_range(n, HOUR - HOSTS, HOUR); /* a lease is one request */
    const char *out;
    assert_int_equal(ctl(&host[0], &out, "limit set hour requests=%d", HOUR + 5), 0);
    assert_int_equal(ctl(&host[1], &out, "limit set hour window=2h"), 0);
    const unsigned more = admitted_of(0, "/hour", HOUR);
    assert_in_range(n + more, HOUR + 5 - HOSTS, HOUR + 5);
    assert_int_equal(admitted_of(1, "/hour", 3) + admitted_of(2, "/hour", 3), 0);
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

/* What a host has that does not come to a store that has lost its data, that one does not know. */
static void whatever_is_killed_no_window_has_more(void **state)
{
    (void)state;
    const unsigned seed = is_long() ? (unsigned)getpid() : 8;
    srand(seed);
    print_message("seed %u\n", seed);
    for (int loses = is_long() ? 0 : 1; loses < 2; loses++) {
        play(loses, is_long() ? 60000 : 4000);
        for (size_t k = 0; k < LIMITS; k++)
            assert_never_above(k, loses ? max_of(k) + max_of(k) * (HOSTS - 1) / HOSTS : max_of(k));
    }
    stop();
}

static void a_host_that_starts_without_a_store_does_what_the_file_says(int i)
{
    assert_int_equal(house_stop(&host[i]), 0);
    const uint64_t before = real_ms();
    house_run(&host[i]);
    assert_int_equal(status_of(i, "/closed"), 429);
    const unsigned status = status_of(i, "/fixed");
    if (real_ms() < before + 2900) /* others may have taken all of this window */
        assert_int_equal(status, 429);
    assert_int_equal(admitted_of(i, "/open", 5), 3); /* it has counted nothing yet */
    house_advance(&host[i], 3100);
    const uint64_t from = real_ms();
    const unsigned admitted = admitted_of(i, "/fixed", limits[0].requests / HOSTS + 100);
    assert_true(admitted > 0);
    if (real_ms() < from + WINDOW_MS)
        assert_true(admitted <= limits[0].requests / HOSTS);
}

/* Its clock is moved; other hosts may have taken all of a window that had begun before. */
static void long_windows_begin_again(int i)
{
    static const unsigned hour = 3600000, day = 24 * 3600000;
    house_advance(&host[i], hour);
    assert_int_equal(status_of(i, "/hour"), 429);
    house_advance(&host[i], hour / 4); /* sliding: 1.2 windows, and the difference of clocks */
    assert_int_equal(status_of(i, "/hour"), 200);
    house_advance(&host[i], day - hour - hour / 4 - 60000);
    assert_int_equal(status_of(i, "/day"), 429);
    house_advance(&host[i], 60000 + day / 500);
    assert_int_equal(status_of(i, "/day"), 200);
}

static void without_a_store_each_limit_does_what_the_file_says(void **state)
{
    (void)state;
    const unsigned before = admitted_of(0, "/open", 2);
    redis_kill(&redis);
    for (int i = 0; i < HOSTS; i++)
        wait_until(status_of(i, "/closed") == 429, 5000);
    assert_int_equal(admitted_of(0, "/open", 10), 3 - before); /* what was taken before counts */
    assert_int_equal(admitted_of(1, "/open", 10), 3);
    house_advance(&host[0], 3100); /* its lease, and a window */
    wait_until(status_of(0, "/fixed") == 200, 10000);
    long_windows_begin_again(0);
    a_host_that_starts_without_a_store_does_what_the_file_says(2);
    wait_until(says(0, "status", "fleet_limit_cut_off"), 10000);
    assert_true(says(0, "limit show fixed", "cut off"));
    redis_run(&redis);
    wait_until(!says(0, "status", "fleet_limit_cut_off"), 20000);
    assert_true(says(0, "limit show fixed", "granted"));
}

/* On a host that takes another file, before the others do. */
static void set_scope(int i, const char *from, const char *to)
{
    const char *out;
    char command[512];
    snprintf(command, sizeof command, "sed -i '/\"moved\" { req/s/%s/%s/' %s", from, to,
             host[i].conf);
    assert_int_equal(system(command), 0);
    assert_int_equal(ctl(&host[i], &out, "reload"), 0);
}

static void a_limit_that_becomes_the_fleets_or_is_it_no_more_keeps_its_counts(void **state)
{
    (void)state;
    assert_int_equal(admitted_of(0, "/moved", 6), 6);
    assert_int_equal(admitted_of(1, "/moved", 4), 4);
    set_scope(0, "= host", "= fleet");
    set_scope(1, "= host", "= fleet");
    assert_true(says(0, "limit show moved", "fleet"));
    wait_until(says(0, "limit show moved", "granted") && says(1, "limit show moved", "granted"),
               20000);
    wait_until(status_of(0, "/moved") == 200, 10000);
    wait_until(status_of(1, "/moved") == 200, 10000);
    /* ten before and two since; of either host what it has not used of a lease is missing */
    assert_in_range(admitted_of(0, "/moved", 20) + admitted_of(1, "/moved", 20), 6, 8);
    set_scope(0, "= fleet", "= host");
    assert_in_range(admitted_of(0, "/moved", 20), 4, 14); /* 20, without what this host has had */
}

/* It can be asked, but remembers nothing more. */
static void a_store_without_memory_is_as_none(void **state)
{
    (void)state;
    wait_until(status_of(0, "/closed") == 200, 20000);
    redis_do(&redis, "CONFIG SET maxmemory 1");
    wait_until(says(0, "limit show fixed", "cut off"), 10000);
    wait_until(status_of(0, "/closed") == 429, 5000); /* it has used what it was granted */
    redis_do(&redis, "CONFIG SET maxmemory 0");
    wait_until(status_of(0, "/closed") == 200, 20000);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(three_hosts_together_admit_the_limit_and_no_more),
        cmocka_unit_test(what_costs_more_than_a_host_holds_is_admitted),
        cmocka_unit_test(small_limits_costs_and_odd_keys_hold_over_all_hosts),
        cmocka_unit_test(a_store_that_has_lost_its_data_goes_on_in_the_same_hour),
        cmocka_unit_test(a_limit_that_becomes_the_fleets_or_is_it_no_more_keeps_its_counts),
        cmocka_unit_test(without_a_store_each_limit_does_what_the_file_says),
        cmocka_unit_test(a_store_without_memory_is_as_none),
        cmocka_unit_test(whatever_is_killed_no_window_has_more),
    };
    return run_with_backend(stories, &backend, answers);
}
