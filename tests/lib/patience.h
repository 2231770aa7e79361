/* SPDX-License-Identifier: BSD-2-Clause */
/* patience: the time, and waiting for what shall come true. */
#ifndef POLDER_TEST_PATIENCE_H
#define POLDER_TEST_PATIENCE_H
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <sys/types.h>

uint64_t mono_ms(void);
void nap_ms(unsigned ms); /* only inside wait loops */
/* Evaluates `condition` every few ms until it holds; fails the test after `ms`. Slower builds
 * (sanitizers) get more time. */
#define wait_until(condition, ms)                                                                  \
    do {                                                                                           \
        uint64_t end_ = mono_ms() + harness_patience(ms);                                          \
        while (!(condition)) {                                                                     \
            if (mono_ms() > end_)                                                                  \
                fail_msg("%s:%d: waited %u ms in vain for: %s", __FILE__, __LINE__,                \
                         (unsigned)(ms), #condition);                                              \
            nap_ms(5);                                                                             \
        }                                                                                          \
    } while (0)
unsigned harness_patience(unsigned ms);
bool harness_sanitized(void); /* this build runs under a sanitizer */
#endif
