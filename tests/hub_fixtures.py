"""A fake Hub, an empty cache, and tiny checkpoints of every published format."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from fake_hub import FakeHub

_ROOT = Path(__file__).parents[1]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A running fake Hub which huggingface_hub in this process talks to, with an empty cache and no waiting."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    from dgemma_cli.catalog import download

    with FakeHub() as fake:
        for key, value in hub_environment(fake, tmp_path).items():
            monkeypatch.setenv(key, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", fake.url)
        template = fake.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "home" / "stored_tokens"))
        monkeypatch.setattr(download, "_DELAY", 0.01)
        close_session()
        yield fake
        close_session()


def hub_environment(fake: FakeHub, home: Path) -> Mapping[str, str]:
    """The variables that make a process use the fake Hub and a cache of its own."""
    return {
        "HF_ENDPOINT": fake.url,
        "HF_HOME": str(home / "home"),
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, bytes]]:
    """Makes the files of a tiny checkpoint: ``checkpoint("nvfp4", shard_bytes=100_000)``. Read only."""
    made: dict[tuple[str, int, int], dict[str, bytes]] = {}

    def make(form: str = "bf16", shard_bytes: int = 10_000_000, seed: int = 0) -> dict[str, bytes]:
        key = (form, shard_bytes, seed)
        if key not in made:
            made[key] = make_checkpoint(tmp_path_factory.mktemp(form), form, shard_bytes, seed)
        return made[key]

    return lambda *arguments, **options: dict(make(*arguments, **options))


def make_checkpoint(folder: Path, form: str, shard_bytes: int, seed: int) -> dict[str, bytes]:
    """Random weights in a published format, with nano's tokenizer and template: it loads, and it writes nonsense."""
    sys.path.insert(0, str(_ROOT / "tools"))
    try:
        from make_synthetic import write
        from synthetic_tensors import tiny
    finally:
        sys.path.remove(str(_ROOT / "tools"))
    nano = _ROOT / "dgemma_cli" / "nano"
    config = tiny()
    tokenizer = (nano / "tokenizer.json").read_bytes()
    config["text_config"]["vocab_size"] = 1536
    write(folder, config, form, shard_bytes, seed)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files["tokenizer.json"] = tokenizer
    files["chat_template.jinja"] = (nano / "chat_template.jinja").read_bytes()
    files["README.md"] = b"---\nlicense: apache-2.0\n---\n# Tiny\n"
    return files
