"""What a task returns is looked at in the first step; its defaults do nothing."""

import pytest
import torch

from visrep.engine.task import Progress, Task, require_outputs
from visrep.engine.trainer import Trainer
from visrep.errors import ConfigError

LOSS = torch.zeros((), requires_grad=True)
ROWS = torch.zeros(4, 2)


def test_what_is_asked_for_passes() -> None:
    good = {"loss": LOSS, "accuracy": torch.tensor(0.5), "share": 0.5}
    require_outputs(Task(), good, embeddings=False)
    require_outputs(Task(), good | {"embeddings": ROWS}, embeddings=True)


@pytest.mark.parametrize(
    ("outputs", "match"),
    [
        (LOSS, "forward must return a dict that holds loss, not Tensor"),
        ({"embeddings": ROWS}, "under loss a single number with a gradient"),
        ({"loss": LOSS.detach(), "embeddings": ROWS}, "under loss a single number with a gradient"),
        ({"loss": LOSS[None], "embeddings": ROWS}, "under loss a single number with a gradient"),
        ({"loss": LOSS}, "under embeddings rows n x D, detached"),
        ({"loss": LOSS, "embeddings": ROWS[0]}, "under embeddings rows n x D, detached"),
        ({"loss": LOSS, "embeddings": ROWS + LOSS}, "under embeddings rows n x D, detached"),
        ({"loss": LOSS, "embeddings": ROWS, "z": ROWS}, "under z a single number to log"),
    ],
)
def test_what_is_not_is_named_in_one_line(outputs, match) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        require_outputs(Task(), outputs, embeddings=True)
    text = str(caught.value)
    assert text.startswith("visrep.engine.task.Task.forward must return") and "\n" not in text


class Lossless(Task):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, batch):
        return {"accuracy": self.weight.sum()}


class Endless:
    def iterate(self, start_step):
        while True:
            yield {"size": 1}


def test_the_trainer_refuses_it_before_the_first_update() -> None:
    task = Lossless()
    optimizer = torch.optim.SGD(task.parameters(), lr=1.0)
    trainer = Trainer(
        task=task, optimizer=optimizer, schedule=float, batches=Endless(), total_steps=2
    )
    with pytest.raises(ConfigError, match="Lossless.forward must return under loss"):
        trainer.fit()
    assert trainer.step == 0 and torch.equal(task.weight, torch.ones(2))


def test_the_defaults_do_nothing() -> None:
    task, progress = Task(), Progress(0, 10)
    task.before_update(progress)
    task.after_update(progress)
    assert task.measures() == {} and not task.coupled and not task.state_dict()
