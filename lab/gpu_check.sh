#!/usr/bin/env bash
# The first minutes with a GPU: is everything right there, and how fast is it? See lab/gpu_check/__main__.py.
#     bash lab/gpu_check.sh [--rehearse] [--table_file gpu_check.md]
# It takes the environment in .venv if there is one, else the machine's own Python, and needs no network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=python3
if [[ -x .venv/bin/python ]]; then python=.venv/bin/python; fi
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
exec "$python" -m lab.gpu_check "$@"
