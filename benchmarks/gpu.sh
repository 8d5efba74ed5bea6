#!/usr/bin/env bash
# Measures Secateur on a GPU and compares its results with the CPU, in at most nine minutes.
#
#     benchmarks/gpu.sh [--out gpu.json] [--device cuda] [--weights best.pt] [--only validation,exports]
#     benchmarks/gpu.sh --device cpu --small      # tests the script in about a minute
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
