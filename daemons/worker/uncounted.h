/* SPDX-License-Identifier: BSD-2-Clause */
/* uncounted: what happens between uncounted_begin() and uncounted_end() shows in no figure. */
#ifndef POLDER_WORKER_UNCOUNTED_H
#define POLDER_WORKER_UNCOUNTED_H
struct stats_slab;
struct worker;

/* What it returns is for uncounted_end(). May be nested. */
struct stats_slab *uncounted_begin(struct worker *w);
void uncounted_end(struct worker *w, struct stats_slab *counts);
#endif
