#!/usr/bin/env bash
# Everything that needs a GPU, in one command and about five minutes: builds, benchmarks, tests, sanitizers, profile.
#   [OUT=FOLDER] bench/gpu.sh      default: out/; commit what is worth keeping of gpu.json under bench/results/
# Writes OUT/gpu.json (after every cell), tests.xml, tests.log, build.log, sanitizers.log and ncu.csv; ends with 1 if
# anything failed or was skipped. Needs no network: a python3 with torch, numpy, safetensors, typer, rich, pytest,
# setuptools, pybind11, cmake and ninja, and nvcc. Triton, pytest-xdist, compute-sanitizer, ncu, KeOps and FAISS are used
# where they are. Nothing is installed outside OUT.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-$PWD/out}
site=$out/site
mkdir -p "$out"
status=0
failed() {
    echo "FAILED: $*"
    status=1
}

echo "== machine"
python3 -c 'import sys, torch; print("python", sys.version.split()[0], "torch", torch.__version__)' || exit 1
python3 -c 'import triton; print("triton", triton.__version__)' || echo "triton is not here"
nvcc --version | tail -n 1
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm --format=csv,noheader

echo "== build"
rm -rf "$site"
if ! GEODIFF_CUDA=ON CMAKE_BUILD_PARALLEL_LEVEL=16 timeout 150 python3 -m pip install --no-index --no-deps \
    --no-build-isolation --target "$site" . >"$out/build.log" 2>&1; then
    failed "build, see build.log; going on without compiled cores"
    mkdir -p "$site" && cp -R geodiff "$site/" && cp -R kernels "$site/geodiff/kernels"
fi
# The package in $site, and not the folder beside us, whatever pyproject.toml says.
export PYTHONPATH=$site PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 GEODIFF_NEEDS_GPU=1
python3 - "$site" <<'CHECK' || failed "backends"
import sys

import geodiff

where, found = sys.argv[1], geodiff.backends.available()
print(geodiff.__file__, found)
assert geodiff.__file__.startswith(where), "not the package that was built"
missing = [name for name in ("cuda", "triton") if not geodiff.backends.is_available(name)]
sys.exit(f"missing: {missing}" if missing else 0)
CHECK

echo "== cells that decide"
timeout 105 python3 bench/gpu.py --out "$out/gpu.json" --decisive --seconds 75 || failed "decisive cells"

echo "== tests, and sanitizers beside them"
workers=$(python3 -c 'import xdist' 2>/dev/null && echo "-n 8")
# shellcheck disable=SC2086
timeout 120 python3 -m pytest -q $workers -p no:cacheprovider -p no:benchmark -o pythonpath="$site ." --junitxml="$out/tests.xml" tests/gpu \
    >"$out/tests.log" 2>&1 &
tests=$!
# Parts of kernel names: the namespace of the CUDA C++ kernels, and the Triton kernels, which are named as their functions
# are. A kernel that any filter names is looked at; PyTorch's own would take all the time.
kernels=(candidate_kernel candidate_sum_kernel combine_kernel covariance_kernel covariance_merge_kernel crops_apart_kernel crops_mass_kernel crops_merge_kernel crops_sum_kernel decide_kernel distances_kernel exact_kernel exact_merge_kernel finish_kernel full_sum_kernel geodiff local_kernel local_merge_kernel logits_bytes logits_floats mass_kernel merge_kernel pick_kernel prepare_kernel softmax_state weighted_sum_kernel)
filters=()
for name in "${kernels[@]}"; do filters+=(--kernel-regex "kns=$name"); done
if command -v compute-sanitizer >/dev/null; then
    # Once without them: Triton compiles what is then only looked at. Side by side, since each is slow on its own.
    timeout 45 python3 bench/gpu.py --small || failed "small shapes"
    tools=(memcheck racecheck synccheck initcheck)
    for tool in "${tools[@]}"; do
        # Copies by others of memory that nobody wrote are not ours to find.
        more=$([[ $tool == initcheck ]] && echo "--check-api-memory-access no")
        # shellcheck disable=SC2086
        timeout 75 compute-sanitizer --tool "$tool" $more --error-exitcode 9 "${filters[@]}" python3 bench/gpu.py --small \
            >"$out/$tool.part" 2>&1 &
        declare "pid_$tool=$!"
    done
    : >"$out/sanitizers.log"
    for tool in "${tools[@]}"; do
        pid=pid_$tool
        wait "${!pid}" || failed "$tool, see sanitizers.log"
        { echo "== $tool" && cat "$out/$tool.part" && rm "$out/$tool.part"; } >>"$out/sanitizers.log"
        tail -n 1 "$out/sanitizers.log"
    done
else
    echo "compute-sanitizer is not here: left out"
fi
wait "$tests" || failed "tests, see tests.log"
tail -n 15 "$out/tests.log"
grep -qE "[0-9]+ passed" "$out/tests.log" || failed "no test passed"
! grep -E "[0-9]+ skipped" "$out/tests.log" || failed "tests were skipped"

echo "== other cells"
timeout 75 python3 bench/gpu.py --out "$out/gpu.json" --more --seconds 60 || failed "other cells"

echo "== profile"
if command -v ncu >/dev/null; then
    timeout 45 ncu --set basic --csv --target-processes all \
        --kernel-name "regex:fused_kernel|logits_kernel|weights_kernel|sums_kernel|logits_bytes|weighted_sum_kernel" --launch-count 10 \
        python3 bench/gpu.py --once >"$out/ncu.csv" 2>/dev/null || echo "ncu: no profile here"
else
    echo "ncu is not here: left out"
fi
exit "$status"
