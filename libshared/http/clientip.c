/* SPDX-License-Identifier: BSD-2-Clause */
/* clientip: see clientip.h. */
#include "polder/clientip.h"
#include "polder/forwarded.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>
#include <strings.h>

#define HOPS_MAX 100

static const uint8_t v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static void from_v4(struct clientip *ip, const void *four)
{
    memcpy(ip->addr, v4_prefix, sizeof v4_prefix);
    memcpy(ip->addr + 12, four, 4);
}

static bool clientip_is_v4(const struct clientip *ip)
{
    return !memcmp(ip->addr, v4_prefix, sizeof v4_prefix);
}

void clientip_from_sockaddr(struct clientip *ip, const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof in);
        from_v4(ip, &in.sin_addr);
    } else if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof in6);
        memcpy(ip->addr, &in6.sin6_addr, 16);
    } else {
        memset(ip->addr, 0, 15);
        ip->addr[15] = 1;
    }
}

int clientip_parse(const char *text, size_t len, struct clientip *ip)
{
    char copy[INET6_ADDRSTRLEN + 1];
    uint8_t four[4];
    if (len == 0 || len >= sizeof copy)
        return -EINVAL;
    memcpy(copy, text, len);
    copy[len] = 0;
    if (strlen(copy) != len)
        return -EINVAL;
    if (inet_pton(AF_INET, copy, four) == 1) {
        from_v4(ip, four);
        return 0;
    }
    return inet_pton(AF_INET6, copy, ip->addr) == 1 ? 0 : -EINVAL;
}

/* 10.1.2.3/8 is 10.0.0.0/8: what means the same has the same bytes. */
static void net_mask(struct clientip_net *net)
{
    const unsigned bytes = net->bits / 8, rest = net->bits % 8;
    if (bytes == sizeof net->addr)
        return;
    net->addr[bytes] &= (uint8_t)(0xff00u >> rest & 0xffu);
    memset(net->addr + bytes + 1, 0, sizeof net->addr - bytes - 1);
}

int clientip_net_parse(const char *text, struct clientip_net *net)
{
    struct clientip ip;
    const char *slash = strchr(text, '/');
    const size_t len = slash ? (size_t)(slash - text) : strlen(text);
    if (clientip_parse(text, len, &ip))
        return -EINVAL;
    const bool v4 = memchr(text, ':', len) == NULL;
    const unsigned max = v4 ? 32 : 128;
    unsigned bits = max;
    if (slash) {
        bits = 0;
        const char *digit = slash + 1;
        if (!*digit || strlen(digit) > 3)
            return -EINVAL;
        for (; *digit; digit++) {
            if (*digit < '0' || *digit > '9')
                return -EINVAL;
            bits = bits * 10 + (unsigned)(*digit - '0');
        }
        if (bits > max)
            return -EINVAL;
    }
    memcpy(net->addr, ip.addr, 16);
    net->bits = (uint8_t)(v4 ? bits + 96 : bits);
    net_mask(net);
    return 0;
}

static bool in_net(const uint8_t *addr, const struct clientip_net *net)
{
    const unsigned bytes = net->bits / 8, rest = net->bits % 8;
    if (memcmp(addr, net->addr, bytes))
        return false;
    return !rest || !((addr[bytes] ^ net->addr[bytes]) & (0xff00u >> rest & 0xffu));
}

bool clientip_in(const struct clientip *ip, const struct clientip_net *nets, size_t n)
{
    const bool v4 = clientip_is_v4(ip);
    for (size_t i = 0; i < n; i++) /* a short IPv6 prefix spans the mapped addresses, unmeant */
        if ((!v4 || nets[i].bits >= 96) && in_net(ip->addr, &nets[i]))
            return true;
    return false;
}

/* Each request that goes to a backend says it, and inet_ntop() goes through printf. */
static size_t format_v4(const uint8_t addr[4], char *out)
{
    char *at = out;
    for (int i = 0; i < 4; i++) {
        const unsigned n = addr[i];
        if (n >= 100)
            *at++ = (char)('0' + n / 100);
        if (n >= 10)
            *at++ = (char)('0' + n / 10 % 10);
        *at++ = (char)('0' + n % 10);
        *at++ = i < 3 ? '.' : 0;
    }
    return (size_t)(at - out) - 1;
}

size_t clientip_format(const struct clientip *ip, char *out)
{
    if (clientip_is_v4(ip))
        return format_v4(ip->addr + 12, out);
    inet_ntop(AF_INET6, ip->addr, out, INET6_ADDRSTRLEN);
    return strlen(out);
}

size_t clientip_net_format(const struct clientip_net *net, char *out)
{
    struct clientip ip;
    memcpy(ip.addr, net->addr, sizeof ip.addr);
    const bool v4 = net->bits >= 96 && clientip_is_v4(&ip);
    size_t len = clientip_format(&ip, out);
    if (net->bits < 128)
        len += (size_t)sprintf(out + len, "/%u", net->bits - (v4 ? 96u : 0u));
    return len;
}

