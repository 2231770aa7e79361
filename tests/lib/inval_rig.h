/* SPDX-License-Identifier: BSD-2-Clause */
/* A page of invalidations of its own for each test, shared with the processes that it forks. */
#ifndef POLDER_INVAL_RIG_H
#define POLDER_INVAL_RIG_H
#include "polder/inval.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include <cmocka.h>

static struct inval_page *page;

static int set_up(void **state)
{
    (void)state;
    page = mmap(NULL, inval_page_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(page != MAP_FAILED);
    inval_page_init(page);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return munmap(page, inval_page_size());
}
#endif
