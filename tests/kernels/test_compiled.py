"""Every configuration of every kernel, compiled ahead of time for sm_80 and sm_90, and its machine code looked at.

No GPU is needed: ptxas comes with Triton. What is read: tensor-core instructions, spills, shared memory, and how many
instructions the loops of uint8 data have.
"""

import itertools
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch

from tests.kernels.budgets import LOOPS, TRITON
from tests.processes import prepared
from tests.sass import loops, loops_with_products

pytest.importorskip("triton", minversion="3.6")  # earlier ones spill registers, or compile by other calls

SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}  # bytes per block: CUDA programming guide, compute capabilities
TENSOR_CORE = {"s8": r"\.s8\.s8\b|\.s32\.s8\.s8", "f16": r"\.f32\.f16\.f16", "bf16": r"\.f32\.bf16\.bf16"}
STORED = {"u8": torch.uint8, "fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
COUNTED = {"digits_ptr": "*i32", "count_ptr": "*i32", "path_ptr": "*i8"}
UNITS = {"shift": "fp32", "unit": "fp32"}
FLOATS = {"fp16": "f16", "bf16": "bf16", "fp32": "bf16"}  # stored dtype -> operands of the tensor cores


@dataclass(frozen=True)
class Variant:
    """One kernel (module.name) with the types of its tensors and the values of its constexpr arguments."""

    kernel: str
    pointers: dict[str, str]
    constants: dict[str, Any]
    operands: str = ""  # of the tensor-core instructions that must be there; "" for none
    warps: int = 4
    stages: int = 3
    hopper: bool = False  # for sm_90 alone
    ones: tuple[str, ...] = ()  # integer arguments that are 1, which Triton compiles in as constants
    scalars: dict[str, str] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)  # registers, if said

    def __str__(self) -> str:
        typed = (
            self.pointers[name] for name in ("rows_ptr", "p_ptr", "parts_ptr", "sums_ptr") if name in self.pointers
        )
        stored = next(typed, "*").removeprefix("*")
        names = [name for name, value in self.constants.items() if not isinstance(value, float)]
        constants = "-".join(f"{name}{int(self.constants[name])}" for name in names)
        return f"{self.kernel.partition('.')[2]}-{stored}-{constants}-w{self.warps}" + ("-ones" if self.ones else "")


def variants() -> Iterator[Variant]:
    """All that the engine can launch, at the sizes and configurations that are written down."""
    from geodiff.kernels import configs
    from geodiff.kernels.combine import MOST_TERMS

    yield from _first_product(configs)
    yield from _second_product(configs)
    yield from _per_query()
    yield from _differences(configs)
    yield from _local()
    yield from _places()
    yield from _crops()
    values = {f"v{k}_ptr": "*fp32" for k in range(MOST_TERMS)}
    combined = {"mean_ptr": "*fp64", **values, "out_ptr": "*fp32"}
    bits = dict.fromkeys(("gain", "c0", "c1", "c2"), "i64")
    yield Variant("combine.combine_kernel", combined, {"BN": 1024}, scalars=bits)


def _doubles(*names: str) -> dict[str, str]:
    return {f"{name}_ptr": "*fp64" for name in names}


def _first_product(configs: Any) -> Iterator[Variant]:
    shared = {**_doubles("half", "bias", "scale", "inv", "best", "out"), "exclude_ptr": "*i64"}
    pointers = {"q_ptr": "*i8", "rows_ptr": "*u8", "digits_ptr": "*i32", **shared}
    for config in configs.LOGITS_BYTES:
        for bias in _biases(configs, config):
            yield Variant(
                "logits.logits_bytes",
                pointers,
                {**config.kwargs, "LONG": False, **bias},
                "s8",
                *_launch(config),
            )
        constants = {**config.kwargs, "LONG": True, "BIAS": 0, "EXCLUDE": False}
        yield Variant("logits.logits_bytes", pointers, constants, "s8", *_launch(config))
    constants = {**configs.LOGITS_BYTES[0].kwargs, "LONG": False, "BIAS": 0, "EXCLUDE": False}
    yield Variant("logits.logits_bytes", pointers, constants, "s8", ones=("B", "C", "d", "part_stride", "start"))
    for stored, operands in FLOATS.items():
        query = "*fp16" if stored == "fp16" else "*bf16"
        for config in configs.LOGITS_FLOATS:
            pointers = {"q_ptr": query, "rows_ptr": f"*{stored}", **shared}
            for bias in _biases(configs, config):
                constants = {**config.kwargs, **bias}
                yield Variant("logits.logits_floats", pointers, constants, operands, *_launch(config))


