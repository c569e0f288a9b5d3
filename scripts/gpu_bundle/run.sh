#!/usr/bin/env bash
# Runs benchmarks/gpu_acceptance.py of this bundle with the given arguments.
#
#   bash bundle/run.sh [ARGUMENTS]
#   PYTHON=/path/to/python3.12 bash bundle/run.sh [ARGUMENTS]
#
# To run another command of the project: . bundle/env.sh, then for example
# python3 bundle/project/tdmpc2/train.py task=walker-walk
set -euo pipefail
# shellcheck source=scripts/gpu_bundle/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec "${PYTHON:-python3}" "$bundle/project/benchmarks/gpu_acceptance.py" "$@"
