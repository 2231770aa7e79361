/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of the processes: killed, reloaded, drained, idle; and of big bodies that must not stay
 * in memory. */
#include "harness.h"

#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct backend *backend;
static atomic_bool let_go; /* of /hold */
#define GIB ((uint64_t)1 << 30)

static bool answers(struct asked *a)
{
    unsigned long long size;
    if (sscanf(a->target, "/download/%llu", &size) == 1) {
        static const char block[65536] = {'x'};
        bool ok = reply(a, "HTTP/1.1 200 OK\r\nContent-Length: %llu\r\n\r\n", size);
        for (unsigned long long left = size; ok && left;) {
            size_t n = left < sizeof block ? (size_t)left : sizeof block;
            ok = reply_bytes(a, block, n);
            left -= n;
        }
        return ok;
    }
    if (!strcmp(a->target, "/cached/upload")) {
        char length[32];
        snprintf(length, sizeof length, "%zu", a->m.body_len);
        return reply_ok(a, "", length);
    }
    if (!strcmp(a->target, "/slow"))
        nap_ms(700);
    if (!strcmp(a->target, "/hold"))
        while (!atomic_load(&let_go))
            nap_ms(5);
    return reply_ok(a, "", a->target);
}

static void start(struct house *h, unsigned workers)
{
    house_start(h, workers,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/cached/*\" { upstream = "
                "\"u\" cache { } }\nroute \"/*\" { upstream = \"u\" }\n",
                backend_port(backend));
}

static void a_killed_process_is_back_within_a_second(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2);
    static const char *const title[] = {"polderd: worker", "polderd: keeper", "polderd: control"};
    for (int i = 0; i < 3; i++) {
        pid_t pid[4], now[4];
        size_t n = house_children(&h, title[i], pid, 4);
        assert_int_equal(n, i == 0 ? 2 : 1);
        kill(pid[0], SIGKILL);
        uint64_t killed = mono_ms();
        bool back = false;
        while (!back && mono_ms() - killed < harness_patience(1000)) {
            size_t have = house_children(&h, title[i], now, 4);
            back = have == n;
            for (size_t k = 0; k < have; k++)
                back = back && now[k] != pid[0];
            nap_ms(5);
        }
        assert_true(back);
        wait_until(house_ready(&h), 3000);
        unsigned counts[1000] = {0};
        storm(h.port, "/x", 100, 10, counts, NULL);
        assert_int_equal(counts[200], 100);
        nap_ms(50);
    }
    house_remove(&h);
}

static void service_goes_on_while_workers_are_killed(void **state)
{
    (void)state;
    struct house h;
    unsigned failed = 0, done = 0;
    start(&h, 3);
    uint64_t end = mono_ms() + 3000, next = 0;
    while (mono_ms() < end) {
        if (mono_ms() >= next) {
            pid_t pid[4];
            size_t n = house_children(&h, "polderd: worker", pid, 4);
            if (n)
                kill(pid[(size_t)rand() % n], SIGKILL);
            next = mono_ms() + 300;
        }
        failed += get(h.port, "/x", NULL) != 200;
        done++;
    }
    assert_true(done > 100);
    assert_true(failed <= 40); /* what was in a victim's hands, and its accept queue */
    wait_until(house_ready(&h), 6000);
    house_remove(&h);
}

static void a_reload_proves_the_configuration_first(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    char routes[512];
    start(&h, 2);
    house_write_conf(
        &h, 2,
        "upstream \"u\" { server \"127.0.0.1:1\" { } }\nroute \"/*\" { upstream = \"nobody\" }\n");
    assert_int_equal(ctl(&h, &out, "reload --wait"), 1);
    assert_non_null(strstr(out, "polder.conf:7: "));
    assert_non_null(strstr(out, "nobody"));
    assert_int_equal(get(h.port, "/x", NULL), 200);
    const unsigned ops_port = h.ops_port;
    h.ops_port = backend_port(backend); /* somebody else's */
    house_write_conf(&h, 2, "route \"/events\" { websocket { } }\n");
    h.ops_port = ops_port;
    assert_int_equal(ctl(&h, &out, "reload --wait"), 1);
    assert_int_equal(get(h.ops_port, "/readyz", NULL), 200);
    snprintf(
        routes, sizeof routes,
        "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/new\" { upstream = \"u\" }\n",
        backend_port(backend));
    house_write_conf(&h, 3, routes);
    unsigned counts[1000] = {0};
    assert_int_equal(ctl(&h, &out, "reload --wait"), 0);
    storm(h.port, "/new", 200, 10, counts, NULL);
    assert_int_equal(counts[200], 200);
    wait_until(get(h.port, "/x", NULL) == 404, 3000);
    pid_t pid[8];
    wait_until(house_children(&h, "polderd: worker", pid, 8) == 3, 5000);
    house_remove(&h);
}

struct fetch {
    unsigned port;
    const char *target;
    int status;
    bool complete;
};
static void *slow_fetch(void *arg)
{
    struct fetch *f = arg;
    struct message m;
    f->status = get(f->port, f->target, &m);
    f->complete = m.complete;
    message_free(&m);
    return NULL;
}

static void a_stop_finishes_what_is_under_way(void **state)
{
    (void)state;
    struct house h;
    pthread_t t;
    start(&h, 2);
    struct fetch f = {.port = h.port, .target = "/slow"};
    backend_forget(backend);
    pthread_create(&t, NULL, slow_fetch, &f);
    wait_until(backend_calls(backend) == 1, 3000);
    assert_int_equal(house_stop(&h), 0);
    pthread_join(t, NULL);
    assert_int_equal(f.status, 200);
    assert_true(f.complete);
    house_remove(&h);
}

static void hold(struct house *h, struct fetch *f, pthread_t *t)
{
    *f = (struct fetch){.port = h->port, .target = "/hold"};
    atomic_store(&let_go, false);
    backend_forget(backend);
    pthread_create(t, NULL, slow_fetch, f);
    wait_until(backend_calls(backend) == 1, 3000);
}

/* Served until the end; never taken by the kernel and left without an answer. */
static void a_client_that_comes_while_it_stops_is_served_and_told_to_leave(void **state)
{
    (void)state;
    struct house h;
    struct fetch f;
    struct message m;
    pthread_t t;
    int status;
    start(&h, 2);
    hold(&h, &f, &t);
    assert_int_equal(ctl(&h, NULL, "stop"), 0);
    wait_until(get(h.ops_port, "/readyz", NULL) == 503, 5000);
    assert_int_equal(get(h.ops_port, "/readyz", &m), 503);
    assert_non_null(strstr(m.body, "draining"));
    message_free(&m);
    assert_int_equal(get(h.port, "/", &m), 200);
    assert_string_equal(field_of(&m, "Connection"), "close");
    message_free(&m);
    atomic_store(&let_go, true);
    pthread_join(t, NULL);
    assert_int_equal(f.status, 200);
    wait_until(waitpid(h.pid, &status, WNOHANG) == h.pid, 10000);
    h.pid = 0;
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_true(client_connect(h.port) < 0);
    house_remove(&h);
}

static void a_killed_master_leaves_room_for_the_next_at_once(void **state)
{
    (void)state;
    struct house h;
    struct fetch f;
    pthread_t t;
    start(&h, 2);
    hold(&h, &f, &t);
    const uint64_t start_ms = mono_ms();
    house_kill(
        &h); /* until its children have left too, or they would be asked whether it is ready */
    house_run(&h); /* though a request is under way */
    assert_true(mono_ms() - start_ms < harness_patience(4000));
    atomic_store(&let_go, true);
    pthread_join(t, NULL);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    house_remove(&h);
}

/* Is there a store that says it was closed with all invalidations on disk? */
static bool is_called_clean(const struct house *h)
{
    char pattern[200];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/state/cache.*/clean", h->dir);
    const bool clean = glob(pattern, 0, NULL, &found) == 0;
    globfree(&found);
    return clean;
}

static void a_store_is_called_clean_by_who_was_told_to_stop_alone(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2);
    house_kill(&h); /* workers and control may invalidate after the keeper has left */
    assert_false(is_called_clean(&h));
    house_run(&h);
    assert_int_equal(house_stop(&h), 0);
    assert_true(is_called_clean(&h));
    house_run(&h);
    assert_false(is_called_clean(&h));
    house_remove(&h);
}

