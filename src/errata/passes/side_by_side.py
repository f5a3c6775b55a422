"""Batches side by side on a CPU: each in a thread of its own, with a model of its own that shares all weights.

The matrices of a batch are too small for two threads to share one product well, but two batches never wait for each
other. Hooks and bypassed blocks belong to a model object, so every worker has one; the tensors in them are the same.
"""

import copy
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from queue import SimpleQueue
from typing import Generic, TypeVar

import torch

from errata.models import EditableModel

MOST = 4
"""Workers: with more of them the memory that batches take at once grows faster than the speed."""

T = TypeVar("T")
R = TypeVar("R")


class Abandoned(Exception):
    """The run has ended while this worker was still busy."""


def workers_for(model: EditableModel, batches: int) -> int:
    """How many batches run side by side: as many as PyTorch has threads, on a CPU; elsewhere one."""
    alone = model.device.type != "cpu" or getattr(model.model, "hf_device_map", None) is not None
    return 1 if alone else max(1, min(MOST, torch.get_num_threads(), batches))


@contextmanager
def side_by_side(
    model: EditableModel, workers: int, work: Callable[[EditableModel, T], R]
) -> Generator[Callable[[Sequence[T]], Iterable[tuple[T, R]]]]:
    """While inside, what is given runs `work` over some jobs, and yields each with its result as it is done.

    With one worker everything happens here, in order, on `model` itself. A run that ends early does not wait for its
    workers longer than until their next pass.
    """
    if workers == 1:
        yield lambda jobs: ((job, work(model, job)) for job in jobs)
        return
    ended = threading.Event()
    models: SimpleQueue[EditableModel] = SimpleQueue()
    for _ in range(workers):
        models.put(_sharing(model, ended))
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))
    pool = ThreadPoolExecutor(
        workers, initializer=torch.set_num_threads, initargs=(max(1, threads // workers),)
    )
    try:
        yield _Crew(workers, work, models, pool).run
    finally:
        ended.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Crew(Generic[T, R]):
    """Workers of one pool: each takes a model of its own while it does a job."""

    workers: int
    work: Callable[[EditableModel, T], R]
    models: "SimpleQueue[EditableModel]"
    pool: ThreadPoolExecutor

    def run(self, jobs: Sequence[T]) -> Iterable[tuple[T, R]]:
        """Each job with its result, as it is done; no more jobs are begun than there are workers."""
        running: dict[Future[R], T] = {}
        left = iter(jobs)
        while True:
            for job in left:
                running[self.pool.submit(self._do, job)] = job
                if len(running) == self.workers:
                    break
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future.result()

    def _do(self, job: T) -> R:
        own = self.models.get()
        try:
            return self.work(own, job)
        finally:
            self.models.put(own)


def _sharing(model: EditableModel, ended: threading.Event) -> EditableModel:
    """A model of the same tensors whose modules are its own; it runs no further once `ended` is set."""

    def check(*_: object) -> None:
        if ended.is_set():
            raise Abandoned

    tensors = chain(model.model.parameters(), model.model.buffers())
    own = copy.deepcopy(model.model, {id(tensor): tensor for tensor in tensors})
    own.register_forward_pre_hook(check)
    return replace(model, model=own)
