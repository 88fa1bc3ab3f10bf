"""`saikei profile`: what a model costs, and what of it can be cut."""

from __future__ import annotations

from typing import Annotated

import typer

from saikei.cli.options import InputShape, Json, ModelFile
from saikei.cli.options import input_shape as parsed_shape
from saikei.cli.output import import_keras, say, say_json


def profile(
    model: ModelFile,
    batch_size: Annotated[int, typer.Option(min=1, help="Of the latency.")] = 32,
    latency: Annotated[bool, typer.Option(help="Measure the latency.")] = True,
    input_shape: InputShape = None,
    as_json: Json = False,
) -> None:
    """Show parameters, MACs, memory and latency, layer by layer, and what is pinned and why."""
    import_keras()
    from saikei.channels import channel_groups
    from saikei.costs import profile as profile_model
    from saikei.modelfile import load_model

    shape = parsed_shape(input_shape)
    loaded = load_model(model)
    costs = profile_model(loaded, batch_size, latency, shape)
    groups = channel_groups(loaded)
    if as_json:
        listed = [
            {"name": g.name, "channels": g.size, "layers": g.layers, "pinned": g.pinned}
            for g in groups
        ]
        say_json({**costs.to_dict(), "channel_groups": listed})
        return
    say(f"{costs}\n\n{groups}")
