"""Names become folders, or errors that say what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from dgemma_cli.catalog import cache
from dgemma_cli.catalog.names import completions
from dgemma_cli.catalog.resolve import resolve
from dgemma_cli.errors import ModelUnavailable

COMMIT, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


def put(hub: Path, repository: str, commit: str, *files: str, ref: str | None = "main", shards: tuple = ()) -> Path:
    """A snapshot as another tool leaves it."""
    folder = cache.repository_folder(repository, hub)
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for name in files:
        (snapshot / name).write_text("{}")
    if shards:
        weights = {f"tensor{i}": name for i, name in enumerate(shards)}
        (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    if ref:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / ref).write_text(commit)
    return snapshot


WHOLE = ("config.json", "tokenizer.json", "model.safetensors")


def test_nano_is_the_packages_own_folder(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano").mkdir()  # a folder of that name here does not matter
    import dgemma_cli
    from dgemma_cli.catalog.names import parse

    assert parse("nano") == Path(dgemma_cli.__file__).parent / "nano"


def test_a_folder_with_a_config(hub: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve(str(tmp_path)).folder == tmp_path
    assert resolve(str(tmp_path)).revision is None


def test_a_folder_without_a_config_is_named(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=rf"{tmp_path} has no config.json"):
        resolve(str(tmp_path))


def test_a_relative_folder_and_a_missing_one(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert resolve("owner/name").folder == Path("owner/name")
    with pytest.raises(ModelUnavailable, match=r"\./elsewhere does not exist"):
        resolve("./elsewhere")


def test_a_hub_id_in_the_cache(hub: Path) -> None:
    snapshot = put(hub, "tiny/bf16", COMMIT, *WHOLE)
    found = resolve("tiny/bf16")
    assert (found.name, found.folder, found.revision) == ("tiny/bf16", snapshot, COMMIT)
    assert resolve(f"tiny/bf16@{COMMIT}").folder == snapshot


def test_a_revision_is_not_taken_for_another(hub: Path) -> None:
    put(hub, "tiny/bf16", COMMIT, *WHOLE)
    old = put(hub, "tiny/bf16", OTHER, *WHOLE, ref="v1")
    assert resolve("tiny/bf16@v1").folder == old
    with pytest.raises(ModelUnavailable, match="tiny/bf16@v2 is not downloaded"):
        resolve("tiny/bf16@v2")


def test_the_pin_outlives_a_newer_incomplete_ref(hub: Path) -> None:
    pulled = put(hub, "tiny/bf16", COMMIT, *WHOLE)
    cache.write_atomically(cache.pin_file(pulled.parent.parent, "main"), COMMIT)
    newer = put(hub, "tiny/bf16", OTHER, "config.json")
    assert resolve("tiny/bf16").folder == pulled
    for name in WHOLE[1:]:
        (newer / name).write_text("{}")
    assert resolve("tiny/bf16").folder == pulled


def test_what_is_complete_goes_before_what_is_pinned_and_damaged(hub: Path) -> None:
    damaged = put(hub, "tiny/bf16", COMMIT, *WHOLE[:2], ref=None)
    cache.write_atomically(cache.pin_file(damaged.parent.parent, "main"), COMMIT)
    with pytest.raises(ModelUnavailable, match="2 of 3 files"):
        resolve("tiny/bf16")
    theirs = put(hub, "tiny/bf16", OTHER, *WHOLE)
    assert resolve("tiny/bf16").folder == theirs


def test_catalog_names_find_their_repository(hub: Path) -> None:
    bf16 = put(hub, "google/diffusiongemma-26B-A4B-it", COMMIT, *WHOLE)
    assert resolve("diffusiongemma:bf16").folder == bf16
    assert resolve("diffusiongemma").name == "google/diffusiongemma-26B-A4B-it"
    nvfp4 = put(hub, "nvidia/diffusiongemma-26B-A4B-it-NVFP4", OTHER, *WHOLE)
    assert resolve("diffusiongemma").folder == nvfp4
    with pytest.raises(ModelUnavailable, match="diffusiongemma:int4 is not downloaded"):
        resolve("diffusiongemma:int4")


def test_not_downloaded_and_offline_are_told_apart(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelUnavailable) as plain:
        resolve("tiny/bf16")
    assert "HF_HUB_OFFLINE" not in plain.value.message
    assert "dgemma pull tiny/bf16" in plain.value.hint
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailable) as offline:
        resolve("tiny/bf16")
    assert "HF_HUB_OFFLINE" in offline.value.message
    assert "dgemma pull tiny/bf16" in offline.value.hint


def test_incomplete_by_the_index(hub: Path) -> None:
    shards = ("model-1.safetensors", "model-2.safetensors")
    snapshot = put(hub, "tiny/bf16", COMMIT, "config.json", "tokenizer.json", shards[0], shards=shards)
    with pytest.raises(ModelUnavailable, match="3 of 4 files") as raised:
        resolve("tiny/bf16")
    assert "dgemma pull tiny/bf16" in raised.value.hint
    (snapshot / shards[1]).symlink_to(snapshot / "nowhere")  # its blob is gone
    with pytest.raises(ModelUnavailable, match="3 of 4 files"):
        resolve("tiny/bf16")
    (snapshot / "nowhere").write_text("")
    assert resolve("tiny/bf16").folder == snapshot


def test_incomplete_by_the_plan_of_a_pull(hub: Path) -> None:
    folder = cache.repository_folder("tiny/bf16", hub)
    sizes = {f"file{i}": 1 for i in range(16)}
    cache.write_atomically(cache.plan_file(folder, COMMIT), json.dumps({"files": sizes}))
    put(hub, "tiny/bf16", COMMIT, *list(sizes)[:12])
    with pytest.raises(ModelUnavailable, match="12 of 16 files"):
        resolve("tiny/bf16")


@pytest.mark.parametrize(
    ("typed", "meant"), [("nanno", "nano"), ("diffusion-gemma", "diffusiongemma"), ("difusiongemma:int4", ":int4")]
)
def test_near_names(hub: Path, typed: str, meant: str) -> None:
    with pytest.raises(ModelUnavailable, match="There is no model") as raised:
        resolve(typed)
    assert meant in raised.value.hint.splitlines()[0]


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a/b/c",
        "a/../b",
        "a/..",
        "x@y",
        "a/b@../c",
        "a/b@",
        "a\0b",
        "models--a/b",
        "diffusiongemma@../x",
        "diffusiongemma:bf16@",
    ],
)
def test_names_that_are_none(hub: Path, name: str) -> None:
    with pytest.raises(ModelUnavailable):
        resolve(name)


def test_damaged_records_are_no_traceback(hub: Path) -> None:
    snapshot = put(hub, "tiny/bf16", COMMIT, *WHOLE)
    (snapshot / "model.safetensors.index.json").write_bytes(b"\xff{")
    (snapshot.parent.parent / "refs" / "main").write_bytes(b"\xff")
    with pytest.raises(ModelUnavailable, match="not downloaded"):
        resolve("tiny/bf16")


def test_neither_torch_nor_the_hub_library_is_imported() -> None:
    script = (
        "import sys, dgemma_cli.catalog.resolve; print([m for m in ('torch', 'huggingface_hub') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_completion_knows_the_catalog_and_the_cache(hub: Path) -> None:
    put(hub, "tiny/bf16", COMMIT, *WHOLE)
    assert completions("tin") == ["tiny/bf16"]
    assert completions("diffusiongemma:n") == ["diffusiongemma:nvfp4", "diffusiongemma:nvfp4-redhat"]
    assert completions("nothing") == []


def test_completion_in_a_shell_takes_no_network(hub: Path) -> None:
    variables = {
        "PATH": "",
        "HF_HOME": str(hub.parent),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "_DGEMMA_COMPLETE": "bash",
    }
    script = (
        "import sys\nfrom dgemma_cli.__main__ import main\nmain(['pull', 'diffusiongemma:i'])\n"
        "print([m for m in ('torch', 'httpx2') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True)
    assert "diffusiongemma:int4" in done.stdout
    assert done.stderr == "[]\n"
