/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * alerts: the state of each alert, and the notices to be sent, in shared memory.
 *
 * A row is an alert: the name of a rule (struct config_alert) and a subject: a server, a route, an
 * address, or "". control alone writes rows, once a second; the master makes the page, so a death
 * of control changes no state and nothing fires twice.
 *
 *     none -> pending   the rule holds
 *     pending -> firing it has held for the rule's duration
 *     pending -> none   it has not
 *     firing -> resolved   the value is back at clear, the condition is over, or there are no more
 *                          samples
 *     resolved -> pending, and after an hour none
 *
 * Where on_alert is set, an alert that fires or is resolved also becomes a notice, a text that the
 * notifier (daemons/notifier) passes to the program. There is room for ALERT_NOTICES of them; one
 * more replaces the oldest, which is counted as dropped.
 *
 * A crash. A row is taken by its id, stored last, and changes its state by one store (word). `notified`
 * follows when the notice of that state is there, so after a kill between the two control's
 * successor finds what is still to be sent; a notice that exists already is not added again. A
 * notice is published by its number, stored last. After a kill the notifier runs notices that are
 * not marked done again.
 */
#ifndef POLDER_ALERTS_H
#define POLDER_ALERTS_H
#include "polder/shm.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ALERT_ROWS        256
#define ALERT_NOTICES     64
#define ALERT_NAME        80
#define ALERT_SUBJECT     112
#define ALERT_REASON      120
#define ALERT_TEXT        4096 /* of a notice: an alert with every character escaped */
#define ALERT_RESOLVED_MS 3600000
#define ALERTS_LAYOUT     1

enum alert_state { ALERT_NONE, ALERT_PENDING, ALERT_FIRING, ALERT_RESOLVED, ALERT_STATES };
const char *alert_state_name(enum alert_state state);

struct alert_row {
    _Atomic uint64_t id;             /* of name and subject; 0: free. Stored last */
    _Atomic uint64_t word;           /* state | mono ms since when << 8 */
    _Atomic uint64_t notified;       /* the word of the last notice */
    _Atomic double value, threshold; /* in the unit of the rule; NaN: not known */
    char name[ALERT_NAME], subject[ALERT_SUBJECT], reason[ALERT_REASON];
};
struct alert_notice {
    _Atomic uint64_t number; /* from 1; 0: none. Stored last */
    uint64_t row_id, word;   /* what it is about */
    uint32_t len;
    _Atomic uint32_t attempts; /* notifier */
    _Atomic uint32_t done;     /* notifier: 1: passed on, or given up */
    char text[ALERT_TEXT];
};
struct alert_page {
    struct shm_header header;
    _Alignas(64) _Atomic uint64_t lost; /* control: alerts or notices without room */
    _Atomic uint64_t delivered, failed; /* notifier: notices */
    struct alert_row row[ALERT_ROWS];
    struct alert_notice notice[ALERT_NOTICES];
};
uint64_t alert_page_layout(void);

/* ---- control ---- */
uint64_t alert_id(const char *name, const char *subject);
/* NULL: there is none. */
struct alert_row *alert_find(struct alert_page *page, uint64_t id);
/* The row of that alert, in state none if it is new. A resolved one is replaced when no row is
 * free. NULL: no room, which is counted. */
struct alert_row *alert_take(struct alert_page *page, const char *name, const char *subject);
void alert_free(struct alert_row *row);

struct alert_view {
    enum alert_state state;
    uint64_t since_ms; /* mono */
};
static inline struct alert_view alert_view(const struct alert_row *row)
{
    const uint64_t word = atomic_load(&row->word);
    return (struct alert_view){(enum alert_state)(word & 255), word >> 8};
}
/* One of the moves above. */
void alert_move(struct alert_row *row, enum alert_state state, uint64_t now_ms);
/* Is there a change of state that no notice has been made for? */
bool alert_is_untold(const struct alert_row *row);
/* text NULL: no notice is to be made. */
void alert_tell(struct alert_page *page, struct alert_row *row, const char *text);

/* ---- notifier ---- */
/* The oldest notice behind `after` that is not done, copied; false: there is none. */
bool alert_notice_next(struct alert_page *page, uint64_t after, struct alert_notice **at,
                       struct alert_notice *out);
#endif
