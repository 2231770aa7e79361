/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shift: traffic that is moved to a server of an upstream in steps, a row an upstream, in
 * state_dir/shift.page: a watch goes on after a death of control, and after a restart.
 *
 * Control alone reads and writes it. A row has two copies: control fills the one that is not in use
 * and stores the next generation; death on any line leaves the old state or the new one. A step is
 * written here first, as pending; then its weights are saved and published; then it is no longer
 * pending. Who finds a pending one does the rest again.
 */
#ifndef POLDER_SHIFT_H
#define POLDER_SHIFT_H
#include "polder/shift_watch.h"
#include "polder/shm.h"

#define SHIFT_ROWS   32
#define SHIFT_NAME   256
#define SHIFT_REASON 320

/* PHASE(id, name) */
#define SHIFT_PHASE_TABLE(PHASE)                                                                   \
    PHASE(SET, "set")         /* it stands as it was set; no guard watches it */                   \
    PHASE(WATCHED, "watched") /* its guard watches it */                                           \
    PHASE(WALKING, "walking") /* its guard watches it and takes it further */                      \
    PHASE(STALLED, "stalled") /* its time was over before it had passed; its guard watches it */   \
    PHASE(ROLLED_BACK, "rolled_back") /* its guard has rolled it back */                           \
    PHASE(DONE, "done")               /* it is complete */                                         \
    PHASE(STOPPED, "stopped")         /* its guard was stopped */
enum shift_phase {
#define PHASE(id, name) SHIFT_##id,
    SHIFT_PHASE_TABLE(PHASE)
#undef PHASE
        SHIFT_PHASES
};
const char *shift_phase_name(enum shift_phase phase);

struct shift_base {
    uint64_t id;     /* stats_server_id() */
    uint32_t weight; /* before the shift: what the others share the rest by */
    uint32_t file;   /* its weight in the file then */
};
struct shift_state {
    char upstream[SHIFT_NAME], server[SHIFT_NAME]; /* upstream "": the row is free */
    uint32_t percent;                              /* of the server */
    uint32_t phase;                                /* enum shift_phase */
    uint32_t pending;                              /* 1: see above */
    uint32_t unsaved;                              /* 1: published, but state_dir took no weights */
    uint64_t hold_ms, max_ms;                      /* of a step, of all of it; 0: no bound */
    uint64_t begun_ms, moved_ms;                   /* real: the first step; into this phase */
    char reason[SHIFT_REASON];                     /* of the phase; "" */
    uint32_t n_base, pad_;
    struct shift_base base[SHIFT_SERVERS];
    struct shift_watch watch; /* of this step; real ms */
};

struct shift_page;
size_t shift_page_size(void);
uint64_t shift_page_layout(void);
/* NULL: there is none. Valid until the next shift_write(). */
const struct shift_state *shift_find(const struct shift_page *page, const char *upstream);
/* NULL: the row is free. */
const struct shift_state *shift_at(const struct shift_page *page, uint32_t row);
/* Takes the row of its upstream, a free one, or that of the shift that ended first. False: all are
 * under way. */
bool shift_write(struct shift_page *page, const struct shift_state *state);
void shift_forget(struct shift_page *page, const char *upstream);

/* Does a guard watch it? */
static inline bool shift_is_watched(const struct shift_state *s)
{
    return s->phase == SHIFT_WATCHED || s->phase == SHIFT_WALKING || s->phase == SHIFT_STALLED;
}
/* Has it come to an end, and stands at nothing or all? */
static inline bool shift_is_over(const struct shift_state *s)
{
    return !s->pending && !shift_is_watched(s) && (s->percent == 0 || s->percent == 100);
}
#endif
