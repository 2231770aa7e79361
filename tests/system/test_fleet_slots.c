/* SPDX-License-Identifier: BSD-2-Clause */
/* Three daemons and a real Redis: as many requests are under way, and as many WebSockets open, as a
 * limit of the fleet says over all of them, whatever is killed. All stories have one fleet: a new one
 * learns for some seconds. */
#include "harness.h"
#include "redis.h"
#include "ws_client.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HOSTS   3
#define SECRET  "a secret of sixteen or more"
#define FEW     4
#define MANY    90
#define SOCKETS 3
#define KEEP_MS 6000

static struct backend *backend;
static struct redis redis;
static struct house host[HOSTS];

/* ---- what the backend sees under way ---- */

static pthread_mutex_t seen_lock = PTHREAD_MUTEX_INITIALIZER;
static int seen[256];
static unsigned n_seen, most;
static atomic_bool held = false; /* requests of /few/hold and /many/hold are */

static bool is_gone(int fd)
{
    char c;
    return recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* Those of a worker that was killed are over. */
static void begins(int fd)
{
    pthread_mutex_lock(&seen_lock);
    unsigned n = 0;
    for (unsigned i = 0; i < n_seen; i++)
        if (!is_gone(seen[i]))
            seen[n++] = seen[i];
    seen[n++] = fd;
    n_seen = n;
    most = n > most ? n : most;
    pthread_mutex_unlock(&seen_lock);
}

static void ends(int fd)
{
    pthread_mutex_lock(&seen_lock);
    for (unsigned i = 0; i < n_seen; i++)
        if (seen[i] == fd)
            seen[i--] = seen[--n_seen];
    pthread_mutex_unlock(&seen_lock);
}

static void seen_forget(void)
{
    pthread_mutex_lock(&seen_lock);
    most = 0;
    pthread_mutex_unlock(&seen_lock);
}

static unsigned under_way(void)
{
    pthread_mutex_lock(&seen_lock);
    const unsigned n = n_seen;
    pthread_mutex_unlock(&seen_lock);
    return n;
}

static bool answers(struct asked *ask)
{
    begins(ask->fd);
    if (strstr(ask->target, "hold"))
        while (atomic_load(&held) && !is_gone(ask->fd))
            usleep(2000);
    else
        usleep((useconds_t)(rand() % 15 + 5) * 1000);
    ends(ask->fd);
    return reply_ok(ask, "Cache-Control: no-store\r\n", "good");
}

/* ---- the hosts ---- */

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

static void control_kill(int i)
{
    pid_t control;
    if (house_children(&host[i], "polderd: control", &control, 1) == 1)
        kill(control, SIGKILL);
}

static void worker_kill(int i)
{
    pid_t worker;
    if (house_children(&host[i], "polderd: worker", &worker, 1) == 1)
        kill(worker, SIGKILL);
}

static void cut(int i)
{
    unlink(way(i));
    control_kill(i); /* its link ends */
}

static void start(void)
{
    static const char *const names[HOSTS] = {"amber", "birch", "cedar"};
    redis_start(&redis);
    for (int i = 0; i < HOSTS; i++) {
        way_open(i);
        house_start(
            &host[i], 2,
            "fleet { store = {\"unix:%s\"} name = \"test\" host = \"%s\" secret = "
            "\"" SECRET "\" limit_timeout = 500ms slots_keep = %dms }\n"
            "limit \"few\" { requests = 4294967295 algorithm = fixed key = global concurrent = %d "
            "scope = fleet }\n"
            "limit \"many\" { requests = 4294967295 algorithm = fixed key = global concurrent = %d "
            "scope = fleet }\n"
            "limit \"open\" { requests = 4294967295 algorithm = fixed key = global concurrent = 1 "
            "scope = fleet cut_off = open }\n"
            "limit \"closed\" { requests = 4294967295 algorithm = fixed key = global concurrent = "
            "1 "
            "scope = fleet cut_off = closed }\n"
            "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
            "route \"/few/*\" { upstream = \"u\" limits = {\"few\"} }\n"
            "route \"/many/*\" { upstream = \"u\" limits = {\"many\"} }\n"
            "route \"/open/*\" { upstream = \"u\" limits = {\"open\"} }\n"
            "route \"/closed/*\" { upstream = \"u\" limits = {\"closed\"} }\n"
            "route \"/ws-open/*\" { websocket { max_connections = 1 max_per_client = 1 "
            "scope = fleet cut_off = open } }\n"
            "route \"/ws-closed/*\" { websocket { scope = fleet cut_off = closed } }\n"
            "route \"/ws/*\" { websocket { max_connections = %d max_per_client = %d "
            "scope = fleet } }\n",
            way(i), names[i], KEEP_MS, FEW, MANY, backend_port(backend), SOCKETS, SOCKETS);
    }
}

static void stop(void)
{
    for (int i = 0; i < HOSTS; i++)
        house_remove(&host[i]);
    redis_remove(&redis);
}

/* ---- requests ---- */

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int send_to(int i, const char *path)
{
    char text[256];
    const int fd = client_connect(host[i].port);
    const int n =
        snprintf(text, sizeof text,
                 "GET %s HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n", path);
    if (send(fd, text, (size_t)n, MSG_NOSIGNAL) != n) {
        close(fd);
        return -1;
    }
    return fd;
}

/* 0: it was cut. */
static unsigned answer_of(int fd)
{
    char text[4096];
    const ssize_t n = fd < 0 ? 0 : recv(fd, text, sizeof text - 1, 0);
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = 0;
    return n > 12 ? (unsigned)atoi(text + 9) : 0;
}

static unsigned status(int i, const char *path)
{
    return answer_of(send_to(i, path));
}

/* The client is gone, not only done with its request. */
static void leave(int fd)
{
    const struct linger resets = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &resets, sizeof resets);
    close(fd);
}

