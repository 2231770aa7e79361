/* SPDX-License-Identifier: BSD-2-Clause */
/* alerts: see alerts.h. */
#include "polder/alerts.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t alert_page_layout(void)
{
    return ALERTS_LAYOUT + ((uint64_t)sizeof(struct alert_page) << 8);
}

const char *alert_state_name(enum alert_state state)
{
    static const char *const names[ALERT_STATES] = {"none", "pending", "firing", "resolved"};
    return names[state];
}

/* ---- rows ---- */

uint64_t alert_id(const char *name, const char *subject)
{
    const uint64_t id =
        XXH3_64bits_withSeed(subject, strlen(subject), XXH3_64bits(name, strlen(name)));
    return id ? id : 1;
}

struct alert_row *alert_find(struct alert_page *page, uint64_t id)
{
    for (size_t i = 0; i < ALERT_ROWS; i++)
        if (atomic_load(&page->row[i].id) == id)
            return &page->row[i];
    return NULL;
}

/* A free one, else the one that has been resolved for longest. */
static struct alert_row *row_to_take(struct alert_page *page)
{
    struct alert_row *best = NULL;
    for (size_t i = 0; i < ALERT_ROWS; i++) {
        struct alert_row *row = &page->row[i];
        const struct alert_view v = alert_view(row);
        if (!atomic_load(&row->id))
            return row;
        if (v.state == ALERT_RESOLVED && !alert_is_untold(row) &&
            (!best || v.since_ms < alert_view(best).since_ms))
            best = row;
    }
    return best;
}

struct alert_row *alert_take(struct alert_page *page, const char *name, const char *subject)
{
    const uint64_t id = alert_id(name, subject);
    struct alert_row *row = alert_find(page, id);
    if (row)
        return row;
    row = row_to_take(page);
    if (!row) {
        atomic_fetch_add(&page->lost, 1);
        return NULL;
    }
    alert_free(row);
    snprintf(row->name, sizeof row->name, "%s", name);
    snprintf(row->subject, sizeof row->subject, "%s", subject);
    row->reason[0] = 0;
    atomic_store(&row->word, ALERT_NONE);
    atomic_store(&row->notified, ALERT_NONE);
    atomic_store(&row->value, (double)NAN);
    atomic_store(&row->threshold, (double)NAN);
    atomic_store(&row->id, id);
    return row;
}

void alert_free(struct alert_row *row)
{
    atomic_store(&row->id, 0);
}

void alert_move(struct alert_row *row, enum alert_state state, uint64_t now_ms)
{
    static const unsigned allowed[ALERT_STATES] = {
        [ALERT_NONE] = 1u << ALERT_PENDING,
        [ALERT_PENDING] = 1u << ALERT_FIRING | 1u << ALERT_NONE,
        [ALERT_FIRING] = 1u << ALERT_RESOLVED,
        [ALERT_RESOLVED] = 1u << ALERT_PENDING | 1u << ALERT_NONE,
    };
    assert(allowed[alert_view(row).state] & 1u << state);
    atomic_store(&row->word, (uint64_t)state | now_ms << 8);
}

bool alert_is_untold(const struct alert_row *row)
{
    const enum alert_state state = alert_view(row).state;
    return (state == ALERT_FIRING || state == ALERT_RESOLVED) &&
           atomic_load(&row->notified) != atomic_load(&row->word);
}

/* ---- notices ---- */

static bool is_there(const struct alert_page *page, const struct alert_row *row, uint64_t *newest)
{
    bool found = false;
    *newest = 0;
    for (size_t i = 0; i < ALERT_NOTICES; i++) {
        const struct alert_notice *n = &page->notice[i];
        const uint64_t number = atomic_load(&n->number);
        *newest = number > *newest ? number : *newest;
        found |= number && n->row_id == atomic_load(&row->id) && n->word == atomic_load(&row->word);
    }
    return found;
}

static void notice_put(struct alert_page *page, const struct alert_row *row, uint64_t number,
                       const char *text)
{
    struct alert_notice *n = &page->notice[number % ALERT_NOTICES];
    if (atomic_load(&n->number) && !atomic_load(&n->done))
        atomic_fetch_add(&page->lost, 1);
    atomic_store(&n->number, 0);
    n->row_id = atomic_load(&row->id);
    n->word = atomic_load(&row->word);
    n->len = (uint32_t)snprintf(n->text, sizeof n->text, "%s", text);
    n->len = n->len < sizeof n->text ? n->len : (uint32_t)sizeof n->text - 1;
    atomic_store(&n->attempts, 0);
    atomic_store(&n->done, 0);
    atomic_store(&n->number, number);
}

void alert_tell(struct alert_page *page, struct alert_row *row, const char *text)
{
    uint64_t newest;
    if (text && !is_there(page, row, &newest))
        notice_put(page, row, newest + 1, text);
    atomic_store(&row->notified, atomic_load(&row->word));
}

bool alert_notice_next(struct alert_page *page, uint64_t after, struct alert_notice **at,
                       struct alert_notice *out)
{
    uint64_t best = UINT64_MAX;
    for (size_t i = 0; i < ALERT_NOTICES; i++) {
        const uint64_t number = atomic_load(&page->notice[i].number);
        if (number > after && number < best && !atomic_load(&page->notice[i].done)) {
            best = number;
            *at = &page->notice[i];
        }
    }
    if (best == UINT64_MAX)
        return false;
    memcpy(out, *at, sizeof *out);
    out->text[sizeof out->text - 1] = 0;
    out->len = out->len < sizeof out->text ? out->len : (uint32_t)sizeof out->text - 1;
    /* else it has been replaced meanwhile */
    return atomic_load(&(*at)->number) == best ? true : alert_notice_next(page, best, at, out);
}
