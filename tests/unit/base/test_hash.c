/* SHA-256 against the vectors of FIPS 180-4 and a split of every size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "common/base/hash.h"

static void known_digests(void **state)
{
    static const struct {
        const char *text, *hex;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    uint8_t digest[HA_SHA256_BYTES];
    char hex[HA_SHA256_HEX_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ha_sha256(cases[i].text, strlen(cases[i].text), digest);
        assert_string_equal(ha_sha256_hex(digest, hex), cases[i].hex);
        assert_true(ha_sha256_hex_valid(hex));
    }
    assert_false(ha_sha256_hex_valid("abc"));
}

static void split_updates_agree(void **state)
{
    uint8_t bytes[300], whole[HA_SHA256_BYTES], parts[HA_SHA256_BYTES];
    struct ha_sha256 hash;

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7);
    for (size_t size = 0; size <= sizeof(bytes); size++) {
        ha_sha256(bytes, size, whole);
        ha_sha256_init(&hash);
        ha_sha256_update(&hash, bytes, size / 3);
        ha_sha256_update(&hash, bytes + size / 3, size - size / 3);
        ha_sha256_final(&hash, parts);
        assert_memory_equal(whole, parts, sizeof(whole));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_digests),
        cmocka_unit_test(split_updates_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
