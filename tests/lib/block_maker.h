/* SPDX-License-Identifier: BSD-2-Clause */
/* block_maker: blocks of state made by hand, byte by byte, for readers that believe nothing. */
#ifndef BLOCK_MAKER_H
#define BLOCK_MAKER_H
#include <stddef.h>
#include <stdint.h>

#define BLOCK_HEADER 80

/* A header that fits these records: magic, format, kind, lengths, checksum. */
void block_header_make(uint8_t header[BLOCK_HEADER], uint32_t format, uint32_t kind,
                       const void *records, size_t len);
/* Sealed memory with these bytes; -1. */
int block_seal(const void *header, size_t header_len, const void *records, size_t len);

#endif
