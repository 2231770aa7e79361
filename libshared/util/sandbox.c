/* SPDX-License-Identifier: BSD-2-Clause */
/* sandbox: seccomp filters made from a table of system calls. */
#include "polder/sandbox.h"
#include "polder/log.h"

#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define SANDBOX_SANITIZED 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define SANDBOX_SANITIZED 1
#endif

enum {
    W = 1 << SANDBOX_WORKER,
    K = 1 << SANDBOX_KEEPER,
    C = 1 << SANDBOX_CONTROL,
    U = 1 << SANDBOX_CUSTODIAN,
    S = 1 << SANDBOX_SUPERVISOR | U, /* it inherits its custodian's filter */
    R = 1 << SANDBOX_RESOLVER,
    A = W | K | C | S | R
};

struct sandbox_call {
    const char *name;
    unsigned kinds;
};
static const struct sandbox_call allowed[] = {
#define SYSCALL(name, kinds) {#name, kinds},
#define DENIED(name)
#include "libshared/tables/syscalls.def"
#undef SYSCALL
#undef DENIED
};
static const char *const denied[] = {
#define SYSCALL(name, kinds)
#define DENIED(name) #name,
#include "libshared/tables/syscalls.def"
#undef SYSCALL
#undef DENIED
};

#define COUNT(a)  (sizeof(a) / sizeof *(a))
#define SYS_MSEAL 462 /* on all architectures */

/* A call that this architecture or this libseccomp does not know is none that could be made. */
static int sandbox_rule(scmp_filter_ctx filter, uint32_t action, const char *name, unsigned n,
                        const struct scmp_arg_cmp *args)
{
    const int number = seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR || number < 0)
        return 0;
    const int rc = seccomp_rule_add_array(filter, action, number, n, args);
    return rc == -EEXIST ? 0 : rc;
}

/* Does it replace its program? */
static bool sandbox_upgrades(enum sandbox_kind kind)
{
    return kind == SANDBOX_SUPERVISOR || kind == SANDBOX_CUSTODIAN;
}

static int sandbox_deny(scmp_filter_ctx filter, enum sandbox_kind kind)
{
    for (size_t i = 0; i < COUNT(denied); i++) {
        if (kind == SANDBOX_MASTER && strncmp(denied[i], "execve", 6) == 0)
            continue;
        if (sandbox_upgrades(kind) && strcmp(denied[i], "execve") == 0)
            continue; /* depends on its arguments */
        const int rc = sandbox_rule(filter, SCMP_ACT_ERRNO(EPERM), denied[i], 0, NULL);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static struct scmp_arg_cmp sandbox_equals(unsigned arg, scmp_datum_t value)
{
    return (struct scmp_arg_cmp){.arg = arg, .op = SCMP_CMP_EQ, .datum_a = value};
}

/* To a child, of which the filter cannot know the number, or by that child to itself. */
static int sandbox_signals(scmp_filter_ctx filter)
{
    static const int signals[] = {SIGABRT, SIGCONT, SIGKILL, SIGSTOP};
    const struct scmp_arg_cmp one_process = {0, SCMP_CMP_MASKED_EQ, ~(scmp_datum_t)INT32_MAX, 0};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < COUNT(signals); i++) {
        const scmp_datum_t number = (scmp_datum_t)signals[i];
        const struct scmp_arg_cmp of_kill[] = {one_process, sandbox_equals(1, number)},
                                  of_tgkill[] = {one_process, sandbox_equals(2, number)};
        rc = sandbox_rule(filter, SCMP_ACT_ALLOW, "kill", COUNT(of_kill), of_kill);
        if (rc == 0)
            rc = sandbox_rule(filter, SCMP_ACT_ALLOW, "tgkill", COUNT(of_tgkill), of_tgkill);
    }
    return rc;
}

/* Calls that are allowed depending on their arguments. */
static int sandbox_conditional(scmp_filter_ctx filter, enum sandbox_kind kind)
{
    static const int families[] = {AF_UNIX, AF_INET, AF_INET6};
    const size_t n_families = kind == SANDBOX_KEEPER ? 1 : COUNT(families);
    const struct scmp_arg_cmp self = sandbox_equals(0, (scmp_datum_t)getpid());
    const struct scmp_arg_cmp parent = sandbox_equals(0, (scmp_datum_t)getppid());
    const struct scmp_arg_cmp nothing = sandbox_equals(1, 0);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n_families; i++) {
        const struct scmp_arg_cmp family = sandbox_equals(0, (scmp_datum_t)families[i]);
        rc = sandbox_rule(filter, SCMP_ACT_ALLOW, "socket", 1, &family);
        if (rc == 0 && families[i] == AF_UNIX)
            rc = sandbox_rule(filter, SCMP_ACT_ALLOW, "socketpair", 1, &family);
    }
    if (rc == 0)
        rc = sandbox_rule(filter, SCMP_ACT_ALLOW, "kill", 1, &self);
    if (rc == 0 && (kind == SANDBOX_CONTROL || kind == SANDBOX_KEEPER))
        rc = sandbox_rule(filter, SCMP_ACT_ALLOW, "kill", 1, &parent);
    if (rc == 0) /* is it alive? */
        rc = sandbox_rule(filter, SCMP_ACT_ALLOW, "kill", 1, &nothing);
    if (rc == 0)
        rc = sandbox_rule(filter, SCMP_ACT_ALLOW, "tgkill", 1, &self);
    return rc == 0 && kind == SANDBOX_CUSTODIAN ? sandbox_signals(filter) : rc;
}

