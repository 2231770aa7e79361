/* SPDX-License-Identifier: BSD-2-Clause */
/* Signals that operators send to everything at once; the log's level and time stamps. */
#include "harness.h"
#include "ws_client.h"

#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct backend *b;

static bool answer(struct asked *ask)
{
    return reply_ok(ask, "", "x");
}

static size_t everybody(struct house *h, pid_t pids[8])
{
    size_t n = house_children(h, "polderd: worker", pids, 4);
    n += house_children(h, "polderd: keeper", pids + n, 1);
    n += house_children(h, "polderd: control", pids + n, 1);
    return n;
}

static void no_process_dies_of_the_signals_of_operators(void **state)
{
    (void)state;
    static const int signals[] = {SIGUSR1, SIGUSR2, SIGHUP, SIGUSR1, SIGUSR2, SIGHUP};
    struct house h;
    pid_t before[8], after[8];
    house_start(&h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/ws\" { upstream = u websocket { } }\nroute \"/*\" { upstream = u }\n",
                backend_port(b));
    wait_for_supervisor(&h);
    const pid_t supervisor = supervisor_of(&h);
    assert_int_equal(everybody(&h, before), 4);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        for (size_t k = 0; k < 4; k++)
            assert_int_equal(kill(before[k], signals[i]), 0);
        assert_int_equal(kill(supervisor, signals[i]), 0);
        if (signals[i] == SIGUSR1)
            assert_int_equal(kill(h.pid, signals[i]), 0);
        assert_int_equal(get(h.port, "/", NULL), 200);
    }
    wait_until(house_logged(&h, "logs: opened again"), 10000);
    wait_until(house_logged(&h, "]: config: read again"), 10000); /* the supervisor */
    assert_int_equal(everybody(&h, after), 4);
    assert_memory_equal(before, after, 4 * sizeof *before);
    assert_int_equal(supervisor_of(&h), supervisor);
    assert_false(house_logged(&h, "died:"));
    kill(h.pid, SIGHUP); /* it alone reloads */
    wait_until(house_logged(&h, "reload: generation 2 serves"), 20000);
    house_remove(&h);
}

static bool log_matches(struct house *h, const char *pattern)
{
    static char text[1 << 16];
    regex_t re;
    FILE *f = fopen(h->log, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NEWLINE | REG_NOSUB), 0);
    const bool yes = regexec(&re, text, 0, NULL, 0) == 0;
    regfree(&re);
    return yes;
}

static void write_level(struct house *h, const char *level)
{
    char text[256];
    snprintf(text, sizeof text,
             "log_level = %s\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
             "route \"/*\" { upstream = u }\n",
             level, backend_port(b));
    house_write_conf(h, 1, text);
}

static void lines_have_a_time_and_a_level_that_can_be_changed(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    house_start(&h, 1,
                "log_level = warning\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = u }\n",
                backend_port(b));
    assert_false(house_logged(&h, "service: ready"));
    assert_int_equal(ctl(&h, &out, "log level"), 0);
    assert_non_null(strstr(out, "warning"));
    assert_int_equal(ctl(&h, &out, "log level loud"), 2);
    assert_non_null(strstr(out, "error, warning, info or debug"));
    assert_int_equal(ctl(&h, &out, "log level info"), 0);
    kill(h.pid, SIGUSR1); /* something to say for the master, which follows too */
    wait_until(house_logged(&h, "logs: opened again"), 10000);
    assert_true(log_matches(&h, "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:"
                                "[0-6][0-9]\\.[0-9]{3}Z info master\\[[0-9]+\\]: logs: opened"));
    assert_int_equal(ctl(&h, &out, "log level error"), 0);
    assert_int_equal(ctl(&h, &out, "reload"), 0); /* the file says what it said */
    assert_non_null(strstr(out, "log level error (file: warning)"));
    assert_int_equal(ctl(&h, &out, "log level"), 0);
    assert_non_null(strstr(out, "level       error"));
    assert_false(house_logged(&h, "reload: generation"));
    write_level(&h, "info");
    kill(h.pid, SIGHUP);
    wait_until(ctl(&h, &out, "log level") == 0 && strstr(out, "level       info"), 20000);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_process_dies_of_the_signals_of_operators),
        cmocka_unit_test(lines_have_a_time_and_a_level_that_can_be_changed),
    };
    return run_with_backend(tests, &b, answer);
}
