/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * nets: machines, each a network namespace of its own behind one router, which this program is: what a
 * machine sends to another one can be lost on the way, in one direction too, and no end is told. Names
 * and addresses are of the namespaces; files, UNIX sockets and processes are of all.
 */
#ifndef POLDER_TEST_NETS_H
#define POLDER_TEST_NETS_H
#include <stdbool.h>

#define NETS_MAX 8

/* This program moves into a namespace of its own, too. "": they are there; else why they cannot be. */
const char *nets_make(unsigned n);
/* This thread, and what it starts, is in that machine from now on; -1: in the router. */
void nets_enter(int machine);
/* "10.77.1.2", in a static buffer. */
const char *nets_address(int machine);
/* Packets from that machine to that one. */
void nets_lose(int from, int to, bool lose);
#endif
