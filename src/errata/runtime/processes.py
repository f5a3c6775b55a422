"""Several processes that share one job, started by `torchrun`: who is who, and what they tell each other.

Every process holds the whole model and goes through the same code. At a few places the work is dealt out (`share`), and
what each has found is handed to all (`gather`), added up (`sum_in_main`), or decided by the main one (`agreed`). All of
them meet there, so nothing that one process alone does may call these. Without `joined` there is one process, and each
function hands back what it is given. Tensors travel as safetensors, all else as JSON. docs/big-models.md.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import TypeVar, cast

import torch
from safetensors.torch import load, save
from torch import Tensor, distributed

from errata.errors import ProcessLost

T = TypeVar("T")
PATIENCE = timedelta(days=30)
"""How long a process waits for the others, which may have facts that take longer: one that dies is noticed at once."""
LOST = "Another process of this run has ended, or torchrun was stopped."


@dataclass
class _State:
    """How this process stands to others."""

    joined: bool = False
    told: bool = False
    """It was told to end."""


_state = _State()


def started_together(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun has started this process beside others."""
    return "TORCHELASTIC_RUN_ID" in environment and int(environment.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined() -> Generator[None]:
    """Inside, the processes that torchrun has started share their work; all of them must do the same.

    Raises:
        ProcessLost: another process has ended, or this one is told to end.
    """
    if not started_together() or _state.joined:
        yield
        return
    with _ended_by_signal():
        with _lost_told():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            distributed.init_process_group(backend, timeout=PATIENCE)
        _state.joined = True
        try:
            yield
            barrier()
        finally:
            _state.joined = False
            distributed.destroy_process_group()


def count() -> int:
    """How many processes share the work."""
    return distributed.get_world_size() if _state.joined else 1


def rank() -> int:
    """The number of this one."""
    return distributed.get_rank() if _state.joined else 0


def is_main() -> bool:
    """Whether this is the process that writes files and speaks."""
    return rank() == 0


def told_to_end() -> bool:
    """Whether torchrun wants this process to end, as another one has ended."""
    return _state.told


def own_device(device: str) -> str:
    """ "cuda" means a GPU of each process's own."""
    if count() == 1 or device != "cuda":
        return device
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % max(1, torch.cuda.device_count())}"


def share(items: Sequence[T]) -> Sequence[T]:
    """What is this process's of some items, as every process has them; one in `count`, so that sorted ones mix."""
    return items[rank() :: count()]


def gather(value: T) -> list[T]:
    """What each process has, in their order; JSON values, of which tuples arrive as lists."""
    if count() == 1:
        return [value]
    return [json.loads(part) for part in _gather_bytes(json.dumps(value).encode())]


def gather_shares(found: Mapping[int, T]) -> dict[int, T]:
    """What all processes have found, by index; JSON values."""
    if count() == 1:
        return dict(found)
    parts = gather([[index, value] for index, value in found.items()])
    return {cast(int, index): cast(T, value) for part in parts for index, value in part}


def gather_tensors(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """What each process has, in their order, on the CPU."""
    if count() == 1:
        return [dict(tensors)]
    return [load(part) for part in _gather_bytes(_as_bytes(tensors))]


def agreed(value: T) -> T:
    """What the main process says; a JSON value, of which tuples arrive as lists."""
    return value if count() == 1 else json.loads(_bytes_of_main(json.dumps(value).encode()))


def tensors_of_main(make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What the main process makes; elsewhere on the CPU."""
    if count() == 1:
        return dict(make())
    if not is_main():
        return load(_bytes_of_main(b""))
    made = dict(make())
    _bytes_of_main(_as_bytes(made))
    return made


def sum_in_main(tensor: Tensor) -> Tensor:
    """The main process's tensor becomes the sum over all processes; theirs become 0."""
    if count() == 1:
        return tensor
    with _lost_told():
        distributed.reduce(tensor, dst=0)
    return tensor if is_main() else tensor.zero_()


def barrier() -> None:
    """Wait until every process is here."""
    gather(None)


def _as_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _gather_bytes(own: bytes) -> list[bytes]:
    with _lost_told():
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(count())]
        distributed.all_gather(sizes, torch.tensor([len(own)]))
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(own)] = torch.frombuffer(bytearray(own), dtype=torch.uint8)
        parts = [torch.empty(longest, dtype=torch.uint8) for _ in sizes]
        distributed.all_gather(parts, padded)
    return [part[: int(size)].numpy().tobytes() for part, size in zip(parts, sizes, strict=True)]


def _bytes_of_main(own: bytes) -> bytes:
    with _lost_told():
        size = torch.tensor([len(own)])
        distributed.broadcast(size, src=0)
        whole = torch.zeros(int(size), dtype=torch.uint8)
        if is_main():
            whole = torch.frombuffer(bytearray(own), dtype=torch.uint8)
        distributed.broadcast(whole, src=0)
    return whole.numpy().tobytes()


@contextmanager
def _lost_told() -> Generator[None]:
    """A connection that breaks is a process that has ended."""
    try:
        yield
    except distributed.DistError as error:
        raise ProcessLost(LOST) from error
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in ("connection", "gloo", "nccl", "peer")):
            raise
        raise ProcessLost(LOST) from error


@contextmanager
def _ended_by_signal() -> Generator[None]:
    """torchrun tells the others with SIGTERM when one process has ended: an error here, so that all is tidied up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _state.told = True
        if sys.exc_info()[0] is None:
            raise ProcessLost(LOST)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if sys.exc_info()[0] is None:  # otherwise there is still an error to tell: `told_to_end`
            signal.signal(signal.SIGTERM, before)
