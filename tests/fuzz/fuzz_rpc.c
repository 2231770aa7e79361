/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as messages of the admin socket: measured whole and in pieces, parsed, checked against
 * the table of methods. */
#include "daemons/rpc/message.h"
#include "polder/rpc.h"
#include "polder/rpc_in.h"
#include "polder/rpc_out.h"

#include <stdlib.h>
#include <string.h>

static void parse(const uint8_t *data, size_t len)
{
    struct rpc_message m;
    msgpack_unpacked space;
    const char *why = NULL;
    char text[256];
    msgpack_unpacked_init(&space);
    if (rpc_message_read(&space, data, len, &m, &why)) {
        if (!why)
            abort();
    } else if (m.type != RPC_RESPONSE) {
        const int found = rpc_method_find(m.method, m.method_len);
        for (int method = 0; method < RPC_METHODS; method++)
            if (found < 0 || found == method)
                rpc_in_check((enum rpc_method)method, m.params, text, sizeof text);
        struct rpc_out o;
        rpc_out_init(&o);
        rpc_out_object(&o, NULL, m.params);
        if (rpc_scan((const uint8_t *)o.buffer.data, o.buffer.size) != (int64_t)o.buffer.size)
            abort();
        rpc_out_fini(&o);
    }
    msgpack_unpacked_destroy(&space);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const int64_t whole = rpc_scan(data, size);
    struct rpc_scan_state state = {0};
    int64_t pieces = 0;
    size_t n = 0;
    while (pieces == 0 && n < size)
        pieces = rpc_scan_on(&state, data, ++n);
    /* in pieces the end may be seen earlier than something wrong behind it, never otherwise */
    if (pieces != whole || whole > (int64_t)size)
        abort();
    if (whole > 0)
        parse(data, (size_t)whole);
    return 0;
}
