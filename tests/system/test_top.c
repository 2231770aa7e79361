/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of the service at a glance: on a terminal of 80 x 24, on one that changes its size, and on
 * none; and the terminal is as it was, however top ends. */
#include "harness.h"

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static struct backend *backend;
static struct house house;

static bool answers(struct asked *a)
{
    return reply_ok(a, "", "here");
}

static int open_house(void **state)
{
    if (harness_set_up(state))
        return -1;
    house_start(&house, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "upstream \"gone\" { server \"127.0.0.1:1\" { } park = 0 }\n"
                "limit \"few\" { requests = 2 window = 1m key = \"global\" }\n"
                "route \"/few\" { upstream = \"u\" limits = {\"few\"} }\n"
                "route \"/gone\" { upstream = \"gone\" }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(backend));
    return 0;
}

static int close_house(void **state)
{
    house_remove(&house);
    return harness_tear_down(state);
}

/* ---- polderctl top on a terminal of ours ---- */

struct terminal {
    int fd, kept; /* kept: the other end, so that its settings outlive top */
    pid_t pid;
    struct termios before;
    char text[1 << 20]; /* all that was written to it */
    size_t len;
};

static void terminal_start(struct terminal *t, unsigned short rows, unsigned short columns)
{
    const struct winsize size = {.ws_row = rows, .ws_col = columns};
    memset(t, 0, sizeof *t);
    assert_int_equal(openpty(&t->fd, &t->kept, NULL, NULL, &size), 0);
    assert_int_equal(tcgetattr(t->kept, &t->before), 0);
    t->pid = fork();
    if (t->pid == 0) {
        setsid();
        ioctl(t->kept, TIOCSCTTY, 0);
        for (int i = 0; i < 3; i++)
            dup2(t->kept, i);
        close(t->kept);
        close(t->fd);
        setenv("TERM", "xterm", 1);
        setenv("LC_ALL", "C.UTF-8", 1);
        execl(built("polderctl"), "polderctl", "-s", house.sock, "top", (char *)NULL);
        _exit(127);
    }
}

static void terminal_read(struct terminal *t)
{
    struct pollfd p = {t->fd, POLLIN, 0};
    while (poll(&p, 1, 0) > 0 && p.revents & POLLIN && t->len + 1 < sizeof t->text) {
        const ssize_t n = read(t->fd, t->text + t->len, sizeof t->text - 1 - t->len);
        if (n <= 0)
            return;
        t->len += (size_t)n;
        t->text[t->len] = 0;
    }
}

static bool shows(struct terminal *t, const char *what)
{
    terminal_read(t);
    return strstr(t->text, what) != NULL;
}

static int terminal_end(struct terminal *t)
{
    int status = 0;
    wait_until((terminal_read(t), waitpid(t->pid, &status, WNOHANG) == t->pid), 10000);
    terminal_read(t);
    return status;
}

static void is_as_before(struct terminal *t)
{
    struct termios now;
    assert_true(shows(t, "\033[?1049h"));
    const char *last = t->text;
    for (const char *at; (at = strstr(last + 1, "\033[?1049"));)
        last = at;
    assert_int_equal(strncmp(last, "\033[?1049l", 8), 0);
    assert_true(shows(t, "\033[?25h"));
    assert_int_equal(tcgetattr(t->kept, &now), 0);
    assert_int_equal(now.c_lflag, t->before.c_lflag);
    assert_int_equal(now.c_iflag, t->before.c_iflag);
    close(t->fd);
    close(t->kept);
}

/* Characters between two line ends, control sequences aside. */
static size_t widest_line(const char *text)
{
    size_t widest = 0, n = 0;
    for (; *text; text++) {
        if (*text == '\033') {
            text += strcspn(text, "ABCDHJKhlm");
        } else if (*text == '\n' || *text == '\r') {
            n = 0;
        } else if (((unsigned char)*text & 0xc0) != 0x80 && ++n > widest) {
            widest = n;
        }
    }
    return widest;
}

/* ---- stories ---- */

static void a_screen_of_80_x_24_shows_what_is_wrong_first(void **state)
{
    static struct terminal t;
    (void)state;
    get(house.port, "/gone", NULL);
    for (int i = 0; i < 4; i++)
        get(house.port, "/few", NULL);
    terminal_start(&t, 24, 80);
    wait_until(shows(&t, "q quits"), 10000);
    wait_until(shows(&t, "backend_down gone/127.0.0.1:1"), 10000);
    wait_until(shows(&t, "2 in 1 min"), 10000);
    assert_true(strstr(t.text, "backend_down") < strstr(t.text, "requests  "));
    assert_in_range(widest_line(t.text), 40, 80);

    const struct winsize wide = {.ws_row = 50, .ws_col = 132};
    assert_int_equal(ioctl(t.kept, TIOCSWINSZ, &wide), 0);
    wait_until(shows(&t, "\033[50;1H"), 10000); /* the last line moved at once */

    assert_int_equal(write(t.fd, "q", 1), 1);
    assert_int_equal(terminal_end(&t), 0);
    is_as_before(&t);
}

static void signals_give_the_terminal_back(void **state)
{
    static struct terminal t;
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    (void)state;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        terminal_start(&t, 24, 80);
        wait_until(shows(&t, "q quits"), 10000);
        kill(t.pid, signals[i]);
        const int status = terminal_end(&t);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), signals[i]);
        is_as_before(&t);
    }
}

static void without_a_terminal_it_is_plain_text_once(void **state)
{
    const char *out;
    (void)state;
    assert_int_equal(ctl(&house, &out, "top"), 0);
    assert_non_null(strstr(out, "polder 0."));
    assert_non_null(strstr(out, "\nrequests "));
    assert_non_null(strstr(out, "\nLIMIT "));
    assert_non_null(strstr(out, "\nSERVER "));
    assert_null(strchr(out, '\033'));
    assert_int_equal(ctl(&house, &out, "--json top"), 0);
    assert_non_null(strstr(out, "\"last_minute\""));
    assert_int_equal(ctl(&house, &out, "top nonsense"), 2);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(a_screen_of_80_x_24_shows_what_is_wrong_first),
        cmocka_unit_test(signals_give_the_terminal_back),
        cmocka_unit_test(without_a_terminal_it_is_plain_text_once),
    };
    harness_share(&backend, answers);
    return cmocka_run_group_tests(stories, open_house, close_house);
}