/* One that is under way, or -1: it was refused. */
static int hold_at(int i)
{
    const unsigned before = under_way();
    const int fd = send_to(i, "/few/hold");
    char c;
    for (;;) {
        if (under_way() > before)
            return fd;
        if (recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) >= 0) {
            close(fd);
            return -1;
        }
        usleep(2000);
    }
}

static atomic_bool over;
struct client {
    pthread_t thread;
    int host;
    unsigned admitted, refused, lost;
};

static void *client_run(void *arg)
{
    struct client *c = arg;
    while (!atomic_load(&over)) {
        const unsigned code = status(c->host, "/few/a");
        *(code == 200 ? &c->admitted : code == 429 ? &c->refused : &c->lost) += 1;
        usleep(3000);
    }
    return NULL;
}

/* ---- stories ---- */

static void wait_for_slots(void)
{
    for (int i = 0; i < HOSTS; i++) {
        wait_until(status(i, "/few/a") == 200, 20000);
        wait_until(status(i, "/many/a") == 200, 20000);
    }
    wait_until(under_way() == 0, 5000);
}

static bool says(int i, const char *command, const char *text)
{
    const char *out;
    return ctl(&host[i], &out, "%s", command) == 0 && strstr(out, text);
}

static bool holds_nothing(int i)
{
    return says(i, "--json fleet", "\"requests_held\": 0");
}

static void all_of_a_limit_is_usable_over_all_hosts_and_no_more(void **state)
{
    int fd[FEW + MANY + 10];
    (void)state;
    start();
    wait_for_slots();
    atomic_store(&held, true);
    for (int i = 0; i < FEW; i++)
        wait_until((fd[i] = hold_at(i % HOSTS)) >= 0, 5000);
    for (int i = 0; i < HOSTS; i++)
        assert_int_equal(status(i, "/few/a"), 429);
    assert_true(says(1, "--json limit show few", "\"concurrent_in_use\": 1"));
    leave(fd[0]); /* of host 0; another one may have it */
    wait_until(under_way() < FEW, 5000);
    wait_until((fd[0] = hold_at(1)) >= 0, 5000);
    for (int i = 0; i < HOSTS; i++)
        assert_int_equal(status(i, "/few/a"), 429);
    atomic_store(&held, false);
    for (int i = 0; i < FEW; i++)
        assert_int_equal(answer_of(fd[i]), 200);
    for (int i = 0; i < HOSTS; i++)
        wait_until(holds_nothing(i), 5000);
    /* Of a large one each host may have a tenth of its part unused. */
    atomic_store(&held, true);
    seen_forget();
    for (int i = 0; i < MANY + 10; i++)
        fd[FEW + i] = send_to(i % HOSTS, "/many/hold");
    wait_until(under_way() >= MANY - HOSTS * (MANY / (10 * HOSTS)), 10000);
    atomic_store(&held, false);
    for (int i = 0; i < MANY + 10; i++)
        answer_of(fd[FEW + i]);
    assert_in_range(most, MANY - HOSTS * (MANY / (10 * HOSTS)), MANY);
    wait_until(under_way() == 0, 10000);
}

