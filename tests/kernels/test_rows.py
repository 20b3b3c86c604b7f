"""Rows of a packed embedding, and their mean, against the reference."""

from __future__ import annotations

import pytest
import torch
from packed_matrices import FORMATS

from dgemma_cli.kernels.embedding import PackedEmbedding
from dgemma_cli.kernels.int8 import Int8
from dgemma_cli.kernels.rows import unpacked_rows


@pytest.mark.parametrize("columns", [64, 192, 1088])  # one of them more than a program's, with an end in it
@pytest.mark.parametrize("rows", [slice(None), slice(3, 8), slice(9, 30)])
def test_rows(device: torch.device, columns: int, rows: slice) -> None:
    matrix = FORMATS["int8"](1, 1, 11, columns)
    assert isinstance(matrix, Int8)
    matrix = matrix.to(device)
    assert torch.equal(unpacked_rows(matrix, rows), matrix.unpack(0, torch.bfloat16, rows))


def test_the_mean(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgemma_cli.kernels.embedding._BLOCK", 16)
    matrix = FORMATS["int8"](1, 1, 37, 128)
    assert isinstance(matrix, Int8)
    embedding = PackedEmbedding(matrix, torch.bfloat16).to(device)
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(5, 37, generator=generator).softmax(-1).bfloat16().to(device)
    expected = embedding.mean(probabilities)
    assert torch.equal(embedding.mean(probabilities, unpacked_rows), expected)
    exact = probabilities.double() @ matrix.unpack(0, torch.float32).double()
    torch.testing.assert_close(expected.double(), exact, rtol=2**-7, atol=2**-7 * float(exact.abs().mean()))
