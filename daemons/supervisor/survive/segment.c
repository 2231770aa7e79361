/* SPDX-License-Identifier: BSD-2-Clause */
/* segment: see segment.h. */
#include "daemons/supervisor/survive/segment.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* MAP_FAILED: errno says why. */
static void *map_it(int fd)
{
    void *at = mmap(NULL, SEGMENT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (at != MAP_FAILED)
        madvise(at, SEGMENT_SIZE, MADV_DONTDUMP); /* it holds what people say */
    return at;
}

struct segment *segment_new_fd(int *fd)
{
    void *at = MAP_FAILED;
    *fd = memfd_create("polder-websockets", MFD_CLOEXEC);
    if (*fd < 0)
        return NULL;
    if (ftruncate(*fd, (off_t)SEGMENT_SIZE) == 0)
        at = map_it(*fd);
    if (at == MAP_FAILED) {
        const int code = errno;
        close(*fd);
        errno = code;
        return NULL;
    }
    struct segment *g = at;
    g->layout = SEGMENT_LAYOUT;
    g->slot_size = sizeof(struct slot);
    g->size = SEGMENT_SIZE;
    g->reading.slot = UINT32_MAX;
    return g;
}

static bool segment_is_ours(const struct segment *g)
{
    return g->layout == SEGMENT_LAYOUT && g->slot_size == sizeof(struct slot) &&
           g->size == SEGMENT_SIZE;
}

struct segment *segment_map(int fd)
{
    struct stat st;
    void *at = MAP_FAILED;
    if (fstat(fd, &st) == 0 && (size_t)st.st_size == SEGMENT_SIZE)
        at = map_it(fd);
    if (fd >= 0)
        close(fd);
    if (at == MAP_FAILED)
        return NULL;
    if (segment_is_ours(at))
        return at;
    munmap(at, SEGMENT_SIZE);
    return NULL;
}

void segment_free(struct segment *g)
{
    if (g)
        munmap(g, SEGMENT_SIZE);
}
