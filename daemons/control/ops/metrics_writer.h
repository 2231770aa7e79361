/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics_writer: families and samples, in the form that the scraper wants (metrics_query.h).
 *
 * A family is begun once, then its samples follow; a family that the query does not want takes none
 * (metrics_family_begin() returns false). What is written is added to `t`: whole lines of the two forms of
 * text, whole families of protobuf (which begin with their length, so one is gathered beside it).
 */
#ifndef POLDER_CONTROL_METRICS_WRITER_H
#define POLDER_CONTROL_METRICS_WRITER_H
#include "daemons/control/ops/metrics_query.h"
#include "daemons/control/ops/text.h"
#include "polder/histogram.h"
#include <stdint.h>

struct control;

#define METRICS_LABELS_MAX 4
#define METRICS_VALUE_MAX  256 /* of a label, with its 0 */

struct metrics_label {
    const char *name, *value; /* NULL: no further label */
};
#define METRICS_LABELS(...)                                                                        \
    (const struct metrics_label[METRICS_LABELS_MAX + 1])                                           \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define METRICS_NO_LABELS METRICS_LABELS({NULL, NULL})

struct metrics_writer {
    struct text *t;
    const struct metrics_query *query;
    enum metrics_form form;
    struct metrics_family family; /* being written; .name NULL: none, or an unwanted one */
    struct text gathered;         /* protobuf: of the family */
};

void metrics_begin(struct metrics_writer *w, enum metrics_form form,
                   const struct metrics_query *query, struct text *t);
/* False: it is not wanted. */
bool metrics_family_begin(struct metrics_writer *w, enum metric id);
/* The same of a row of counters or gauges; goes on where it is of the family that is begun. */
bool metrics_family_row(struct metrics_writer *w, const struct metrics_family *family);
/* Ends the last family and the whole. */
void metrics_end(struct metrics_writer *w);
void metrics_free(struct metrics_writer *w);

/* Samples of the family. Values of labels are what metrics_label_value() has made, or constants. */
void metrics_u64(struct metrics_writer *w, const struct metrics_label *labels, uint64_t value);
void metrics_f64(struct metrics_writer *w, const struct metrics_label *labels, double value);
/* sum_s NULL: the distribution's own. */
void metrics_distribution(struct metrics_writer *w, const struct metrics_label *labels,
                          const struct distribution *d, const double *sum_s);
/* Makes the value of a label: UTF-8, with U+FFFD for what is none, at most METRICS_VALUE_MAX bytes;
 * two long ones that differ stay different. Returns out. */
const char *metrics_label_value(const char *text, char out[METRICS_VALUE_MAX]);
/* NAME="VALUE", of the tables' rows, cut apart in space. */
void metrics_labels_of_row(const char *text, struct metrics_label labels[METRICS_LABELS_MAX + 1],
                           char space[METRICS_VALUE_MAX]);
#endif
