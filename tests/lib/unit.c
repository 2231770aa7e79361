/* SPDX-License-Identifier: BSD-2-Clause */
/* unit: see unit.h. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#define HIGH 200 /* above what the daemon gets */
#define UNIT "/org/freedesktop/systemd1/unit/polder_2dsupervisor_2eservice"
#define JOB  "/org/freedesktop/systemd1/job/7"

static int listen_at(int type, const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    snprintf(sa.sun_path, sizeof sa.sun_path, "%.100s", path);
    unlink(sa.sun_path);
    const int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(fd, 128), 0);
    return fd;
}

/* ---- what it is told ---- */

static void put(struct unit *u, int fd)
{
    pthread_mutex_lock(&u->lock);
    if (u->box >= 0)
        close(u->box);
    u->box = fd;
    atomic_store(&u->stored, fd >= 0);
    pthread_mutex_unlock(&u->lock);
}

static void hear(void *arg, const char *text, int fd)
{
    struct unit *u = arg;
    if (strstr(text, "READY=1"))
        atomic_store(&u->is_ready, true);
    if (strstr(text, "FDSTOREREMOVE=1")) {
        atomic_fetch_add(&u->n_removed, 1);
        put(u, -1);
    } else if (strstr(text, "FDSTORE=1") && strstr(text, "FDNAME=websockets") &&
               atomic_load(&u->store_max) > 0) {
        put(u, fd);
        return;
    }
    if (fd >= 0) /* that of a barrier, too */
        close(fd);
}

/* ---- its bus ---- */

static int answer(sd_bus_message *m, void *arg, sd_bus_error *unused)
{
    struct unit *u = arg;
    const char *job = atomic_load(&u->job), *interface = NULL, *name = NULL;
    (void)unused;
    if (sd_bus_message_is_method_call(m, "org.freedesktop.DBus", "Hello") > 0)
        return sd_bus_reply_method_return(m, "s", ":1.1");
    if (atomic_load(&u->answers) == UNIT_IS_SILENT)
        return 1;
    if (sd_bus_message_is_method_call(m, "org.freedesktop.systemd1.Manager", "GetUnitByPID") > 0)
        return sd_bus_reply_method_return(m, "o", UNIT);
    if (sd_bus_message_is_method_call(m, "org.freedesktop.DBus.Properties", "Get") <= 0)
        return 0;
    sd_bus_message_read(m, "ss", &interface, &name);
    if (!strcmp(name, "Job"))
        return sd_bus_reply_method_return(m, "v", "(uo)", *job ? 7 : 0, *job ? JOB : "/");
    return sd_bus_reply_method_return(m, "v", "s", job);
}

static void serve(struct unit *u, int fd)
{
    sd_bus *bus = NULL;
    const sd_id128_t id = SD_ID128_MAKE(1, 2, 3, 4, 5, 6, 7, 8, 9, a, b, c, d, e, f, 0);
    if (sd_bus_new(&bus) < 0)
        return;
    sd_bus_set_fd(bus, fd, fd);
    sd_bus_set_server(bus, 1, id);
    sd_bus_add_filter(bus, NULL, answer, u);
    int code = sd_bus_start(bus);
    while (code >= 0 && !atomic_load(&u->ends)) {
        code = sd_bus_process(bus, NULL);
        if (code == 0)
            code = sd_bus_wait(bus, 20000);
    }
    sd_bus_close_unref(bus);
}

static void *serve_bus(void *arg)
{
    struct unit *u = arg;
    while (!atomic_load(&u->ends)) {
        struct pollfd p = {u->bus, POLLIN, 0};
        const int fd = poll(&p, 1, 50) == 1 ? accept4(u->bus, NULL, NULL, SOCK_CLOEXEC) : -1;
        if (fd >= 0)
            serve(u, fd);
    }
    return NULL;
}

/* ---- the daemon ---- */

