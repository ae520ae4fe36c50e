#!/usr/bin/env bash
# Everything that needs a GPU, in one command and under ten minutes: builds, tests, sanitizers, ceilings, benchmarks.
#   bench/gpu.sh [OUT.json]      default: out/gpu.json; commit what is worth keeping under bench/results/
# Needs no network: a python3 with torch, numpy, safetensors, typer, rich, pytest, setuptools, pybind11, cmake and ninja,
# and nvcc. Triton, KeOps, FAISS and compute-sanitizer are used where they are. Nothing is installed outside out/.
set -euo pipefail
cd "$(dirname "$0")/.."
result=${1:-out/gpu.json}
site=$PWD/out/gpu-site
mkdir -p "$(dirname "$result")"

echo "== build"
rm -rf "$site"
GEODIFF_CUDA=ON timeout 150 python3 -m pip install --quiet --no-index --no-deps --no-build-isolation --target "$site" .
export PYTHONPATH=$site PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 # the installed package, not the folder beside us

echo "== tests"
status=0
timeout 150 python3 -m pytest -q -p no:cacheprovider tests/gpu || status=$?

echo "== sanitizers"
# Parts of kernel names: the namespace of the CUDA C++ kernels, and the Triton kernels, which are named as their functions
# are. A kernel that any filter names is looked at; PyTorch's own would take all the time.
kernels=(combine_kernel geodiff logits_bytes logits_floats softmax_state weighted_sum_kernel merge_kernel distances_kernel gathered_sum_kernel)
filters=()
for name in "${kernels[@]}"; do filters+=(--kernel-regex "kns=$name"); done
if command -v compute-sanitizer >/dev/null; then
    # Once without them: Triton compiles what is then only looked at.
    timeout 45 python3 bench/gpu.py --small || status=$?
    for tool in memcheck racecheck; do
        timeout 45 compute-sanitizer --tool "$tool" --error-exitcode 9 "${filters[@]}" \
            python3 bench/gpu.py --small >"out/$tool.log" 2>&1 || { status=$?; echo "$tool: failed, see out/$tool.log"; }
        tail -n 1 "out/$tool.log"
    done
else
    echo "compute-sanitizer is not here: skipped"
fi

echo "== ceilings and benchmarks"
timeout 165 python3 bench/gpu.py --out "$result" || status=$?
exit "$status"
