/* SPDX-License-Identifier: BSD-2-Clause */
/* What a scraper asks /metrics for: a query, a NUL, and its Accept. */
#include "daemons/control/ops/metrics_family.c"
#include "daemons/control/ops/metrics_query.c"
#include "daemons/control/ops/query.c"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct metrics_query *q = malloc(sizeof *q);
    char *copy = malloc(size + 1); /* exact, so that a byte too far is seen */
    if (!q || !copy)
        abort();
    memcpy(copy, data, size);
    const char *end = memchr(copy, 0, size);
    const size_t n = end ? (size_t)(end - copy) : size;
    if (!metrics_query_parse(q, (struct str){copy, n})) {
        unsigned wanted = 0;
        if (q->names > METRICS_NAMES_MAX)
            abort();
        for (unsigned i = 0; i < METRICS; i++)
            wanted += metrics_query_wants(q, metrics_family_of((enum metric)i)->name);
        if (!q->names && !q->scopes && wanted != METRICS)
            abort();
    }
    if (end && !metrics_form_type(metrics_form_of((struct str){end + 1, size - n - 1})))
        abort();
    free(copy);
    free(q);
    return 0;
}
