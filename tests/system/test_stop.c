/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stop serves until its end, and what follows it goes on where it was: no request notices a
 * restart, and no limit admits more because of one, or because the master was killed.
 */
#include "harness.h"
#include "manager.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct backend *backend;
static struct manager manager;
static atomic_bool release;
static atomic_uint waiting;

static bool answers(struct asked *a)
{
    if (!strncmp(a->target, "/stream", 7)) {
        bool open = reply(a, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                             "Transfer-Encoding: chunked\r\n\r\n");
        while (open && !atomic_load(&release)) {
            open = reply(a, "9\r\ndata: 1\n\n\r\n");
            nap_ms(20);
        }
        return false;
    }
    if (!strncmp(a->target, "/held", 5)) {
        atomic_fetch_add(&waiting, 1);
        while (!atomic_load(&release))
            nap_ms(5);
    }
    return reply_ok(a, "", "ok");
}

static void open_house(struct house *h, bool managed, const char *routes)
{
    atomic_store(&release, false);
    atomic_store(&waiting, 0);
    if (managed)
        manager_open(&manager);
    house_start(h, 2, "upstream \"u\" { server \"127.0.0.1:%u\" { } timeout = \"60s\" }\n%s",
                backend_port(backend), routes);
}

static void close_house(struct house *h, bool managed)
{
    atomic_store(&release, true);
    house_remove(h);
    if (managed)
        manager_close(&manager);
}

static unsigned port_of(const struct house *h, bool managed)
{
    return managed ? manager.port : h->port;
}

/* ---- load: what fails, and how long each request takes ---- */

#define CLIENTS  8
#define TAKEN    20000
#define LONG_MS  10000
#define NEVER_MS UINT32_MAX

struct load {
    unsigned port;
    atomic_bool ends;
    atomic_uint failed, n;
    uint32_t taken_ms[TAKEN];
    pthread_t thread[CLIENTS];
    atomic_uint started;
};

static int connect_plain(unsigned port)
{
    const struct timeval patience = {LONG_MS / 1000, 0};
    const struct sockaddr_in sa = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, (const struct sockaddr *)&sa, sizeof sa) == 0)
        return fd;
    close(fd);
    return -1;
}

/* 1: a whole 200; 0: a kept connection had ended before; -1: anything else. *keeps: it stays open. */
static int ask_once(int fd, bool reused, bool *keeps)
{
    static const char text[] = "GET /x HTTP/1.1\r\nHost: test.example\r\n\r\n";
    char bytes[4096];
    size_t len = 0;
    *keeps = false;
    if (fd < 0)
        return -1;
    if (send(fd, text, sizeof text - 1, MSG_NOSIGNAL) != (ssize_t)sizeof text - 1)
        return reused ? 0 : -1;
    for (;;) {
        const ssize_t n = recv(fd, bytes + len, sizeof bytes - 1 - len, 0);
        if (n <= 0)
            return reused && len == 0 ? 0 : -1;
        len += (size_t)n;
        bytes[len] = 0;
        const char *end = strstr(bytes, "\r\n\r\n");
        if (end && !strncmp(end + 4, "ok", 2))
            break;
    }
    *keeps = !strcasestr(bytes, "\r\nConnection: close");
    return !strncmp(bytes, "HTTP/1.1 200 ", 13) ? 1 : -1;
}

static void *load_run(void *arg)
{
    struct load *l = arg;
    const bool keeps_alive = atomic_fetch_add(&l->started, 1) % 2;
    int fd = -1;
    while (!atomic_load(&l->ends)) {
        const uint64_t began_ms = mono_ms();
        bool reused = fd >= 0, keeps;
        if (!reused)
            fd = connect_plain(l->port);
        int rc = ask_once(fd, reused, &keeps);
        if (rc == 0) { /* as browsers do */
            close(fd);
            fd = connect_plain(l->port);
            rc = ask_once(fd, false, &keeps);
        }
        if (rc < 0)
            atomic_fetch_add(&l->failed, 1);
        const unsigned i = atomic_fetch_add(&l->n, 1);
        if (i < TAKEN)
            l->taken_ms[i] = (uint32_t)(mono_ms() - began_ms);
        if (!keeps || !keeps_alive || rc < 0) {
            if (fd >= 0)
                close(fd);
            fd = -1;
        }
        nap_ms(2);
    }
    if (fd >= 0)
        close(fd);
    return NULL;
}

