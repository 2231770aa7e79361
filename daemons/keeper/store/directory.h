/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * directory: state_dir/cache.<epoch>/ on the disk, and the flag in it that says that it was closed
 * well. Which one is the store's is decided in rotate.c.
 */
#ifndef POLDER_KEEPER_STORE_DIRECTORY_H
#define POLDER_KEEPER_STORE_DIRECTORY_H
#include <stdbool.h>
#include <stdint.h>

#define EPOCH_MAX (UINT64_C(1) << 62) /* there is always a next one */

void directory_remove(const char *state_dir, uint64_t epoch);
/* The newest epoch on disk, 0: none. Removes all but `keep`, where keep is not 0. */
#define DIRECTORY_KEEP_NONE UINT64_MAX
uint64_t directory_scan(const char *state_dir, uint64_t keep);

/* The flag holds the number of the last invalidation that reached the disk with the store. */
bool directory_clean_read(const char *dir, uint64_t *seq);
void directory_clean_write(const char *dir, uint64_t seq);
void directory_clean_remove(const char *dir);
#endif
