"""The channels of each layer, before and after a structure was changed."""

from __future__ import annotations

import keras

from saikei.channels import channel_groups
from saikei.costs import profile
from saikei.runs.candidate import LayerChange


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
    return tuple(
        LayerChange(name, kinds.get(name, ""), len(channels), after[name], group.pinned)
        for group in channel_groups(parent)
        for name, channels in group.blocks.items()
        if name in after
    )