/* ---- memory ---- */

static uintptr_t sandbox_protected_end;

void sandbox_protect_below(uintptr_t end)
{
    sandbox_protected_end = end;
}

static struct scmp_arg_cmp sandbox_not_protected(unsigned arg)
{
    return (struct scmp_arg_cmp){.arg = arg, .op = SCMP_CMP_GE, .datum_a = sandbox_protected_end};
}

/* Nothing becomes executable; nothing below the protected end becomes anything but read-only. */
static int sandbox_memory(scmp_filter_ctx filter, bool protects)
{
    const struct scmp_arg_cmp plain = {.arg = 2, .op = SCMP_CMP_MASKED_EQ, .datum_a = PROT_EXEC},
                              there = sandbox_not_protected(0);
    const struct {
        const char *name;
        unsigned n;
        struct scmp_arg_cmp args[3];
    } rules[] = {
        {"mmap", 2, {plain, {3, SCMP_CMP_MASKED_EQ, MAP_FIXED, 0}}},
        {"mmap", 2, {there, plain}},
        {"mprotect", 1, {sandbox_equals(2, PROT_READ)}},
        {"mprotect", 2, {there, plain}},
        {"munmap", 1, {there}},
        {"mremap", 2, {there, {3, SCMP_CMP_MASKED_EQ, MREMAP_FIXED, 0}}},
        {"madvise", 1, {there}},
    };
    static const char *const free[] = {"munmap", "mremap", "madvise"};
    int rc = 0;
    if (!protects || !sandbox_protected_end) {
        for (size_t i = 0; rc == 0 && i < COUNT(free); i++)
            rc = sandbox_rule(filter, SCMP_ACT_ALLOW, free[i], 0, NULL);
        if (rc == 0)
            rc = sandbox_rule(filter, SCMP_ACT_ALLOW, "mmap", 1, &plain);
        return rc == 0 ? sandbox_rule(filter, SCMP_ACT_ALLOW, "mprotect", 1, &plain) : rc;
    }
    for (size_t i = 0; rc == 0 && i < COUNT(rules); i++)
        rc = sandbox_rule(filter, SCMP_ACT_ALLOW, rules[i].name, rules[i].n, rules[i].args);
    return rc;
}

/* ---- what polder-supervisor needs to replace its program ---- */

static struct sandbox_program sandbox_program[SANDBOX_PROGRAMS];

void sandbox_allow_program(unsigned n, const struct sandbox_program *program)
{
    sandbox_program[n] = *program;
}

