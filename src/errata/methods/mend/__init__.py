"""MEND (Mitchell et al., ICLR 2022): a trained editor that turns the gradient of the facts into an edit."""

from errata.methods.mend.method import METHOD, MendSettings
from errata.methods.mend.store import TrainedEditor
from errata.methods.mend.trainer import train_editor

__all__ = ["METHOD", "MendSettings", "TrainedEditor", "train_editor"]
