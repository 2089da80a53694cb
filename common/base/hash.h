/* hash.h - SHA-256 (FIPS 180-4)
 *
 * Names every artifact, stage and request.  Digests travel as 32 bytes or as
 * 64 lower-case hexadecimal digits. */
#ifndef HA_COMMON_BASE_HASH_H
#define HA_COMMON_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HA_SHA256_BYTES = 32, HA_SHA256_HEX_BYTES = 65 };

struct ha_sha256 {
    uint32_t state[8];
    uint64_t total_bytes;
    uint8_t block[64];
};

void ha_sha256_init(struct ha_sha256 *hash);
void ha_sha256_update(struct ha_sha256 *hash, const void *bytes, size_t size);

/* The hash may not be used afterwards, unless initialised again. */
void ha_sha256_final(struct ha_sha256 *hash, uint8_t digest[HA_SHA256_BYTES]);

void ha_sha256(const void *bytes, size_t size, uint8_t digest[HA_SHA256_BYTES]);

/* Digest -> text; returns hex. */
const char *ha_sha256_hex(const uint8_t digest[HA_SHA256_BYTES], char hex[HA_SHA256_HEX_BYTES]);

/* True for exactly 64 lower-case hexadecimal digits. */
bool ha_sha256_hex_valid(const char *text);

#endif
