/* SPDX-License-Identifier: BSD-2-Clause */
/* heartbeat: see heartbeat.h. */
#include "polder/heartbeat.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define HEARTBEAT_MAGIC  UINT32_C(0x74616562)
#define HEARTBEAT_LAYOUT 1

struct heartbeat {
    uint32_t magic, layout;
    uint64_t pid;
    uint64_t mono_ms;
};
_Static_assert(sizeof(struct heartbeat) == 24, "wire format");

int heartbeat_open(const char *path)
{
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

void heartbeat_withdraw(int fd)
{
    const int code = fd < 0 ? 0 : ftruncate(fd, 0);
    (void)code; /* then an old one stays, of a process that is gone */
}

void heartbeat_write(int fd, uint64_t mono_ms)
{
    const struct heartbeat h = {HEARTBEAT_MAGIC, HEARTBEAT_LAYOUT, (uint64_t)getpid(), mono_ms};
    if (fd >= 0 && pwrite(fd, &h, sizeof h, 0) != (ssize_t)sizeof h)
        heartbeat_withdraw(fd);
}

bool heartbeat_read(const char *path, pid_t pid, uint64_t *mono_ms)
{
    struct heartbeat h = {0};
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return false;
    const ssize_t n = read(fd, &h, sizeof h);
    close(fd);
    if (n != (ssize_t)sizeof h || h.magic != HEARTBEAT_MAGIC || h.layout != HEARTBEAT_LAYOUT ||
        h.pid != (uint64_t)pid)
        return false;
    *mono_ms = h.mono_ms;
    return true;
}
