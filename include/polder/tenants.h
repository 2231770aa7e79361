/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tenants: cost and savings of calls by tenant: cost { by = ... }.
 *
 * A tenant is a value of `by`, such as that of X-Workspace. TENANTS_MAX of them have a row; all
 * further ones are counted in one row for others, so a client that invents values cannot use up
 * memory. Rows are not given back until `by` changes or Polder restarts.
 *
 * Workers claim rows: the number of rows is raised, then the id is put in its place by compare and
 * swap, then the name is written and marked as valid. A process that dies after the first step
 * leaves one place less until control recounts (tenants_recount()), after the second a row that is
 * shown by its id. Each process slot has a slab of counts; its owner adds with a load and a store,
 * and they survive it, as those of polder/stats.h.
 */
#ifndef POLDER_TENANTS_H
#define POLDER_TENANTS_H
#include "polder/field.h"
#include "polder/proc.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TENANTS_MAX   1000
#define TENANTS_ROWS  2048               /* places; a power of two */
#define TENANTS_OTHER TENANTS_ROWS       /* the row of all others */
#define TENANTS_NONE  (TENANTS_ROWS + 1) /* no value: in no row */
#define TENANTS_NAME  64

enum tenants_count { TENANTS_CALLS, TENANTS_HITS, TENANTS_POLLS, TENANTS_REFUSED, TENANTS_COUNTS };

struct tenants_page;
size_t tenants_page_size(void);

/* control: rows are those of that `by` (0: tenants are not counted) from now on; those of another
 * one are cleared. */
void tenants_begin(struct tenants_page *page, uint64_t by);
void tenants_recount(struct tenants_page *page); /* control, each second */

/* The row of a value under that `by`, claimed if it has none. TENANTS_OTHER: there is no room;
 * TENANTS_NONE: rows are of another `by`. secret: its name is shown as four characters and a hash,
 * as the keys in polder/recent.h. */
uint32_t tenants_row(struct tenants_page *page, uint64_t by, struct str value, bool secret);
/* slot: the caller's own in the process table. */
void tenants_add(struct tenants_page *page, uint32_t slot, uint32_t row, enum tenants_count what);

/* ---- readers ---- */
struct tenant {
    char name[TENANTS_NAME]; /* printable ASCII, cut; "other" has none */
    uint32_t row;
    uint64_t count[TENANTS_COUNTS];
};
/* All with counts, TENANTS_OTHER included; at most TENANTS_ROWS + 1. */
size_t tenants_read(const struct tenants_page *page, struct tenant *out);
#endif