def _biases(configs: Any, config: Any) -> Iterator[dict[str, Any]]:
    most = 1 if any(config is wide for wide in configs.WITHOUT_OWN_BIAS) else 2
    yield from ({"BIAS": bias, "EXCLUDE": False} for bias in range(most + 1))
    yield {"BIAS": most, "EXCLUDE": True}  # with less of a bias it takes fewer registers


def _second_product(configs: Any) -> Iterator[Variant]:
    marked = {"mark_ptr": "*i32", "counts_ptr": "*i32", "count_ptr": "*i32"}
    for stored, operands in {"u8": "f16", **FLOATS}.items():
        for config in configs.WEIGHTED_SUM[STORED[stored]]:
            constants = {**config.kwargs, "SPLIT": configs.SPLIT, "STEP": configs.STEP}
            part = "*fp16" if operands == "f16" else "*bf16"
            pointers = {"p_ptr": part, **marked, "numbers_ptr": "*fp64", "rows_ptr": f"*{stored}"}
            for several, out in ((False, "*fp32"), (True, "*fp64")):
                pointers |= {"out_ptr": out, "summed_ptr": "*i8"}
                asked = {**constants, "SEVERAL": several}
                yield Variant("weighted_sum.weighted_sum_kernel", dict(pointers), asked, operands, *_launch(config))
    state = {**_doubles("l", "half", "away", "bias", "numbers", "facts", "best", "state"), **marked}
    state["exclude_ptr"] = "*i64"
    for part in ("*fp16", "*bf16"):
        for bias in (0, 1, 2):
            constants = {"BIAS": bias, "EXCLUDE": bias == 2, "BB": 4, "SPLIT": configs.SPLIT, "WORD": 32}
            yield Variant(
                "weighted_sum.softmax_state", {**state, "p_ptr": part}, constants, warps=8, scalars={"cut": "fp32"}
            )
    merged = {**_doubles("state", "numbers", "best", "acc", "kept", "acc_out", "kept_out", "mean"), **marked}
    merged["summed_ptr"] = "*i8"
    for first, last, sums, ones in (
        (True, True, "*fp32", ()),
        (True, True, "*fp64", ()),
        (True, False, "*fp64", ()),
        (False, True, "*fp64", ()),
        (False, True, "*fp32", ("B", "G", "S", "stride", "d")),
    ):
        constants = {"FIRST": first, "LAST": last, "GB": 8, "SB": 128, "BD": 128}
        merged["sums_ptr"] = sums
        yield Variant("merge.merge_kernel", dict(merged), constants, ones=ones, scalars=UNITS)


