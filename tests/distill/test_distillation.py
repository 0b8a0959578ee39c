"""Known answers of the distillation loss and what must not happen to a teacher."""

import math

import pytest
import torch
from torch import Tensor

from visrep.distill.distillation import Distillation, distillation_loss, entropy, soft_cross_entropy
from visrep.errors import ConfigError
from visrep.nn.classifier import Classifier
from visrep.nn.resnet import ResNet
from visrep.weights.encoder_file import fingerprint

TEACHER = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
STUDENT = torch.tensor([[0.5, -0.2, 0.1]], dtype=torch.float64)


def tiny(*, classes: int = 5, zero_init: bool = True, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    encoder = ResNet(depth=18, width=0.0625, stem="small")
    return Classifier(encoder=encoder, classes=classes, zero_init=zero_init)


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("temperature", "at_teacher", "at_student", "gradient"),
    [
        (0.1, 0.000499, 0.019363, (-0.188193, 0.008493, 0.179701)),
        (1.0, 0.832396, 0.980622, (-0.203753, -0.015560, 0.219314)),
        (2.0, 1.020191, 1.070398, (-0.055096, -0.013968, 0.069065)),
    ],
)
def test_soft_cross_entropy_known_answers(
    temperature: float, at_teacher: float, at_student: float, gradient: tuple[float, ...]
) -> None:
    student = STUDENT.clone().requires_grad_()
    loss = soft_cross_entropy(student, TEACHER, temperature=temperature)
    loss.backward()
    assert loss.item() == pytest.approx(at_student, abs=1e-6)
    assert student.grad is not None
    assert student.grad[0].tolist() == pytest.approx(list(gradient), abs=1e-6)
    assert entropy(TEACHER, temperature=temperature).item() == pytest.approx(at_teacher, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.0])
def test_student_equal_to_teacher_has_no_gradient_and_zeros_give_ln_3(temperature: float) -> None:
    same = TEACHER.clone().requires_grad_()
    values = distillation_loss(same, TEACHER, temperature=temperature)
    values["loss"].backward()
    assert same.grad is not None
    assert same.grad.abs().max().item() < 1e-12
    assert values["kl"].item() == pytest.approx(0.0, abs=1e-12)
    zeros = soft_cross_entropy(torch.zeros(4, 3), TEACHER.expand(4, 3), temperature=temperature)
    assert zeros.item() == pytest.approx(math.log(3), abs=1e-6)


@pytest.mark.parametrize(
    ("temperature", "loss"), [(0.1, 0.000194), (1.0, 0.980622), (2.0, 4.281592)]
)
def test_tau_squared_is_the_notebooks_form(temperature: float, loss: float) -> None:
    values = distillation_loss(STUDENT, TEACHER, temperature=temperature, tau_squared=True)
    assert values["loss"].item() == pytest.approx(loss, abs=2e-6)


def test_kl_is_the_mean_over_images_not_over_classes() -> None:
    values = distillation_loss(STUDENT.repeat(3, 1), TEACHER.repeat(3, 1))
    assert values["kl"].item() == pytest.approx(0.148227, abs=1e-6)
    assert not values["kl"].requires_grad


@pytest.mark.parametrize(("alpha", "loss"), [(0.0, 0.773300), (0.5, 0.876961), (1.0, 0.980622)])
def test_mix_with_labels(alpha: float, loss: float) -> None:
    values = distillation_loss(STUDENT, TEACHER, torch.tensor([0]), alpha=alpha)
    assert values["loss"].item() == pytest.approx(loss, abs=1e-6)


def test_images_without_a_label_are_left_out_of_the_hard_part() -> None:
    student, teacher = STUDENT.repeat(3, 1), TEACHER.repeat(3, 1)
    mixed = distillation_loss(student, teacher, torch.tensor([-1, 0, -1]), alpha=0.5)
    assert mixed["loss"].item() == pytest.approx(0.876961, abs=1e-6)
    none = distillation_loss(student, teacher, torch.tensor([-1, -1, -1]), alpha=0.5)
    assert none["ce"].item() == 0
    assert none["loss"].item() == pytest.approx(0.980622 / 2, abs=1e-6)


def test_softmaxes_are_at_least_float32() -> None:
    student, teacher = STUDENT.bfloat16(), TEACHER.bfloat16()
    wide = soft_cross_entropy(student.double(), teacher.double(), temperature=0.1)
    narrow = soft_cross_entropy(student, teacher, temperature=0.1)
    assert narrow.dtype == torch.float32
    assert narrow.item() == pytest.approx(wide.item(), rel=1e-5)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"alpha": 1.5}, {"alpha": 0.5}])
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        distillation_loss(STUDENT, TEACHER, **wrong)


def test_zero_classifier_starts_at_ln_classes_with_no_gradient_in_the_backbone() -> None:
    student = tiny(classes=1000).train()
    teacher = tiny(classes=1000, zero_init=False, seed=1)
    values = Distillation(teacher=teacher, student=student)({"views": [images(4)]})
    values["loss"].backward()
    assert values["loss"].item() == pytest.approx(6.907755, abs=1e-5)
    assert all(p.grad is not None and not p.grad.any() for p in student.encoder.parameters())
    assert student.fc.weight.grad is not None
    assert student.fc.weight.grad.any()


def test_teacher_answers_for_an_image_do_not_depend_on_the_batch() -> None:
    task = Distillation(teacher=tiny(zero_init=False), student=tiny(seed=1))
    task.train()  # must not reach the teacher
    with torch.no_grad():
        batch = task.teacher(images(6))
        alone = torch.cat([task.teacher(x[None]) for x in images(6)])
    torch.testing.assert_close(batch, alone)


def test_teacher_stays_as_it_is_and_kl_falls() -> None:
    teacher, student = tiny(zero_init=False), tiny(seed=1)
    with torch.no_grad():
        teacher.fc.weight.mul_(20)  # answers with some contrast
    before = fingerprint(teacher.state_dict())
    task = Distillation(teacher=teacher, student=student).train()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1, momentum=0.9)
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in task.parameters()}
    assert all(name.startswith("student.") for name in task.state_dict())
    divergence = []
    for step in range(40):
        values = task({"views": [images(16, seed=step % 4)]})
        optimizer.zero_grad()
        values["loss"].backward()
        optimizer.step()
        divergence.append(values["kl"].item())
    assert fingerprint(teacher.state_dict()) == before
    assert all(p.grad is None for p in teacher.parameters())
    assert sum(divergence[-8:]) < 0.5 * sum(divergence[:8])


def test_labels_are_found_by_the_index_of_the_image() -> None:
    labels = torch.tensor([-1, 3, -1, 1])
    task = Distillation(
        teacher=tiny(zero_init=False), student=tiny(seed=1), alpha=0.25, labels=labels
    )
    batch = {"views": [images(3)], "index": torch.tensor([3, 0, 1])}
    values = task(batch)
    expected = torch.nn.functional.cross_entropy(
        task.student(batch["views"][0])[[0, 2]], torch.tensor([1, 3])
    )
    assert values["ce"].item() == pytest.approx(expected.item(), abs=1e-6)
