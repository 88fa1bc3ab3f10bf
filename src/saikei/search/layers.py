"""The channels of each layer, before and after a structure was changed."""

from __future__ import annotations

import keras

from saikei.channels import channel_groups
from saikei.costs import profile
from saikei.runs.candidate import LayerChange

# What `ReplaceActivation` adds to the name of a layer whose activation becomes one of its own.
_APART = "_linear"


def layer_changes(parent: keras.Model, model: keras.Model) -> tuple[LayerChange, ...]:
    """Number of output channels of each layer, in the parent and in the model made from it.

    Args:
        parent: The model before.
        model: The model after.
    """
    kinds = {layer.name: layer.kind for layer in profile(parent, latency=False).layers}
    after = {
        name: len(channels)
        for group in channel_groups(model)
        for name, channels in group.blocks.items()
    }
    # Where an activation became a layer of its own, that has the name.
    after |= {name.removesuffix(_APART): kept for name, kept in after.items()}
    return tuple(
        LayerChange(name, kinds.get(name, ""), len(channels), after[name], group.pinned)
        for group in channel_groups(parent)
        for name, channels in group.blocks.items()
        if name in after
    )
