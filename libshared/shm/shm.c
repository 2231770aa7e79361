/* SPDX-License-Identifier: BSD-2-Clause */
/* shm: sealed memfds and private files, mapped shared, with a header that is finished last. */
#include "polder/shm.h"
#include "polder/random.h"
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int shm_hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

int shm_boot_id(uint8_t id[16])
{
    char text[64];
    const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    const ssize_t n = read(fd, text, sizeof text);
    close(fd);
    size_t nibbles = 0;
    memset(id, 0, 16);
    for (ssize_t i = 0; i < n && nibbles < 32; i++) {
        const int v = shm_hex(text[i]);
        if (v < 0)
            continue;
        id[nibbles / 2] = (uint8_t)(id[nibbles / 2] << 4 | v);
        nibbles++;
    }
    return nibbles == 32 ? 0 : -EPROTO;
}

static int shm_header_fill(struct shm_header *h, enum shm_kind kind, uint32_t abi, uint64_t layout,
                           size_t size)
{
    h->kind = kind;
    h->abi = abi;
    h->layout = layout;
    h->size = size;
    const int rc = shm_boot_id(h->boot_id);
    if (rc < 0)
        return rc;
    random_fill(h->uuid, sizeof h->uuid);
    return 0;
}

static int shm_map(struct shm_segment *seg, int fd, size_t size)
{
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    *seg = (struct shm_segment){base, size, fd};
    return 0;
}

int shm_create(struct shm_segment *seg, const char *name, enum shm_kind kind, uint32_t abi,
               uint64_t layout, size_t size)
{
    if (size < sizeof(struct shm_header))
        return -EINVAL;
    const int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    int rc = 0;
    if (ftruncate(fd, (off_t)size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        rc = -errno;
    else
        rc = shm_map(seg, fd, size);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    rc = shm_header_fill(seg->base, kind, abi, layout, size);
    if (rc < 0)
        shm_close(seg);
    return rc;
}

/* Blocks are allocated now: a full disk is an error here, not a SIGBUS later. */
static int shm_file_renew(int fd, size_t size)
{
    if (ftruncate(fd, 0) < 0)
        return -errno;
    return -posix_fallocate(fd, 0, (off_t)size);
}

int shm_create_file(struct shm_segment *seg, const char *path, enum shm_kind kind, uint32_t abi,
                    uint64_t layout, size_t size, int *reused)
{
    struct stat st;
    int rc;
    *reused = 0;
    if (size < sizeof(struct shm_header))
        return -EINVAL;
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0) {
        rc = -errno;
        goto fail;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = -EINVAL;
        goto fail;
    }
    if (st.st_size == (off_t)size) {
        /* Fills holes and keeps the contents: a sparse file is a SIGBUS on a full disk. */
        rc = -posix_fallocate(fd, 0, (off_t)size);
        if (rc < 0 || (rc = shm_map(seg, fd, size)) < 0)
            goto fail;
        if (shm_check(seg, kind, abi, layout) == 0) {
            *reused = 1;
            return 0;
        }
        munmap(seg->base, seg->size);
    }
    if ((rc = shm_file_renew(fd, size)) < 0 || (rc = shm_map(seg, fd, size)) < 0)
        goto fail;
    rc = shm_header_fill(seg->base, kind, abi, layout, size);
    if (rc < 0)
        shm_close(seg);
    return rc;
fail:
    close(fd);
    return rc;
}

int shm_adopt(struct shm_segment *seg, int fd, enum shm_kind kind, uint32_t abi, uint64_t layout,
              size_t size)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (size < sizeof(struct shm_header) || st.st_size != (off_t)size)
        return -EPROTO;
    int rc = shm_map(seg, fd, size);
    if (rc == 0 && (rc = shm_check(seg, kind, abi, layout)) < 0) {
        munmap(seg->base, seg->size);
        *seg = (struct shm_segment){NULL, 0, -1};
    }
    return rc;
}

void shm_publish(struct shm_segment *seg)
{
    struct shm_header *h = seg->base;
    atomic_store_explicit(&h->magic, SHM_MAGIC, memory_order_release);
}

int shm_check(const struct shm_segment *seg, enum shm_kind kind, uint32_t abi, uint64_t layout)
{
    const struct shm_header *h = seg->base;
    if (atomic_load_explicit(&h->magic, memory_order_acquire) != SHM_MAGIC)
        return -EPROTO;
    if (h->kind != (uint32_t)kind || h->abi != abi || h->layout != layout || h->size != seg->size)
        return -EPROTO;
    return 0;
}

void shm_close(struct shm_segment *seg)
{
    if (seg->base)
        munmap(seg->base, seg->size);
    if (seg->fd >= 0)
        close(seg->fd);
    *seg = (struct shm_segment){NULL, 0, -1};
}
