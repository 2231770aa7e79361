/* SPDX-License-Identifier: BSD-2-Clause */
/* server_check: see server_check.h. */
#include "polder/server_check.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* server_row.check: down 1, drain 1, known 1, returned 1, last 4, percent less 8, unused 8, since 40
 * bits. */
#define KNOWN      UINT64_C(4)
#define LAST_AT    4
#define LESS_AT    8
#define SINCE_AT   24
#define LAST_MASK  (UINT64_C(15) << LAST_AT)
#define LESS_MASK  (UINT64_C(127) << LESS_AT)
#define SINCE_MASK (~UINT64_C(0) << SINCE_AT)

_Static_assert(SERVER_CHECK_RESULTS <= sizeof((struct server_row *)0)->checks / sizeof(uint64_t),
               "counted in the row");

static const struct {
    const char *label, *text;
} results[SERVER_CHECK_RESULTS] = {
#define CHECK(id, label, text) [SERVER_CHECK_##id] = {label, text},
    SERVER_CHECK_TABLE(CHECK)
#undef CHECK
};

const char *server_check_label(enum server_check_result result)
{
    return result < SERVER_CHECK_RESULTS ? results[result].label : "unknown";
}

const char *server_check_text(enum server_check_result result)
{
    return result < SERVER_CHECK_RESULTS ? results[result].text : "unknown";
}

static uint64_t check_word(const struct server_row *row)
{
    return atomic_load_explicit(&row->check, memory_order_relaxed);
}

struct server_check server_check_read(const struct server_row *row)
{
    const uint64_t word = check_word(row);
    return (struct server_check){.known = (word & KNOWN) != 0,
                                 .down = (word & SERVER_CHECK_DOWN) != 0,
                                 .drain = (word & SERVER_CHECK_DRAIN) != 0,
                                 .last = (enum server_check_result)((word & LAST_MASK) >> LAST_AT),
                                 .percent = 100 - (uint32_t)((word & LESS_MASK) >> LESS_AT),
                                 .since_ms = word >> SINCE_AT};
}

const char *server_why_down(const struct server_row *row, char out[SERVER_WHY])
{
    const struct server_check check = row ? server_check_read(row) : (struct server_check){0};
    snprintf(out, SERVER_WHY, "%s%s", check.down ? "health check: " : "",
             check.down ? server_check_text(check.last)
                        : server_reason_text(row ? server_view(row).reason : SERVER_NONE));
    return out;
}

bool server_check_note(struct server_row *row, struct server_check_trend *trend,
                       enum server_check_result result, uint32_t rise, uint32_t fall,
                       uint64_t now_ms)
{
    uint64_t word = check_word(row);
    const bool passed = result == SERVER_CHECK_PASSED, down = word & SERVER_CHECK_DOWN;
    trend->passed = passed ? trend->passed + (trend->passed < UINT32_MAX) : 0;
    trend->failed = passed ? 0 : trend->failed + (trend->failed < UINT32_MAX);
    const bool changes = down ? trend->passed >= rise : trend->failed >= fall;
    if (!(word & KNOWN) || changes)
        word = (word & ~SINCE_MASK) | now_ms << SINCE_AT;
    word = (word & ~LAST_MASK) | KNOWN | (uint64_t)result << LAST_AT;
    if (changes)
        word = down ? (word & ~SERVER_CHECK_DOWN) | SERVER_CHECK_RETURNED
                    : (word & ~SERVER_CHECK_RETURNED) | SERVER_CHECK_DOWN;
    atomic_store_explicit(&row->check, word, memory_order_relaxed);
    atomic_fetch_add_explicit(&row->checks[result], 1, memory_order_relaxed);
    return changes;
}

bool server_check_parse_weight(struct str text, uint32_t *percent, bool *drain)
{
    uint32_t n = 0, i = 0;
    *percent = 100;
    *drain = text.len == 5 && !strncasecmp(text.at, "drain", 5);
    if (*drain)
        return true;
    for (; i < text.len && i < 3 && text.at[i] >= '0' && text.at[i] <= '9'; i++)
        n = n * 10 + (uint32_t)(text.at[i] - '0');
    const uint32_t digits = i;
    i += i < text.len && text.at[i] == '%';
    if (!digits || i != text.len || n > 100)
        return false;
    *percent = n ? n : 100;
    *drain = !n;
    return true;
}

bool server_check_set_weight(struct server_row *row, uint32_t percent, bool drain)
{
    const uint64_t before = check_word(row);
    const uint64_t word = (before & ~(LESS_MASK | SERVER_CHECK_DRAIN)) |
                          (uint64_t)(100 - percent) << LESS_AT | (drain ? SERVER_CHECK_DRAIN : 0);
    if (word != before)
        atomic_store_explicit(&row->check, word, memory_order_relaxed);
    return word != before;
}

void server_check_mend(struct server_row *row, uint64_t now_ms)
{
    const struct server_check check = server_check_read(row);
    if (check.last >= SERVER_CHECK_RESULTS || check.percent > 100 || check.since_ms > now_ms)
        atomic_store_explicit(&row->check, 0, memory_order_relaxed);
}

bool server_check_end(struct server_row *row)
{
    const uint64_t before = check_word(row);
    if (before)
        atomic_store_explicit(&row->check, 0, memory_order_relaxed);
    return before & SERVER_CHECK_DOWN;
}

/* ---- statuses ---- */

/* Three digits, 100 to 599. */
static bool parse_status(const char **at, uint16_t *out)
{
    unsigned n = 0;
    for (int i = 0; i < 3; i++, (*at)++) {
        if (**at < '0' || **at > '9')
            return false;
        n = n * 10 + (unsigned)(**at - '0');
    }
    *out = (uint16_t)n;
    return n >= 100 && n <= 599;
}

bool server_check_parse_statuses(const char *text, struct server_check_statuses *out)
{
    const char *at = text;
    out->n = 0;
    for (;;) {
        uint16_t from, to;
        at += strspn(at, " ");
        if (out->n == SERVER_CHECK_STATUSES || !parse_status(&at, &from))
            return false;
        to = from;
        if (*at == '-' && (at++, !parse_status(&at, &to) || to < from))
            return false;
        out->range[out->n].from = from;
        out->range[out->n++].to = to;
        at += strspn(at, " ");
        if (!*at)
            return true;
        if (*at++ != ',')
            return false;
    }
}

bool server_check_passes(const struct server_check_statuses *list, unsigned status)
{
    for (uint32_t i = 0; i < list->n; i++)
        if (status >= list->range[i].from && status <= list->range[i].to)
            return true;
    return false;
}
