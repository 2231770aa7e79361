/* SPDX-License-Identifier: BSD-2-Clause */
/* The names of tags in a stored head, whatever a backend had put there. The first bytes choose the
 * slot that is looked for; what is found must really be the tag of that slot, and fit. */
#include "daemons/keeper/inspect/explain.c"
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct inval_page *page;
    struct cache_record record = {0};
    char name[32], text[64];
    if (!page) {
        page = calloc(1, inval_page_size());
        inval_page_init(page);
    }
    if (size < 2)
        return 0;
    const size_t n = data[0] % 16 + 1u < size - 1 ? data[0] % 16 + 1u : size - 1;
    const uint32_t slot = inval_tag_slot(page, data + 1, n); /* likely one that is there */
    record.head_len = (uint32_t)(size - 1);
    record.tag_slot[0] = slot;
    record.n_tags = 1;
    const struct cache_view v = {.record = &record, .head = (const char *)data + 1};
    const size_t found = explain_tag(page, &v, slot, name, sizeof name);
    if (found >= sizeof name || (found && strlen(name) > found))
        abort();
    if (found && found < sizeof name - 1 && inval_tag_slot(page, name, found) != slot)
        abort();
    const struct inval_cause cause = {.by = INVAL_BY_TAG};
    explain_cause(page, &v, &cause, text, sizeof text);
    return 0;
}
