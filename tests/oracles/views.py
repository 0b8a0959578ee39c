"""torchvision's own operators, one sample at a time, with the parameters that were drawn.

Only a resize without antialiasing is TensorFlow's.
"""

import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

from tests.oracles.resize import resized
from visrep.data.views.batch import Params, View, Views
from visrep.data.views.operations import Blur, Gray, Invert, Jitter, Solarize

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def view_of(image: Tensor, params: Params, i: int, v: int, views: Views) -> Tensor:
    """View v of a uint8 3 x H x W image: 3 x size x size, normalised."""
    spec, drawn = views.views[v], params[i : i + 1]
    box = drawn.boxes(v, image.shape[1], image.shape[2])[0].tolist()
    top, left, height, width = box
    if spec.antialias:
        size, mode = [spec.size, spec.size], InterpolationMode(spec.interpolation)
        x = tv.resized_crop(image.float(), *box, size, interpolation=mode, antialias=True)
    else:
        crop = image[:, top : top + height, left : left + width]
        x = torch.from_numpy(resized(crop.numpy(), spec.size, spec.interpolation)).float()
    x = x.clamp(0, 255) / 255
    if drawn.flip(v)[0]:
        x = tv.horizontal_flip(x)
    return tv.normalize(colored(x, drawn, v, spec), views.mean, views.std)


def colored(x: Tensor, drawn: Params, v: int, spec: View) -> Tensor:
    """The operations on the only sample of `drawn`."""
    for operation in spec.operations:
        uniforms = drawn.of(v, operation)
        numbers = uniforms[:, 1:]
        if uniforms[0, 0] >= operation.p:
            continue
        if isinstance(operation, Jitter):
            x = jittered(x, operation.order(numbers)[0], operation.factors(numbers)[0], operation)
        elif isinstance(operation, Gray):
            x = tv.rgb_to_grayscale(x, 3)
        elif isinstance(operation, Blur):
            sigma = float(operation.drawn_sigma(numbers)[0])
            x = tv.gaussian_blur(x, [operation.width(spec.size)] * 2, [sigma] * 2)
        elif isinstance(operation, Solarize):
            x = tv.solarize(x, operation.threshold)
        else:
            assert isinstance(operation, Invert)
            x = tv.invert(x)
    return x


def jittered(x: Tensor, order, factors, jitter: Jitter) -> Tensor:
    """ColorJitter with given order and factors."""
    for place in order:
        factor = float(factors[place])
        if jitter.strength[place] == 0:
            continue
        if place == BRIGHTNESS:
            x = (x + factor).clamp(0, 1) if jitter.additive else tv.adjust_brightness(x, factor)
        elif place == CONTRAST:
            x = tv.adjust_contrast(x, factor)
        elif place == SATURATION:
            x = tv.adjust_saturation(x, factor)
        else:
            assert place == HUE
            x = tv.adjust_hue(x, factor)
    return x


def photos(count: int, height: int, width: int, *, seed: int = 0) -> Tensor:
    """uint8 count x 3 x height x width: smooth colours with some noise and flat grey parts."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=draw) * 1.4 - 0.2
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    noise = 0.05 * torch.randn(count, 3, height, width, generator=draw)
    images = ((smooth + noise).clamp(0, 1) * 255).round()
    images[:, :, : height // 4, : width // 4] = 77.0
    return images.to(torch.uint8)
