"""Whether the Hugging Face hub can be reached: asked once, so that nobody waits for it offline."""

import os
from functools import cache
from urllib.error import HTTPError
from urllib.request import Request, urlopen

PATIENCE = 3.0
"""Seconds to wait for an answer."""
OFF = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Environment variables by which people say that the hub is not to be asked."""
REFUSED = (403, 407)
"""What a proxy answers that lets nobody through."""


@cache
def hub_answers() -> bool:
    """Whether the hub answers within three seconds; False where the environment says that it is not to be asked."""
    if any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFF):
        return False
    from huggingface_hub.constants import ENDPOINT

    try:
        with urlopen(Request(ENDPOINT, method="HEAD"), timeout=PATIENCE):
            return True
    except HTTPError as error:
        return error.code not in REFUSED
    except (OSError, ValueError):
        return False