static void load_begin(struct load *l, unsigned port)
{
    memset(l, 0, sizeof *l);
    l->port = port;
    for (unsigned i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_create(&l->thread[i], NULL, load_run, l), 0);
}

static int by_time(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void load_end(struct load *l, uint32_t *p99, uint32_t *max)
{
    atomic_store(&l->ends, true);
    for (unsigned i = 0; i < CLIENTS; i++)
        pthread_join(l->thread[i], NULL);
    const unsigned n = l->n < TAKEN ? l->n : TAKEN;
    assert_true(n > 0);
    qsort(l->taken_ms, n, sizeof *l->taken_ms, by_time);
    *p99 = l->taken_ms[n - 1 - n / 100];
    *max = l->taken_ms[n - 1];
}

/* ---- a restart without a gap ---- */

static int begin_stream(unsigned port)
{
    struct message m;
    const int fd = client_connect(port);
    client_send(fd, "GET /stream HTTP/1.1\r\nHost: test.example\r\n\r\n");
    client_read(fd, &m, true);
    assert_int_equal(m.status, 200);
    message_free(&m);
    return fd;
}

static int half_a_head(unsigned port)
{
    const int fd = client_connect(port);
    client_send(fd, "GET /x HTTP/1.1\r\nHost: test.ex");
    return fd;
}

static bool has_ended(struct house *h)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)h->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid;
}

/* A restart beside an event stream and five slow heads; the stream is cut when `streams` is over. */
static void restart_under_load(struct house *h, struct load *l)
{
    int slow[5];
    const int stream = begin_stream(manager.port);
    for (int i = 0; i < 5; i++)
        slow[i] = half_a_head(manager.port);
    nap_ms(400); /* load before it, and heads that are slow */
    kill(h->pid, SIGTERM);
    wait_until(atomic_load(&manager.stops), 5000);
    for (int i = 0; i < 5; i++) {
        struct message m;
        client_read(slow[i], &m, false);
        assert_int_equal(m.status, 408);
        message_free(&m);
        close(slow[i]);
    }
    assert_int_equal(get(h->ops_port, "/readyz", NULL), 503);
    const unsigned before = atomic_load(&l->n);
    wait_until(atomic_load(&l->n) > before + 20, 5000); /* served while it stops */
    assert_false(has_ended(h));
    house_advance(h, 6000);
    atomic_store(&manager.is_ready, false);
    wait_until(has_ended(h), 10000);
    assert_int_equal(house_stop(h), 0);
    const uint64_t ended_ms = mono_ms();
    house_spawn(h);
    wait_until(atomic_load(&manager.is_ready), 10000);
    print_message("from its end to READY: %u ms\n", (unsigned)(manager.ready_ms - ended_ms));
    assert_true(client_closed(stream, 5000));
    close(stream);
}

static void no_request_notices_a_restart(void **state)
{
    static struct load load;
    struct house h;
    uint32_t p99, max;
    (void)state;
    open_house(&h, true, "route \"/*\" { upstream = \"u\" }\n");
    load_begin(&load, manager.port);
    restart_under_load(&h, &load);
    nap_ms(300);
    load_end(&load, &p99, &max);
    print_message("%u requests, %u failed, p99 %u ms, longest %u ms\n", load.n, load.failed, p99,
                  max);
    assert_int_equal(load.failed, 0);
    assert_true(p99 <= harness_patience(600)); /* 200 and 500 on a machine of its own */
    assert_true(max <= harness_patience(1500));
    close_house(&h, true);
}

