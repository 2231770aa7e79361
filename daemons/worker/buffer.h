/* SPDX-License-Identifier: BSD-2-Clause */
/* buffer: how much a worker reads at a time, and how much may wait to be written. */
#ifndef POLDER_WORKER_BUFFER_H
#define POLDER_WORKER_BUFFER_H
#include "daemons/net/buffer.h"

#define WORKER_BUFFER  32768       /* bytes of a pooled buffer, and of one read */
#define WORKER_BUFFERS 32          /* free ones that are kept: 1 MiB */
#define WORKER_HIGH    (96u << 10) /* stop reading the other leg */
#define WORKER_LOW     (32u << 10) /* read it again */

#endif
