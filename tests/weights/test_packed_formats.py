"""Every packed format: bits of the unpacked weights, logits against transformers, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import oracle
import pytest
import raw_files
import torch
import unpacking
from raw_files import Raw
from test_logits_parity import distance, ours, theirs
from torch import Tensor

from dgemma_cli.errors import CheckpointError
from dgemma_cli.kernels.packed import Packed
from dgemma_cli.model.model import Model
from dgemma_cli.weights.loader import load_model

FORMATS = ["nvfp4", "nvfp4-redhat", "int4", "fp8", "nvfp4-8bit", "int4-4bit"]
PACKED_BYTES = ("weight_packed", "weight_scale", "weight_scale_2", "weight_global_scale")


def unpacked(model: Model) -> dict[str, Tensor]:
    """The matrices of all packed modules, by the names of the checkpoint."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if not isinstance(module, Packed):
            continue
        theirs = "model.decoder." + name.removeprefix("stack.").replace("conditioning.mlp.", "conditioning.")
        for index in range(module.count):
            values = module.unpack(index, torch.float32)
            if theirs.endswith("experts.gate_up"):
                own = theirs.replace("gate_up", str(index))
                found[f"{own}.gate_proj.weight"], found[f"{own}.up_proj.weight"] = values.chunk(2)
            elif theirs.endswith("experts.down"):
                found[theirs.replace("down", f"{index}.down_proj") + ".weight"] = values
            else:
                found.update(zip(*_apart(theirs, values, model), strict=False))
    return found


def _apart(name: str, values: Tensor, model: Model) -> tuple[list[str], Sequence[Tensor]]:
    """The names and numbers of a matrix's parts, if it has several."""
    name, _, part = name.removesuffix(".matrix").partition(".parts.")
    *_, layer, _, fused = name.split(".")
    letters: Sequence[str] = {"qkv_proj": "qkv", "gate_up_proj": ("gate", "up")}.get(fused, ())
    names = [name.replace(fused, f"{letter}_proj") + ".weight" for letter in letters]
    if part:
        return [names[int(part)]], [values]
    if fused == "qkv_proj":
        shape = model.config.layers[int(layer)]
        heads = [shape.num_heads] + [shape.num_kv_heads] * (2 if shape.sliding else 1)
        return names, values.split([shape.head_dim * each for each in heads])
    if fused == "gate_up_proj":
        return names, values.chunk(2)
    return [f"{name}.weight"], [values]


@pytest.mark.parametrize("form", FORMATS)
def test_unpacked_weights_are_equal_to_the_bit(tmp_path: Path, form: str) -> None:
    folder = unpacking.checkpoint(tmp_path, form)
    expected = unpacking.dequantised(folder)
    found = unpacked(load_model(folder, "cpu", "float32"))
    packed = {name for name, _ in raw_files.all_tensors(folder) if name.endswith("weight_scale")}
    assert set(found) == {name.removesuffix("_scale") for name in packed}
    for name, values in found.items():
        assert values.dtype == torch.float32
        assert torch.equal(values.view(torch.int32), expected[name].view(torch.int32)), name


@pytest.mark.parametrize("form", FORMATS)
def test_every_code(tmp_path: Path, form: str) -> None:
    """All 256 bytes as codes, and FP8 scales from the smallest to the largest."""
    folder = unpacking.checkpoint(tmp_path, form)
    name = "model.decoder.layers.1.experts.3.down_proj."

    def spread(tensors: Raw) -> None:
        codes = name + ("weight_packed" if name + "weight_packed" in tensors else "weight")
        dtype, shape, data = tensors[codes]
        finite = [byte for byte in range(256) if dtype != "F8_E4M3" or byte not in (0x7F, 0xFF)]
        tensors[codes] = (dtype, shape, bytes(finite[i % len(finite)] for i in range(len(data))))
        dtype, shape, data = tensors[f"{name}weight_scale"]
        if dtype == "F8_E4M3":
            tensors[f"{name}weight_scale"] = (dtype, shape, bytes(i % 127 for i in range(len(data))))

    raw_files.change(raw_files.shards(folder)[0], spread)
    found = unpacked(load_model(folder, "cpu", "float32"))[f"{name}weight"]
    expected = unpacking.dequantised(folder)[f"{name}weight"]
    assert torch.equal(found.view(torch.int32), expected.view(torch.int32))
    assert expected.unique().numel() > 200


