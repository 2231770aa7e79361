/* SPDX-License-Identifier: BSD-2-Clause */
/* release: see release.h. */
#include "release.h"
#include "harness.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const programs[] = {"polderd", "polder-supervisor", "polderctl"};

struct image {
    unsigned char *bytes;
    size_t len;
};

static struct image read_image(const char *dir, const char *program)
{
    char path[512];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", dir, program);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    struct image i = {malloc((size_t)st.st_size), (size_t)st.st_size};
    assert_non_null(i.bytes);
    for (size_t at = 0; at < i.len;) {
        const ssize_t n = read(fd, i.bytes + at, i.len - at);
        assert_true(n > 0);
        at += (size_t)n;
    }
    close(fd);
    return i;
}

static void write_image(const struct release *r, const char *program, const struct image *i,
                        mode_t mode)
{
    char path[128], temporary[160];
    snprintf(path, sizeof path, "%s/%s", r->dir, program);
    snprintf(temporary, sizeof temporary, "%s.new", path);
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    assert_true(fd >= 0);
    for (size_t at = 0; at < i->len;) {
        const ssize_t n = write(fd, i->bytes + at, i->len - at);
        assert_true(n > 0);
        at += (size_t)n;
    }
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(rename(temporary, path), 0);
}

/* Each text that is the version, with a byte that is none of a version's on both sides. */
static void set_version(struct image *i, const char *from, const char *to)
{
    const size_t len = strlen(from);
    unsigned n = 0;
    assert_int_equal(len, strlen(to));
    for (size_t at = 1; at + len < i->len; at++)
        if (!memcmp(i->bytes + at, from, len) && !i->bytes[at + len] &&
            !strchr("0123456789.", i->bytes[at - 1] ? i->bytes[at - 1] : 'x')) {
            memcpy(i->bytes + at, to, len);
            n++;
        }
    assert_true(n > 0);
}

/* Where the first instruction lies in the file. */
static size_t entry_of(const struct image *i)
{
    Elf64_Ehdr h;
    Elf64_Phdr p;
    memcpy(&h, i->bytes, sizeof h);
    for (unsigned k = 0; k < h.e_phnum; k++) {
        memcpy(&p, i->bytes + h.e_phoff + k * sizeof p, sizeof p);
        if (p.p_type == PT_LOAD && h.e_entry >= p.p_vaddr && h.e_entry - p.p_vaddr < p.p_filesz)
            return (size_t)(h.e_entry - p.p_vaddr + p.p_offset);
    }
    fail_msg("the program has no entry");
    return 0;
}

static void put_instruction(struct image *i, bool hangs)
{
#ifdef __aarch64__
    const unsigned char loop[] = {0x00, 0x00, 0x00, 0x14}, trap[] = {0, 0, 0, 0};
#else
    const unsigned char loop[] = {0xeb, 0xfe, 0x90, 0x90}, trap[] = {0x0f, 0x0b, 0x0f, 0x0b};
#endif
    memcpy(i->bytes + entry_of(i), hangs ? loop : trap, sizeof loop);
}

const char *release_real_version(const struct release *r)
{
    static char text[64];
    char command[320];
    snprintf(command, sizeof command, "%s/polder-supervisor -V", r->built);
    FILE *p = popen(command, "re");
    assert_non_null(p);
    assert_int_equal(fscanf(p, "polder-supervisor %63s", text), 1);
    pclose(p);
    return text;
}

void release_install(const struct release *r, const char *program, const char *version,
                     enum release_damage damage)
{
    struct image i = read_image(r->built, program);
    if (version)
        set_version(&i, release_real_version(r), version);
    if (damage == RELEASE_CRASHES || damage == RELEASE_HANGS)
        put_instruction(&i, damage == RELEASE_HANGS);
    if (damage == RELEASE_FOREIGN)
        i.bytes[offsetof(Elf64_Ehdr, e_machine)] ^= 0x40;
    if (damage == RELEASE_NO_PROGRAM)
        memcpy(i.bytes, "nothing", 7);
    if (damage == RELEASE_TRUNCATED)
        i.len /= 40;
    write_image(r, program, &i, damage == RELEASE_UNREADABLE ? 0644 : 0755);
    free(i.bytes);
}

void release_open(struct release *r)
{
    const char *dir = getenv("POLDER_BUILD");
    char real[256] = "build";
    if (dir)
        snprintf(real, sizeof real, "%s", dir);
    char *whole = realpath(real, NULL);
    assert_non_null(whole);
    snprintf(r->built, sizeof r->built, "%s", whole);
    free(whole);
    strcpy(r->dir, "/tmp/polder-release.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    assert_int_equal(chmod(r->dir, 0755), 0);
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
        release_install(r, programs[i], NULL, RELEASE_WHOLE);
    setenv("POLDER_BUILD", r->dir, 1);
}

void release_close(struct release *r)
{
    char path[128];
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        snprintf(path, sizeof path, "%s/%s", r->dir, programs[i]);
        unlink(path);
    }
    rmdir(r->dir);
    setenv("POLDER_BUILD", r->built, 1);
}