static int sandbox_programs(scmp_filter_ctx filter, enum sandbox_kind kind)
{
    const unsigned n =
        kind == SANDBOX_CUSTODIAN ? SANDBOX_PROGRAMS : SANDBOX_PROGRAMS_OF_SUPERVISOR;
    for (unsigned i = 0; i < n; i++) {
        const struct sandbox_program *p = &sandbox_program[i];
        const struct scmp_arg_cmp args[] = {{0, SCMP_CMP_EQ, (uintptr_t)p->path, 0},
                                            {1, SCMP_CMP_EQ, (uintptr_t)p->argv, 0},
                                            {2, SCMP_CMP_EQ, (uintptr_t)p->envp, 0}};
        const int rc =
            p->path ? sandbox_rule(filter, SCMP_ACT_ALLOW, "execve", COUNT(args), args) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* A child that runs one of them, what its loader does, and the filter of the next version. */
static int sandbox_upgrade(scmp_filter_ctx filter, enum sandbox_kind kind)
{
    static const int controls[] = {PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, PR_SET_NAME,
                                   PR_SET_SECCOMP, PR_GET_SECCOMP};
    const struct scmp_arg_cmp fork_alone =
        sandbox_equals(0, CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | SIGCHLD);
    const struct scmp_arg_cmp of_file[] = {
        {2, SCMP_CMP_MASKED_EQ, PROT_EXEC | PROT_WRITE, PROT_EXEC},
        {3, SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS | MAP_FIXED, 0}};
    const struct scmp_arg_cmp of_file_there[] = {
        sandbox_not_protected(0), of_file[0], {3, SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, 0}};
    const struct scmp_arg_cmp undumpable[] = {sandbox_equals(0, PR_SET_DUMPABLE),
                                              sandbox_equals(1, 0)};
    int rc = sandbox_rule(filter, SCMP_ACT_ALLOW, "clone", 1, &fork_alone);
    if (rc == 0)
        rc = sandbox_rule(filter, SCMP_ACT_ALLOW, "prctl", COUNT(undumpable), undumpable);
    if (rc == 0)
        rc = sandbox_rule(filter, SCMP_ACT_ALLOW, "mmap", COUNT(of_file), of_file);
    if (rc == 0)
        rc = sandbox_rule(filter, SCMP_ACT_ALLOW, "mmap", COUNT(of_file_there), of_file_there);
    if (rc == 0) /* which libraries do not know yet */
        rc = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SYS_MSEAL, 0, NULL);
    for (size_t i = 0; rc == 0 && i < COUNT(controls); i++) {
        const struct scmp_arg_cmp control = sandbox_equals(0, (scmp_datum_t)controls[i]);
        rc = sandbox_rule(filter, SCMP_ACT_ALLOW, "prctl", 1, &control);
    }
    return rc < 0 ? rc : sandbox_programs(filter, kind);
}

void sandbox_calls(enum sandbox_kind kind, char *out, size_t size)
{
    size_t n = 0;
    *out = 0;
    for (size_t i = 0; i < COUNT(allowed) && n < size; i++)
        if (allowed[i].kinds & 1u << kind)
            n += (size_t)snprintf(out + n, size - n, "%s%s", n ? " " : "", allowed[i].name);
}

static bool sandbox_lists(const char *calls, const char *name)
{
    const size_t len = strlen(name);
    for (const char *at = calls; *at;) {
        const size_t n = strcspn(at, " ");
        if (n == len && !memcmp(at, name, n))
            return true;
        at += n;
        at += strspn(at, " ");
    }
    return false;
}

bool sandbox_covers(enum sandbox_kind kind, const char *calls, char *missing, size_t size)
{
    for (size_t i = 0; i < COUNT(allowed); i++)
        if ((allowed[i].kinds & 1u << kind) && !sandbox_lists(calls, allowed[i].name)) {
            snprintf(missing, size, "%s", allowed[i].name);
            return false;
        }
    return true;
}

/* ---- */

static bool sandbox_is_of_memory(const char *name)
{
    static const char *const calls[] = {"mmap", "mprotect", "munmap", "mremap", "madvise"};
    for (size_t i = 0; i < COUNT(calls); i++)
        if (strcmp(calls[i], name) == 0)
            return true;
    return false;
}

static int sandbox_allow(scmp_filter_ctx filter, enum sandbox_kind kind)
{
    int rc = sandbox_memory(filter, sandbox_upgrades(kind));
    for (size_t i = 0; rc == 0 && i < COUNT(allowed); i++)
        if ((allowed[i].kinds & 1u << kind) && !sandbox_is_of_memory(allowed[i].name))
            rc = sandbox_rule(filter, SCMP_ACT_ALLOW, allowed[i].name, 0, NULL);
    if (rc == 0)
        rc = sandbox_conditional(filter, kind);
    return rc == 0 && sandbox_upgrades(kind) ? sandbox_upgrade(filter, kind) : rc;
}

void sandbox_begin(bool core_dumps)
{
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
#ifndef SANDBOX_SANITIZED /* its leak check traces the process */
    prctl(PR_SET_DUMPABLE, core_dumps, 0, 0, 0);
#else
    (void)core_dumps;
#endif
}

int sandbox_enter(enum sandbox_kind kind)
{
#ifdef SANDBOX_SANITIZED
    (void)kind;
    return 0;
#endif
    scmp_filter_ctx filter =
        seccomp_init(kind == SANDBOX_MASTER ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(ENOSYS));
    if (!filter)
        return -ENOMEM;
    /* Nothing of others is in the same address space that speculation could read. Only seccomp(2)
     * can say so: where the kernel or a service manager's filter has none, prctl(2) must do. */
    (void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
    int rc = sandbox_deny(filter, kind);
    if (rc == 0 && kind != SANDBOX_MASTER)
        rc = sandbox_allow(filter, kind);
    if (rc == 0)
        rc = seccomp_load(filter);
    seccomp_release(filter);
    return rc;
}

bool sandbox_enter_or_warn(enum sandbox_kind kind, bool enabled)
{
    const int rc = enabled ? sandbox_enter(kind) : 0;
    if (rc < 0)
        log_warning("sandbox: the kernel takes no filter of system calls: %s; going on without",
                    strerror(-rc));
    return enabled && rc == 0;
}
