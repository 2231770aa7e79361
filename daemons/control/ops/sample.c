/* SPDX-License-Identifier: BSD-2-Clause */
/* sample: see sample.h. */
#include "daemons/control/ops/sample.h"
#include "daemons/control/control.h"
#include "polder/clock.h"
#include "polder/history.h"

#include <inttypes.h>
#include <math.h>

/* Values that are not known are left out. */
static void put_values(struct text *t, const struct history_page *page,
                       const struct history_range *range)
{
    const char *comma = "";
    for (size_t i = 0; i < HISTORY_SERIES; i++) {
        const double value = history_value(page, range, i, 0);
        if (!isfinite(value))
            continue;
        text_put(t, "%s\"%s\":%.5g", comma, history_kind((enum history_series)i)->name, value);
        comma = ",";
    }
}

void sample_make(struct control *c, page_made_fn made, void *arg)
{
    const struct history_page *page = c->shared->history;
    struct history_range range;
    struct text t = {0};
    if (page && history_range(page, 1, 1, clock_real_ms() / 1000, &range) == 0 && range.n) {
        text_put(&t, "{\"at\":%" PRIu64 ",\"values\":{", range.end);
        put_values(&t, page, &range);
        text_put(&t, "}}");
    } else {
        text_put(&t, "null");
    }
    made(arg, &t);
}
