/* SPDX-License-Identifier: BSD-2-Clause */
/* A line of the access log for each WebSocket at its end, and for each upgrade that is refused. */
#include "access_lines.h"
#include "harness.h"
#include "ws_client.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct scripted b;

static void start(struct house *h, const char *websocket)
{
    scripted_open(&b);
    house_start(h, 1,
                "access_log = \"json:%s\"\nwebsocket { heartbeat = off %s }\n"
                "limit \"few\" { requests = 50 window = 1h }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } timeout = 1s }\n"
                "upstream \"gone\" { server \"127.0.0.1:%u\" { } connect_timeout = 500ms }\n"
                "route \"/ws/*\" { upstream = u websocket { } limits = {few} }\n"
                "route \"/gone/*\" { upstream = gone websocket { } }\n"
                "route \"/picky/*\" { upstream = u websocket { origins = {\"https://o\"} } }\n"
                "route \"/events\" { websocket { } }\n",
                access_path, websocket, b.port, free_port());
    wait_for_supervisor(h);
}

static void expect_id(const char *line, const struct message *m)
{
    char id[256];
    access_member(line, "request_id", id);
    assert_int_equal(strlen(id), 24);
    assert_non_null(field_of(m, "X-Request-Id"));
    assert_string_equal(field_of(m, "X-Request-Id"), id);
}

static void a_websocket_has_a_line_at_its_end(void **state)
{
    (void)state;
    struct house h;
    char text[64];
    int client;
    start(&h, "");
    const int backend = scripted_agree(&b, &client, h.port, "/ws/one?q=1", "");
    say(client, "one");
    say(client, "two");
    send(backend, "\x81\x05hello", 7, 0);
    expect_text(client, "hello");
    assert_int_equal(access_lines(), 0); /* it is not over */
    send_frame(client, 0x88,
               "\x03\xe9"
               "bye",
               5); /* 1001 */
    nap_ms(20);
    send(backend, "\x88\x02\x03\xe9", 4, 0);
    expect_close(client);
    close(client);
    close(backend);
    const char *line = the_line("\"target\":\"/ws/one?q=1\"");
    assert_int_equal(access_number(line, "status"), 101);
    assert_int_equal(access_number(line, "messages_in"), 2);
    assert_int_equal(access_number(line, "messages_out"), 1);
    assert_int_equal(access_number(line, "close_code"), 1001);
    assert_int_equal(access_number(line, "bytes"), 7 + 4);
    assert_true(access_number(line, "ms") >= 20);
    assert_int_equal(access_number(line, "us"), -1);
    assert_non_null(strstr(line, "\"reason\":\"client-closed\""));
    assert_non_null(strstr(line, "\"client\":\"127.0.0.1\",\"method\":\"GET\""));
    assert_non_null(strstr(line, "\"route\":\"/ws/*\""));
    snprintf(text, sizeof text, "\"upstream\":\"127.0.0.1:%u\",\"upstream_us\":", b.port);
    assert_non_null(strstr(line, text));
    char id[256];
    access_member(line, "request_id", id);
    assert_non_null(strstr(b.head, id)); /* the backend's too */

    scripted_agree(&b, &client, h.port, "/ws/lost", "");
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(client);
    line = the_line("/ws/lost");
    assert_non_null(strstr(line, "\"reason\":\"client-lost\""));
    assert_int_equal(access_number(line, "close_code"), -1);

    const int other = scripted_agree(&b, &client, h.port, "/ws/backend-lost", "");
    close(other);
    assert_int_equal(expect_close(client), 1011);
    close(client);
    line = the_line("/ws/backend-lost");
    assert_non_null(strstr(line, "\"reason\":\"backend-lost\""));
    assert_int_equal(access_number(line, "close_code"), 1011);
    assert_int_equal(access_lines(), 3);
    house_remove(&h);
    close(b.fd);
}

/* Of its handshake nothing is known any more. */
static void one_whose_process_has_died_has_what_is_known(void **state)
{
    (void)state;
    struct house h;
    int client;
    unsigned char got[6 + 3];
    start(&h, "");
    const int backend = scripted_agree(&b, &client, h.port, "/ws/one?q=1", "");
    const pid_t pid = supervisor_of(&h);
    say(client, "one");
    assert_true(take(backend, got, sizeof got));
    for (int i = 0; i < 2; i++) {
        const unsigned before = house_times_logged(&h, "taken up ");
        kill(working_process(pid), SIGKILL);
        wait_until(house_times_logged(&h, "taken up ") > before, 10000);
    }
    say(client, "two");
    assert_true(take(backend, got, sizeof got));
    send_frame(client, 0x88, "\x03\xe9", 2);
    send(backend, "\x88\x02\x03\xe9", 4, 0);
    expect_close(client);
    close(client);
    close(backend);
    const char *line = the_line("\"route\":\"/ws/*\"");
    assert_int_equal(access_number(line, "status"), 101);
    assert_int_equal(access_number(line, "messages_in"), 2);
    assert_int_equal(access_number(line, "close_code"), 1001);
    assert_non_null(strstr(line, "\"client\":\"127.0.0.1\""));
    assert_null(strstr(line, "target"));
    assert_int_equal(access_lines(), 1);
    house_remove(&h);
    close(b.fd);
}