def _per_query() -> Iterator[Variant]:
    from geodiff.kernels import bounds, queries

    prepared = {**_doubles("sigma", "dither", "facts", "centred", "numbers", "best"), **COUNTED}
    numbers = {"LEAST_DIGITS": queries.LEAST_DIGITS, "DEVIATIONS": bounds.DEVIATIONS, "LOG_SHARE": bounds.LOG_SHARE}
    scalars = {**UNITS, **dict.fromkeys(("tol", "within", "terms", "cut", "cut_off", "short"), "fp32")}
    for parts, ones in (("i8", ()), ("i8", ("B", "n", "d", "part_stride", "x_stride")), ("fp16", ()), ("bf16", ())):
        of_bytes = parts == "i8"
        constants = {"BYTES": of_bytes, **numbers, "BD": 1024, "FLUSH": 64, "CUT": bounds.CUT}
        pointers = {**prepared, "x_ptr": "*fp32", "parts_ptr": f"*{parts}"}
        yield Variant("queries.prepare_kernel", pointers, constants, warps=8, scalars=scalars, ones=ones)
        paths = {name: getattr(queries, name) for name in ("SCREENED", "DENSE", "DENSE_FINE", "EXACT")}
        constants = {"BYTES": of_bytes, "BD": 1024, "SUMMED": 16, "ROUNDING": bounds.ROUNDING, **numbers, **paths}
        pointers = {**_doubles("mean", "x", "numbers", "kept", "facts", "told"), **COUNTED, "parts_ptr": f"*{parts}"}
        ones = tuple(name for name in ones if name != "x_stride")
        yield Variant("decide.decide_kernel", pointers, constants, warps=8, scalars=scalars, ones=ones)
    told = _doubles("mean", "x", "sigma", "told", "out")
    for prior in (True, False):
        yield Variant("decide.finish_kernel", told, {"PRIOR": prior, "BD": 1024}, warps=8, scalars=UNITS)


def _differences(configs: Any) -> Iterator[Variant]:
    for stored in ("u8", *FLOATS):
        pairs = {"x_ptr": "*fp64", "rows_ptr": f"*{stored}", "query_ptr": "*i64", "row_ptr": "*i64", "out_ptr": "*fp64"}
        gather = {"w_ptr": "*fp64", "rows_ptr": f"*{stored}", "out_ptr": "*fp64"}
        for listed, product in ((True, False), (False, False), (False, True)):
            constants = {"LISTED": listed, "PRODUCT": product, "BP": 16, "BD": 64}
            unlisted = {} if listed else {"query_ptr": "*fp64", "row_ptr": "*fp64"}
            yield Variant("refine.distances_kernel", {**pairs, **unlisted}, constants)
        yield Variant("refine.full_sum_kernel", gather, {"BP": 16, "BD": 64})
        for bias in (0, 1, 2) if stored == "u8" else (2,):  # of the others the one with most registers
            pointers = {**_doubles("x", "bias", "numbers", "logit", "mean", "told", "acc", "state"), **COUNTED}
            pointers |= {"rows_ptr": f"*{stored}", "mark_ptr": "*i32", "counts_ptr": "*i32", "row_ptr": "*i32"}
            sizes = {"BIAS": bias, "BP": 16, "BD": 128}
            marks = {"SPLIT": configs.SPLIT, "WORD": 32}
            yield Variant("candidates.candidate_kernel", pointers, {**sizes, **marks, "PATH": 0})
            constants = {**sizes, "BD": 64, "PATH": 0}
            yield Variant("candidates.candidate_sum_kernel", pointers, constants, scalars=UNITS)
            yield Variant("exact.exact_kernel", pointers, {**sizes, "BD": 64, "WORD": 32, "PATH": 3})
            pointers |= {**_doubles("v", "along", "top", "mass", "target"), "lot_ptr": "*i64", "out_ptr": "*i64"}
            yield Variant("covariance.covariance_kernel", pointers, {**sizes, "WORD": 32})
            constants = {**sizes, "BD": 64, "WORD": 32, "LOT": 256}
            yield Variant("drawn.mass_kernel", pointers, constants, warps=8)
            yield Variant("drawn.pick_kernel", pointers, constants, warps=8)
    pointers = _doubles("acc", "state", "mean", "rows_out", "far_out")
    yield Variant("covariance.covariance_merge_kernel", pointers, {"SB": 8, "BD": 128}, warps=8, scalars=UNITS)
    pointers = {**_doubles("acc", "state", "mean", "told"), **COUNTED}
    yield Variant("exact.exact_merge_kernel", pointers, {"SB": 8, "BD": 128, "PATH": 3}, scalars=UNITS)


