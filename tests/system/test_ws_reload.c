/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of WebSockets over reloads, restarts of polderd and a stop of their supervisor. */
#include "ws_client.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void conf_of(char *text, size_t size, const struct scripted *b, const char *rest)
{
    snprintf(text, size,
             "upstream \"u\" { timeout = 1h\n server \"127.0.0.1:%u\" { } }\n"
             "route \"/ws/*\" { upstream = \"u\" websocket { heartbeat = off } }\n%.200s",
             b->port, rest);
}

static void start(struct house *h, struct scripted *b)
{
    char text[1024];
    scripted_open(b);
    conf_of(text, sizeof text, b, "");
    house_start(h, 1, "%s", text);
    wait_for_supervisor(h);
}

/* The handshake has reached the backend; that agrees after three reloads. */
static void a_waiting_handshake_and_an_open_websocket_notice_no_reload(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    struct message m;
    const char *out;
    int open_client;
    char text[1024];
    start(&h, &b);
    const int open_backend = scripted_agree(&b, &open_client, h.port, "/ws/open", "");
    const int client = ask_only(h.port, "/ws/waits", ""), backend = scripted_accept(&b);
    for (unsigned i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "route \"/other%u\" { websocket { } }\n", i);
        char conf[1024];
        conf_of(conf, sizeof conf, &b, text);
        house_write_conf(&h, 1, conf);
        assert_int_equal(ctl(&h, &out, "reload"), 0);
        wait_until(house_times_logged(&h, "config: read again") == i + 1, 10000);
    }
    client_send(backend, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                         "Connection: Upgrade\r\nSec-WebSocket-Accept: " WS_ACCEPT "\r\n\r\n");
    client_read(client, &m, true);
    assert_int_equal(m.status, 101);
    message_free(&m);
    client_send_bytes(backend, "\x81\x02hi", 4);
    expect_text(client, "hi");
    client_send_bytes(open_backend, "\x81\x05still", 7);
    expect_text(open_client, "still");
    close(client);
    close(backend);
    close(open_client);
    close(open_backend);
    close(b.fd);
    house_remove(&h);
}

/* A handshake goes to one of the two. */
static bool goes_to(struct house *h, struct scripted *one, struct scripted *other)
{
    const int client = ask_only(h->port, "/ws/x", "");
    struct pollfd p[2] = {{one->fd, POLLIN, 0}, {other->fd, POLLIN, 0}};
    const int n = poll(p, 2, (int)harness_patience(2000)); /* 0: there is no supervisor just now */
    const bool yes = p[0].revents != 0;
    if (n > 0)
        close(scripted_accept(yes ? one : other));
    close(client);
    return yes;
}

/* Weights that were set while running, and a polderd that knows nothing of them any more. */
static void a_found_supervisor_takes_the_weights_of_the_new_polderd(void **state)
{
    (void)state;
    struct house h;
    struct scripted blue, green;
    const char *out;
    char conf[1024];
    scripted_open(&blue);
    scripted_open(&green);
    snprintf(conf, sizeof conf,
             "upstream \"u\" { server \"127.0.0.1:%u\" { weight = 1 }\n"
             "server \"127.0.0.1:%u\" { weight = 0 } }\n"
             "route \"/ws/*\" { upstream = \"u\" websocket { heartbeat = off } }\n",
             blue.port, green.port);
    house_start(&h, 1, "%s", conf);
    wait_for_supervisor(&h);
    assert_int_equal(ctl(&h, &out, "upstream weight u 127.0.0.1:%u 1", green.port), 0);
    assert_int_equal(ctl(&h, &out, "upstream weight u 127.0.0.1:%u 0", blue.port), 0);
    wait_until(goes_to(&h, &green, &blue), 10000); /* it is told, and not waited for */
    house_write_conf(&h, 1, conf);                 /* a reload for nothing leaves them with green */
    assert_int_equal(ctl(&h, &out, "reload"), 0);
    wait_until(house_times_logged(&h, "config: read again") == 1, 10000);
    assert_true(goes_to(&h, &green, &blue));
    /* another supervisor is told of them */
    const pid_t supervisor = supervisor_of(&h);
    pid_t pid;
    kill(supervisor, SIGKILL);
    wait_until(house_children(&h, "polder-supervisor", &pid, 1) == 1 && pid != supervisor, 10000);
    wait_until(goes_to(&h, &green, &blue), 20000);
    house_kill(&h); /* and the file's are right for all, where nothing was made permanent */
    house_run(&h);
    wait_until(house_times_logged(&h, "config: read again") == 2, 10000);
    wait_until(goes_to(&h, &blue, &green), 20000);
    close(blue.fd);
    close(green.fd);
    house_remove(&h);
}

