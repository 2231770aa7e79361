/* SPDX-License-Identifier: BSD-2-Clause */
/* state_block: see state_block.h. A record is collected in memory, and written when it is whole. */
#include "polder/state_block.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define MAGIC UINT64_C(0x6b636f6c42724c50)
#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)

struct block_header {
    uint64_t magic;
    uint32_t format;
    uint32_t kind; /* enum state_kind */
    uint64_t length;
    uint64_t records;
    uint64_t checksum; /* of the records, seeded with that of this header with 0 here */
    uint64_t reserved;
    char version[STATE_VERSION_MAX];
};
_Static_assert(sizeof(struct block_header) == 80, "wire format");

struct record_header {
    uint16_t type;
    uint16_t flags;
    uint32_t length; /* of the values */
};
_Static_assert(sizeof(struct record_header) == 8, "wire format");

enum tag { TAG_U64 = 1, TAG_TEXT, TAG_BYTES, TAG_FD };

struct value_header {
    uint32_t tag;
    uint32_t length; /* without what fills it up to a multiple of 8 */
};
_Static_assert(sizeof(struct value_header) == 8, "wire format");

struct fd_value {
    int32_t fd;
    uint32_t what;
};

static uint64_t padded(uint64_t length)
{
    return (length + 7) & ~UINT64_C(7);
}

static uint64_t checksum_finish(struct block_header h, uint64_t of_records)
{
    h.checksum = 0;
    return XXH3_64bits_withSeed(&h, sizeof h, of_records);
}

/* ---- writing ---- */

static void writer_fail(struct state_writer *w, int error)
{
    if (!w->error)
        w->error = error;
}

static void write_all(struct state_writer *w, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    while (len && !w->error) {
        const ssize_t n = write(w->fd, at, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            writer_fail(w, n < 0 ? -errno : -EIO);
            return;
        }
        at += n;
        len -= (size_t)n;
        w->length += (uint64_t)n;
    }
}

void state_writer_open(struct state_writer *w, enum state_kind kind, const char *version)
{
    const struct block_header none = {0};
    *w = (struct state_writer){.kind = kind};
    snprintf(w->version, sizeof w->version, "%s", version);
    w->fd = memfd_create("polder-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (w->fd < 0) {
        writer_fail(w, -errno);
        return;
    }
    w->digest = XXH3_createState();
    if (w->digest)
        XXH3_64bits_reset(w->digest);
    else
        writer_fail(w, -ENOMEM);
    write_all(w, &none, sizeof none); /* without a magic: not whole yet */
}

static bool writer_reserve(struct state_writer *w, uint64_t more)
{
    if (w->error)
        return false;
    if (w->used + more > STATE_RECORD_MAX) {
        writer_fail(w, -EMSGSIZE);
        return false;
    }
    if (w->used + more <= w->room)
        return true;
    size_t room = w->room ? w->room : 4096;
    while (room < w->used + more)
        room *= 2;
    uint8_t *record = realloc(w->record, room);
    if (!record) {
        writer_fail(w, -ENOMEM);
        return false;
    }
    w->record = record;
    w->room = room;
    return true;
}

static void record_end(struct state_writer *w)
{
    struct record_header h;
    if (w->used < sizeof h || w->error)
        return;
    memcpy(&h, w->record, sizeof h);
    h.length = (uint32_t)(w->used - sizeof h);
    memcpy(w->record, &h, sizeof h);
    XXH3_64bits_update(w->digest, w->record, w->used);
    write_all(w, w->record, w->used);
    w->used = 0;
    w->records++;
}

void state_record(struct state_writer *w, uint16_t type, uint16_t flags)
{
    const struct record_header h = {type, flags, 0};
    record_end(w);
    if (!writer_reserve(w, sizeof h))
        return;
    memcpy(w->record, &h, sizeof h);
    w->used = sizeof h;
}