static void whatever_is_killed_no_more_are_under_way(void **state)
{
    static struct client clients[HOSTS][4];
    unsigned admitted = 0;
    (void)state;
    const unsigned seed = (unsigned)getpid();
    srand(seed);
    wait_for_slots();
    atomic_store(&over, false);
    seen_forget();
    for (int i = 0; i < HOSTS; i++)
        for (int k = 0; k < 4; k++) {
            clients[i][k] = (struct client){.host = i};
            assert_int_equal(
                pthread_create(&clients[i][k].thread, NULL, client_run, &clients[i][k]), 0);
        }
    for (int turn = 0; turn < 6; turn++) {
        usleep((useconds_t)(rand() % 200 + 100) * 1000);
        (turn % 2 ? control_kill : worker_kill)(rand() % HOSTS);
    }
    atomic_store(&over, true);
    for (int i = 0; i < HOSTS; i++)
        for (int k = 0; k < 4; k++) {
            pthread_join(clients[i][k].thread, NULL);
            admitted += clients[i][k].admitted;
        }
    print_message("seed %u: %u admitted, at most %u at once\n", seed, admitted, most);
    assert_in_range(most, 1, FEW);
    assert_true(admitted > 20);
    wait_for_slots();
}

/* ---- WebSockets ---- */

static int open_on(int i, const char *target)
{
    struct message m;
    const int fd = ask(host[i].port, target, "", &m);
    const int code = m.status;
    message_free(&m);
    if (code == 101)
        return fd;
    close(fd);
    return code == 503 ? -1 : -2;
}

static int open_at(int i)
{
    return open_on(i, "/ws/a");
}

static void one_more_websocket_than_the_fleet_may_have_is_refused(void **state)
{
    int fd[SOCKETS], more;
    (void)state;
    for (int i = 0; i < HOSTS; i++)
        wait_for_supervisor(&host[i]);
    for (int i = 0; i < SOCKETS; i++)
        wait_until((fd[i] = open_at(i % HOSTS)) >= 0, 10000);
    for (int i = 0; i < HOSTS; i++)
        assert_int_equal(open_at(i), -1);
    close(fd[0]);
    wait_until((fd[0] = open_at(1)) >= 0, 5000);
    for (int i = 0; i < HOSTS; i++)
        assert_int_equal(open_at(i), -1);

    /* Its WebSockets outlive a supervisor, and the slots with them. */
    const pid_t custodian = supervisor_of(&host[1]), killed = working_process(custodian);
    kill(killed, SIGKILL);
    wait_until(working_process(custodian) != 0 && working_process(custodian) != killed, 10000);
    control_kill(1);
    for (int i = 0; i < HOSTS; i++)
        assert_true(open_at(i) < 0);
    house_kill(&host[1]); /* a polderd, too, and what it knew of them */
    house_run(&host[1]);
    wait_until(says(1, "--json fleet", "\"websockets_in_use\": 4"),
               10000); /* two rows count each */
    for (int i = 0; i < HOSTS; i++)
        assert_true(open_at(i) < 0);
    close(fd[0]); /* of the killed one */
    wait_until((fd[0] = open_at(2)) >= 0, 10000);
    wait_until((more = open_at(1)) == -1, 5000);
    for (int i = 0; i < SOCKETS; i++)
        close(fd[i]);
    wait_until((more = open_at(0)) >= 0, 5000);
    close(more);
}

/* ---- without the store ---- */

static bool is_cut(int i)
{
    return says(i, "fleet", "cut off");
}