@pytest.mark.parametrize("form", ["bf16", *FORMATS])
def test_logits_equal_transformers_with_the_unpacked_weights(tmp_path: Path, form: str) -> None:
    folder = unpacking.checkpoint(tmp_path / form, form)
    reference = oracle.reload_in_float64(unpacking.plain_copy(folder, tmp_path / "plain"))
    model = load_model(folder, "cpu", "float32")
    ids = torch.randint(0, 211, (37 + 4 * 16,), generator=torch.Generator().manual_seed(1))
    prompt, canvases = ids[:37], ids[37:].view(4, 16)
    for found, expected in zip(ours(model, prompt, canvases), theirs(reference, prompt, canvases), strict=True):
        assert distance(found, expected) < 2e-5


def test_blocks_of_a_packed_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are unpacked some at a time; the last block is shorter."""
    folder = unpacking.checkpoint(tmp_path, "nvfp4-8bit")
    weight = unpacking.dequantised(folder)["model.decoder.embed_tokens.weight"]
    model = load_model(folder, "cpu", "float32")
    generator = torch.Generator().manual_seed(2)
    hidden, logits = torch.randn(2, 5, 64, generator=generator), torch.randn(5, 211, generator=generator) * 3
    ids = torch.randint(0, 211, (2, 7), generator=generator)
    for block in (1, 50, 211, 4096):
        monkeypatch.setattr("dgemma_cli.kernels.embedding._BLOCK", block)
        torch.testing.assert_close(model.embed_tokens(ids), weight[ids], rtol=0, atol=0)
        torch.testing.assert_close(model.embed_tokens.scores(hidden), hidden @ weight.T)
        torch.testing.assert_close(model.soft_embedding(logits), logits.softmax(-1) @ weight * 8)


@pytest.mark.parametrize("form", FORMATS)
def test_weights_stay_packed(tmp_path: Path, form: str) -> None:
    """What is resident are the stored bytes of the text model and nothing beside. The plain ones, which are bfloat16 in
    the file, are counted at that size: on some CPUs they are laid out anew, and are no parameters then.
    """
    folder = unpacking.checkpoint(tmp_path, form)
    model = load_model(folder, "cpu", "float32")
    held = 2 * sum(tensor.numel() for tensor in model.parameters())
    held += sum(tensor.numel() * tensor.element_size() for tensor in model.buffers())
    unused = ("input_scale", "input_global_scale", "weight_shape")
    stored = sum(
        len(data)
        for name, (_, _, data) in raw_files.all_tensors(folder)
        if "vision" not in name and not name.endswith(unused)
    )
    assert held == stored


@pytest.mark.parametrize("form", FORMATS)
def test_bfloat16_is_the_float32_weight_rounded_once(tmp_path: Path, form: str) -> None:
    model = load_model(unpacking.checkpoint(tmp_path, form), "cpu", "bfloat16")
    experts: Any = model.stack.layers[0].experts
    exact = experts.gate_up.unpack(2, torch.float32)
    assert torch.equal(experts.gate_up.unpack(2, torch.bfloat16), exact.bfloat16())
    assert not torch.equal(exact.bfloat16().float(), exact)


def test_ignore_list_decides(tmp_path: Path) -> None:
    """q packed, k and v plain, one layer's experts plain and stored one by one: each read as the list says."""
    folder = unpacking.checkpoint(tmp_path / "int4", "int4")
    reference = unpacking.dequantised(folder)
    left = [
        "model.decoder.layers.0.self_attn.k_proj",
        "re:.*layers[.]0[.]self_attn[.]v_proj",
        "re:.*layers.1.experts.*",
    ]

    def unpack(tensors: Raw) -> None:
        for name in list(tensors):
            module, _, last = name.rpartition(".")
            if not (module in left or "layers.0.self_attn.v_proj" in module or "layers.1.experts" in module):
                continue
            if last in ("weight_scale", "weight_shape"):
                del tensors[name]
            elif last == "weight_packed":
                del tensors[name]
                values = reference[f"{module}.weight"]
                data = bytes(values.contiguous().view(torch.uint8).flatten().tolist())
                tensors[f"{module}.weight"] = ("F32", list(values.shape), data)

    raw_files.change(raw_files.shards(folder)[0], unpack)
    with pytest.raises(CheckpointError, match=r"lacks .*k_proj\.weight_packed"):
        load_model(folder, "cpu", "float32")
    raw_files.change_json(folder / "config.json", lambda c: c["quantization_config"]["ignore"].extend(left))
    network = oracle.reload_in_float64(unpacking.plain_copy(folder, tmp_path / "plain"))
    ids = torch.arange(20 + 4 * 16) % 211
    found = ours(load_model(folder, "cpu", "float32"), ids[:20], ids[20:].view(4, 16))
    expected = theirs(network, ids[:20], ids[20:].view(4, 16))
    for mine, other in zip(found, expected, strict=True):
        assert distance(mine, other) < 2e-5


