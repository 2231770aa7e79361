/* SPDX-License-Identifier: BSD-2-Clause */
/* Records as a damaged store or a broken worker may hand them over. */
#include "polder/cache.h"
#include "polder/inval.h"
#include <stdlib.h>
#include <string.h>

static volatile unsigned sink;

static void touch(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sink += (unsigned char)p[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cache_view view;
    char *bytes = aligned_alloc(8, (size + 8) & ~(size_t)7);
    memcpy(bytes, data, size);
    if (size >= 8 && data[0] == 'm') { /* past the magic more often */
        struct cache_record head;
        cache_record_init(&head);
        memcpy(bytes, &head, 8);
    }
    if (cache_record_fits(bytes, size)) {
        cache_view_of(bytes, &view);
        touch(view.url, view.record->url_len);
        touch(view.vary, view.record->vary_len);
        touch(view.head, view.record->head_len);
        if (view.body)
            touch(view.body, view.record->inline_len);
        if (view.record->n_tags > CACHE_TAGS_MAX || view.record->slot >= CACHE_SLOTS_MAX)
            abort();
    }
    if (cache_record_sound(bytes, size) && !cache_record_fits(bytes, size))
        abort();
    free(bytes);
    return 0;
}
