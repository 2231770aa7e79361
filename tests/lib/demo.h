/* SPDX-License-Identifier: BSD-2-Clause */
/* What `make run` starts (tests/demo/run), for stories about it: the FastAPI application under
 * uvicorn, and Polder in front of it, on ports and in directories of their own. */
#ifndef POLDER_TEST_DEMO_H
#define POLDER_TEST_DEMO_H
#include "harness.h"

/* Starts it and waits until it is ready. Of the house only dir, log, ports, sock and pid are used.
 * `heartbeat` as in the configuration; one is due after a second of silence. */
void demo_start(struct house *h, const char *heartbeat);
void demo_stop(struct house *h); /* as Ctrl-C does; deletes its directory */

/* What a command of sh writes to stdout, in a static buffer. */
const char *shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#endif
