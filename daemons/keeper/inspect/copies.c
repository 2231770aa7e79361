/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * copies: the copies of a stored response in content codings, for `cache why`: which there are,
 * what they save, and which one a request with a given Accept-Encoding would get. Workers make and
 * choose them (compress_stored.c, deliver.c).
 */
#include "daemons/keeper/inspect/inspect.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

bool copies_ask(const struct rpc_call *call, struct job *j)
{
    char text[QUERY_ACCEPT_MAX];
    const int len = rpc_in_text(call->params, "accept-encoding", text, sizeof text);
    if (len == -EINVAL) {
        rpc_reply_error(call->reply, RPC_BAD_ARGUMENT,
                        "accept-encoding: at most %u bytes, as a client would send them",
                        QUERY_ACCEPT_MAX - 1);
        return false;
    }
    j->asks_coding = len >= 0;
    if (len > 0)
        j->coding =
            coding_choose((struct str){text, (size_t)len}, j->route.compress, j->route.n_compress);
    return true;
}

/* The copy of r in that coding, or NULL: it was not made, or is of what was stored before. */
static const struct cache_record *copy_of(const struct keeper *k, struct MDB_txn *txn,
                                          const struct cache_record *r, enum coding coding)
{
    struct cache_key key;
    cache_key_encoded(inval_secret(k->shared->inval), &r->key, coding_name(coding), &key);
    const struct cache_record *copy = store_find(&k->store, txn, &key, cache_record_sound);
    return copy && copy->flags & CACHE_ENCODED && copy->source_id == r->obj_id ? copy : NULL;
}

static void put_copy(const struct keeper *k, struct rpc_out *o, enum coding coding,
                     const struct cache_record *copy)
{
    const uint32_t slot = copy ? store_slot_of(&k->store, copy) : EVICT_NONE;
    rpc_out_map(o, NULL);
    rpc_out_str(o, "coding", coding_name(coding));
    rpc_out_str(o, "copy",
                !copy            ? "not made: not requested yet, or being made"
                : copy->body_len ? "there"
                                 : "none: it would not save a tenth");
    rpc_out_u64(o, "bytes", copy ? copy->body_len : 0);
    rpc_out_u64(o, "stored_bytes",
                slot == EVICT_NONE ? 0 : (uint64_t)k->store.items[slot].units * STORE_UNIT);
    rpc_out_end(o);
}

static bool is_offered(const struct query_route *route, enum coding coding)
{
    for (uint32_t i = 0; i < route->n_compress; i++)
        if (route->compress[i] == coding)
            return true;
    return false;
}

/* As workers choose. */
static void put_chosen(const struct keeper *k, const struct job *j, const struct cache_record *r,
                       const struct cache_record *copy)
{
    char text[80];
    const char *name = coding_name(j->coding);
    if (!(r->flags & CACHE_COMPRESSIBLE) || j->coding == CODING_IDENTITY)
        snprintf(text, sizeof text, "identity");
    else if (!copy && !(r->flags & CACHE_CHUNKED_BODY) &&
             k->real_ms < r->received_ms + CACHE_COPY_SOON_MS)
        snprintf(text, sizeof text, "%s, made for it, and a copy is made behind it", name);
    else if (!copy)
        snprintf(text, sizeof text, "identity, and %s is made behind it", name);
    else if (!copy->body_len)
        snprintf(text, sizeof text, "identity: %s would not save a tenth", name);
    else
        snprintf(text, sizeof text, "%s", name);
    rpc_out_str(j->out, "next_coding", text);
}

void copies_put(const struct keeper *k, const struct job *j, struct MDB_txn *txn,
                const struct cache_record *r, bool hit)
{
    const struct cache_record *copy[CODINGS] = {NULL};
    for (unsigned i = CODING_IDENTITY + 1; i < CODINGS; i++)
        copy[i] = copy_of(k, txn, r, (enum coding)i);
    if (j->asks_coding && hit)
        put_chosen(k, j, r, copy[j->coding]);
    rpc_out_list(j->out, "copies");
    for (unsigned i = CODING_IDENTITY + 1; i < CODINGS; i++)
        if (copy[i] || (r->flags & CACHE_COMPRESSIBLE && is_offered(&j->route, (enum coding)i)))
            put_copy(k, j->out, (enum coding)i, copy[i]);
    rpc_out_end(j->out);
}
