#!/usr/bin/env bash
# Everything that only a GPU can show, in one go and in so many seconds: see session.py, which does it.
#
#     bash tests/gpu/session.sh [FOLDER] [SECONDS] [WHEELS]
#
# FOLDER is where all of it goes (default: $OUT, else results/gpu-session): summary.md, session.log, session.tar.gz.
# SECONDS (default 600) is when the caller ends it: it is done 80 s before. WHEELS (default: wheels/ beside this file) is
# a folder of wheels that this Python lacks. PYTHON names the interpreter (default python3); it needs torch and a GPU.
# Exit code 0: all steps passed; 1: one did not; 3: no GPU.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 3
python=${PYTHON:-python3}
exec "$python" "$here/session.py" "${1:-${OUT:-results/gpu-session}}" "${2:-600}" --wheels "${3:-$here/wheels}"