static void shared_memory_that_somebody_cuts_short_costs_a_start(void **state)
{
    (void)state;
    static const char *const files[] = {"inval.page", "guard.page"};
    struct house h;
    char path[200];
    int status;
    for (size_t i = 0; i < 2; i++) {
        start(&h, 2);
        snprintf(path, sizeof path, "%s/state/%s", h.dir, files[i]);
        assert_int_equal(truncate(path, 0), 0);
        const int fd = client_connect(h.port);
        client_send(fd, "GET /cached/x HTTP/1.1\r\nHost: test.example\r\n\r\n");
        wait_until(waitpid(h.pid, &status, WNOHANG) == h.pid, 10000);
        close(fd);
        h.pid = 0;
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 1);
        house_run(&h);
        /* a worker of before may still have had a queue of the port for a moment */
        wait_until(get(h.port, "/cached/x", NULL) == 200, 3000);
        house_remove(&h);
    }
}

static void stop_by_command_ends_the_service(void **state)
{
    (void)state;
    struct house h;
    int status;
    start(&h, 2);
    assert_int_equal(ctl(&h, NULL, "stop"), 0);
    wait_until(waitpid(h.pid, &status, WNOHANG) == h.pid, 10000);
    h.pid = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(ctl(&h, NULL, "status"), 3);
    house_remove(&h);
}