def _local() -> Iterator[Variant]:
    """LS: an image in one tile, in pieces of windows, in several tiles, and with more channels than a program sums."""
    from geodiff.kernels import images, local

    pointers = {**_doubles("bias", "sigma", "sums", "mass"), "exclude_ptr": "*i64", "x_ptr": "*fp32"}
    some = {"MIRRORED": False, "DETAILS": False, "BIAS": 0, "EXCLUDE": False}
    most = {"MIRRORED": True, "DETAILS": False, "BIAS": 2, "EXCLUDE": True}
    shapes = (
        ((3, 32, 32), 1, some),
        ((3, 32, 32), 3, some),
        ((3, 32, 32), 8, some),
        ((1, 28, 28), 31, some),
        ((1, 3, 9), 2, some),
        ((4, 32, 32), 8, most),
        ((4, 32, 32), 8, {**most, "DETAILS": True}),
        ((5, 32, 32), 4, most),
        ((5, 32, 32), 4, {**most, "DETAILS": True}),
        ((3, 64, 64), 1, some),
        ((3, 64, 64), 3, {**some, "DETAILS": True}),
        ((3, 64, 64), 8, most),
        ((4, 64, 64), 13, {**most, "DETAILS": True}),
    )
    for stored in ("u8", *FLOATS):
        for shape, half, asked in shapes:
            # Of floats those with most registers.
            for circular in (False, True) if stored == "u8" and 2 * half < shape[1] else (False,):
                if stored != "u8" and asked["BIAS"] == 0:
                    continue
                tile = local.tile_of(images.Images(shape, (0, 0, 0), (half, half)), details=asked["DETAILS"])
                constants = {"HALF_U": min(half, shape[1] - 1), "HALF_V": min(half, shape[2] - 1), **asked}
                constants |= {"CIRCULAR": circular, **_tiled(tile, shape), "PRIORS": images.PRIORS}
                constants |= {"RULE": 0, "SHIFTS_U": 1, "SHIFTS_V": 1}
                ones = ("channels",) if shape[0] == 1 else ()
                typed = {**pointers, "rows_ptr": f"*{stored}"}
                yield Variant("local.local_kernel", typed, constants, warps=tile.warps, ones=ones, scalars=UNITS)
    outputs = {**_doubles("sums", "mass", "x", "mean", "log_mass", "variance", "ess"), "nearest_ptr": "*i64"}
    for summed, details in itertools.product((True, False), repeat=2):
        constants = {"SUMS": summed, "DETAILS": details, "SB": local.MERGED_PARTS, "PB": local.MERGED_PIXELS}
        yield Variant("local.local_merge_kernel", outputs, constants, scalars=UNITS)


def _tiled(tile: Any, shape: tuple[int, int, int]) -> dict[str, Any]:
    constants = {name: getattr(tile, name) for name in ("G", "HB", "WB", "USED", "WHOLE", "SIDE")}
    return {**constants, "C": shape[0] if shape[0] <= 4 else 0}


def _places() -> Iterator[Variant]:
    """ELS, of images in one tile."""
    from geodiff.kernels import images, local

    pointers = {**_doubles("bias", "sigma", "sums", "mass"), "exclude_ptr": "*i64", "x_ptr": "*fp32"}
    # Channels, lines and columns, half a window: with little asked, and with most registers.
    little, much = [(3, 32, 1), (3, 32, 8)], [(4, 32, 3), (5, 12, 1), (5, 32, 5)]
    for stored, rule, (channels, side, half) in itertools.product(
        ("u8", *FLOATS), images.RULES.values(), little + much
    ):
        full = (channels, side, half) in much
        if stored != "u8" and not full:
            continue
        over = images.Images((channels, side, side), (0, 0, 0), (half, half), rule < 3, rule)
        tile, (down, across) = local.tile_of(over, details=False), over.shifts
        constants = {
            "HALF_U": half,
            "HALF_V": half,
            "MIRRORED": full,
            "DETAILS": False,
            "BIAS": 2 * full,
            "EXCLUDE": full,
        }
        constants |= {"CIRCULAR": over.circular, **_tiled(tile, over.shape), "PRIORS": images.PRIORS}
        constants |= {"RULE": rule, "SHIFTS_U": down, "SHIFTS_V": across}
        launch = {"warps": tile.warps, "scalars": UNITS, "most": local.registers(tile, over)}
        yield Variant("local.local_kernel", {**pointers, "rows_ptr": f"*{stored}"}, constants, **launch)


