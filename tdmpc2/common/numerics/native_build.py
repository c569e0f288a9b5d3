"""Build of the suite's C++ kernels for this machine, with the compiler of `torch.compile`."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import torch

from tdmpc2.common.numerics.cpu import cpu_flags
from tdmpc2.common.system.atomic_files import sha256_of, write_text
from tdmpc2.common.system.paths import cache_dir, code_folder

HEADERS = Path(__file__).parents[2] / "kernels"  # folder of the shared header files


def compiler() -> str | None:
    """Return the path of the C++ compiler, `$CXX` or g++; None if there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))


@functools.cache
def compiler_version() -> str | None:
    """Return the first line of the compiler's `--version`; None if there is no compiler."""
    path = compiler()
    if path is None:
        return None
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0] or None


def build(source: Path) -> Path:
    """Return the shared library of a C++ file; compile it unless the cache contains it.

    The cache key covers the sources, the torch and compiler versions and the CPU's instruction
    sets. A damaged library, and one that another user may have written, is compiled again.

    Raises:
        FileNotFoundError: there is no compiler.
        OSError: the cache folder cannot be written.
        subprocess.CalledProcessError: compilation failed; `stderr` contains the messages.
    """
    if compiler() is None:
        raise FileNotFoundError("no C++ compiler (g++) found")
    headers = sorted({*HEADERS.glob("*.h"), *source.parent.glob("*.h")})
    texts = [path.read_text(encoding="utf-8") for path in (source, *headers)]
    facts = [*texts, torch.__version__, str(compiler_version()), *cpu_flags()]
    key = hashlib.sha256("\n".join([*facts, *_command(source, "")]).encode()).hexdigest()[:16]
    name = f"native-{os.getuid()}"  # the cache may be shared
    folder = code_folder(cache_dir() / name, Path(tempfile.gettempdir()) / f"tdmpc2-{name}")
    library = folder / f"{source.stem}-{key}.so"
    if not _is_intact(library):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            target = Path(scratch) / library.name
            command = _command(source, str(target))
            subprocess.run(command, capture_output=True, text=True, check=True)
            target.chmod(0o755)
            with open(target, "rb") as file:
                os.fsync(file.fileno())
            # The checksum comes first: without its library it is not used.
            write_text(_checksum_file(library), sha256_of(target) + "\n")
            os.replace(target, library)
    return library


def _checksum_file(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _is_intact(library: Path) -> bool:
    """Return whether the cache holds a library, whole, that only this user or root can write.

    A truncated library would end the process when it is used, and one of another user would run
    that user's code.
    """
    try:
        stat, recorded = library.stat(), _checksum_file(library).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return False
    if stat.st_uid not in (os.getuid(), 0) or stat.st_mode & 0o022:
        return False
    return sha256_of(library) == recorded


def load(source: Path) -> bool:
    """Load the operations of a C++ file into torch; build it first if necessary.

    Returns:
        Whether the operations are available. If not, a warning states the reason.
    """
    try:
        torch.ops.load_library(build(source))
    except (OSError, subprocess.CalledProcessError) as error:
        messages = getattr(error, "stderr", None) or ""
        lines = [line for line in messages.splitlines() if "error" in line]
        lines += [str(error.__cause__ or error)]
        warnings.warn(
            f"native kernel not built ({lines[0]}); continuing without it, more slowly",
            RuntimeWarning,
            stacklevel=3,
        )
        return False
    return True


def _command(source: Path, target: str) -> list[str]:
    from torch.utils import cpp_extension  # imports setuptools

    capability = torch.backends.cpu.get_cpu_capability()
    return [
        compiler() or "",
        *("-O3", "-std=c++20", "-march=native", "-fPIC", "-shared", "-fopenmp", "-Wno-psabi"),
        *(f"-DCPU_CAPABILITY={capability}", f"-DCPU_CAPABILITY_{capability}"),
        *(f"-I{folder}" for folder in (HEADERS, *cpp_extension.include_paths("cpu"))),
        str(source),
        *("-o", target),
        *(f"-L{folder}" for folder in cpp_extension.library_paths("cpu")),
        *("-lc10", "-ltorch_cpu", "-ltorch"),
    ]
