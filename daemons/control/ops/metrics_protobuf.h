/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * metrics_protobuf: families as messages io.prometheus.client.MetricFamily, each behind its length;
 * the only form that can carry native histograms (Prometheus asks for it where that feature is
 * on). A histogram has its classic buckets too. Only varints, doubles and length-delimited messages
 * of protobuf are needed, so there is no library.
 */
#ifndef POLDER_CONTROL_METRICS_PROTOBUF_H
#define POLDER_CONTROL_METRICS_PROTOBUF_H
#include "daemons/control/ops/metrics_writer.h"

void metrics_protobuf_begin(struct metrics_writer *w, const char *suffix);
void metrics_protobuf_end(struct metrics_writer *w);
void metrics_protobuf_sample(struct metrics_writer *w, const struct metrics_label *labels,
                             double value);
void metrics_protobuf_distribution(struct metrics_writer *w, const struct metrics_label *labels,
                                   const struct distribution *d, double sum_s);
#endif
