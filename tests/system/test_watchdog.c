/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of processes that hang: noticed, ended and replaced within 5 s while the others serve; and
 * of a machine that stood still, where nobody hangs. */
#include "ws_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WITHIN_MS 5000
#define BUSY_MS   90000 /* while the master comes late itself it ends nobody */
#define CLIENTS   12

static struct backend *backend;

static bool answers(struct asked *a)
{
    return reply_ok(a, "", a->target);
}

static void start(struct house *h, unsigned workers)
{
    house_start(h, workers,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/ws\" { websocket { } }\nroute \"/*\" { upstream = \"u\" }\n",
                backend_port(backend));
    wait_for_supervisor(h);
}

/* How long a replacement may take on this machine as it is now. */
static uint64_t allowed_ms(void)
{
    double load = 0;
    FILE *f = fopen("/proc/loadavg", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lf", &load), 1);
    fclose(f);
    return load > 1.5 * (double)sysconf(_SC_NPROCESSORS_ONLN) ? BUSY_MS : WITHIN_MS;
}

static pid_t one(struct house *h, const char *title)
{
    pid_t pid[4];
    return house_children(h, title, pid, 4) ? pid[0] : 0;
}

static bool says(struct house *h, const char *command, const char *text)
{
    const char *out;
    return ctl(h, &out, "%s", command) == 0 && strstr(out, text);
}

static bool measured(struct house *h, const char *line)
{
    struct message m;
    const bool there = get(h->ops_port, "/metrics", &m) == 200 && strstr(m.body, line);
    message_free(&m);
    return there;
}

static bool is_new(pid_t now, pid_t before)
{
    return now > 0 && now != before;
}

/* Without systemd the master watches polder-supervisor too. */
static void a_hung_process_is_replaced_while_the_worker_serves(void **state)
{
    (void)state;
    struct house h;
    if (harness_sanitized())
        skip(); /* there the watchdog waits longer */
    start(&h, 1);
    const int ws = open_ws(h.port, "/ws");
    const pid_t keeper = one(&h, "polderd: keeper"), control = one(&h, "polderd: control"),
                supervisor = supervisor_of(&h), worker = one(&h, "polderd: worker");
    kill(keeper, SIGSTOP);
    kill(control, SIGSTOP);
    kill(supervisor, SIGSTOP);
    const uint64_t stopped = mono_ms();
    uint64_t slowest = 0;
    bool replaced = false;
    while (!replaced && mono_ms() < stopped + BUSY_MS) {
        const uint64_t asked = mono_ms();
        assert_int_equal(get(h.port, "/x", NULL), 200);
        if (mono_ms() - asked > slowest)
            slowest = mono_ms() - asked;
        replaced = is_new(one(&h, "polderd: keeper"), keeper) &&
                   is_new(one(&h, "polderd: control"), control) && kill(supervisor, 0) < 0;
        nap_ms(20);
    }
    assert_true(replaced);
    print_message("replaced after %llu ms, the slowest answer took %llu ms\n",
                  (unsigned long long)(mono_ms() - stopped), (unsigned long long)slowest);
    assert_true(mono_ms() - stopped < allowed_ms());
    assert_true(slowest < allowed_ms() / 2);
    wait_until(is_new(one(&h, "polder-supervisor"), supervisor), 20000);
    assert_int_equal(expect_close(ws), 1006);
    close(ws);
    wait_until(status_of(h.port, "/ws") == 101, 20000);
    assert_int_equal(one(&h, "polderd: worker"), worker);
    assert_true(house_logged(&h, "watchdog: keeper["));
    assert_true(house_logged(&h, "watchdog: polder-supervisor["));
    wait_until(says(&h, "status", "process_hung"), 20000);
    assert_true(measured(&h, "polder_process_hung_total{process=\"control\"} 1"));
    assert_true(measured(&h, "polder_process_hung_total{process=\"supervisor\"} 1"));
    assert_true(measured(&h, "polder_process_hung_total{process=\"worker\"} 0"));
    assert_true(
        measured(&h, "polder_condition{name=\"process_hung\",subject=\"polder-supervisor\"} 1"));
    house_advance(&h, 61000);
    wait_until(!says(&h, "status", "process_hung"), 20000);
    house_remove(&h);
}

struct clients {
    int fd[CLIENTS];
    bool done[CLIENTS];
    unsigned good, gone; /* answers; connections that have ended */
};

static void look(struct clients *c)
{
    char bytes[4096];
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct pollfd p = {c->fd[i], POLLIN, 0};
        if (c->done[i] || poll(&p, 1, 0) != 1)
            continue;
        const ssize_t got = recv(c->fd[i], bytes, sizeof bytes, 0);
        c->done[i] = true;
        c->good += got > 0;
        c->gone += got <= 0;
    }
}

