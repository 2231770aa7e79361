/* SPDX-License-Identifier: BSD-2-Clause */
/* problem: renders the table in tables/problems.def. Its texts need no JSON escapes. */
#include "polder/problem.h"
#include <stdbool.h>
#include <string.h>

static const struct {
    unsigned status;
    const char *type, *title, *detail;
} table[PROBLEMS] = {
#define PROBLEM(id, status, type, title, detail) [PROBLEM_##id] = {status, type, title, detail},
#include "libshared/tables/problems.def"
#undef PROBLEM
};

unsigned problem_status(enum problem p)
{
    return table[p].status;
}

const char *problem_title(enum problem p)
{
    return table[p].title;
}

const char *problem_reason(unsigned status)
{
    static const struct {
        unsigned short status;
        const char *reason;
    } known[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {102, "Processing"},
        {103, "Early Hints"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {203, "Non-Authoritative Information"},
        {204, "No Content"},
        {205, "Reset Content"},
        {206, "Partial Content"},
        {207, "Multi-Status"},
        {208, "Already Reported"},
        {226, "IM Used"},
        {300, "Multiple Choices"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {305, "Use Proxy"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {402, "Payment Required"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {407, "Proxy Authentication Required"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {423, "Locked"},
        {424, "Failed Dependency"},
        {425, "Too Early"},
        {426, "Upgrade Required"},
        {428, "Precondition Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {451, "Unavailable For Legal Reasons"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {506, "Variant Also Negotiates"},
        {507, "Insufficient Storage"},
        {508, "Loop Detected"},
        {511, "Network Authentication Required"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].status == status)
            return known[i].reason;
    return "";
}

/* ---- rendering ---- */

/* Without printf(): a limit may refuse many. */
struct text {
    char *at, *end; /* room for a NUL is left behind end */
    bool overflow;
};

static struct text text_of(char *out, size_t size)
{
    return (struct text){out, out + (size ? size - 1 : 0), !size};
}

static void put(struct text *t, const char *s)
{
    const size_t len = strlen(s);
    if (len > (size_t)(t->end - t->at)) {
        t->overflow = true;
        return;
    }
    memcpy(t->at, s, len);
    t->at += len;
}

static void put_number(struct text *t, size_t n)
{
    char digits[24], *at = digits + sizeof digits - 1;
    *at = 0;
    do
        *--at = (char)('0' + n % 10);
    while (n /= 10);
    put(t, at);
}

/* The length, 0: it did not fit. */
static size_t text_end(const struct text *t, const char *out)
{
    if (t->overflow)
        return 0;
    *t->at = 0;
    return (size_t)(t->at - out);
}

size_t problem_write_body(unsigned status, const struct problem_body *b, char *out, size_t size)
{
    struct text t = text_of(out, size);
    put(&t, "{");
    if (b->type) {
        put(&t, "\"type\":\"");
        put(&t, b->type);
        put(&t, "\",");
    }
    put(&t, "\"title\":\"");
    put(&t, b->title);
    put(&t, "\",\"status\":");
    put_number(&t, status);
    put(&t, ",\"detail\":\"");
    put(&t, b->detail);
    put(&t, "\"");
    put(&t, b->members ? b->members : "");
    put(&t, "}\n");
    return text_end(&t, out);
}

size_t problem_render(enum problem p, const char *extra, const char *members, char *out,
                      size_t size)
{
    char body[PROBLEM_RENDER_MAX];
    struct text t = text_of(out, size);
    const struct problem_body words = {table[p].type, table[p].title, table[p].detail, members};
    const size_t len = problem_write_body(table[p].status, &words, body, sizeof body);
    if (!len)
        return 0;
    put(&t, "HTTP/1.1 ");
    put_number(&t, table[p].status);
    put(&t, " ");
    put(&t, problem_reason(table[p].status));
    put(&t, "\r\nContent-Type: " PROBLEM_TYPE "\r\nContent-Length: ");
    put_number(&t, len);
    put(&t, "\r\nCache-Control: no-store\r\n");
    put(&t, extra);
    put(&t, "\r\n");
    put(&t, body);
    return text_end(&t, out);
}