/* With the sockets of its own it serves until the end too, and then refuses. */
static void own_sockets_serve_until_the_end(void **state)
{
    struct house h;
    struct message m;
    (void)state;
    open_house(&h, false, "route \"/*\" { upstream = \"u\" }\n");
    const int held = client_connect(h.port);
    client_send(held, "GET /held HTTP/1.1\r\nHost: test.example\r\n\r\n");
    wait_until(atomic_load(&waiting) == 1, 5000);
    kill(h.pid, SIGTERM);
    wait_until(get(h.ops_port, "/readyz", NULL) == 503, 5000);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(get(h.port, "/x", &m), 200);
        assert_string_equal(field_of(&m, "Connection"), "close");
        message_free(&m);
    }
    assert_false(has_ended(&h));
    atomic_store(&release, true);
    client_read(held, &m, false);
    assert_int_equal(m.status, 200);
    message_free(&m);
    close(held);
    wait_until(has_ended(&h), 5000);
    assert_int_equal(house_stop(&h), 0);
    assert_int_equal(connect_plain(h.port), -1);
    close_house(&h, false);
}

/* ---- limits ---- */

static unsigned admitted(unsigned port, const char *target, unsigned n)
{
    unsigned counts[1000] = {0};
    storm(port, target, n, 4, counts, NULL);
    assert_int_equal(counts[200] + counts[429], n);
    return counts[200];
}

static void limits_are_exact(bool managed)
{
    static const char *const way[] = {"sliding", "fixed", "gcra"};
    char routes[2000] = "", target[40];
    struct house h;
    for (int i = 0; i < 6; i++)
        snprintf(routes + strlen(routes), sizeof routes - strlen(routes),
                 "limit \"l%d\" { requests = 100 window = \"24h\" key = \"global\" algorithm = "
                 "\"%s\" }\nroute \"/l%d\" { upstream = \"u\" limits = {\"l%d\"} }\n",
                 i, way[i % 3], i, i);
    open_house(&h, managed, routes);
    const unsigned port = port_of(&h, managed);
    for (int kills = 0; kills < 2; kills++) {
        for (int i = kills * 3; i < kills * 3 + 3; i++) {
            snprintf(target, sizeof target, "/l%d", i);
            assert_int_equal(admitted(port, target, 60), 60);
        }
        if (kills)
            house_kill(&h);
        else
            assert_int_equal(house_stop(&h), 0);
        house_run(&h);
        for (int i = kills * 3; i < kills * 3 + 3; i++) {
            snprintf(target, sizeof target, "/l%d", i);
            assert_int_equal(admitted(port, target, 60), 40);
        }
    }
    assert_true(house_logged(&h, "goes on with the counts of limits"));
    assert_int_equal(managed, manager_stored(&manager, "polder-limits") >= 0);
    close_house(&h, managed);
}

static void limits_are_exact_over_restart_and_death(void **state)
{
    (void)state;
    memset(&manager, 0, sizeof manager);
    limits_are_exact(false);
    limits_are_exact(true);
}

/* Requests under way are those of living processes. */
static void requests_under_way_die_with_their_worker(void **state)
{
    struct house h;
    (void)state;
    open_house(&h, true,
               "limit \"one\" { requests = 60000 key = \"global\" concurrent = 1 }\n"
               "route \"/held\" { upstream = \"u\" limits = {\"one\"} }\n");
    const int held = client_connect(manager.port);
    client_send(held, "GET /held HTTP/1.1\r\nHost: test.example\r\n\r\n");
    wait_until(atomic_load(&waiting) == 1, 5000);
    assert_int_equal(get(manager.port, "/held", NULL), 429);
    house_kill(&h);
    house_run(&h);
    atomic_store(&release, true);
    assert_int_equal(get(manager.port, "/held", NULL), 200);
    close(held);
    close_house(&h, true);
}

/* ---- a master that was killed while its children could not run ---- */

