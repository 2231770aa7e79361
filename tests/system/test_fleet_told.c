/* SPDX-License-Identifier: BSD-2-Clause */
/* Who hears of what another host of a fleet has invalidated: held polls, WebSockets, who invalidates.
 * And what is young enough for a host that hears of nothing. */
#include "fleet_rig.h"
#include "polder/fleet.h"
#include "ws_client.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct backend *backend;
static struct fleet fleet = {.sharing = "shared = true",
                             .routes = "route \"/poll/*\" { upstream = \"u\" cache { } poll { } }\n"
                                       "route \"/events/*\" { websocket { } }\n"};
static _Atomic unsigned version = 1;

static bool answers(struct asked *ask)
{
    char body[32];
    if (!strcmp(ask->method, "POST")) {
        atomic_fetch_add(&version, 1);
        return reply(ask, "HTTP/1.1 204 No Content\r\n\r\n");
    }
    snprintf(body, sizeof body, "%u", atomic_load(&version));
    return reply_ok(ask, "Cache-Control: max-age=300\r\nCache-Tag: t\r\n", body);
}

static unsigned see(int host, const char *path, char etag[64])
{
    struct message m;
    assert_int_equal(fleet_get(&fleet.host[host], path, "", &m), 200);
    const unsigned n = (unsigned)atoi(m.body);
    if (etag)
        snprintf(etag, 64, "%s", field_of(&m, "ETag") ? field_of(&m, "ETag") : "");
    message_free(&m);
    return n;
}

/* A client of that host that has the newest and waits for what is newer. */
static int wait_for_change(int host, const char *path)
{
    char etag[64] = "";
    wait_until(fleet_metric(&fleet.host[host], "polder_poll_held") == 0, 5000);
    wait_until((see(host, path, etag), *etag), 5000);
    const int fd = client_connect(fleet.host[host].port);
    client_send(fd,
                "GET %s HTTP/1.1\r\nHost: example.org\r\nIf-None-Match: %s\r\n"
                "Prefer: wait=60\r\nConnection: close\r\n\r\n",
                path, etag);
    wait_until(fleet_metric(&fleet.host[host], "polder_poll_held") == 1, 5000);
    return fd;
}

static void expect_newest(int fd)
{
    struct message m;
    client_read(fd, &m, false);
    close(fd);
    assert_int_equal(m.status, 200);
    assert_int_equal(atoi(m.body), atomic_load(&version));
    message_free(&m);
}

static void held_polls_hear_of_it(void **state)
{
    (void)state;
    const char *out;
    for (int way = 0; way < 3; way++) {
        int fd[FLEET_HOSTS];
        for (int i = 1; i < FLEET_HOSTS; i++)
            fd[i] = wait_for_change(i, "/poll/a");
        if (way < 2) {
            atomic_fetch_add(&version, 1);
            assert_int_equal(
                ctl(&fleet.host[0], &out, "cache invalidate %s", way ? "--tag t" : "/poll/a"), 0);
        } else {
            fleet_post(&fleet.host[0], "/poll/a");
        }
        for (int i = 1; i < FLEET_HOSTS; i++)
            expect_newest(fd[i]);
    }
}

static void expect_told(int fd, const char *what)
{
    assert_true(read_frame(fd, &frame));
    assert_non_null(strstr(frame.text, "\"invalidated\""));
    assert_non_null(strstr(frame.text, what));
}

static void websockets_hear_of_it(void **state)
{
    (void)state;
    const char *out;
    int fd[FLEET_HOSTS];
    for (int i = 0; i < FLEET_HOSTS; i++) {
        wait_for_supervisor(&fleet.host[i]);
        fd[i] = open_ws(fleet.host[i].port, "/events/x");
        say(fd[i], "{\"type\":\"subscribe\",\"tags\":[\"t\"],\"prefix\":\"/items/\"}");
        expect_text(fd[i], "{\"type\":\"subscribed\"}");
    }
    assert_int_equal(ctl(&fleet.host[0], &out, "cache invalidate --tag t"), 0);
    for (int i = 0; i < FLEET_HOSTS; i++)
        expect_told(fd[i], "\"t\"");
    assert_int_equal(ctl(&fleet.host[1], &out, "cache invalidate --prefix /items/7"), 0);
    for (int i = 0; i < FLEET_HOSTS; i++)
        expect_told(fd[i], "/items/7");
    fleet_post(&fleet.host[2], "/items/9");
    for (int i = 0; i < FLEET_HOSTS; i++)
        expect_told(fd[i], "/items/9");
    assert_int_equal(ctl(&fleet.host[0], &out, "ws broadcast here"), 0);
    assert_int_equal(ctl(&fleet.host[0], &out, "ws broadcast everywhere --fleet"), 0);
    expect_text(fd[0], "here");
    for (int i = 0; i < FLEET_HOSTS; i++) {
        expect_text(fd[i], "everywhere");
        close(fd[i]);
    }
}

