/* SPDX-License-Identifier: BSD-2-Clause */
/* edit_distance: see edit_distance.h. */
#include "polder/edit_distance.h"

#include <string.h>

unsigned edit_distance(const char *a, const char *b)
{
    unsigned row[3][EDIT_DISTANCE_MAX + 1];
    const size_t n = strlen(a), m = strlen(b);
    if (n > EDIT_DISTANCE_MAX || m > EDIT_DISTANCE_MAX)
        return EDIT_DISTANCE_MAX;
    for (size_t k = 0; k <= m; k++)
        row[0][k] = (unsigned)k;
    for (size_t i = 1; i <= n; i++) {
        unsigned *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = (unsigned)i;
        for (size_t k = 1; k <= m; k++) {
            unsigned best = last[k - 1] + (a[i - 1] != b[k - 1]);
            best = last[k] + 1 < best ? last[k] + 1 : best;
            best = now[k - 1] + 1 < best ? now[k - 1] + 1 : best;
            if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1] &&
                before[k - 2] + 1 < best)
                best = before[k - 2] + 1;
            now[k] = best;
        }
    }
    return row[n % 3][m];
}
