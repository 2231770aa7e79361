/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of what an operator does to a running service: reload, drain, stop. */
#include "harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct backend *backend;

static bool answers(struct asked *a)
{
    return reply_ok(a, "", a->target);
}

static const char *routes(void)
{
    static char text[512];
    snprintf(text, sizeof text,
             "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
             "limit \"kept\" { requests = 100 window = 60s key = \"client\" }\n"
             "limit \"lost\" { requests = 100 window = 60s key = \"client\" }\n"
             "route \"/*\" { upstream = \"u\" cache { } limits = {\"kept\", \"lost\"} }\n",
             backend_port(backend));
    return text;
}

/* ---- reload ---- */

static void a_reload_waits_and_fails_on_a_broken_file(void **state)
{
    struct house h;
    const char *out;
    char broken[700];
    (void)state;
    house_start(&h, 1, "%s", routes());
    assert_int_equal(ctl(&h, &out, "reload"), 0);
    assert_non_null(strstr(out, "reloaded    yes"));
    assert_non_null(strstr(out, "generation  2"));
    snprintf(broken, sizeof broken, "%snonsense = 1\n", routes());
    house_write_conf(&h, 1, broken);
    assert_int_equal(ctl(&h, &out, "reload"), 1);
    assert_non_null(strstr(out, "nonsense"));
    assert_int_equal(ctl(&h, &out, "reload --no-wait"), 0); /* asked for, no more */
    assert_non_null(strstr(out, "asked  yes"));
    assert_int_equal(get(h.port, "/x", NULL), 200);
    house_remove(&h);
}

static void a_reload_says_what_it_keeps_and_what_it_resets(void **state)
{
    struct house h;
    const char *out;
    (void)state;
    house_start(&h, 1, "%s", routes());
    assert_int_equal(ctl(&h, NULL, "limit set kept requests=50 --persist"), 0);
    assert_int_equal(ctl(&h, NULL, "limit set lost requests=60 window=30s"), 0);
    assert_int_equal(ctl(&h, NULL, "upstream weight u 127.0.0.1:%u 7", backend_port(backend)), 0);
    assert_int_equal(ctl(&h, NULL, "cache set ttl=10s"), 0);
    assert_int_equal(ctl(&h, &out, "--json reload"), 0);
    char *kept = strstr(out, "\"kept\""), *reset = strstr(out, "\"reset\"");
    assert_non_null(kept);
    assert_non_null(reset);
    assert_non_null(strstr(kept, "limit kept requests 50"));
    assert_true(strstr(kept, "limit kept requests 50") < reset);
    assert_non_null(strstr(reset, "limit lost requests 60 -> 100"));
    assert_non_null(strstr(reset, "limit lost window_ms 30000 -> 60000"));
    assert_non_null(strstr(reset, "weight 7 -> 100"));
    assert_non_null(strstr(reset, "cache ttl_ms 10000 -> "));
    assert_null(strstr(out, "dry_run"));
    assert_true(house_logged(&h, "reload: kept limit kept requests 50"));
    assert_true(house_logged(&h, "reload: reset limit lost requests 60 -> 100: "));
    assert_int_equal(ctl(&h, &out, "--json reload"), 0); /* the second has nothing to reset */
    assert_non_null(strstr(out, "\"reset\": []"));
    assert_non_null(strstr(out, "limit kept requests 50"));
    house_remove(&h);
}

/* A region that keeper and control have left is free at once: it was rested for 10 s each. */
static void many_reloads_in_a_row_do_not_wait_for_each_other(void **state)
{
    struct house h;
    (void)state;
    house_start(&h, 1, "%s", routes());
    for (unsigned i = 0; i < 8; i++) {
        const uint64_t began = mono_ms();
        assert_int_equal(ctl(&h, NULL, "reload"), 0);
        assert_true(mono_ms() - began < 5000);
    }
    assert_int_equal(get(h.port, "/x", NULL), 200);
    house_remove(&h);
}

/* ---- limit top ---- */

