#!/bin/sh
# Every source of the CUDA backend is built: a .cu file that the build does not name would be
# compiled neither with warnings as errors nor with the limit for spilled registers, 0 bytes.
#
#   listed.sh FOLDER NAME...
folder=$1
shift
status=0
for file in "$folder"/*.cu "$folder"/*.c; do
    name=$(basename "$file")
    case " $* " in
    *" $name "*) ;;
    *) echo "$name is in no list of the build" && status=1 ;;
    esac
done
exit $status
