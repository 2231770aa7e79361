/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * history_file: the history in state_dir. The file is a header and then servers, fine and coarse
 * samples as they lie in memory, in the byte order of the machine; 6.5 MB.
 */
#include "polder/history.h"
#include "polder/state_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define FILE_MAGIC UINT64_C(0x79726f7473696870) /* "phistory" */

struct file_header {
    uint64_t magic, layout;
    uint64_t saved;    /* Unix time */
    uint64_t checksum; /* XXH3 of the body, seeded with saved */
};
struct file_server {
    uint64_t id, since;
    char subject[HISTORY_SUBJECT];
};
struct file_sample {
    uint64_t at;
    float value[(HISTORY_WIDTH + 1) / 2 * 2];
};
struct file_body {
    struct file_server server[HISTORY_SERVERS];
    struct file_sample fine[HISTORY_FINE_SAMPLES], coarse[HISTORY_COARSE_SAMPLES];
};
struct file_image {
    struct file_header header;
    struct file_body body;
};

size_t history_file_size(void)
{
    return sizeof(struct file_image);
}

static uint64_t checksum_of(const struct file_image *f)
{
    return XXH3_64bits_withSeed(&f->body, sizeof f->body, f->header.saved);
}

/* ---- saving ---- */

/* A sample that is being written just now is left out. */
static void copy_sample(const struct history_sample *s, struct file_sample *out)
{
    const uint64_t at = atomic_load_explicit(&s->at, memory_order_acquire);
    for (size_t i = 0; at && i < HISTORY_WIDTH; i++)
        out->value[i] = atomic_load_explicit(&s->value[i], memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    out->at = atomic_load_explicit(&s->at, memory_order_relaxed) == at ? at : 0;
}

static void copy_server(const struct history_server *s, struct file_server *out)
{
    const uint64_t id = atomic_load(&s->id);
    out->since = atomic_load(&s->since);
    memcpy(out->subject, s->subject, sizeof out->subject - 1);
    out->id = atomic_load(&s->id) == id ? id : 0;
}

static void image_fill(struct file_image *f, const struct history_page *page, uint64_t now_s)
{
    for (size_t i = 0; i < HISTORY_SERVERS; i++)
        copy_server(&page->server[i], &f->body.server[i]);
    for (size_t i = 0; i < HISTORY_FINE_SAMPLES; i++)
        copy_sample(&page->fine[i], &f->body.fine[i]);
    for (size_t i = 0; i < HISTORY_COARSE_SAMPLES; i++)
        copy_sample(&page->coarse[i], &f->body.coarse[i]);
    f->header =
        (struct file_header){.magic = FILE_MAGIC, .layout = history_page_layout(), .saved = now_s};
    f->header.checksum = checksum_of(f);
}

int history_save(const struct history_page *page, const char *state_dir, uint64_t now_s)
{
    struct file_image *f = calloc(1, sizeof *f);
    if (!f)
        return -ENOMEM;
    image_fill(f, page, now_s);
    const int code = state_file_write(state_dir, HISTORY_FILE, (const char *)f, sizeof *f);
    free(f);
    return code;
}

/* ---- loading ---- */

static void load_samples(struct history_page *page, enum history_ring_id ring,
                         const struct file_sample *samples, size_t n, uint64_t now_s)
{
    uint64_t newest = 0;
    for (size_t i = 0; i < n; i++) {
        const uint64_t at = samples[i].at;
        if (!at || !history_belongs(ring, at, i, now_s))
            continue;
        history_put(page, ring, at, samples[i].value);
        newest = at > newest ? at : newest;
    }
    atomic_store(&page->newest[ring], newest);
}

static void load_servers(struct history_page *page, const struct file_server *rows, uint64_t now_s)
{
    for (size_t i = 0; i < HISTORY_SERVERS; i++) {
        struct history_server *s = &page->server[i];
        if (!rows[i].id || rows[i].since > now_s)
            continue;
        memcpy(s->subject, rows[i].subject, sizeof s->subject);
        s->subject[sizeof s->subject - 1] = 0;
        atomic_store(&s->since, rows[i].since);
        atomic_store(&s->id, rows[i].id);
    }
}

static int image_check(const struct file_image *f, size_t len)
{
    if (len < sizeof f->header || f->header.magic != FILE_MAGIC)
        return -EPROTO;
    if (f->header.layout != history_page_layout())
        return -ESTALE;
    return len == sizeof *f && f->header.checksum == checksum_of(f) ? 0 : -EPROTO;
}

int history_load(struct history_page *page, const char *state_dir, uint64_t now_s)
{
    char *bytes;
    size_t len;
    int code = state_file_read(state_dir, HISTORY_FILE, sizeof(struct file_image), &bytes, &len);
    if (code || !bytes)
        return code == -EFBIG ? -ESTALE : code;
    const struct file_image *f = (const struct file_image *)(const void *)bytes;
    code = image_check(f, len);
    if (!code) {
        load_servers(page, f->body.server, now_s);
        load_samples(page, HISTORY_FINE, f->body.fine, HISTORY_FINE_SAMPLES, now_s);
        load_samples(page, HISTORY_COARSE, f->body.coarse, HISTORY_COARSE_SAMPLES, now_s);
    }
    free(bytes);
    return code;
}