static void value_put(struct state_writer *w, enum tag tag, const void *bytes, size_t len)
{
    const struct value_header h = {tag, (uint32_t)len};
    if (len > STATE_RECORD_MAX || w->used < sizeof(struct record_header)) {
        writer_fail(w, len > STATE_RECORD_MAX ? -EMSGSIZE : -EINVAL);
        return;
    }
    const size_t room = (size_t)padded(len);
    if (!writer_reserve(w, sizeof h + room))
        return;
    uint8_t *at = w->record + w->used;
    memcpy(at, &h, sizeof h);
    if (len)
        memcpy(at + sizeof h, bytes, len);
    memset(at + sizeof h + len, 0, room - len);
    w->used += sizeof h + room;
}

void state_put_u64(struct state_writer *w, uint64_t value)
{
    value_put(w, TAG_U64, &value, sizeof value);
}

void state_put_text(struct state_writer *w, const char *text)
{
    value_put(w, TAG_TEXT, text, strlen(text) + 1);
}

void state_put_bytes(struct state_writer *w, const void *bytes, size_t len)
{
    value_put(w, TAG_BYTES, bytes, len);
}

void state_put_fd(struct state_writer *w, int fd, enum state_fd what)
{
    const struct fd_value v = {fd < 0 ? -1 : fd, what};
    value_put(w, TAG_FD, &v, sizeof v);
}

static void header_write(struct state_writer *w)
{
    struct block_header h = {.magic = MAGIC,
                             .format = STATE_FORMAT,
                             .kind = w->kind,
                             .length = w->length,
                             .records = w->records};
    memcpy(h.version, w->version, sizeof h.version);
    h.checksum = checksum_finish(h, XXH3_64bits_digest(w->digest));
    const ssize_t n = pwrite(w->fd, &h, sizeof h, 0);
    if (n != (ssize_t)sizeof h)
        writer_fail(w, n < 0 ? -errno : -EIO);
}

int state_writer_close(struct state_writer *w)
{
    record_end(w);
    if (!w->error)
        header_write(w);
    if (!w->error && fcntl(w->fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) < 0)
        writer_fail(w, -errno);
    if (w->error && w->fd >= 0)
        close(w->fd);
    XXH3_freeState(w->digest);
    free(w->record);
    const int result = w->error ? w->error : w->fd;
    *w = (struct state_writer){.fd = -1, .error = -EINVAL};
    return result;
}

/* ---- reading ---- */

bool state_good(const struct state_reader *r)
{
    return !r->why[0];
}

static void reader_fail(struct state_reader *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void reader_fail(struct state_reader *r, const char *fmt, ...)
{
    va_list ap;
    if (!state_good(r))
        return;
    va_start(ap, fmt);
    vsnprintf(r->why, sizeof r->why, fmt, ap);
    va_end(ap);
}

void state_refuse(struct state_reader *r, const char *fmt, ...)
{
    char what[120];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    reader_fail(r, "record %llu (type %u), value %llu: %s", (unsigned long long)r->record, r->type,
                (unsigned long long)r->n_values, what);
}

static bool header_judge(struct state_reader *r, enum state_kind kind)
{
    struct block_header h;
    memcpy(&h, r->base, sizeof h);
    if (h.magic != MAGIC)
        reader_fail(r, "it is no state block, or was not finished");
    else if (h.format != STATE_FORMAT)
        reader_fail(r, "it has format %u, and this program reads format %u", h.format,
                    STATE_FORMAT);
    else if (h.kind != (uint32_t)kind)
        reader_fail(r, "it is of another daemon (%u, expected %u)", h.kind, (unsigned)kind);
    else if (h.length != r->size)
        reader_fail(r, "it has %llu bytes, and says %llu", (unsigned long long)r->size,
                    (unsigned long long)h.length);
    else if (checksum_finish(h, XXH3_64bits(r->base + sizeof h, r->size - sizeof h)) != h.checksum)
        reader_fail(r, "its checksum is wrong");
    else if (!memchr(h.version, 0, sizeof h.version))
        reader_fail(r, "its version has no end");
    if (!state_good(r))
        return false;
    memcpy(r->version, h.version, sizeof r->version);
    return true;
}

static bool block_map(struct state_reader *r, int fd)
{
    struct stat st;
    const int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0) {
        reader_fail(r, "descriptor %d is no sealed memory: %s", fd,
                    seals < 0 ? strerror(errno) : "its seals are missing");
        return false;
    }
    if ((uint64_t)st.st_size < sizeof(struct block_header)) {
        reader_fail(r, "it has %lld bytes, fewer than its header", (long long)st.st_size);
        return false;
    }
    void *base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        reader_fail(r, "cannot map it: %s", strerror(errno));
        return false;
    }
    r->base = base;
    r->size = (uint64_t)st.st_size;
    return true;
}

