"""`as_generator`: a cut language model that its family's class cannot express generates too."""

from __future__ import annotations

import functools
import sys
from typing import Any

import keras
from keras import ops

from saikei.errors import ModelError
from saikei.graph import TensorRef, read
from saikei.hub.family import family_of
from saikei.hub.stepping import find_steps


def as_generator(model: keras.Model, original: keras.Model) -> keras.Model:
    """A cut language model as a task of KerasHub that generates with a cache.

    Where the class of the original can express the model, `as_family` gives that class, which is
    the better choice. This is for the others, such as blocks of different widths: keys and values
    of earlier tokens are kept, and only the last token is computed.

    Args:
        model: A plain model that was made from the original: logits of tokens.
        original: The `keras_hub.models.CausalLM` that it was made from. Its preprocessor and its
            sampler are taken over.

    Returns:
        A `keras_hub.models.CausalLM` over the layers of the model, with `generate`, and with `fit`
        for strings. It is no class that can be loaded: save `model`, and call this again.

    Raises:
        ModelError: When the original is no causal language model of KerasHub, or the model cannot
            be computed token by token.

    Example:
        >>> text = as_generator(small, task).generate("The", max_length=32)  # doctest: +SKIP
    """
    hub = sys.modules.get("keras_hub")
    if hub is None or not isinstance(original, hub.models.CausalLM):
        raise ModelError(
            f"Model '{original.name}' is a {type(original).__name__}, not a causal language model "
            "of KerasHub: only those generate."
        )
    if family_of(model) is not None:
        return model
    made: keras.Model = _class()(model, original.preprocessor)
    if getattr(original, "sampler", None) is not None:
        made.compile(sampler=original.sampler)
    return made


@functools.cache
def _class() -> Any:
    """The class, which is made when it is needed, as KerasHub need not be installed."""
    hub: Any = sys.modules["keras_hub"]

    class CutCausalLM(hub.models.CausalLM):
        """A causal language model over the layers of a plain model."""

        def __init__(self, model: keras.Model, preprocessor: Any) -> None:
            graph = read(model)
            names = {graph.calls[ref.call].operation: ref for ref in graph.input_refs()}
            tokens: TensorRef | None = names.get("token_ids")
            if tokens is None or len(graph.output_refs()) != 1:
                raise ModelError(
                    f"Model '{model.name}' has no input 'token_ids' or several outputs, so that "
                    "it is no language model of KerasHub."
                )
            steps = find_steps(graph, tokens)
            super().__init__(inputs=model.input, outputs=model.output, name=model.name)
            self.preprocessor = preprocessor
            self.backbone = None
            self._steps = steps

        def generate_step(self, inputs: Any, stop_token_ids: Any = None) -> Any:
            """Generate for one batch."""
            steps = self._steps
            tokens, mask = ops.cast(inputs["token_ids"], "int32"), inputs["padding_mask"]
            mask = ops.cast(mask, "bool")
            cache = steps.cache(steps.whole(tokens))
            fixed = steps.whole(ops.zeros_like(tokens[:1]))
            index = ops.min(ops.sum(ops.cast(mask, "int32"), axis=-1))

            def following(prompt: Any, cache: Any, index: Any) -> Any:
                token = ops.take(prompt, ops.reshape(index - 1, (1,)), axis=1)
                logits, cache = steps.step(token, index - 1, cache, fixed)
                return logits, logits, cache

            tokens = self.sampler(
                next=following,
                prompt=tokens,
                cache=cache,
                index=index,
                mask=mask,
                stop_token_ids=stop_token_ids,
                model=self,
            )
            if stop_token_ids is None:
                return {"token_ids": tokens, "padding_mask": ops.ones_like(tokens, dtype="bool")}
            ends = functools.reduce(ops.logical_or, [tokens == one for one in stop_token_ids])
            ends = ops.cast(ops.logical_and(ends, ops.logical_not(mask)), "int32")
            # What comes after the first end.
            after = ops.cumsum(ends, axis=-1) - ends
            return {"token_ids": tokens, "padding_mask": ops.equal(after, 0)}

    return CutCausalLM
