#include "worker/daemon/rank_log.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/utf8.h"
#include "worker/daemon/runner.h"

/* Its last bytes, from the beginning of a line; a line that is longer is cut. */
static void read_tail(const char *path, char tail[RANK_LOG_TAIL_BYTES])
{
    char bytes[RANK_LOG_TAIL_BYTES], *text = bytes, *newline;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    ssize_t n = -1;

    if (fd >= 0 && fstat(fd, &st) == 0) {
        off_t most = RANK_LOG_TAIL_BYTES - 1;

        n = pread(fd, bytes, (size_t)most, st.st_size > most ? st.st_size - most : 0);
        bytes[n > 0 ? n : 0] = '\0';
        newline = strchr(bytes, '\n');
        if (st.st_size > most && newline && newline[1])
            text = newline + 1;
        while (n > 0 && bytes[n - 1] == '\n')
            bytes[--n] = '\0';
    }
    if (fd >= 0)
        close(fd);
    if (n > 0)
        ha_utf8_copy(tail, RANK_LOG_TAIL_BYTES, text);
}

void rank_log_read(const char *folder, int rank, bool tail, struct rank_log *ret_log)
{
    char *path = rank < 0 ? NULL : runner_log_path(folder, rank);
    char *whole = path ? realpath(path, NULL) : NULL;

    *ret_log = (struct rank_log){.path = ""};
    if (whole)
        ha_utf8_copy(ret_log->path, sizeof(ret_log->path), whole);
    if (whole && tail)
        read_tail(whole, ret_log->tail);
    free(whole);
    free(path);
}
