/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit_rig: what the limiter's tests share: memory that forked processes see, and a process table
 * in which they are born and die as the master has it.
 */
#ifndef POLDER_LIMIT_RIG_H
#define POLDER_LIMIT_RIG_H
#include "polder/limit.h"
#include "polder/proc.h"

#include <sys/mman.h>

static struct limit_table *table;
static struct proc_table *proc;

static inline void *shared_memory(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    return p;
}

static inline struct limit_caller process_born(uint32_t n)
{
    struct proc_slot *s = &proc->slot[PROC_SLOT_WORKER0 + n];
    const uint32_t incarnation = atomic_load(&s->incarnation) + 1;
    atomic_store(&s->incarnation, incarnation);
    atomic_store(&s->state, PROC_READY);
    return (struct limit_caller){table, proc, PROC_SLOT_WORKER0 + n, incarnation};
}

static inline void process_died(uint32_t n)
{
    struct proc_slot *s = &proc->slot[PROC_SLOT_WORKER0 + n];
    atomic_store(&s->state, PROC_DEAD);
    atomic_store(&s->pid, 0);
}
#endif
