/* SPDX-License-Identifier: BSD-2-Clause */
#include "demo.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

const char *shell(const char *fmt, ...)
{
    static char text[65536];
    char command[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    FILE *p = popen(command, "re");
    assert_non_null(p);
    text[fread(text, 1, sizeof text - 1, p)] = 0;
    pclose(p);
    return text;
}

static void set_number(const char *name, unsigned value)
{
    char text[16];
    snprintf(text, sizeof text, "%u", value);
    setenv(name, text, 1);
}

/* False: a port is taken, which may be one of a host beside the first. */
static bool has_started(struct house *h)
{
    bool taken = false;
    wait_until(house_logged(h, "Ctrl-C stops") ||
                   (taken = house_logged(h, "another program listens")),
               30000);
    return !taken;
}

static bool try_start(struct house *h, const char *heartbeat)
{
    char state[160];
    memset(h, 0, sizeof *h);
    strcpy(h->dir, "/tmp/polder-demo.XXXXXX");
    assert_non_null(mkdtemp(h->dir));
    h->port = free_port();
    h->ops_port = free_port();
    snprintf(h->sock, sizeof h->sock, "%s/admin.sock", h->dir);
    snprintf(h->log, sizeof h->log, "%s/log", h->dir);
    snprintf(state, sizeof state, "%s/state", h->dir);
    set_number("PORT", h->port);
    set_number("OPS_PORT", h->ops_port);
    set_number("BACKEND_PORT", free_port());
    setenv("POLDER_STATE_DIR", state, 1);
    setenv("POLDER_RUNTIME_DIR", h->dir, 1);
    setenv("WS_HEARTBEAT", heartbeat, 1);
    setenv("WS_INTERVAL", "1s", 1);
    h->pid = fork();
    if (h->pid == 0) {
        if (!freopen(h->log, "w", stdout))
            _exit(127);
        dup2(1, 2);
        execl("tests/demo/run", "run", getenv("POLDER_BUILD") ? getenv("POLDER_BUILD") : "build",
              (char *)NULL);
        _exit(127);
    }
    return has_started(h);
}

void demo_start(struct house *h, const char *heartbeat)
{
    for (int tries = 0; !try_start(h, heartbeat); tries++) {
        assert_true(tries < 5);
        demo_stop(h);
    }
}

void demo_stop(struct house *h)
{
    int status;
    kill(h->pid, SIGINT);
    for (uint64_t end = mono_ms() + harness_patience(15000);
         waitpid(h->pid, &status, WNOHANG) == 0 && mono_ms() < end; nap_ms(10))
        ;
    shell("rm -rf '%s'", h->dir);
}
