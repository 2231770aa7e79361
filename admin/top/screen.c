/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * screen: a terminal that is drawn on and given back.
 *
 * Its other screen is used where it has one, so that what was there before comes back. Signals that
 * end or stop the process give the terminal back first: what they do is async-signal-safe (one
 * write and one tcsetattr), and then they take their usual course.
 */
#include "admin/top/top.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define BEGIN "\033[?1049h\033[?25l"
#define END   "\033[?25h\033[?1049l"

static struct termios terminal_before;
static volatile sig_atomic_t is_open, is_resized, is_back;

static void write_all(const char *text, size_t len)
{
    while (len) {
        const ssize_t n = write(STDOUT_FILENO, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        text += n;
        len -= (size_t)n;
    }
}

static void give_back(void)
{
    if (!is_open)
        return;
    is_open = 0;
    write_all(END, sizeof END - 1);
    tcsetattr(STDIN_FILENO, TCSANOW, &terminal_before);
}

static void take(void)
{
    struct termios raw = terminal_before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    write_all(BEGIN, sizeof BEGIN - 1);
    is_open = 1;
}

static void on_end(int signal)
{
    give_back();
    raise(signal); /* its usual course: SA_RESETHAND */
}

static void on_size(int signal)
{
    (void)signal;
    is_resized = 1;
}

static void signal_set(int signal, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, NULL);
}

static void on_stop(int signal)
{
    give_back();
    signal_set(signal, SIG_DFL, 0);
    raise(signal);
}

static void on_continue(int signal)
{
    (void)signal;
    is_back = 1;
}

static void screen_measure(struct screen *s)
{
    struct winsize size;
    const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
    s->rows = known && size.ws_row ? size.ws_row : 24;
    s->columns = known && size.ws_col ? size.ws_col : 80;
}

bool screen_open(struct screen *s)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGABRT, SIGSEGV};
    const char *term = getenv("TERM");
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || !term || !strcmp(term, "dumb") ||
        tcgetattr(STDIN_FILENO, &terminal_before))
        return false;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        signal_set(ends[i], on_end, (int)SA_RESETHAND);
    signal_set(SIGWINCH, on_size, 0);
    signal_set(SIGTSTP, on_stop, 0);
    signal_set(SIGCONT, on_continue, 0);
    atexit(give_back);
    take();
    screen_measure(s);
    return true;
}

void screen_close(void)
{
    give_back();
}

/* Bytes of the first `columns` characters of a line. */
static size_t fitting(const char *line, size_t len, unsigned columns)
{
    size_t i = 0;
    for (unsigned n = 0; i < len; i++)
        if (((unsigned char)line[i] & 0xc0) != 0x80 && n++ == columns)
            break;
    return i;
}

void screen_draw(struct screen *s, const char *text, const char *footer)
{
    char *out = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&out, &size);
    if (!to)
        return;
    fputs("\033[H", to);
    for (unsigned row = 1; row < s->rows && *text; row++) {
        const size_t len = strcspn(text, "\n");
        fprintf(to, "%.*s\033[K\r\n", (int)fitting(text, len, s->columns), text);
        text += len + (text[len] == '\n');
    }
    fprintf(to, "\033[J\033[%u;1H%.*s\033[K", s->rows,
            (int)fitting(footer, strlen(footer), s->columns), footer);
    fclose(to);
    write_all(out, size);
    free(out);
}

static enum screen_key key_of(char c)
{
    return c == 'q' || c == 'Q' || c == 4 ? SCREEN_QUIT : SCREEN_OTHER;
}

enum screen_key screen_wait(struct screen *s, unsigned ms)
{
    struct pollfd p = {STDIN_FILENO, POLLIN, 0};
    char c;
    const int ready = is_resized || is_back ? 0 : poll(&p, 1, (int)ms);
    if (is_back) { /* from a stop */
        signal_set(SIGTSTP, on_stop, 0);
        if (!is_open)
            take();
    }
    if (is_resized || is_back) {
        is_resized = is_back = 0;
        screen_measure(s);
        return SCREEN_RESIZED;
    }
    if (ready <= 0)
        return SCREEN_NONE;
    const ssize_t n = read(STDIN_FILENO, &c, 1);
    return n == 1 ? key_of(c) : SCREEN_QUIT; /* the terminal is gone */
}
