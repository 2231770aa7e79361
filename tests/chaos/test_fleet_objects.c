/* SPDX-License-Identifier: BSD-2-Clause */
/* Thousands of objects that one host has and another takes from the store: each of them once, and what that
 * costs. POLDER_LONG: 5000 of each size; FLEET_OBJECTS: so many. */
#include "fleet_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINES 16 /* connections that ask at once */

static struct backend *backend;
static struct fleet fleet = {.sharing = "shared = true shared_timeout = 10s "
                                        "max_items = 100000 max_bytes = 512M"};
static char text[200001];

static unsigned number_of(const char *path)
{
    return (unsigned)atoi(path + 1 + strcspn(path + 1, "/") + 1);
}

/* "/SIZE/NUMBER": so many bytes of a text that shrinks by half or so, and begins with the path. */
static bool answers(struct asked *ask)
{
    const int len = atoi(ask->target + 1);
    reply(ask,
          "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: max-age=3600\r\n"
          "Cache-Tag: all, object-%u\r\nContent-Length: %d\r\n\r\n%-24s",
          number_of(ask->target), len, ask->target);
    return reply_bytes(ask, text + 24, (size_t)len - 24);
}

static uint64_t cpu_ns_of(struct house *h, const char *title)
{
    char path[64];
    unsigned long long ns = 0;
    pid_t pid[8];
    const size_t n = house_children(h, title, pid, 8);
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pid[i]);
        FILE *f = fopen(path, "r");
        if (f && fscanf(f, "%llu", &ns) == 1)
            sum += ns;
        if (f)
            fclose(f);
    }
    return sum;
}

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int by_size(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

struct reading {
    unsigned n, len, lines;
    uint32_t *us; /* how long each took */
    double seconds;
};

static void check(const struct reading *r, unsigned i, const struct message *m)
{
    char path[32];
    const int n = snprintf(path, sizeof path, "/%u/%u", r->len, i);
    assert_int_equal(m->status, 200);
    assert_int_equal(m->body_len, r->len);
    assert_memory_equal(m->body, path, (size_t)n);
    assert_memory_equal(m->body + 24, text + 24, r->len - 24);
}

/* All of them, once each, over so many connections. */
static void read_all(struct house *h, struct reading *r)
{
    int fd[LINES];
    uint64_t sent_us[LINES];
    const uint64_t began_us = now_us();
    for (unsigned k = 0; k < r->lines; k++)
        fd[k] = client_connect(h->port);
    for (unsigned i = 0; i < r->n + r->lines; i++) {
        const unsigned k = i % r->lines;
        struct message m;
        if (i >= r->lines) {
            client_read(fd[k], &m, false);
            r->us[i - r->lines] = (uint32_t)(now_us() - sent_us[k]);
            check(r, i - r->lines, &m);
            message_free(&m);
        }
        sent_us[k] = now_us();
        if (i < r->n)
            client_send(fd[k], "GET /%u/%u HTTP/1.1\r\nHost: example.org\r\n\r\n", r->len, i);
    }
    for (unsigned k = 0; k < r->lines; k++)
        close(fd[k]);
    r->seconds = (double)(now_us() - began_us) / 1e6;
    qsort(r->us, r->n, sizeof *r->us, by_size);
}

static void show(const struct reading *r, const char *what, const uint64_t cpu_ns[2],
                 struct house *h)
{
    const double n = r->n * 1000.;
    printf("%6u bytes %-20s %6.0f a second, p50 %5u us, p99 %6u us; us of CPU each: control %.1f, "
           "workers %.1f\n",
           r->len, what, r->n / r->seconds, r->us[r->n / 2], r->us[r->n * 99 / 100],
           (double)(cpu_ns_of(h, "polderd: control") - cpu_ns[0]) / n,
           (double)(cpu_ns_of(h, "polderd: worker") - cpu_ns[1]) / n);
}

static void measure(unsigned host, struct reading *r, const char *what)
{
    struct house *h = &fleet.host[host];
    const uint64_t cpu_ns[2] = {cpu_ns_of(h, "polderd: control"), cpu_ns_of(h, "polderd: worker")};
    read_all(h, r);
    show(r, what, cpu_ns, h);
}

/* How many that host has given to the store, when no more are on their way. A host gives what has room in
 * its rings and on the way to the store, and long bodies may not have. */
static unsigned given_by(unsigned host)
{
    unsigned puts = fleet_number(&fleet.host[host], "puts"), before;
    do {
        before = puts;
        nap_ms(300);
        puts = fleet_number(&fleet.host[host], "puts");
    } while (puts != before);
    return puts;
}

static void each_is_taken_once(unsigned n, unsigned len)
{
    struct reading r = {.n = n, .len = len, .us = calloc(n, sizeof *r.us)};
    assert_non_null(r.us);
    const unsigned before = given_by(0), calls = backend_calls(backend);
    r.lines = 4;
    measure(0, &r, "fetched and given");
    const unsigned given = given_by(0) - before, most = n + 2 * (n - given);
    assert_int_equal(backend_calls(backend) - calls, n);
    assert_in_range(given, len > 100000 ? 1 : n, n);
    r.lines = LINES;
    measure(1, &r, "taken, 16 at once");
    r.lines = 1;
    measure(2, &r, "taken, one by one");
    assert_in_range(backend_calls(backend) - calls, n, most);
    measure(2, &r, "hit here");
    assert_in_range(backend_calls(backend) - calls, n, most);
    free(r.us);
}

static void thousands_of_objects_are_taken_once(void **state)
{
    (void)state;
    const char *given = getenv("FLEET_OBJECTS");
    const unsigned n = given ? (unsigned)atoi(given) : getenv("POLDER_LONG") ? 5000 : 400;
    for (size_t i = 0; i < sizeof text - 1; i++)
        text[i] = (char)(rand() % 2 ? 'a' + rand() % 26 : ' ');
    each_is_taken_once(n, 1000);
    each_is_taken_once(n, 20000);
    each_is_taken_once(n / 10, 200000);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(thousands_of_objects_are_taken_once),
    };
    return run_with_fleet(stories, &fleet, &backend, answers, NULL);
}