static void set_environment(const struct unit *u, int n, int sockets)
{
    char text[160];
    snprintf(text, sizeof text, "%d", (int)getpid());
    setenv("LISTEN_PID", text, 1);
    snprintf(text, sizeof text, "%d", n);
    if (n)
        setenv("LISTEN_FDS", text, 1);
    setenv("LISTEN_FDNAMES",
           n == 2    ? "polder-supervisor.socket:websockets"
           : sockets ? "polder-supervisor.socket"
                     : "websockets",
           1);
    setenv("NOTIFY_SOCKET", u->notify.path, 1);
    snprintf(text, sizeof text, "unix:path=%s/%s", u->dir,
             atomic_load(&u->answers) == UNIT_HAS_NO_BUS ? "nothing" : "bus");
    setenv("DBUS_SYSTEM_BUS_ADDRESS", text, 1);
    setenv("POLDER_CLOCK", u->house->clock, 1);
}

static void become_daemon(const struct unit *u, const char *program)
{
    int fd[2], n = 0;
    const int log = open(u->house->log, O_WRONLY | O_APPEND);
    if (u->socket >= 0)
        fd[n++] = fcntl(u->socket, F_DUPFD_CLOEXEC, HIGH);
    if (u->box >= 0)
        fd[n++] = fcntl(u->box, F_DUPFD_CLOEXEC, HIGH);
    if (log < 0 || dup2(log, 2) < 0)
        _exit(126);
    for (int i = 0; i < n; i++)
        if (dup2(fd[i], 3 + i) < 0)
            _exit(126);
    close_range(3 + (unsigned)n, ~0u, CLOSE_RANGE_CLOEXEC); /* those of the test's own */
    set_environment(u, n, u->socket >= 0);
    execl(program ? program : built("polder-supervisor"), "polder-supervisor", "-c", u->house->conf,
          (char *)NULL);
    _exit(127);
}

void unit_spawn(struct unit *u, const char *program)
{
    atomic_store(&u->is_ready, false);
    u->pid = fork();
    assert_true(u->pid >= 0);
    if (u->pid == 0)
        become_daemon(u, program);
}

void unit_wait_ready(struct unit *u)
{
    wait_until(atomic_load(&u->is_ready), 20000);
}

void unit_start(struct unit *u)
{
    unit_spawn(u, NULL);
    unit_wait_ready(u);
}

int unit_stop(struct unit *u, const char *job)
{
    int status;
    atomic_store(&u->job, job);
    assert_int_equal(kill(u->pid, SIGTERM), 0);
    assert_int_equal(waitpid(u->pid, &status, 0), u->pid);
    atomic_store(&u->job, "");
    u->pid = 0;
    return status;
}

void unit_restart(struct unit *u)
{
    assert_int_equal(unit_stop(u, "restart"), 0);
    unit_start(u);
}

void unit_forget(struct unit *u)
{
    put(u, -1);
}

void unit_keep(struct unit *u, int fd)
{
    put(u, fcntl(fd, F_DUPFD_CLOEXEC, HIGH));
}

void unit_open(struct unit *u, struct house *h, bool has_socket)
{
    char path[160];
    memset(u, 0, sizeof *u);
    u->house = h;
    u->socket = u->box = -1;
    atomic_store(&u->store_max, 4);
    atomic_store(&u->job, "");
    pthread_mutex_init(&u->lock, NULL);
    snprintf(u->dir, sizeof u->dir, "/tmp/polder-unit-XXXXXX");
    assert_non_null(mkdtemp(u->dir));
    snprintf(path, sizeof path, "%s/notify", u->dir);
    notify_open(&u->notify, path, hear, u);
    snprintf(path, sizeof path, "%s/bus", u->dir);
    u->bus = listen_at(SOCK_STREAM, path);
    snprintf(path, sizeof path, "%.80s/run/supervisor.sock", h->dir);
    if (has_socket)
        u->socket = listen_at(SOCK_SEQPACKET, path);
    assert_int_equal(pthread_create(&u->bus_thread, NULL, serve_bus, u), 0);
}

void unit_close(struct unit *u)
{
    char path[160];
    if (u->pid > 0) {
        kill(u->pid, SIGKILL);
        waitpid(u->pid, NULL, 0);
    }
    atomic_store(&u->ends, true);
    pthread_join(u->bus_thread, NULL);
    notify_close(&u->notify);
    unit_forget(u);
    if (u->socket >= 0)
        close(u->socket);
    close(u->bus);
    snprintf(path, sizeof path, "%s/bus", u->dir);
    unlink(path);
    rmdir(u->dir);
}
