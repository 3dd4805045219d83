import pytest
import torch

from alignx.data.batches import pad_batch, rows_by_length
from alignx.data.example import Example
from alignx.data.template import PromptTemplate, TokenisedExample
from alignx.errors import ModelError

CONTROL = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nSing.\n\n### Response:\n"
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "Be honest.\n\n### Instruction:\nSing.\n\n### Input:\nA song\n\n### Response:\n"
)


@pytest.fixture(scope="module")
def templates(load_tiny):
    """Chat (llama), chat that refuses a system role (gemma), Alpaca (mistral)."""
    names = {"chat": "llama", "refuses": "gemma", "alpaca": "mistral"}
    return {kind: load_tiny(architecture).template for kind, architecture in names.items()}


@pytest.fixture(params=["chat", "refuses", "alpaca"])
def template(request, templates) -> PromptTemplate:
    return templates[request.param]


def _ids(template, token):
    return template.tokenizer.convert_tokens_to_ids(token)


def test_auto_is_chat_when_the_tokenizer_has_a_template(templates):
    assert [template.style for template in templates.values()] == ["chat", "chat", "alpaca"]


def test_chat_without_a_template_is_refused(templates):
    with pytest.raises(ModelError, match="no chat template"):
        PromptTemplate.for_tokenizer(templates["alpaca"].tokenizer, "chat")


def test_alpaca_may_be_asked_of_a_chat_model(templates):
    template = PromptTemplate.for_tokenizer(templates["chat"].tokenizer, "alpaca")
    assert template.style == "alpaca" and template.end_token_id == _ids(template, "</s>")


def test_a_turn_ends_with_the_templates_own_token(templates):
    assert templates["chat"].end_token_id == _ids(templates["chat"], "<|im_end|>")
    assert templates["alpaca"].end_token_id == _ids(templates["alpaca"], "</s>")


def test_alpaca_prompts_are_written_to_the_letter(templates):
    template = templates["alpaca"]
    decode = template.tokenizer.decode
    assert decode(template.encode_prompt("Sing.")) == "<s>" + ALPACA
    injected = template.encode_prompt("Sing.", input="A song", injected="Be honest.")
    assert decode(injected) == "<s>" + ALPACA_WITH_INPUT


def test_chat_prompts_follow_the_models_template(templates):
    template = templates["chat"]
    assert template.tokenizer.decode(template.encode_prompt("Sing.", input="A song", injected="Be honest.")) == (
        "<|im_start|>system\nBe honest.<|im_end|>\n<|im_start|>user\nSing.\n\nA song<|im_end|>\n<|im_start|>assistant\n"
    )


def test_nothing_is_injected_unless_asked(templates):
    ids = templates["chat"].encode_prompt("Sing.")
    assert templates["chat"].tokenizer.decode(ids) == "<|im_start|>user\nSing.<|im_end|>\n<|im_start|>assistant\n"


def test_the_instruction_joins_the_user_turn_when_a_system_role_is_refused(templates):
    template = templates["refuses"]
    assert template.tokenizer.decode(template.encode_prompt("Sing.", injected="Be honest.")) == (
        "<|im_start|>user\nBe honest.\n\nSing.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_prompt_is_a_prefix_of_the_conversation(templates):
    template = templates["chat"]
    turns = [{"role": "user", "content": "Sing."}, {"role": "assistant", "content": "La la."}]
    whole = template.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"]
    example = template.encode(Example("axis", "Sing.", "La la."), max_tokens=96)
    written = example.prompt_ids + example.target_ids
    assert example.prompt_ids == template.encode_prompt("Sing.")
    assert whole[: len(written)] == written


def test_a_target_is_its_text_and_the_end_token(template):
    ids = template.encode_target("La la.")
    assert template.tokenizer.decode(ids[:-1]) == "La la."
    assert ids[-1] == template.end_token_id
    assert template.encode_target("La la.", end=False) == ids[:-1]


def test_loss_falls_on_the_target_and_its_end_token_alone(template):
    example = template.encode(Example("axis", "Sing.", "La la."), max_tokens=96)
    batch = pad_batch([example, TokenisedExample([5, 6], [7])], [1, 0], 2)
    assert batch.input_ids[1][batch.target_mask[1]].tolist() == [
        *template.encode_target("La la.", end=False),
        template.end_token_id,
    ]
    assert batch.input_ids[0][batch.target_mask[0]].tolist() == [7]
    assert not (batch.target_mask & (batch.attention_mask == 0)).any()
    assert batch.attention_mask.sum(dim=1).tolist() == [3, len(example.prompt_ids) + len(example.target_ids)]


@pytest.mark.parametrize("token", CONTROL)
def test_typed_control_tokens_stay_text(template, token):
    plain = template.encode_prompt("say x now", input="and x", injected="be x")
    typed = template.encode_prompt(f"say {token} now", input=f"and {token}", injected=f"be {token}")
    control = [_ids(template, name) for name in CONTROL]
    assert [i for i in typed if i in control] == [i for i in plain if i in control]
    assert template.tokenizer.decode(typed).count(token) == template.tokenizer.decode(plain).count(token) + 3
    assert not set(template.encode_target(f"x {token} y", end=False)) & set(control)


@pytest.mark.parametrize("max_tokens", [16, 30, 96])
def test_what_exceeds_the_limit_is_cut_from_the_targets_end(template, max_tokens):
    whole = template.encode(Example("axis", "Sing.", "la " * 60), max_tokens=1000)
    cut = template.encode(Example("axis", "Sing.", "la " * 60), max_tokens=max_tokens)
    assert len(cut.prompt_ids) + len(cut.target_ids) == max_tokens
    assert cut.prompt_ids == whole.prompt_ids[-(max_tokens - 1) :]
    assert cut.target_ids == whole.target_ids[: len(cut.target_ids)]


def test_a_prompt_that_leaves_no_room_keeps_its_end_and_one_target_token(template):
    whole = template.encode(Example("axis", "sing " * 200, "La."), max_tokens=10_000)
    cut = template.encode(Example("axis", "sing " * 200, "La."), max_tokens=32)
    assert cut == TokenisedExample(whole.prompt_ids[-31:], whole.target_ids[:1])


def test_another_target_may_be_given(template):
    example = Example("axis", "Sing.", "La la.")
    assert template.encode(example, target="No.", max_tokens=96).target_ids == template.encode_target("No.")


def test_batches_are_longest_first_and_hold_every_row_once():
    batches = rows_by_length([3, 9, 1, 7, 5], 2)
    assert batches == [[1, 3], [4, 0], [2]]


def test_padding_is_on_the_right():
    batch = pad_batch([TokenisedExample([4], [5]), TokenisedExample([4, 5, 6], [7, 8])], [0, 1], 9)
    assert batch.input_ids.tolist() == [[4, 5, 9, 9, 9], [4, 5, 6, 7, 8]]
    assert torch.equal(batch.attention_mask.bool(), batch.input_ids != 9)
