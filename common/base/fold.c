#include "common/base/fold.h"

#include <string.h>

int ha_fold(const char *text, int width)
{
    int n = 0; /* up to the last word that fits */

    for (int i = 0;; i++) {
        if (text[i] && text[i] != ' ')
            continue;
        if (n > 0 && i > width)
            return n;
        if (i == 0 || text[i - 1] != ' ')
            n = i;
        if (!text[i])
            return n;
    }
}

const char *ha_fold_next(const char *text, int n)
{
    return text + n + strspn(text + n, " ");
}
