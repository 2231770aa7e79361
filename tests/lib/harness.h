/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * harness: verbs for stories about a real polderd.
 *
 * A story starts a backend, a house and clients. Every wait has a bound; a missed bound fails the
 * test with its place.
 */
#ifndef POLDER_TEST_HARNESS_H
#define POLDER_TEST_HARNESS_H
#include "backend.h"
#include "dns.h"
#include "house.h"
#include "patience.h"
#include "wire.h"
#endif
