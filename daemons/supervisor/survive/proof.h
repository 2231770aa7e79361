/* SPDX-License-Identifier: BSD-2-Clause */
/* proof: how a program ends that a child of the custodian has tried. */
#ifndef POLDER_SUPERVISOR_SURVIVE_PROOF_H
#define POLDER_SUPERVISOR_SURVIVE_PROOF_H
#include <stdbool.h>
#include <stddef.h>

/* What it has said, to the end of the line; the pipe is closed, and is -1. */
void proof_said(int *from, char *said, size_t size);
/* It has ended well, and said so. status: as waitpid() gives it. */
bool proof_holds(int status, const char *said);
#endif
