"""The runtime: route each prompt, mix the experts for it, answer.

How a batch is run, behind gates or folded into the weights, is chosen in `mixture.engine`; docs/runtime.md tells when.

Source: AlignX (EACL 2026, arXiv:2602.07381) for the idea; equations in docs/method.md.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, Self

import torch
from torch import Tensor

from alignx.config import DialPreset, RunConfig
from alignx.errors import ArtifactError, ConfigError
from alignx.mixture.answers import Answer as Answer
from alignx.mixture.answers import MixtureWeights as MixtureWeights
from alignx.mixture.dials import Weights, dials_for
from alignx.mixture.engine import Folding, MixtureEngine
from alignx.mixture.padding import left_padded
from alignx.mixture.routed_model import routed_model
from alignx.mixture.sampling import checked_sampling
from alignx.mixture.stream import AnswerStream, StopWhenSet, TokenTap
from alignx.models.gated import GatedModel
from alignx.models.head import head_logits
from alignx.models.lazy import LazyBase
from alignx.models.load import BaseModel
from alignx.runs import processes
from alignx.runs.directory import RunDirectory
from alignx.stage1.extracts import read_latent_space
from alignx.stage1.latent import LatentSpace
from alignx.stage2.dial import Dial
from alignx.stage2.experts import install_experts
from alignx.stage2.mocae import Mocae, Routing
from alignx.stage2.pipeline import check_current, read_mocae, read_signatures
from alignx.stage2.presets import preset_dial
from alignx.stage2.whole import WholeExperts, read_whole_experts

DEFAULT_NEW_TOKENS = 256


class AlignX:
    """An aligned model: one base, its experts, the mixture that weighs them for every prompt.

    The base's linear layers are wrapped on construction; a base that is shared with other code must not be. Weights
    travel with each call, so rows of a batch may have different dials and threads do not see each other's. While one
    call has its mixture folded into the base, the others wait.

    A base that comes from no file (made in memory) is kept twice once something has been folded into it.

    Args:
        base: loaded base.
        gated: the experts, installed in it.
        mocae: the trained mixture.
        space: the latent space its signatures lie in.
        whole: the whole experts, where gates would leave something out.
        folding: `auto`, `always` or `never`; see `MixtureEngine`.
        compile: decode through `torch.compile` where a mixture is folded; skipped, and said, without a compiler.
        presets: dials of its own by name, beside the built-in ones.

    Raises:
        ArtifactError: the mixture was fitted on another latent space.
        ConfigError: another `folding`.
    """

    def __init__(
        self,
        base: BaseModel,
        gated: GatedModel,
        mocae: Mocae,
        space: LatentSpace,
        whole: WholeExperts | None = None,
        *,
        folding: Folding = "auto",
        compile: bool = False,
        presets: Mapping[str, DialPreset] | None = None,
    ) -> None:
        if list(mocae.layers) != list(space.layers) or list(mocae.widths) != space.widths:
            raise ArtifactError("the mixture was fitted on another latent space; run `alignx stage2` again")
        self.base = base
        self.gated = gated
        self.mocae = mocae
        self.space = space
        self.presets = dict(presets or {})
        self.engine = MixtureEngine(base, gated, mocae.axes, whole, folding=folding, compile=compile)

    @classmethod
    def from_pretrained(cls, run: str | Path, *, folding: Folding = "auto", compile: bool = False) -> Self:
        """Load a finished run directory.

        Args:
            run: the run directory.
            folding: `auto`, `always` or `never`; see `MixtureEngine`. A server with many callers wants `never`.
            compile: decode through `torch.compile` where a mixture is folded.

        Raises:
            ArtifactError: not a run directory, a stage is missing, or the base is another one.
            ModelError: the base cannot be loaded.
            ConfigError: another `folding`.
        """
        directory = RunDirectory(Path(run))
        config = directory.read_config()
        return cls.from_run(config, directory, LazyBase(config, directory), folding=folding, compile=compile)

    @classmethod
    def from_run(
        cls,
        config: RunConfig,
        run: RunDirectory,
        lazy: LazyBase,
        *,
        folding: Folding = "auto",
        compile: bool = False,
    ) -> Self:
        """The same, on a base that other stages share; `close` gives it back unchanged.

        Raises:
            ArtifactError: as `from_pretrained`.
        """
        mocae, space = read_mocae(run), read_latent_space(run)
        check_current(config, run)
        whole = read_whole_experts(config, run, lazy.base) if config.stage1.method == "full" else None
        gated = install_experts(config, run, lazy.base)
        return cls(lazy.base, gated, mocae, space, whole, folding=folding, compile=compile, presets=config.presets)

    def close(self) -> None:
        """Take the experts out of the base."""
        self.gated.remove()
        self.engine.originals.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def axes(self) -> tuple[str, ...]:
        """Axis names, in the order of every vector."""
        return self.mocae.axes

    def route(
        self,
        prompts: str | Sequence[str],
        dial: Dial | Sequence[Dial] | None = None,
        *,
        axis_weights: Weights | None = None,
        floors: Weights | None = None,
        strength: float | Sequence[float] | None = None,
        preset: str | Sequence[str] | None = None,
    ) -> list[MixtureWeights]:
        """Mixture weights of prompts, without answering them; arguments as for `generate`.

        Raises:
            DialError: see `Dial`.
            ConfigError: no prompt, or not one dial for all or for each.
        """
        texts = _listed(prompts)
        dials = self._dials(
            len(texts), dial, axis_weights=axis_weights, floors=floors, strength=strength, preset=preset
        )
        return self._describe(*self._mix([self._encode(text, room=0)[0] for text in texts], dials))

    def generate(
        self,
        prompts: str | Sequence[str],
        dial: Dial | Sequence[Dial] | None = None,
        *,
        axis_weights: Weights | None = None,
        floors: Weights | None = None,
        strength: float | Sequence[float] | None = None,
        preset: str | Sequence[str] | None = None,
        max_new_tokens: int | None = None,
        **sampling: Any,
    ) -> list[Answer]:
        """Answer prompts, each under its own mixture; greedy unless sampling options are given.

        Several processes answer a share each, and all get all answers.

        Args:
            prompts: one prompt or several, answered as one batch.
            dial: one for all prompts, or one for each; or its parts instead:
            axis_weights: axis -> factor on its odds, for all prompts, or a list with one mapping for each.
            floors: axis -> least share of the mixture, likewise.
            strength: scale of all experts, likewise; 0 is the base.
            preset: name of a dial (docs/dial.md), likewise; the parts replace its values, axis by axis.
            max_new_tokens: longest answer; none: 256, or half the context where that is less.
            sampling: options of Transformers' `generate`, such as `temperature`, `top_p`, `num_beams`.

        Raises:
            DialError: see `Dial`.
            ConfigError: no room for an answer in the model's context, an option that `generate` does not have or that
                cannot have this value, or both a dial and its parts.
        """
        texts = _listed(prompts)
        dials = self._dials(
            len(texts), dial, axis_weights=axis_weights, floors=floors, strength=strength, preset=preset
        )
        longest = self._checked_length(max_new_tokens)
        return self._answer_all(texts, dials, longest, checked_sampling(sampling, max_new_tokens=longest))

    def stream(
        self,
        prompt: str,
        dial: Dial | None = None,
        *,
        axis_weights: Weights | None = None,
        floors: Weights | None = None,
        strength: float | None = None,
        preset: str | None = None,
        max_new_tokens: int | None = None,
        **sampling: Any,
    ) -> AnswerStream:
        """Answer one prompt piece by piece; arguments and errors as for `generate`.

        Returns:
            An iterator over pieces of text, together the answer's text. Its `answer` is the whole answer with its
            weights when the pieces are through; closing it early leaves the base as it was.
        """
        if not isinstance(prompt, str):
            raise ConfigError("stream answers one prompt, given as text; use generate for several")
        dials = self._dials(1, dial, axis_weights=axis_weights, floors=floors, strength=strength, preset=preset)
        self._dial_vectors(dials)
        longest = self._checked_length(max_new_tokens)
        options = checked_sampling(sampling, max_new_tokens=longest)
        if options.get("num_beams", 1) > 1:
            raise ConfigError(f"num_beams {options['num_beams']}: beams are only known at the end; use generate")

        def answer(tap: TokenTap, stop: Event) -> Answer:
            criteria = [*options.get("stopping_criteria", ()), StopWhenSet(stop)]
            return self._answer_all(
                [prompt], dials, longest, {**options, "streamer": tap, "stopping_criteria": criteria}
            )[0]

        return AnswerStream(answer, lambda tokens: self._text(tokens)[0])

    def as_transformers(
        self,
        dial: Dial | None = None,
        *,
        axis_weights: Weights | None = None,
        floors: Weights | None = None,
        strength: float | None = None,
        preset: str | None = None,
    ) -> Any:
        """This model under one dial as a Transformers model, for tools that want one (pipelines, harnesses).

        Every new row is routed by the tokens of its first forward pass; what follows through the key-value cache keeps
        its weights. It shares the base with this object, and runs behind gates.

        Raises:
            DialError: see `Dial`.
            ConfigError: both a dial and its parts.
        """
        if self.engine.whole is not None:
            raise ConfigError(
                "as_transformers: fully fine-tuned experts run folded, one mixture at a time, which a model that is "
                "given several rows cannot; use generate, or experts trained with `method: lora`"
            )
        dials = self._dials(1, dial, axis_weights=axis_weights, floors=floors, strength=strength, preset=preset)
        self._dial_vectors(dials)

        def gates(rows: Sequence[Sequence[int]]) -> Tensor:
            ids = [self._fit_context(row, room=0)[0] for row in rows]
            _, pi, scale = self._mix(ids, dials * len(ids))
            return self.engine.gates(pi, scale)

        return routed_model(self.base, self.engine, gates)

    def next_token_logits(self, prompts: Sequence[Sequence[int]], dial: Dial | Sequence[Dial] | None = None) -> Tensor:
        """Logits (n, vocabulary) after prompts given as token ids, each under its own mixture.

        An empty prompt is read as the model's start token; one longer than the context keeps its end.
        """
        ids = [self._fit_context(prompt, room=0)[0] for prompt in prompts]
        dials = dials_for(len(ids), dial)
        input_ids, attention_mask = left_padded(ids, self.base.pad_token_id)
        positions = (attention_mask.cumsum(dim=1) - 1).clamp_min(0)
        _, pi, scale = self._mix(ids, dials)
        with torch.no_grad(), self.engine.mixed(pi, scale):
            hidden = self.base.model.get_decoder()(
                input_ids=input_ids.to(self.base.model.device),
                attention_mask=attention_mask.to(self.base.model.device),
                position_ids=positions.to(self.base.model.device),
                use_cache=False,
            ).last_hidden_state
            logits = head_logits(self.base.model, hidden[:, -1])
        return logits.cpu()

    def _answer_all(
        self, texts: Sequence[str], dials: Sequence[Dial], max_new_tokens: int, options: dict[str, Any]
    ) -> list[Answer]:
        encoded = [self._encode(text, room=max_new_tokens) for text in texts]
        ids = [prompt for prompt, _ in encoded]
        routing, pi, scale = self._mix(ids, dials)
        own = list(processes.own_share(range(len(ids))))
        new = self.engine.generate(
            [ids[row] for row in own], pi[own], scale[own], max_new_tokens=max_new_tokens, options=options
        )
        by_row = dict(processes.gather(list(zip(own, new, strict=True))))
        described = self._describe(routing, pi, scale)
        return [
            self._answer(by_row[row], weights, cut)
            for row, (weights, (_, cut)) in enumerate(zip(described, encoded, strict=True))
        ]

    def _checked_length(self, max_new_tokens: int | None) -> int:
        context = self.base.context_tokens
        if max_new_tokens is None:
            return min(DEFAULT_NEW_TOKENS, context // 2)
        whole = isinstance(max_new_tokens, int) and not isinstance(max_new_tokens, bool)
        if not whole or not 1 <= max_new_tokens < context:
            raise ConfigError(
                f"max_new_tokens {max_new_tokens!r}: must be a whole number, at least 1, and leave room for a prompt "
                f"in the model's {context} tokens"
            )
        return max_new_tokens

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

    def preset(self, name: str) -> Dial:
        """The dial that a name stands for: one of the run's own, a built-in one, or `lean-<axis>`.

        Raises:
            DialError: no such name, or one that speaks only of axes that the run lacks.
        """
        return preset_dial(name, self.axes, self.presets)

    def _dials(self, count: int, dial: Dial | Sequence[Dial] | None, **parts: Any) -> list[Dial]:
        return dials_for(count, dial, **parts, named=self.preset)

    def _dial_vectors(self, dials: Sequence[Dial]) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (b, m), floors (b, m) and strengths (b,) of dials, checked."""
        weights = torch.stack([dial.weight_vector(self.axes) for dial in dials])
        floors = torch.stack([dial.floor_vector(self.axes) for dial in dials])
        return weights, floors, torch.tensor([dial.checked_strength() for dial in dials], dtype=torch.float64)

    def _mix(self, ids: Sequence[Sequence[int]], dials: Sequence[Dial]) -> tuple[Routing, Tensor, Tensor]:
        """Routing of prompts, their mixtures (b, m) and factors (b,)."""
        weights, floors, strength = self._dial_vectors(dials)
        with self.engine.lock.reading():
            signatures = read_signatures(self.base, self.space, ids, what="")
        routing = self.mocae.route(signatures)
        pi, scale = self.mocae.mix(routing, weights, floors, strength)
        return routing, pi, scale

    def _describe(self, routing: Routing, pi: Tensor, scale: Tensor) -> list[MixtureWeights]:
        def named(row: Tensor) -> dict[str, float]:
            return dict(zip(self.axes, row.tolist(), strict=True))

        return [
            MixtureWeights(named(pi[n]), float(scale[n]), named(axis), named(best), float(known))
            for n, (axis, best, known) in enumerate(
                zip(routing.axis_probs, routing.best_probs, routing.known, strict=True)
            )
        ]

    def _text(self, tokens: Sequence[int]) -> tuple[str, int, bool]:
        """Text of an answer's tokens, how many they are with the end token, and whether there was one."""
        end = self.base.template.end_token_id
        finished = end in tokens
        kept = list(tokens[: tokens.index(end)] if finished else tokens)
        text = self.base.tokenizer.decode(kept, skip_special_tokens=True).strip()
        return text, len(kept) + finished, finished

    def _answer(self, tokens: list[int], weights: MixtureWeights, cut: int) -> Answer:
        text, n_tokens, finished = self._text(tokens)
        return Answer(text, weights, n_tokens, finished, cut)


def _listed(prompts: str | Sequence[str]) -> list[str]:
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not texts:
        raise ConfigError("no prompt given; give at least one")
    for text in texts:
        if not isinstance(text, str):
            raise ConfigError(f"prompt {str(text):.80}: must be text; give prompts as strings")
    return texts
