/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A restart of polder-supervisor by its service manager ends no WebSocket; a stop tells all to
 * reconnect, and so does each restart in which something is wrong.
 */
#include "release.h"
#include "unit.h"
#include "ws_client.h"
#include "ws_storm.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct release release;

static const char routes[] = "websocket { max_connections = 500 max_per_client = 500 connect_rate "
                             "= 10000 heartbeat = \"off\" }\n"
                             "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                             "route \"/ws/*\" { upstream = \"u\" websocket { } }\n"
                             "route \"/live/*\" { websocket { } }\n";

static void open_unit(struct unit *u, struct house *h, unsigned port, bool has_socket)
{
    const char *out;
    char text[1024];
    setenv("NOTIFY_SOCKET", "@polder-test-nothing", 1); /* then a service manager starts it */
    house_start(
        h, 1, "upstream \"u\" { server \"127.0.0.1:1\" { } }\nroute \"/*\" { upstream = \"u\" }\n");
    unsetenv("NOTIFY_SOCKET");
    snprintf(text, sizeof text, routes, port);
    house_write_conf(h, 1, text);
    assert_int_equal(ctl(h, &out, "reload"), 0);
    unit_open(u, h, has_socket);
    unit_start(u);
}

static void close_unit(struct unit *u)
{
    struct house *h = u->house;
    unit_close(u);
    house_remove(h);
}

/* ---- it goes on ---- */

#define CLIENTS 60

static char other[64];
static const char *next_version(void)
{
    snprintf(other, sizeof other, "%s", release_real_version(&release));
    other[strlen(other) - 1] = other[strlen(other) - 1] == '9' ? '8' : '9';
    return other;
}

static void restarts_under_load_lose_nothing(void **state)
{
    (void)state;
    struct house h;
    struct unit u;
    static struct ws_storm storm; /* its thread outlives a failed story */
    const unsigned port = free_port();
    char echo[300];
    snprintf(echo, sizeof echo, "%s/bench/ws_echo", release.built);
    const pid_t backend = peer_start(echo, NULL, port);
    for (int has_socket = 1; has_socket >= 0; has_socket--) {
        open_unit(&u, &h, port, has_socket);
        ws_storm_begin(&storm, h.port, "/ws/x", CLIENTS, 4);
        for (int i = 0; i < 5; i++) {
            const unsigned before = atomic_load(&storm.messages);
            release_install(&release, "polder-supervisor", i % 2 ? NULL : next_version(),
                            RELEASE_WHOLE);
            unit_restart(&u);
            wait_until(atomic_load(&storm.messages) > before + CLIENTS, 20000);
            wait_until(!atomic_load(&u.stored), 10000);
            assert_int_equal(status_of(h.port, "/live/x"), 101);
        }
        ws_storm_end(&storm);
        assert_int_equal(house_times_logged(&h, "goes on where"), 5);
        release_install(&release, "polder-supervisor", NULL, RELEASE_WHOLE);
        print_message("%u messages, 5 restarts; the longest silence of a client: %llu ms\n",
                      atomic_load(&storm.messages), (unsigned long long)storm.longest_ms);
        close_unit(&u);
    }
    peer_stop(backend);
}

/* ---- WebSockets in each state ---- */

