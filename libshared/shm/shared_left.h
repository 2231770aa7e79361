/* SPDX-License-Identifier: BSD-2-Clause */
/* shared_left: the segments of struct shared that the program before has left and that other processes
 * use just now. Private to shared.c and shared_kept.c. */
#ifndef POLDER_LIBSHARED_SHM_SHARED_LEFT_H
#define POLDER_LIBSHARED_SHM_SHARED_LEFT_H
#include "polder/shared.h"

/* -1: it was not left. */
int left_fd(const struct shared_options *opt, const char *name);
/* Takes it over into seg; false: it was not left, or has another layout and was refused. */
bool left_adopt(struct shared *sh, const struct shared_options *opt, struct shared_segment *seg,
                enum shm_kind kind, uint32_t abi, uint64_t layout, size_t size);
/* Those who use it keep it; it is of no use here, and named in shared.anew. */
void left_refuse(struct shared *sh, const struct shared_options *opt, const char *name);

#endif
