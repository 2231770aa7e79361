/* SPDX-License-Identifier: BSD-2-Clause */
/* message: one MessagePack-RPC message, out of bytes that rpc_scan() has measured. */
#ifndef POLDER_DAEMONS_RPC_MESSAGE_H
#define POLDER_DAEMONS_RPC_MESSAGE_H
#include "polder/rpc.h"
#include <msgpack.h>

enum rpc_message_type { RPC_REQUEST, RPC_RESPONSE, RPC_NOTIFICATION };

struct rpc_message {
    enum rpc_message_type type;
    bool has_id;
    uint32_t id;
    const char *method; /* requests, notifications; not NUL-terminated */
    size_t method_len;
    const msgpack_object *params;         /* the same: a map, maybe an empty one */
    const msgpack_object *error, *result; /* responses */
};

/* Everything lives in `space` (initialised by the caller, destroyed by the caller) and points into
 * `bytes`. 0, or -EPROTO with the reason; then has_id and id are set if they could be told. */
int rpc_message_read(msgpack_unpacked *space, const void *bytes, size_t len, struct rpc_message *m,
                     const char **why);
#endif
