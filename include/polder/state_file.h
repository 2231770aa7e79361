/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * state_file: a small file in state_dir, read and written as a whole. Written to a temporary file
 * beside it (NAME.new), synced and renamed: a crash leaves the old one or the new one. One process
 * writes a file of that name; any may read it.
 */
#ifndef POLDER_STATE_FILE_H
#define POLDER_STATE_FILE_H
#include <stddef.h>

/* Reads all of it into *bytes, malloc'd and owned by the caller; NULL if there is no file. 0 or a
 * negative errno: -EPROTO: it is no regular file; -EFBIG: it is longer than `max`. */
int state_file_read(const char *state_dir, const char *name, size_t max, char **bytes, size_t *len);
/* 0 or a negative errno: the old file is still there, or the new one may not be on disk yet. */
int state_file_write(const char *state_dir, const char *name, const char *bytes, size_t len);

#endif
