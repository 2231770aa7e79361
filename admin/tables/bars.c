/* SPDX-License-Identifier: BSD-2-Clause */
/* bars: lines of bars, in the characters that the terminal has. */
#include "admin/tables/tables.h"

#include <langinfo.h>
#include <locale.h>
#include <math.h>
#include <string.h>

bool table_utf8(void)
{
    return setlocale(LC_CTYPE, "") && !strcmp(nl_langinfo(CODESET), "UTF-8");
}

const char *table_bar(double value, double low, double high, bool utf8)
{
    static const char *const bars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"}, *const plain[] = {
                                                                                    "_", ".", ",",
                                                                                    "-", "=", "+",
                                                                                    "*", "#"};
    if (isnan(value))
        return " ";
    double part = high > low ? (value - low) / (high - low) : 0;
    part = part < 0 ? 0 : part > 1 ? 1 : part;
    const size_t level = (size_t)(part * 7.999);
    return utf8 ? bars[level] : plain[level];
}
