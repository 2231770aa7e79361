/* SPDX-License-Identifier: BSD-2-Clause */
/* Three daemons, a master and its replica, and a wire between each daemon and each of them: whatever
 * becomes a master, and whichever of them a host reaches, what was invalidated is not served. */
#include "harness.h"
#include "redis.h"
#include "cable.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOSTS   3
#define SERVERS 2

static struct backend *backend;

struct fleet {
    struct redis redis[SERVERS];
    struct cable *wire[HOSTS][SERVERS];
    struct house host[HOSTS];
};

static bool says(struct house *h, const char *text)
{
    const char *out;
    return ctl(h, &out, "--json fleet") == 0 && strstr(out, text);
}

/* Of that server. */
static bool follows(struct fleet *f, int host, int server)
{
    char store[64];
    snprintf(store, sizeof store, "\"store\": \"redis://127.0.0.1:%u/0\"",
             cable_port(f->wire[host][server]));
    return says(&f->host[host], "\"state\": \"member\"") && says(&f->host[host], store) &&
           says(&f->host[host], "\"state\": \"followed\"");
}

static void start(struct fleet *f)
{
    *f = (struct fleet){0};
    for (int i = 0; i < SERVERS; i++)
        f->redis[i].port = free_port();
    f->redis[1].master = f->redis[0].port;
    for (int i = 0; i < SERVERS; i++)
        redis_start(&f->redis[i]);
    for (int i = 0; i < HOSTS; i++) {
        for (int k = 0; k < SERVERS; k++)
            f->wire[i][k] = cable_start(f->redis[k].port);
        house_start(&f->host[i], 1,
                    "fleet { store = {\"redis://127.0.0.1:%u\", \"redis://127.0.0.1:%u\"} "
                    "host = \"h%d\" secret = \"sixteen characters\" cut_off = bypass }\n"
                    "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                    "route \"/*\" { upstream = \"u\" cache { } }\n",
                    cable_port(f->wire[i][0]), cable_port(f->wire[i][1]), i, backend_port(backend));
    }
    for (int i = 0; i < HOSTS; i++)
        wait_until(follows(f, i, 0), 10000);
}

static void stop(struct fleet *f)
{
    for (int i = 0; i < HOSTS; i++)
        house_remove(&f->host[i]);
    for (int i = 0; i < HOSTS * SERVERS; i++)
        cable_stop(f->wire[i / SERVERS][i % SERVERS]);
    for (int i = 0; i < SERVERS; i++)
        redis_remove(&f->redis[i]);
}

static unsigned seen(struct house *h)
{
    struct message m;
    const int fd = client_connect(h->port);
    client_send(fd, "GET /a HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n");
    client_read(fd, &m, false);
    close(fd);
    assert_int_equal(m.status, 200);
    const unsigned n = (unsigned)atoi(m.body);
    message_free(&m);
    return n;
}

/* Nothing older is served by any host once that one has acknowledged it; `others` of them are members. */
static void change_at(struct fleet *f, int host, const char *others)
{
    const char *out;
    for (int i = 0; i < HOSTS; i++)
        seen(&f->host[i]);
    const unsigned now = atomic_fetch_add(&backend_version, 1) + 1;
    assert_int_equal(ctl(&f->host[host], &out, "cache invalidate /a"), 0);
    assert_non_null(strstr(out, others));
    for (int i = 0; i < HOSTS; i++)
        assert_int_equal(seen(&f->host[i]), now);
}

static bool has_condition(struct house *h)
{
    const char *out;
    return ctl(h, &out, "status") == 0 && strstr(out, "fleet_two_masters");
}

static void wait_for_all(struct fleet *f, int server)
{
    for (int i = 0; i < HOSTS; i++)
        wait_until(follows(f, i, server) && says(&f->host[i], "\"state\": \"fenced\""), 15000);
    wait_until(has_condition(&f->host[0]), 5000);
}

static void of_two_masters_all_follow_the_one_they_have(void **state)
{
    (void)state;
    struct fleet f;
    start(&f);
    redis_do(&f.redis[1], "REPLICAOF NO ONE");
    wait_for_all(&f, 0);
    for (int i = 0; i < HOSTS; i++)
        change_at(&f, i, "hosts        2");
    redis_kill(&f.redis[0]);
    for (int i = 0; i < HOSTS; i++)
        wait_until(follows(&f, i, 1), 15000);
    redis_run(&f.redis[0]); /* nobody has told it that it is the master no more */
    wait_for_all(&f, 1);
    redis_do(&f.redis[0], "REPLICAOF 127.0.0.1 %u", f.redis[1].port);
    wait_until(!has_condition(&f.host[0]), 5000);
    stop(&f);
}

/* h1 reaches both masters. */
static void a_host_that_reaches_only_the_other_one_is_cut_off(void **state)
{
    (void)state;
    struct fleet f;
    start(&f);
    cable_cut(f.wire[0][1]);
    cable_cut(f.wire[2][0]);
    redis_do(&f.redis[1], "REPLICAOF NO ONE");
    wait_until(says(&f.host[2], "hosts of this fleet follow another master") ||
                   (follows(&f, 2, 1) && follows(&f, 1, 1)),
               15000);
    const int cut = follows(&f, 2, 1) ? 0 : 2, server = cut ? 0 : 1;
    for (int i = 0; i < HOSTS; i++)
        wait_until(i == cut ? says(&f.host[i], "\"state\": \"cut off\"") : follows(&f, i, server),
                   15000);
    change_at(&f, 2 - cut, "hosts        1");
    change_at(&f, 1, "hosts        1");
    assert_false(says(&f.host[cut], "\"state\": \"followed\""));
    cable_mend(f.wire[cut][server]);
    wait_until(follows(&f, cut, server), 15000);
    change_at(&f, cut, "hosts        2");
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(of_two_masters_all_follow_the_one_they_have),
        cmocka_unit_test(a_host_that_reaches_only_the_other_one_is_cut_off),
    };
    return run_with_backend(stories, &backend, backend_tells_version);
}
