"""Whether the Hugging Face hub can be reached: asked once, so that offline runs do not hang."""

import os
from functools import cache

from errata.runtime import processes

PATIENCE = 3.0
"""Seconds to wait for an answer."""
OFF = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Environment variables by which people say that the hub is not to be asked."""
REFUSED = (403, 407)
"""What a proxy answers that lets nobody through."""


@cache
def hub_answers() -> bool:
    """Whether the hub answers within three seconds; of several processes the main one's answer counts.

    False where the environment says that it is not to be asked.
    """
    return processes.agreed(_asked())


def _asked() -> bool:
    if any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFF):
        return False
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.utils import get_session

    try:
        answer = get_session().head(ENDPOINT, timeout=PATIENCE)
    except Exception:  # whatever the network and the library under the hub's can raise
        return False
    return answer.status_code not in REFUSED
