/* SPDX-License-Identifier: BSD-2-Clause */
/* Texts of active checks: Polder-Weight, which backends send, and health_status. What is taken is
 * in range, and says so again when it is written down. */
#include "polder/server_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at_weight(const char *text, size_t len)
{
    char again[8];
    uint32_t percent, second;
    bool drain, drains;
    if (!server_check_parse_weight((struct str){text, len}, &percent, &drain)) {
        if (percent != 100 || drain)
            abort();
        return;
    }
    if (percent < 1 || percent > 100 || len > 5)
        abort();
    const int n = snprintf(again, sizeof again, "%u%%", drain ? 0 : percent);
    if (!server_check_parse_weight((struct str){again, (size_t)n}, &second, &drains) ||
        second != percent || drains != drain)
        abort();
}

static void look_at_statuses(const char *text)
{
    struct server_check_statuses list;
    if (!server_check_parse_statuses(text, &list))
        return;
    if (!list.n || list.n > SERVER_CHECK_STATUSES)
        abort();
    for (uint32_t i = 0; i < list.n; i++)
        if (list.range[i].from < 100 || list.range[i].to > 599 ||
            list.range[i].from > list.range[i].to ||
            !server_check_passes(&list, list.range[i].from) ||
            !server_check_passes(&list, list.range[i].to))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char text[512];
    if (size >= sizeof text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    look_at_weight(text, size);
    look_at_statuses(text);
    return 0;
}
