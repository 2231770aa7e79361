/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_writer: families and samples, in either form of the text. */
#ifndef POLDER_CONTROL_METRICS_WRITER_H
#define POLDER_CONTROL_METRICS_WRITER_H
#include "daemons/control/ops/text.h"
#include "polder/histogram.h"
#include <stdint.h>

struct control;

#define METRICS_LABELS 1024 /* all labels of a sample */

struct metrics_writer {
    const struct control *control;
    struct text *t;
    bool openmetrics;
    char family[96]; /* being written */
};

/* Samples of a family stand together, after its metadata; the same family again: nothing. unit
 * NULL: none. */
void metrics_family(struct metrics_writer *w, const char *name, const char *type, const char *unit,
                    const char *help);
/* Of the family; labels: "" or NAME="VALUE",... */
void metrics_sample(struct metrics_writer *w, const char *suffix, const char *labels, double value);
void metrics_sample_u64(struct metrics_writer *w, const char *suffix, const char *labels,
                        uint64_t value);
/* labels as above; sum_s NULL: the distribution's own. */
void metrics_histogram(struct metrics_writer *w, const char *labels, const struct distribution *d,
                       const double *sum_s);
/* For a label value; returns out. */
const char *metrics_escaped(const char *text, char *out, size_t size);
#endif
