/* SPDX-License-Identifier: BSD-2-Clause */
/* problem: renders the table in tables/problems.def. Its texts need no JSON escapes. */
#include "polder/problem.h"
#include <stdio.h>
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

size_t problem_write_body(unsigned status, const struct problem_body *b, char *out, size_t size)
{
    char type[128] = "";
    if (b->type)
        snprintf(type, sizeof type, "\"type\":\"%s\",", b->type);
    const int n = snprintf(out, size, "{%s\"title\":\"%s\",\"status\":%u,\"detail\":\"%s\"%s}\n",
                           type, b->title, status, b->detail, b->members ? b->members : "");
    return n < 0 || (size_t)n >= size ? 0 : (size_t)n;
}

size_t problem_render(enum problem p, const char *extra, const char *members, char *out,
                      size_t size)
{
    char body[PROBLEM_RENDER_MAX];
    const struct problem_body words = {table[p].type, table[p].title, table[p].detail, members};
    const size_t len = problem_write_body(table[p].status, &words, body, sizeof body);
    if (!len)
        return 0;
    int n = snprintf(out, size,
                     "HTTP/1.1 %u %s\r\n"
                     "Content-Type: " PROBLEM_TYPE "\r\n"
                     "Content-Length: %zu\r\n"
                     "Cache-Control: no-store\r\n"
                     "%s\r\n%s",
                     table[p].status, problem_reason(table[p].status), len, extra, body);
    return n < 0 || (size_t)n >= size ? 0 : (size_t)n;
}
