"""Other architectures than the four published ones, at tiny random size: supported exactly, or refused at load."""

from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel

from alignx.config import Stage1Config
from alignx.data.example import Example
from alignx.errors import ModelError
from alignx.models.fingerprint import model_sha256
from alignx.models.fold import folded
from alignx.models.gated import GatedModel
from alignx.models.head import head_logits
from alignx.models.layers import adapted_modules, decoder_layers
from alignx.models.load import BaseModel, load_base
from alignx.models.packed import can_pack
from alignx.models.scoring import PromptAnswers, answer_log_probs
from alignx.models.support import check_supported
from alignx.stage1.activations import last_prompt_states
from alignx.stage1.schedule import TrainingJob
from alignx.stage1.task_vector import read_task_vector
from alignx.stage1.train import train_adapter

_LLAMA_LIKE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}
_GPT2_LIKE = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
_GEMMA_LIKE = {**_LLAMA_LIKE, "head_dim": 8, "sliding_window": 128}

# name -> config class, its options, adapted layers of one decoder layer.
SUPPORTED: dict[str, tuple[str, dict[str, Any], int]] = {
    "gpt2 (transposed layers, tied)": ("GPT2Config", _GPT2_LIKE, 4),
    "gpt_neox (fused qkv)": (
        "GPTNeoXConfig",
        {key: value for key, value in _LLAMA_LIKE.items() if key != "num_key_value_heads"},
        4,
    ),
    "phi3 (fused qkv and gate)": ("Phi3Config", {**_LLAMA_LIKE, "original_max_position_embeddings": 128}, 4),
    "qwen2 (biases, tied)": ("Qwen2Config", {**_LLAMA_LIKE, "tie_word_embeddings": True}, 7),
    "opt (offset positions)": (
        "OPTConfig",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "word_embed_proj_dim": 32}
        | {"max_position_embeddings": 128},
        6,
    ),
    "falcon (parallel, one key head)": (
        "FalconConfig",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
        4,
    ),
    "falcon with alibi": (
        "FalconConfig",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
        4,
    ),
    "bloom (alibi)": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, 4),
    "mpt (alibi)": ("MptConfig", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}, 4),
    "gptj": ("GPTJConfig", {**_GPT2_LIKE, "rotary_dim": 4}, 6),
    "gemma2 (caps)": ("Gemma2Config", _GEMMA_LIKE, 7),
    "cohere (scaled logits)": ("CohereConfig", {**_LLAMA_LIKE, "logit_scale": 0.25}, 7),
}
ALIBI = {"falcon with alibi", "bloom (alibi)", "mpt (alibi)"}
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [50, 41, 32, 23, 14, 5]])


def _model(config_name: str, options: dict[str, Any], vocab_size: int) -> Any:
    tokens = {"vocab_size": vocab_size, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = getattr(transformers, config_name)(**{**tokens, "initializer_range": 0.2, **options})
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config)


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory, tiny_models) -> Any:
    """Architecture -> folder of a tiny random model with the tiny tokenizer; made once."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_models["mistral"])
    made: dict[str, Any] = {}

    def folder(name: str) -> Any:
        if name not in made:
            config_name, options, _ = SUPPORTED[name]
            made[name] = tmp_path_factory.mktemp("architecture")
            _model(config_name, options, len(tokenizer)).save_pretrained(made[name])
            tokenizer.save_pretrained(made[name])
        return made[name]

    return folder


@pytest.fixture(scope="module", params=SUPPORTED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def trained(save, name: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[BaseModel, Any]:
    """The base after one training step, and the adapter's folder."""
    base = load_base(str(save(name)))
    check_supported(base.model, "all-linear")
    before = model_sha256(base.model)
    examples = [Example("kind", f"Write {word}.", f"{word} it is.") for word in ("one", "two", "three", "four")]
    job = TrainingJob("kind", examples, {"kind": "Be kind."}, 0.5, 1e-2, 1, 0)
    settings = Stage1Config(rank=2, alpha=4, batch_size=4, precision="float32", max_tokens=96)
    folder = tmp_path_factory.mktemp("expert") / "adapter"
    train_adapter(base, job, settings, folder, extra={})
    assert model_sha256(base.model) == before
    return base, folder


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).norm() <= 1e-5 * expected.norm())


def _vector(trained: tuple[BaseModel, Any]) -> Any:
    base, folder = trained
    return read_task_vector(folder, adapted_modules(base.model, "all-linear"))


