/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * h1: HTTP/1.1 and 1.0 messages (RFC 9112), read strictly and written from what was understood.
 *
 * Built on llhttp (strict mode) plus the checks it lacks. A head is parsed when it is complete and
 * contiguous in the caller's buffer, so all spans point into that buffer and stay valid as long as
 * it is kept. What two servers could read in two ways is an error. Nothing here knows sockets or
 * loops.
 */
#ifndef POLDER_H1_H
#define POLDER_H1_H
#include "polder/field.h"
#include "polder/problem.h"
#include <llhttp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <string.h>
#include <sys/uio.h>

#define H1_HEAD_MAX    16384
#define H1_TARGET_MAX  8192
#define H1_FIELDS_MAX  128
#define H1_TRAILER_MAX 8192

/* Fields that Polder looks at; all others are H1_OTHER. h1_fields.def: FIELD(ID, "lower-case-name")
 */
enum h1_field_id {
    H1_OTHER,
#define FIELD(id, name) H1_##id,
#include "h1_fields.def"
#undef FIELD
    H1_FIELD_IDS
};

struct h1_field {
    struct str name, value; /* value without surrounding white space */
    enum h1_field_id id;
};

enum h1_framing { H1_NO_BODY, H1_LENGTH, H1_CHUNKED, H1_TO_CLOSE /* responses only */ };

struct h1_head {
    /* requests */
    struct str method, target; /* target as sent */
    struct str path, query;    /* origin-form parts, path first and query right behind its '?';
                                         query without '?', at NULL where absent; path is "*" for
                                         OPTIONS *, and a constant "/" (apart from the query) where
                                         an absolute-form target has none */
    struct str host; /* of Host or of the absolute-form target; to be compared without regard
                               to case, for the bytes are the client's; empty in HTTP/1.0 without
                               Host. Forward this one, not the Host field. */
    bool is_get, is_head, is_safe, is_idempotent;
    bool expect_continue;
    bool asks_upgrade; /* Connection: upgrade and an Upgrade field */
    /* responses */
    uint16_t status;
    struct str reason;
    const char
        *flaw; /* H1_BAD: what is wrong, as in "response head FLAW"; lives until the next call */
    bool flaw_is_size; /* it is only larger than what is taken */
    /* both */
    uint8_t minor;   /* HTTP/1.minor, 0 or 1 */
    bool keep_alive; /* what the sender's Connection field and version mean */
    enum h1_framing framing;
    uint64_t length; /* H1_LENGTH; and what Content-Length says where H1_NO_BODY (HEAD, 304) */
    uint64_t nominated[H1_FIELDS_MAX / 64]; /* bit n: Connection names field[n] */
    uint16_t first[H1_FIELD_IDS];           /* index + 1 of the first field of that id; 0: absent */
    uint32_t head_len;                      /* bytes of the head, blank line included */
    uint32_t n_fields;
    struct h1_field field[H1_FIELDS_MAX]; /* last: mostly few are used, and copied */
};

static inline void h1_copy_head(struct h1_head *to, const struct h1_head *from)
{
    memcpy(to, from, offsetof(struct h1_head, field) + from->n_fields * sizeof *from->field);
}
static inline const struct h1_field *h1_find(const struct h1_head *h, enum h1_field_id id)
{
    return h->first[id] ? &h->field[h->first[id] - 1] : 0;
}
/* Of a field that has one value: NULL also if it has several lines, because it is unknown which of
 * them another parser takes. */
const struct h1_field *h1_only(const struct h1_head *h, enum h1_field_id id);
struct str h1_field_name(enum h1_field_id id); /* in lower case */
/* The id of a field name, H1_OTHER where h1_fields.def does not list it. */
enum h1_field_id h1_field_id_of(struct str name);
/* All values of a field joined with ", " into out; the length, or 0 where absent or longer than
 * size. */
size_t h1_join(const struct h1_head *h, enum h1_field_id id, char *out, size_t size);

enum h1_result {
    H1_DONE, /* the head is parsed: head->head_len bytes consumed */
    H1_MORE, /* no complete head yet */
    H1_BAD,  /* *problem says which answer; the connection must be closed after it */
};
/* Parses one request head at the start of buf. Leading CRLFs: the caller skips them with
 * h1_skip_blank() first. scanned: how far earlier calls have looked for the end (start with 0). */
size_t h1_skip_blank(const char *buf, size_t len);
enum h1_result h1_parse_request(const char *buf, size_t len, size_t *scanned, struct h1_head *head,
                                enum problem *problem);
