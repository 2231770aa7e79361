/* SPDX-License-Identifier: BSD-2-Clause */
/* Whose name a Host is: whatever is taken is an address or one of the names that there are, however
 * it is written; and it is the same with another port. */
#include "daemons/control/ops/host.c"
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Without letters but those of the names below, it is an address. */
static bool may_be_ours(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!text[i] || !strchr("0123456789abcdefABCDEF.:[]", text[i]))
            return memmem(text, len, "o", 1) || memmem(text, len, "O", 1); /* localhost, ops, box */
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const hosts[] = {"ops.example"};
    static char port[600];
    const struct config c = {
        .ops_listen = {.len = 16, .text = "box:9145"}, .ops_hosts = hosts, .n_ops_hosts = 1};
    const char *text = (const char *)data;
    if (!size || size > 500)
        return 0;
    const bool ours = host_is_ours(&c, (struct str){text, size});
    if (ours && !may_be_ours(text, size))
        abort();
    if (memchr(text, ':', size) && *text != '[')
        return 0;
    memcpy(port, text, size);
    memcpy(port + size, ":99", 3);
    if (host_is_ours(&c, (struct str){port, size + 3}) != ours && *text != '[')
        abort();
    return 0;
}
