#include "common/base/utf8.h"

#include <string.h>

/* Length that the first byte announces; 0 for a byte that begins nothing. */
static size_t announced(uint8_t first)
{
    if (first < 0x80)
        return 1;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/* The second byte has a narrower range after four of the first bytes (overlong forms, surrogates,
 * beyond U+10FFFF). */
static bool second_fits(uint8_t first, uint8_t second)
{
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;

    return second >= low && second <= high;
}

size_t ha_utf8_broken(const char *bytes, size_t size, bool *ret_cut)
{
    const uint8_t *b = (const uint8_t *)bytes;
    size_t need = announced(b[0]), n = 1;

    *ret_cut = false;
    if (need < 2)
        return 1;
    if (n < size && second_fits(b[0], b[1])) {
        n++;
        while (n < need && n < size && (b[n] & 0xc0) == 0x80)
            n++;
    }
    *ret_cut = n == size && n < need;
    return n;
}

size_t ha_utf8_decode(const char *bytes, size_t size, uint32_t *ret_code)
{
    const uint8_t *b = (const uint8_t *)bytes;
    size_t need = size > 0 ? announced(b[0]) : 0;
    uint32_t code;

    if (need == 0 || need > size || (need > 1 && !second_fits(b[0], b[1])))
        return 0;
    code = need == 1 ? b[0] : b[0] & (0x7fu >> need);
    for (size_t i = 1; i < need; i++) {
        if ((b[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (b[i] & 0x3f);
    }
    if (ret_code)
        *ret_code = code;
    return need;
}

size_t ha_utf8_encode(uint32_t code, char bytes[4])
{
    if (code < 0x80) {
        bytes[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        bytes[0] = (char)(0xc0 | code >> 6);
        bytes[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        bytes[0] = (char)(0xe0 | code >> 12);
        bytes[1] = (char)(0x80 | (code >> 6 & 0x3f));
        bytes[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    bytes[0] = (char)(0xf0 | code >> 18);
    bytes[1] = (char)(0x80 | (code >> 12 & 0x3f));
    bytes[2] = (char)(0x80 | (code >> 6 & 0x3f));
    bytes[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

size_t ha_utf8_valid(const char *bytes, size_t size)
{
    size_t i = 0;

    while (i < size) {
        uint64_t eight;
        size_t n;

        if (i + sizeof(eight) <= size) {
            memcpy(&eight, bytes + i, sizeof(eight));
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                i += sizeof(eight);
                continue;
            }
        }
        n = ha_utf8_decode(bytes + i, size - i, NULL);
        if (n == 0)
            break;
        i += n;
    }
    return i;
}

const char *ha_utf8_copy(char *to, size_t size, const char *text)
{
    size_t used = 0, left = strlen(text);

    while (left > 0) {
        size_t length = ha_utf8_decode(text, left, NULL), taken = length > 0 ? length : 1;

        if (used + taken >= size)
            break;
        if (length > 0)
            memcpy(to + used, text, length);
        else
            to[used] = '?';
        used += taken;
        text += taken;
        left -= taken;
    }
    to[used] = '\0';
    return to;
}
