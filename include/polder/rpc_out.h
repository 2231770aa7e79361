/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rpc_out: writes one msgpack value piece by piece, without counting elements beforehand.
 *
 * Each put takes its key; NULL inside a list and for the outermost value. Maps and
 * lists are opened and ended; the element count is filled in at the end. No call returns an error:
 * lack of memory, or more than RPC_DEPTH_MAX open at once, sets `failed`.
 */
#ifndef POLDER_RPC_OUT_H
#define POLDER_RPC_OUT_H
#include "polder/rpc.h"
#include <msgpack.h>
#include <stdbool.h>

struct rpc_out {
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    bool failed;
    unsigned depth;
    struct {
        size_t head; /* where the count belongs */
        uint32_t n;
    } open[RPC_DEPTH_MAX];
};

void rpc_out_init(struct rpc_out *o);
void rpc_out_fini(struct rpc_out *o);

void rpc_out_map(struct rpc_out *o, const char *key);
void rpc_out_list(struct rpc_out *o, const char *key);
void rpc_out_end(struct rpc_out *o); /* of the innermost map or list */

void rpc_out_u64(struct rpc_out *o, const char *key, uint64_t value);
void rpc_out_f64(struct rpc_out *o, const char *key, double value);
void rpc_out_bool(struct rpc_out *o, const char *key, bool value);
void rpc_out_nil(struct rpc_out *o, const char *key);
void rpc_out_str(struct rpc_out *o, const char *key, const char *text);
/* Bytes that are no UTF-8 are written as '?': strings are always valid. */
void rpc_out_strn(struct rpc_out *o, const char *key, const char *text, size_t len);
void rpc_out_object(struct rpc_out *o, const char *key, const msgpack_object *value);
#endif
