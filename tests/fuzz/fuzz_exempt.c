/* SPDX-License-Identifier: BSD-2-Clause */
/* A list that was taken fits, has all its parts, and its networks are read as they are written. */
#include "polder/exempt.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct exempt list;
    struct clientip ip = {{0}};
    struct clientip_net net;
    char wrong[32], text[64];
    const char *why = NULL;
    char *line = malloc(size + 1);
    memcpy(line, data, size);
    line[size] = 0;
    if (exempt_parse(&list, line, wrong, sizeof wrong, &why) == 0) {
        size_t bytes = 0;
        for (const char *v = NULL; (v = exempt_next(&list, v)); bytes += strlen(v) + 1)
            if (!*v || !exempt_has(&list, &ip, v, strlen(v)))
                abort();
        if (bytes != list.text_len || list.n_nets > EXEMPT_NETS_MAX)
            abort();
        for (uint32_t i = 0; i < list.n_nets; i++) {
            clientip_net_format(&list.net[i], text);
            if (clientip_net_parse(text, &net) || net.bits != list.net[i].bits)
                abort();
        }
    } else if (!why) {
        abort();
    }
    free(line);
    return 0;
}
