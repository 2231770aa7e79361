/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * recent_note: records the requests that a worker answers, for live views (polder/recent.h).
 */
#ifndef POLDER_WORKER_MESSAGE_RECENT_NOTE_H
#define POLDER_WORKER_MESSAGE_RECENT_NOTE_H
#include "polder/recent.h"

struct access_line;
struct access_note;
struct request;
struct worker;

struct recent_notes {
    struct recent_sampler sampler;
    bool watched; /* this iteration */
};

void recent_note_follow(struct worker *w); /* each iteration of the loop */
/* The line of an answer is recorded too. r NULL: its head was not understood. */
void recent_note(struct worker *w, const struct request *r, const struct access_note *note,
                 const struct access_line *line, uint32_t stands_for);
#endif
