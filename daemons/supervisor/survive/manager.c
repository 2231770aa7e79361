/* SPDX-License-Identifier: BSD-2-Clause */
/* manager: see manager.h. */
#include "daemons/supervisor/survive/manager.h"
#include "polder/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define SERVICE    "org.freedesktop.systemd1"
#define PROPERTIES "org.freedesktop.DBus.Properties"

bool manager_is_there(void)
{
    return getenv("NOTIFY_SOCKET") != NULL;
}

/* ---- its job ---- */

struct asking {
    sd_bus *bus;
    uint64_t until_ms;
    sd_bus_message *answer;
    char *why;
    size_t size;
};

static int on_answer(sd_bus_message *m, void *arg, sd_bus_error *unused)
{
    struct asking *a = arg;
    (void)unused;
    a->answer = sd_bus_message_ref(m);
    return 0;
}

/* Connecting, too, is part of this, so it is bounded as a whole. */
static int wait_for_answer(struct asking *a)
{
    while (!a->answer) {
        const uint64_t now_ms = clock_mono_ms();
        if (now_ms >= a->until_ms)
            return -ETIMEDOUT;
        int code = sd_bus_process(a->bus, NULL);
        if (code == 0)
            code = sd_bus_wait(a->bus, (a->until_ms - now_ms) * 1000);
        if (code < 0 && code != -EINTR)
            return code;
    }
    return sd_bus_message_is_method_error(a->answer, NULL) ? -sd_bus_message_get_errno(a->answer)
                                                           : 0;
}

static int call(struct asking *a, const char *path, const char *interface, const char *method,
                const char *types, ...)
{
    sd_bus_message *m = NULL;
    sd_bus_slot *slot = NULL;
    va_list args;
    a->answer = sd_bus_message_unref(a->answer);
    int code = sd_bus_message_new_method_call(a->bus, &m, SERVICE, path, interface, method);
    va_start(args, types);
    if (code >= 0)
        code = sd_bus_message_appendv(m, types, args);
    va_end(args);
    if (code >= 0)
        code = sd_bus_call_async(a->bus, &slot, m, on_answer, a, MANAGER_WAIT_MS * 1000);
    if (code >= 0)
        code = wait_for_answer(a);
    sd_bus_slot_unref(slot);
    sd_bus_message_unref(m);
    if (code < 0)
        snprintf(a->why, a->size, "D-Bus: %s: %s", method, strerror(-code));
    return code < 0 ? code : 0;
}

static int read_job(struct asking *a, char *type, size_t size)
{
    char path[256];
    const char *text = NULL;
    uint32_t job = 0;
    int code =
        call(a, "/org/freedesktop/systemd1", SERVICE ".Manager", "GetUnitByPID", "u", getpid());
    if (code == 0 && (code = sd_bus_message_read(a->answer, "o", &text)) >= 0) {
        snprintf(path, sizeof path, "%s", text);
        code = call(a, path, PROPERTIES, "Get", "ss", SERVICE ".Unit", "Job");
    }
    if (code == 0 && (code = sd_bus_message_read(a->answer, "v", "(uo)", &job, &text)) >= 0 &&
        job) {
        snprintf(path, sizeof path, "%s", text);
        code = call(a, path, PROPERTIES, "Get", "ss", SERVICE ".Job", "JobType");
        if (code == 0)
            code = sd_bus_message_read(a->answer, "v", "s", &text);
    }
    if (code < 0)
        return code;
    snprintf(type, size, "%s", job ? text : "");
    return 0;
}

int manager_job(char *type, size_t type_size, char *why, size_t size)
{
    struct asking a = {.until_ms = clock_mono_ms() + MANAGER_WAIT_MS, .why = why, .size = size};
    *type = 0;
    snprintf(why, size, "D-Bus: its answer is not what is expected");
    int code = sd_bus_open_system(&a.bus);
    if (code < 0)
        snprintf(why, size, "D-Bus: cannot connect: %s", strerror(-code));
    else
        code = read_job(&a, type, type_size);
    sd_bus_message_unref(a.answer);
    sd_bus_close_unref(a.bus);
    return code < 0 ? code : 0;
}

/* ---- its store ---- */

/* While another process holds the end that was given away, ours is not hung up. */
static bool is_held(int fd)
{
    struct pollfd p = {.fd = fd};
    return poll(&p, 1, 0) == 0;
}

int manager_keep(int pair[2], const char *name, char *why, size_t size)
{
    char text[128];
    snprintf(text, sizeof text, "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
    int code = sd_pid_notify_with_fds(0, 0, text, &pair[0], 1);
    close(pair[0]);
    pair[0] = -1;
    if (code > 0)
        code = sd_notify_barrier(0, MANAGER_WAIT_MS * 1000);
    if (code <= 0) {
        snprintf(why, size, "the service manager does not hear: %s",
                 code ? strerror(-code) : "there is none");
        return code ? code : -ENOENT;
    }
    if (is_held(pair[1]))
        return 0;
    snprintf(why, size,
             "the service manager keeps no descriptor (FileDescriptorStoreMax=, NotifyAccess=)");
    return -ENOSPC;
}

void manager_remove(const char *name)
{
    sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}