def _crops() -> Iterator[Variant]:
    """PSPC-Square: images in one tile, tiles that crops begin in or begin and end in, and windows in pieces."""
    from geodiff.kernels import crops, images

    pointers = {**_doubles("bias", "sigma", "norm", "sums", "mass"), "exclude_ptr": "*i64", "x_ptr": "*fp32"}
    few, most = {"MIRRORED": False, "BIAS": 0, "EXCLUDE": False}, {"MIRRORED": True, "BIAS": 2, "EXCLUDE": True}
    # Channels, lines and columns, k: with little asked, and with most registers.
    little = [(3, 32, 3), (3, 32, 7), (1, 28, 28), (3, 64, 3)]
    much = [(4, 32, 17), (5, 32, 4), (4, 64, 5), (4, 64, 12), (3, 64, 23), (5, 64, 40)]
    for stored, (channels, side, k) in itertools.product(("u8", *FLOATS), little + much):
        if stored != "u8" and (channels, side, k) in little:
            continue
        over = images.Images((channels, side, side), (0, 0, 0), (0, k - 1))
        chosen = {"K": k, **(few if (channels, side, k) in little else most)}
        tile, apart = crops.tile_of(over, both=False), crops.tile_apart(over)
        asked = [("sum", crops.tile_of(over, both=True), {}), ("apart", apart, {})]
        asked += [("mass", tile, {"DETAILS": details, "PRIORS": images.PRIORS}) for details in (False, True)]
        for name, tile, more in asked:
            constants = {**chosen, **_tiled(tile, over.shape), **more}
            typed = {**pointers, "rows_ptr": f"*{stored}"}
            launch = {"warps": tile.warps, "ones": ("channels",) if channels == 1 else (), "scalars": UNITS}
            if name == "mass":
                launch["most"] = crops.registers_of_mass(tile, channels, details=more["DETAILS"])
            elif name == "sum":
                launch["most"] = crops.registers_of_sum(tile)
            yield Variant(f"crops.crops_{name}_kernel", typed, constants, **launch)
    outputs = _doubles("sums", "mean", "variance")
    for details, k in ((False, 7), (True, 7)):
        constants = {"K": k, "DETAILS": details, "SB": crops.MERGED_PARTS, "PB": crops.MERGED_PIXELS}
        yield Variant("crops.crops_merge_kernel", outputs, constants, scalars=UNITS)


def _launch(config: Any) -> tuple[int, int, bool]:
    from geodiff.kernels import configs

    return config.num_warps, config.num_stages, any(config is large for large in configs.HOPPER)


class Compiled(NamedTuple):
    """shared: bytes of shared memory; usage: ptxas's account of registers; loops: their instructions, where counted."""

    ptx: str
    shared: int
    usage: str
    loops: tuple[int, ...] | None


