/* SPDX-License-Identifier: BSD-2-Clause */
/* program: see program.h. */
#include "daemons/supervisor/program.h"
#include "polder/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE_AT   UINT64_C(0x1000000000) /* below what the kernel chooses, on all architectures */
#define PAGE_END  (PAGE_AT + (1u << 20)) /* and room for what later versions append */
#define TEXT_MAX  (96u << 10) /* of the environment, which can be longer: then it is cut */
#define ENV_MAX   512
#define ARGS_MAX  5
#define WORDS     (2 + PROGRAM_RUNS)
#define WORD_MAX  24
#define SYS_MSEAL 462
#define DELETED   " (deleted)"
#define FILE_MAX  (4u << 20)

/* Only ever appended to: filters that an earlier version has entered hold addresses in it. */
struct page {
    char path[PATH_MAX], config[PATH_MAX];
    char *argv[PROGRAM_HOLDS_PROVES][ARGS_MAX];
    char *env[ENV_MAX + 1];
    char text[TEXT_MAX];
    char *holds[PROGRAM_RUNS - PROGRAM_HOLDS_PROVES][ARGS_MAX];
    char words[WORDS][WORD_MAX];
};
_Static_assert(sizeof(struct page) <= PAGE_END - PAGE_AT, "the page has a bound");

static struct {
    char path[PATH_MAX], config[PATH_MAX];
    struct page *page;
    struct stat file; /* that runs */
} program;

extern char **environ;

/* ---- which file ---- */

/* As it was started, if that says: a link may lead to another file by then. */
static void find_path(char out[PATH_MAX])
{
    const char *given = (const char *)(uintptr_t)getauxval(AT_EXECFN); /* NOLINT */
    if (given && *given == '/' && strncmp(given, "/proc/", 6) != 0 &&
        strncmp(given, "/dev/fd/", 8) != 0 && strlen(given) < PATH_MAX) {
        strcpy(out, given);
        return;
    }
    const ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
    out[n > 0 ? n : 0] = 0;
    const size_t len = strlen(out), end = strlen(DELETED);
    if (len > end && !strcmp(out + len - end, DELETED))
        out[len - end] = 0;
}

static void reserve(int wanted)
{
    if (fcntl(wanted, F_GETFD) >= 0)
        return; /* the block, or what we were started with */
    const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fd != wanted && dup3(fd, wanted, O_CLOEXEC) == wanted)
        close(fd);
}

void program_begin(const char *config_path)
{
    find_path(program.path);
    snprintf(program.config, sizeof program.config, "%s", config_path);
    if (stat("/proc/self/exe", &program.file) < 0)
        program.file = (struct stat){0};
    reserve(PROGRAM_BLOCK_FD);
    reserve(PROGRAM_PIPE_FD);
    reserve(PROGRAM_FILE_FD);
    reserve(PROGRAM_CHANNEL_FD);
}

const char *program_path(void)
{
    return program.path;
}

bool program_differs(void)
{
    struct stat now;
    return *program.path && program.file.st_ino && stat(program.path, &now) == 0 &&
           (now.st_dev != program.file.st_dev || now.st_ino != program.file.st_ino ||
            now.st_size != program.file.st_size ||
            now.st_mtim.tv_sec != program.file.st_mtim.tv_sec ||
            now.st_mtim.tv_nsec != program.file.st_mtim.tv_nsec);
}

/* ---- the page ---- */

static void copy_environment(struct page *p)
{
    size_t at = 0, n = 0;
    for (char **e = environ; *e && n < ENV_MAX; e++) {
        const size_t len = strlen(*e) + 1;
        if (len > TEXT_MAX - at)
            continue;
        memcpy(p->text + at, *e, len);
        p->env[n++] = p->text + at;
        at += len;
    }
    p->env[n] = NULL;
}

static char **arguments(struct page *p, enum program_run how)
{
    return how < PROGRAM_HOLDS_PROVES ? p->argv[how] : p->holds[how - PROGRAM_HOLDS_PROVES];
}

/* Copies all that they point to, too. */
static void set_arguments(struct page *p)
{
    static const char words[WORDS][WORD_MAX] = {
        "polder-supervisor", "-c", "-P", "-R", "-p", "-r", "-s"};
    memcpy(p->words, words, sizeof words);
    for (unsigned i = 0; i < PROGRAM_RUNS; i++) {
        char *const argv[ARGS_MAX] = {p->words[0], p->words[1], p->config, p->words[2 + i], NULL};
        memcpy(arguments(p, (enum program_run)i), argv, sizeof argv);
    }
}

/* NULL: no memory. */
static struct page *map_page(void)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS, access = PROT_READ | PROT_WRITE;
    struct page *p =
        mmap((void *)PAGE_AT, sizeof *p, access, flags | MAP_FIXED_NOREPLACE, -1, 0); /* NOLINT */
    if (p == MAP_FAILED || (uintptr_t)p != PAGE_AT) {
        if (p != MAP_FAILED)
            munmap(p, sizeof *p);
        p = mmap(NULL, sizeof *p, access, flags, -1, 0);
    }
    return p == MAP_FAILED ? NULL : p;
}

static bool fill_page(struct page *p)
{
    strcpy(p->path, program.path);
    strcpy(p->config, program.config);
    set_arguments(p);
    copy_environment(p);
    if (mprotect(p, sizeof *p, PROT_READ) < 0)
        return false;
    syscall(SYS_MSEAL, p, sizeof *p, 0); /* from Linux 6.10 on */
    return true;
}

bool program_pin(void)
{
    if (!program.page) {
        struct page *p = map_page();
        if (!p || !fill_page(p))
            return false;
        program.page = p;
    }
    for (unsigned i = 0; i < PROGRAM_RUNS; i++)
        sandbox_allow_program(i, &(struct sandbox_program){program.page->path,
                                                           arguments(program.page, i),
                                                           program.page->env});
    sandbox_protect_below((uintptr_t)program.page == PAGE_AT ? PAGE_END : 0);
    return true;
}

int program_run(enum program_run how)
{
    struct page *p = program.page;
    if (!p)
        return -ENOMEM;
    execve(p->path, arguments(p, how), p->env);
    return -errno;
}

/* ---- what it is left ---- */

int program_copy_file(void)
{
    char bytes[16384];
    ssize_t n;
    size_t sum = 0;
    const int from = open(program.config, O_RDONLY | O_CLOEXEC);
    const int to = memfd_create("polder-conf", MFD_CLOEXEC);
    while (from >= 0 && to >= 0 && sum < FILE_MAX && (n = read(from, bytes, sizeof bytes)) > 0)
        sum += write(to, bytes, (size_t)n) == n ? (size_t)n : FILE_MAX;
    if (from >= 0)
        close(from);
    if (to < 0)
        return -errno;
    const int code = dup3(to, PROGRAM_FILE_FD, O_CLOEXEC) < 0 ? -errno : 0;
    close(to);
    return code;
}

void program_forget(void)
{
    const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (nothing < 0)
        return;
    dup3(nothing, PROGRAM_BLOCK_FD, O_CLOEXEC);
    dup3(nothing, PROGRAM_FILE_FD, O_CLOEXEC);
    close(nothing);
}
