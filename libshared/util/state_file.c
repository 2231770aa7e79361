/* SPDX-License-Identifier: BSD-2-Clause */
/* state_file: see state_file.h. */
#include "polder/state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int path_of(const char *state_dir, const char *name, const char *suffix, char path[PATH_MAX])
{
    const int n = snprintf(path, PATH_MAX, "%s/%s%s", state_dir, name, suffix);
    return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static int read_all(int fd, size_t max, char **bytes, size_t *len)
{
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) /* a pipe would be waited for */
        return -EPROTO;
    *bytes = malloc(max + 1);
    if (!*bytes)
        return -ENOMEM;
    const ssize_t n = read(fd, *bytes, max + 1);
    if (n >= 0 && (size_t)n <= max) {
        *len = (size_t)n;
        return 0;
    }
    free(*bytes);
    *bytes = NULL;
    return n < 0 ? -EIO : -EFBIG;
}

int state_file_read(const char *state_dir, const char *name, size_t max, char **bytes, size_t *len)
{
    char path[PATH_MAX];
    *bytes = NULL;
    *len = 0;
    int code = path_of(state_dir, name, "", path);
    if (code)
        return code;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    code = read_all(fd, max, bytes, len);
    close(fd);
    return code;
}

static int write_synced(const char *path, const char *bytes, size_t len)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    int code = 0;
    errno = 0;
    if (write(fd, bytes, len) != (ssize_t)len || fsync(fd))
        code = errno ? -errno : -EIO;
    close(fd);
    return code;
}

/* A rename is only on the disk when its directory is. */
static int sync_directory(const char *path)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    const int code = fsync(fd) ? -errno : 0;
    close(fd);
    return code;
}

int state_file_write(const char *state_dir, const char *name, const char *bytes, size_t len)
{
    char path[PATH_MAX], fresh[PATH_MAX];
    int code = path_of(state_dir, name, "", path);
    if (!code)
        code = path_of(state_dir, name, ".new", fresh);
    if (!code)
        code = write_synced(fresh, bytes, len);
    if (!code && rename(fresh, path))
        code = -errno;
    return code ? code : sync_directory(state_dir);
}
