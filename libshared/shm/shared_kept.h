/* SPDX-License-Identifier: BSD-2-Clause */
/* shared_kept: the segments of struct shared that outlive all processes. Private to shared.c. */
#ifndef POLDER_LIBSHARED_SHM_SHARED_KEPT_H
#define POLDER_LIBSHARED_SHM_SHARED_KEPT_H
#include "polder/kept.h"
#include "polder/shared.h"

/* The next segment, named; the caller counts it in shared.segs once it is made. */
struct shared_segment *shared_next(struct shared *sh, const char *name);
/* The limiter's table, whose counts are kept; NULL with the reason logged. */
struct limit_table *shared_limits(struct shared *sh, const struct shared_options *opt);
/* States of servers, kept as the history is. */
struct server_table *shared_servers(struct shared *sh, const struct shared_options *opt);
/* The history, kept where there is a store for descriptors; it has a file of its own elsewhere. */
struct history_page *shared_history(struct shared *sh, const struct shared_options *opt);

#endif
