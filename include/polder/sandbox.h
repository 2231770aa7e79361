/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sandbox: limits what an attacker can do with a process that was taken over.
 *
 * Each kind of process gives up, once it has what it needs and before it reads anything from
 * outside, all system calls but those of libshared/tables/syscalls.def: it cannot run a program,
 * trace another process, make memory executable, open sockets of other families, signal other
 * processes; a worker cannot change modes of files either. The filter (seccomp(2)) stays for the
 * life of the process, over execve(2) too. Builds with a sanitizer have none, because its runtime
 * needs more.
 *
 * polder-supervisor and its custodian replace their program in place, so they can run programs:
 * those of sandbox_allow_program() alone, by the addresses at which their paths, arguments and
 * environments lie. A filter sees addresses and not what is there: that memory is read-only, and
 * what could make it writable, unmap it or put something else there is refused below
 * sandbox_protect_below() (mseal(2) does the same on kernels that have it). Executable memory is
 * mapped from files only, for the loader.
 *
 * The custodian's children inherit its filter, so it lets through what the supervisor needs.
 */
#ifndef POLDER_SANDBOX_H
#define POLDER_SANDBOX_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sandbox_kind {
    SANDBOX_MASTER,
    SANDBOX_WORKER,
    SANDBOX_KEEPER,
    SANDBOX_CONTROL,
    SANDBOX_SUPERVISOR,
    SANDBOX_RESOLVER,
    SANDBOX_CUSTODIAN
};

/* PR_SET_NO_NEW_PRIVS, and whether it may dump core. A process that may not cannot be traced or
 * looked into by others of its user either (PR_SET_DUMPABLE). Undone by execve(). */
void sandbox_begin(bool core_dumps);
/* Applies the filter of that kind. The master's only denies calls that no process of Polder makes,
 * because its children inherit it (it may run polder-supervisor). 0 or a negative errno: the kernel
 * has no seccomp filters, or refuses. */
int sandbox_enter(enum sandbox_kind kind);
/* For the supervisor and its custodian, before they enter: execve() with exactly these three
 * addresses. The supervisor may run the first ones, its custodian all. */
struct sandbox_program {
    const char *path;
    char *const *argv, *const *envp;
};
#define SANDBOX_PROGRAMS               5
#define SANDBOX_PROGRAMS_OF_SUPERVISOR 2
void sandbox_allow_program(unsigned n, const struct sandbox_program *program);
/* The same: memory below end can be made read-only, and not be changed otherwise; 0: all can. */
void sandbox_protect_below(uintptr_t end);
/* The names of the calls that a kind may make, separated by spaces; and whether such a list holds
 * all that a kind of this version makes: else *missing is the first one that it lacks. */
#define SANDBOX_CALLS_MAX 4096
void sandbox_calls(enum sandbox_kind kind, char *out, size_t size);
bool sandbox_covers(enum sandbox_kind kind, const char *calls, char *missing, size_t size);
/* sandbox_enter() if enabled. True: the filter applies. If it fails, logs one warning, and the process continues without
 * it. */
bool sandbox_enter_or_warn(enum sandbox_kind kind, bool enabled);

#endif