/* The same for a response to a request of the given kind. 1xx heads are returned as they come
 * (framing H1_NO_BODY). Anything wrong is H1_BAD (502), and head->flaw says what. */
enum h1_result h1_parse_response(const char *buf, size_t len, size_t *scanned, bool to_head,
                                 struct h1_head *head);

/* Bodies. One reader a message. */
struct h1_body {
    enum h1_framing framing;
    uint64_t left;  /* of the length or of the current chunk */
    uint64_t total; /* decoded bytes so far */
    uint8_t state;
    bool done;
    uint32_t line;    /* bytes of the current chunk-size line */
    uint32_t trailer; /* bytes of the trailer section so far */
    char *kept;       /* h1_body_keep_trailer()'s buffer: kept_len bytes of complete lines … */
    uint32_t kept_size, kept_len, kept_line; /* … and kept_line bytes of an unfinished one */
};
void h1_body_init(struct h1_body *b, enum h1_framing framing, uint64_t length);
/* Looks at buf[0..len): *used bytes belong to the message's framing and content; the content among
 * them is out (one span; call again with the rest until done or used == len). Trailer fields are
 * checked, and dropped unless h1_body_keep_trailer() was called. 0, or -EPROTO: malformed. */
int h1_body_read(struct h1_body *b, const char *buf, size_t len, size_t *used, struct str *out);
/* The same for all of buf: its content goes into spans, up to their number, and what is in small
 * pieces is moved together within buf first, so that many chunks of a few bytes become one span.
 * On -EPROTO, spans and *used say what came before the mistake. */
struct h1_spans {
    struct iovec *iov;
    unsigned max, n;
    size_t total; /* bytes in iov[0..n) */
};
int h1_body_gather(struct h1_body *b, char *buf, size_t len, size_t *used, struct h1_spans *spans);
/* Collects the trailer fields that may be forwarded, as complete lines "Name: value\r\n", in the
 * caller's buffer (H1_TRAILER_MAX bytes hold any trailer; what does not fit is dropped): when the
 * body is done they are kept[0..kept_len). Fields that would change framing, routing, caching or
 * authentication are never kept (RFC 9110 6.5.1). */
void h1_body_keep_trailer(struct h1_body *b, char *buffer, size_t size);
/* Goes on with a body that another process has read up to here; trailers are not kept. False: it is
 * none that this reader could have come to. */
bool h1_body_resume(struct h1_body *b, const struct h1_body *from);
/* The peer closed: true if that is a proper end of this body. */
bool h1_body_eof(struct h1_body *b);

/* Hop-by-hop: RFC 9110 7.6.1's, and those named in Connection (not end-to-end fields that Polder
 * itself reads: naming Host or Cookie there is an attack or a mistake). For Vary and cache keys
 * such a field counts as absent, since the backend does not see it. */
bool h1_is_hop_by_hop(const struct h1_head *h, const struct h1_field *f);

/* A writer into a fixed buffer; overflow sets .overflow and writes nothing further. */
struct h1_out {
    char *at, *end;
    bool overflow;
};
/* In place: most of a head is texts of known length. */
static inline void h1_put(struct h1_out *o, const char *bytes, size_t len)
{
    if (o->overflow || len > (size_t)(o->end - o->at)) {
        o->overflow = true;
        return;
    }
    if (len)
        memcpy(o->at, bytes, len); /* NOLINT(clang-analyzer-core.NonNullParamChecker) */
    o->at += len;
}
static inline void h1_puts(struct h1_out *o, const char *text)
{
    h1_put(o, text, strlen(text));
}
static inline void h1_put_str(struct h1_out *o, struct str t)
{
    h1_put(o, t.at, t.len);
}
void h1_put_u64(struct h1_out *o, uint64_t n);
void h1_put_field(struct h1_out *o, const char *name, struct str value); /* "Name: value\r\n" */
void h1_copy_field(struct h1_out *o, const struct h1_field *field);      /* as it came */
/* "HTTP/1.1 status reason\r\n"; an empty reason is replaced by the standard one. */
void h1_put_status_line(struct h1_out *o, unsigned status, struct str reason);
/* "size in hex CRLF" of a chunk; the caller sends data and CRLF. Returns the length (max 18). */
size_t h1_chunk_head(char out[18], uint64_t len);
/* The last chunk with these trailer lines; returns 3, the spans used. */
unsigned h1_last_chunk(struct iovec iov[3], const char *trailer, size_t len);
#endif
