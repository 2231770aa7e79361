/* SPDX-License-Identifier: BSD-2-Clause */
/* stickiness: keys of `sticky` that have too large a part of an upstream's requests: its servers
 * cannot share the load as their weights say. Ends an interval of sticky_counts each minute. */
#ifndef POLDER_CONTROL_STICKINESS_H
#define POLDER_CONTROL_STICKINESS_H

struct control;

void stickiness_follow(struct control *c); /* each second */
#endif