static void stopped_children_of_a_killed_master_leave(void **state)
{
    static const char *const title[] = {"polderd: worker", "polderd: keeper", "polderd: control"};
    struct house h;
    pid_t pid[8];
    size_t n = 0;
    (void)state;
    open_house(&h, false, "route \"/*\" { upstream = \"u\" }\n");
    for (int i = 0; i < 3; i++)
        n += house_children(&h, title[i], pid + n, 8 - n);
    assert_int_equal(n, 4);
    for (size_t i = 0; i < n; i++)
        kill(pid[i], SIGSTOP);
    kill(h.pid, SIGKILL);
    waitpid(h.pid, NULL, 0);
    house_run(&h);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    for (size_t i = 0; i < n; i++)
        wait_until(kill(pid[i], 0) < 0, 5000);
    close_house(&h, false);
}

/* ---- states of servers ---- */

static atomic_bool unwell; /* to its checks */
static atomic_uint asked_of_unwell;

static bool answers_badly(struct asked *a)
{
    if (!strcmp(a->target, "/check"))
        return reply_ok(a, "", "ok");
    return reply(a, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
}

static bool is_unwell(struct asked *a)
{
    if (strcmp(a->target, "/check") != 0)
        atomic_fetch_add(&asked_of_unwell, 1);
    return reply(a, "HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n",
                 atomic_load(&unwell) && !strcmp(a->target, "/check") ? 503 : 200);
}

static bool listed(struct house *h, const struct backend *b, const char *state)
{
    char server[64], what[64];
    const char *out;
    snprintf(server, sizeof server, "\"server\": \"127.0.0.1:%u\"", backend_port(b));
    snprintf(what, sizeof what, "\"state\": \"%s\"", state);
    const char *at = ctl(h, &out, "--json upstream list") == 0 ? strstr(out, server) : NULL;
    const char *next = at ? strstr(at, "\"upstream\": ") : NULL, *said = at ? strstr(at, what) : at;
    return said && (!next || said < next);
}

/* Without it, clients would find out again by what fails. */
static void what_is_known_of_servers_outlives_a_restart_and_a_death(void **state)
{
    struct backend *good = backend_start(answers, NULL), *bad = backend_start(answers_badly, NULL),
                   *checked = backend_start(is_unwell, NULL);
    struct house h;
    (void)state;
    atomic_store(&unwell, true);
    manager_open(&manager);
    house_start(&h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } server \"127.0.0.1:%u\" { }\n"
                "server \"127.0.0.1:%u\" { } health = \"/check\" }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                backend_port(good), backend_port(bad), backend_port(checked));
    wait_until(listed(&h, checked, "down"), 10000);
    for (int i = 0; i < 100 && !listed(&h, bad, "ejected"); i++)
        get(manager.port, "/x", NULL);
    atomic_store(&asked_of_unwell, 0);
    for (int kills = 0; kills < 2; kills++) {
        if (kills)
            house_kill(&h);
        else
            assert_int_equal(house_stop(&h), 0);
        house_run(&h);
        wait_until(ctl(&h, NULL, "status") == 0, 10000);
        assert_true(
            listed(&h, bad, "ejected")); /* until a trial, which is due when its time is out */
        assert_true(listed(&h, checked, "down"));
        for (int i = 0; i < 10; i++)
            get(manager.port, "/x", NULL);
        assert_int_equal(atomic_load(&asked_of_unwell), 0);
    }
    assert_true(house_logged(&h, "goes on with the states of servers of an earlier run"));
    atomic_store(&unwell, false); /* what was true before is proven again all the time */
    wait_until(listed(&h, checked, "up"), 10000);
    house_remove(&h);
    manager_close(&manager);
    backend_stop(good);
    backend_stop(bad);
    backend_stop(checked);
}

/* ---- what cannot be used again ---- */

static void what_is_not_whole_is_made_anew_and_said(void **state)
{
    char path[200], other[200];
    struct house h;
    (void)state;
    open_house(&h, false,
               "limit \"l\" { requests = 10 window = \"24h\" key = \"global\" }\n"
               "route \"/*\" { upstream = \"u\" limits = {\"l\"} }\n");
    snprintf(path, sizeof path, "%s/run/limits.page", h.dir);
    snprintf(other, sizeof other, "%s/other", h.dir);
    assert_int_equal(admitted(h.port, "/", 20), 10);
    assert_int_equal(house_stop(&h), 0);
    assert_int_equal(truncate(path, 12345), 0);
    house_run(&h);
    assert_true(house_logged(&h, "limits.page of an earlier run cannot be used: it is smaller"));
    assert_int_equal(admitted(h.port, "/", 20), 10);
    house_kill(&h);
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(symlink(other, path), 0);
    house_run(&h);
    assert_true(house_logged(&h, "cannot be used: it is a symbolic link"));
    assert_int_equal(admitted(h.port, "/", 20), 10);
    close_house(&h, false);
}

static void a_descriptor_that_is_not_whole_is_given_up(void **state)
{
    struct house h;
    (void)state;
    open_house(&h, true, "route \"/*\" { upstream = \"u\" }\n");
    wait_until(manager_stored(&manager, "polder-history") >= 0, 5000);
    assert_int_equal(house_stop(&h), 0);
    manager_forget(&manager);
    int fd = memfd_create("bare", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, 4096), 0);
    manager_store(&manager, "polder-limits", fd);
    manager_store(&manager, "polder-unknown", fcntl(fd, F_DUPFD_CLOEXEC, 0));
    house_run(&h);
    assert_true(
        house_logged(&h, "polder-limits of an earlier run cannot be used: it is not sealed"));
    wait_until(manager_stored(&manager, "polder-unknown") < 0, 5000);
    wait_until((fd = manager_stored(&manager, "polder-limits")) >= 0, 5000);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(st.st_size > 4096);
    close_house(&h, true);
}

