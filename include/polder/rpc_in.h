/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rpc_in: reads maps that came over the admin protocol: parameters in a daemon, results in
 * polderctl. Nothing is trusted; a value of another type counts as absent.
 */
#ifndef POLDER_RPC_IN_H
#define POLDER_RPC_IN_H
#include "polder/rpc.h"
#include <msgpack.h>
#include <stdbool.h>

/* The value of a key, NULL where absent or nil. */
const msgpack_object *rpc_in_get(const msgpack_object *map, const char *key);
bool rpc_in_is(const msgpack_object *object, const char *text); /* equal to that string */
/* A string as NUL-terminated text; also a number or a boolean, written out. Length, or -ENOENT:
 * absent; -EINVAL: of another type, too long, or with a NUL in it. */
int rpc_in_text(const msgpack_object *map, const char *key, char *out, size_t size);
/* A whole number, also as text. 0, -ENOENT, -EINVAL, -ERANGE (above max). */
int rpc_in_u64(const msgpack_object *map, const char *key, uint64_t max, uint64_t *out);
/* A number of any kind; `absent` if there is none. */
double rpc_in_f64(const msgpack_object *map, const char *key, double absent);
/* true, also where "true", "yes", "on" or 1 is written; `absent` where the key is missing. */
bool rpc_in_flag(const msgpack_object *map, const char *key);
/* The same for one object. */
int rpc_in_object_text(const msgpack_object *object, char *out, size_t size);

/* Checks parameters against the method's row in the table. 0, or -EINVAL with the reason, which
 * names the parameter, in why. */
int rpc_in_check(enum rpc_method method, const msgpack_object *params, char *why, size_t size);
#endif