void clientip_group(const struct clientip *ip, struct clientip *group)
{
    *group = *ip;
    if (!clientip_is_v4(ip))
        memset(group->addr + 8, 0, 8);
}

/* The seed alone is not enough: what goes in with the address must be unknown as well. */
uint64_t clientip_hash(const struct clientip *ip, const uint8_t secret[32])
{
    struct {
        uint8_t secret[32];
        struct clientip group;
    } text;
    uint64_t seed;
    memcpy(text.secret, secret, sizeof text.secret);
    clientip_group(ip, &text.group);
    memcpy(&seed, secret, sizeof seed);
    return XXH3_64bits_withSeed(&text, sizeof text, seed);
}

/* ---- Forwarded and X-Forwarded-For ---- */

static bool is_port(const char *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (at[i] < '0' || at[i] > '9')
            return false;
    return len >= 1 && len <= 5;
}

/* "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:80"; obfuscated and
 * unknown identifiers are no address. */
static int parse_node(struct str node, struct clientip *ip)
{
    const struct str t = field_trim(node);
    const char *at = t.at;
    size_t len = t.len;
    if (len && *at == '[') {
        const char *end = memchr(at, ']', len);
        if (!end)
            return -EINVAL;
        const size_t rest = (size_t)(at + len - end) - 1;
        if (rest && (end[1] != ':' || !is_port(end + 2, rest - 1)))
            return -EINVAL;
        return clientip_parse(at + 1, (size_t)(end - at) - 1, ip);
    }
    const char *colon = memchr(at, ':', len);
    if (colon && !memchr(colon + 1, ':', (size_t)(at + len - colon) - 1)) {
        if (!is_port(colon + 1, (size_t)(at + len - colon) - 1))
            return -EINVAL;
        len = (size_t)(colon - at);
    }
    return clientip_parse(at, len, ip);
}

static int parse_element(struct str member, struct clientip *ip)
{
    struct str node;
    return forwarded_value(member, "for=", &node) ? parse_node(node, ip) : -EINVAL;
}

typedef int parse_hop(struct str member, struct clientip *ip);

/* The right-most hop of the list that is no trusted proxy; the last usable one otherwise. */
static void walk(struct str list, parse_hop *parse, const struct clientip_net *trusted,
                 size_t n_trusted, struct clientip *out)
{
    struct str member;
    for (int hop = 0; hop < HOPS_MAX && forwarded_last(&list, &member); hop++) {
        struct clientip ip;
        if (parse(member, &ip))
            return; /* unusable: the last trusted peer counts as the client */
        *out = ip;
        if (!clientip_in(&ip, trusted, n_trusted))
            return;
    }
}

void clientip_forwarded(const struct clientip *peer, const struct clientip_net *trusted,
                        size_t n_trusted, const char *xff, size_t xff_len, const char *forwarded,
                        size_t forwarded_len, struct clientip *out)
{
    struct clientip by_xff = *peer, by_forwarded = *peer;
    *out = *peer;
    if ((!xff && !forwarded) || !clientip_in(peer, trusted, n_trusted))
        return;
    if (xff)
        walk((struct str){xff, xff_len}, parse_node, trusted, n_trusted, &by_xff);
    if (forwarded)
        walk((struct str){forwarded, forwarded_len}, parse_element, trusted, n_trusted,
             &by_forwarded);
    if (!xff || !forwarded)
        *out = xff ? by_xff : by_forwarded;
    else if (!memcmp(&by_xff, &by_forwarded, sizeof by_xff))
        *out = by_xff;
}

size_t clientip_forwarded_chain(const char *forwarded, size_t len, char *out, size_t size)
{
    struct str list = {forwarded, len}, member;
    size_t n = 0;
    while (forwarded_next(&list, &member)) {
        struct clientip ip;
        char text[46] = "unknown";
        const size_t text_len = parse_element(member, &ip) ? 7 : clientip_format(&ip, text);
        if (n + text_len + 2 > size)
            return 0;
        memcpy(out + n, ", ", n ? 2 : 0);
        n += n ? 2 : 0;
        memcpy(out + n, text, text_len);
        n += text_len;
    }
    return n;
}

static bool is_host(struct str t)
{
    for (size_t i = 0; i < t.len; i++)
        if (!strchr("-._:[]", t.at[i]) && !(t.at[i] >= '0' && t.at[i] <= '9') &&
            !((t.at[i] | 0x20) >= 'a' && (t.at[i] | 0x20) <= 'z'))
            return false;
    return t.len > 0 && t.len < 256;
}

