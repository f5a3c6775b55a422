"""What every room stands on: progress, files written all or nothing, processes, JSON.

Nothing here knows what a fact is, or loads torch; `processes`, which does, is imported by its own name.
"""

from errata.runtime.codec import (
    NON_FINITE,
    Form,
    JsonMismatch,
    float_from_json,
    float_to_json,
    from_json,
    object_of,
    to_json,
)
from errata.runtime.files import (
    CACHE_VARIABLE,
    WRITING,
    atomic_file,
    atomic_folder,
    cache_root,
    locked,
    refuse_existing,
    remove_parts,
    write_json,
)
from errata.runtime.progress import Pace, Progress, clock, duration, label, silent
from errata.runtime.store import (
    DAMAGED,
    Store,
    TensorFile,
    digest_of,
    disk_errors,
    open_tensors,
    save_tensors,
    write_tensors,
)

__all__ = [
    "CACHE_VARIABLE",
    "DAMAGED",
    "NON_FINITE",
    "WRITING",
    "Form",
    "JsonMismatch",
    "Pace",
    "Progress",
    "Store",
    "TensorFile",
    "atomic_file",
    "atomic_folder",
    "cache_root",
    "clock",
    "digest_of",
    "disk_errors",
    "duration",
    "float_from_json",
    "float_to_json",
    "from_json",
    "label",
    "locked",
    "object_of",
    "open_tensors",
    "refuse_existing",
    "remove_parts",
    "save_tensors",
    "silent",
    "to_json",
    "write_json",
    "write_tensors",
]
