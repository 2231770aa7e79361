/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * program: which file this process runs, and whether another one lies in its place. A package puts
 * a new file there by a rename, so the file is another one even if its name is the same.
 */
#include "daemons/master/upgrade.h"
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void id_of(const struct stat *st, struct program_id *id)
{
    *id = (struct program_id){
        .dev = st->st_dev,
        .ino = st->st_ino,
        .size = (uint64_t)st->st_size,
        .mtime_ns = (uint64_t)st->st_mtim.tv_sec * 1000000000 + (uint64_t)st->st_mtim.tv_nsec,
    };
}

bool program_same(const struct program_id *a, const struct program_id *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->mtime_ns == b->mtime_ns;
}

/* A link keeps its name: it may be what an upgrade changes. */
static bool as_called(const char *argv0, char *out, size_t size)
{
    char here[PATH_MAX];
    struct stat called, self;
    if (!argv0 || !strchr(argv0, '/'))
        return false;
    if (*argv0 == '/')
        snprintf(out, size, "%s", argv0);
    else if (!getcwd(here, sizeof here) || snprintf(out, size, "%s/%s", here, argv0) >= (int)size)
        return false;
    return stat(out, &called) == 0 && stat("/proc/self/exe", &self) == 0 &&
           called.st_dev == self.st_dev && called.st_ino == self.st_ino;
}

void program_path(const char *argv0, char *out, size_t size)
{
    static const char deleted[] = " (deleted)";
    if (as_called(argv0, out, size))
        return;
    const ssize_t n = readlink("/proc/self/exe", out, size - 1);
    out[n > 0 ? n : 0] = '\0';
    char *end = out + strlen(out);
    if (end - out > (ptrdiff_t)strlen(deleted) && !strcmp(end - strlen(deleted), deleted))
        end[-(ptrdiff_t)strlen(deleted)] = '\0';
}

void program_init(struct program *p, const char *path)
{
    struct stat st;
    *p = (struct program){0};
    snprintf(p->path, sizeof p->path, "%s", path);
    if (stat("/proc/self/exe", &st) == 0)
        id_of(&st, &p->running);
}

bool program_look(const struct program *p, struct program_id *id)
{
    struct stat st;
    *id = (struct program_id){0};
    if (!p->path[0] || stat(p->path, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    id_of(&st, id);
    return true;
}
