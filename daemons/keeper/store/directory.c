/* SPDX-License-Identifier: BSD-2-Clause */
/* directory: see directory.h. */
#include "daemons/keeper/store/directory.h"
#include "polder/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t directory_epoch(const char *name)
{
    char *end;
    if (strncmp(name, "cache.", 6) != 0 || name[6] < '1' || name[6] > '9')
        return 0;
    errno = 0;
    const unsigned long long n = strtoull(name + 6, &end, 10);
    return *end == 0 && errno == 0 && n <= EPOCH_MAX ? n : 0;
}

void directory_remove(const char *state_dir, uint64_t epoch)
{
    static const char *const files[] = {"/clean", "/data.mdb", "/lock.mdb", ""};
    char dir[PATH_MAX], path[PATH_MAX + 16];
    if (cache_directory(state_dir, epoch, dir, sizeof dir) < 0)
        return;
    for (unsigned i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s%s", dir, files[i]);
        unlink(path);
    }
    rmdir(dir);
}

uint64_t directory_scan(const char *state_dir, uint64_t keep)
{
    uint64_t newest = 0;
    DIR *d = opendir(state_dir);
    const struct dirent *e;
    while (d && (e = readdir(d))) {
        const uint64_t epoch = directory_epoch(e->d_name);
        if (epoch > newest)
            newest = epoch;
        if (keep && epoch && epoch != keep)
            directory_remove(state_dir, epoch);
    }
    if (d)
        closedir(d);
    return newest;
}

/* ---- the clean flag ---- */

static void clean_path(const char *dir, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%.4000s/clean", dir);
}

static void directory_sync(const char *dir)
{
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

bool directory_clean_read(const char *dir, uint64_t *seq)
{
    char path[PATH_MAX], text[32] = "";
    clean_path(dir, path);
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    const ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    char *end = text;
    *seq = strtoull(text, &end, 10);
    return n > 1 && *end == '\n';
}

void directory_clean_write(const char *dir, uint64_t seq)
{
    char path[PATH_MAX], text[32];
    clean_path(dir, path);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return;
    const int n = snprintf(text, sizeof text, "%llu\n", (unsigned long long)seq);
    const bool written = write(fd, text, (size_t)n) == n && fsync(fd) == 0;
    close(fd);
    if (!written)
        unlink(path);
    directory_sync(dir);
}

void directory_clean_remove(const char *dir)
{
    char path[PATH_MAX];
    clean_path(dir, path);
    if (unlink(path) == 0)
        directory_sync(dir);
}
