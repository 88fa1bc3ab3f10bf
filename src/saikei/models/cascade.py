"""The model of a cascade: later members run only on the rows that need them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.errors import DataError, FusionError, ModelError
from saikei.models.exits import Exits, check_thresholds
from saikei.models.stages import batches_of, run_stages
from saikei.tensors import to_known

Array = np.ndarray[Any, np.dtype[Any]]


@keras.saving.register_keras_serializable(package="saikei", name="Cascade")
class CascadeModel(keras.Model):
    """Members in order, with exits between them; made by `saikei.Cascade`.

    `predict`, `predict_on_batch` and `evaluate` run each member only on the rows that have not
    left before it. Called as a function, or exported, it is one graph, and a graph computes whole
    batches: a member is skipped when all rows of the batch have left, which for a batch of one is
    the same. All of these give the same outputs up to rounding. In the graph that edits,
    `saikei.profile` and `saikei.graph.copy_model` read, all members run.

    To load a saved cascade, `saikei.models` has to be imported; `saikei.Cascade` and
    `saikei.modelfile.load_model` import it. `saikei.graph.copy_model` makes a plain Keras model of
    it, in which all members run.

    Args:
        members: Functional models with the same inputs and one output each, with distinct names.
        exits: The rule by which rows leave.
        shares: For each member the share of rows that it is expected to see; `None` if unknown.
        name: The name of the model.

    Raises:
        FusionError: When there are not as many thresholds as members but the last.
    """

    # `call` computes the same as the graph of layers, in which all members run.
    computes_its_graph = True

    def __init__(
        self,
        members: Sequence[keras.Model],
        exits: Exits,
        shares: Sequence[float] | None = None,
        name: str = "cascade",
        **kwargs: Any,
    ) -> None:
        check_thresholds(exits.thresholds, len(members))
        inputs = tree.map_structure(
            lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name),
            members[0].input,
        )
        outputs = tuple(tree.flatten(member(inputs))[0] for member in members)
        dtype = keras.backend.result_type(*(output.dtype for output in outputs))
        selected = select(exits, [keras.ops.cast(output, dtype) for output in outputs])
        packed = tree.pack_sequence_as(members[0].output, [selected])
        super().__init__(inputs, packed, name=name, **kwargs)
        self.members = list(members)
        self.exits = exits
        self.shares = None if shares is None else tuple(float(share) for share in shares)
        self._score_as: Any = None

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:  # noqa: ARG002
        """Run member after member until all rows of the batch have left.

        Args:
            inputs: Tensors, nested as the members take them.
            training: Ignored; a cascade is not trained, so members always run as in inference.
            mask: Has no effect; Keras passes it.
        """
        return self._packed(self._from_stage(0, inputs, (), None))

    def _from_stage(self, stage: int, inputs: Any, earlier: tuple[Any, ...], gone: Any) -> Any:
        """The output of the cascade from a stage on; for rows that left before, it is not used.

        Args:
            stage: The index of the member that runs.
            inputs: The inputs of the whole batch.
            earlier: The outputs of the members before it.
            gone: Whether each row has left before, booleans `(batch,)`; `None` at the first stage.
        """
        (output,) = tree.flatten(self.members[stage](inputs, training=False))
        outputs = (*earlier, keras.ops.cast(output, self.outputs[0].dtype))
        output = self.exits.output(outputs)
        if stage == len(self.members) - 1:
            return output
        leaves = self.exits.leaves(outputs)
        gone = leaves if gone is None else keras.ops.logical_or(gone, leaves)
        later = keras.ops.cond(
            keras.ops.all(gone),
            lambda: output,
            lambda: self._from_stage(stage + 1, inputs, outputs, gone),
        )
        return keras.ops.where(leaves[:, None], output, later)

    def _packed(self, output: Any) -> Any:
        return tree.pack_sequence_as(self.output, [output])

    def predict_stages(self, x: Any, batch_size: int | None = None) -> tuple[Array, Array]:
        """Outputs, and the stage at which each row left.

        Args:
            x: Arrays as the members take them, one sample a row.
            batch_size: Rows in a batch of a member; 32 when not given.

        Returns:
            Outputs `(n, …)`, and stages, int `(n,)`: the index of the last member that has run.

        Raises:
            DataError: When there are no rows.
        """
        dtype = self.outputs[0].dtype
        return run_stages(self.members, self.exits, x, batch_size or 32, dtype)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",  # noqa: ARG002 - Keras's signature
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """Outputs of every row; later members run only on the rows that need them.

        Args:
            x: Arrays, or a dataset that `keras.Model.predict` takes.
            batch_size: Rows in a batch of a member, for arrays; 32 when not given.
            verbose: Ignored; there is no progress bar.
            steps: Batches to take of a dataset; all when not given.
            callbacks: Not supported: an error unless `None`.

        Raises:
            DataError: When there are no rows.
            FusionError: When there are callbacks.
        """
        if callbacks:
            raise FusionError("A cascade's predict calls no callbacks: leave them out.")
        parts = [
            self.predict_stages(batch, size)[0]
            for batch, _, _, size in batches_of(x, None, None, batch_size, steps)
        ]
        if not parts:
            raise DataError("The dataset is empty: give at least one batch.")
        return self._packed(np.concatenate(parts))

    def predict_on_batch(self, x: Any) -> Any:
        """Outputs of one batch; later members run only on the rows that need them.

        Args:
            x: Arrays as the members take them.
        """
        return self._packed(self.predict_stages(x, len(tree.flatten(x)[0]) or 1)[0])

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Set what `evaluate` measures; the arguments are those of `keras.Model.compile`."""
        judged = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        super().compile(optimizer, **judged, **kwargs)
        # Not as a dict: Keras would take the metrics in it for layers of the model.
        self._score_as = partial(dict, judged)

    def get_compile_config(self) -> Any:
        """What the model was compiled with, as Keras saves it."""
        return super().get_compile_config()

    def compile_from_config(self, config: Any) -> None:
        """The inverse of `get_compile_config`."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Loss and metrics as compiled, of the outputs of `predict`.

        The arguments and what is returned are those of `keras.Model.evaluate`.

        Raises:
            ModelError: When the model is not compiled.
        """
        if self._score_as is None:
            raise ModelError(
                f"Model '{self.name}' is not compiled, so there is nothing to measure: call "
                "compile(loss=…, metrics=…), or use saikei.evaluate."
            )
        outputs, labels, weights = [], [], []
        for batch, truth, weight, size in batches_of(x, y, sample_weight, batch_size, steps):
            outputs.append(self.predict_stages(batch, size)[0])
            labels.append(to_known(tree.flatten(truth)[0]))
            if weight is not None:
                weights.append(to_known(weight))
        judge = keras.Sequential([keras.Input(outputs[0].shape[1:]), keras.layers.Identity()])
        judge.compile(**self._score_as())
        return judge.evaluate(
            np.concatenate(outputs),
            np.concatenate(labels),
            batch_size=batch_size,
            verbose=verbose,
            sample_weight=np.concatenate(weights) if weights else None,
            callbacks=callbacks,
            return_dict=return_dict,
            **kwargs,
        )

    def fit(self, *_: Any, **__: Any) -> Any:
        """Refused: exits have no gradient.

        Raises:
            FusionError: Always.
        """
        raise FusionError(
            "A cascade is not trained as a whole: train its members, then fuse them again."
        )

    def export(self, filepath: Any, format: str = "tf_saved_model", **kwargs: Any) -> None:  # noqa: A002
        """Export as one graph, in which a member is skipped when the whole batch has left.

        In ONNX, LiteRT, OpenVINO and SavedModel that is an `If` (from JAX, a `Case`).

        Args:
            filepath: The path of the file or folder to write.
            format: The format, as in `keras.Model.export`.
            **kwargs: Further arguments of `keras.Model.export`.

        Raises:
            ModelError: On the torch backend, whose exporters follow no branch.
        """
        if keras.config.backend() == "torch":
            raise ModelError(
                f"Cascade '{self.name}' cannot be exported to {format} from torch, whose exporters "
                "follow no branch: use KERAS_BACKEND=tensorflow, or export "
                "saikei.graph.copy_model(cascade), which runs all members."
            )
        # Some exporters want a model that has been called.
        self(tree.map_structure(lambda t: keras.KerasTensor(t.shape, t.dtype), self.input))
        super().export(filepath, format=format, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The members, the exits and the shares, as Keras saves them."""
        return {
            "members": [keras.saving.serialize_keras_object(member) for member in self.members],
            "exits": self.exits.to_dict(),
            "shares": None if self.shares is None else list(self.shares),
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> CascadeModel:
        """The inverse of `get_config`."""
        config = dict(config)
        members = [
            keras.saving.deserialize_keras_object(member, custom_objects=custom_objects)
            for member in config.pop("members")
        ]
        return cls(members, Exits.from_dict(config.pop("exits")), **config)


def select(exits: Exits, outputs: Sequence[Any]) -> Any:
    """The output of a cascade of which all members have run, in a graph.

    Args:
        exits: The rule by which rows leave.
        outputs: One symbolic tensor `(batch, classes)` for each member, all of one type.
    """
    averages = exits.combine == "average"
    stages = [
        keras.layers.Average()(outputs[:count]) if averages and count > 1 else outputs[count - 1]
        for count in range(1, len(outputs) + 1)
    ]
    result = stages[-1]
    for count in range(len(outputs) - 1, 0, -1):
        result = keras.ops.where(exits.leaves(outputs[:count])[:, None], stages[count - 1], result)
    return result
