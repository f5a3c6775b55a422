"""A causal language model that can be looked into and written to: families, loading, sites, fingerprints,
and the ledger through which every weight is written.

`architectures.py` is the only file that names model families.
"""

from errata.models.architectures import ARCHITECTURES, Architecture, architecture_for
from errata.models.bypass import bypassed, cache_rows, fresh, hold, hollow, layers_of
from errata.models.family_table import FAMILY_TABLE, FamilyRow, family_rows
from errata.models.fingerprint import fingerprint_of
from errata.models.ledger import Ledger
from errata.models.loading import (
    ALMANAC,
    DTYPES,
    almanac_folder,
    architecture_of,
    from_parts,
    load,
    load_without_weights,
    read_config,
)
from errata.models.model import (
    SHORTEST,
    Change,
    EditableModel,
    Measured,
    Passes,
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
    "FAMILY_TABLE",
    "SHORTEST",
    "Architecture",
    "Change",
    "EditableModel",
    "FamilyRow",
    "Ledger",
    "Measured",
    "Passes",
    "Site",
    "StopForward",
    "Tokens",
    "Where",
    "almanac_folder",
    "architecture_for",
    "architecture_of",
    "bypassed",
    "cache_rows",
    "device_of",
    "family_rows",
    "fingerprint_of",
    "fresh",
    "from_parts",
    "hold",
    "hollow",
    "layers_of",
    "load",
    "load_without_weights",
    "read_config",
    "solving_device",
]
