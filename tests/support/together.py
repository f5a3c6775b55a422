"""Several processes for tests: forks of this one, so that nothing is loaded twice, with what torchrun tells its own."""

import json
import os
import socket
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch


def environment_of(rank: int, count: int, port: int) -> Mapping[str, str]:
    """What torchrun puts into the environment of a process."""
    return {
        "TORCHELASTIC_RUN_ID": "test",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def together(count: int, folder: Path, work: Callable[[], object]) -> list[object]:
    """What `work` gives (something that JSON can say) in each of several processes."""
    codes = statuses_of(count, folder, work)
    told = [(folder / f"{rank}.err").read_text() for rank in range(count)]
    assert codes == [0] * count, "\n".join(told)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


def statuses_of(count: int, folder: Path, work: Callable[[], object]) -> list[int]:
    """How each process ended: its exit code, or minus the signal that ended it. Their errors are in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    children = [_forked(environment_of(rank, count, port), folder / str(rank), work) for rank in range(count)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _forked(environment: Mapping[str, str], name: Path, work: Callable[[], object]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of threads
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ.update(environment)
        torch.set_num_threads(1)
        result = work()
        name.with_suffix(".json").write_text(json.dumps(result))
        code = 0
    except SystemExit as end:
        code = int(end.code or 0) if not isinstance(end.code, str) else 1
    except BaseException:
        name.with_suffix(".err").write_text(traceback.format_exc())
    finally:
        name.with_suffix(".err").touch()
        os._exit(code)