static void nobody_waits_for_what_is_local(void **state)
{
    (void)state;
    const char *out;
    see(1, "/local", NULL);
    atomic_fetch_add(&version, 1);
    assert_int_equal(ctl(&fleet.host[0], &out, "cache invalidate /local --local"), 0);
    assert_null(strstr(out, "hosts"));
    wait_until(see(1, "/local", NULL) == atomic_load(&version), 5000); /* they hear of it */
}

/* Between two boots of a machine; the other files are of the same one. */
static void change_boot(struct house *h)
{
    char path[200];
    uint8_t first = 0;
    const off_t at = offsetof(struct fleet_page, header.boot_id);
    snprintf(path, sizeof path, "%s/state/fleet.page", h->dir);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, &first, 1, at), 1);
    first ^= 1;
    assert_int_equal(pwrite(fd, &first, 1, at), 1);
    close(fd);
}

static void a_machine_that_boots_again_has_forgotten_nothing(void **state)
{
    (void)state;
    const char *out;
    for (int i = 0; i < FLEET_HOSTS; i++) {
        see(i, "/other", NULL);
        see(i, "/kept", NULL);
        wait_until(fleet_answers(&fleet.host[i], "/kept", "", 200, "hit"), 5000);
    }
    assert_int_equal(house_stop(&fleet.host[2]), 0);
    change_boot(&fleet.host[2]);
    atomic_fetch_add(&version, 1);
    assert_int_equal(ctl(&fleet.host[0], &out, "cache invalidate /other"), 0);
    const unsigned accepted = fleet_number(&fleet.host[0], "accepted");
    house_run(&fleet.host[2]);
    wait_until(fleet_says(&fleet.host[2], "state     member"), 8000);
    assert_int_equal(fleet_number(&fleet.host[2], "gaps"), 0);
    assert_int_equal(fleet_number(&fleet.host[2], "sent"), 0); /* it has nothing to tell */
    assert_int_equal(fleet_number(&fleet.host[0], "accepted"), accepted);
    assert_int_equal(see(2, "/other", NULL), atomic_load(&version));
    for (int i = 0; i < FLEET_HOSTS; i++)
        assert_true(fleet_answers(&fleet.host[i], "/kept", "", 200, "hit"));
}

static void a_host_that_is_gone_is_named(void **state)
{
    (void)state;
    const char *out;
    house_kill(&fleet.host[2]);
    const uint64_t began = mono_ms();
    assert_int_equal(ctl(&fleet.host[0], &out, "cache invalidate /a"), 0);
    assert_true(mono_ms() - began < harness_patience(4000));
    assert_non_null(strstr(out, "hosts        1"));
    assert_non_null(strstr(out, "not reached  h2"));
    house_run(&fleet.host[2]);
    wait_until(fleet_says(&fleet.host[2], "state     member"), 8000);
    assert_int_equal(ctl(&fleet.host[0], &out, "cache invalidate /a"), 0);
    assert_null(strstr(out, "not reached"));
}

static void without_a_store_a_minute_is_the_most(void **state)
{
    (void)state;
    const unsigned old = atomic_load(&version);
    see(1, "/minute", NULL);
    wait_until(fleet_answers(&fleet.host[1], "/minute", "", 200, "hit"), 5000);
    redis_kill(&fleet.redis);
    wait_until(fleet_says(&fleet.host[1], "state     cut off"), 8000);
    atomic_fetch_add(&version, 1);
    assert_int_equal(see(1, "/minute", NULL), old);
    house_advance(&fleet.host[1], 60000);
    wait_until(see(1, "/minute", NULL) == old + 1, 5000);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(held_polls_hear_of_it),
        cmocka_unit_test(websockets_hear_of_it),
        cmocka_unit_test(nobody_waits_for_what_is_local),
        cmocka_unit_test(a_machine_that_boots_again_has_forgotten_nothing),
        cmocka_unit_test(a_host_that_is_gone_is_named),
        cmocka_unit_test(without_a_store_a_minute_is_the_most),
    };
    return run_with_fleet(stories, &fleet, &backend, answers, NULL);
}
