"""Every word of every format, unpacked in Triton, in PTX, and by the reference."""

from __future__ import annotations

import numpy as np
import ptx
import pytest
import torch
import triton
import triton.language as tl
from packed_matrices import FORMATS, numbers
from torch import Tensor

from dgemma_cli.kernels import unpack
from dgemma_cli.kernels.tiles import interpreting
from dgemma_cli.kernels.words import words_of

SCALES = {
    "nvfp4": torch.tensor([0, 1, 7, 8, 55, 126], dtype=torch.uint8),  # zero, subnormal, the least normal, ..., 448
    "int4": torch.tensor([1.0, -0.1, 0.037, 6e-5, 6e-8, 65504]).half(),
    "int8": torch.tensor([1.0, -0.1, 0.037, 6e-5, 65504]).half(),
    "fp8": torch.ones(1),
}
PLANES = {"nvfp4": 4, "int4": 4, "int8": 2, "fp8": 2}


@triton.jit
def _unpack(
    words_ptr, scales_ptr, word_ptr, planes_ptr, COUNT: tl.constexpr, FORM: tl.constexpr, PLANES: tl.constexpr,
    PTX: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * 16384 + tl.arange(0, 16384)
    scale = unpack.scale_word(tl.load(scales_ptr + tl.program_id(1) + 0 * at), FORM, PTX)
    tl.store(word_ptr + tl.program_id(1) + 0 * at, scale, mask=at == 0)
    planes = unpack.unpack(tl.load(words_ptr + at), scale, FORM, PTX)
    out = planes_ptr + (tl.program_id(1) * COUNT + at) * PLANES
    for plane in tl.static_range(PLANES):
        tl.store(out + plane, planes[plane])


def all_unpacked(form: str, device: torch.device, with_ptx: bool) -> tuple[Tensor, Tensor]:
    """Scale words [scales], and bfloat16 [scales, 65536 words, planes]."""
    words = torch.arange(-(2**15), 2**15, device=device).short()
    scales = SCALES[form].to(device)
    found = torch.full((len(scales), len(words), PLANES[form]), torch.nan, dtype=torch.bfloat16, device=device)
    scale_words = torch.empty(len(scales), dtype=torch.int32, device=device)
    _unpack[(len(words) // 16384, len(scales))](
        words, scales, scale_words, found, COUNT=len(words), FORM=form, PLANES=PLANES[form], PTX=with_ptx
    )
    return scale_words.cpu(), found.cpu()


@pytest.mark.parametrize("form", SCALES)
def test_ptx_gives_the_same_bits(device: torch.device, form: str) -> None:
    scale_words, found = all_unpacked(form, device, False)
    if not interpreting():  # the GPU's own PTX
        scale_words_there, found_there = all_unpacked(form, device, True)
        assert torch.equal(scale_words_there, scale_words)
        assert torch.equal(found_there.view(torch.int16), found.view(torch.int16))
    text = {"nvfp4": unpack.NVFP4, "int4": unpack.INT4, "int8": unpack.INT8, "fp8": unpack.FP8}[form].value
    if form == "nvfp4":
        given = SCALES[form].numpy().astype(np.uint32)
        (made,) = ptx.run(unpack.NVFP4_SCALE.value, 1, [given])
        assert np.array_equal(made, scale_words.numpy().view(np.uint32))
    pairs = np.arange(-(2**15), 2**15, dtype=np.int16).view(np.uint32)
    for index, scale in enumerate(scale_words.numpy().view(np.uint32)):
        inputs = [pairs] if form == "fp8" else [pairs, np.full_like(pairs, scale), np.full_like(pairs, scale)]
        made = np.stack([ptx.halves(plane) for plane in ptx.run(text, PLANES[form], inputs)], axis=-1)
        expected = found[index].double().numpy()
        assert np.array_equal(made.reshape(expected.shape), expected)


@pytest.mark.parametrize("name", FORMATS)
def test_planes_are_the_reference(device: torch.device, name: str) -> None:
    matrix = FORMATS[name](2, 2, 3, 128)
    words = words_of(matrix)
    assert (words.count, words.rows, words.columns) == (2, 6, 128)
    assert words.codes.shape == (2, 6, 128 // words.planes)
    assert words.codes.untyped_storage().data_ptr() != 0 and words.codes.is_contiguous()
    if name == "bf16":
        return
    values = torch.empty(2, 6, 128, dtype=torch.float64)
    for index in np.ndindex(2, 6):
        codes = words.codes[index]
        scale = torch.ones(1) if words.scale is None else words.scale[index]
        found = torch.full((len(codes), words.planes), torch.nan, dtype=torch.bfloat16, device=device)
        made = torch.empty(len(codes), dtype=torch.int32, device=device)
        spread = scale.repeat_interleave(len(codes) // len(scale))
        _unpack_row[(1,)](
            codes.to(device), spread.to(device), made, found, COUNT=len(codes), FORM=words.form, PLANES=words.planes,
            PTX=not interpreting(),
        )  # fmt: skip
        values[index] = found.cpu().double().flatten() * unpack.SUM_FACTOR.get(words.form, 1.0)
    if words.factor is not None:
        factor = words.factor.double().repeat_interleave(words.span).view(2, 6, 1)
        values = values / factor if words.divides else values * factor
    torch.testing.assert_close(values, numbers(matrix), rtol=2**-7 if words.form == "int8" else 1e-7, atol=0)


@triton.jit
def _unpack_row(
    words_ptr, scales_ptr, word_ptr, planes_ptr, COUNT: tl.constexpr, FORM: tl.constexpr, PLANES: tl.constexpr,
    PTX: tl.constexpr,
):  # fmt: skip
    at = tl.arange(0, COUNT)
    planes = unpack.unpack(
        tl.load(words_ptr + at), unpack.scale_word(tl.load(scales_ptr + at), FORM, PTX), FORM, PTX
    )  # fmt: skip
    for plane in tl.static_range(PLANES):
        tl.store(planes_ptr + at * PLANES + plane, planes[plane])
