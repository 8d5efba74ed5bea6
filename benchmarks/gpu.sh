#!/usr/bin/env bash
# What a GPU does with Secateur, and whether it does the same as the CPU: one command, at most nine minutes.
#
#     benchmarks/gpu.sh [--out gpu.json] [--device cuda] [--weights best.pt] [--only validation,exports]
#     benchmarks/gpu.sh --device cpu --small      # the script itself, in about a minute
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
