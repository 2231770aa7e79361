/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of polderd beside a polder-supervisor that it has not started itself. */
#include "ws_client.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char first[] = "route \"/live/*\" { websocket { } }\n",
                  second[] = "route \"/live/*\" { websocket { } }\n"
                             "route \"/new/*\" { websocket { max_connections = 3 } }\n";

static void kill_master(struct house *h)
{
    kill(h->pid, SIGKILL);
    waitpid(h->pid, NULL, 0);
    h->pid = 0;
}

static bool has_ended(pid_t pid)
{
    char path[64], text[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return true;
    const bool got = fgets(text, sizeof text, f) != NULL;
    fclose(f);
    const char *end = strrchr(text, ')');
    return !got || (end && end[2] == 'Z');
}

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
    kill_master(&h);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_supervisor_that_was_there_reads_the_file_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
