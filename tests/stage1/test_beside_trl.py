"""Golden against TRL's SFTTrainer: the same adapter, batch and recipe give the same gradients and the same losses."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model

from alignx.config import Stage1Config
from alignx.data.example import Example
from alignx.models.fused_lora import fused_lora
from alignx.models.packed import can_pack, pack, packed_attention
from alignx.stage1.loop import SupervisedLoss
from alignx.stage1.schedule import TrainingJob, training_steps
from alignx.stage1.train import train_adapter

trl = pytest.importorskip("trl", reason="needs the `bench` extra")

EXAMPLES = [Example("honest", f"What is {n} plus 1?", f"It is {n + 1}, {'so ' * (n % 5)}yes.") for n in range(10)]
SETTINGS = Stage1Config(rank=2, alpha=4, batch_size=4, precision="float32", max_tokens=96, warmup_fraction=0.0)
JOB = TrainingJob("honest", EXAMPLES, {}, 0.0, 1e-2, 1, 0)


def _lora() -> LoraConfig:
    return LoraConfig(r=SETTINGS.rank, lora_alpha=SETTINGS.alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def _trl_trainer(base, folder, batch_size):
    """SFTTrainer on the examples in our order; a processor's bf16 is switched off, the rest is its default."""
    rows = [
        {
            "input_ids": example.prompt_ids + example.target_ids,
            "labels": [-100] * len(example.prompt_ids) + example.target_ids,
        }
        for step in training_steps(JOB, base.template, SETTINGS)
        for example in step.examples
    ]
    torch.manual_seed(JOB.seed)
    return trl.SFTTrainer(
        model=get_peft_model(base.model, _lora()),  # given a LoraConfig, it draws other numbers before the adapter's
        processing_class=base.tokenizer,
        train_dataset=Dataset.from_list(rows),
        args=trl.SFTConfig(
            output_dir=str(folder),
            bf16=False,
            use_cpu=True,
            learning_rate=JOB.learning_rate,
            lr_scheduler_type="cosine",
            weight_decay=SETTINGS.weight_decay,
            num_train_epochs=1,
            per_device_train_batch_size=batch_size,
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
    )


def _lora_weights(model):
    """Adapter weights by a name that both wrappers share."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("name", ["llama", "deepseek"])
def test_gradients_of_a_step_are_trls(load_tiny, tmp_path, name):
    theirs = load_tiny(name)
    trainer = _trl_trainer(theirs, tmp_path, len(EXAMPLES))
    weights = _lora_weights(trainer.model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # B starts at zero, which would leave A without a gradient
        for weight in weights.values():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    loss.backward()

    ours = load_tiny(name)
    examples = [example for step in training_steps(JOB, ours.template, SETTINGS) for example in step.examples]
    n_targets = sum(len(example.target_ids) for example in examples)
    assert can_pack(ours.model, SETTINGS.max_tokens)
    peft_model = get_peft_model(ours.model, _lora())
    own = _lora_weights(peft_model)
    assert own.keys() == weights.keys()
    with torch.no_grad():
        for key, weight in own.items():
            weight.copy_(weights[key])
    batch = pack(examples)
    inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
    with fused_lora(peft_model) as n_fused, packed_attention(ours.model):
        assert n_fused == len(own) / 2
        found = SupervisedLoss(ours.model, "float32")(inputs, batch.target_mask, batch.lengths, 1 / n_targets)
        found.backward()

    assert found.item() == pytest.approx(loss.item(), rel=1e-5)
    for key, weight in own.items():
        expected = weights[key].grad
        assert float((weight.grad - expected).norm() / expected.norm()) < 1e-4, key


def test_a_whole_training_has_trls_losses(load_tiny, tmp_path):
    trainer = _trl_trainer(load_tiny("llama"), tmp_path / "trl", SETTINGS.batch_size)
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    summary = train_adapter(load_tiny("llama"), JOB, SETTINGS, tmp_path / "ours" / "adapter", extra={})
    assert summary.losses == pytest.approx(theirs, rel=1e-3)