int state_reader_open(struct state_reader *r, int fd, enum state_kind kind, uint16_t highest)
{
    *r = (struct state_reader){.highest = highest, .at = sizeof(struct block_header)};
    if (!block_map(r, fd))
        return -EPROTO;
    if (header_judge(r, kind))
        return 0;
    state_reader_close(r);
    return -EPROTO;
}

void state_reader_close(struct state_reader *r)
{
    if (r->base)
        munmap((void *)(uintptr_t)r->base, (size_t)r->size);
    r->base = NULL;
    r->size = r->at = r->value = r->end = 0;
}

/* The record at r->at, which is not judged by its type yet. */
static bool record_enter(struct state_reader *r, struct record_header *h)
{
    r->record++;
    r->type = 0;
    r->n_values = 0;
    r->value = r->end = 0;
    if (r->size - r->at < sizeof *h) {
        reader_fail(r, "record %llu is truncated", (unsigned long long)r->record);
        return false;
    }
    memcpy(h, r->base + r->at, sizeof *h);
    r->type = h->type;
    const uint64_t left = r->size - r->at - sizeof *h;
    if (h->type == 0 || h->length > STATE_RECORD_MAX || h->length > left || h->length % 8) {
        reader_fail(r, "record %llu has type %u and %u bytes, where %llu are left",
                    (unsigned long long)r->record, h->type, h->length, (unsigned long long)left);
        return false;
    }
    r->value = r->at + sizeof *h;
    r->at = r->end = r->value + h->length;
    return true;
}

uint16_t state_next(struct state_reader *r)
{
    struct record_header h;
    while (state_good(r) && r->at < r->size) {
        if (!record_enter(r, &h))
            break;
        if (h.type <= r->highest)
            return h.type;
        if (!(h.flags & STATE_SKIPPABLE))
            reader_fail(r, "record %llu has type %u, which only a later version knows",
                        (unsigned long long)r->record, h.type);
    }
    r->value = r->end = 0;
    return 0;
}

bool state_more(const struct state_reader *r)
{
    return state_good(r) && r->value < r->end;
}

static const char *tag_name(uint32_t tag)
{
    static const char *const name[] = {"nothing", "a number", "a text", "bytes", "a descriptor"};
    return tag < sizeof name / sizeof *name ? name[tag] : "something unknown";
}

/* The next value, whatever it is. */
static const uint8_t *value_enter(struct state_reader *r, struct value_header *h)
{
    if (!state_good(r))
        return NULL;
    r->n_values++;
    if (r->end - r->value < sizeof *h) {
        state_refuse(r, "is missing");
        return NULL;
    }
    memcpy(h, r->base + r->value, sizeof *h);
    const uint64_t left = r->end - r->value - sizeof *h;
    if (padded(h->length) > left) {
        state_refuse(r, "has %u bytes, where %llu are left", h->length, (unsigned long long)left);
        return NULL;
    }
    const uint8_t *bytes = r->base + r->value + sizeof *h;
    r->value += sizeof *h + padded(h->length);
    return bytes;
}

