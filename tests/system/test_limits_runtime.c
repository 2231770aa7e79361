/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of limits that are changed, tried and watched while they run. */
#include "harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct backend *backend;

static bool answers(struct asked *a)
{
    return reply_ok(a, "Cache-Control: max-age=60\r\n", "ok");
}

static int set_up(void **state)
{
    (void)state;
    backend = backend_start(answers, NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    backend_stop(backend);
    return 0;
}

/* ---- whom a limit exempts ---- */

static void start_keyed(struct house *h, unsigned workers, const char *more)
{
    house_start(h, workers,
                "trusted_proxies = {\"127.0.0.0/8\"}\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"status\" { requests = 3 window = \"60s\" key = \"header:x-key\" %s }\n"
                "route \"/*\" { upstream = \"u\" limits = {\"status\"} cache { } }\n",
                backend_port(backend), more);
}

/* A connection of its own, whose requests are all alike: from the third on its memo answers. */
struct poller {
    int fd;
    const char *lines;
};

static void poller_open(struct poller *p, struct house *h, const char *lines)
{
    p->fd = client_connect(h->port);
    p->lines = lines;
}

static int poll_once(struct poller *p)
{
    struct message m;
    client_send(p->fd, "GET /x HTTP/1.1\r\nHost: h\r\n%s\r\n", p->lines);
    client_read(p->fd, &m, false);
    const int status = m.status;
    message_free(&m);
    return status;
}

static unsigned polled(struct poller *p, unsigned n)
{
    unsigned ok = 0;
    for (unsigned i = 0; i < n; i++)
        ok += poll_once(p) == 200;
    return ok;
}

static void who_is_exempt_changes_for_the_next_request_on_open_connections(void **state)
{
    (void)state;
    struct house h;
    struct poller partner[4], network[4], other;
    start_keyed(&h, 4, "exempt = {\"198.51.100.0/24\"}");
    poller_open(&other, &h, "X-Key: other\r\n");
    assert_int_equal(polled(&other, 5), 3);
    for (int i = 0; i < 4; i++) {
        poller_open(&partner[i], &h, "X-Key: partner\r\n");
        poller_open(&network[i], &h, "X-Key: net\r\nX-Forwarded-For: 198.51.100.7\r\n");
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(polled(&partner[i], 5), i == 0 ? 3 : 0);
        assert_int_equal(polled(&network[i], 5), 5);
    }
    assert_int_equal(ctl(&h, NULL, "limit set status exempt=192.0.2.0/24,partner"), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(polled(&partner[i], 5), 5);
        assert_int_equal(polled(&network[i], 5), i == 0 ? 3 : 0);
    }
    assert_int_equal(polled(&other, 2), 0); /* counts are kept */
    assert_int_equal(ctl(&h, NULL, "limit set status exempt="), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(polled(&partner[i], 2), 0);
    assert_int_equal(ctl(&h, NULL, "limit set status requests=5"), 0); /* is not the file's list */
    assert_int_equal(polled(&network[0], 5), 2);
    for (int i = 0; i < 4; i++) {
        close(partner[i].fd);
        close(network[i].fd);
    }
    close(other.fd);
    house_remove(&h);
}

static bool exempts(struct house *h, const char *want)
{
    const char *out;
    char text[256];
    assert_int_equal(ctl(h, &out, "--json limit show status"), 0);
    const char *list = strstr(out, "\"exempt\": [");
    assert_non_null(list);
    size_t n = 0;
    for (list += 11; *list != ']' && n + 1 < sizeof text; list++)
        if (*list != ' ' && *list != '\n' && *list != '"')
            text[n++] = *list;
    text[n] = 0;
    return !strcmp(text, want);
}

static void who_is_exempt_is_tried_persisted_and_shown(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    pid_t control;
    start_keyed(&h, 2, "exempt = {\"198.51.100.0/24\", \"old\"}");
    assert_true(exempts(&h, "198.51.100.0/24,old"));
    assert_int_equal(ctl(&h, &out, "limit set status exempt=10.0.0.0/33"), 2);
    assert_non_null(strstr(out, "\"10.0.0.0/33\" is wrong; a network such as"));
    assert_int_equal(ctl(&h, &out, "limit set status exempt=10.0.0"), 2);
    assert_int_equal(ctl(&h, &out, "limit set status exempt=a,::/129,b"), 2);
    assert_non_null(strstr(out, "\"::/129\""));
    assert_int_equal(ctl(&h, &out, "limit set status exempt=a,,b"), 2);
    assert_true(exempts(&h, "198.51.100.0/24,old"));
    /* nobody confirms: the file's, though control dies meanwhile */
    assert_int_equal(ctl(&h, &out, "limit set status exempt=one --confirm-within 2s"), 0);
    assert_int_equal(ctl(&h, &out, "limit set status exempt=two --confirm-within 2s"), 0);
    assert_int_equal(ctl(&h, &out, "limit set status exempt=three --confirm-within 2s"), 0);
    assert_true(exempts(&h, "three"));
    assert_int_equal(house_children(&h, "polderd: control", &control, 1), 1);
    kill(control, SIGKILL);
    wait_until(ctl(&h, &out, "status") == 0, 5000);
    wait_until(exempts(&h, "198.51.100.0/24,old"), 8000);
    /* the list from before, where that was not the file's */
    assert_int_equal(ctl(&h, &out, "limit set status exempt=kept"), 0);
    assert_int_equal(ctl(&h, &out, "limit set status exempt=one --confirm-within 1s"), 0);
    assert_int_equal(ctl(&h, &out, "limit set status exempt=two --confirm-within 1s"), 0);
    wait_until(exempts(&h, "kept"), 8000);
    assert_int_equal(ctl(&h, &out, "limit list"), 0);
    assert_non_null(strstr(out, "kept (file: 198.51.100.0/24, old)"));
    assert_int_equal(ctl(&h, &out, "limit set status exempt=10.0.0.0/8,always --persist"), 0);
    assert_non_null(strstr(out, "exempt: kept -> 10.0.0.0/8, always"));
    assert_false(house_logged(&h, "always")); /* may be a secret */
    assert_int_equal(ctl(&h, &out, "limit set status exempt=not-for-long"), 0);
    assert_int_equal(ctl(&h, &out, "reload --wait"), 0);
    wait_until(exempts(&h, "10.0.0.0/8,always"), 5000);
    assert_int_equal(house_stop(&h), 0);
    house_run(&h);
    assert_true(exempts(&h, "10.0.0.0/8,always"));
    for (int i = 0; i < 5; i++) {
        assert_int_equal(get_with(h.port, "/y", "X-Key: always\r\n", NULL), 200);
        assert_int_equal(get_with(h.port, "/y", "X-Key: other\r\n", NULL), i < 3 ? 200 : 429);
    }
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_exempt_changes_for_the_next_request_on_open_connections),
        cmocka_unit_test(who_is_exempt_is_tried_persisted_and_shown),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
