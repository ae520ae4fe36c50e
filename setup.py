"""Builds the compiled core with CMake; everything static about the package stands in pyproject.toml.

The extension needs no torch at build time, so pip's isolated build stays small and one build serves every torch.
`GEODIFF_CUDA` = AUTO | ON | OFF (default AUTO: on where nvcc is found) and `CMAKE_ARGS` come from the environment.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeExtension(Extension):
    """An extension whose sources, flags and targets are known to CMakeLists.txt alone."""

    def __init__(self, name: str, *, optional: bool = False) -> None:
        super().__init__(name, sources=[], optional=optional)


class CMakeBuild(build_ext):
    """Configures, builds and places the extensions where setuptools wants it: in the source tree for an editable
    install, in the build folder otherwise."""

    def build_extension(self, ext: Extension) -> None:
        if ext.optional:
            return  # CMake has built it beside the first one, or left it out

        import pybind11

        output = (Path.cwd() / self.get_ext_fullpath(ext.name)).resolve().parent
        build = Path(self.build_temp).resolve() / "cmake"
        configuration = "Debug" if self.debug else "Release"
        configure = [
            "cmake",
            "-S",
            str(ROOT),
            "-B",
            str(build),
            "--fresh",  # an isolated build moves ninja and pybind11 each time: cached paths would be stale
            "-G",
            "Ninja",
            f"-DCMAKE_BUILD_TYPE={configuration}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DPython3_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DGEODIFF_CUDA={os.environ.get('GEODIFF_CUDA', 'AUTO')}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        jobs = self.parallel or max(2, os.cpu_count() or 2)
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--parallel", str(jobs)], check=True)


setup(
    packages=[*find_packages(include=["geodiff", "geodiff.*"]), "geodiff.kernels"],
    package_dir={"geodiff.kernels": "kernels"},
    ext_modules=[CMakeExtension("geodiff._cpu"), CMakeExtension("geodiff._cuda", optional=True)],
    cmdclass={"build_ext": CMakeBuild},
)
