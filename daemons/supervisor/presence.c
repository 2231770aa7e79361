/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * presence: the loop shows once a second that it runs, while it drains too: in a file for the master
 * that has started or found us, and to systemd where that has. Who sees it stop aborts us.
 */
#include "daemons/net/unix_socket.h"
#include "daemons/supervisor/supervisor.h"
#include "daemons/supervisor/survive/survive.h"
#include "polder/heartbeat.h"
#include "polder/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define STATUS_EVERY_MS 10000

void presence_tell(struct supervisor *s)
{
    char text[sizeof s->presence.status];
    if (s->draining)
        return;
    snprintf(text, sizeof text, "STATUS=%u WebSockets%s", s->open,
             s->reload_failed ? "; the last reload failed: see the log" : "");
    s->presence.status_ms = s->now_ms + STATUS_EVERY_MS;
    if (!strcmp(text, s->presence.status))
        return;
    memcpy(s->presence.status, text, sizeof text);
    survive_say(s, text);
}

static void on_time(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    (void)w, (void)revents;
    survive_heartbeat(s);
    heartbeat_write(s->presence.fd, s->now_ms);
    if (s->presence.watchdog)
        sd_notify(0, "WATCHDOG=1");
    if (s->now_ms >= s->presence.status_ms)
        presence_tell(s);
}

void presence_begin(struct supervisor *s)
{
    char path[4096];
    uint64_t interval_us = 0;
    double every_s = HEARTBEAT_EVERY_MS / 1000.0;
    s->presence.fd = -1;
    if (!s->survivor) { /* else its custodian shows it */
        snprintf(path, sizeof path, "%s/" HEARTBEAT_FILE, s->config->runtime_dir);
        s->presence.fd = heartbeat_open(path);
        if (s->presence.fd < 0)
            log_warning("cannot write %s: %s; that we hang would not be noticed", path,
                        strerror(-s->presence.fd));
        s->presence.watchdog = sd_watchdog_enabled(0, &interval_us) > 0;
    }
    if (s->presence.watchdog && (double)interval_us / 4e6 < every_s)
        every_s = (double)interval_us / 4e6;
    ev_timer_init(&s->presence.timer, on_time, 0, every_s);
    ev_timer_start(s->loop, &s->presence.timer);
}

void presence_end(struct supervisor *s)
{
    ev_timer_stop(s->loop, &s->presence.timer);
    heartbeat_withdraw(s->presence.fd);
}

bool presence_agrees(const struct config *c)
{
    const char *main_pid = getenv("MAINPID");
    const long pid = main_pid ? strtol(main_pid, NULL, 10) : 0;
    char path[4096];
    struct ucred peer = {0};
    socklen_t len = sizeof peer;
    snprintf(path, sizeof path, "%s/supervisor-rpc.sock", c->runtime_dir);
    const int fd = pid > 0 && kill((pid_t)pid, 0) == 0 ? unix_socket_connect(path) : -EINVAL;
    if (pid <= 0 || fd == -EINVAL || fd == -EAGAIN || fd == -EACCES)
        return true; /* it is not known */
    const bool same = fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
                      peer.pid == (pid_t)pid;
    if (fd >= 0)
        close(fd);
    if (!same)
        fprintf(stderr,
                "%s: runtime_dir cannot change by a reload: polder-supervisor[%ld] does not listen "
                "in %s; restart it for that\n",
                c->path, pid, c->runtime_dir);
    return same;
}
