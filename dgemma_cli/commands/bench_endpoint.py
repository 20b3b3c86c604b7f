"""One run of ``dgemma bench --endpoint``: many users of a server, wherever it is. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dgemma_cli.bench import report
from dgemma_cli.bench.prompts import Prompt, general, nano, read_prompt_file
from dgemma_cli.bench.users import Round, Write, as_markdown, one_round, row
from dgemma_cli.catalog.known import NANO
from dgemma_cli.commands.bench import Form
from dgemma_cli.engine.options import Options
from dgemma_cli.errors import DgemmaError, UsageError
from dgemma_cli.server.endpoint import connect
from dgemma_cli.terminal.entries import Entry
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.output import Target as Destination


@dataclass(frozen=True, slots=True)
class Request:
    """What a run was asked for. users: how many at once, one row each."""

    endpoint: str
    model: str | None
    users: tuple[int, ...]
    prompts: tuple[Path, ...]
    max_tokens: int
    repetitions: int
    warmup: int
    form: Form
    output: Path | None
    flags: tuple[str, ...]


def perform(request: Request, environment: Environment) -> None:
    """Measure and write the report. Raises DgemmaError; what fails within the measurement is counted instead."""
    key = environment.variables.get("DGEMMA_API_KEY") or None
    # Without a seed and without events, as other programs ask: what they get is what is measured.
    writer = connect(request.endpoint, key, request.model, plain=True)
    options = Options(max_tokens=request.max_tokens)
    prompts = [read_prompt_file(file) for file in request.prompts] or list(
        (nano() if writer.name == NANO else general()).prompts
    )

    def write_with(own: Any) -> Write:
        def write(prompt: Prompt) -> Iterator[Entry]:
            return own.write(prompt.messages, False, options, 0.0)  # type: ignore[no-any-return]

        return write

    with ExitStack() as stack:
        destination = Destination(environment, request.output)
        stack.callback(destination.close)
        rows = []
        for users in request.users:
            writers = [
                write_with(connect(request.endpoint, key, writer.name, plain=True)) for _ in range(users)
            ]  # a connection each
            for number in range(request.warmup):
                environment.say(f"concurrency {users}: warm-up {number + 1} of {request.warmup}", dim=True)
                one_round(writers, prompts)
            rounds: list[Round] = []
            for number in range(request.repetitions):
                environment.say(f"concurrency {users}: round {number + 1} of {request.repetitions}", dim=True)
                rounds.append(one_round(writers, prompts))
            rows.append(row(users, rounds))
        document = _document(request, writer.name, writer.place, prompts, rows)
        destination.write(_written(request.form, document))
    if not any(each["replies"] for each in rows):
        message = next(iter(rows[0]["error_messages"]), "there was no reply")
        raise DgemmaError(f"No request was answered: {message}")


def _document(
    request: Request, model: str, place: str, prompts: Sequence[Prompt], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    notes = [
        f"{each['errors']} errors with {each['users']} users: {'; '.join(each['error_messages'])}"
        for each in rows
        if each["errors"]
    ]
    if any(each["tokens"] is None and each["replies"] for each in rows):
        notes.append("the server does not count tokens (usage), so tokens a second are not told")
    return {
        "schema": "dgemma-bench-endpoint",
        "schema_version": 1,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "flags": list(request.flags),
        "endpoint": place,
        "model": model,
        "plan": {
            "prompts": [prompt.name for prompt in prompts],
            "rounds": request.repetitions,
            "warmup": request.warmup,
            "max_tokens": request.max_tokens,
        },
        "rows": rows,
        "notes": notes,
    }


def _written(form: Form, document: dict[str, Any]) -> str:
    match form:
        case Form.MD:
            return as_markdown(document)
        case Form.CSV:
            rows = [{key: value for key, value in each.items() if key != "error_messages"} for each in document["rows"]]
            return report.as_csv({**document, "rows": rows})
        case Form.JSON:
            return report.as_json(document)
        case Form.JSONL:
            return report.as_json_lines(document)


def parse_users(text: str) -> tuple[int, ...]:
    """Numbers from "1,4,16". Raises UsageError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= 1024 for part in parts):
        raise UsageError(f"--concurrency takes numbers from 1 to 1,024 such as 1,4,16, not {text!r:.40}.")
    return tuple(dict.fromkeys(map(int, parts)))
