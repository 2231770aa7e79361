/* SPDX-License-Identifier: BSD-2-Clause */
/* unix_socket: see unix_socket.h. */
#include "daemons/net/unix_socket.h"
#include "polder/log.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 128

static int address_of(struct sockaddr_un *sa, const char *path)
{
    memset(sa, 0, sizeof *sa);
    sa->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof sa->sun_path)
        return -ENAMETOOLONG;
    strcpy(sa->sun_path, path);
    return 0;
}

static int connect_to(const char *path, int type)
{
    struct sockaddr_un sa;
    int code = address_of(&sa, path);
    if (code)
        return code;
    const int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&sa, sizeof sa) < 0) {
        code = -errno;
        close(fd);
        return code;
    }
    return fd;
}

int unix_socket_connect(const char *path)
{
    return connect_to(path, SOCK_STREAM);
}

/* EAGAIN means that there is a listener, with a full queue. */
static bool somebody_answers(const char *path, int type)
{
    const int fd = connect_to(path, type);
    if (fd >= 0)
        close(fd);
    return fd >= 0 || fd == -EAGAIN;
}

static void unix_socket_give(const char *path, gid_t gid)
{
    if (gid != (gid_t)-1 && chown(path, (uid_t)-1, gid) < 0)
        log_warning(
            "socket: cannot give %s to group %u: %s; its members have access only as far as "
            "the mode allows",
            path, (unsigned)gid, strerror(errno));
}

int unix_socket_permit(const char *path, mode_t mode, gid_t gid)
{
    unix_socket_give(path, gid);
    return chmod(path, mode) < 0 ? -errno : 0;
}

static int prepare(struct unix_socket *s, const char *path, mode_t mode, gid_t gid)
{
    struct sockaddr_un sa;
    struct stat st;
    int code = address_of(&sa, path);
    if (code)
        return code;
    unlink(path);
    const mode_t mask = umask(~mode & 0777); /* a worker may not change modes: sandbox.h */
    if (bind(s->fd, (const struct sockaddr *)&sa, sizeof sa) < 0)
        code = -errno;
    umask(mask);
    if (code)
        return code;
    unix_socket_give(path, gid);
    if (stat(path, &st) < 0 || listen(s->fd, BACKLOG) < 0)
        return -errno;
    s->device = st.st_dev;
    s->inode = st.st_ino;
    return 0;
}

static struct unix_socket inherited[4];

void unix_socket_inherit(const struct unix_socket *from)
{
    for (size_t i = 0; i < sizeof inherited / sizeof *inherited; i++)
        if (!inherited[i].path[0]) {
            inherited[i] = *from;
            return;
        }
}

static bool take_inherited(struct unix_socket *s, const char *path)
{
    for (size_t i = 0; i < sizeof inherited / sizeof *inherited; i++)
        if (inherited[i].path[0] && !strcmp(inherited[i].path, path)) {
            *s = inherited[i];
            inherited[i].path[0] = '\0';
            return true;
        }
    return false;
}

int unix_socket_listen(struct unix_socket *s, const char *path, int type, mode_t mode, gid_t gid)
{
    char temporary[sizeof s->path];
    if (take_inherited(s, path))
        return 0;
    memset(s, 0, sizeof *s);
    s->fd = -1;
    if (snprintf(s->path, sizeof s->path, "%s", path) >= (int)sizeof s->path ||
        snprintf(temporary, sizeof temporary, "%s~", path) >= (int)sizeof temporary)
        return -ENAMETOOLONG;
    if (somebody_answers(path, type))
        return -EADDRINUSE;
    s->fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->fd < 0)
        return -errno;
    int code = prepare(s, temporary, mode, gid);
    if (code == 0 && rename(temporary, path) < 0)
        code = -errno;
    if (code) {
        unlink(temporary);
        close(s->fd);
        s->fd = -1;
    }
    return code;
}

static int option(int fd, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    return getsockopt(fd, SOL_SOCKET, name, &value, &len) < 0 ? -errno : value;
}

/* Clients see the credentials of the process that has called listen() last. */
int unix_socket_adopt(struct unix_socket *s, int fd, const char *path, int type)
{
    struct stat st;
    *s = (struct unix_socket){.fd = fd};
    if (option(fd, SO_DOMAIN) != AF_UNIX || option(fd, SO_TYPE) != type ||
        option(fd, SO_ACCEPTCONN) != 1)
        return -ENOTSOCK;
    if (snprintf(s->path, sizeof s->path, "%s", path) >= (int)sizeof s->path)
        return -ENAMETOOLONG;
    if (*path && lstat(path, &st) == 0) {
        s->device = st.st_dev;
        s->inode = st.st_ino;
    }
    return listen(fd, BACKLOG) < 0 ? -errno : 0;
}

void unix_socket_close(struct unix_socket *s)
{
    struct stat st;
    if (s->fd < 0)
        return;
    close(s->fd);
    s->fd = -1;
    if (*s->path && lstat(s->path, &st) == 0 && st.st_dev == s->device && st.st_ino == s->inode)
        unlink(s->path);
}
