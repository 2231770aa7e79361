/* SPDX-License-Identifier: BSD-2-Clause */
/* kept: which segments of an earlier run are used again; see kept.h. */
#include "polder/kept.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEPT_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

/* NULL: it can be used. */
static const char *header_fault(const struct shm_header *h, const struct kept_request *want)
{
    uint8_t boot[16];
    if (atomic_load_explicit(&h->magic, memory_order_acquire) != SHM_MAGIC)
        return "it was not complete";
    if (h->kind != (uint32_t)want->kind)
        return "it is another segment";
    if (h->abi != want->abi || h->layout != want->layout)
        return "another version has made it";
    if (h->size != want->size)
        return "its header has another size";
    if (shm_boot_id(boot) < 0 || memcmp(boot, h->boot_id, sizeof boot) != 0)
        return "it is from before the last boot";
    return NULL;
}

/* Of a regular file. */
static const char *size_fault(const struct stat *st, const struct kept_request *want)
{
    if (st->st_size == (off_t)want->size)
        return NULL;
    return st->st_size < (off_t)want->size ? "it is smaller: truncated, or of other settings"
                                           : "it is larger: of other settings";
}

/* Maps it and looks at what is in it. NULL: seg is it, with fd. */
static const char *kept_map(struct shm_segment *seg, const struct kept_request *want, int fd)
{
    void *base = mmap(NULL, want->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return "it cannot be mapped";
    const char *fault = header_fault(base, want);
    if (!fault && want->mend)
        fault = want->mend(base, fd, want);
    if (fault)
        munmap(base, want->size);
    else
        *seg = (struct shm_segment){base, want->size, fd};
    return fault;
}

static const char *memory_fault(const struct kept_request *want, int fd)
{
    struct stat st;
    const int seals = fcntl(fd, F_GET_SEALS);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return "its descriptor is no memory";
    if (seals < 0 || (seals & KEPT_SEALS) != KEPT_SEALS)
        return "it is not sealed";
    return size_fault(&st, want);
}

int kept_adopt(struct shm_segment *seg, const struct kept_request *want, int fd, char *why,
               size_t size)
{
    const char *fault = memory_fault(want, fd);
    if (!fault)
        fault = kept_map(seg, want, fd);
    snprintf(why, size, "%s", fault ? fault : "");
    if (!fault)
        return 0;
    close(fd);
    return -EPROTO;
}

/* ---- in a file ---- */

static const char *file_fault(const struct kept_request *want, const struct stat *st)
{
    if (!S_ISREG(st->st_mode))
        return "it is no regular file";
    if (st->st_uid != geteuid())
        return "it belongs to another user";
    if (st->st_nlink != 1)
        return "it has another name too";
    if (st->st_mode & (S_IWGRP | S_IWOTH))
        return "others may write it";
    return size_fault(st, want);
}

/* The file that is there, used again. 0; -EBUSY; or -EPROTO: it cannot be used, with the reason in
 * why, or "": there is none. */
static int file_reuse(struct shm_segment *seg, const struct kept_request *want, const char *path,
                      char *why, size_t size)
{
    struct stat st;
    const int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        if (errno != ENOENT)
            snprintf(why, size, "%s", errno == ELOOP ? "it is a symbolic link" : strerror(errno));
        return -EPROTO;
    }
    const char *fault = fstat(fd, &st) < 0 ? strerror(errno) : file_fault(want, &st);
    if (!fault && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return -EBUSY;
    }
    /* Fills holes and keeps the contents: a sparse file is a SIGBUS where there is no room. */
    const int no_room = fault ? 0 : posix_fallocate(fd, 0, (off_t)want->size);
    if (no_room)
        fault = strerror(no_room);
    if (!fault)
        fault = kept_map(seg, want, fd);
    if (!fault)
        return 0;
    snprintf(why, size, "%s", fault);
    close(fd);
    return -EPROTO;
}

static int file_new(struct shm_segment *seg, const struct kept_request *want, const char *path)
{
    int reused, rc;
    if (unlink(path) < 0 && errno != ENOENT)
        return -errno;
    rc = shm_create_file(seg, path, want->kind, want->abi, want->layout, want->size, &reused);
    if (rc < 0) {
        unlink(path);
        return rc;
    }
    return flock(seg->fd, LOCK_EX | LOCK_NB) < 0 ? (shm_close(seg), -EBUSY) : 0;
}

int kept_file(struct shm_segment *seg, const struct kept_request *want, const char *path,
              bool *found, char *why, size_t size)
{
    why[0] = '\0';
    const int rc = file_reuse(seg, want, path, why, size);
    *found = rc == 0;
    return rc == -EPROTO ? file_new(seg, want, path) : rc;
}
