/* SPDX-License-Identifier: BSD-2-Clause */
/* shift: see shift.h. */
#include "polder/shift.h"

#include <string.h>

#define SHIFT_LAYOUT 3

struct shift_row {
    _Alignas(64) _Atomic uint64_t generation; /* & 1: which copy */
    struct shift_state copy[2];
};
struct shift_page {
    struct shm_header header;
    struct shift_row row[SHIFT_ROWS];
};

static const char *const phase_names[SHIFT_PHASES] = {
#define PHASE(id, name) name,
    SHIFT_PHASE_TABLE(PHASE)
#undef PHASE
};

const char *shift_phase_name(enum shift_phase phase)
{
    return phase < SHIFT_PHASES ? phase_names[phase] : "unknown";
}

size_t shift_page_size(void)
{
    return sizeof(struct shift_page);
}

uint64_t shift_page_layout(void)
{
    return (uint64_t)sizeof(struct shift_state) << 32 |
           (uint64_t)offsetof(struct shift_state, watch) << 8 | SHIFT_LAYOUT;
}

/* The file outlives this program: nothing in it is believed to end. */
static bool is_sound(const struct shift_state *s)
{
    return s->upstream[0] && memchr(s->upstream, 0, sizeof s->upstream) &&
           memchr(s->server, 0, sizeof s->server) && memchr(s->reason, 0, sizeof s->reason) &&
           s->percent <= 100 && s->phase < SHIFT_PHASES && s->n_base <= SHIFT_SERVERS;
}

const struct shift_state *shift_at(const struct shift_page *page, uint32_t row)
{
    const struct shift_row *r = &page->row[row];
    const struct shift_state *s = &r->copy[atomic_load(&r->generation) & 1];
    return is_sound(s) ? s : NULL;
}

static uint32_t row_of(const struct shift_page *page, const char *upstream)
{
    uint32_t i = 0;
    for (; i < SHIFT_ROWS; i++) {
        const struct shift_state *s = shift_at(page, i);
        if (s && !strcmp(s->upstream, upstream))
            break;
    }
    return i;
}

const struct shift_state *shift_find(const struct shift_page *page, const char *upstream)
{
    const uint32_t i = row_of(page, upstream);
    return i < SHIFT_ROWS ? shift_at(page, i) : NULL;
}

static uint32_t row_to_take(const struct shift_page *page)
{
    uint32_t oldest = SHIFT_ROWS;
    for (uint32_t i = 0; i < SHIFT_ROWS; i++) {
        const struct shift_state *s = shift_at(page, i);
        if (!s)
            return i;
        if (shift_is_over(s) &&
            (oldest == SHIFT_ROWS || s->moved_ms < shift_at(page, oldest)->moved_ms))
            oldest = i;
    }
    return oldest;
}

static void row_put(struct shift_row *row, const struct shift_state *state)
{
    const uint64_t next = atomic_load(&row->generation) + 1;
    memcpy(&row->copy[next & 1], state, sizeof *state);
    atomic_store_explicit(&row->generation, next, memory_order_release);
}

bool shift_write(struct shift_page *page, const struct shift_state *state)
{
    uint32_t i = row_of(page, state->upstream);
    if (i == SHIFT_ROWS)
        i = row_to_take(page);
    if (i == SHIFT_ROWS)
        return false;
    row_put(&page->row[i], state);
    return true;
}

void shift_forget(struct shift_page *page, const char *upstream)
{
    static const struct shift_state none;
    const uint32_t i = row_of(page, upstream);
    if (i < SHIFT_ROWS)
        row_put(&page->row[i], &none);
}
