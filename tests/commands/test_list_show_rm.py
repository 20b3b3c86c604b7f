"""``dgemma list``, ``show`` and ``rm`` on caches that pulls and other tools left."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command_fixtures import Run
from fake_hub import FakeHub, Fault
from huggingface_hub import snapshot_download

from dgemma_cli.catalog import cache

Checkpoint = Callable[..., dict[str, bytes]]
NAME = "tiny/bf16"


def listed(dgemma: Run) -> dict[str, dict[str, object]]:
    return {entry["name"]: entry for entry in json.loads(dgemma("list", "--json").out) if entry["name"] != "nano"}


def bytes_on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_an_empty_cache(hub: FakeHub, dgemma: Run) -> None:
    assert listed(dgemma) == {}
    assert dgemma("list").out.startswith("NAME")
    assert hub.asked == []


def test_list_of_a_folder_that_is_not_there(dgemma: Run, tmp_path: Path) -> None:
    failed = dgemma("list", "--cache-dir", tmp_path / "none")
    assert (failed.code, failed.out) == (2, "")
    assert f"{tmp_path / 'none'} is no folder." in failed.err


def test_the_licence_of_what_comes_along(dgemma: Run) -> None:
    assert "licence       apache-2.0\n" in dgemma("show", "nano").out


def test_list_tells_what_is_here(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    files = checkpoint("nvfp4", 100_000)
    commit = hub.add(NAME, files)
    dgemma("pull", NAME)
    entry = listed(dgemma)[NAME]
    assert entry["commit"] == commit
    assert entry["size"] == sum(map(len, files.values()))
    assert entry["complete"] is True
    assert str(entry["format"]).startswith("nvfp4")
    assert (Path(str(entry["folder"])) / "config.json").exists()
    assert NAME in dgemma("list").out


def test_list_shows_when_a_model_was_last_used(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    hub.add(NAME, checkpoint())
    dgemma("pull", NAME)
    weights = Path(str(listed(dgemma)[NAME]["folder"])) / "model.safetensors"
    os.utime(weights, (weights.stat().st_atime - 3 * 86400 - 100, weights.stat().st_mtime))
    assert "3 days ago" in dgemma("list").out


def test_list_shows_what_is_incomplete_and_what_other_tools_fetched(
    hub: FakeHub, checkpoint: Checkpoint, dgemma: Run
) -> None:
    hub.add(NAME, checkpoint())
    hub.add("other/tool", checkpoint("fp8"))
    hub.add("other/llama", {"config.json": b'{"model_type": "llama"}'})
    snapshot_download("other/tool", endpoint=hub.url, cache_dir=cache.root())
    snapshot_download("other/llama", endpoint=hub.url, cache_dir=cache.root())
    hub.faults = [Fault("model.safetensors", times=1), Fault("model.safetensors", status=404)]
    dgemma("pull", NAME)
    found = listed(dgemma)
    assert set(found) == {NAME, "other/tool"}
    assert found[NAME]["complete"] is False
    assert found[NAME]["files"] == {"here": 4, "needed": 5}
    assert found["other/tool"]["complete"] is True


def test_catalog_names_stand_for_their_repositories(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    hub.add("google/diffusiongemma-26B-A4B-it", checkpoint())
    dgemma("pull", "diffusiongemma:bf16")
    assert set(listed(dgemma)) == {"diffusiongemma:bf16"}
    assert dgemma("show", "diffusiongemma").code == 0
    assert dgemma("rm", "-y", "diffusiongemma").code == 0
    assert listed(dgemma) == {}


def test_an_older_commit_is_listed_under_its_own_name(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    old = hub.add(NAME, checkpoint(seed=0))
    dgemma("pull", NAME)
    hub.add(NAME, checkpoint(seed=1))
    dgemma("pull", NAME)
    assert set(listed(dgemma)) == {NAME, f"{NAME}@{old}"}


def test_damaged_entries_are_no_traceback(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    hub.add(NAME, checkpoint())
    dgemma("pull", NAME)
    root = cache.root()
    for name in ("models--a--b", "models--", "models--x", "datasets--c--d"):
        (root / name / "snapshots" / ("e" * 40)).mkdir(parents=True)
    (root / "models--file--name").write_text("")
    config = root / "models--a--b" / "snapshots" / ("e" * 40) / "config.json"
    config.write_bytes(b"\xff" + b"[" * 100_000)
    assert set(listed(dgemma)) == {NAME}
    assert dgemma("rm", "-y", NAME).code == 0


def test_show_tells_what_a_model_is(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    hub.add(NAME, checkpoint())
    dgemma("pull", NAME)
    text = dgemma("show", NAME).out
    for expected in ("DiffusionGemmaForBlockDiffusion", "bf16", "4,096 tokens", "apache-2.0", "at most 48 steps"):
        assert expected in text
    found = json.loads(dgemma("show", NAME, "--json").out)
    assert (found["canvas"], found["context"], found["vocabulary"]) == (16, 4096, 1536)
    assert found["memory"]["needs"]["4096"] > found["memory"]["weights"] > 0
    assert dgemma("show", found["folder"], "--json").code == 0


def test_show_prints_the_template_harmlessly(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("{{ x }}\x1b]0;title\x07\n")
    assert dgemma("show", str(tmp_path), "--template").out == "{{ x }}]0;title\n"
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ y }}"}')
    assert dgemma("show", str(tmp_path), "--template").out == "{{ y }}\n"
    (tmp_path / "tokenizer_config.json").unlink()
    assert dgemma("show", str(tmp_path), "--template").code == 3


def test_show_of_what_is_not_here(hub: FakeHub, dgemma: Run) -> None:
    missing = dgemma("show", NAME)
    assert (missing.code, f"dgemma pull {NAME}" in missing.err) == (3, True)
    assert dgemma("show", NAME, "--template", "--json").code == 2
    default = dgemma("show")
    assert (default.code, "dgemma pull diffusiongemma\n" in default.err) == (3, True)
    assert "dgemma run -m nano" in default.err  # -m is no option of show


def test_rm_frees_what_it_says(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    hub.add(NAME, checkpoint())
    hub.add("tiny/other", checkpoint(seed=1))
    dgemma("pull", NAME)
    dgemma("pull", "tiny/other")
    before = bytes_on_disk(cache.root())
    removed = json.loads(dgemma("rm", "-y", NAME, "--json").out)
    assert removed["freed"] == before - bytes_on_disk(cache.root()) > 600_000
    assert set(listed(dgemma)) == {"tiny/other"}
    assert not list(cache.root().glob("**/*tiny--bf16*"))


def test_rm_of_one_revision_keeps_what_the_other_uses(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    old_files, new_files = checkpoint(seed=0), checkpoint(seed=1)
    old = hub.add(NAME, old_files)
    dgemma("pull", f"{NAME}@{old}")
    hub.add(NAME, new_files)
    dgemma("pull", NAME)
    before = bytes_on_disk(cache.root())
    removed = json.loads(dgemma("rm", "-y", f"{NAME}@{old}", "--json").out)
    assert removed["commit"] == old
    weights = len(old_files["model.safetensors"])
    assert weights <= removed["freed"] < weights + 1000  # the weights and our record of them; the rest is shared
    assert removed["freed"] == before - bytes_on_disk(cache.root())
    snapshot = Path(str(listed(dgemma)[NAME]["folder"]))
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == new_files


def test_rm_of_the_pinned_revision_unpins_it(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    hub.add(NAME, checkpoint(seed=1), revision="v1")
    dgemma("pull", f"{NAME}@v1")
    hub.add(NAME, checkpoint(seed=0))
    dgemma("pull", NAME)
    assert dgemma("rm", "-y", f"{NAME}@v1").code == 0
    assert dgemma("show", f"{NAME}@v1").code == 3
    assert dgemma("show", NAME).code == 0


def test_rm_of_a_pull_that_hardly_began(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    hub.add(NAME, checkpoint())
    hub.faults = [Fault("tokenizer.json", cut=20_000, times=1), Fault("tokenizer.json", status=404)]
    dgemma("pull", NAME)
    freed = json.loads(dgemma("rm", "-y", NAME, "--json").out)["freed"]
    assert freed > 10_000
    assert listed(dgemma) == {}
    assert not list(cache.root().glob("models--*"))


def test_what_rm_misses_is_told_with_an_example(dgemma: Run) -> None:
    missing = dgemma("rm")
    assert missing.code == 2
    assert missing.err.splitlines() == [
        "error: Missing argument 'MODEL'.",
        "  Example: dgemma rm diffusiongemma:bf16",
        "  See: dgemma rm --help",
    ]


def test_rm_asks_and_does_not_guess(hub: FakeHub, checkpoint: Checkpoint, dgemma: Run) -> None:
    hub.add(NAME, checkpoint())
    dgemma("pull", NAME)
    asked = dgemma("rm", NAME)
    assert (asked.code, "-y" in asked.err) == (2, True)
    near = dgemma("rm", "-y", "tiny/bf61")
    assert (near.code, f"Did you mean {NAME}?" in near.err) == (3, True)
    assert dgemma("rm", "-y", "nano").code == 2
    assert set(listed(dgemma)) == {NAME}


def test_rm_leaves_folders_to_the_user(dgemma: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my model").mkdir()
    for name in ("./my model", tmp_path / "my model"):
        failed = dgemma("rm", "-y", name)
        assert failed.code == 2
        assert f"rm -r '{name}'" in failed.err
    assert Path("my model").is_dir()


def test_rm_leaves_other_tools_models_alone(hub: FakeHub, dgemma: Run) -> None:
    hub.add("other/llama", {"config.json": b'{"model_type": "llama"}'})
    snapshot_download("other/llama", endpoint=hub.url, cache_dir=cache.root())
    refused = dgemma("rm", "-y", "other/llama")
    assert (refused.code, "hf cache rm" in refused.err) == (3, True)
    assert (cache.root() / "models--other--llama" / "snapshots").exists()
