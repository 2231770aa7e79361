/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * writer: raises versions, invalidates, and notes what was acknowledged. In turn by URL, with and
 * without the host, by tag, by prefix, of all, and by POST through the proxy, alone or with the
 * groups that the answer names.
 */
#include "tests/chaos/chaos.h"
#include "tests/chaos/caller.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

struct writer {
    struct board *b;
    struct visitor v;
    struct caller caller;
    unsigned seed;
};

/* ---- updates ---- */

static unsigned dice(struct writer *w, unsigned sides)
{
    return (unsigned)rand_r(&w->seed) % sides;
}

/* Raises `n` versions, has them invalidated, and only then says so. A call that was not
 * acknowledged promises nothing. */
static enum verdict update(struct writer *w, uint32_t first, uint32_t n, const char *key,
                           const char *value)
{
    uint32_t version[RESOURCES];
    for (uint32_t i = 0; i < n; i++)
        version[i] = atomic_fetch_add(&w->b->version[first + i], 1) + 1;
    const enum verdict v = caller_invalidate(&w->caller, key, value);
    for (uint32_t i = 0; i < n && v == DONE; i++)
        board_acknowledge(w->b, first + i, version[i]);
    return v;
}

static enum verdict by_url(struct writer *w, struct resource r)
{
    char path[64], url[128];
    resource_path(r, path);
    snprintf(url, sizeof url, "%s%s", dice(w, 3) ? "http://test.example" : "", path);
    atomic_fetch_add(&w->b->by_url, 1);
    return update(w, r.number, 1, "url", url);
}

static enum verdict by_tag(struct writer *w, struct resource r)
{
    char tag[32];
    const bool group = dice(w, 4) == 0;
    if (group)
        snprintf(tag, sizeof tag, "g%u-%u", r.kind, r.group);
    else
        snprintf(tag, sizeof tag, "m%u", r.number);
    atomic_fetch_add(&w->b->by_tag, 1);
    return update(w, group ? r.number - r.member : r.number, group ? MEMBERS : 1, "tag", tag);
}

static enum verdict by_prefix(struct writer *w, struct resource r)
{
    char path[64], prefix[128];
    resource_path(r, path);
    *strrchr(path, '/') = 0;
    snprintf(prefix, sizeof prefix, "%s%s/", dice(w, 2) ? "test.example" : "", path);
    atomic_fetch_add(&w->b->by_prefix, 1);
    return update(w, r.number - r.member, MEMBERS, "prefix", prefix);
}

static enum verdict by_all(struct writer *w)
{
    atomic_fetch_add(&w->b->by_all, 1);
    return update(w, 0, RESOURCES, "all", NULL);
}

/* The backend raises the versions itself and says which. */
static enum verdict by_post(struct writer *w, struct resource r)
{
    char path[64], request[256];
    struct answer a;
    unsigned number, version;
    int used;
    resource_path(r, path);
    snprintf(request, sizeof request,
             "POST %s%s HTTP/1.1\r\nHost: test.example\r\nContent-Length: 2\r\n\r\nok", path,
             dice(w, 2) ? "?group" : "");
    atomic_fetch_add(&w->b->by_post, 1);
    if (visitor_ask(&w->v, request, false, &a) != VISIT_DONE || a.status != 200)
        return FAILED;
    a.body[a.body_len] = 0;
    for (const char *at = a.body; sscanf(at, "%u:%u%n", &number, &version, &used) == 2; at += used)
        board_acknowledge(w->b, number, version);
    return DONE;
}

static enum verdict one(struct writer *w, struct writer_plan plan)
{
    const struct resource r = resource_of(dice(w, RESOURCES));
    const unsigned way = plan.gentle ? 0 : dice(w, plan.fleet ? 81 : 100);
    return way < 50   ? by_url(w, r)
           : way < 65 ? by_tag(w, r)
           : way < 80 ? by_prefix(w, r)
           : way < 81 ? by_all(w)
                      : by_post(w, r);
}

static void pace(const struct timespec *begin, uint64_t done, unsigned per_second)
{
    const uint64_t ns = done * UINT64_C(1000000000) / per_second + (uint64_t)begin->tv_nsec;
    const struct timespec due = {begin->tv_sec + (time_t)(ns / 1000000000),
                                 (long)(ns % 1000000000)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

static void write_on(struct writer *w, struct writer_plan plan)
{
    struct timespec begin;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (uint64_t done = 1; !atomic_load(&w->b->stop); done++) {
        enum verdict v = one(w, plan);
        atomic_fetch_add(&w->b->updates, v == DONE);
        atomic_fetch_add(&w->b->busy, v == BUSY);
        if (v == FAILED) {
            atomic_fetch_add(&w->b->failed, 1);
            if (!plan.tolerant)
                board_note(w->b, "an invalidation was not acknowledged");
            nap_ms(5);
        }
        if (plan.per_second)
            pace(&begin, done, plan.per_second);
    }
    _exit(0);
}

pid_t writer_start(struct board *b, const char *sock, unsigned port, struct writer_plan plan)
{
    static unsigned seed = 77;
    fflush(NULL);
    seed++;
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct writer w = {.b = b, .caller = {.sock = sock, .fd = -1}, .seed = seed};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        visitor_init(&w.v, port);
        write_on(&w, plan);
    }
    return pid;
}
