#include "worker/tokenizer/byte_alphabet.h"

#include <stdbool.h>

#include "common/base/utf8.h"

static bool prints(uint32_t byte)
{
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
}

uint32_t ha_byte_alphabet_code(uint8_t byte)
{
    /* The bytes that do not print, in order: 00-20 and 7f-a0 and ad. */
    if (prints(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100u + byte;
    return byte == 0xad ? 0x143 : 0x121u + (byte - 0x7fu);
}

int ha_byte_alphabet_byte(uint32_t code)
{
    if (code < 0x100)
        return prints(code) ? (int)code : -1;
    if (code <= 0x120)
        return (int)(code - 0x100);
    if (code <= 0x142)
        return (int)(code - 0x121 + 0x7f);
    return code == 0x143 ? 0xad : -1;
}

int64_t ha_byte_alphabet_unmap(const char *text, size_t size, char *out)
{
    int64_t n = 0;

    for (size_t i = 0; i < size;) {
        uint32_t code = 0;
        size_t length = ha_utf8_decode(text + i, size - i, &code);
        int byte = length > 0 ? ha_byte_alphabet_byte(code) : -1;

        if (byte < 0)
            return -1;
        out[n++] = (char)byte;
        i += length;
    }
    return n;
}
