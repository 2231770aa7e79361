/* SPDX-License-Identifier: BSD-2-Clause */
/* server_address: the addresses of a server's name in its row, and their forms. */
#include "polder/server_state.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

bool server_addresses_put(struct server_row *row, const struct server_addresses *list)
{
    const uint64_t now = atomic_load_explicit(&row->generation, memory_order_relaxed);
    struct server_addresses whole = {.n = list->n < SERVER_ADDRESSES_MAX ? list->n
                                                                         : SERVER_ADDRESSES_MAX};
    memcpy(whole.at, list->at, whole.n * sizeof *whole.at);
    if (now && !memcmp(&row->copy[now & 1], &whole, sizeof whole))
        return false;
    row->copy[(now + 1) & 1] = whole;
    atomic_store_explicit(&row->generation, now + 1, memory_order_release);
    return true;
}

bool server_addresses_get(const struct server_row *row, struct server_addresses *out)
{
    uint64_t now = atomic_load_explicit(&row->generation, memory_order_acquire), then;
    do { /* written twice meanwhile: the copy may have been the one that is filled */
        then = now;
        memcpy(out, &row->copy[then & 1], sizeof *out);
        atomic_thread_fence(memory_order_acquire);
        now = atomic_load_explicit(&row->generation, memory_order_relaxed);
    } while (now != then);
    if (out->n > SERVER_ADDRESSES_MAX)
        out->n = 0;
    return now != 0;
}

void server_addresses_mend(struct server_row *row)
{
    const uint64_t now = atomic_load_explicit(&row->generation, memory_order_relaxed);
    const struct server_addresses *list = &row->copy[now & 1];
    bool whole = list->n <= SERVER_ADDRESSES_MAX;
    for (uint32_t i = 0; whole && i < list->n; i++)
        whole = list->at[i].family == AF_INET || list->at[i].family == AF_INET6;
    if (whole)
        return;
    atomic_store_explicit(&row->generation, 0, memory_order_relaxed);
    atomic_store_explicit(&row->due_ms, 0, memory_order_relaxed);
}

bool server_addresses_have(const struct server_addresses *list, const struct server_address *a)
{
    for (uint32_t i = 0; i < list->n; i++)
        if (!memcmp(&list->at[i], a, sizeof *a))
            return true;
    return false;
}

static bool is_found(const struct server_address *found, uint32_t n, const struct server_address *a)
{
    for (uint32_t i = 0; i < n; i++)
        if (!memcmp(&found[i], a, sizeof *a))
            return true;
    return false;
}

void server_addresses_merge(struct server_addresses *list, const struct server_address *found,
                            uint32_t n)
{
    struct server_addresses merged = {0};
    for (uint32_t i = 0; i < list->n; i++)
        if (is_found(found, n, &list->at[i]))
            merged.at[merged.n++] = list->at[i];
    for (uint32_t i = 0; i < n && merged.n < SERVER_ADDRESSES_MAX; i++)
        if (!server_addresses_have(&merged, &found[i]))
            merged.at[merged.n++] = found[i];
    server_addresses_in_turn(merged.at, merged.n);
    *list = merged;
}

/* The n-th family in turn is moved up from behind, where there is one. */
void server_addresses_in_turn(struct server_address *at, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        uint32_t k = i;
        while (k < n && at[k].family == at[i - 1].family)
            k++;
        if (k == n)
            return;
        const struct server_address other = at[k];
        memmove(&at[i + 1], &at[i], (k - i) * sizeof *at);
        at[i] = other;
    }
}

bool server_address_from(const struct sockaddr *sa, struct server_address *out)
{
    *out = (struct server_address){.family = sa->sa_family};
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;
        memcpy(out->addr, &in->sin_addr, sizeof in->sin_addr);
        out->port = in->sin_port;
    } else if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
        memcpy(out->addr, &in6->sin6_addr, sizeof in6->sin6_addr);
        out->port = in6->sin6_port;
        out->scope = in6->sin6_scope_id;
    } else {
        return false;
    }
    return true;
}

socklen_t server_address_to(const struct server_address *a, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (a->family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)out;
        in->sin_family = AF_INET;
        in->sin_port = a->port;
        memcpy(&in->sin_addr, a->addr, sizeof in->sin_addr);
        return sizeof *in;
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = a->port;
    in6->sin6_scope_id = a->scope;
    memcpy(&in6->sin6_addr, a->addr, sizeof in6->sin6_addr);
    return sizeof *in6;
}

void server_address_text(const struct server_address *a, char *out, size_t size)
{
    char text[INET6_ADDRSTRLEN] = "?";
    inet_ntop(a->family, a->addr, text, sizeof text);
    snprintf(out, size, a->family == AF_INET6 ? "[%s]:%u" : "%s:%u", text, ntohs(a->port));
}
