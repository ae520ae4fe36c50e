"""Builds the compiled core with CMake; everything static about the package stands in pyproject.toml.

The extension needs no torch at build time, so pip's isolated build stays small and one build serves every torch.
From the environment: `GEODIFF_CUDA` = ON | OFF | AUTO, `CXX`, `CMAKE_ARGS`, and `MAX_JOBS`, compilers at a time. A
wheel is built without CUDA unless told otherwise: what it holds does not depend on what lies on the machine. An
editable install has it where nvcc is found.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, PlatformError

ROOT = Path(__file__).resolve().parent

#: What CMake says when something is missing on the machine, and what to do about it.
REMEDIES = {
    "No CMAKE_CXX_COMPILER could be found": "a C++17 compiler is needed, and CMake found none: install g++ or clang++, "
    "or name one in the environment variable CXX",
    "Could not find compiler set in environment variable CXX": "the environment variable CXX names no C++ compiler "
    "that is there: name one, or leave it unset",
    "No CMAKE_CUDA_COMPILER could be found": "GEODIFF_CUDA=ON needs nvcc, and CMake found none: put it on the PATH, or "
    "name it in the environment variable CUDACXX",
    "unable to find a build program": "CMake needs ninja or make, and found neither: pip install ninja",
}


class CMakeExtension(Extension):
    """An extension whose sources, flags and targets are known to CMakeLists.txt alone."""

    def __init__(self, name: str, *, optional: bool = False) -> None:
        super().__init__(name, sources=[], optional=optional)


class FreshBuild(build):
    """Puts into a wheel what this run has built, and nothing that an earlier one has left."""

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class CMakeBuild(build_ext):
    """Configures, builds and places the extensions where setuptools wants it: in the source tree for an editable
    install, in the build folder otherwise."""

    def build_extension(self, ext: Extension) -> None:
        if ext.optional:
            return  # CMake has built it beside the first one, or left it out

        in_place = self.editable_mode or self.inplace
        output = (Path.cwd() / self.get_ext_fullpath(ext.name)).resolve().parent
        # setuptools gives an editable install a new folder each time: one that stays compiles what has changed.
        name = f"editable-{sys.implementation.cache_tag}"
        folder = ROOT / "build" / name if in_place else Path(self.build_temp).resolve() / "cmake"
        cuda = os.environ.get("GEODIFF_CUDA") or ("AUTO" if in_place else "OFF")
        if cuda not in ("ON", "OFF", "AUTO"):
            raise PlatformError(f"GEODIFF_CUDA: found {cuda!r}, allowed ON, OFF, AUTO")
        # One of an earlier build, which may not be built now; setuptools moves it to the source tree only at the end.
        for built in [*output.glob("_cuda.*"), *((ROOT / "geodiff").glob("_cuda.*") if in_place else ())]:
            if built.suffix == ".so":
                built.unlink()
        self._configure(folder, output, cuda)
        jobs = self.parallel or int(os.environ.get("MAX_JOBS") or os.cpu_count() or 2)
        if subprocess.run(["cmake", "--build", str(folder), "--parallel", str(jobs)]).returncode != 0:
            raise CompileError("the core could not be compiled; what the compiler said stands above")

    def _configure(self, folder: Path, output: Path, cuda: str) -> None:
        """Raises PlatformError, one line, for a tool that is missing."""
        try:
            import pybind11
        except ModuleNotFoundError as error:
            raise PlatformError("pybind11 is needed to build, and is not installed: pip install pybind11") from error
        if shutil.which("cmake") is None:
            raise PlatformError("cmake 3.18 or later is needed, and there is none on the PATH: pip install cmake")
        # Configured afresh each time: an isolated build moves ninja and pybind11, and cached paths would be stale. Not
        # with cmake --fresh, which throws compiled objects away too, and is not known before 3.24.
        (folder / "CMakeCache.txt").unlink(missing_ok=True)
        for compilers in folder.glob("CMakeFiles/[0-9]*"):
            shutil.rmtree(compilers)
        configure = [
            "cmake",
            "-S",
            str(ROOT),
            "-B",
            str(folder),
            *(["-G", "Ninja"] if shutil.which("ninja") and "CMAKE_GENERATOR" not in os.environ else []),
            f"-DCMAKE_BUILD_TYPE={'Debug' if self.debug else 'Release'}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DGEODIFF_CUDA={cuda}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        done = subprocess.run(configure, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode == 0:
            print(done.stdout, flush=True)
            return
        said = " ".join(done.stdout.split())  # CMake breaks its lines
        for finding, remedy in REMEDIES.items():
            if finding in said:
                raise PlatformError(remedy)
        print(done.stdout, flush=True)
        raise PlatformError("CMake could not configure the build; what it said stands above")


setup(
    packages=[*find_packages(include=["geodiff", "geodiff.*"]), "geodiff.kernels"],
    package_dir={"geodiff.kernels": "kernels"},
    ext_modules=[CMakeExtension("geodiff._cpu"), CMakeExtension("geodiff._cuda", optional=True)],
    cmdclass={"build": FreshBuild, "build_ext": CMakeBuild},
)
