/* SPDX-License-Identifier: BSD-2-Clause */
/* segment: see segment.h. */
#include "daemons/supervisor/survive/segment.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u

static size_t to_page(size_t n)
{
    return (n + PAGE - 1) / PAGE * PAGE;
}

struct segment *segment_new_fd(uint32_t n_slots, int *fd)
{
    const size_t slots_at = to_page(sizeof(struct segment)),
                 blocks_at = slots_at + to_page((size_t)n_slots * sizeof(struct slot)),
                 size = blocks_at + (size_t)SEGMENT_BLOCKS * SEGMENT_BLOCK;
    void *at = MAP_FAILED;
    *fd = memfd_create("polder-websockets", MFD_CLOEXEC);
    if (*fd < 0)
        return NULL;
    if (ftruncate(*fd, (off_t)size) == 0)
        at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, *fd, 0);
    if (at == MAP_FAILED) {
        const int code = errno;
        close(*fd);
        errno = code;
        return NULL;
    }
    madvise(at, size, MADV_DONTDUMP); /* it holds what people say */
    struct segment *g = at;
    g->layout = SEGMENT_LAYOUT;
    g->n_slots = n_slots;
    g->slots_at = slots_at;
    g->blocks_at = blocks_at;
    g->size = size;
    g->reading.slot = UINT32_MAX;
    return g;
}

static bool is_sound(const struct segment *g, size_t size)
{
    return g->layout == SEGMENT_LAYOUT && g->size == size &&
           g->slots_at == to_page(sizeof(struct segment)) && g->blocks_at <= size &&
           g->n_slots <= (g->blocks_at - g->slots_at) / sizeof(struct slot) &&
           (size - g->blocks_at) / SEGMENT_BLOCK == SEGMENT_BLOCKS;
}

struct segment *segment_map(int fd)
{
    struct stat st;
    void *at = MAP_FAILED;
    if (fstat(fd, &st) == 0 && (size_t)st.st_size > sizeof(struct segment))
        at = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
                  0);
    close(fd);
    if (at == MAP_FAILED)
        return NULL;
    if (is_sound(at, (size_t)st.st_size)) {
        madvise(at, (size_t)st.st_size, MADV_DONTDUMP);
        return at;
    }
    munmap(at, (size_t)st.st_size);
    return NULL;
}

void segment_free(struct segment *g)
{
    if (g)
        munmap(g, g->size);
}