/* And so is a supervisor that the master has not started, but found. */
static void a_hung_worker_is_replaced_while_the_other_serves(void **state)
{
    (void)state;
    struct house h;
    struct clients c = {.good = 0};
    struct message m;
    if (harness_sanitized())
        skip();
    start(&h, 2);
    const pid_t supervisor = supervisor_of(&h);
    kill(h.pid, SIGKILL);
    waitpid(h.pid, NULL, 0);
    house_run(&h);
    wait_until(house_logged(&h, "was there"), 5000);
    for (unsigned i = 0; i < CLIENTS; i++) {
        c.fd[i] = client_connect(h.port);
        client_send(c.fd[i], "GET /first HTTP/1.1\r\nHost: x\r\n\r\n");
        client_read(c.fd[i], &m, false);
        message_free(&m);
    }
    const pid_t worker = one(&h, "polderd: worker");
    kill(worker, SIGSTOP);
    kill(supervisor, SIGSTOP);
    const uint64_t stopped = mono_ms();
    for (unsigned i = 0; i < CLIENTS; i++)
        client_send(c.fd[i], "GET /second HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_until((look(&c), c.good > 0), 10000);
    assert_true(!c.gone || allowed_ms() == BUSY_MS); /* the other one serves its clients */
    wait_until((look(&c), c.good + c.gone == CLIENTS), BUSY_MS);
    assert_true(mono_ms() - stopped < allowed_ms());
    pid_t now[4];
    wait_until(house_children(&h, "polderd: worker", now, 4) == 2, 10000);
    assert_true(now[0] != worker && now[1] != worker);
    assert_true(house_logged(&h, "watchdog: worker"));
    wait_until(house_logged(&h, "has ended after its heartbeat stopped"), 20000);
    wait_until(is_new(one(&h, "polder-supervisor"), supervisor), 20000);
    wait_until(status_of(h.port, "/ws") == 101, 20000);
    wait_until(measured(&h, "polder_process_hung_total{process=\"worker\"} 1"), 20000);
    for (unsigned i = 0; i < CLIENTS; i++)
        close(c.fd[i]);
    house_remove(&h);
}

/* Suspended, or all of its processes stopped: the clocks go on, and then everybody is late. */
static void nobody_hangs_because_the_machine_stood_still(void **state)
{
    (void)state;
    struct house h;
    pid_t all[8];
    start(&h, 2);
    size_t n = house_children(&h, "polderd: ", all, 6);
    assert_int_equal(n, 4);
    all[n++] = supervisor_of(&h);
    kill(h.pid, SIGSTOP);
    for (size_t i = 0; i < n; i++)
        kill(all[i], SIGSTOP);
    house_advance(&h, 3600000);
    kill(h.pid, SIGCONT); /* sees heartbeats that are an hour old, and for a moment no new ones */
    nap_ms(300);
    for (size_t i = 0; i < n; i++)
        kill(all[i], SIGCONT);
    wait_until(says(&h, "status", "ready"), 10000);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    wait_until(status_of(h.port, "/ws") == 101, 20000);
    house_advance(&h, 3000); /* past the leniency: looked at for what they are now */
    nap_ms(1200);
    assert_false(house_logged(&h, "watchdog:"));
    for (size_t i = 0; i < n; i++)
        assert_int_equal(kill(all[i], 0), 0);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(a_hung_process_is_replaced_while_the_worker_serves),
        cmocka_unit_test(a_hung_worker_is_replaced_while_the_other_serves),
        cmocka_unit_test(nobody_hangs_because_the_machine_stood_still),
    };
    return run_with_backend(stories, &backend, answers);
}
