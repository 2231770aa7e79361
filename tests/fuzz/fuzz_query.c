/* SPDX-License-Identifier: BSD-2-Clause */
/* The parameters of ops pages: what is decoded lies within the text and the buffer, has no control
 * characters, and nothing is lost between the pieces. */
#include "daemons/control/ops/query.c"

#include <stdint.h>
#include <stdlib.h>

static void check_decoded(struct str text)
{
    char out[64];
    memset(out, 'x', sizeof out);
    const int n = query_decode(text, out, sizeof out);
    if (n < 0)
        return;
    if (n >= (int)sizeof out || out[n] || (size_t)n > text.len)
        abort();
    for (int i = 0; i < n; i++)
        if ((unsigned char)out[i] < ' ' || out[i] == 0x7f)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = malloc(size + 1); /* so that a byte behind the end is seen */
    memcpy(copy, data, size);
    struct str rest = {size ? copy : NULL, size}, name, value, element;
    size_t sum = 0;
    while (query_next(&rest, &name, &value)) {
        sum += name.len + value.len;
        check_decoded(name);
        check_decoded(value);
        while (query_element(&value, &element))
            check_decoded(element);
    }
    if (sum > size || rest.len)
        abort();
    free(copy);
    return 0;
}