def compiled(variant: Variant, capability: int) -> Compiled:
    """In a process of its own."""
    os.environ.pop("TRITON_INTERPRET", None)
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, _, name = variant.kernel.partition(".")
    kernel = getattr(importlib.import_module(f"geodiff.kernels.{module}"), name)
    signature, constants, attributes = {}, {}, {}
    for index, argument in enumerate(kernel.arg_names):
        if argument in variant.constants:
            signature[argument] = "constexpr"
            constants[(index,)] = variant.constants[argument]
        elif argument in variant.ones:
            signature[argument] = "constexpr"
            constants[(index,)] = 1
        else:
            signature[argument] = variant.pointers.get(argument) or variant.scalars.get(argument, "i32")
            # As at a launch with d a multiple of 16 and a whole chunk of rows: what makes loads wide and asynchronous.
            if argument in variant.pointers or argument in ("C", "d", "part_stride", "out_stride", "l_stride"):
                attributes[(index,)] = [["tt.divisibility", 16]]
    found = triton.compile(
        ASTSource(kernel, signature, constexprs=constants, attrs=attributes),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": variant.warps, "num_stages": variant.stages, "enable_fp_fusion": True, **variant.most},
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(found.asm["cubin"])
        file.flush()

        def said(option: str) -> str:
            command = [triton.knobs.nvidia.cuobjdump.path, option, file.name]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        usage, counted = said("-res-usage"), None
        if capability == 90 and str(variant) in LOOPS and triton.__version__.startswith(TRITON):
            # which takes as long as to compile
            found_loops = (loops_with_products if variant.operands else loops)(said("-sass"))
            counted = tuple(len(body) for body in found_loops)
            if not variant.operands:
                counted = (max(counted),)
    return Compiled(found.asm["ptx"], found.metadata.shared, usage, counted)


ALL = [(variant, cc) for variant in variants() for cc in SHARED_LIMIT if cc >= 90 or not variant.hopper]


def lighter(variant: Variant) -> bool:
    """bfloat16 or float32 rows with a lesser bias than the configuration bears: the twin of one with more registers."""
    constants = variant.constants
    return "floats" in variant.kernel and variant.pointers["rows_ptr"] != "*fp16" and not constants["EXCLUDE"]


PARAMETERS = [pytest.param(*one, marks=[pytest.mark.heavy] if lighter(one[0]) else []) for one in ALL]


@pytest.fixture(scope="module")
def pool(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, int], Future[Compiled]]]:
    """Every variant that is asked for being compiled, as many at a time as there are processors, by no interpreter."""
    workers = min(os.cpu_count() or 1, 8)
    with ProcessPoolExecutor(workers, mp_context=prepared()) as executor:
        asked = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
        jobs = [(one["variant"], one["capability"]) for one in asked if {"variant", "capability"} <= one.keys()]
        yield {(str(variant), cc): executor.submit(compiled, variant, cc) for variant, cc in jobs}
        executor.shutdown(cancel_futures=True)


@pytest.mark.parametrize(("variant", "capability"), PARAMETERS, ids=str)
def test_kernel_compiles_to_tensor_cores_without_spills(
    variant: Variant, capability: int, pool: dict[tuple[str, int], Future[Compiled]]
) -> None:
    ptx, shared, usage, counted = pool[(str(variant), capability)].result()
    assert f".target sm_{capability}" in ptx
    if variant.operands:
        instructions = re.findall(r"\b(?:mma\.sync|wgmma\.mma_async)\.\S+", ptx)
        assert instructions, "no tensor-core instruction"
        wrong = [text for text in instructions if not re.search(TENSOR_CORE[variant.operands], text)]
        assert not wrong, f"products of other types: {sorted(set(wrong))}"
    assert shared <= SHARED_LIMIT[capability]
    stack, local = (int(re.search(rf"\b{name}:(\d+)", usage)[1]) for name in ("STACK", "LOCAL"))
    assert (stack, local) == (0, 0), f"registers spilled: {usage}"
    if counted is not None:
        budgets = LOOPS[str(variant)]
        assert len(counted) == len(budgets), f"loops of {counted} instructions"
        grown = [(count, budget) for count, budget in zip(counted, budgets, strict=True) if count > 1.1 * budget]
        assert not grown, f"loops have grown: {counted}"


def test_ids_tell_variants_apart() -> None:
    ids = [(str(variant), capability) for variant, capability in ALL]
    assert len(set(ids)) == len(ids)
    assert set(LOOPS) <= {name for name, capability in ids if capability == 90}, "budgets of what is not compiled"
