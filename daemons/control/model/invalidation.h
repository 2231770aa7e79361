/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * invalidation: ends stored objects. It holds for every worker once the mark is set (inval.h); the
 * keeper deletes useless objects, and long polls are woken.
 */
#ifndef POLDER_CONTROL_INVALIDATION_H
#define POLDER_CONTROL_INVALIDATION_H
#include "daemons/control/model/cache_names.h"
#include <stdbool.h>
#include <stdint.h>

struct control;

enum { SWEEP_URL, SWEEP_TAG, SWEEP_PREFIX, SWEEP_ALL }; /* ring_sweep.kind */

struct invalidation {
    bool soft;
    int len; /* of text, which is as cache_names.h has it */
    char text[CACHE_URL_SIZE];
    /* set by the call */
    const char *what; /* url, path, tag, prefix, all */
    uint32_t kind;
    uint64_t seq;
};
void invalidate_url(struct control *c, struct invalidation *in); /* or a path of all hosts */
void invalidate_tag(struct control *c, struct invalidation *in);
void invalidate_all(struct control *c, struct invalidation *in);
/* 0; -EINVAL: text is no prefix; -ENAMETOOLONG; -EBUSY or the like: too many are being swept. */
int invalidate_prefix(struct control *c, struct invalidation *in);
/* The same for copies of probes (verification.h), by URL or prefix: not counted, and only the
 * keeper is notified. */
int invalidate_probes(struct control *c, struct invalidation *in, bool prefix);
/* Everything below a path, on all hosts; if that cannot be expressed, everything. */
void invalidate_below(struct control *c, const char *path);
#endif