def test_hf_quant_config_alone(tmp_path: Path) -> None:
    folder = unpacking.checkpoint(tmp_path, "nvfp4")
    before = unpacked(load_model(folder, "cpu", "float32"))
    raw_files.change_json(folder / "config.json", lambda config: config.pop("quantization_config"))
    after = unpacked(load_model(folder, "cpu", "float32"))
    assert before.keys() == after.keys()
    (folder / "hf_quant_config.json").unlink()
    with pytest.raises(CheckpointError):  # nothing says how they are packed, so it is not guessed
        load_model(folder, "cpu", "float32")


def test_activation_scales_may_be_absent(tmp_path: Path) -> None:
    folder = unpacking.checkpoint(tmp_path, "nvfp4")

    def drop(tensors: Raw) -> None:
        for name in [name for name in tensors if name.endswith("input_scale")]:
            del tensors[name]

    raw_files.change(raw_files.shards(folder)[0], drop)
    load_model(folder, "cpu", "float32")


@pytest.mark.parametrize(
    ("form", "part", "value"),
    [
        ("nvfp4", "weight_scale", b"\x7f"),
        ("nvfp4", "weight_scale", b"\xff"),
        ("nvfp4", "weight_scale", b"\x80"),  # a sign, which hardware ignores
        ("nvfp4-redhat", "weight_scale", b"\xb8"),
        ("nvfp4", "weight_scale_2", b"\0\0\xc0\x7f"),
        ("nvfp4", "weight_scale_2", b"\0\0\x80\x7f"),
        ("nvfp4-redhat", "weight_scale", b"\x7f"),
        ("nvfp4-redhat", "weight_global_scale", b"\0\0\0\0"),
        ("nvfp4-redhat", "weight_global_scale", b"\0\0\xc0\xff"),
        ("int4", "weight_scale", b"\0\x7e"),
        ("int4", "weight_scale", b"\0\x7c"),
        ("fp8", "weight_scale", b"\0\0\xc0\x7f"),
        ("fp8", "weight", b"\x7f"),
        ("fp8", "weight", b"\xff"),
    ],
)
def test_scales_that_are_no_numbers(tmp_path: Path, form: str, part: str, value: bytes) -> None:
    folder = unpacking.checkpoint(tmp_path, form)
    name = f"model.decoder.layers.2.experts.1.up_proj.{part}"

    def spoil(tensors: Raw) -> None:
        dtype, shape, data = tensors[name]
        tensors[name] = (dtype, shape, data[: -len(value)] + value)

    raw_files.change(raw_files.shards(folder)[0], spoil)
    with pytest.raises(CheckpointError, match=r"^model\.safetensors: ") as caught:
        load_model(folder, "cpu", "float32")
    assert name in caught.value.message


