"""`saikei profile`: the costs of a model, and which of its channels can be cut."""

from __future__ import annotations

from typing import Annotated

import typer

from saikei.cli.options import InputShape, Json, ModelFile, refuse_typed
from saikei.cli.options import input_shape as parsed_shape
from saikei.cli.output import import_keras, print_json, print_text


def profile(
    context: typer.Context,
    model: ModelFile,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Samples in the batch whose latency is measured.")
    ] = 32,
    latency: Annotated[
        bool, typer.Option(help="Measure the latency: the median time of a batch.")
    ] = True,
    input_shape: InputShape = None,
    as_json: Json = False,
) -> None:
    """Show costs layer by layer, and which channels can only be cut together or not at all."""
    if not latency:
        refuse_typed(context, ["batch_size"], "it is the batch of the latency; omit --no-latency.")
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
        print_json({**costs.to_dict(), "channel_groups": listed})
        return
    print_text(f"{costs}\n\n{groups}")