void clientip_forwarded_origin(const char *forwarded, size_t len,
                               const struct clientip_net *trusted, size_t n_trusted,
                               struct clientip_origin *origin)
{
    struct str list = {forwarded, len}, member, found = {0}, value;
    *origin = (struct clientip_origin){0};
    for (int hop = 0; hop < HOPS_MAX && forwarded_last(&list, &member); hop++) {
        struct clientip ip;
        const bool usable = !parse_element(member, &ip);
        if (usable || !found.at) /* the last proxy's word counts even where it hides its client */
            found = member;
        if (!usable || !clientip_in(&ip, trusted, n_trusted))
            break;
    }
    if (forwarded_value(found, "proto=", &value) &&
        (field_is(value, "http") || field_is(value, "https")))
        origin->proto = value;
    if (forwarded_value(found, "host=", &value) && is_host(value))
        origin->host = value;
}

/* ---- PROXY protocol ---- */

static const uint8_t v2_signature[12] = {'\r', '\n', '\r', '\n', 0,   '\r',
                                         '\n', 'Q',  'U',  'I',  'T', '\n'};
#define V1_MAX 107

static int parse_port(const char *at, size_t len, uint16_t *port)
{
    unsigned n = 0;
    if (!is_port(at, len))
        return -EPROTO;
    for (size_t i = 0; i < len; i++)
        n = n * 10 + (unsigned)(at[i] - '0');
    if (n > 65535)
        return -EPROTO;
    *port = (uint16_t)n;
    return 0;
}

/* "PROXY TCP4 SRC DST SPORT DPORT": line without CRLF. Behind UNKNOWN anything may stand. */
static int parse_v1(const char *line, size_t len, struct clientip *ip, uint16_t *port)
{
    static const char unknown[] = "PROXY UNKNOWN";
    if (len >= sizeof unknown - 1 && !memcmp(line, unknown, sizeof unknown - 1) &&
        (len == sizeof unknown - 1 || line[sizeof unknown - 1] == ' '))
        return 0;
    const char *word[6];
    size_t word_len[6], n = 0;
    for (const char *at = line, *end = line + len;;) {
        const char *space = memchr(at, ' ', (size_t)(end - at));
        if (n == 6)
            return -EPROTO;
        word[n] = at;
        word_len[n++] = (size_t)((space ? space : end) - at);
        if (!space)
            break;
        at = space + 1;
    }
    struct clientip source, target;
    uint16_t source_port, target_port;
    if (n != 6 || word_len[1] != 4 || (memcmp(word[1], "TCP4", 4) && memcmp(word[1], "TCP6", 4)))
        return -EPROTO;
    const bool v4 = word[1][3] == '4';
    if (clientip_parse(word[2], word_len[2], &source) ||
        clientip_parse(word[3], word_len[3], &target) || v4 != !memchr(word[2], ':', word_len[2]) ||
        v4 != !memchr(word[3], ':', word_len[3]) ||
        parse_port(word[4], word_len[4], &source_port) ||
        parse_port(word[5], word_len[5], &target_port))
        return -EPROTO;
    *ip = source;
    *port = source_port;
    return 0;
}

static int read_v1(const uint8_t *buf, size_t len, struct clientip *ip, uint16_t *port)
{
    const size_t look = len < V1_MAX ? len : V1_MAX;
    if (memcmp(buf, "PROXY ", look < 6 ? look : 6))
        return -EPROTO;
    const uint8_t *end = memchr(buf, '\n', look);
    if (!end)
        return look == V1_MAX ? -EPROTO : 0;
    if (end == buf || end[-1] != '\r')
        return -EPROTO;
    const int code = parse_v1((const char *)buf, (size_t)(end - buf) - 1, ip, port);
    return code < 0 ? code : (int)(end - buf) + 1;
}

static int read_v2(const uint8_t *buf, size_t len, struct clientip *ip, uint16_t *port)
{
    if (len < 16)
        return 0;
    const unsigned command = buf[12] & 0xfu, family = buf[13] >> 4,
                   size = (unsigned)buf[14] << 8 | buf[15];
    if (buf[12] >> 4 != 2 || command > 1 ||
        (command == 1 && (family > 3 || (buf[13] & 0xfu) > 2)) || size > CLIENTIP_PROXY_MAX - 16)
        return -EPROTO;
    if (len < 16 + size)
        return 0;
    if (command == 1 && family == 1) {
        if (size < 12)
            return -EPROTO;
        from_v4(ip, buf + 16);
        *port = (uint16_t)(buf[24] << 8 | buf[25]);
    } else if (command == 1 && family == 2) {
        if (size < 36)
            return -EPROTO;
        memcpy(ip->addr, buf + 16, 16);
        *port = (uint16_t)(buf[48] << 8 | buf[49]);
    }
    return (int)(16 + size);
}

int clientip_proxy_parse(const uint8_t *buf, size_t len, struct clientip *ip, uint16_t *port)
{
    if (len == 0)
        return 0;
    if (!memcmp(buf, v2_signature, len < 12 ? len : 12))
        return len < 12 ? 0 : read_v2(buf, len, ip, port);
    return read_v1(buf, len, ip, port);
}
