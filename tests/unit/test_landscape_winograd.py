"""The 3 x 3 convolution of the rounding tier against torch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg import _core
from thalweg.landscape.program import winograd
from thalweg.landscape.program.affine import Affine

SHAPES = [(2, 8, 8, 4, 4), (3, 16, 24, 7, 9), (1, 8, 16, 1, 1), (5, 24, 8, 3, 13), (2, 32, 64, 8, 8), (7, 8, 8, 5, 2)]


def image(samples: int, channels: int, height: int, width: int) -> Tensor:
    return torch.randn(samples, channels, height, width).contiguous(memory_format=torch.channels_last)


def transformed(weight: Tensor) -> Tensor:
    flat, view = winograd.as_flat(weight)
    return view(flat[None])[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_equals_torch_in_float64(
    isa: str, threads: int, shape: tuple[int, int, int, int, int], bias: bool, added: bool, relu: bool
) -> None:
    torch.set_num_threads(threads)
    samples, inputs, outputs, height, width = shape
    x, weight = image(samples, inputs, height, width), torch.randn(outputs, inputs, 3, 3)
    b = torch.randn(outputs) if bias else None
    more = image(samples, outputs, height, width) if added else None
    found = winograd.convolved(x, transformed(weight), b, more, relu)
    expected = F.conv2d(x.double(), weight.double(), None if b is None else b.double(), padding=1)
    expected = expected if more is None else expected + more.double()
    expected = torch.relu(expected) if relu else expected
    # The sums of F(4 x 4, 3 x 3) are of terms up to some thirty times as large as the results.
    scale = float(F.conv2d(x.double().abs(), weight.double().abs(), padding=1).max())
    assert float((found.double() - expected).abs().max()) < 3e-6 * scale
    error = float((found.double() - expected).pow(2).mean().sqrt())
    assert error < 4e-6 * float(expected.pow(2).mean().sqrt())
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_bits_do_not_depend_on_threads() -> None:
    x, u = image(9, 16, 13, 11), transformed(torch.randn(32, 16, 3, 3))
    outs = []
    for threads in (1, 2, 3):
        out = torch.empty(9, 32, 13, 11).contiguous(memory_format=torch.channels_last)
        _core.convolve_3x3(x, u, None, None, out, False, threads)
        outs.append(out)
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


def test_nan_and_infinity_stay() -> None:
    x = image(1, 8, 8, 8)
    x[0, 3, 2, 2] = torch.nan
    out = winograd.convolved(x, transformed(torch.randn(8, 8, 3, 3)), None, None, True)
    assert out[0, :, 1:4, 1:4].isnan().all()
    x[0, 3, 2, 2] = torch.inf
    assert (
        not winograd.convolved(x, transformed(torch.randn(8, 8, 3, 3)), None, None, False)[0, :, 2, 2].isfinite().any()
    )


def layer(**changes: object) -> Affine:
    arguments = {"in_channels": 8, "out_channels": 16, "kernel_size": 3, "padding": 1} | changes
    module = nn.Conv2d(**arguments)  # type: ignore[arg-type]
    return Affine(module, [module.weight.detach()], [])


def test_only_layers_of_its_kind_are_taken() -> None:
    assert winograd.suits(layer())
    assert winograd.suits(layer(padding="same"))
    others: list[dict[str, object]] = [
        {"padding": 0}, {"stride": 2}, {"dilation": 2, "padding": 2}, {"groups": 2}, {"in_channels": 12},
        {"out_channels": 10}, {"kernel_size": 5, "padding": 2}, {"padding_mode": "circular"}, {"dtype": torch.float64},
    ]  # fmt: skip
    for changes in others:
        assert not winograd.suits(layer(**changes)), changes


def test_tensors_that_do_not_fit_are_refused() -> None:
    x, u = image(2, 8, 4, 4), transformed(torch.randn(8, 8, 3, 3))
    out = torch.empty(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    for bad in ((x.contiguous(), u, out), (x.double(), u, out), (x, u[:35], out), (x, u, out[:1]), (x[:, :4], u, out)):
        with pytest.raises(ValueError, match="convolve_3x3: expected"):
            _core.convolve_3x3(bad[0], bad[1], None, None, bad[2], False, 1)
    with pytest.raises(ValueError, match="a bias"):
        _core.convolve_3x3(x, u, torch.zeros(7), None, out, False, 1)
    with pytest.raises(ValueError, match="addend"):
        _core.convolve_3x3(x, u, None, x[:1], out, False, 1)
    assert np.isfinite(winograd.convolved(x, u, None, None, False).numpy()).all()
