#!/usr/bin/env bash
# A stranger's first hour: type what the README and the guides say, in a fresh clone, and report what a newcomer would
# trip over. See first_hour.py beside this file.
#     bash tests/first_hour.sh
# VENV_FOLDER=/path/to/folder     take this environment instead of making one (minutes less)
set -euo pipefail
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
for python in python3 python3.13 python3.12 python3.11; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        exec "$python" "$here/first_hour.py"
    fi
done
echo "first_hour: needs Python 3.11 or newer" >&2
exit 2