/* Host 0 is cut off and host 2 killed, at the same time; host 1 is well. */
static void a_host_that_is_gone_keeps_what_it_holds_for_a_time(void **state)
{
    int fd[2], dead, other, more[2];
    (void)state;
    wait_for_slots();
    atomic_store(&held, true);
    for (int i = 0; i < 2; i++)
        wait_until((fd[i] = hold_at(0)) >= 0, 5000);
    wait_until((dead = hold_at(2)) >= 0, 5000);
    const int ws = open_at(0);
    assert_true(ws >= 0);
    const uint64_t killed_ms = now_ms();
    cut(0);
    kill(host[2].pid, SIGKILL);
    assert_int_equal(answer_of(dead), 0);
    wait_until(under_way() == 2, 2000);
    wait_until(is_cut(0), 5000);
    /* It holds two, and both are in use. */
    wait_until(status(0, "/few/a") == 429, 5000);
    assert_int_equal(status(0, "/closed/a"), 429);
    assert_int_equal(status(0, "/open/a"), 200);
    const int open = open_on(0, "/ws-open/a");
    assert_true(open >= 0);
    assert_int_equal(open_on(0, "/ws-open/a"), -1); /* of this host alone, but no more */
    assert_int_equal(open_on(0, "/ws-closed/a"), -1);
    /* Host 1 leaves them alone, and that of the killed one. */
    wait_until((other = hold_at(1)) >= 0, 2000);
    assert_int_equal(hold_at(1), -1);
    leave(fd[0]); /* another one there has its place, */
    wait_until(under_way() == 2, 2000);
    assert_int_equal(hold_at(1), -1);
    wait_until((fd[0] = hold_at(0)) >= 0, 4000);
    assert_int_equal(answer_of(fd[1]), 0); /* until its time is over: they are cut, */
    assert_int_equal(answer_of(fd[0]), 0);
    assert_int_equal(expect_close(ws), 1013);
    close(ws);
    assert_int_equal(status(0, "/few/a"), 429);
    wait_until(under_way() == 1, 5000);
    for (int i = 0; i < 2; i++) /* and others may have them, */
        wait_until((more[i] = hold_at(1)) >= 0, KEEP_MS + 3000);
    wait_until(status(1, "/few/a") == 200, 5000); /* that of the killed one, too */
    print_message("after %llu ms\n", (unsigned long long)(now_ms() - killed_ms));
    assert_true(now_ms() - killed_ms >= KEEP_MS - 1000);
    wait_until(says(0, "status", "fleet_limit_cut_off"), 10000);
    send_frame(open, 0x89, "x", 1); /* that one goes on */
    assert_true(read_frame(open, &frame) && frame.opcode == 10);
    close(open);
    way_open(0);
    house_kill(&host[2]); /* it waits until all are gone */
    house_run(&host[2]);
    atomic_store(&held, false);
    assert_int_equal(answer_of(other), 200);
    for (int i = 0; i < 2; i++)
        assert_int_equal(answer_of(more[i]), 200);
    wait_for_slots();
}

static void a_store_that_has_lost_its_data_learns_what_is_held(void **state)
{
    int fd[FEW];
    (void)state;
    atomic_store(&held, true);
    for (int i = 0; i < FEW; i++)
        wait_until((fd[i] = hold_at(i % HOSTS)) >= 0, 5000);
    unlink(way(2));
    redis_kill(&redis);
    redis_run(&redis); /* empty */
    for (const uint64_t until = now_ms() + 1000; now_ms() < until; usleep(20000))
        for (int i = 0; i < HOSTS; i++)
            assert_int_equal(status(i, "/few/a"), 429);
    way_open(2);                                    /* it comes last, with what it holds */
    wait_until(status(0, "/many/a") == 200, 20000); /* learned */
    for (int i = 0; i < HOSTS; i++)
        assert_int_equal(status(i, "/few/a"), 429);
    assert_int_equal(under_way(), FEW);
    atomic_store(&held, false);
    for (int i = 0; i < FEW; i++)
        assert_int_equal(answer_of(fd[i]), 200);
    wait_for_slots();
    stop();
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(all_of_a_limit_is_usable_over_all_hosts_and_no_more),
        cmocka_unit_test(whatever_is_killed_no_more_are_under_way),
        cmocka_unit_test(one_more_websocket_than_the_fleet_may_have_is_refused),
        cmocka_unit_test(a_host_that_is_gone_keeps_what_it_holds_for_a_time),
        cmocka_unit_test(a_store_that_has_lost_its_data_learns_what_is_held),
    };
    return run_with_backend(stories, &backend, answers);
}