static const char yes[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Accept: " WS_ACCEPT "\r\n\r\n";

struct rig {
    struct house h;
    struct unit u;
    struct scripted b;
    int client, backend; /* of one WebSocket */
};

static void rig_open(struct rig *r)
{
    scripted_open(&r->b);
    open_unit(&r->u, &r->h, r->b.port, true);
    r->backend = scripted_agree(&r->b, &r->client, r->h.port, "/ws/x", "");
}

static void rig_close(struct rig *r)
{
    close(r->client);
    close(r->backend);
    close_unit(&r->u);
    close(r->b.fd);
}

static void expect_it_goes_on(struct rig *r)
{
    unsigned char got[6 + 4];
    say(r->client, "once");
    assert_true(take(r->backend, got, sizeof got));
    client_send_bytes(r->backend, "\x81\x03two", 5);
    expect_text(r->client, "two");
}

static void each_state_goes_on(void **state)
{
    (void)state;
    struct rig r;
    struct message m;
    const char *out;
    unsigned char got[32];
    const unsigned char half[] = {0x81,    0x85,    1,       2,       3,      4,
                                  'h' ^ 1, 'e' ^ 2, 'l' ^ 3, 'l' ^ 4, 'o' ^ 1};
    rig_open(&r);
    const int local = open_ws(r.h.port, "/live/x");
    say(local, "{\"type\":\"subscribe\",\"tags\":[\"item-7\"]}");
    expect_text(local, "{\"type\":\"subscribed\"}");
    const int asking = ask_only(r.h.port, "/ws/x", "");
    const int asked = scripted_accept(&r.b);
    client_send_bytes(asked, yes, 40); /* part of the head */
    const int refused = ask_only(r.h.port, "/ws/x", "");
    const int refuses = scripted_accept(&r.b);
    client_send(refuses, "HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nhalf ");
    wait_until(ctl(&r.h, &out, "ws list --json") == 0 && strstr(out, "refusing"), 10000);
    client_send_bytes(r.client, half, 8); /* within the payload */
    assert_int_equal(ctl(&r.h, &out, "ws set timeout=77s"), 0);

    unit_restart(&r.u);

    client_send_bytes(r.client, half + 8, sizeof half - 8);
    assert_true(take(r.backend, got, sizeof half));
    assert_memory_equal(got, half, sizeof half);
    expect_it_goes_on(&r);
    client_send_bytes(asked, yes + 40, sizeof yes - 1 - 40);
    client_read(asking, &m, false);
    assert_int_equal(m.status, 101);
    message_free(&m);
    client_send(refuses, "whole");
    client_read(refused, &m, false);
    assert_int_equal(m.status, 403);
    assert_true(m.complete);
    assert_string_equal(m.body, "half whole");
    message_free(&m);
    assert_int_equal(ctl(&r.h, &out, "cache invalidate --tag item-7"), 0);
    assert_true(read_frame(local, &frame));
    assert_non_null(strstr(frame.text, "item-7"));
    assert_int_equal(ctl(&r.h, &out, "ws stats --json"), 0);
    assert_non_null(strstr(out, "\"opened\": 3"));
    assert_non_null(strstr(out, "\"timeout_ms\": 77000"));
    assert_non_null(strstr(out, "\"upgrades\": 0"));

    /* its custodian is a custodian: the next one that is killed is survived */
    assert_int_equal(kill(working_process(r.u.pid), SIGKILL), 0);
    expect_it_goes_on(&r);
    close(local);
    close(asking);
    close(asked);
    close(refused);
    close(refuses);
    rig_close(&r);
}

static void routes_that_are_gone_by_then_end_with_1012(void **state)
{
    (void)state;
    struct rig r;
    char text[1024];
    rig_open(&r);
    const int gone = open_ws(r.h.port, "/live/x");
    snprintf(text, sizeof text, routes, r.b.port);
    *strstr(text, "route \"/live/*\"") = 0;
    house_write_conf(&r.h, 1, text);
    unit_restart(&r.u);
    assert_int_equal(expect_close(gone), 1012);
    expect_it_goes_on(&r);
    close(gone);
    rig_close(&r);
}

/* ---- it ends as a stop does ---- */

/* Told to stop for that job, it tells all to reconnect, and leaves nothing. */
static void expect_told(struct rig *r, const char *job, const char *why)
{
    expect_it_goes_on(r);
    const pid_t pid = r->u.pid;
    atomic_store(&r->u.job, job);
    assert_int_equal(kill(pid, SIGTERM), 0);
    assert_int_equal(expect_close(r->client), 1012);
    close(r->client);
    close(r->backend);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_false(atomic_load(&r->u.stored));
    if (!house_logged(&r->h, why))
        fail_msg("the log does not say \"%s\"", why);
    atomic_store(&r->u.job, "");
}

static void again(struct rig *r)
{
    unit_start(&r->u);
    r->backend = scripted_agree(&r->b, &r->client, r->h.port, "/ws/x", "");
}

static void a_stop_and_what_is_not_known_to_be_none_end_with_1012(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r);
    expect_told(&r, "stop", "stopping; 1 WebSockets are told to reconnect");
    assert_false(house_logged(&r.h, "restart:"));
    again(&r);
    expect_told(&r, "", "stopping; 1 WebSockets are told to reconnect"); /* a plain kill */
    again(&r);
    atomic_store(&r.u.store_max, 0);
    expect_told(&r, "restart", "the service manager keeps no descriptor");
    atomic_store(&r.u.store_max, 4);
    again(&r);
    atomic_store(&r.u.answers, UNIT_IS_SILENT);
    const uint64_t begun = mono_ms();
    expect_told(&r, "restart", "D-Bus: GetUnitByPID: Connection timed out");
    assert_true(mono_ms() < begun + 10000);
    atomic_store(&r.u.answers, UNIT_HAS_NO_BUS);
    again(&r);
    expect_told(&r, "restart", "D-Bus: cannot connect");
    rig_close(&r);
}

