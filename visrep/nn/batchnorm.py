"""Batch normalisation that can share its statistics over processes or keep them to groups.

One module for N x C and N x C x H x W, with torch's parameter names. Its `mode` says whose
statistics normalise a training batch:

    local  this process's batch: nn.BatchNorm, bit for bit
    sync   the batches of all processes together (on one process: local)
    split  each of `groups` consecutive chunks of the batch alone: what so many processes with
           local statistics compute, here on one

torch's SyncBatchNorm refuses CPU tensors on several processes and has no groups; hence this one. It
is one of torch's batch norms all the same, so that what looks for those finds it:
`torch.optim.swa_utils.update_bn`, and `nn.SyncBatchNorm.convert_sync_batchnorm`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from visrep import dist
from visrep.errors import ConfigError

MODES = ("local", "sync", "split")


class BatchNorm(_BatchNorm):
    """Normalise channel c of N x C or N x C x H x W: weight * (x - mean) / sqrt(var + eps) + bias.

    `momentum` is torch's: running = (1 - momentum) * running + momentum * batch, with the unbiased
    variance; None for the plain mean over all batches. `bias=False` leaves out the bias, and
    `affine=False` both parameters (they act as 0 and 1). The output has the input's type;
    statistics are at least float32.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine)
        if not bias:
            self.register_parameter("bias", None)
        self.mode, self.groups = "local", 1

    def forward(self, x: Tensor) -> Tensor:
        momentum = self.momentum
        if self.training:
            self.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1 / float(self.num_batches_tracked)
            if self.mode == "sync" and dist.world_size() > 1:
                return _SyncBatchNorm.apply(
                    x,
                    self.weight,
                    self.bias,
                    self.running_mean,
                    self.running_var,
                    momentum,
                    self.eps,
                )
            if self.mode == "split" and self.groups > 1:
                return self._split(x, momentum)
        return self._normalise(x, self.running_mean, self.running_var, momentum or 0.0)

    def _normalise(self, x: Tensor, mean: Tensor, var: Tensor, momentum: float) -> Tensor:
        affine = (self.weight, self.bias)
        return F.batch_norm(x, mean, var, *affine, self.training, momentum, self.eps)

    def _split(self, x: Tensor, momentum: float) -> Tensor:
        """A call per chunk: one call on G*C channels needs two more copies of x in each direction,
        since the chunks of a contiguous batch cannot be seen as channels."""
        if len(x) % self.groups:
            raise ConfigError(
                f"batch norm in {self.groups} groups cannot cut a batch of {len(x)} evenly: "
                f"choose a batch size divisible by {self.groups}"
            )
        means = self.running_mean.repeat(self.groups, 1)  # G x C, a row for each chunk to update
        variances = self.running_var.repeat(self.groups, 1)
        parts = zip(x.chunk(self.groups), means, variances, strict=True)
        out = torch.cat([self._normalise(*part, momentum) for part in parts])
        self.running_mean.copy_(means.mean(0))
        self.running_var.copy_(variances.mean(0))
        return out

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # A counter that only momentum=None reads. Files from before torch 0.4.1, from TF and ours
        # lack it; torch's batch norm would ask for it by the version that is noted in the state.
        name = f"{prefix}num_batches_tracked"
        state_dict.setdefault(name, self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        mode = f"split in {self.groups}" if self.mode == "split" else self.mode
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, mode={mode}"


def set_batchnorm(module: nn.Module, *, mode: str, groups: int = 1) -> None:
    """Set the mode of every BatchNorm in `module`. Raises ConfigError on an unknown mode."""
    if mode not in MODES:
        raise ConfigError(f"batch norm mode '{mode}' is unknown: choose one of {', '.join(MODES)}")
    if groups < 1 or (groups > 1 and mode != "split"):
        raise ConfigError(f"batch norm groups={groups} needs mode=split and at least one group")
    for part in module.modules():
        if isinstance(part, BatchNorm):
            part.mode, part.groups = mode, groups


class _SyncBatchNorm(torch.autograd.Function):
    """Batch norm over the batches of all processes, one collective in each direction.

    With n values per channel in total and xhat = (x - mean) / std, the gradient is
    dx = weight / std * (dy - sum(dy)/n - xhat * sum(dy*xhat)/n), the sums over all processes;
    weight and bias receive this process's sums, which the engine adds up like any gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        x = x.contiguous(memory_format=_layout(x))
        mean, var = _statistics(x, eps)
        count = mean.new_tensor([x.numel() // x.shape[1]])
        # Gathered means and variances combine without the cancellation of E[x^2] - E[x]^2.
        rows = dist.gather(torch.cat([count, mean, var])[None])  # processes x (1 + 2C)
        counts, means, variances = rows.split([1, len(mean), len(mean)], dim=1)
        n = counts.sum()
        mean = (counts * means).sum(0) / n
        var = (counts * (variances + (means - mean).square())).sum(0) / n
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((var * n / (n - 1)).to(running_var.dtype), momentum)
        invstd = (var + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, invstd, counts.flatten())
        if x.is_cuda:
            return torch.batch_norm_elemt(x, weight, bias, mean, invstd, eps)
        scale = invstd if weight is None else weight * invstd
        shift = -mean * scale if bias is None else bias - mean * scale
        return torch.addcmul(_channels(shift, x), x.to(mean.dtype), _channels(scale, x)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, invstd, counts = ctx.saved_tensors
        dy = dy.contiguous(memory_format=_layout(x))
        if x.is_cuda:
            sum_dy, sum_dy_xmu, d_weight, d_bias = torch.batch_norm_backward_reduce(
                dy, x, mean, invstd, weight, True, True, True
            )
            totals = dist.sum(torch.stack([sum_dy, sum_dy_xmu]))
            dx = torch.batch_norm_backward_elemt(
                dy, x, mean, invstd, weight, totals[0], totals[1], counts.to(torch.int32)
            )
        else:
            wide = mean.dtype
            xhat = (x.to(wide) - _channels(mean, x)) * _channels(invstd, x)
            d_bias = dy.to(wide).sum(_all_but_channels(x))
            d_weight = (dy.to(wide) * xhat).sum(_all_but_channels(x))
            mean_dy, mean_dy_xhat = dist.sum(torch.stack([d_bias, d_weight])) / counts.sum()
            dx = dy.to(wide) - _channels(mean_dy, x) - xhat * _channels(mean_dy_xhat, x)
            dx = (dx * _channels(invstd if weight is None else weight * invstd, x)).to(x.dtype)
        needs = ctx.needs_input_grad
        return dx, d_weight if needs[1] else None, d_bias if needs[2] else None, *[None] * 4


def _statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel, in float32 or wider."""
    if x.is_cuda:  # one pass over x, without a float32 copy of it
        mean, invstd = torch.batch_norm_stats(x, eps)
        return mean, (invstd.pow(-2) - eps).clamp_min(0)
    wide = torch.promote_types(x.dtype, torch.float32)
    var, mean = torch.var_mean(x.to(wide), _all_but_channels(x), correction=0)
    return mean, var


def _all_but_channels(x: Tensor) -> list[int]:
    return [d for d in range(x.dim()) if d != 1]


def _layout(x: Tensor) -> torch.memory_format:
    """Channels-last for images that are so, else contiguous: what torch's kernels know."""
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last and not x.is_contiguous() else torch.contiguous_format


def _channels(values: Tensor, x: Tensor) -> Tensor:
    """C values in the shape that multiplies channel-wise with x."""
    return values.view(1, -1, *[1] * (x.dim() - 2))
