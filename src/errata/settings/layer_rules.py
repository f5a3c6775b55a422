"""Which layers a model is edited in that nobody has traced: a few rules, by the number of its blocks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

RULE_BLOCKS = 5
"""How many consecutive blocks the rule edits: as many as the published presets of most models."""


def layers_by_rule(layer_count: int) -> tuple[int, ...]:
    """The critical layers of a model that nobody has traced: where the published ones lie.

    Five consecutive blocks from `layer_count / 8` (rounded) on; half of the blocks where there are less than ten.
    Published, and by this rule: of 28 blocks 3-8 and 4-8; of 32 4-8 and 4-8; of 44 6-10 and 6-10; of 48, the one
    that lies deeper, 13-17 and 6-10.
    """
    count = min(RULE_BLOCKS, max(1, layer_count // 2))
    first = min((layer_count + 4) // 8, layer_count - count)
    return tuple(range(first, first + count))


def layer_by_rule(layer_count: int) -> tuple[int, ...]:
    """The one critical layer where a method writes a single one: the second of `layers_by_rule`.

    Published for ROME, and by this rule: of 28 blocks 5 and 5; of 32 5 and 5; of 48, the one that lies deeper, 17 and
    7.
    """
    return layers_by_rule(layer_count)[:2][-1:]


def late_layer_by_rule(layer_count: int) -> tuple[int, ...]:
    """The one layer at seven tenths of the depth: where a block or a map is best trained.

    Published for fine-tuning, and by this rule: of 28 blocks 21 and 19; of 32 22 and 23, and 22; of another 28, the
    one that lies elsewhere, 6 and 19.
    """
    return (layer_count * 7 // 10,)


def last_layers_by_rule(layer_count: int) -> tuple[int, ...]:
    """The last three layers, fewer in a model that has no more: what is published for MEND, for every model."""
    return tuple(range(max(0, layer_count - 3), layer_count))


def read_out_layers_by_rule(layer_count: int) -> tuple[int, ...]:
    """The last three tenths of the blocks, one to five: where answers are read. Tried on Almanac alone."""
    count = min(RULE_BLOCKS, max(1, layer_count * 3 // 10))
    return tuple(range(layer_count - count, layer_count))


@dataclass(frozen=True)
class LayerRule:
    """How the layers of a model without a preset are chosen from the number of its blocks, and that in words."""

    choose: Callable[[int], tuple[int, ...]]
    words: str


_SEVERAL = (
    f"{RULE_BLOCKS} consecutive blocks from one eighth of the depth on, fewer in a model with less than "
    f"{2 * RULE_BLOCKS} blocks"
)
LAYER_RULES: Mapping[str, LayerRule] = {
    "several": LayerRule(layers_by_rule, _SEVERAL),
    "one": LayerRule(layer_by_rule, f"the second of {_SEVERAL}"),
    "late": LayerRule(late_layer_by_rule, "the one at seven tenths of the depth"),
    "last": LayerRule(last_layers_by_rule, "the last three"),
    "read_out": LayerRule(read_out_layers_by_rule, f"the last three tenths, {RULE_BLOCKS} at most"),
}
"""A method names its own in its file of presets."""
