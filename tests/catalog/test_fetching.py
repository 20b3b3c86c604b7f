"""Pulls from a fake Hub: complete, resumed, refused, reused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from fake_hub import FakeHub, Fault
from huggingface_hub import snapshot_download

from dgemma_cli.catalog import cache
from dgemma_cli.catalog.names import Reference
from dgemma_cli.catalog.plan import Plan, make_plan
from dgemma_cli.catalog.pull import pull
from dgemma_cli.catalog.resolve import resolve
from dgemma_cli.errors import CheckpointError, DgemmaError, DiskError, ModelUnavailable, NetworkError

Checkpoint = Callable[..., dict[str, bytes]]
NAME = "tiny/bf16"


def silent(_name: str, _bytes: int) -> None:
    """A pull that nobody watches."""


def plan(revision: str = "main", name: str = NAME) -> Plan:
    return make_plan(Reference(name, name, revision))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("form", ["bf16", "nvfp4", "int4", "fp8"])
@pytest.mark.parametrize("shard_bytes", [10_000_000, 100_000])
def test_every_format_comes_bit_for_bit(hub: FakeHub, checkpoint: Checkpoint, form: str, shard_bytes: int) -> None:
    files = checkpoint(form, shard_bytes)
    commit = hub.add(NAME, files)
    folder = pull(plan(), silent)
    assert contents(folder) == files
    assert resolve(NAME).folder == folder
    assert resolve(NAME).revision == commit


def test_only_what_is_needed_comes(hub: FakeHub, checkpoint: Checkpoint) -> None:
    files = checkpoint()
    extra = {"photo.png": b"x", "onnx/model.onnx": b"x", "pytorch_model.bin": b"x", "consolidated.safetensors": b"x"}
    hub.add(NAME, {**files, **extra})
    assert contents(pull(plan(), silent)) == files


def test_a_second_pull_fetches_nothing(hub: FakeHub, checkpoint: Checkpoint) -> None:
    hub.add(NAME, checkpoint())
    pull(plan(), silent)
    before = hub.total_served()
    again = plan()
    assert again.to_fetch == 0
    pull(again, silent)
    assert hub.total_served() == before


def test_the_plan_reads_headers_only_and_writes_nothing(hub: FakeHub, checkpoint: Checkpoint) -> None:
    files = checkpoint("bf16", 100_000)
    big = files["model-00001-of-00007.safetensors"] = files["model-00001-of-00007.safetensors"] + bytes(9_000_000)
    hub.add(NAME, files)
    made = plan()
    assert made.total == sum(map(len, files.values()))
    assert made.to_fetch == made.total
    assert hub.total_served() < 600_000 < len(big)
    assert not cache.root().exists()


def test_the_plan_weighs_the_text_model_without_its_vision_tower(hub: FakeHub, checkpoint: Checkpoint) -> None:
    from safetensors import deserialize

    files = checkpoint("nvfp4", 100_000)
    hub.add(NAME, files)
    tensors = [tensor for name, data in files.items() if name.endswith(".safetensors") for tensor in deserialize(data)]
    text = sum(len(tensor["data"]) for name, tensor in tensors if "vision" not in name)
    assert text < sum(len(tensor["data"]) for _, tensor in tensors)
    assert (plan().weights.total, plan().weights.exact) == (text, True)


def test_long_headers_are_not_read(hub: FakeHub, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    from dgemma_cli.catalog import headers

    monkeypatch.setattr(headers, "BUDGET", 200_000)
    files = checkpoint("nvfp4", 100_000)
    hub.add(NAME, files)
    weights = sum(len(data) for name, data in files.items() if name.endswith(".safetensors"))
    assert (plan().weights.total, plan().weights.exact) == (weights, False)


def sent(hub: FakeHub) -> int:
    """Bytes sent of the weights, once those are counted that a reader of the header left on their way."""
    before, now = -1, hub.served["model.safetensors"]
    while now != before:
        time.sleep(0.1)
        before, now = now, hub.served["model.safetensors"]
    return now


def test_resume_at_the_byte_where_it_stopped(hub: FakeHub, checkpoint: Checkpoint) -> None:
    files = checkpoint()
    hub.add(NAME, files)
    hub.faults = [Fault("model.safetensors", times=1)]  # the plan's look at the header
    made = plan()
    begun = sent(hub)
    hub.faults += [Fault("model.safetensors", cut=100_000, times=1), Fault("model.safetensors", status=503)]
    with pytest.raises(NetworkError, match="503"):
        pull(made, silent)
    kept = made.incomplete(next(file for file in made.files if file.name == "model.safetensors"))
    assert 0 < kept.stat().st_size <= 100_000
    hub.faults.clear()
    left = kept.stat().st_size
    before = sent(hub)
    again = plan()
    header = sent(hub) - before
    assert again.partial == left
    pull(again, silent)
    assert sent(hub) - before - header == len(files["model.safetensors"]) - left
    assert contents(again.snapshot) == files
    assert begun > 0


def test_a_cut_connection_is_taken_up_again_within_a_pull(hub: FakeHub, checkpoint: Checkpoint) -> None:
    files = checkpoint()
    hub.add(NAME, files)
    made = plan()
    before = hub.served["model.safetensors"]
    hub.faults = [Fault("model.safetensors", cut=40_000, times=5)]
    assert contents(pull(made, silent)) == files
    assert hub.served["model.safetensors"] - before == len(files["model.safetensors"])


def test_errors_that_pass_are_waited_out(hub: FakeHub, checkpoint: Checkpoint) -> None:
    files = checkpoint()
    hub.add(NAME, files)
    made = plan()
    hub.faults = [
        Fault("model.safetensors", status=503, times=2),
        Fault("tokenizer.json", status=429, headers={"Retry-After": "0"}, times=3),
    ]
    assert contents(pull(made, silent)) == files


def test_a_server_without_ranges_costs_bytes_not_correctness(hub: FakeHub, checkpoint: Checkpoint) -> None:
    files = checkpoint()
    hub.add(NAME, files)
    made = plan()
    hub.faults = [Fault("model.safetensors", cut=40_000, times=1), Fault("model.safetensors", no_ranges=True)]
    assert contents(pull(made, silent)) == files
    hub.faults = [Fault("", no_ranges=True)]
    assert plan("main").weights.exact


def test_a_corrupt_shard_is_refused_and_not_kept(hub: FakeHub, checkpoint: Checkpoint) -> None:
    hub.add(NAME, checkpoint())
    made = plan()
    hub.faults = [Fault("model.safetensors", corrupt=True)]
    with pytest.raises(CheckpointError, match=r"model\.safetensors is corrupt"):
        pull(made, silent)
    assert not (made.snapshot / "model.safetensors").exists()
    assert plan().partial == 0
    hub.faults.clear()
    pull(plan(), silent)


def test_a_partial_file_that_another_tool_spoilt_is_fetched_anew(hub: FakeHub, checkpoint: Checkpoint) -> None:
    files = checkpoint()
    hub.add(NAME, files)
    made = plan()
    weights = next(file for file in made.files if file.name == "model.safetensors")
    made.incomplete(weights).parent.mkdir(parents=True)
    made.incomplete(weights).write_bytes(b"not these bytes")
    assert contents(pull(plan(), silent)) == files


@pytest.mark.parametrize("times", [1, 1000])
def test_a_wrong_size_is_refused(hub: FakeHub, checkpoint: Checkpoint, times: int) -> None:
    files = checkpoint()
    hub.add(NAME, files)
    made = plan()
    hub.faults = [Fault("model.safetensors", short=100, times=times)]
    if times == 1:  # the rest of it comes with the next request
        assert contents(pull(made, silent)) == files
        return
    with pytest.raises(CheckpointError, match="should have"):
        pull(made, silent)
    with pytest.raises(ModelUnavailable, match="incomplete"):
        resolve(NAME)


def test_more_bytes_than_announced_are_refused(hub: FakeHub, checkpoint: Checkpoint) -> None:
    hub.add(NAME, checkpoint())
    made = plan()
    commit = made.commit
    hub.repositories[NAME].files[commit]["model.safetensors"] += b"more"
    with pytest.raises(CheckpointError, match="sends has more"):
        pull(made, silent)


def test_a_truncated_blob_of_another_tool_is_fetched_again(hub: FakeHub, checkpoint: Checkpoint) -> None:
    files = checkpoint()
    hub.add(NAME, files)
    folder = pull(plan(), silent)
    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-5])
    assert plan().to_fetch == len(files["model.safetensors"])
    assert contents(pull(plan(), silent)) == files


def test_the_name_keeps_its_meaning_until_the_new_commit_is_whole(hub: FakeHub, checkpoint: Checkpoint) -> None:
    old, new = checkpoint(seed=0), checkpoint(seed=1)
    hub.add(NAME, old)
    first = pull(plan(), silent)
    hub.add(NAME, new)
    made = plan()
    hub.faults = [Fault("model.safetensors", cut=1000)] * 1 + [Fault("model.safetensors", status=404)]
    hub.faults[0].times = 1
    with pytest.raises(DgemmaError):
        pull(made, silent)
    assert resolve(NAME).folder == first
    hub.faults.clear()
    before = hub.served["tokenizer.json"]
    second = pull(plan(), silent)
    assert resolve(NAME).folder == second != first
    assert contents(first) == old
    assert contents(second) == new
    assert hub.served["tokenizer.json"] == before  # the same blob serves both


def test_a_revision_that_moves_between_two_requests_is_one_commit(hub: FakeHub, checkpoint: Checkpoint) -> None:
    old = checkpoint(seed=0)
    hub.add(NAME, old)
    made = plan()
    hub.add(NAME, checkpoint(seed=1))
    assert contents(pull(made, silent)) == old


def test_what_other_tools_left_is_reused_and_what_is_pulled_they_find(
    hub: FakeHub, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = checkpoint("bf16", 100_000)
    commit = hub.add(NAME, files)
    root = cache.root()
    theirs = Path(snapshot_download(NAME, endpoint=hub.url, cache_dir=root, allow_patterns=["*00001*", "*.json"]))
    with pytest.raises(ModelUnavailable, match="incomplete: 3 of 9"):
        resolve(NAME)
    before = hub.served["model-00001-of-00007.safetensors"]
    made = plan()
    assert "model-00001-of-00007.safetensors" in made.here
    assert contents(pull(made, silent)) == files
    assert hub.served["model-00001-of-00007.safetensors"] == before
    assert theirs.samefile(made.snapshot)
    asked = len(hub.asked)
    ours = snapshot_download(NAME, endpoint=hub.url, cache_dir=root, local_files_only=True)
    assert (Path(ours).samefile(made.snapshot), commit) == (True, made.commit)
    assert len(hub.asked) == asked


def test_no_room_is_told_before_the_first_byte(
    hub: FakeHub, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    hub.add(NAME, checkpoint())
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage(0, 0, 1_000_000))
    made = plan()
    with pytest.raises(DiskError, match=r"needs 67\.\d MB of disk, 1\.0 MB are free"):
        pull(made, silent)
    assert not cache.root().exists()


def test_the_index_is_checked_before_the_weights_come(hub: FakeHub, checkpoint: Checkpoint) -> None:
    files = checkpoint("bf16", 100_000)
    index = json.loads(files["model.safetensors.index.json"])
    for wrong, message in (("model-00009.safetensors", "names model-00009"), ("../x.safetensors", "leaves its folder")):
        index["weight_map"]["model.decoder.norm.weight"] = wrong
        hub.add(NAME, {**files, "model.safetensors.index.json": json.dumps(index).encode()})
        made = plan()
        before = hub.served["model-00001-of-00007.safetensors"]
        with pytest.raises(CheckpointError, match=message):
            pull(made, silent)
        assert hub.served["model-00001-of-00007.safetensors"] == before


def test_weights_that_contradict_the_configuration_are_not_pinned(hub: FakeHub, checkpoint: Checkpoint) -> None:
    files = checkpoint()
    config = json.loads(files["config.json"])
    config["text_config"]["intermediate_size"] = 64
    hub.add(NAME, {**files, "config.json": json.dumps(config).encode()})
    made = plan()
    with pytest.raises(CheckpointError, match=r"mlp|self_conditioning"):
        pull(made, silent)
    assert not cache.pin_file(made.folder, "main").exists()


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "C:\\x", "a\\..\\b", "a//b", "./a"])
def test_names_that_leave_the_folder_are_refused(hub: FakeHub, checkpoint: Checkpoint, name: str) -> None:
    hub.add(NAME, {**checkpoint(), name: b"x"})
    with pytest.raises(CheckpointError, match="leaves its folder"):
        plan()


def without(files: Mapping[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name not in names}


def test_repositories_that_dgemma_cannot_run_are_refused_by_the_plan(hub: FakeHub, checkpoint: Checkpoint) -> None:
    single, shards = checkpoint(), checkpoint("bf16", 100_000)
    bare = without(single, "model.safetensors")
    other = json.dumps({"model_type": "llama"}).encode()
    for files, message in (
        ({**bare, "pytorch_model.bin": b"x"}, r"only as pytorch_model\.bin, which can run code"),
        (bare, "no safetensors weights"),
        ({**bare, "a.safetensors": b"x", "b.safetensors": b"x"}, "2 safetensors files"),
        (without(shards, "model-00003-of-00007.safetensors"), "6 of 7 shards"),
        (without(shards, "model.safetensors.index.json"), r"7 shards and no model\.safetensors\.index\.json"),
        (without(single, "tokenizer.json"), r"has no tokenizer\.json"),
        (without(single, "config.json"), r"has no config\.json"),
        ({**single, "config.json": other}, "tiny/bf16: config.json: model_type is 'llama'"),
        ({**single, "config.json": b"[]"}, "not a JSON object"),
        ({**single, "config.json": b""}, "not a JSON object"),
        ({**single, "model.safetensors": b""}, "no safetensors file"),
        ({**single, "config.json": b"{" + b" " * 300_000}, "cannot be right"),
        ({**single, "model.safetensors": b"\xff" * 100}, "no safetensors file"),
        ({**single, "model.safetensors": (2).to_bytes(8, "little") + b"[]"}, "damaged"),
    ):
        hub.repositories.clear()
        hub.add(NAME, files)
        with pytest.raises(ModelUnavailable, match=message):
            plan()
