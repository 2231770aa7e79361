/* SPDX-License-Identifier: BSD-2-Clause */
/* keep_alive: see keep_alive.h. */
#include "daemons/worker/fetch/keep_alive.h"
#include "polder/field.h"

#include <stdbool.h>
#include <string.h>

/* The digits that a value begins with; more than fit are the most. False: there are none. */
static bool leading_number(struct str text, uint32_t *out)
{
    uint32_t n = 0;
    size_t i = 0;
    for (; i < text.len && text.at[i] >= '0' && text.at[i] <= '9'; i++)
        n = n < 1000000 ? n * 10 + (uint32_t)(text.at[i] - '0') : n;
    *out = n;
    return i != 0;
}

/* An element "NAME=NUMBER" of that name. */
static bool keep_alive_number(struct str element, const char *name, uint32_t *out)
{
    const char *equals = memchr(element.at, '=', element.len);
    if (!equals)
        return false;
    const size_t at = (size_t)(equals - element.at);
    const struct str before = {element.at, at};
    const struct str after = {equals + 1, element.len - at - 1};
    return field_is(field_trim(before), name) && leading_number(field_trim(after), out);
}

static uint32_t usable_ms(uint32_t seconds)
{
    const uint32_t stated_ms = (seconds < 3600 ? seconds : 3600) * 1000;
    const uint32_t spare_ms =
        stated_ms / 10 > KEEP_ALIVE_SPARE_MS ? stated_ms / 10 : KEEP_ALIVE_SPARE_MS;
    return stated_ms > spare_ms ? stated_ms - spare_ms : 0;
}

static uint32_t bounded(uint32_t ms, uint32_t idle_ms)
{
    const uint32_t max_ms = idle_ms > KEEP_ALIVE_MAX_MS ? idle_ms : KEEP_ALIVE_MAX_MS;
    return ms < max_ms ? ms : max_ms;
}

uint32_t keep_alive_ms(const struct h1_head *head, uint32_t idle_ms)
{
    uint32_t shortest = UINT32_MAX, number;
    if (!idle_ms || !h1_find(head, H1_KEEP_ALIVE))
        return idle_ms;
    for (uint32_t i = 0; i < head->n_fields; i++) {
        struct str rest = head->field[i].value, element;
        while (head->field[i].id == H1_KEEP_ALIVE && field_list_next(&rest, &element)) {
            if (keep_alive_number(element, "max", &number) && number == 0)
                return 0;
            if (keep_alive_number(element, "timeout", &number) && number < shortest)
                shortest = number;
        }
    }
    return shortest == UINT32_MAX ? idle_ms : bounded(usable_ms(shortest), idle_ms);
}
