/* SPDX-License-Identifier: BSD-2-Clause */
/* uncounted: keeps everything between uncounted_begin() and uncounted_end() out of the
 * statistics. */
#ifndef POLDER_WORKER_UNCOUNTED_H
#define POLDER_WORKER_UNCOUNTED_H
struct stats_slab;
struct worker;

/* What it returns is for uncounted_end(). May be nested. */
struct stats_slab *uncounted_begin(struct worker *w);
void uncounted_end(struct worker *w, struct stats_slab *counts);
#endif