static void a_program_that_cannot_follow_ends_with_1012(void **state)
{
    (void)state;
    static const struct {
        enum release_damage damage;
        const char *why;
    } next[] = {{RELEASE_CRASHES, "died of signal"},
                {RELEASE_NO_PROGRAM, "cannot be executed"},
                {RELEASE_TRUNCATED, "told to reconnect: "}};
    struct rig r;
    rig_open(&r);
    for (size_t i = 0; i < sizeof next / sizeof *next; i++) {
        release_install(&release, "polder-supervisor", NULL, next[i].damage);
        expect_told(&r, "restart", next[i].why);
        release_install(&release, "polder-supervisor", NULL, RELEASE_WHOLE);
        again(&r);
    }
    house_write_conf(&r.h, 1, "route \"/ws/*\" { nonsense = 1 }\n");
    expect_told(&r, "restart", "nonsense");
    rig_close(&r);
}

/* ---- deaths on the way ---- */

#define PLACE_RESUMED 13
#define PLACE_HANDING 14
#define PLACE_HANDED  15
#define PLACE_TAKEN   16

static char dying[300], when[128];

/* From now on processes die there, each time, while the file is there. */
static void die_at(int place, const char *how)
{
    char text[16];
    snprintf(text, sizeof text, "%d", place);
    setenv("POLDER_DIE", "0", 1);
    setenv("POLDER_DIE_AT", text, 1);
    setenv("POLDER_DIE_WHEN", when, 1);
    unsetenv("POLDER_DIE_HOW");
    if (how)
        setenv("POLDER_DIE_HOW", how, 1);
}

static void let_die(bool yes_now)
{
    if (yes_now) {
        FILE *f = fopen(when, "w");
        assert_non_null(f);
        fclose(f);
    } else {
        unlink(when);
    }
}

static void rig_open_dying(struct rig *r, int place, const char *how)
{
    rig_open(r);
    snprintf(when, sizeof when, "%.100s/die", r->h.dir);
    die_at(place, how);
    assert_int_equal(unit_stop(&r->u, "restart"), 0);
    unit_spawn(&r->u, dying);
    unit_wait_ready(&r->u);
    expect_it_goes_on(r);
}

static void what_follows_may_die_until_it_goes_on(void **state)
{
    (void)state;
    struct rig r;
    rig_open_dying(&r, PLACE_RESUMED, NULL);

    /* it has restored all, and dies, again and again; then its custodian does, too */
    assert_int_equal(unit_stop(&r.u, "restart"), 0);
    let_die(true);
    unit_spawn(&r.u, dying);
    wait_until(house_times_logged(&r.h, "die: RESUMED") >= 3, 20000);
    assert_int_equal(kill(r.u.pid, SIGKILL), 0);
    assert_int_equal(waitpid(r.u.pid, NULL, 0), r.u.pid);

    /* one that does not even begin, and one that is told to restart before it is ready */
    int status;
    unit_spawn(&r.u, "/bin/false");
    assert_int_equal(waitpid(r.u.pid, &status, 0), r.u.pid);
    unit_spawn(&r.u, dying);
    wait_until(house_times_logged(&r.h, "die: RESUMED") >= 6, 20000);
    atomic_store(&r.u.job, "restart");
    assert_int_equal(kill(r.u.pid, SIGTERM), 0);
    let_die(false);
    assert_int_equal(waitpid(r.u.pid, &status, 0), r.u.pid);
    assert_int_equal(status, 0);
    atomic_store(&r.u.job, "");

    /* and one that dies when it has taken it, before it is ready: its successor takes that up */
    die_at(PLACE_TAKEN, NULL);
    let_die(true);
    unit_spawn(&r.u, dying);
    wait_until(house_logged(&r.h, "die: TAKEN"), 20000);
    let_die(false);
    unit_wait_ready(&r.u);
    expect_it_goes_on(&r);
    rig_close(&r);
}

