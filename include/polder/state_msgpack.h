/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * state_msgpack: one msgpack value in a file of state_dir (state_file.h), read completely or not at
 * all.
 */
#ifndef POLDER_STATE_MSGPACK_H
#define POLDER_STATE_MSGPACK_H
#include <msgpack.h>
#include <stdbool.h>

/* Passes the file's value to take(), valid only during that call, and returns its result. 0 if
 * there is no file; -EPROTO if it is not a msgpack value. */
int state_msgpack_read(const char *state_dir, const char *name,
                       int (*take)(void *arg, const msgpack_object *value), void *arg);
/* Writes what put() packs. -EFBIG: more than could be read again. */
int state_msgpack_write(const char *state_dir, const char *name,
                        void (*put)(msgpack_packer *pk, const void *arg), const void *arg);
void state_msgpack_text(msgpack_packer *pk, const char *text);

/* For an error of reading: is the file damaged or foreign, so that it may be overwritten? */
bool state_msgpack_is_foreign(int code);
/* Its text for a log line. */
const char *state_msgpack_fault(int code);
#endif
