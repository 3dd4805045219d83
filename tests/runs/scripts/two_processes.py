"""What every process of two must see: torchrun --nproc_per_node 2 two_processes.py MODEL."""

import sys
import time

import pytest
import torch

from alignx.errors import ArtifactError
from alignx.models.load import load_base
from alignx.models.scoring import PromptAnswers, answer_log_probs
from alignx.runs import processes
from alignx.stage1.activations import last_prompt_states


def only_the_main_process_makes_what_all_get() -> None:
    made = []
    assert processes.from_main(lambda: made.append(1) or processes.rank()) == 0
    assert made == ([1] if processes.is_main() else [])


def an_error_of_the_main_process_is_raised_on_all() -> None:
    def fail() -> None:
        raise ArtifactError("x: damaged; remove it")

    with pytest.raises(ArtifactError, match="x: damaged"):
        processes.from_main(fail)

    def fail_otherwise() -> None:
        raise KeyError("y")

    with pytest.raises(RuntimeError, match="the main process failed with KeyError: 'y'"):
        processes.from_main(fail_otherwise)


def none_returns_before_all_have_come() -> None:
    started = time.monotonic()
    if processes.is_main():
        time.sleep(0.5)
    processes.from_main(lambda: None)
    assert processes.is_main() or time.monotonic() - started > 0.3


def items_come_back_in_order_of_processes() -> None:
    assert processes.gather([processes.rank()] * (processes.rank() + 1)) == [0, 1, 1]
    assert processes.gather(list(processes.own_share([7]))) == [7]


def tensors_come_back_to_the_bit() -> None:
    own = torch.tensor([[-0.0, 1e-45], [float("inf"), 2.0 + processes.rank()]])
    first, second = processes.gather([own])
    assert torch.equal((first, second)[processes.rank()].view(torch.int32), own.view(torch.int32))
    assert (first[1, 1], second[1, 1]) == (2.0, 3.0)


def shared_passes_give_what_one_process_gets(folder: str) -> None:
    base = load_base(folder)
    prompts = [[5 + n, *range(6, 8 + n)] for n in range(7)]
    items = [PromptAnswers(prompt, [[9, 10], [11]]) for prompt in prompts]

    def results(prompts, items):
        states = last_prompt_states(base, prompts, [0, 2], batch_size=2)
        return states, answer_log_probs(base, items, batch_size=3)

    together, one = results(prompts, items), results(prompts[:1], items[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "world", lambda: 1)
        patch.setattr(processes, "rank", lambda: 0)
        alone, one_alone = results(prompts, items), results(prompts[:1], items[:1])
    assert torch.equal(together[0], alone[0]) and together[1] == alone[1]
    assert torch.equal(one[0], one_alone[0]) and one[1] == one_alone[1]


def main() -> None:
    torch.set_num_threads(1)
    assert processes.world() == 2
    only_the_main_process_makes_what_all_get()
    an_error_of_the_main_process_is_raised_on_all()
    none_returns_before_all_have_come()
    items_come_back_in_order_of_processes()
    tensors_come_back_to_the_bit()
    shared_passes_give_what_one_process_gets(sys.argv[1])
    processes.leave()


main()
