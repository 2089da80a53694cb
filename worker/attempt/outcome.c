#include "worker/attempt/outcome.h"

#include <errno.h>
#include <stddef.h>

bool ha_outcome_is_permanent(int error)
{
    static const int of_content[] = {EINVAL,   ENOTSUP, EDOM,   ERANGE, EOVERFLOW,
                                     EMSGSIZE, EFBIG,   EILSEQ, EBADMSG};

    for (size_t i = 0; i < sizeof(of_content) / sizeof(of_content[0]); i++)
        if (error == -of_content[i])
            return true;
    return false;
}
