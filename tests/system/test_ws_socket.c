/* SPDX-License-Identifier: BSD-2-Clause */
/* polder-supervisor on a socket that another process holds, as systemd does: handshakes wait while it
 * is away. */
#include "ws_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char routes[] = "route \"/live/*\" { websocket { } }\n";

static int hold(const struct house *h, int type)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    snprintf(sa.sun_path, sizeof sa.sun_path, "%.80s/run/supervisor.sock", h->dir);
    unlink(sa.sun_path);
    const int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(fd, 128), 0);
    return fd;
}

static pid_t start(const struct house *h, int held, int n)
{
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char number[16], sockets[16];
        const int log = open(h->log, O_WRONLY | O_APPEND);
        snprintf(number, sizeof number, "%d", (int)getpid());
        snprintf(sockets, sizeof sockets, "%d", n);
        setenv("LISTEN_PID", number, 1);
        setenv("LISTEN_FDS", sockets, 1);
        setenv("POLDER_CLOCK", h->clock, 1);
        if (log < 0 || dup2(log, 2) < 0)
            _exit(126);
        for (int i = 0; i < n; i++)
            if (held == 3 + i ? fcntl(held, F_SETFD, 0) < 0 : dup2(held, 3 + i) < 0)
                _exit(126);
        execl(built("polder-supervisor"), "polder-supervisor", "-c", h->conf, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void expect_waiting_at(int fd, int line)
{
    struct pollfd p = {fd, POLLIN, 0};
    char text[64] = "";
    if (poll(&p, 1, 300) == 0)
        return;
    if (recv(fd, text, sizeof text - 1, 0) < 0)
        snprintf(text, sizeof text, "%s", strerror(errno));
    fail_msg("line %d: it has an answer: %s", line, text);
}
#define expect_waiting(fd) expect_waiting_at(fd, __LINE__)

static void expect_opened(int fd)
{
    struct message m;
    client_read(fd, &m, false);
    assert_int_equal(m.status, 101);
    message_free(&m);
    say(fd, "{}");
    assert_true(read_frame(fd, &frame));
    close(fd);
}

static void house_start_without_supervisor(struct house *h)
{
    setenv("NOTIFY_SOCKET", "@polder-test-nothing", 1); /* then a service manager starts it */
    const char *out;
    house_start(
        h, 1, "upstream \"u\" { server \"127.0.0.1:1\" { } }\nroute \"/*\" { upstream = \"u\" }\n");
    unsetenv("NOTIFY_SOCKET");
    house_write_conf(h, 1, routes); /* it would not be ready without a supervisor */
    assert_int_equal(ctl(h, &out, "reload"), 0);
}

static void handshakes_wait_while_it_is_away(void **state)
{
    (void)state;
    struct house h;
    int status;
    char found[64];
    house_start_without_supervisor(&h);
    const int held = hold(&h, SOCK_SEQPACKET);
    int fd = ask_only(h.port, "/live/x", "");
    expect_waiting(fd);
    pid_t pid = start(&h, held, 1);
    expect_opened(fd);
    assert_int_equal(status_of(h.port, "/live/x"), 101);

    /* it stops, with one WebSocket that has to leave first */
    const int open = open_ws(h.port, "/live/x");
    assert_int_equal(kill(pid, SIGTERM), 0);
    wait_until(house_logged(&h, "stopping;"), 10000);
    fd = ask_only(h.port, "/live/x", "");
    assert_int_equal(expect_close(open), 1012);
    close(open);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    expect_waiting(fd);
    pid = start(&h, held, 1);
    expect_opened(fd);

    /* it is killed; and another program takes its place */
    const pid_t working = working_process(pid);
    snprintf(found, sizeof found, "[%d] was there;", (int)pid);
    wait_until(house_logged(&h, found), 15000); /* polderd sees its end */
    assert_int_equal(kill(pid, SIGKILL), 0);
    wait_until(has_ended(pid) && has_ended(working), 10000);
    fd = ask_only(h.port, "/live/x", "");
    expect_waiting(fd); /* nobody has filled the queue, as long as there is a rest of the process */
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_in_range(house_times_logged(&h, " has ended"), 0, 3);
    pid = start(&h, held, 1);
    expect_opened(fd);
    assert_int_equal(kill(pid, SIGUSR2), 0);
    wait_until(house_logged(&h, "goes on in place of"), 10000);
    assert_int_equal(status_of(h.port, "/live/x"), 101);
    assert_int_equal(kill(pid, SIGTERM), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    fd = ask_only(h.port, "/live/x", ""); /* still not refused: the path was not removed */
    expect_waiting(fd);
    close(fd);
    close(held);
    house_remove(&h);
}

static void expect_no_start(struct house *h, int held, int n)
{
    int status;
    const pid_t pid = start(h, held, n);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

static void sockets_of_the_wrong_kind_or_number_are_said(void **state)
{
    (void)state;
    struct house h;
    house_start_without_supervisor(&h);
    const int stream = hold(&h, SOCK_STREAM);
    expect_no_start(&h, stream, 1);
    assert_true(house_logged(&h, "expected one, ListenSequentialPacket="));
    close(stream);
    const int held = hold(&h, SOCK_SEQPACKET);
    expect_no_start(&h, held, 2);
    assert_true(house_logged(&h, "systemd passes 2 sockets"));
    close(held);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handshakes_wait_while_it_is_away),
        cmocka_unit_test(sockets_of_the_wrong_kind_or_number_are_said),
    };
    signal(SIGHUP, SIG_IGN); /* which polderd sends to who holds the socket */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
