/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * events: events of the service, in the order in which control saw them: the list that
 * polderctl watch and the dashboard show (polder/recent.h).
 *
 * Control's own actions are added where they happen; others are found by events_follow(), which
 * compares counters and states with those of a second ago, and aggregates frequent ones: one event
 * a second for each limit that refuses. The list is in shared memory and outlives control; what
 * happened while no control ran is not in it.
 */
#ifndef POLDER_CONTROL_EVENTS_H
#define POLDER_CONTROL_EVENTS_H
#include <stdint.h>

struct control;
struct events;

struct events *events_new(void); /* NULL: no memory; then nothing is found, only added */
void events_free(struct events *e);
void events_follow(struct control *c); /* each second */
/* noun: one of RECENT_NOUNS. Texts are cut and made printable; subject NULL: "". */
void events_add(const struct control *c, const char *noun, const char *what, const char *subject,
                uint64_t count, const char *format, ...) __attribute__((format(printf, 6, 7)));
#endif
