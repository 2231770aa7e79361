/* SPDX-License-Identifier: BSD-2-Clause */
/* files: see resolver.h. Those that c-ares reads when a channel is made, or for each lookup. */
#include "daemons/resolver/resolver.h"

#include <stddef.h>
#include <string.h>

static const char *const path[RESOLVER_FILES] = {"/etc/resolv.conf", "/etc/hosts",
                                                 "/etc/nsswitch.conf", "/etc/host.conf"};

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

bool files_changed(struct resolver_files *files)
{
    bool changed = false;
    for (size_t i = 0; i < RESOLVER_FILES; i++) {
        struct stat now;
        if (stat(path[i], &now) < 0)
            memset(&now, 0, sizeof now);
        changed |= !is_same(&now, &files->seen[i]);
        files->seen[i] = now;
    }
    return changed;
}