@pytest.mark.parametrize("form", FORMATS)
def test_missing_scale(tmp_path: Path, form: str) -> None:
    folder = unpacking.checkpoint(tmp_path, form)
    name = "model.decoder.layers.0.experts.2.down_proj.weight_scale"
    raw_files.change(raw_files.shards(folder)[0], lambda tensors: tensors.pop(name) and None)
    with pytest.raises(CheckpointError, match=f"lacks {name}"):
        load_model(folder, "cpu", "float32")


@pytest.mark.parametrize(
    ("form", "part", "dtype"),
    [("nvfp4", "weight", "F8_E4M3"), ("nvfp4", "weight_scale", "U8"), ("fp8", "weight", "U8")],
)
def test_wrong_dtype_of_a_part(tmp_path: Path, form: str, part: str, dtype: str) -> None:
    folder = unpacking.checkpoint(tmp_path, form)
    name = f"model.decoder.layers.0.experts.2.down_proj.{part}"
    raw_files.change_header(raw_files.shards(folder)[0], lambda header: header[name].update(dtype=dtype))
    with pytest.raises(CheckpointError, match=rf"^model\.safetensors: {name} is {dtype}"):
        load_model(folder, "cpu", "float32")


def test_weight_shape_must_agree(tmp_path: Path) -> None:
    folder = unpacking.checkpoint(tmp_path, "int4")
    name = "model.decoder.layers.0.experts.2.down_proj.weight_shape"

    def swap(tensors: Raw) -> None:
        dtype, shape, data = tensors[name]
        tensors[name] = (dtype, shape, data[8:] + data[:8])

    raw_files.change(raw_files.shards(folder)[0], swap)
    with pytest.raises(CheckpointError, match=rf"{name} is \[32, 64\], not \[64, 32\]"):
        load_model(folder, "cpu", "float32")


def edited(folder: Path, form: str, edit: Any) -> Path:
    raw_files.checkpoint(folder, form)
    raw_files.change_json(folder / "config.json", lambda config: edit(config["quantization_config"]))
    return folder


GROUP = "group_0"


@pytest.mark.parametrize(
    ("form", "edit", "word"),
    [
        ("fp8", lambda q: q.update(quant_method="gptq"), "'gptq'"),
        ("fp8", lambda q: q.pop("quant_method"), "None"),
        ("fp8", lambda q: q.update(format="int-quantized"), "'int-quantized'"),
        ("fp8", lambda q: q["config_groups"][GROUP]["weights"].update(strategy="tensor"), "'tensor'"),
        ("fp8", lambda q: q["config_groups"][GROUP].update(format="mxfp4-pack-quantized"), "'mxfp4-pack-quantized'"),
        ("fp8", lambda q: q.update(quantization_status="frozen"), "'frozen'"),
        ("fp8", lambda q: q.update(sparsity_config={"format": "sparse-24-bitmask"}), "sparsity_config"),
        ("fp8", lambda q: q.update(transform_config={"config_groups": {"R1": {}}}), "transform_config"),
        ("fp8", lambda q: q.update(config_groups=None), "config_groups"),
        ("fp8", lambda q: q.update(config_groups={"a": 7}), "a of config_groups"),
        ("fp8", lambda q: q.update(ignore="lm_head"), "ignore list"),
        ("fp8", lambda q: q.update(ignore=["re:("]), "re:("),
        ("int4", lambda q: q["config_groups"][GROUP]["weights"].update(symmetric=False), "symmetric False"),
        ("int4", lambda q: q["config_groups"][GROUP]["weights"].update(group_size=128), "group_size 128"),
        ("int4", lambda q: q["config_groups"][GROUP]["weights"].update(num_bits=8), "num_bits 8"),
        ("int4-4bit", lambda q: q["config_groups"]["group_1"]["weights"].update(group_size=128), "group_size 128"),
        (
            "nvfp4-redhat",
            lambda q: q["config_groups"][GROUP]["targets"].append("Embedding"),
            "embed_tokens is in nvfp4",
        ),
        ("int4", lambda q: q["config_groups"][GROUP]["weights"].update(actorder="group"), "actorder 'group'"),
        ("nvfp4-redhat", lambda q: q["config_groups"][GROUP]["weights"].update(group_size=32), "group_size 32"),
        ("nvfp4", lambda q: q.update(quant_algo="FP8"), "'FP8'"),
        ("nvfp4", lambda q: q.update(quant_algo="MIXED_PRECISION"), "'MIXED_PRECISION'"),
        ("nvfp4", lambda q: q.update(group_size=32), "32"),
        ("nvfp4", lambda q: q["config_groups"][GROUP]["weights"].update(num_bits=8), "'num_bits': 8"),
        ("nvfp4", lambda q: q["ignore"].append("*layers.1.experts.2*"), "some experts are packed"),
        ("nvfp4", lambda q: q["ignore"].append("*down_proj*"), "packed in part"),
    ],
)
def test_refused_by_name(tmp_path: Path, form: str, edit: Any, word: str) -> None:
    folder = edited(tmp_path, form, edit)
    other = folder / "hf_quant_config.json"
    if other.exists():
        other.unlink()
    with pytest.raises(CheckpointError) as caught:
        load_model(folder, "cpu", "float32")
    assert word in caught.value.message
    assert "\n" not in caught.value.message


