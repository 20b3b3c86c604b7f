"""A pull from plan to pin: fetch, verify, and only then call the model complete."""

from __future__ import annotations

import json
from pathlib import Path

from dgemma_cli.catalog import cache
from dgemma_cli.catalog.download import Report, fetch
from dgemma_cli.catalog.hub_errors import disk_error
from dgemma_cli.catalog.plan import Plan
from dgemma_cli.catalog.verify import check_index, check_weights

WORKERS = 8


def pull(plan: Plan, report: Report, workers: int = WORKERS) -> Path:
    """Carry ``plan`` out and return the model's folder. Can be called again whatever ended it, and by several
    processes at once. The commit is pinned to the revision's name once all files are here and verified: until then
    the name means what it meant before.

    Raises DiskError before the first byte if the disk is too small; NetworkError, ModelUnavailable, CheckpointError.
    """
    plan.check_disk()
    sizes = {file.name: file.size for file in plan.files}
    record = {"revision": plan.reference.revision, "files": sizes}
    _write(cache.plan_file(plan.folder, plan.commit), json.dumps(record, indent=1))
    weights = [file for file in plan.files if file.name.endswith(".safetensors")]
    fetch(plan, [file for file in plan.files if file not in weights], workers, report)
    check_index(plan.snapshot, plan.reference.repository, sizes)
    fetch(plan, weights, workers, report)
    check_weights(plan.snapshot)
    if not plan.reference.is_commit:
        _write(cache.pin_file(plan.folder, plan.reference.revision), plan.commit)
        _write(plan.folder / "refs" / plan.reference.revision, plan.commit)  # so that other tools find it
    return plan.snapshot


def _write(file: Path, text: str) -> None:
    try:
        cache.write_atomically(file, text)
    except OSError as error:
        raise disk_error(error) from None
