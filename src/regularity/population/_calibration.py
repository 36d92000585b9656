"""How many members to train together: by the size of their state, and for long runs by a short trial on the real model."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from regularity.population._program import Program

# A member's weights and moments, times the members of a chunk, should stay in cache: at most some core's share of the
# last one. Measured on dense networks of 64 to 512 units, which are fastest at 2 to 8 MiB.
_CHUNK_BYTES = 4 * 2**20
_MOST_MEMBERS = {"cpu": 32}
_TRIAL_STEPS = 8
_WORTH_FLOPS = 3e12  # about a minute on two cores: a trial costs some seconds of compiling


def chunk_size(program: Program, members: int, lanes: int) -> int:
    """Members of a chunk by the size of their state: as many as stay in cache, in chunks that share the lanes evenly."""
    return _even(_fitting(program), members, lanes)


def _fitting(program: Program) -> int:
    backend = jax.default_backend()
    most = _MOST_MEMBERS.get(backend, 256)
    if backend != "cpu":
        return most
    if program.has_convolutions:
        return 1
    return min(max(_CHUNK_BYTES // max(program.state_bytes, 1), 1), most)


def _even(size: int, members: int, lanes: int) -> int:
    """The size nearest below `size` at which the chunks share the lanes evenly and little is filled up."""
    chunks = -(-members // size)
    if members >= lanes:
        chunks = -(-chunks // lanes) * lanes
    return -(-members // chunks)


def is_worth_a_trial(program: Program, batch_size: int, member_steps: int) -> bool:
    """Whether a run is so long that finding its best chunk pays: by the arithmetic of dense layers."""
    return jax.default_backend() == "cpu" and 6 * program.weight_count * batch_size * member_steps > _WORTH_FLOPS


def calibrated_chunk_size(
    program: Program, members: int, lanes: Sequence[Any], trial: Callable[[int, Any, int], None], signature: str
) -> int:
    """Members of a chunk by a trial of a few sizes around the fitting one, remembered for this model on this machine.

    Args:
        program: What is to train.
        members: How many train.
        lanes: The device of each lane.
        trial: Trains a chunk of a size, on a device, for a number of steps; compiled by its first call.
        signature: What else the best size depends on.
    """
    key = hashlib.sha256(
        f"{signature} {program.signature} {len(lanes)} {platform.processor()} {platform.node()}".encode()
    ).hexdigest()[:24]
    known = _remembered()
    if key not in known:
        fitting = _fitting(program)
        sizes = sorted({min(max(1, fitting * factor // 4), members) for factor in (1, 4, 16)})
        times = {size: _seconds_a_member(size, lanes, trial) for size in sizes}
        known[key] = min(times, key=lambda size: times[size])
        _remember(known)
    return _even(known[key], members, len(lanes))


def _seconds_a_member(size: int, lanes: Sequence[Any], trial: Callable[[int, Any, int], None]) -> float:
    """Time of a step with every lane at work, a member's share of it."""
    with ThreadPoolExecutor(len(lanes)) as threads:
        best = float("inf")
        for attempt in range(4):  # the first compiles
            start = time.perf_counter()
            list(threads.map(lambda device: trial(size, device, _TRIAL_STEPS), lanes))
            if attempt:
                best = min(best, time.perf_counter() - start)
    return best / size


def _file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "regularity", "chunks.json")


def _remembered() -> dict[str, int]:
    try:
        return {str(key): max(int(size), 1) for key, size in json.loads(_file().read_text()).items()}
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError):  # no home, or another's file
        return {}


def _remember(known: dict[str, int]) -> None:
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        partial = _file().with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(known))
        partial.replace(_file())
    except (OSError, RuntimeError):
        pass  # no home, or one that can't be written to: the next run tries again
