/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * state_msgpack: one msgpack value in a file of state_dir (state_file.h), read whole or not at all.
 */
#ifndef POLDER_STATE_MSGPACK_H
#define POLDER_STATE_MSGPACK_H
#include <msgpack.h>
#include <stdbool.h>

/* Shows the file's value to take(), which lasts no longer than that call; what it returns is
 * returned. 0 where there is no file; -EPROTO where it is no such value. */
int state_msgpack_read(const char *state_dir, const char *name,
                       int (*take)(void *arg, const msgpack_object *value), void *arg);
/* Writes what put() packs. -EFBIG: more than could be read again. */
int state_msgpack_write(const char *state_dir, const char *name,
                        void (*put)(msgpack_packer *pk, const void *arg), const void *arg);
void state_msgpack_text(msgpack_packer *pk, const char *text);

/* What reading returned: the file is damaged, or not ours, and may be written anew. */
bool state_msgpack_is_foreign(int code);
/* The same for a log line. */
const char *state_msgpack_fault(int code);
#endif
