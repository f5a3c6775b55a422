"""The environment that every test sees, whatever the machine's and the user's is. Importing this module sets it up.

Nothing may depend on the user's caches, network, terminal, language, time zone or accelerators, nor on what the user
has set for Errata. What is here is passed on to the programs that tests start.
"""

import atexit
import os
import shutil
import tempfile
import time
from pathlib import Path

THREADS = "ERRATA_TEST_THREADS"
"""How many threads a matrix product may take in tests; 1 by default, as the tiny models are too small for two."""
HOME = "ERRATA_TEST_HOME"
"""The home directory of the whole run, which the processes of xdist share."""
FOREIGN = ("ERRATA_", "HF_", "TRANSFORMERS_", "XDG_", "CLICOLOR", "WANDB_", "TRACKIO_", "ACCELERATE_")
"""The beginnings of variables that are dropped."""
DROPPED = (
    "NO_COLOR",
    "FORCE_COLOR",
    "TTY_COMPATIBLE",
    "LINES",
    "LANGUAGE",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
)
PINNED = {
    "COLUMNS": "100",
    "TERM": "dumb",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PYTHONUTF8": "1",
    "TZ": "UTC",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_WAIT_POLICY": "PASSIVE",
}
KEPT = (THREADS, HOME, "ERRATA_GOLDENS")


def pin() -> None:
    """Set the environment, before torch and transformers are imported: they read some of it then."""
    for name in list(os.environ):
        if name in DROPPED or (name.startswith(FOREIGN) and name not in KEPT):
            del os.environ[name]
    home = os.environ.get(HOME)
    if home is None or not Path(home).is_dir():
        home = tempfile.mkdtemp(prefix="errata-tests-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ.update(PINNED)
    os.environ.update({HOME: home, "HOME": home, "USERPROFILE": home, "HF_HOME": str(Path(home) / "hub")})
    if hasattr(time, "tzset"):  # not on Windows
        time.tzset()


def threads() -> int:
    """How many threads the tests compute with."""
    return int(os.environ.get(THREADS, "1"))


pin()