static int check_file(struct house *h, pid_t of, const char *errors)
{
    char pid[16];
    int status;
    snprintf(pid, sizeof pid, "%d", (int)of);
    const pid_t child = fork();
    if (child == 0) {
        setenv("MAINPID", pid, 1);
        if (!freopen(errors, "w", stderr))
            _exit(126);
        execl(built("polder-supervisor"), "polder-supervisor", "-t", "-c", h->conf, (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WEXITSTATUS(status);
}

static void a_reload_to_another_runtime_dir_is_refused_by_both(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    const char *out;
    char text[2048], errors[200], was[2048] = "";
    start(&h, &b);
    const pid_t supervisor = supervisor_of(&h);
    snprintf(errors, sizeof errors, "%s/errors", h.dir);
    assert_int_equal(check_file(&h, supervisor, errors), 0);
    FILE *f = fopen(h.conf, "r");
    assert_non_null(f);
    was[fread(was, 1, sizeof was - 1, f)] = 0;
    fclose(f);
    char *at = strstr(was, "/run\"");
    assert_non_null(at);
    memcpy(at, "/rum\"", 5);
    f = fopen(h.conf, "w");
    fputs(was, f);
    fclose(f);
    assert_int_equal(check_file(&h, supervisor, errors), 2);
    f = fopen(errors, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    assert_non_null(strstr(text, "runtime_dir cannot change by a reload"));
    kill(supervisor, SIGHUP);
    wait_until(house_logged(&h, "runtime_dir cannot change while polder-supervisor runs"), 10000);
    assert_int_equal(ctl(&h, &out, "reload"), 1);
    assert_non_null(strstr(out, "runtime_dir cannot change while Polder runs"));
    close(b.fd);
    house_remove(&h);
}

/* A stop: what was sent before the close frame gets to a client that reads slowly, and the frame. */
static void a_stop_delivers_what_was_sent_while_it_is_read(void **state)
{
    (void)state;
    struct house h;
    struct scripted b;
    static char block[65536];
    enum { BLOCKS = 160 };
    int client;
    start(&h, &b);
    const int backend = scripted_agree(&b, &client, h.port, "/ws/x", "");
    static const unsigned char head[] = {0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0};
    const pid_t writer = fork();
    if (writer == 0) { /* it fills all buffers */
        alarm(30);
        for (int i = 0; i < BLOCKS; i++) {
            client_send_bytes(backend, head, sizeof head);
            client_send_bytes(backend, block, sizeof block);
        }
        pause();
    }
    nap_ms(300);
    kill(supervisor_of(&h), SIGTERM);
    wait_until(house_logged(&h, "told to reconnect"), 10000);
    unsigned blocks = 0, code = 0;
    const uint64_t until_ms = mono_ms() + harness_patience(14000);
    while (mono_ms() < until_ms) {
        unsigned char h2[10];
        assert_true(take(client, h2, 2));
        if (h2[0] == 0x88) {
            assert_true(take(client, block, h2[1] & 127));
            code = (unsigned)(unsigned char)block[0] << 8 | (unsigned char)block[1];
            break;
        }
        assert_true(take(client, h2 + 2, 8));
        assert_true(take(client, block, sizeof block));
        if (++blocks % 20 == 0)
            nap_ms(300);
    }
    print_message("%u messages, then %u\n", blocks, code);
    assert_int_equal(code, 1012);
    kill(writer, SIGKILL);
    waitpid(writer, NULL, 0);
    close(client);
    close(backend);
    close(b.fd);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(a_waiting_handshake_and_an_open_websocket_notice_no_reload),
        cmocka_unit_test(a_found_supervisor_takes_the_weights_of_the_new_polderd),
        cmocka_unit_test(a_reload_to_another_runtime_dir_is_refused_by_both),
        cmocka_unit_test(a_stop_delivers_what_was_sent_while_it_is_read),
    };
    return cmocka_run_group_tests(stories, NULL, NULL);
}
