import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visrep import dist
from visrep.errors import ConfigError
from visrep.nn import batchnorm
from visrep.nn.batchnorm import BatchNorm, set_batchnorm
from visrep.nn.resnet import ResNet

IMAGES, VECTORS = (8, 5, 4, 3), (8, 5)


def _input(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scale = torch.arange(1.0, shape[1] + 1).view(-1, *[1] * (len(shape) - 2))
    return (x * scale + 2 * scale).to(dtype)


def _set_up(module: nn.Module) -> nn.Module:
    """Numbers that differ by channel, in place of ones and zeros."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module


def _step(module: nn.Module, x: Tensor, weights: Tensor | None = None) -> dict[str, Tensor]:
    """Output, gradients and buffers of one forward and backward."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = module(x)
    if weights is None:
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    (out * weights).sum().backward()
    assert x.grad is not None
    result = {"out": out.detach(), "dx": x.grad}
    result |= {f"d {n}": p.grad for n, p in module.named_parameters() if p.grad is not None}
    return result | {n: b.clone() for n, b in module.named_buffers()}


def _assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name], tensor), name


def _assert_close(got: dict[str, Tensor], expected: dict[str, Tensor], **tolerance: float) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            got[name], tensor, msg=lambda m, n=name: f"{n}: {m}", **tolerance
        )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("shape", "layout", "dtype"),
    [
        (VECTORS, torch.contiguous_format, torch.float32),
        (IMAGES, torch.contiguous_format, torch.float32),
        (IMAGES, torch.channels_last, torch.float32),
        (IMAGES, torch.channels_last, torch.float64),
        (IMAGES, torch.contiguous_format, torch.bfloat16),
    ],
)
def test_local_is_torch_bit_for_bit(
    shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype, training: bool
) -> None:
    theirs = _set_up(nn.BatchNorm1d(5) if len(shape) == 2 else nn.BatchNorm2d(5))
    ours = BatchNorm(5)
    ours.load_state_dict(theirs.state_dict())
    if dtype == torch.float64:
        ours, theirs = ours.double(), theirs.double()
    x = _input(shape, dtype).contiguous(memory_format=layout)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        got, expected = (_step(m.train(training), x) for m in (ours, theirs))
    _assert_equal(got, expected)
    assert got["out"].stride() == expected["out"].stride()
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_without_bias_and_without_both() -> None:
    x = _input(IMAGES)
    affine = BatchNorm(5)
    scale = BatchNorm(5, bias=False)
    plain = BatchNorm(5, affine=False)
    assert [n for n, _ in scale.named_parameters()] == ["weight"]
    assert list(scale.state_dict()) == ["weight", *list(affine.state_dict())[2:]]
    assert not list(plain.parameters())
    with torch.no_grad():
        affine.weight.copy_(torch.rand(5))
        scale.weight.copy_(affine.weight)
    expected = _step(affine, x)
    del expected["d bias"]
    _assert_close(_step(scale, x), expected)
    _assert_equal(_step(plain, x), _step(nn.BatchNorm2d(5, affine=False), x))


def test_a_file_without_the_counter_loads() -> None:
    norm = _set_up(BatchNorm(5))
    state = {k: v for k, v in norm.state_dict().items() if k != "num_batches_tracked"}
    fresh = BatchNorm(5)
    fresh.load_state_dict(state)
    assert torch.equal(fresh.running_var, norm.running_var) and len(state) == 4
    with pytest.raises(RuntimeError, match="Missing.*running_mean"):
        fresh.load_state_dict({k: v for k, v in state.items() if k != "running_mean"})


