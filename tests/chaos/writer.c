/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * writer: raises versions, invalidates, and notes what was acknowledged. In turn by URL, with and
 * without the host, by tag, by prefix, of all, and by POST through the proxy, alone or with the
 * groups that the answer names. One connection to the admin socket, msgpack by hand.
 */
#include "tests/chaos/chaos.h"
#include "polder/rpc.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MS 10000

struct writer {
    struct board *b;
    const char *sock;
    struct visitor v;
    int fd; /* -1: not connected */
    uint32_t calls;
    unsigned seed;
};

enum verdict { DONE, BUSY, FAILED };

/* ---- the admin socket ---- */

static int admin_connect(const char *sock)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(sa.sun_path, sizeof sa.sun_path, "%.100s", sock);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0)
        return fd;
    close(fd);
    return -1;
}

/* [0, id, "cache.invalidate", [{key: value}]]; no value: true */
static size_t call_make(uint8_t *out, uint32_t id, const char *key, const char *value)
{
    static const char method[] = "cache.invalidate";
    const size_t key_len = strlen(key), len = value ? strlen(value) : 0;
    uint8_t *at = out;
    *at++ = 0x94;
    *at++ = 0x00;
    *at++ = 0xce;
    for (int shift = 24; shift >= 0; shift -= 8)
        *at++ = (uint8_t)(id >> shift);
    *at++ = 0xa0 | (sizeof method - 1);
    memcpy(at, method, sizeof method - 1);
    at += sizeof method - 1;
    *at++ = 0x91;
    *at++ = 0x81;
    *at++ = (uint8_t)(0xa0 | key_len);
    memcpy(at, key, key_len);
    at += key_len;
    if (value) {
        *at++ = 0xd9;
        *at++ = (uint8_t)len;
        memcpy(at, value, len);
        at += len;
    } else {
        *at++ = 0xc3;
    }
    return (size_t)(at - out);
}

/* [1, id, nil, …] is an acknowledgement. */
static enum verdict answer_judge(const uint8_t *in, size_t len, uint32_t id)
{
    size_t at = 2;
    uint32_t got = 0;
    unsigned bytes = 0;
    if (len < 4 || in[0] != 0x94 || in[1] != 0x01)
        return FAILED;
    if (in[at] < 0x80)
        got = in[at];
    else
        bytes = in[at] == 0xcc ? 1 : in[at] == 0xcd ? 2 : in[at] == 0xce ? 4 : 99;
    for (at++; bytes && bytes != 99 && at < len; bytes--)
        got = got << 8 | in[at++];
    if (bytes || got != id || at >= len)
        return FAILED;
    if (in[at] == 0xc0) /* it holds here; do other hosts of a fleet know? */
        return memmem(in, len, "cut off", 7) ? BUSY : DONE;
    return memmem(in, len, "busy", 4) ? BUSY : FAILED;
}

static enum verdict call(struct writer *w, const char *key, const char *value)
{
    uint8_t buf[4096];
    size_t have = 0;
    if (w->fd < 0 && (w->fd = admin_connect(w->sock)) < 0)
        return FAILED;
    const size_t len = call_make(buf, ++w->calls, key, value);
    if (send(w->fd, buf, len, MSG_NOSIGNAL) == (ssize_t)len)
        while (have < sizeof buf) {
            struct pollfd p = {w->fd, POLLIN, 0};
            const ssize_t n =
                poll(&p, 1, ANSWER_MS) > 0 ? recv(w->fd, buf + have, sizeof buf - have, 0) : -1;
            if (n <= 0)
                break;
            have += (size_t)n;
            if (rpc_scan(buf, have) > 0)
                return answer_judge(buf, have, w->calls);
        }
    close(w->fd);
    w->fd = -1;
    return FAILED;
}

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
    const enum verdict v = call(w, key, value);
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
        struct writer w = {.b = b, .sock = sock, .fd = -1, .seed = seed};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        visitor_init(&w.v, port);
        write_on(&w, plan);
    }
    return pid;
}