def test_two_files_that_disagree(tmp_path: Path) -> None:
    folder = raw_files.checkpoint(tmp_path, "nvfp4")
    raw_files.change_json(folder / "hf_quant_config.json", lambda c: c["quantization"].update(quant_algo="FP8"))
    with pytest.raises(CheckpointError, match=r"'NVFP4', hf_quant_config\.json 'FP8'"):
        load_model(folder, "cpu", "float32")


def test_inputs_that_are_no_multiple_of_a_group(tmp_path: Path) -> None:
    folder = raw_files.checkpoint(tmp_path, "int4")
    raw_files.change_json(folder / "config.json", lambda c: c["text_config"].update(moe_intermediate_size=48))
    with pytest.raises(CheckpointError, match="48 inputs, no multiple of the 32"):
        load_model(folder, "cpu", "float32")


def test_several_groups(tmp_path: Path) -> None:
    """Two formats in one checkpoint, each with its own targets."""
    both = raw_files.checkpoint(tmp_path / "both", "fp8")
    experts = raw_files.checkpoint(tmp_path / "nvfp4", "nvfp4-redhat")
    packed = raw_files.read(raw_files.shards(experts)[0])

    def mix(tensors: Raw) -> None:
        for name in [name for name in tensors if ".experts." in name]:
            del tensors[name]
        tensors.update({name: tensor for name, tensor in packed.items() if ".experts." in name})

    def groups(config: Any) -> None:
        other = json.loads((experts / "config.json").read_text())["quantization_config"]
        scheme = config["quantization_config"]
        dense = scheme["config_groups"][GROUP] | {"targets": ["re:.*(self_attn|mlp).*"], "format": scheme["format"]}
        routed = other["config_groups"][GROUP] | {"targets": ["re:.*experts.*"], "format": other["format"]}
        scheme.update(config_groups={"dense": dense, "routed": routed}, format="mixed-precision")

    raw_files.change(raw_files.shards(both)[0], mix)
    raw_files.change_json(both / "config.json", groups)
    found = unpacked(load_model(both, "cpu", "float32"))
    name = "model.decoder.layers.0.experts.1.up_proj.weight"
    assert torch.equal(found[name], unpacking.dequantised(experts)[name])
    name = "model.decoder.layers.0.mlp.up_proj.weight"
    dense = raw_files.checkpoint(tmp_path / "fp8", "fp8")
    assert torch.equal(found[name], unpacking.dequantised(dense)[name])
