/* SPDX-License-Identifier: BSD-2-Clause */
/* state_msgpack: see state_msgpack.h. */
#include "polder/state_msgpack.h"
#include "polder/rpc.h"
#include "polder/state_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int unpack(const char *bytes, size_t len,
                  int (*take)(void *arg, const msgpack_object *value), void *arg)
{
    /* the scan bounds what msgpack-c would allocate */
    if (rpc_scan((const uint8_t *)bytes, len) != (int64_t)len)
        return -EPROTO;
    msgpack_unpacked u;
    msgpack_unpacked_init(&u);
    int code = -EPROTO;
    if (msgpack_unpack_next(&u, bytes, len, NULL) == MSGPACK_UNPACK_SUCCESS)
        code = take(arg, &u.data);
    msgpack_unpacked_destroy(&u);
    return code;
}

int state_msgpack_read(const char *state_dir, const char *name,
                       int (*take)(void *arg, const msgpack_object *value), void *arg)
{
    char *bytes;
    size_t len;
    int code = state_file_read(state_dir, name, RPC_MESSAGE_MAX, &bytes, &len);
    if (!code && bytes)
        code = unpack(bytes, len, take, arg);
    free(bytes);
    return code;
}

int state_msgpack_write(const char *state_dir, const char *name,
                        void (*put)(msgpack_packer *pk, const void *arg), const void *arg)
{
    msgpack_sbuffer buf;
    msgpack_packer pk;
    msgpack_sbuffer_init(&buf);
    msgpack_packer_init(&pk, &buf, msgpack_sbuffer_write);
    put(&pk, arg);
    const int code = buf.size <= RPC_MESSAGE_MAX
                         ? state_file_write(state_dir, name, buf.data, buf.size)
                         : -EFBIG;
    msgpack_sbuffer_destroy(&buf);
    return code;
}

void state_msgpack_text(msgpack_packer *pk, const char *text)
{
    const size_t len = strlen(text);
    msgpack_pack_str(pk, len);
    msgpack_pack_str_body(pk, text, len);
}

bool state_msgpack_is_foreign(int code)
{
    return code == -EPROTO || code == -EFBIG;
}

const char *state_msgpack_fault(int code)
{
    return state_msgpack_is_foreign(code) ? "it is damaged, or not ours" : strerror(-code);
}
