/* SPDX-License-Identifier: BSD-2-Clause */
/* shared_left: see shared_left.h. */
#include "libshared/shm/shared_left.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int left_fd(const struct shared_options *opt, const char *name)
{
    for (size_t i = 0; i < opt->n_left; i++)
        if (!strcmp(opt->left[i].name, name))
            return opt->left[i].fd;
    return -1;
}

/* The rings are one line of the log. */
#define RING "polder-ring-"

void left_refuse(struct shared *sh, const struct shared_options *opt, const char *name)
{
    const size_t used = strlen(sh->anew);
    const int fd = left_fd(opt, name);
    if (fd < 0)
        return;
    close(fd);
    if (!strncmp(name, RING, strlen(RING)) && strstr(sh->anew, RING))
        return;
    snprintf(sh->anew + used, sizeof sh->anew - used, "%s%s", used ? ", " : "", name);
}

bool left_adopt(struct shared *sh, const struct shared_options *opt, struct shared_segment *seg,
                enum shm_kind kind, uint32_t abi, uint64_t layout, size_t size)
{
    const int fd = left_fd(opt, seg->name);
    if (fd < 0)
        return false;
    if (shm_adopt(&seg->shm, fd, kind, abi, layout, size) == 0)
        return true;
    left_refuse(sh, opt, seg->name);
    return false;
}
