/* SPDX-License-Identifier: BSD-2-Clause */
/* The story of a thousand clients who want the same cold thing at the same moment. */
#include "tests/chaos/chaos.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define WORKERS    4
#define BACKEND_MS 500
#define BODY_LEN   20000

/* What the backend knows of who asks it. */
struct asking {
    atomic_uint calls, port; /* port: of the last connection, at the asking end */
};

static void body_fill(char *body)
{
    for (unsigned i = 0; i < BODY_LEN; i++)
        body[i] = (char)('a' + (i * 7 + i / 251) % 26);
}

static bool answers_slowly(struct asked *ask)
{
    struct asking *who = ask->arg;
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;
    char body[BODY_LEN + 1];
    if (getpeername(ask->fd, (struct sockaddr *)&peer, &len) == 0)
        atomic_store(&who->port, ntohs(peer.sin_port));
    atomic_fetch_add(&who->calls, 1);
    nap_ms(BACKEND_MS);
    body_fill(body);
    body[BODY_LEN] = 0;
    return reply_ok(ask, "Cache-Control: max-age=600\r\n", body);
}

/* ---- who leads ---- */

/* The inode of the connected socket whose local port that is, from /proc. */
static unsigned long inode_of(unsigned port)
{
    char line[512], want[16];
    unsigned long inode = 0;
    FILE *f = fopen("/proc/net/tcp", "r");
    snprintf(want, sizeof want, "0100007F:%04X", port);
    while (f && !inode && fgets(line, sizeof line, f)) {
        char local[32], remote[32], state[8];
        unsigned long n;
        if (sscanf(line, " %*d: %31s %31s %7s %*s %*s %*s %*s %*s %lu", local, remote, state, &n) ==
                4 &&
            !strcmp(local, want) && !strcmp(state, "01"))
            inode = n;
    }
    if (f)
        fclose(f);
    return inode;
}

static bool has_socket(pid_t pid, unsigned long inode)
{
    char path[64], link[512], want[64];
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    snprintf(want, sizeof want, "socket:[%lu]", inode);
    DIR *d = opendir(path);
    const struct dirent *e;
    while (d && !found && (e = readdir(d))) {
        char file[384];
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        const ssize_t n = readlink(file, link, sizeof link - 1);
        link[n > 0 ? n : 0] = 0;
        found = !strcmp(link, want);
    }
    if (d)
        closedir(d);
    return found;
}

/* The worker that holds the connection to the backend. */
static pid_t leader_of(struct house *h, unsigned port)
{
    pid_t pid[WORKERS];
    const unsigned long inode = inode_of(port);
    const size_t n = house_children(h, "polderd: worker", pid, WORKERS);
    for (size_t i = 0; inode && i < n; i++)
        if (has_socket(pid[i], inode))
            return pid[i];
    return 0;
}

/* ---- the crowd ---- */

struct crowd {
    unsigned n;
    int *fd;
    unsigned same, other, cut;
    uint64_t began_ms, slowest_ms;
};

static void crowd_ask(struct crowd *c, unsigned port, const char *target, unsigned n)
{
    *c = (struct crowd){.n = n, .fd = calloc(n, sizeof(int))};
    for (unsigned i = 0; i < n; i++) {
        c->fd[i] = client_connect(port);
        assert_true(c->fd[i] >= 0);
    }
    c->began_ms = mono_ms();
    for (unsigned i = 0; i < n; i++)
        client_send(c->fd[i], "GET %s HTTP/1.1\r\nHost: test.example\r\n\r\n", target);
}

/* Waits for bytes: who is cut off without any is told from who is not answered. */
static bool comes(int fd)
{
    char byte;
    struct pollfd p = {fd, POLLIN, 0};
    if (poll(&p, 1, (int)harness_patience(15000)) <= 0)
        fail_msg("a client has waited 15 s in vain");
    return recv(fd, &byte, 1, MSG_PEEK) == 1;
}

static void crowd_listen(struct crowd *c)
{
    char want[BODY_LEN];
    body_fill(want);
    for (unsigned i = 0; i < c->n; i++) {
        struct message m = {0};
        const bool answered = comes(c->fd[i]);
        if (answered)
            client_read(c->fd[i], &m, false);
        if (!answered || !m.complete)
            c->cut++;
        else if (m.status == 200 && m.body_len == BODY_LEN && !memcmp(m.body, want, BODY_LEN))
            c->same++;
        else
            c->other++;
        message_free(&m);
        close(c->fd[i]);
    }
    c->slowest_ms = mono_ms() - c->began_ms;
    free(c->fd);
}

static void room_for(unsigned descriptors)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < descriptors) {
        limit.rlim_cur = descriptors < limit.rlim_max ? descriptors : limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void house_open(struct house *h, struct backend *b, unsigned clients)
{
    room_for(clients + 500);
    house_start(h, WORKERS,
                "max_connections = 5000\nmax_connections_per_client = 5000\ncache { }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(b));
}

static void a_thousand_clients_are_one_call(void **state)
{
    (void)state;
    const unsigned n = chaos_count("CHAOS_CLIENTS", 1000, 1000);
    struct asking who = {0};
    struct backend *b = backend_start(answers_slowly, &who);
    struct house h;
    struct crowd c;
    house_open(&h, b, n);
    crowd_ask(&c, h.port, "/cold", n);
    crowd_listen(&c);
    printf(
        "chaos: crowd: %u clients on a cold key, %u ms at the backend: %u calls, %u got the same "
        "bytes, all within %u ms\n",
        n, BACKEND_MS, atomic_load(&who.calls), c.same, (unsigned)c.slowest_ms);
    fflush(stdout);
    assert_int_equal(atomic_load(&who.calls), 1);
    assert_int_equal(c.same, n);
    house_remove(&h);
    backend_stop(b);
}

/* Who was the leader's own client is cut off; everybody else is answered by a second fetch. */
static void when_the_leader_is_killed_another_takes_over(void **state)
{
    (void)state;
    const unsigned n = chaos_count("CHAOS_CLIENTS", 1000, 1000);
    struct asking who = {0};
    struct backend *b = backend_start(answers_slowly, &who);
    struct house h;
    struct crowd c;
    pid_t leader = 0;
    house_open(&h, b, n);
    crowd_ask(&c, h.port, "/cold", n);
    wait_until(atomic_load(&who.calls) == 1, 5000);
    nap_ms(BACKEND_MS / 5); /* the others have come by then, before the answer */
    wait_until((leader = leader_of(&h, atomic_load(&who.port))) != 0, 5000);
    kill(leader, SIGKILL);
    crowd_listen(&c);
    printf(
        "chaos: crowd: %u clients, the leading worker killed: %u calls, %u got the same bytes, %u "
        "were its own and cut off, all within %u ms\n",
        n, atomic_load(&who.calls), c.same, c.cut, (unsigned)c.slowest_ms);
    fflush(stdout);
    assert_in_range(atomic_load(&who.calls), 1, 2);
    assert_int_equal(c.other, 0);
    assert_int_equal(c.same + c.cut, n);
    assert_in_range(c.cut, 1, n / WORKERS * 2);
    /* and who was cut off finds it stored */
    struct message m;
    assert_int_equal(get(h.port, "/cold", &m), 200);
    assert_int_equal(m.body_len, BODY_LEN);
    message_free(&m);
    assert_in_range(atomic_load(&who.calls), 1, 2);
    house_remove(&h);
    backend_stop(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_clients_are_one_call),
        cmocka_unit_test(when_the_leader_is_killed_another_takes_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