@pytest.mark.parametrize("version", [None, 1, 2])
def test_a_state_of_any_version_loads_without_the_counter(version: int | None) -> None:
    """Snapshots of 0.1.0 note version 1, torch's own batch norm 2; encoder files none."""
    norm = _set_up(BatchNorm(5))
    state = norm.state_dict()
    assert state._metadata[""] == {"version": 2}
    del state["num_batches_tracked"]
    state._metadata[""] = {"version": version}
    fresh = BatchNorm(5)
    fresh.load_state_dict(state)
    assert torch.equal(fresh.running_mean, norm.running_mean) and fresh.num_batches_tracked == 0


# what torch does with its own batch norms


@pytest.mark.parametrize("mode", [("local", 1), ("sync", 1), ("split", 4)])
def test_update_bn_finds_ours(mode: tuple[str, int]) -> None:
    """Statistics become the means over the loader's batches, whatever they were."""
    torch.manual_seed(0)
    batches = [torch.randn(8, 3, 16, 16) for _ in range(3)]
    net = _small_net()
    set_batchnorm(net, mode=mode[0], groups=mode[1])
    net.train()(5 + 3 * batches[0])  # other statistics, which must not stay
    weight = net.bn1.weight.clone()
    torch.optim.swa_utils.update_bn(batches, net.eval())
    maps = [net.conv1(batch) for batch in batches]
    means = torch.stack([m.mean((0, 2, 3)) for m in maps])
    torch.testing.assert_close(net.bn1.running_mean, means.mean(0))
    variances = [c.var((0, 2, 3)) for m in maps for c in m.chunk(mode[1])]
    torch.testing.assert_close(net.bn1.running_var, torch.stack(variances).mean(0))
    assert net.bn1.num_batches_tracked == 3 and net.bn1.momentum == 0.1
    assert not net.training and torch.equal(net.bn1.weight, weight)


