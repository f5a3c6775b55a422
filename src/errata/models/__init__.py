"""A causal language model that can be looked into and written to: families, loading, sites, fingerprints,
and the ledger through which every weight is written.

`architectures.py` is the only file that names model families.
"""

from errata.models.architectures import ARCHITECTURES, Architecture, architecture_for
from errata.models.fingerprint import fingerprint_of
from errata.models.ledger import Ledger
from errata.models.loading import (
    ALMANAC,
    DTYPES,
    almanac_folder,
    from_parts,
    load,
    load_without_weights,
    read_config,
)
from errata.models.model import (
    SHORTEST,
    Change,
    EditableModel,
    StopForward,
    Tokens,
    Where,
)
from errata.models.offload import device_of
from errata.models.sites import Site, solving_device

__all__ = [
    "ALMANAC",
    "ARCHITECTURES",
    "DTYPES",
    "SHORTEST",
    "Architecture",
    "Change",
    "EditableModel",
    "Ledger",
    "Site",
    "StopForward",
    "Tokens",
    "Where",
    "almanac_folder",
    "architecture_for",
    "device_of",
    "fingerprint_of",
    "from_parts",
    "load",
    "load_without_weights",
    "read_config",
    "solving_device",
]
