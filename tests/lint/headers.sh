#!/bin/sh
# Every header must compile on its own, as C; those of tests may define more than
# one test uses.
status=0
flags="-std=gnu17 -D_GNU_SOURCE -DHA_VERSION=\"0\" -DHA_SOURCE_ROOT=\".\" -Wall -Wextra -Werror
-Wno-unused-function -Wno-unused-variable -fsyntax-only -I. $(pkg-config --cflags libprotobuf-c libzmq)"
for header in $(git ls-files '*.h'); do
    echo "#include \"$header\"" | gcc $flags -x c - || { echo "$header does not compile alone"; status=1; }
done
exit $status
