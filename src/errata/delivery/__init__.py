"""What leaves the house and what comes in: LoRA adapters, plain weight differences, model cards."""

from errata.delivery.adapters import DIFF, Cut, cut, share_lost
from errata.delivery.exchange import from_peft, to_peft, to_weights

__all__ = ["DIFF", "Cut", "cut", "from_peft", "share_lost", "to_peft", "to_weights"]
