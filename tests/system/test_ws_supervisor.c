/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of polderd beside a polder-supervisor that it has not started itself. */
#include "unit.h"
#include "ws_client.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char first[] = "route \"/live/*\" { websocket { } }\n",
                  second[] = "route \"/live/*\" { websocket { } }\n"
                             "route \"/new/*\" { websocket { max_connections = 3 } }\n";

static pid_t supervisor_in_log(struct house *h)
{
    char line[1024];
    int pid = 0;
    FILE *f = fopen(h->log, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        const char *at = strstr(line, "started polder-supervisor[");
        if (at)
            sscanf(at, "started polder-supervisor[%d]", &pid);
    }
    fclose(f);
    return pid;
}

/* polderd has died, its supervisor goes on; the file is changed; polderd comes again. */
static void a_supervisor_that_was_there_reads_the_file_again(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    house_start(&h, 1, first);
    wait_for_supervisor(&h);
    const int fd = open_ws(h.port, "/live/x");
    const pid_t supervisor = supervisor_of(&h);
    house_kill(&h);
    house_write_conf(&h, 1, second);
    house_run(&h);
    wait_until(house_logged(&h, "config: read again"), 10000);
    wait_until(status_of(h.port, "/new/x") == 101, 10000);
    assert_false(has_ended(supervisor));
    say(fd, "{}"); /* and the old one is still served */
    assert_true(read_frame(fd, &frame));
    assert_int_equal(frame.opcode, 1);
    close(fd);
    wait_until(ctl(&h, &out, "status") == 0 && strstr(out, "answers"), 10000);

    /* its end is seen at once, and another one takes its place */
    kill(supervisor, SIGKILL);
    wait_until(house_logged(&h, "has ended"), 5000);
    wait_until(supervisor_in_log(&h) && supervisor_in_log(&h) != supervisor, 5000);
    wait_until(status_of(h.port, "/new/x") == 101, 10000);
    house_remove(&h);
}

/* With a WebSocket open and a program told of an alert. */
/* As units that start side by side do: both daemons show the conditions of both. */
static void a_supervisor_that_comes_first_makes_the_table_of_conditions(void **state)
{
    (void)state;
    struct house h;
    struct unit u;
    struct stat made, used;
    char page[160];
    house_start(&h, 1, "%s", "upstream \"u\" { server \"127.0.0.1:1\" { } }\n");
    assert_int_equal(house_stop(&h), 0);
    snprintf(page, sizeof page, "%.120s/run/conditions.page", h.dir);
    assert_int_equal(unlink(page), 0);
    house_write_conf(&h, 1, first);
    unit_open(&u, &h, false);
    unit_start(&u);
    assert_int_equal(stat(page, &made), 0);
    house_run(&h);
    assert_int_equal(stat(page, &used), 0);
    assert_int_equal(made.st_ino, used.st_ino);
    assert_false(house_logged(&h, "conditions: cannot use"));
    unit_close(&u);
    house_remove(&h);
}

static void a_killed_master_takes_all_but_the_supervisor_along(void **state)
{
    (void)state;
    struct house h;
    char dir[] = "/tmp/polder-told.XXXXXX", program[64], conf[512], told[64];
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chmod(dir, 0777), 0);
    snprintf(program, sizeof program, "%s/program", dir);
    snprintf(told, sizeof told, "%s/pid", dir);
    FILE *f = fopen(program, "w");
    assert_non_null(f);
    fprintf(f, "#!/bin/sh\ntrap '' TERM\necho $$ > %s/new && mv %s/new %s\nexec sleep 1000\n", dir,
            dir, told);
    fclose(f);
    assert_int_equal(chmod(program, 0755), 0);
    snprintf(conf, sizeof conf, "on_alert = \"%s\"\nalert \"memory\" { above = 0 }\n%s", program,
             first);
    house_start(&h, 2, "%s", conf);
    wait_for_supervisor(&h);
    const int fd = open_ws(h.port, "/live/x");
    const pid_t supervisor = supervisor_of(&h);
    wait_until((house_advance(&h, 10000), access(told, F_OK) == 0), 20000);
    int pid = 0;
    f = fopen(told, "r");
    assert_int_equal(fscanf(f, "%d", &pid), 1);
    fclose(f);
    assert_false(has_ended(pid));
    house_kill(&h);
    wait_until(has_ended(pid), 5000);
    assert_false(has_ended(supervisor));
    assert_int_equal(unlink(told), 0);
    assert_int_equal(unlink(program), 0);
    assert_int_equal(rmdir(dir), 0);
    house_run(&h);
    wait_until(house_logged(&h, "was there; it reads the configuration again"), 10000);
    say(fd, "{}");
    assert_true(read_frame(fd, &frame));
    close(fd);
    house_remove(&h);
    wait_until(has_ended(supervisor), 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_master_takes_all_but_the_supervisor_along),
        cmocka_unit_test(a_supervisor_that_was_there_reads_the_file_again),
        cmocka_unit_test(a_supervisor_that_comes_first_makes_the_table_of_conditions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
