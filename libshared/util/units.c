/* SPDX-License-Identifier: BSD-2-Clause */
/* units: see units.h. */
#include "polder/units.h"

#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>

#define SECONDS_MAX 1e15

static size_t written(int n)
{
    return n < 0 ? 0 : n < UNITS_TEXT ? (size_t)n : UNITS_TEXT - 1;
}

/* From a minute on, in whole seconds. */
static int put_two(uint64_t s, const char *sign, char out[UNITS_TEXT])
{
    static const struct {
        uint64_t seconds, next;
        const char *name, *next_name;
    } unit[] = {{86400, 3600, "d", "h"}, {3600, 60, "h", "min"}, {60, 1, "min", "s"}};
    size_t u = 0;
    while (u < 2 && s < unit[u].seconds)
        u++;
    const uint64_t n = s / unit[u].seconds, rest = s % unit[u].seconds / unit[u].next;
    if (!rest)
        return snprintf(out, UNITS_TEXT, "%s%" PRIu64 " %s", sign, n, unit[u].name);
    return snprintf(out, UNITS_TEXT, "%s%" PRIu64 " %s %" PRIu64 " %s", sign, n, unit[u].name, rest,
                    unit[u].next_name);
}

/* Three digits, but no exponent: 999.6 would be "1e+03". */
static int put_one(double n, const char *sign, const char *unit, char out[UNITS_TEXT])
{
    return n >= 100 ? snprintf(out, UNITS_TEXT, "%s%.0f %s", sign, n, unit)
                    : snprintf(out, UNITS_TEXT, "%s%.3g %s", sign, n, unit);
}

size_t units_seconds(double s, char out[UNITS_TEXT])
{
    const char *sign = s < 0 ? "-" : "";
    s = fabs(s);
    if (!(s <= SECONDS_MAX))
        return written(snprintf(out, UNITS_TEXT, "-"));
    if (s == 0)
        return written(snprintf(out, UNITS_TEXT, "0 s"));
    if (s < 0.0009995)
        return written(put_one(s * 1e6, sign, "us", out));
    if (s < 0.9995)
        return written(put_one(s * 1e3, sign, "ms", out));
    if (s < 59.95)
        return written(put_one(s, sign, "s", out));
    return written(put_two((uint64_t)(s + 0.05), sign, out));
}

size_t units_bytes(double n, char out[UNITS_TEXT])
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t u = 0;
    for (; n >= 1023.5 && u + 1 < sizeof unit / sizeof *unit; u++)
        n /= 1024;
    return written(put_one(n, "", unit[u], out));
}

size_t units_share(double ratio, char out[UNITS_TEXT])
{
    return written(snprintf(out, UNITS_TEXT, "%.1f%%", ratio * 100));
}

size_t units_count(double n, char out[UNITS_TEXT])
{
    static const char unit[] = " kMGT";
    size_t u = 0;
    for (; n >= (u ? 999.5 : 9999.5) && u + 2 < sizeof unit; u++)
        n /= 1000;
    if (!u)
        return written(n < 100 && n != floor(n) ? snprintf(out, UNITS_TEXT, "%.3g", n)
                                                : snprintf(out, UNITS_TEXT, "%.0f", n));
    return written(n >= 100 ? snprintf(out, UNITS_TEXT, "%.0f%c", n, unit[u])
                            : snprintf(out, UNITS_TEXT, "%.3g%c", n, unit[u]));
}
