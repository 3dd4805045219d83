"""One base with its experts, run under the mixtures of a batch: behind gates or folded into the weights.

Both are exact. Gates give every row its own mixture. Where all rows share one, its update is added to the weights after
the first token, which costs once and makes every further token as cheap as the base's own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from alignx.errors import ConfigError
from alignx.mixture.compiled import CompiledForward
from alignx.mixture.lock import ReadWriteLock
from alignx.mixture.padding import left_padded
from alignx.models.fold import adapters_folded, folded
from alignx.models.gated import GatedModel
from alignx.models.load import BaseModel
from alignx.models.originals import Originals
from alignx.progress import notice
from alignx.stage2.experts import gate_weights
from alignx.stage2.whole import WholeExperts

Folding = Literal["auto", "always", "never"]
# Adding a mixture and putting the base back cost about as much as gates do over 15 tokens (docs/performance.md); twice
# that, because answers often end before they may.
FOLD_FROM_TOKENS = 32


class MixtureEngine:
    """The base, its gates, and the lock between calls that run on the base and calls that change it.

    Args:
        base: loaded base.
        gated: the experts, installed in it.
        axes: names, in the order of every vector.
        whole: the whole experts, where gates would leave something out.
        folding: `auto` folds a single mixture on the processor when the answer may have `FOLD_FROM_TOKENS` tokens;
            `always` whatever its length and the device; `never`. Experts that gates leave something out of are always
            folded.
        compile: run folded decoding through `torch.compile`.

    Raises:
        ConfigError: another `folding`, or always on quantised weights.
    """

    def __init__(
        self,
        base: BaseModel,
        gated: GatedModel,
        axes: Sequence[str],
        whole: WholeExperts | None = None,
        *,
        folding: Folding = "auto",
        compile: bool = False,
    ) -> None:
        if folding not in ("auto", "always", "never"):
            raise ConfigError(f"folding `{folding}`: must be auto, always or never")
        can_fold = all(layer.weight.is_floating_point() for layer in gated.layers.values())
        if folding == "always" and not can_fold:
            raise ConfigError("folding `always`: the base's weights are quantised, so nothing can be added to them")
        self.base = base
        self.gated = gated
        self.axes = tuple(axes)
        self.whole = whole
        self.lock = ReadWriteLock()
        self.originals = Originals(base.model, base.source)
        self._folding = folding if can_fold else "never"
        self._compiled = CompiledForward(base.model) if compile else None
        self._said_factors = False

    def gates(self, pi: Tensor, scale: Tensor) -> Tensor:
        """Mixtures (b, m) and factors (b,) -> weights of the installed adapters (b, adapters) float32."""
        return gate_weights(self.gated.names, self.axes, pi, scale).float()

    def runs_whole(self, pi: Tensor, scale: Tensor) -> bool:
        """Whether a batch runs as whole experts, folded, because gates would leave something out."""
        if self.whole is None or not bool((scale != 0).any()):
            return False
        if _is_one_mixture(pi, scale):
            return True
        if not self._said_factors:
            self._said_factors = True
            notice(
                "this batch has several mixtures: its fully fine-tuned experts run as factors, which leave part of "
                "them out (stage1/<axis>/svd.json); prompts given one by one run whole"
            )
        return False

    def folds(self, pi: Tensor, scale: Tensor, max_new_tokens: int) -> bool:
        """Whether a batch that may say so many tokens is worth folding after the first."""
        if self._folding == "never" or max_new_tokens < 2 or not _is_one_mixture(pi, scale):
            return False
        long_enough = max_new_tokens >= FOLD_FROM_TOKENS and self.base.model.device.type == "cpu"
        return long_enough or self._folding == "always"

    @contextmanager
    def mixed(self, pi: Tensor, scale: Tensor) -> Iterator[None]:
        """The base as a batch's mixtures (b, m) and factors (b,) make it, for forward passes inside."""
        if self.runs_whole(pi, scale):
            with self._whole_folded(pi, scale):
                yield
            return
        with self.lock.reading(), self.gated.using(self.gates(pi, scale)):
            yield

    def generate(
        self,
        ids: Sequence[Sequence[int]],
        pi: Tensor,
        scale: Tensor,
        *,
        max_new_tokens: int,
        options: Mapping[str, Any],
    ) -> list[list[int]]:
        """New tokens of prompts given as token ids, answered as one batch; none for none.

        Args:
            ids: b prompts.
            pi: (b, m) mixtures.
            scale: (b,) factors.
            max_new_tokens: longest answer.
            options: checked options of Transformers' `generate`.
        """
        if not ids:
            return []
        with torch.no_grad(), ExitStack() as held:
            if self.runs_whole(pi, scale):
                held.enter_context(self._whole_folded(pi, scale))
                return self._continue(ids, max_new_tokens, options)
            gates = self.gates(pi, scale)
            held.enter_context(self.lock.reading())
            held.enter_context(self.gated.using(gates))
            if not self.folds(pi, scale, max_new_tokens):
                return self._continue(ids, max_new_tokens, options)

            def fold() -> None:
                held.close()
                held.enter_context(self.lock.writing())
                held.enter_context(adapters_folded(self.gated, gates[0], self.originals))
                if self._compiled is not None:
                    held.enter_context(self._compiled.used())

            after = _AfterFirstToken(fold, self.base.template.end_token_id)
            return self._continue(ids, max_new_tokens, options, after)

    @contextmanager
    def _whole_folded(self, pi: Tensor, scale: Tensor) -> Iterator[None]:
        assert self.whole is not None
        used = (scale[0] * pi[0]).tolist()
        updates = self.whole.mixture(dict(zip(self.axes, used, strict=True)))
        with self.lock.writing(), folded(self.base.model, updates, self.originals):
            yield

    def _continue(
        self,
        ids: Sequence[Sequence[int]],
        max_new_tokens: int,
        options: Mapping[str, Any],
        after: "_AfterFirstToken | None" = None,
    ) -> list[list[int]]:
        model = self.base.model
        input_ids, attention_mask = left_padded(ids, self.base.pad_token_id)
        criteria = [*options.get("stopping_criteria", ()), *([after] if after else ())]
        output = model.generate(
            input_ids=input_ids.to(model.device),
            attention_mask=attention_mask.to(model.device),
            max_new_tokens=max_new_tokens,
            eos_token_id=self.base.template.end_token_id,
            pad_token_id=self.base.pad_token_id,
            **{**options, "stopping_criteria": StoppingCriteriaList(criteria)},
        )
        new: list[list[int]] = output[:, input_ids.shape[1] :].tolist()
        return new


class _AfterFirstToken(StoppingCriteria):  # type: ignore[misc]
    """Never stops; does something once, between the first token and the second."""

    def __init__(self, act: Callable[[], None], end_token_id: int) -> None:
        self._act: Callable[[], None] | None = act
        self._end_token_id = end_token_id

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """(b,) all False."""
        act, self._act = self._act, None
        if act is not None and not bool((input_ids[:, -1] == self._end_token_id).all()):
            act()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def _is_one_mixture(pi: Tensor, scale: Tensor) -> bool:
    """Whether all rows share one mixture that is not the bare base."""
    used = scale[:, None] * pi
    return torch.equal(used, used[:1].expand_as(used)) and bool((scale != 0).all())