/* ---- what is passed is wrong ---- */

static void pass_nonsense(void *arg)
{
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", arg, 1);
}

static void pass_a_datagram_socket(void *arg)
{
    const int fd = socket(AF_INET, SOCK_DGRAM, 0);
    dup2(fd, 3);
    pass_nonsense(arg);
}

static void expect_refusal(struct house *h, void (*pass)(void *arg), char *fds, const char *why)
{
    house_spawned_by(pass, fds);
    house_spawn(h);
    house_spawned_by(NULL, NULL);
    wait_until(has_ended(h), 10000);
    assert_int_equal(house_stop(h), 1);
    assert_true(house_logged(h, why));
}

static void wrong_sockets_are_refused_in_one_line(void **state)
{
    static char abc[] = "abc", five[] = "500", one[] = "1";
    struct house h;
    (void)state;
    open_house(&h, false, "route \"/*\" { upstream = \"u\" }\n");
    assert_int_equal(house_stop(&h), 0);
    expect_refusal(&h, pass_nonsense, abc, "LISTEN_FDS=abc does not name sockets");
    expect_refusal(&h, pass_nonsense, five, "LISTEN_FDS=500 does not name sockets");
    expect_refusal(&h, pass_a_datagram_socket, one, "descriptor 3 from systemd is no listening");
    house_run(&h);
    close_house(&h, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_request_notices_a_restart),
        cmocka_unit_test(own_sockets_serve_until_the_end),
        cmocka_unit_test(limits_are_exact_over_restart_and_death),
        cmocka_unit_test(what_is_known_of_servers_outlives_a_restart_and_a_death),
        cmocka_unit_test(requests_under_way_die_with_their_worker),
        cmocka_unit_test(stopped_children_of_a_killed_master_leave),
        cmocka_unit_test(what_is_not_whole_is_made_anew_and_said),
        cmocka_unit_test(wrong_sockets_are_refused_in_one_line),
        cmocka_unit_test(a_descriptor_that_is_not_whole_is_given_up),
    };
    return run_with_backend(tests, &backend, answers);
}