static long workers_resident(struct house *h)
{
    pid_t pid[8];
    long most = 0;
    size_t n = house_children(h, "polderd: worker", pid, 8);
    for (size_t i = 0; i < n; i++) {
        long kib = resident_kib(pid[i]);
        most = kib > most ? kib : most;
    }
    return most;
}

static uint64_t swallow(int fd, struct house *h, long *most)
{
    static char sink[1 << 18];
    uint64_t total = 0, look = 0;
    for (ssize_t n; (n = recv(fd, sink, sizeof sink, 0)) > 0; total += (uint64_t)n)
        if (total >= look) {
            long kib = workers_resident(h);
            *most = kib > *most ? kib : *most;
            look = total + (32u << 20);
        }
    return total;
}

static void a_gibibyte_streams_through_in_little_memory(void **state)
{
    (void)state;
    struct house h;
    uint64_t size = harness_sanitized() ? GIB / 16 : GIB;
    long idle, most = 0;
    start(&h, 2);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    idle = workers_resident(&h);
    int fd = client_connect(h.port);
    client_send(fd, "GET /download/%llu HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
                (unsigned long long)size);
    assert_true(swallow(fd, &h, &most) > size);
    close(fd);

    static char block[1 << 18];
    fd = client_connect(h.port);
    backend_forget(backend);
    client_send(fd, "POST /cached/upload HTTP/1.1\r\nHost: h\r\nConnection: "
                    "close\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (uint64_t sent = 0; sent < size; sent += sizeof block) {
        client_send(fd, "%zx\r\n", sizeof block);
        client_send_bytes(fd, block, sizeof block);
        client_send(fd, "\r\n");
        if (sent % (32u << 20) == 0) {
            long kib = workers_resident(&h);
            most = kib > most ? kib : most;
        }
    }
    client_send(fd, "0\r\n\r\n");
    struct message m;
    client_read(fd, &m, false);
    assert_int_equal(m.status, 200);
    char want[32];
    snprintf(want, sizeof want, "%llu", (unsigned long long)size);
    assert_string_equal(m.body, want);
    message_free(&m);
    close(fd);
    if (!harness_sanitized())
        assert_true(most - idle < 32 * 1024);
    house_remove(&h);
}

