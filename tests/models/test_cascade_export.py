"""A cascade as one graph: in it, members are skipped when the whole batch has left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from saikei import Cascade
from saikei.errors import ModelError
from saikei.models import CascadeModel
from tests.fusion.cascade_nets import members, predicted, rows

needs_tensorflow = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="exports from TensorFlow"
)


def cascade() -> CascadeModel:
    made: CascadeModel = Cascade(thresholds=(0.7, 0.6))(members())
    return made


@pytest.mark.skipif(keras.config.backend() == "jax", reason="JAX traces both branches")
def test_a_call_skips_members_when_the_whole_batch_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, model = rows(64), cascade()
    stages = model.predict_stages(x)[1]
    ran: list[str] = []
    for one in model.members:

        def watched(*args: Any, one: Any = one, run: Any = one.call, **kwargs: Any) -> Any:
            ran.append(one.name)
            return run(*args, **kwargs)

        monkeypatch.setattr(one, "call", watched)
    for place in range(3):
        ran.clear()
        model(x[stages <= place])
        assert ran == [one.name for one in model.members[: place + 1]]


@needs_tensorflow
def test_a_saved_model_has_a_branch_and_predicts_the_same(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    x, model = rows(40), cascade()
    model.export(tmp_path / "cascade", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "cascade"))
    for batch in (x, x[:1], x[7:9]):
        np.testing.assert_allclose(loaded.serve(batch).numpy(), predicted(model, batch), atol=1e-6)
    graph = loaded.signatures["serving_default"].graph.as_graph_def()
    kinds = {node.op for part in graph.library.function for node in part.node_def}
    assert kinds & {"If", "StatelessIf"}


@needs_tensorflow
def test_onnx_has_a_branch_and_predicts_the_same(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    x, model = rows(40), cascade()
    path = str(tmp_path / "cascade.onnx")
    model.export(path, format="onnx", verbose=False)
    assert "If" in {node.op_type for node in onnx.load(path).graph.node}
    session = runtime.InferenceSession(path)
    for batch in (x, x[:1], x[7:9]):
        (out,) = session.run(None, {session.get_inputs()[0].name: batch})
        np.testing.assert_allclose(out, predicted(model, batch), atol=1e-5)


@needs_tensorflow
@pytest.mark.slow
def test_litert_has_a_branch_and_predicts_the_same(tmp_path: Path) -> None:
    lite = pytest.importorskip("tensorflow").lite
    x, model = rows(40), cascade()
    path = str(tmp_path / "cascade.tflite")
    model.export(path, format="litert", verbose=False)
    with pytest.warns(UserWarning, match="LiteRT"):
        interpreter = lite.Interpreter(path)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    for row in range(len(x)):
        interpreter.set_tensor(taken["index"], x[row : row + 1])
        interpreter.invoke()
        np.testing.assert_allclose(
            interpreter.get_tensor(given["index"]), predicted(model, x[row : row + 1]), atol=1e-5
        )
    assert "IF" in {one["op_name"] for one in interpreter._get_ops_details()}


@pytest.mark.skipif(keras.config.backend() != "torch", reason="what torch cannot")
def test_from_torch_a_cascade_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="runs all members"):
        cascade().export(tmp_path / "cascade.onnx", format="onnx")
