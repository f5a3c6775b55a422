"""Checks of the blocks that settings name, before anything is computed."""

from typing import Any

from errata.methods import Method
from errata.models import EditableModel
from errata.settings import flatten
from errata.values import place_path


def check_layers(model: EditableModel, settings: object) -> None:
    """Raise where some setting names a block that the model does not have.

    Raises:
        LayerOutOfRange: naming the setting.
    """
    for name, value in flatten(settings).items():
        if name.rpartition(".")[2] == "layers":
            for layer in value:
                model.check_layer(layer, name)


def check_maps(model: EditableModel, method: Method[Any], settings: object) -> None:
    """Raise where a block has no map of a kind that is written, or at which a value stands.

    Raises:
        UnsupportedArchitecture: naming the block.
    """
    for site in method.sites(settings):
        for place in site.values.optimize:
            place_path(model, place, site.layers[-1])
    method.moments(model, settings)
