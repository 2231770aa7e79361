/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_rig: see fleet_rig.h. */
#include "fleet_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool fleet_says(struct house *h, const char *text)
{
    const char *out;
    return ctl(h, &out, "fleet") == 0 && strstr(out, text);
}

/* Of all lines that begin with the name: the last word of each, together. */
static unsigned sum_of(const char *text, const char *name)
{
    const size_t len = strlen(name);
    unsigned sum = 0;
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        line += strspn(line, " ");
        const size_t all = strcspn(line, "\n");
        if (all <= len || strncmp(line, name, len) != 0 || !memchr(" {", line[len], 2))
            continue;
        const char *end = line + all;
        while (end > line && end[-1] != ' ')
            end--;
        sum += (unsigned)atoi(end);
    }
    return sum;
}

unsigned fleet_number(struct house *h, const char *name)
{
    const char *out;
    assert_int_equal(ctl(h, &out, "fleet"), 0);
    return sum_of(out, name);
}

unsigned fleet_metric(struct house *h, const char *name)
{
    struct message m;
    assert_int_equal(get(h->ops_port, "/metrics", &m), 200);
    const unsigned sum = sum_of(m.body, name);
    message_free(&m);
    return sum;
}

void fleet_start_host(struct fleet *f, int i, const char *secret)
{
    char store[128];
    snprintf(store, sizeof store, "unix:%s", f->redis.sock);
    house_start(&f->host[i], 2,
                "fleet { store = {\"%s\"} name = \"test\" host = \"h%u\" secret = \"%s\" "
                "%s }\n"
                "cache { %s }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "%s\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                f->store ? f->store : store, f->names_from + (unsigned)i, secret,
                f->section ? f->section : "", f->sharing, f->port, f->routes ? f->routes : "");
}

void fleet_start(struct fleet *f)
{
    if (!f->redis.pid)
        redis_start(&f->redis);
    for (int i = 0; i < FLEET_HOSTS; i++)
        fleet_start_host(f, i, FLEET_SECRET);
    fleet_wait(f, 8000);
}

void fleet_wait(struct fleet *f, unsigned ms)
{
    for (int i = 0; i < FLEET_HOSTS; i++)
        wait_until(fleet_says(&f->host[i], "state     member") &&
                       fleet_says(&f->host[i], "cache     in use"),
                   ms);
}

void fleet_show(struct fleet *f)
{
    const char *out;
    char command[300];
    for (int i = 0; i < FLEET_HOSTS; i++) {
        snprintf(command, sizeof command, "tail -n 15 %s >&2", f->host[i].log);
        if (system(command) == 0 && !ctl(&f->host[i], &out, "fleet"))
            print_error("%s", out);
    }
}

void fleet_stop(struct fleet *f)
{
    if (f->relay)
        relay_refuse(f->relay, true);
    for (int i = 0; i < FLEET_HOSTS; i++)
        if (f->host[i].pid)
            house_remove(&f->host[i]);
    redis_remove(&f->redis);
    if (f->relay)
        relay_stop(f->relay);
}

const char *fleet_relay(struct fleet *f)
{
    static char store[64];
    redis_start(&f->redis);
    f->relay = relay_start(f->redis.sock);
    snprintf(store, sizeof store, "redis://127.0.0.1:%u", relay_port(f->relay));
    return store;
}

/* ---- of all stories of a program ---- */

static struct fleet *common;
static struct backend **common_backend;
static void (*common_begin)(void);

void fleet_share(struct fleet *f, struct backend **b, backend_fn fn, void (*begin)(void))
{
    common = f;
    common_backend = b;
    common_begin = begin;
    harness_share(b, fn);
}

int fleet_set_up(void **state)
{
    harness_set_up(state);
    common->port = backend_port(*common_backend);
    if (common_begin)
        common_begin();
    else
        fleet_start(common);
    return 0;
}

int fleet_tear_down(void **state)
{
    fleet_stop(common);
    return harness_tear_down(state);
}

int fleet_get(struct house *h, const char *path, const char *fields, struct message *m)
{
    const int fd = client_connect(h->port);
    client_send(fd, "GET %s HTTP/1.1\r\nHost: example.org\r\n%sConnection: close\r\n\r\n", path,
                fields);
    client_read(fd, m, false);
    close(fd);
    assert_true(m->complete);
    return m->status;
}

bool fleet_answers(struct house *h, const char *path, const char *fields, int status,
                   const char *cache_status)
{
    struct message m;
    const bool right = fleet_get(h, path, fields, &m) == status;
    const char *says = field_of(&m, "Cache-Status");
    const bool good = right && says && strstr(says, cache_status);
    if (!good)
        print_error("%s: %d, Cache-Status: %s\n", path, m.status, says ? says : "none");
    message_free(&m);
    return good;
}

void fleet_post(struct house *h, const char *path)
{
    struct message m;
    const int fd = client_connect(h->port);
    client_send(fd,
                "POST %s HTTP/1.1\r\nHost: example.org\r\nContent-Length: 0\r\n"
                "Connection: close\r\n\r\n",
                path);
    client_read(fd, &m, false);
    close(fd);
    assert_int_equal(m.status, 204);
    message_free(&m);
}

unsigned fleet_keys(struct fleet *f, char kind)
{
    return (unsigned)atoi(
        redis_do(&f->redis, "EVAL return\t#redis.call('KEYS','polder:{test}:%c:*') 0", kind));
}
