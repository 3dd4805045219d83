"""The runtime: route each prompt, mix the experts for it, answer.

LoRA experts run behind gates, exactly, whatever a batch's mixtures are. Fully fine-tuned experts are exact when they
are folded into the base, which all rows of a batch must share: a batch of one mixture (so every single prompt) is
folded, one call at a time; a batch of several runs behind gates as the experts' factors.

Source: AlignX (EACL 2026, arXiv:2602.07381) for the idea; equations in docs/method.md.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, Self

import torch
from torch import Tensor

from alignx.config import RunConfig
from alignx.errors import ArtifactError, ConfigError
from alignx.models.fold import folded
from alignx.models.gated import GatedModel
from alignx.models.head import head_logits
from alignx.models.lazy import LazyBase
from alignx.models.load import BaseModel
from alignx.progress import notice
from alignx.runs import processes
from alignx.runs.directory import RunDirectory
from alignx.stage1.extracts import read_latent_space
from alignx.stage1.latent import LatentSpace
from alignx.stage2.dial import Dial
from alignx.stage2.experts import gate_weights, install_experts
from alignx.stage2.mocae import Mocae
from alignx.stage2.pipeline import check_current, read_mocae, read_signatures
from alignx.stage2.whole import WholeExperts, read_whole_experts

DEFAULT_NEW_TOKENS = 256


@dataclass(frozen=True)
class MixtureWeights:
    """What one prompt was given.

    Attributes:
        pi: axis -> mixture weight.
        scale: factor on all experts: the user's strength, times what was learned for mixtures this even.
        axis_probs: axis -> probability that the prompt is like its data.
        best_probs: axis -> probability that its expert serves the prompt best.
        known: g in [0, 1]; 0 where no expert applies and the fallback speaks.
    """

    pi: dict[str, float]
    scale: float
    axis_probs: dict[str, float]
    best_probs: dict[str, float]
    known: float

    @property
    def out_of_distribution(self) -> bool:
        """Whether the fallback has more say than the router."""
        return self.known < 0.5


@dataclass(frozen=True)
class Answer:
    """An answer and what made it.

    Attributes:
        text: the answer, without control tokens.
        weights: mixture of its prompt.
        n_tokens: tokens generated, the end token among them.
        finished: whether the model ended the answer itself.
        prompt_cut: tokens taken off the prompt's start to fit the context.
    """

    text: str
    weights: MixtureWeights
    n_tokens: int
    finished: bool
    prompt_cut: int = 0


class AlignX:
    """An aligned model: one base, its experts, the mixture that weighs them for every prompt.

    The base's linear layers are wrapped on construction; a base that is shared with other code must not be. Weights
    travel with each call, so rows of a batch may have different dials and threads do not see each other's.

    Args:
        base: loaded base.
        gated: the experts, installed in it.
        mocae: the trained mixture.
        space: the latent space its signatures lie in.
        whole: the whole experts, where gates would leave something out.
    """

    def __init__(
        self,
        base: BaseModel,
        gated: GatedModel,
        mocae: Mocae,
        space: LatentSpace,
        whole: WholeExperts | None = None,
    ) -> None:
        if list(mocae.layers) != list(space.layers) or list(mocae.widths) != space.widths:
            raise ArtifactError("the mixture was fitted on another latent space; run `alignx stage2` again")
        self.base = base
        self.gated = gated
        self.mocae = mocae
        self.space = space
        self.whole = whole
        # Folding changes the base that all threads share, so then one call at a time has it to itself.
        self._base_in_use: AbstractContextManager[Any] = RLock() if whole else nullcontext()
        self._said_factors = False

    @classmethod
    def from_pretrained(cls, run: str | Path) -> Self:
        """Load a finished run directory.

        Raises:
            ArtifactError: not a run directory, a stage is missing, or the base is another one.
            ModelError: the base cannot be loaded.
        """
        directory = RunDirectory(Path(run))
        config = directory.read_config()
        return cls.from_run(config, directory, LazyBase(config, directory))

    @classmethod
    def from_run(cls, config: RunConfig, run: RunDirectory, lazy: LazyBase) -> Self:
        """The same, on a base that other stages share; `close` gives it back unchanged.

        Raises:
            ArtifactError: as `from_pretrained`.
        """
        mocae, space = read_mocae(run), read_latent_space(run)
        check_current(config, run)
        whole = read_whole_experts(config, run, lazy.base) if config.stage1.method == "full" else None
        return cls(lazy.base, install_experts(config, run, lazy.base), mocae, space, whole)

    def close(self) -> None:
        """Take the experts out of the base."""
        self.gated.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def axes(self) -> tuple[str, ...]:
        """Axis names, in the order of every vector."""
        return self.mocae.axes

    def route(self, prompts: str | Sequence[str], dial: Dial | Sequence[Dial] | None = None) -> list[MixtureWeights]:
        """Mixture weights of prompts, without answering them.

        Args:
            prompts: one prompt or several.
            dial: one for all prompts, or one for each.

        Raises:
            DialError: see `Dial`.
        """
        texts = _listed(prompts)
        dials = _one_each(dial, len(texts))
        ids = [self._encode(text, room=0)[0] for text in texts]
        with self._base_in_use:
            return self._describe(*self._mix(ids, dials))

    def generate(
        self,
        prompts: str | Sequence[str],
        dial: Dial | Sequence[Dial] | None = None,
        *,
        max_new_tokens: int | None = None,
        **sampling: Any,
    ) -> list[Answer]:
        """Answer prompts, each under its own mixture; greedy unless sampling options are given.

        Several processes answer a share each, and all get all answers.

        Args:
            prompts: one prompt or several, answered as one batch.
            dial: one for all prompts, or one for each.
            max_new_tokens: longest answer; none: 256, or half the context where that is less.
            sampling: options of Transformers' `generate`, such as `do_sample`, `temperature`, `top_p`.

        Raises:
            DialError: see `Dial`.
            ConfigError: no room for an answer in the model's context.
        """
        if max_new_tokens is None:
            max_new_tokens = min(DEFAULT_NEW_TOKENS, self.base.context_tokens // 2)
        if not 1 <= max_new_tokens < self.base.context_tokens:
            raise ConfigError(
                f"max_new_tokens {max_new_tokens}: must be at least 1 and leave room for a prompt in the model's "
                f"{self.base.context_tokens} tokens"
            )
        texts = _listed(prompts)
        dials = _one_each(dial, len(texts))
        encoded = [self._encode(text, room=max_new_tokens) for text in texts]
        ids = [prompt for prompt, _ in encoded]
        if sampling.get("num_return_sequences", 1) != 1:
            raise ConfigError("num_return_sequences must be 1; repeat the prompt to get several answers")
        own = list(processes.own_share(range(len(ids))))
        with self._base_in_use:
            routing, pi, scale = self._mix(ids, dials)
            with torch.no_grad(), self._mixed(pi, scale, rows=own):
                new = self._continue([ids[row] for row in own], max_new_tokens, sampling)
        by_row = dict(processes.gather(list(zip(own, new, strict=True))))
        described = self._describe(routing, pi, scale)
        return [
            self._answer(by_row[row], weights, cut)
            for row, (weights, (_, cut)) in enumerate(zip(described, encoded, strict=True))
        ]

    def _continue(self, ids: Sequence[Sequence[int]], max_new_tokens: int, sampling: dict[str, Any]) -> list[list[int]]:
        """New tokens of prompts answered as one batch, under the mixtures in force; none for none."""
        if not ids:
            return []
        input_ids, attention_mask = left_padded(ids, self.base.pad_token_id)
        options = {"do_sample": False, **sampling}
        output = self.base.model.generate(
            input_ids=input_ids.to(self.base.model.device),
            attention_mask=attention_mask.to(self.base.model.device),
            max_new_tokens=max_new_tokens,
            eos_token_id=self.base.template.end_token_id,
            pad_token_id=self.base.pad_token_id,
            **options,
        )
        new: list[list[int]] = output[:, input_ids.shape[1] :].tolist()
        return new

    def next_token_logits(self, prompts: Sequence[Sequence[int]], dial: Dial | Sequence[Dial] | None = None) -> Tensor:
        """Logits (n, vocabulary) after prompts given as token ids, each under its own mixture.

        An empty prompt is read as the model's start token; one longer than the context keeps its end.
        """
        ids = [self._fit_context(prompt, room=0)[0] for prompt in prompts]
        dials = _one_each(dial, len(ids))
        input_ids, attention_mask = left_padded(ids, self.base.pad_token_id)
        positions = (attention_mask.cumsum(dim=1) - 1).clamp_min(0)
        with self._base_in_use:
            _, pi, scale = self._mix(ids, dials)
            with torch.no_grad(), self._mixed(pi, scale):
                hidden = self.base.model.get_decoder()(
                    input_ids=input_ids.to(self.base.model.device),
                    attention_mask=attention_mask.to(self.base.model.device),
                    position_ids=positions.to(self.base.model.device),
                    use_cache=False,
                ).last_hidden_state
                logits = head_logits(self.base.model, hidden[:, -1])
        return logits.cpu()

    def _encode(self, text: str, *, room: int) -> tuple[list[int], int]:
        return self._fit_context(self.base.template.encode_prompt(text), room=room)

    def _fit_context(self, prompt: Sequence[int], *, room: int) -> tuple[list[int], int]:
        """The prompt's last tokens that leave `room`, never none, and how many were cut off."""
        ids = list(prompt) or [self._start_token()]
        kept = ids[-(self.base.context_tokens - room) :]
        return kept, len(ids) - len(kept)

    def _start_token(self) -> int:
        start = self.base.tokenizer.bos_token_id
        return int(self.base.template.end_token_id if start is None else start)

    def _mix(self, ids: Sequence[Sequence[int]], dials: Sequence[Dial]) -> tuple[Any, Tensor, Tensor]:
        weights = torch.stack([dial.weight_vector(self.axes) for dial in dials])
        floors = torch.stack([dial.floor_vector(self.axes) for dial in dials])
        strength = torch.tensor([dial.checked_strength() for dial in dials], dtype=torch.float64)
        routing = self.mocae.route(read_signatures(self.base, self.space, ids, what=""))
        pi, scale = self.mocae.mix(routing, weights, floors, strength)
        return routing, pi, scale

    @contextmanager
    def _mixed(self, pi: Tensor, scale: Tensor, *, rows: Sequence[int] | None = None) -> Iterator[None]:
        """The base as a batch's mixtures (b, m) and factors (b,) make it, for calls with these of its rows inside."""
        used = scale[:, None] * pi
        one_mixture = torch.equal(used, used[:1].expand_as(used)) and bool((scale != 0).all())
        if self.whole is not None and one_mixture:
            with folded(self.base.model, self.whole.mixture(dict(zip(self.axes, used[0].tolist(), strict=True)))):
                yield
            return
        if self.whole is not None and bool((scale != 0).any()) and not self._said_factors:
            self._said_factors = True
            notice(
                "this batch has several mixtures: its fully fine-tuned experts run as factors, which leave part of "
                "them out (stage1/<axis>/svd.json); prompts given one by one run whole"
            )
        gates = gate_weights(self.gated.names, self.axes, pi, scale).float()
        with self.gated.using(gates if rows is None else gates[list(rows)]):
            yield

    def _describe(self, routing: Any, pi: Tensor, scale: Tensor) -> list[MixtureWeights]:
        def named(row: Tensor) -> dict[str, float]:
            return dict(zip(self.axes, row.tolist(), strict=True))

        return [
            MixtureWeights(named(pi[n]), float(scale[n]), named(axis), named(best), float(known))
            for n, (axis, best, known) in enumerate(
                zip(routing.axis_probs, routing.best_probs, routing.known, strict=True)
            )
        ]

    def _answer(self, tokens: list[int], weights: MixtureWeights, cut: int) -> Answer:
        end = self.base.template.end_token_id
        finished = end in tokens
        kept = tokens[: tokens.index(end)] if finished else tokens
        text = self.base.tokenizer.decode(kept, skip_special_tokens=True).strip()
        return Answer(text, weights, len(kept) + finished, finished, cut)


def left_padded(ids: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, (n, longest) each, padded on the left so that answers start together."""
    width = max(map(len, ids))
    input_ids = torch.full((len(ids), width), pad_token_id)
    attention_mask = torch.zeros(len(ids), width, dtype=torch.long)
    for row, prompt in enumerate(ids):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, width - len(prompt) :] = 1
    return input_ids, attention_mask


def _listed(prompts: str | Sequence[str]) -> list[str]:
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not texts:
        raise ConfigError("no prompt given; give at least one")
    return texts


def _one_each(dial: Dial | Sequence[Dial] | None, count: int) -> list[Dial]:
    if dial is None or isinstance(dial, Dial):
        return [dial or Dial()] * count
    if len(dial) != count:
        raise ConfigError(f"{len(dial)} dials for {count} prompts; give one for all or one for each")
    return list(dial)
