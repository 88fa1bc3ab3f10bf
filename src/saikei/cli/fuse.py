"""`saikei fuse`: several models as one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saikei.cli.options import Json, Overwrite, number
from saikei.cli.output import import_keras, say, say_json
from saikei.errors import InputError

if TYPE_CHECKING:
    from saikei.fusion.average import Weights


def fuse(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL.keras…", help="Two or more.")],
    out: Annotated[Path, typer.Option(help="The fused model, a .keras file.")],
    weights: Annotated[
        str, typer.Option(help="equal, learn (needs --data), or numbers: 0.3,0.7.")
    ] = "equal",
    data: Annotated[
        Path | None,
        typer.Option(
            help="An .npz with x_val, y_val that no model was trained on (x_test, y_test scores)."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Average the outputs of models with the same inputs and outputs into one model."""
    import_keras()
    from saikei.costs import profile
    from saikei.data import load_npz
    from saikei.fusion import Average
    from saikei.modelfile import check_target, load_model, save_model
    from saikei.training import evaluate

    check_target(out, ".keras", overwrite)
    splits = load_npz(data) if data is not None else None
    chosen = _weights(weights)
    if chosen == "learn" and (splits is None or splits.validation is None):
        raise InputError(
            "--weights learn needs --data with x_val and y_val that no model was trained on."
        )
    members = [load_model(path) for path in models]
    held_out = splits.validation if splits is not None else None
    fitted = None
    if chosen == "learn":
        fitted = Average.fit(members, held_out)
        chosen = tuple(fitted.values)
    fused = Average(chosen)(members)
    save_model(fused, out, overwrite)
    costs = profile(fused, latency=False)
    score = evaluate(fused, splits.test) if splits is not None and splits.test else None
    if as_json:
        say_json(
            {
                "out": str(out),
                "weights": chosen or [1 / len(members)] * len(members),
                "gap": fitted.gap if fitted else None,
                "params": costs.params,
                "macs": costs.macs,
                "test": score.to_dict() if score else None,
            }
        )
        return
    shown = ", ".join(f"{w:.3f}" for w in chosen) if isinstance(chosen, tuple) else "equal"
    say(f"{out}: weights {shown}; {costs.params:,} parameters, {costs.macs:,} MACs.")
    if score is not None:
        say(f"On test: {score}.")


def _weights(text: str) -> Weights:
    if text == "equal":
        return None
    if text == "learn":
        return "learn"
    return tuple(float(number(part.strip(), "--weights")) for part in text.split(","))
