/* SPDX-License-Identifier: BSD-2-Clause */
/* prefer: parses Prefer (RFC 7240). */
#ifndef POLDER_WORKER_REQUEST_PREFER_H
#define POLDER_WORKER_REQUEST_PREFER_H
#include "daemons/http/h1.h"

#include <stdint.h>

uint32_t prefer_wait_s(const struct h1_head *head); /* of Prefer: wait; 0: none */

#endif