static void a_websocket_of_polders_own_has_one_too(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, "");
    const int fd = ask(h.port, "/events", "User-Agent: listener\r\n", &m);
    assert_int_equal(m.status, 101);
    send_frame(fd, 0x88, "\x03\xe8", 2);
    assert_int_equal(expect_close(fd), 1000);
    close(fd);
    const char *line = the_line("\"target\":\"/events\"");
    assert_int_equal(access_number(line, "status"), 101);
    assert_int_equal(access_number(line, "close_code"), 1000);
    assert_non_null(strstr(line, "\"user_agent\":\"listener\""));
    assert_null(strstr(line, "\"upstream\""));
    expect_id(line, &m);
    message_free(&m);
    house_remove(&h);
    close(b.fd);
}

static void an_upgrade_that_is_refused_has_a_line(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    int client;
    start(&h, "max_connections = 1");
    close(ask(h.port, "/gone/x", "", &m)); /* nobody listens */
    assert_int_equal(m.status, 502);
    const char *line = the_line("/gone/x");
    assert_int_equal(access_number(line, "status"), 502);
    assert_int_equal(access_number(line, "bytes"), (long)m.body_len);
    assert_non_null(strstr(line, "\"upstream\":\"127.0.0.1:"));
    expect_id(line, &m);
    message_free(&m);

    close(ask(h.port, "/picky/x", "Origin: https://bad\r\n", &m));
    assert_int_equal(m.status, 403);
    line = the_line("/picky/x");
    assert_int_equal(access_number(line, "bytes"), (long)m.body_len);
    expect_id(line, &m);
    message_free(&m);

    const int asked = ask_only(h.port, "/ws/forbidden", "");
    close(scripted_answer(&b,
                          "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n"
                          "X-Request-Id: the-backends\r\n\r\nnope",
                          -1 + (int)sizeof "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n"
                                           "X-Request-Id: the-backends\r\n\r\nnope"));
    client_read(asked, &m, false);
    assert_int_equal(m.status, 403);
    close(asked);
    line = the_line("/ws/forbidden");
    assert_int_equal(access_number(line, "status"), 403);
    assert_int_equal(access_number(line, "bytes"), 4);
    assert_true(access_number(line, "us") > 0);
    expect_id(line, &m);
    message_free(&m);

    const int silent = ask_only(h.port, "/ws/silent", ""); /* never answered */
    client_read(silent, &m, false);
    assert_int_equal(m.status, 504);
    close(silent);
    assert_int_equal(access_number(the_line("/ws/silent"), "status"), 504);
    message_free(&m);

    const int gone = ask_only(h.port, "/ws/left", ""); /* leaves while the backend thinks */
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    nap_ms(50);
    setsockopt(gone, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(gone);
    assert_int_equal(access_number(the_line("/ws/left"), "status"), 499);
    house_remove(&h);
    close(b.fd);
    unlink(access_path);

    start(&h, "max_connections = 1");
    const int backend = scripted_agree(&b, &client, h.port, "/ws/kept", "");
    close(ask(h.port, "/ws/refused", "", &m));
    assert_int_equal(m.status, 503);
    line = the_line("/ws/refused");
    assert_int_equal(access_number(line, "status"), 503);
    assert_int_equal(access_number(line, "bytes"), (long)m.body_len);
    assert_non_null(strstr(line, "\"limit\":\"websocket.max_"));
    expect_id(line, &m);
    message_free(&m);
    close(client);
    close(backend);
    house_remove(&h);
    close(b.fd);
}

static void the_supervisor_changes_over_to_the_new_file(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    int client;
    start(&h, "");
    const int backend = scripted_agree(&b, &client, h.port, "/ws/long", "");
    assert_int_equal(rename(access_path, access_rotated), 0);
    assert_int_equal(ctl(&h, &out, "log reopen"), 0);
    assert_non_null(strstr(out, "supervisor"));
    assert_non_null(strstr(out, "reopened"));
    close(client);
    the_line("/ws/long"); /* in the new one */
    close(backend);
    assert_int_equal(rename(access_path, access_rotated), 0);
    kill(supervisor_of(&h), SIGUSR1); /* it has a signal of its own */
    wait_until(access(access_path, F_OK) == 0, 10000);
    house_remove(&h);
    close(b.fd);
}

static void a_drain_is_told_in_each_line(void **state)
{
    (void)state;
    struct house h;
    int client;
    start(&h, "");
    const int backend = scripted_agree(&b, &client, h.port, "/ws/drained", "");
    kill(h.pid, SIGTERM);
    assert_int_equal(expect_close(client), 1012);
    send_frame(client, 0x88, "\x03\xf4", 2);
    close(client);
    close(backend);
    const char *line = the_line("/ws/drained");
    assert_non_null(strstr(line, "\"reason\":\"drain\""));
    assert_int_equal(access_number(line, "close_code"), 1012);
    house_remove(&h);
    close(b.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define STORY(f) cmocka_unit_test_setup_teardown(f, access_set_up, access_tear_down)
        STORY(a_websocket_has_a_line_at_its_end),
        STORY(one_whose_process_has_died_has_what_is_known),
        STORY(a_websocket_of_polders_own_has_one_too),
        STORY(an_upgrade_that_is_refused_has_a_line),
        STORY(the_supervisor_changes_over_to_the_new_file),
        STORY(a_drain_is_told_in_each_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
