"""The cache of compiled programs, for entry points: a second start of the same run compiles nothing."""

import hashlib
import os
import platform
from pathlib import Path

from cgcnn_jax.files import user_cache


def keep_compiled_programs() -> Path | None:
    """Keeps what jax compiles in the user's cache folder. Call before jax is imported.

    CGCNN_JAX_COMPILED names another folder, or none to keep nothing; jax's own JAX_COMPILATION_CACHE_DIR goes first.

    Returns:
      The folder, None if nothing is kept or jax decides.
    """
    wanted = os.environ.get("CGCNN_JAX_COMPILED", "")
    if wanted == "none" or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    # Programs are made for one kind of processor; a home folder may serve several.
    folder = (Path(wanted).expanduser() if wanted else user_cache() / "compiled") / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home folder that cannot be written to costs time, nothing else
        return None
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    # Small programs too: a run has about sixty, 3 s in all, of the initial weights above all.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    # For every program it finds, XLA for CPUs prints pages about preferences it takes for missing instructions. What
    # really goes wrong in XLA reaches Python as an exception.
    # 1 is what jax sets itself, and what the children of a process with jax inherit.
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    return folder


def _processor() -> str:
    """A name for the kind of processor: its model and instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = [platform.processor(), platform.version()]
    kept = [
        line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")) or ":" not in line
    ]
    return f"{platform.machine()}-{hashlib.sha256(chr(10).join(kept).encode()).hexdigest()[:12]}"
