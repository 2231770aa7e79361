/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kept: segments of shared memory that a restart, or the death of all processes, leaves as they
 * are.
 *
 * Such a segment lies in a sealed memfd whose descriptor is held elsewhere (the descriptor store of the
 * service manager, or this process across an execve), or in a file of the runtime directory. It is
 * used again only if it is of this boot, kind, layout and size, was published, cannot be truncated
 * or written by others, and if mend(), which looks at each row, finds nothing that a death between
 * two instructions cannot have left. Anything else is started anew, and `why` says so; it is never
 * read as something that it is not.
 *
 * Monotonic times in it stay valid, since the boot is the same. Processes that were named in it are
 * dead: mend() lets go of what they held. The caller has the lock of state_dir, so no process of an
 * earlier run is left that could still write; a file is locked too.
 */
#ifndef POLDER_KEPT_H
#define POLDER_KEPT_H
#include "polder/shm.h"
#include <stdbool.h>

struct kept_request {
    const char *name;
    enum shm_kind kind;
    uint32_t abi;
    uint64_t layout;
    size_t size;
    uint64_t mono_ms, real_ms; /* now */
    /* Repairs what a death may have left in a segment whose header is right, and drops rows that
     * cannot be. fd: to skip what was never written. NULL, or why none of it can be used. */
    const char *(*mend)(void *base, int fd, const struct kept_request *want);
};

/* A segment by a descriptor of an earlier run, which it takes over (and closes where it is not used).
 * 0, or -EPROTO with the reason in why. */
int kept_adopt(struct shm_segment *seg, const struct kept_request *want, int fd, char *why,
               size_t size);
/* The segment that the file backs; *found: it was there and is used again; else it is new, zeroed,
 * and not published, with the reason in why, or "" where there was no file. 0 or a negative errno:
 * -EBUSY: another process uses it. */
int kept_file(struct shm_segment *seg, const struct kept_request *want, const char *path,
              bool *found, char *why, size_t size);

#endif
