"""A search over a task of KerasHub, in Python and on the command line."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.cli import main
from saikei.errors import BudgetError

# Warnings of KerasHub's own imports.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
pytest.importorskip("keras_hub", reason="needs the extra 'kerashub'")
from saikei.hub import as_generator  # noqa: E402
from saikei.modelfile import load_model, save_model  # noqa: E402
from tests.hub.small_tasks import M, bert, gpt2  # noqa: E402

TEXTS = ["the thin man", "in the house", "a man is in the house", "the the the"] * 4
OPTIONS: dict[str, Any] = {
    "effort": 3,
    "methods": ["prune"],
    "settings": {"learning_rate": 1e-2, "batch_size": 8},
    "latency": False,
    "progress": False,
}
TYPED = ["--effort", "3", "--methods", "prune", "--set", "learning_rate=0.01"]
TYPED += ["--set", "batch_size=8", "--no-latency", "--quiet"]


@cache
def language_model() -> Any:
    """A GPT-2 of two blocks that has read the texts."""
    keras.utils.set_random_seed(0)
    task = gpt2(num_layers=2, hidden_dim=32)
    sk.fit(task, TEXTS, epochs=2, batch_size=8, learning_rate=1e-2, progress=False)
    task.compile(sampler="greedy")
    return task


def unframed(report: str) -> str:
    """A report on one line, without the frames around its parts."""
    return " ".join(report.replace("│", " ").split())


def test_a_uniform_search_ends_in_the_class_of_the_task(tmp_path: Path) -> None:
    task, folder = language_model(), tmp_path / "run"

    def search() -> Any:
        budget = sk.Budget(params=0.6)
        return sk.optimize(
            task, TEXTS, TEXTS[:8], budget, out=folder, uniform=True, test=TEXTS[8:12], **OPTIONS
        )

    result = search()
    best = result.best
    assert type(best) is type(task) and best.preprocessor is not None
    assert best.backbone.hidden_dim < 32 and best.backbone.num_layers == 2
    assert result.chosen.validation.name == "nats" and result.run.test is not None
    assert best.count_params() == result.chosen.cost.params <= 0.6 * task.count_params()
    shown = unframed(str(result))
    assert "best.keras is a GPT2CausalLM with num_heads=" in shown
    assert f"hidden_dim={best.backbone.hidden_dim}" in shown
    text = best.generate("the thin", max_length=12)
    assert text.startswith("the thin") and best.sampler is task.sampler
    # Its report is made again with texts, which the preprocessor in best.keras reads.
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    assert main(["report", str(folder), "--data", str(tmp_path / "texts.txt")]) == 0
    # The file and the same call again give the same.
    stored = load_model(folder / "best.keras")
    assert type(stored) is type(task)
    assert sk.evaluate(stored, TEXTS) == sk.evaluate(best, TEXTS)
    assert search().best.generate("the thin", max_length=12) == text
    best.save_to_preset(str(tmp_path / "preset"))
    loaded = M.CausalLM.from_preset(str(tmp_path / "preset"))
    loaded.compile(sampler="greedy")
    assert loaded.generate("the thin", max_length=12) == text
    loaded.backbone.enable_lora(2)
    sk.fit(loaded, TEXTS, epochs=1, progress=False, learning_rate=1e-2)
    assert 0 < len(loaded.trainable_weights) < len(best.trainable_weights)
    with pytest.raises(BudgetError, match="cannot be reached"):
        sk.optimize(task, TEXTS, TEXTS, sk.Budget(params=0.001), uniform=True, **OPTIONS)


def test_another_shape_is_a_task_that_generates_as_the_command_line_explains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = language_model()
    task.save(tmp_path / "task.keras")
    x, y, weights = task.preprocessor(TEXTS)
    tokens = np.concatenate([x["token_ids"], y[:, -1:]], axis=1)
    mask = np.concatenate([x["padding_mask"], weights[:, -1:]], axis=1)
    given = {"token_ids": tokens, "padding_mask": np.asarray(mask, "int32")}
    arrays = {f"x_train.{name}": array for name, array in given.items()}
    held = {f"x_val.{name}": array[:8] for name, array in given.items()}
    np.savez(tmp_path / "tokens.npz", **arrays, **held)
    folder = tmp_path / "run"
    paths = [str(tmp_path / "task.keras"), "--data", str(tmp_path / "tokens.npz")]
    assert main(["optimize", *paths, "--out", str(folder), "--params", "0.6", *TYPED]) == 0
    shown = unframed(capsys.readouterr().out)
    assert "GPT2CausalLM cannot express" in shown and "saikei.hub.as_generator(model" in shown
    plain = load_model(folder / "best.keras")
    assert not hasattr(plain, "generate")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    assert main(["report", str(folder), "--data", str(tmp_path / "texts.txt")]) == 2
    assert "no preprocessor that makes tokens" in unframed(capsys.readouterr().err)
    assert as_generator(plain, task).generate("the thin", max_length=12).startswith("the thin")
    result = sk.optimize(task, given, held_out(given), sk.Budget(params=0.6), out=folder, **OPTIONS)
    assert type(result.best).__name__ == "CutCausalLM"
    assert result.best.generate("the thin", max_length=12).startswith("the thin")


def held_out(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array[:8] for name, array in given.items()}


def test_a_text_classifier_is_optimized_from_a_preset_and_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keras.utils.set_random_seed(0)
    save_model(bert(num_layers=2), tmp_path / "preset")
    moods = ("low", "middle", "high")
    rows = [f"{text},{moods[number % 3]}" for number, text in enumerate(TEXTS * 2)]
    (tmp_path / "texts.csv").write_text("\n".join(["review,mood", *rows]), encoding="utf-8")
    paths = [str(tmp_path / "preset"), "--data", str(tmp_path / "texts.csv"), "--label", "mood"]
    folder = tmp_path / "run"
    options = ["--out", str(folder), "--params", "0.7", "--uniform", *TYPED]
    assert main(["optimize", *paths, *options]) == 0
    assert "best.keras is a BertTextClassifier with" in unframed(capsys.readouterr().out)
    best = load_model(folder / "best.keras")
    assert isinstance(best, M.BertTextClassifier) and best.backbone.hidden_dim < 16
    assert sk.evaluate(best, (TEXTS, np.arange(len(TEXTS)) % 3)).n == len(TEXTS)
