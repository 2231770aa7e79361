/* SPDX-License-Identifier: BSD-2-Clause */
/* The ops pages over real sockets: what clients send wrongly costs them their own connection. */
#include "daemons/control/ops/ops.h"
#include "daemons/control/control.h"
#include "daemons/net/unix_socket.h"
#include "daemons/rpc/server.h"
#include "polder/alerts.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/fleet_grants.h"
#include "polder/fleet_slots.h"
#include "polder/limit.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
/* after the others: it wants them */
#include <cmocka.h>

#define PATIENCE_MS 5000

struct rig {
    struct control control;
    struct ops *server;
    struct shared shared;
    struct shm_segment conditions;
    struct config config;
    struct runtime_page runtime;
    char dir[64], ops[96], local[96];
    char answer[200000];
    size_t len;
};

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    strcpy(r->dir, "/tmp/polder-ops.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->ops, sizeof r->ops, "%s/public", r->dir);
    snprintf(r->local, sizeof r->local, "%s/ops.sock", r->dir);
    r->shared.proc = aligned_alloc(128, (sizeof *r->shared.proc + 127) / 128 * 128);
    r->shared.stats = aligned_alloc(128, sizeof *r->shared.stats * PROC_SLOTS);
    memset(r->shared.proc, 0, sizeof *r->shared.proc);
    memset(r->shared.stats, 0, sizeof *r->shared.stats * PROC_SLOTS);
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    strcpy(sun.sun_path, r->ops);
    memcpy(&r->config.ops_listen.sa, &sun, sizeof sun);
    r->config.ops_listen.len = sizeof sun;
    r->config.ops_listen.text = r->ops;
    r->config.runtime_dir = r->dir;
    r->config.on_alert = "";
    r->shared.alerts = aligned_alloc(64, sizeof *r->shared.alerts);
    memset(r->shared.alerts, 0, sizeof *r->shared.alerts);
    r->config.telemetry_path = "/tele";
    r->config.cost = (struct config_cost){"EUR", 0.5, 0};
    r->config.websocket.max_connections = 50;
    r->shared.limits = mmap(NULL, limit_table_size(1024), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(r->shared.limits, MAP_FAILED);
    limit_table_init(r->shared.limits, 1024);
    r->shared.fleet_grants = mmap(NULL, sizeof *r->shared.fleet_grants, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(r->shared.fleet_grants, MAP_FAILED);
    r->shared.fleet_slots = mmap(NULL, sizeof *r->shared.fleet_slots, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(r->shared.fleet_slots, MAP_FAILED);
    assert_int_equal(conditions_open(&r->conditions, NULL, CONDITIONS_OF_POLDERD), 0);
    r->shared.conditions = conditions_of(&r->conditions);
    r->control.shared = &r->shared;
    r->control.config = &r->config;
    r->control.runtime = &r->runtime;
    r->control.loop = ev_loop_new(EVBACKEND_EPOLL);
    r->server = ops_new(&r->control);
    peers_init(&r->control.peers, r->control.loop, r->dir);
    ops_follow(r->server);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    peers_fini(&r->control.peers);
    ops_free(r->server);
    ev_loop_destroy(r->control.loop);
    assert_int_equal(rmdir(r->dir), 0); /* no socket is left behind */
    free(r->shared.proc);
    free(r->shared.stats);
    free(r->shared.alerts);
    munmap(r->shared.limits, limit_table_size(1024));
    munmap(r->shared.fleet_grants, sizeof *r->shared.fleet_grants);
    munmap(r->shared.fleet_slots, sizeof *r->shared.fleet_slots);
    shm_close(&r->conditions);
    free(r);
    return 0;
}

static int dial(const char *path)
{
    const int fd = unix_socket_connect(path);
    assert_true(fd >= 0);
    return fd;
}

static void say(int fd, const char *bytes, size_t len)
{
    assert_int_equal(send(fd, bytes, len, MSG_NOSIGNAL), len);
}

/* Runs the loop until n bytes of `wanted` have been seen, or the end where it is NULL. */
static void listen_for(struct rig *r, int fd, const char *wanted, unsigned n)
{
    const uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;
    r->len = 0;
    for (;;) {
        unsigned seen = 0;
        ev_run(r->control.loop, EVRUN_NOWAIT);
        const ssize_t got =
            recv(fd, r->answer + r->len, sizeof r->answer - 1 - r->len, MSG_DONTWAIT);
        if (got > 0)
            r->len += (size_t)got;
        r->answer[r->len] = 0;
        for (const char *at = r->answer; wanted && (at = strstr(at, wanted)); at++)
            seen++;
        if ((wanted && seen >= n) || (!wanted && got == 0))
            return;
        if (got == 0 || (got < 0 && errno != EAGAIN) || clock_mono_ms() > until_ms)
            fail_msg("no %s in: %s (%s)", wanted ? wanted : "end", r->answer, strerror(errno));
    }
}

/* One request on a connection of its own; the status. */
static int ask(struct rig *r, const char *path, const char *request)
{
    int status = 0;
    const int fd = dial(path);
    say(fd, request, strlen(request));
    listen_for(r, fd, NULL, 0);
    close(fd);
    sscanf(r->answer, "HTTP/1.1 %d", &status);
    return status;
}

static int get(struct rig *r, const char *path, const char *target)
{
    char request[512];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
             target);
    return ask(r, path, request);
}

static const char *body(const struct rig *r)
{
    const char *at = strstr(r->answer, "\r\n\r\n");
    return at ? at + 4 : "";
}

static void each_page_is_there(void **state)
{
    struct rig *r = *state;
    assert_int_equal(get(r, r->ops, "/"), 200);
    assert_non_null(strstr(body(r), "<html"));
    assert_int_equal(get(r, r->ops, "/healthz"), 200);
    assert_int_equal(get(r, r->ops, "/metrics"), 200);
    assert_non_null(strstr(r->answer, "Content-Type: text/plain; version=0.0.4"));
    assert_int_equal(get(r, r->ops, "/api/telemetry/cache-stats"), 200);
    assert_int_equal(get(r, r->ops, "/metrics/"), 404);
    assert_int_equal(get(r, r->ops, "/healthz?x=1"), 200);
    assert_int_equal(ask(r, r->ops,
                         "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept: text/x, "
                         "application/openmetrics-text;version=1.0.0;q=0.5\r\n\r\n"),
                     200);
    assert_non_null(strstr(r->answer, "Content-Type: application/openmetrics-text"));
}

static void workers_reach_telemetry_and_nothing_else(void **state)
{
    struct rig *r = *state;
    assert_int_equal(get(r, r->local, "/tele/cache-stats"), 200);
    assert_non_null(strstr(body(r), "\"hitRate\":"));
    assert_int_equal(get(r, r->local, "/tele/cost"), 200);
    assert_non_null(strstr(body(r), "\"byOptimisation\":{\"polling\":0,\"websocket\":0,"));
    static const char *const none[] = {
        "/metrics",     "/", "/healthz", "/tele", "/tele/", "/telecache-stats", "/tele/../metrics",
        "/tele/metrics"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_int_equal(get(r, r->local, none[i]), 404);
}

static void one_ready_worker_is_ready_and_all_else_is_a_reason(void **state)
{
    struct rig *r = *state;
    struct proc_table *proc = r->shared.proc;
    struct proc_slot *keeper = &proc->slot[PROC_SLOT_KEEPER],
                     *worker = &proc->slot[PROC_SLOT_WORKER0 + 5];
    r->config.workers = 2;
    assert_int_equal(get(r, r->ops, "/readyz"), 503);
    assert_non_null(strstr(body(r), "no_ready_worker: "));
    assert_non_null(strstr(body(r), "starting: "));
    assert_non_null(strstr(body(r), "0 of 2 workers"));
    atomic_store(&proc->was_ready, 1);
    atomic_store(&proc->generation, 2);
    atomic_store(&worker->pid, 1);
    atomic_store(&worker->state, PROC_READY);
    atomic_store(&worker->generation, 1); /* of the last configuration */
    atomic_store(&keeper->state, PROC_READY);
    assert_int_equal(get(r, r->ops, "/readyz"), 503);
    atomic_store(&worker->generation, 2);
    assert_int_equal(get(r, r->ops, "/readyz"), 200);
    assert_non_null(strstr(body(r), "\"workers_missing: "));
    assert_non_null(strstr(body(r), "1 of 2 workers"));
    r->config.workers = 1;
    assert_int_equal(get(r, r->ops, "/readyz"), 200);
    assert_non_null(strstr(body(r), "\"reasons\":[]"));
    atomic_store(&keeper->state, PROC_STARTING);
    assert_int_equal(get(r, r->ops, "/readyz"), 200);
    assert_non_null(strstr(body(r), "\"keeper_missing: "));
    atomic_store(&keeper->state, PROC_READY);
    condition_raise(r->shared.conditions, COND_BACKEND_DOWN, "a\"b", "re\\set", clock_real_ms());
    condition_raise(r->shared.conditions, COND_LIMIT_ROWS_FULL, NULL, NULL, clock_real_ms());
    assert_int_equal(get(r, r->ops, "/readyz"), 200);
    assert_non_null(strstr(body(r), "[\"backend_down a\\\"b: "));
    assert_non_null(
        strstr(body(r), ": re\\\\set\"]")); /* the limiter's is not of traffic's concern */
    atomic_store(&proc->draining, 1);
    assert_int_equal(get(r, r->ops, "/readyz"), 503);
    assert_int_equal(get(r, r->ops, "/healthz"), 200);
}

static void answer_nothing(void *arg, const struct rpc_call *call)
{
    (void)arg;
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

static void the_first_time_all_of_it_has_to_work(void **state)
{
    struct rig *r = *state;
    struct proc_table *proc = r->shared.proc;
    struct config_websocket websocket = {0};
    struct config_route route = {.pattern = "/ws", .websocket = &websocket};
    char path[128];
    r->config.workers = 2;
    r->config.routes = &route;
    r->config.n_routes = 1;
    atomic_store(&proc->started_ms, clock_mono_ms()); /* young: nothing needs anybody yet */
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(get(r, r->ops, "/readyz"), 503);
        assert_non_null(strstr(body(r), "[\"not all workers are ready\"]"));
        atomic_store(&proc->slot[PROC_SLOT_WORKER0 + i].pid, 1);
        atomic_store(&proc->slot[PROC_SLOT_WORKER0 + i].state, PROC_READY);
    }
    assert_int_equal(get(r, r->ops, "/readyz"), 503);
    assert_non_null(strstr(body(r), "[\"the keeper is not ready\"]"));
    atomic_store(&proc->slot[PROC_SLOT_KEEPER].state, PROC_READY);
    assert_int_equal(get(r, r->ops, "/readyz"), 503);
    assert_non_null(strstr(body(r), "[\"polder-supervisor does not answer yet\"]"));
    snprintf(path, sizeof path, "%s/supervisor-rpc.sock", r->dir);
    struct rpc_server *supervisor;
    assert_int_equal(
        rpc_server_new(&supervisor, r->control.loop, path, 0600, (gid_t)-1, answer_nothing, NULL),
        0);
    const uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;
    while (get(r, r->ops, "/readyz") != 200)
        assert_true(clock_mono_ms() < until_ms);
    assert_int_equal(atomic_load(&proc->was_ready), 1);
    rpc_server_free(supervisor); /* from now on a missing one keeps nobody away */
    assert_int_equal(get(r, r->ops, "/readyz"), 200);
}

static void conditions_are_shown_as_json(void **state)
{
    struct rig *r = *state;
    condition_raise(r->shared.conditions, COND_STORE_OFF, NULL, "the \"disk\"", 1800000000123);
    assert_int_equal(get(r, r->ops, "/api/telemetry/conditions"), 200);
    assert_non_null(strstr(body(r),
                           "{\"condition\":\"store_off\",\"severity\":\"error\",\"since\":"
                           "1800000000.123,\"subject\":\"\",\"reason\":\"the \\\"disk\\\"\","
                           "\"what\":\""));
    assert_non_null(strstr(body(r), "\"lost\":0}"));
    assert_int_equal(get(r, r->local, "/tele/conditions"), 404); /* not for the public */
}

static void an_address_that_cannot_be_bound_is_a_condition(void **state)
{
    struct rig *r = *state;
    char taken[128];
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    snprintf(taken, sizeof taken, "%s/no/such/directory", r->dir);
    strcpy(sun.sun_path, taken);
    memcpy(&r->config.ops_listen.sa, &sun, sizeof sun);
    r->config.ops_listen.text = taken;
    ops_follow(r->server);
    assert_true(
        condition_is_raised(r->shared.conditions, COND_OPS_NOT_BOUND, taken, clock_real_ms()));
    strcpy(sun.sun_path, r->ops);
    memcpy(&r->config.ops_listen.sa, &sun, sizeof sun);
    r->config.ops_listen.text = r->ops;
    ops_follow(r->server);
    assert_false(
        condition_is_raised(r->shared.conditions, COND_OPS_NOT_BOUND, taken, clock_real_ms()));
    assert_int_equal(get(r, r->ops, "/healthz"), 200);
}

static void only_get_and_head_are_answered(void **state)
{
    struct rig *r = *state;
    static const char post[] =
        "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    assert_int_equal(
        ask(r, r->ops, "HEAD /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), 200);
    assert_string_equal(body(r), "");
    assert_null(strstr(r->answer, "Content-Length: 0\r"));
    /* most of the body comes after the answer has been made */
    static char rest[99000];
    const int fd = dial(r->ops);
    say(fd, post, sizeof post - 1);
    listen_for(r, fd, "HTTP/1.1 405", 1);
    assert_non_null(strstr(r->answer, "Allow: GET, HEAD\r\n"));
    say(fd, rest, sizeof rest);
    listen_for(r, fd, NULL, 0);
    close(fd);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    struct rig *r = *state;
    static const char three[] = "\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
                                "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"
                                "GET /api/telemetry/websocket-health HTTP/1.1\r\nHost: a\r\n\r\n"
                                "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    for (size_t step = 1; step < sizeof three; step = step * 3 + 1) {
        const int fd = dial(r->ops);
        for (size_t at = 0; at < sizeof three - 1; at += step) {
            const size_t left = sizeof three - 1 - at;
            say(fd, three + at, left < step ? left : step);
            ev_run(r->control.loop, EVRUN_NOWAIT);
        }
        listen_for(r, fd, "HTTP/1.1 ", 4);
        const char *missing = strstr(r->answer, "HTTP/1.1 404");
        const char *sockets = strstr(r->answer, "activeConnections");
        assert_true(missing && sockets && missing < sockets);
        assert_true(strstr(r->answer, "HTTP/1.1 200") < missing);
        assert_null(strstr(r->answer, "Connection: close"));
        close(fd);
    }
}

static void malformed_requests_get_an_error_and_the_end(void **state)
{
    struct rig *r = *state;
    static const char *const bad[] = {
        "GET /\x01 HTTP/9\r\n\r\n",
        "\xff\xfe\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n", /* no Host */
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(ask(r, r->ops, bad[i]), 400);
        assert_non_null(strstr(r->answer, "Connection: close\r\n"));
    }
    static char large[40000];
    memset(large, 'a', sizeof large - 1);
    memcpy(large, "GET / HTTP/1.1\r\nHost: a\r\nX: ", 28);
    assert_int_equal(ask(r, r->ops, large), 431);
    assert_int_equal(get(r, r->ops, "/healthz"), 200);
}

static void silent_connections_give_way_to_others(void **state)
{
    struct rig *r = *state;
    int fd[80];
    for (int i = 0; i < 80; i++) {
        fd[i] = dial(r->ops);
        say(fd[i], "GET ", 4);
        ev_run(r->control.loop, EVRUN_NOWAIT);
    }
    assert_int_equal(get(r, r->ops, "/healthz"), 200);
    for (int i = 0; i < 80; i++)
        close(fd[i]);
}

/* More answers than a socket takes, and none of them is read. */
static int dial_and_not_read(struct rig *r)
{
    static const char request[] = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    const int fd = dial(r->ops);
    for (int i = 0; i < 100; i++)
        say(fd, request, sizeof request - 1);
    for (int i = 0; i < 10; i++)
        ev_run(r->control.loop, EVRUN_NOWAIT);
    return fd;
}

static void clients_that_do_not_read_lock_nobody_out(void **state)
{
    struct rig *r = *state;
    int fd[70];
    for (int i = 0; i < 64; i++)
        fd[i] = dial_and_not_read(r);
    assert_int_equal(get(r, r->ops, "/healthz"), 200);
    assert_int_equal(get(r, r->ops, "/metrics"), 200);
    assert_int_equal(get(r, r->local, "/tele/cache-stats"), 200);
    for (int i = 64; i < 70; i++) { /* and not by coming again */
        fd[i] = dial_and_not_read(r);
        assert_int_equal(get(r, r->ops, "/healthz"), 200);
    }
    for (int i = 0; i < 70; i++)
        close(fd[i]);
}

static void who_leaves_while_his_page_is_made_harms_nobody(void **state)
{
    struct rig *r = *state;
    char path[128];
    struct unix_socket mute; /* a supervisor that does not answer */
    static const char request[] = "GET /api/telemetry/websocket-health HTTP/1.1\r\nHost: a\r\n\r\n";
    snprintf(path, sizeof path, "%s/supervisor-rpc.sock", r->dir);
    assert_int_equal(unix_socket_listen(&mute, path, SOCK_STREAM, 0600, (gid_t)-1), 0);
    const int left = dial(r->ops), stays = dial(r->ops);
    say(left, request, sizeof request - 1);
    say(stays, request, sizeof request - 1);
    for (int i = 0; i < 20; i++)
        ev_run(r->control.loop, EVRUN_NOWAIT);
    assert_int_equal(r->control.peers.supervisor.n_asks, 2);
    close(left);
    assert_int_equal(get(r, r->ops, "/healthz"), 200);
    rpc_client_fini(&r->control.peers.supervisor); /* sooner than the time limit */
    listen_for(r, stays, "\"maxConnections\":50", 1);
    assert_non_null(strstr(r->answer, "\"activeConnections\":null")); /* who knows? */
    close(stays);
    unix_socket_close(&mute);
}

static void old_clients_are_answered_once(void **state)
{
    struct rig *r = *state;
    assert_int_equal(ask(r, r->ops, "GET /healthz HTTP/1.0\r\n\r\n"), 200);
    assert_non_null(strstr(body(r), "ok"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(each_page_is_there),
        TEST(workers_reach_telemetry_and_nothing_else),
        TEST(one_ready_worker_is_ready_and_all_else_is_a_reason),
        TEST(the_first_time_all_of_it_has_to_work),
        TEST(conditions_are_shown_as_json),
        TEST(an_address_that_cannot_be_bound_is_a_condition),
        TEST(only_get_and_head_are_answered),
        TEST(pipelined_requests_are_answered_in_order),
        TEST(malformed_requests_get_an_error_and_the_end),
        TEST(silent_connections_give_way_to_others),
        TEST(clients_that_do_not_read_lock_nobody_out),
        TEST(who_leaves_while_his_page_is_made_harms_nobody),
        TEST(old_clients_are_answered_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