def test_convert_sync_batchnorm_keeps_every_number() -> None:
    net = nn.Sequential(
        _small_net(), BatchNorm(64), BatchNorm(64, bias=False), BatchNorm(64, affine=False)
    )
    _set_up(net)
    theirs = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))
    assert not any(isinstance(m, BatchNorm) for m in theirs.modules())
    converted = [m for m in theirs.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert len(converted) == 20 + 3
    assert [n for n, _ in theirs.named_parameters()] == [n for n, _ in net.named_parameters()]
    x = torch.randn(4, 3, 16, 16)
    for training in (True, False):
        _assert_equal(*(_step(m.train(training), x) for m in (theirs, net)))


# sync: two processes


def _half(module: nn.Module, parts: list[Tensor], grads: list[Tensor]) -> dict[str, Tensor]:
    return _step(module, parts[dist.rank()], grads[dist.rank()])


def _together(results: tuple[dict[str, Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What one process would see: rows joined, weight gradients added, buffers equal on both."""
    first, second = results
    joined: dict[str, Any] = {}
    for name in first:
        if name in ("out", "dx"):
            joined[name] = torch.cat([first[name], second[name]])
        elif name.startswith("d "):
            joined[name] = first[name] + second[name]
        else:
            assert torch.equal(first[name], second[name]), name
            joined[name] = first[name]
    return joined


@pytest.mark.parametrize("sizes", [(4, 4), (2, 6), (7, 1)])
@pytest.mark.parametrize("shape", [IMAGES, VECTORS])
@pytest.mark.parametrize("norm", ["affine", "scale", "plain"])
def test_sync_is_one_process_with_the_whole_batch(
    two_processes, shape: tuple[int, ...], sizes: tuple[int, int], norm: str
) -> None:
    module = _set_up(BatchNorm(5, affine=norm != "plain", bias=norm == "affine")).double()
    set_batchnorm(module, mode="sync")
    x = _input(shape, torch.float64)
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    got = _together(two_processes(_half, module, list(x.split(sizes)), list(grad.split(sizes))))
    _assert_close(got, _step(copy.deepcopy(module), x, grad))
    assert dist.world_size() == 1  # the expected values are those of plain batch norm


def test_sync_keeps_precision_far_from_zero_and_in_half(two_processes) -> None:
    generator = torch.Generator().manual_seed(5)
    x = (torch.randn(32, 5, 4, 3, generator=generator) + 3000).contiguous(
        memory_format=torch.channels_last
    )
    grads = list(torch.ones_like(x).split(16))
    module = BatchNorm(5)
    module.mode = "sync"
    got = _together(two_processes(_half, module, list(x.split(16)), grads))
    exact = x.double().var((0, 2, 3))
    torch.testing.assert_close(got["running_var"].double(), 0.9 + 0.1 * exact, rtol=1e-5, atol=0)
    assert got["out"].is_contiguous(memory_format=torch.channels_last)

    x = _input((32, 5, 4, 3)).bfloat16()
    got = _together(two_processes(_half, module, list(x.split(16)), grads))
    assert got["out"].dtype == got["dx"].dtype == torch.bfloat16
    exact = x.double().var((0, 2, 3))
    torch.testing.assert_close(got["running_var"].double(), 0.9 + 0.1 * exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("sk", [False, True])
def test_sync_in_a_whole_net(two_processes, sk: bool) -> None:
    torch.manual_seed(0)
    net = ResNet(depth=50, width=0.0625, sk=True, stem="d") if sk else _small_net()
    net = net.double()
    set_batchnorm(net, mode="sync")
    x = torch.randn(6, 3, 32, 32, dtype=torch.float64)
    grad = torch.randn(6, net.out_dim, dtype=torch.float64)
    got = _together(two_processes(_half, net, list(x.split([2, 4])), list(grad.split([2, 4]))))
    _assert_close(got, _step(copy.deepcopy(net), x, grad), rtol=1e-7, atol=1e-9)


def _small_net() -> ResNet:
    return ResNet(depth=18, width=0.125, stem="small", zero_init_residual=False)


def test_eval_uses_running_statistics_in_every_mode(two_processes) -> None:
    x = _input(IMAGES)
    module = _set_up(BatchNorm(5)).eval()
    expected = _step(copy.deepcopy(module), x)
    set_batchnorm(module, mode="split", groups=3)
    _assert_equal(_step(module, x), expected)
    set_batchnorm(module, mode="sync")
    grads = list(torch.ones_like(x).split(4))
    got = two_processes(_half, module, list(x.split(4)), grads)
    assert torch.equal(torch.cat([half["out"] for half in got]), expected["out"])


# split: groups in one process


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("groups", [2, 4])
def test_split_is_a_loop_over_chunks(layout: torch.memory_format, groups: int) -> None:
    x = _input(IMAGES).contiguous(memory_format=layout)
    grad = torch.randn(IMAGES, generator=torch.Generator().manual_seed(4))
    module = _set_up(BatchNorm(5))
    chunks = []
    for part, part_grad in zip(x.chunk(groups), grad.chunk(groups), strict=True):
        loop = nn.BatchNorm2d(5)
        loop.load_state_dict(module.state_dict())
        chunks.append(_step(loop, part, part_grad))
    set_batchnorm(module, mode="split", groups=groups)
    got = _step(module, x, grad)
    for name in ("out", "dx"):
        assert torch.equal(got[name], torch.cat([chunk[name] for chunk in chunks]))
    assert got["out"].is_contiguous(memory_format=layout)
    for name in ("d weight", "d bias"):
        torch.testing.assert_close(got[name], sum(chunk[name] for chunk in chunks))
    for name in ("running_mean", "running_var"):
        assert torch.equal(got[name], torch.stack([chunk[name] for chunk in chunks]).mean(0))
    assert got["num_batches_tracked"] == chunks[0]["num_batches_tracked"]


def test_split_is_so_many_processes_with_local_statistics(two_processes) -> None:
    torch.manual_seed(0)
    net = _small_net().double()
    x = torch.randn(8, 3, 16, 16, dtype=torch.float64)
    grad = torch.randn(8, net.out_dim, dtype=torch.float64)
    first, second = two_processes(_half, net, list(x.split(4)), list(grad.split(4)))
    set_batchnorm(net, mode="split", groups=2)
    got = _step(net, x, grad)
    for name, value in got.items():
        if name in ("out", "dx"):
            expected = torch.cat([first[name], second[name]])
        elif name.startswith("d "):
            expected = first[name] + second[name]
        elif name.endswith("num_batches_tracked"):
            expected = first[name]
        else:
            expected = (first[name] + second[name]) / 2
        torch.testing.assert_close(value, expected, rtol=1e-7, atol=1e-10)


def test_split_refuses_a_batch_it_cannot_cut() -> None:
    module = BatchNorm(5)
    set_batchnorm(module, mode="split", groups=3)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ConfigError, match="choose a batch size divisible by 3"):
        module(_input(IMAGES))
    assert torch.equal(module.running_mean, before["running_mean"])


def test_set_batchnorm_reaches_all_and_checks() -> None:
    net = _small_net()
    set_batchnorm(net, mode="split", groups=4)
    norms = [m for m in net.modules() if isinstance(m, BatchNorm)]
    assert len(norms) == 20 and {(m.mode, m.groups) for m in norms} == {("split", 4)}
    assert "split in 4" in repr(norms[0])
    set_batchnorm(net, mode="local")
    assert {(m.mode, m.groups) for m in norms} == {("local", 1)}
    for wrong in (
        {"mode": "global"},
        {"mode": "sync", "groups": 2},
        {"mode": "split", "groups": 0},
    ):
        with pytest.raises(ConfigError, match="choose|needs"):
            set_batchnorm(net, **wrong)


# GPU kernels: with one process they must give what F.batch_norm gives


@pytest.mark.gpu
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("affine", [True, False])
def test_the_kernels_of_a_gpu(
    layout: torch.memory_format, dtype: torch.dtype, affine: bool
) -> None:
    module = _set_up(BatchNorm(5, affine=affine)).cuda()
    x = _input(IMAGES).cuda().to(dtype).contiguous(memory_format=layout)
    grad = torch.randn(IMAGES, generator=torch.Generator().manual_seed(4)).cuda().to(dtype)
    expected = _step(copy.deepcopy(module), x, grad)

    def forward(x: Tensor) -> Tensor:
        module.num_batches_tracked += 1
        arguments = (module.weight, module.bias, module.running_mean, module.running_var)
        return batchnorm._SyncBatchNorm.apply(x, *arguments, module.momentum, module.eps)

    module.forward = forward  # type: ignore[method-assign]
    got = _step(module, x, grad)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {}
    _assert_close(got, expected, **tolerance)


def _both_on_gpu(parts: list[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    x = parts[dist.rank()].cuda()
    ours, theirs = BatchNorm(5).cuda(), nn.SyncBatchNorm(5).cuda()
    ours.mode = "sync"
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(4)).cuda()
    both = [{k: v.cpu() for k, v in _step(m, x, grad).items()} for m in (ours, theirs)]
    return both[0], both[1]


@pytest.mark.gpu
def test_sync_is_torch_s_on_a_gpu(two_processes) -> None:
    for ours, theirs in two_processes(_both_on_gpu, list(_input(IMAGES).split([3, 5]))):
        _assert_close(ours, theirs)


def test_the_formulas_of_sync_against_torch_on_one_process() -> None:
    x = _input(IMAGES, torch.float64).requires_grad_()
    weight, bias = torch.rand(2, 5, dtype=torch.float64)
    mean, var = torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return batchnorm._SyncBatchNorm.apply(x, weight, bias, mean, var, 0.1, 1e-5)

    arguments = (x, weight.requires_grad_(), bias.requires_grad_())
    torch.testing.assert_close(ours(*arguments), F.batch_norm(x, None, None, weight, bias, True))
    assert torch.autograd.gradcheck(ours, arguments)