static void what_kills_each_that_follows_is_let_go_with_1012(void **state)
{
    (void)state;
    struct rig r;
    rig_open_dying(&r, PLACE_RESUMED, "exit");
    assert_int_equal(unit_stop(&r.u, "restart"), 0);
    let_die(true);
    unit_spawn(&r.u, dying);
    unit_wait_ready(&r.u);
    assert_true(house_logged(&r.h, "killed this process again and again; 1 clients are told"));
    assert_int_equal(expect_close(r.client), 1012);
    let_die(false);
    rig_close(&r);
}

static void one_that_dies_while_it_hands_over_ends_with_1012(void **state)
{
    (void)state;
    static const int places[] = {PLACE_HANDING, PLACE_HANDED};
    for (size_t i = 0; i < 2; i++) {
        struct rig r;
        rig_open_dying(&r, places[i], NULL);
        let_die(true);
        atomic_store(&r.u.job, "restart");
        assert_int_equal(kill(r.u.pid, SIGTERM), 0);
        wait_until(house_logged(&r.h, "die: HAND"), 20000);
        let_die(false);
        assert_int_equal(expect_close(r.client), 1012);
        close(r.client);
        close(r.backend);
        assert_int_equal(waitpid(r.u.pid, NULL, 0), r.u.pid);
        assert_true(house_logged(&r.h, "died before they were handed over"));
        assert_false(atomic_load(&r.u.stored));
        again(&r);
        expect_it_goes_on(&r);
        rig_close(&r);
    }
}

/* ---- what is in the store ---- */

static void what_is_no_parcel_is_thrown_away(void **state)
{
    (void)state;
    struct rig r;
    int box[2];
    rig_open(&r);
    for (int round = 0; round < 2; round++) {
        expect_told(&r, "stop", "stopping;");
        const unsigned removed = atomic_load(&r.u.n_removed);
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, box), 0);
        if (round)
            assert_int_equal(send(box[1], "nonsense", 8, 0), 8);
        unit_keep(&r.u, box[0]);
        close(box[0]);
        close(box[1]);
        again(&r);
        assert_int_equal(house_logged(&r.h, "cannot be taken over: it is no parcel"), round);
        expect_it_goes_on(&r);
        assert_int_equal(atomic_load(&r.u.n_removed), removed + 1);
        assert_false(atomic_load(&r.u.stored));
    }
    rig_close(&r);
}

static void the_end_of_the_store_ends_what_is_in_it(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r);
    assert_int_equal(unit_stop(&r.u, "restart"), 0);
    assert_true(atomic_load(&r.u.stored));
    unit_forget(&r.u); /* as systemctl stop does, of one that cannot be started */
    assert_true(client_closed(r.client, 10000));
    assert_true(client_closed(r.backend, 10000));
    unit_start(&r.u);
    assert_int_equal(status_of(r.h.port, "/live/x"), 101);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(restarts_under_load_lose_nothing),
        cmocka_unit_test(each_state_goes_on),
        cmocka_unit_test(routes_that_are_gone_by_then_end_with_1012),
        cmocka_unit_test(a_stop_and_what_is_not_known_to_be_none_end_with_1012),
        cmocka_unit_test(a_program_that_cannot_follow_ends_with_1012),
        cmocka_unit_test(what_follows_may_die_until_it_goes_on),
        cmocka_unit_test(what_kills_each_that_follows_is_let_go_with_1012),
        cmocka_unit_test(one_that_dies_while_it_hands_over_ends_with_1012),
        cmocka_unit_test(what_is_no_parcel_is_thrown_away),
        cmocka_unit_test(the_end_of_the_store_ends_what_is_in_it),
    };
    signal(SIGHUP, SIG_IGN); /* which polderd sends to what holds the socket */
    release_open(&release);
    snprintf(dying, sizeof dying, "%s/polder-supervisor-dying", release.built);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    release_close(&release);
    return failed;
}
