/* SPDX-License-Identifier: BSD-2-Clause */
/* notify: what systemd is told. Without systemd each of these is one look at the environment. */
#include "daemons/master/master.h"
#include <stdarg.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>
#include <time.h>

void notify_init(struct notify *n)
{
    uint64_t interval_us = 0;
    if (sd_watchdog_enabled(0, &interval_us) > 0)
        n->watchdog_ms = interval_us / 2000 ? interval_us / 2000 : 1;
}

void notify_ready(struct master *m)
{
    m->notify.ready_notified = true;
    sd_notify(0, "READY=1");
}

void notify_reloading(void)
{
    struct timespec t;
    char text[80];
    clock_gettime(CLOCK_MONOTONIC, &t);
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%llu",
             (unsigned long long)t.tv_sec * 1000000 + (unsigned long long)t.tv_nsec / 1000);
    sd_notify(0, text);
}

void notify_stopping(void)
{
    sd_notify(0, "STOPPING=1");
}

void notify_status(const char *fmt, ...)
{
    char text[256] = "STATUS=";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text + 7, sizeof text - 7, fmt, ap);
    va_end(ap);
    sd_notify(0, text);
}

/* Before READY systemd's start timeout watches; while it stops, the stop timeout does. */
static bool notify_healthy(const struct master *m)
{
    if (m->phase != MASTER_RUNNING)
        return true;
    return child_ready(m, PROC_SLOT_KEEPER) &&
           workers_ready(m, m->current) * 2 >= m->generation[m->current].workers;
}

void notify_alive(struct master *m)
{
    if (m->notify.watchdog_ms)
        sd_notify(0, "WATCHDOG=1");
}

void notify_step(struct master *m)
{
    struct notify *n = &m->notify;
    if (n->watchdog_ms == 0 || m->now_ms < n->next_ms)
        return;
    if (!notify_healthy(m)) {
        n->next_ms = m->now_ms + 200; /* a respawn under way may be over by then */
        return;
    }
    n->next_ms = m->now_ms + n->watchdog_ms;
    sd_notify(0, "WATCHDOG=1");
}