static void a_reader_that_stops_costs_little(void **state)
{
    (void)state;
    struct house h;
    int fd[20];
    start(&h, 1);
    long idle = workers_resident(&h);
    for (int i = 0; i < 20; i++) {
        fd[i] = client_connect(h.port);
        client_send(fd[i], "GET /download/100000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    nap_ms(1500);
    if (!harness_sanitized())
        assert_true(workers_resident(&h) - idle < 32 * 1024);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    for (int i = 0; i < 20; i++)
        close(fd[i]);
    house_remove(&h);
}

static long wakeups(pid_t pid)
{
    char path[64], line[256];
    long n = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        sscanf(line, "voluntary_ctxt_switches: %ld", &n);
    if (f)
        fclose(f);
    return n;
}

static void an_idle_house_sleeps(void **state)
{
    (void)state;
    struct house h;
    pid_t pid[16];
    long before[16];
    start(&h, 2);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    nap_ms(2500); /* let connections to the backend go */
    size_t n = house_children(&h, "polderd: ", pid, 15);
    pid[n++] = h.pid;
    for (size_t i = 0; i < n; i++)
        before[i] = wakeups(pid[i]);
    nap_ms(3000);
    for (size_t i = 0; i < n; i++)
        assert_in_range(wakeups(pid[i]) - before[i], 0, 3 * 6);
    if (!harness_sanitized()) /* of the master's 7.5 MiB are guard.page, and 4 are libraries */
        for (size_t i = 0; i < n; i++)
            assert_in_range(resident_kib(pid[i]), 0, 13 * 1024);
    house_remove(&h);
}

static void a_bad_configuration_starts_nothing(void **state)
{
    (void)state;
    char path[] = "/tmp/polder-conf.XXXXXX", command[512], text[4096];
    int fd = mkstemp(path);
    dprintf(fd, "listen = {\"127.0.0.1:0x\"}\nworkers = many\nrouet \"/\" { }\n");
    close(fd);
    snprintf(command, sizeof command, "%s -t -c %s 2>&1", built("polderd"), path);
    FILE *p = popen(command, "re");
    text[fread(text, 1, sizeof text - 1, p)] = 0;
    assert_int_equal(WEXITSTATUS(pclose(p)), 2);
    assert_non_null(strstr(text, ":1: "));
    assert_non_null(strstr(text, ":2: "));
    unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dprintf(fd, "listen = \"127.0.0.1:1\"\naccess_log = \"json:/nowhere/at/all\"\n");
    close(fd);
    p = popen(command, "re");
    text[fread(text, 1, sizeof text - 1, p)] = 0;
    assert_int_equal(WEXITSTATUS(pclose(p)), 2);
    assert_non_null(strstr(text, ":2: access_log: there is no directory /nowhere/at/"));
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dprintf(fd, "listen = \"127.0.0.1:1\"\nuser = \"${A:-${B}}\"\n");
    close(fd);
    p = popen(command, "re");
    text[fread(text, 1, sizeof text - 1, p)] = 0;
    assert_int_equal(WEXITSTATUS(pclose(p)), 2);
    assert_non_null(strstr(text, ":2: a variable stands in another one's default"));
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_process_is_back_within_a_second),
        cmocka_unit_test(service_goes_on_while_workers_are_killed),
        cmocka_unit_test(a_reload_proves_the_configuration_first),
        cmocka_unit_test(a_stop_finishes_what_is_under_way),
        cmocka_unit_test(a_client_that_comes_while_it_stops_is_served_and_told_to_leave),
        cmocka_unit_test(a_killed_master_leaves_room_for_the_next_at_once),
        cmocka_unit_test(a_store_is_called_clean_by_who_was_told_to_stop_alone),
        cmocka_unit_test(shared_memory_that_somebody_cuts_short_costs_a_start),
        cmocka_unit_test(stop_by_command_ends_the_service),
        cmocka_unit_test(a_gibibyte_streams_through_in_little_memory),
        cmocka_unit_test(a_reader_that_stops_costs_little),
        cmocka_unit_test(an_idle_house_sleeps),
        cmocka_unit_test(a_bad_configuration_starts_nothing),
    };
    return run_with_backend(tests, &backend, answers);
}
