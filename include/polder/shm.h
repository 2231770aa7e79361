/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shm: segments of shared memory.
 *
 * A segment is a sealed memfd (F_SEAL_SHRINK|F_SEAL_GROW: it cannot be truncated, so no SIGBUS) or,
 * for what must outlive all processes, a private file under state_dir. Each starts with a header;
 * `magic` is stored last, so a segment whose creator died half way is never taken for a complete
 * one. Created by the master before it forks; children inherit the mapping at the same address.
 */
#ifndef POLDER_SHM_H
#define POLDER_SHM_H
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define SHM_MAGIC UINT64_C(0x7265646c6f50a11e)

enum shm_kind {
    SHM_PROC = 1,
    SHM_STATS,
    SHM_LIMIT,
    SHM_INVAL,
    SHM_FETCH_LOCK,
    SHM_REF,
    SHM_RING,
    SHM_CONFIG,
    SHM_HISTORY,
    SHM_GUARD,
    SHM_CONDITIONS,
    SHM_SERVERS,
    SHM_ALERTS,
    SHM_RECENT,
    SHM_SHIFT,
    SHM_STICKY,
    SHM_LIMIT_ROWS,
    SHM_FLEET,
    SHM_FLEET_GRANTS,
    SHM_FLEET_SLOTS,
};

struct shm_header {
    _Alignas(64) _Atomic uint64_t magic; /* 0 until fully initialised; stored last (release) */
    uint32_t kind, abi;                  /* enum shm_kind; layout number of that kind */
    uint64_t layout;                     /* sizeof/offsetof of the body mixed together */
    uint64_t size;                       /* of the whole segment, bytes */
    uint8_t boot_id[16];                 /* /proc/sys/kernel/random/boot_id of the creator */
    uint8_t uuid[16];                    /* random, names this incarnation of the segment */
};
_Static_assert(sizeof(struct shm_header) == 64, "wire format");

struct shm_segment {
    void *base; /* starts with a struct shm_header */
    size_t size;
    int fd; /* CLOEXEC */
};

/* A zeroed, sealed memfd of size bytes, mapped shared; header filled but not published.
 * 0 or a negative errno. */
int shm_create(struct shm_segment *seg, const char *name, enum shm_kind kind, uint32_t abi,
               uint64_t layout, size_t size);
/* The same in a file (0600, fallocated). *reused tells whether a published segment of the same
 * kind, abi, layout and size was found and mapped as it is; otherwise it is zeroed and new. */
int shm_create_file(struct shm_segment *seg, const char *path, enum shm_kind kind, uint32_t abi,
                    uint64_t layout, size_t size, int *reused);
/* Maps fd, the descriptor of a segment that other processes use just now, and takes it over. 0; -EPROTO
 * if it is none of this kind, abi, layout and size, and then nothing has changed. */
int shm_adopt(struct shm_segment *seg, int fd, enum shm_kind kind, uint32_t abi, uint64_t layout,
              size_t size);
/* Stores the magic: from now on readers may trust the contents. */
void shm_publish(struct shm_segment *seg);
/* 0 if seg is published and of this kind, abi and layout; else -EPROTO. */
int shm_check(const struct shm_segment *seg, enum shm_kind kind, uint32_t abi, uint64_t layout);
void shm_close(struct shm_segment *seg);
/* Fills 16 bytes with the kernel's boot id; 0 or a negative errno. */
int shm_boot_id(uint8_t id[16]);

#endif