static void a_few_requests_are_counted_exactly(void **state)
{
    struct house h;
    const char *out;
    (void)state;
    house_start(&h, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"few\" { requests = 3 window = 1h key = \"client\" }\n"
                "route \"/*\" { upstream = \"u\" cache { } limits = {\"few\"} }\n",
                backend_port(backend));
    const int fd = client_connect(h.port);
    for (unsigned i = 0; i < 7; i++) {
        struct message m;
        client_send(fd, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        client_read(fd, &m, false);
        assert_int_equal(m.status, i < 3 ? 200 : 429);
        message_free(&m);
    }
    close(fd);
    assert_int_equal(ctl(&h, &out, "--json limit top few"), 0);
    char *heaviest = strstr(out, "\"heaviest\""), *refused = strstr(out, "\"refused\"");
    assert_non_null(heaviest);
    assert_non_null(refused);
    assert_int_equal(atoi(strstr(heaviest, "\"requests\": ") + 12), 7);
    assert_int_equal(atoi(strstr(refused, "\"requests\": ") + 12), 4);
    assert_int_equal(atoi(strstr(refused, "\"error\": ") + 9), 0);
    house_remove(&h);
}

/* ---- drain and stop ---- */

static bool is_kept_open(struct house *h)
{
    struct message m;
    const int fd = client_connect(h->port);
    client_send(fd, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    client_read(fd, &m, false);
    const bool keeps = field_of(&m, "connection") == NULL;
    message_free(&m);
    close(fd);
    return keeps;
}

static void drain_sends_clients_elsewhere_until_it_is_off(void **state)
{
    struct house h;
    struct message m;
    const char *out;
    (void)state;
    house_start(&h, 2, "%s", routes());
    const int fd = client_connect(h.port);
    client_send(fd, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    client_read(fd, &m, false);
    assert_null(field_of(&m, "connection"));
    message_free(&m);
    assert_int_equal(ctl(&h, &out, "drain"), 0);
    assert_true(client_closed(fd, 8000)); /* it was idle */
    close(fd);
    assert_int_equal(get(h.ops_port, "/readyz", &m), 503);
    assert_non_null(strstr(m.body, "draining: "));
    message_free(&m);
    for (unsigned i = 0; i < 4; i++) { /* who comes all the same is served, and then sent away */
        const int late = client_connect(h.port);
        client_send(late, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        client_read(late, &m, false);
        assert_int_equal(m.status, 200);
        assert_string_equal(field_of(&m, "connection"), "close");
        message_free(&m);
        close(late);
    }
    assert_int_equal(ctl(&h, NULL, "reload"), 0); /* changes nothing of it */
    assert_int_equal(get(h.ops_port, "/readyz", NULL), 503);
    assert_int_equal(ctl(&h, &out, "--json status"), 0);
    assert_non_null(strstr(out, "\"drained\": true"));
    assert_int_equal(kill(h.pid, 0), 0);
    assert_int_equal(ctl(&h, &out, "drain --off"), 0);
    assert_int_equal(get(h.ops_port, "/readyz", NULL), 200);
    wait_until(is_kept_open(&h), 5000); /* workers look within a second, if nothing wakes them */
    house_remove(&h);
}

static void stop_under_systemd_says_what_stops_it(void **state)
{
    struct house h;
    const char *out;
    int status;
    (void)state;
    setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
    house_start(&h, 1, "%s", routes());
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(ctl(&h, &out, "stop"), 1);
    assert_non_null(strstr(out, "systemctl stop polder.service"));
    assert_int_equal(get(h.port, "/x", NULL), 200);
    assert_int_equal(waitpid(h.pid, &status, WNOHANG), 0);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reload_waits_and_fails_on_a_broken_file),
        cmocka_unit_test(a_reload_says_what_it_keeps_and_what_it_resets),
        cmocka_unit_test(many_reloads_in_a_row_do_not_wait_for_each_other),
        cmocka_unit_test(a_few_requests_are_counted_exactly),
        cmocka_unit_test(drain_sends_clients_elsewhere_until_it_is_off),
        cmocka_unit_test(stop_under_systemd_says_what_stops_it),
    };
    return run_with_backend(tests, &backend, answers);
}
