/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cache_warm: cache.warm. Control fetches nothing itself: the first worker does, at the share of
 * the backend that fetches ahead may have, and answers when it is through, or out of time.
 */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"

#include <errno.h>
#include <string.h>

#define URLS_MAX   1000
#define URL_BYTES  8400         /* a target of 8 KiB and a host */
#define URLS_BYTES (512u << 10) /* of all: they come back in the answer */
#define ANSWER_MS  65000        /* more than the worker takes */

static bool is_text(const msgpack_object *o)
{
    return o->type == MSGPACK_OBJECT_STR && o->via.str.size &&
           !memchr(o->via.str.ptr, 0, o->via.str.size);
}

/* True: they may be asked for; else the call is answered. */
static bool check_urls(struct control *c, const struct rpc_call *call, const msgpack_object *list)
{
    size_t bytes = 0;
    if (list->via.array.size > URLS_MAX) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "%u URLs; at most %u in a call",
                   list->via.array.size, URLS_MAX);
        return false;
    }
    for (uint32_t i = 0; i < list->via.array.size; i++) {
        const msgpack_object *o = &list->via.array.ptr[i];
        if (!is_text(o)) {
            call_error(c, call->reply, RPC_BAD_ARGUMENT,
                       "URL %u is empty, no text, or has a NUL in it", i + 1);
            return false;
        }
        if (o->via.str.size > URL_BYTES) {
            call_error(c, call->reply, RPC_BAD_ARGUMENT,
                       "URL %u has %u bytes; no request could ask for more than 8192", i + 1,
                       o->via.str.size);
            return false;
        }
        bytes += o->via.str.size;
    }
    if (bytes > URLS_BYTES)
        call_error(c, call->reply, RPC_BAD_ARGUMENT,
                   "the URLs have %zu bytes; at most %u in a call", bytes, URLS_BYTES);
    return bytes <= URLS_BYTES;
}

void cache_warm(struct control *c, const struct rpc_call *call)
{
    const msgpack_object *list = rpc_in_get(call->params, "url");
    struct rpc_out params;
    if (!check_urls(c, call, list))
        return;
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    rpc_out_object(&params, "url", list);
    rpc_out_end(&params);
    call_forward_for(c, call->reply, &c->peers.worker, "cache.warm", &params, ANSWER_MS);
}
