/* SPDX-License-Identifier: BSD-2-Clause */
/* edit_distance: how far two words are apart, for "did you mean". */
#ifndef POLDER_EDIT_DISTANCE_H
#define POLDER_EDIT_DISTANCE_H

/* Letters that are added, dropped or changed; neighbours that are swapped count as one. Words of
 * more than EDIT_DISTANCE_MAX letters are at that distance from everything. */
#define EDIT_DISTANCE_MAX 63
unsigned edit_distance(const char *a, const char *b);
#endif
