"""`saikei fuse`: several models as one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saikei.cli.data import optional_data
from saikei.cli.options import DivideBy, Json, Label, Overwrite, number, refuse_typed
from saikei.cli.output import import_keras, print_json, print_text
from saikei.errors import InputError

if TYPE_CHECKING:
    from saikei.fusion import Fusion
    from saikei.fusion.base import Fitted
    from saikei.npz import Archive


def fuse(
    context: typer.Context,
    models: Annotated[list[Path], typer.Argument(metavar="MODEL.keras…", help="Two or more.")],
    out: Annotated[Path, typer.Option(help="The fused model, a .keras file.")],
    weights: Annotated[
        str | None,
        typer.Option(
            help="Average them: equal, learn or greedy (with --data), or numbers: 0.3,0.7. "
            "Without it and --with: equal."
        ),
    ] = None,
    with_: Annotated[
        str | None,
        typer.Option(
            "--with",
            help="A fusion as in Python: Stack(), Cascade(cost=0.5), Chain(training='joint'), "
            "Boost(rounds=3), BestMember(), Average('learn', space='logit', calibrate=True).",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="An .npz with x_val, y_val that no model was trained on, to fit to; x_train, "
            "y_train for Chain and Boost, which train (x_test, y_test scores). Or a folder of "
            "images, a table or module:function; one without parts is taken for what is needed."
        ),
    ] = None,
    label: Label = None,
    divide_by: DivideBy = None,
    allow_in_sample: Annotated[
        bool, typer.Option(help="Fit even on rows that a model is known to be trained on.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make one model of several: by an average, a stack, a cascade, a chain or a boosted series."""
    import_keras()
    from saikei.costs import profile
    from saikei.hub import without_preprocessor
    from saikei.modelfile import load_model, save_model
    from saikei.scoring import evaluate
    from saikei.writing import check_target

    check_target(out, ".keras", overwrite)
    fusion = typed_fusion(weights, with_)
    if fusion.data != "held_out":
        reason = f"{type(fusion).__name__} is not fitted to held-out data."
        refuse_typed(context, ["allow_in_sample"], reason)
    tasks = [load_model(path) for path in models]
    splits = optional_data(context, data, tasks[0], label, divide_by, labels=True)
    members = without_preprocessor(tasks)
    _check_data(fusion, splits)
    fitted = _fitted(fusion, members, splits, allow_in_sample)
    fused, is_fitted = fitted.model, fusion.data != "none"
    save_model(fused, out, overwrite)
    costs = profile(fused, latency=False)
    test = splits.test if splits is not None else None
    score = evaluate(fused, with_availabilities(fused, test)) if test else None
    if as_json:
        print_json(
            {
                "out": str(out),
                "fusion": {"name": type(fusion).__name__, **fusion.to_dict()},
                "fitted": fitted.to_dict() if is_fitted else None,
                "params": costs.params,
                "macs": costs.macs,
                "sizes": {name: list(shape) for name, shape in costs.sizes.items()},
                "assumed": list(costs.assumed),
                "test": score.to_dict() if score else None,
            }
        )
        return
    summary = f", {fitted.summary}" if is_fitted and fitted.summary else ""
    print_text(
        f"{out}: {type(fusion).__name__}{summary}; {costs.params:,} parameters, "
        f"{costs.macs:,} MACs{''.join(f'; {note}' for note in costs.size_notes())}."
    )
    if score is not None:
        print_text(f"On test: {score}.")


def typed_fusion(weights: str | None, with_: str | None) -> Fusion:
    """The fusion that was typed, an equal average when none was.

    Raises:
        InputError: When both are given, or one is malformed.
    """
    from saikei.cli.steps import parse_call
    from saikei.fusion import Average, Fusion
    from saikei.fusion.registry import FUSIONS
    from saikei.merging.names import METHODS

    if weights is not None and with_ is not None:
        raise InputError("Give --weights for an average or --with for any fusion, not both.")
    if with_ is not None:
        made = parse_call(with_, {**FUSIONS, **METHODS}, "--with")
        if not isinstance(made, Fusion):
            raise InputError(f'--with {with_!r} is a method of merging: write "Soup({with_}, …)".')
        return made
    if weights is None or weights == "equal":
        return Average()
    if weights == "learn":
        return Average("learn")
    if weights == "greedy":
        return Average("greedy")
    parts = weights.split(",")
    return Average(tuple(float(number(part.strip(), "--weights")) for part in parts))


def _check_data(fusion: Fusion, splits: Archive | None) -> None:
    if fusion.data == "training" and (splits is None or splits.train is None):
        raise InputError(
            f"{type(fusion).__name__} needs --data with x_train and y_train to train on."
        )
    if fusion.data == "held_out" and (splits is None or splits.part("validation") is None):
        raise InputError(
            f"{type(fusion).__name__} is fitted to held-out data: give --data with x_val and "
            "y_val that no model was trained on."
        )


def _fitted(fusion: Fusion, members: list[Any], splits: Any, allow_in_sample: bool) -> Fitted:
    from saikei.fusion.base import TrainedFusion

    if isinstance(fusion, TrainedFusion) and fusion.data == "training":
        return fusion.fuse(members, splits.train, splits.validation)
    held_out = splits.part("validation") if splits is not None else None
    return fusion.fuse(members, held_out, allow_in_sample=allow_in_sample)


def with_availabilities(fused: Any, data: tuple[Any, ...]) -> tuple[Any, ...]:
    """Data with the availability of each input, which a multimodal model takes too.

    Args:
        fused: Any model.
        data: `(x, y)` or `(x, y, sample_weight)`.
    """
    from saikei.fusion import fill_missing
    from saikei.fusion.multimodal.inputs import modalities_of

    x, *rest = data
    if isinstance(x, dict) and modalities_of(fused):
        return fill_missing(fused, x), *rest
    return data