def test_every_linear_layer_of_every_decoder_layer_is_adapted(trained, name: str) -> None:
    base, folder = trained
    assert len(decoder_layers(base.model)) == 2
    assert len(adapted_modules(base.model, "all-linear")) == 2 * SUPPORTED[name][2]
    assert len(_vector(trained).updates) == 2 * SUPPORTED[name][2]


def test_an_expert_behind_a_gate_is_pefts_own_output_and_without_it_the_base(trained, save, name: str) -> None:
    base, folder = trained
    plain = _logits(base.model)
    peft_model = PeftModel.from_pretrained(load_base(str(save(name))).model, folder).eval()
    expected = _logits(peft_model)
    assert not _close(expected, plain)
    with GatedModel(base.model, {"kind": _vector(trained).updates}) as gated:
        with gated.using(torch.ones(2, 1)):
            assert _close(_logits(base.model), expected)
        with gated.using(torch.zeros(2, 1)):
            assert torch.equal(_logits(base.model), plain)
        with gated.using(torch.tensor([[1.0], [0.0]])):
            assert _close(_logits(base.model), torch.cat([expected[:1], plain[1:]]))
    with folded(base.model, {module: update.dense for module, update in _vector(trained).updates.items()}):
        assert _close(_logits(base.model), expected)
    assert torch.equal(_logits(base.model), plain)


def test_prompts_states_do_not_depend_on_the_batch(trained) -> None:
    base, _ = trained
    prompts = [[5, 6, 7], [50, 41, 32, 23, 14, 5, 9], [12]]
    together = last_prompt_states(base, prompts, [0, 1])
    alone = torch.cat([last_prompt_states(base, [prompt], [0, 1]) for prompt in prompts])
    assert together.shape == (3, 2, 32)
    assert _close(together, alone)


def test_logits_of_chosen_states_are_the_models_own(trained) -> None:
    base, _ = trained
    with torch.no_grad():
        hidden = base.model.get_decoder()(input_ids=IDS, use_cache=False).last_hidden_state
    assert _close(head_logits(base.model, hidden), _logits(base.model))


def test_answers_that_share_a_prompt_score_as_they_do_alone(trained) -> None:
    base, _ = trained
    prompt, answers = [5, 6, 7, 8], [[9, 10, 11], [50], [41, 32]]
    together = answer_log_probs(base, [PromptAnswers(prompt, answers)])[0]
    for answer, found in zip(answers, together, strict=True):
        logits = base.model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(dim=-1).gather(1, torch.tensor(answer)[:, None]).sum().item()
        assert found == pytest.approx(expected, rel=1e-4)


def test_sequences_are_packed_only_where_positions_can_be_told(trained, name: str) -> None:
    packs = can_pack(trained[0].model, 96)
    assert not (packs and name in ALIBI)
    assert packs or not name.startswith(("gpt2", "gpt_neox", "phi3", "qwen2", "opt", "cohere"))


def test_a_state_space_model_is_refused_before_training() -> None:
    model = _model("MambaConfig", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, 64)
    with pytest.raises(ModelError, match="state-space model"):
        check_supported(model, "all-linear")


def test_a_layer_that_gets_some_of_the_tokens_is_refused_and_the_others_may_be_named(save) -> None:
    class Routed(torch.nn.Module):
        def __init__(self, layer: torch.nn.Module) -> None:
            super().__init__()
            self.expert = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.expert(x.flatten(0, 1)[:2]), x.new_zeros(x[..., 0].numel() - 2, 64)]).view(2, 3, -1)

    model = load_base(str(save("qwen2 (biases, tied)"))).model
    model.model.layers[1].mlp.up_proj = Routed(model.model.layers[1].mlp.up_proj)
    with pytest.raises(
        ModelError, match="`model.layers.1.mlp.up_proj.expert` and 0 more layers .* `stage1.target_modu"
    ):
        check_supported(model, "all-linear")
    model = load_base(str(save("qwen2 (biases, tied)"))).model
    check_supported(model, "q_proj,v_proj")


def test_a_head_that_does_more_than_is_known_is_refused(save) -> None:
    model = load_base(str(save("cohere (scaled logits)"))).model
    model.config.logit_scale = None  # the model has read its own scale before
    with pytest.raises(ModelError, match="makes its logits in a way"):
        check_supported(model, "all-linear")
