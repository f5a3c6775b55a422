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

__all__ = [
    "CACHE_VARIABLE",
    "NON_FINITE",
    "WRITING",
    "Form",
    "JsonMismatch",
    "Pace",
    "Progress",
    "atomic_file",
    "atomic_folder",
    "cache_root",
    "clock",
    "duration",
    "float_from_json",
    "float_to_json",
    "from_json",
    "label",
    "locked",
    "object_of",
    "refuse_existing",
    "remove_parts",
    "silent",
    "to_json",
    "write_json",
]