static const uint8_t *value_get(struct state_reader *r, enum tag tag, size_t *len)
{
    struct value_header h;
    const uint8_t *bytes = value_enter(r, &h);
    if (!bytes)
        return NULL;
    const bool fixed = tag == TAG_U64 || tag == TAG_FD;
    if (h.tag != (uint32_t)tag || (fixed && h.length != 8)) {
        state_refuse(r, "expected %s, found %s of %u bytes", tag_name(tag), tag_name(h.tag),
                     h.length);
        return NULL;
    }
    *len = h.length;
    return bytes;
}

uint64_t state_get_u64(struct state_reader *r)
{
    uint64_t value = 0;
    size_t len;
    const uint8_t *bytes = value_get(r, TAG_U64, &len);
    if (bytes)
        memcpy(&value, bytes, sizeof value);
    return value;
}

uint64_t state_get_number(struct state_reader *r, uint64_t max)
{
    const uint64_t value = state_get_u64(r);
    if (value <= max)
        return value;
    state_refuse(r, "is %llu, expected at most %llu", (unsigned long long)value,
                 (unsigned long long)max);
    return 0;
}

const char *state_get_text(struct state_reader *r)
{
    size_t len;
    const uint8_t *bytes = value_get(r, TAG_TEXT, &len);
    if (!bytes)
        return "";
    if (len == 0 || memchr(bytes, 0, len) != bytes + len - 1) {
        state_refuse(r, "is a text that ends at the wrong place");
        return "";
    }
    return (const char *)bytes;
}

const void *state_get_bytes(struct state_reader *r, size_t *len)
{
    *len = 0;
    return value_get(r, TAG_BYTES, len);
}

static int moved_to(const struct state_reader *r, int fd)
{
    return (size_t)fd < r->n_moved ? r->moved[fd] : -1;
}

int state_get_fd(struct state_reader *r, enum state_fd what)
{
    struct fd_value v;
    size_t len;
    const uint8_t *bytes = value_get(r, TAG_FD, &len);
    if (!bytes)
        return -1;
    memcpy(&v, bytes, sizeof v);
    if (v.what != (uint32_t)what) {
        state_refuse(r, "is a descriptor of kind %u, expected kind %u", v.what, (unsigned)what);
        return -1;
    }
    const int fd = v.fd < 0 || !r->moved ? v.fd : moved_to(r, v.fd);
    if (v.fd >= 0 && fd < 0) {
        state_refuse(r, "descriptor %d has not come with it", v.fd);
        return -1;
    }
    if (fd >= 0 && !r->copy && fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        state_refuse(r, "descriptor %d: %s", fd, strerror(errno));
        return -1;
    }
    return fd < 0 ? -1 : fd;
}

/* ---- all descriptors ---- */

static int each_of_record(struct state_reader *r, int (*fn)(void *arg, int fd), void *arg)
{
    struct value_header h;
    struct fd_value v;
    int code = 0;
    while (code == 0 && state_more(r)) {
        const uint8_t *bytes = value_enter(r, &h);
        if (!bytes || h.tag != TAG_FD || h.length != sizeof v)
            continue;
        memcpy(&v, bytes, sizeof v);
        if (v.fd >= 0)
            code = fn(arg, v.fd);
    }
    return code;
}

int state_block_each_fd(int fd, int (*fn)(void *arg, int fd), void *arg)
{
    struct state_reader r = {.highest = UINT16_MAX, .at = sizeof(struct block_header)};
    if (!block_map(&r, fd))
        return -EPROTO;
    int code = 0;
    while (code == 0 && state_next(&r))
        code = each_of_record(&r, fn, arg);
    if (code == 0 && !state_good(&r))
        code = -EPROTO;
    state_reader_close(&r);
    return code;
}

static int inherit_one(void *arg, int fd)
{
    const bool *inherit = arg;
    return fcntl(fd, F_SETFD, *inherit ? 0 : FD_CLOEXEC) < 0 ? -errno : 0;
}

int state_block_inherit(int fd, bool inherit)
{
    const int code = state_block_each_fd(fd, inherit_one, &inherit);
    return code ? code : inherit_one(&inherit, fd);
}
