"""``dgemma serve``: keep a model warm and answer over HTTP, or over a socket of this user's."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Annotated

import typer

from dgemma_cli.commands.default_model import default_model
from dgemma_cli.commands.dtype import Dtype
from dgemma_cli.commands.option_checks import given
from dgemma_cli.commands.options import DebugOption, DeviceOption, DtypeOption, FitOption, ModelOption, YesOption
from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.units import seconds

PORT = 8256
REPLIES = 4  # in turns
AT_REST = 2_000_000_000  # bytes for caches


def serve(
    context: typer.Context,
    model: ModelOption = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address; any but this machine's own needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="0 takes a free one.")] = PORT,
    socket: Annotated[
        Path | None,
        typer.Option(
            "--socket", metavar="PATH", help="A Unix socket instead, for this user alone.", show_default=False
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--api-key-file",
            metavar="FILE",
            help="Clients need the key in FILE. DGEMMA_API_KEY does the same.",
            show_default=False,
        ),
    ] = None,
    origins: Annotated[
        list[str] | None,
        typer.Option("--cors-origin", metavar="URL", help="Web pages from here may call it.", show_default="none"),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="TIME", help="Leave when idle so long: 90s, 10m, 2h.", show_default="for ever"),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            "--parallel",
            metavar="N",
            min=1,
            max=64,
            help="Requests that take turns.",
            show_default=f"{REPLIES}, or what there is memory for",
        ),
    ] = None,
    queue: Annotated[int, typer.Option("--queue", metavar="N", min=0, help="Requests that may wait.")] = 256,
    max_prompt: Annotated[
        int | None,
        typer.Option("--max-prompt", metavar="N", min=1, help="Tokens of a prompt.", show_default="the context"),
    ] = None,
    max_output: Annotated[
        int | None,
        typer.Option("--max-output", metavar="N", min=1, help="Most max_tokens.", show_default="the context"),
    ] = None,
    max_body: Annotated[int, typer.Option("--max-body", metavar="MB", min=1, help="Megabytes of a request.")] = 8,
    cache: Annotated[
        float | None,
        typer.Option(
            "--cache",
            metavar="GB",
            min=0,
            help="Gigabytes for the caches of recent prompts.",
            show_default=f"{AT_REST / 1e9:g}, or what there is memory for",
        ),
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = Dtype.AUTO,
    fit: FitOption = "auto",
    yes: YesOption = False,
    report_to: Annotated[int | None, typer.Option("--report-to", hidden=True)] = None,
    debug: DebugOption = False,
) -> None:
    """Keep a model warm and answer OpenAI's API.

    Answered are /v1/chat/completions, /v1/completions and /v1/models.

    `dgemma run` and `dgemma chat` on this machine use it by themselves. It answers this machine only, unless --host
    says otherwise. SIGTERM or Ctrl-C lets requests at work finish and refuses the others.
    """
    if debug:
        os.environ["DGEMMA_DEBUG"] = "1"
    environment = Environment.current()
    if socket is not None and (given(context, "host") or given(context, "port")):
        raise UsageError("--socket goes without --host and --port.")
    idle = None if keep is None else seconds(keep, "keep")
    if importlib.util.find_spec("uvicorn") is None or importlib.util.find_spec("starlette") is None:
        raise UsageError("dgemma serve needs an extra.", "pip install 'dgemma-cli[serve]'")
    from dgemma_cli.commands.hosting import Reach, Serving, hold
    from dgemma_cli.fit import parse_fit

    hold(
        Serving(
            model=model or default_model(environment, quiet=False),
            device=device,
            dtype=dtype.value,
            fit=parse_fit(fit),
            reach=Reach(host, port, socket, _key(key_file, environment), [_origin(each) for each in origins or []]),
            keep=idle,
            parallel=parallel,
            queue=queue,
            max_prompt=max_prompt,
            max_output=max_output,
            max_body=max_body * 1_000_000,
            cache=None if cache is None else int(cache * 1e9),
            fetch=yes,
            report_to=report_to,
        ),
        environment,
    )


def _origin(text: str) -> str:
    """As browsers send it: no path, not even a slash. Raises UsageError for what none of them would send."""
    found = text.removesuffix("/")
    if not re.fullmatch(r"\*|null|[a-z][a-z0-9+.-]*://[^/\s]+", found):
        raise UsageError(f"--cors-origin takes where pages come from, not {text!r}.", "Like https://page.example")
    return found


def _key(file: Path | None, environment: Environment) -> str | None:
    """The key that clients need. Never from a flag, which every user of the machine could read."""
    key = environment.variables.get("DGEMMA_API_KEY", "")
    if file is not None:
        try:
            key = file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The key in {file} cannot be read: {getattr(error, 'strerror', error)}.") from None
        if not key:
            raise UsageError(f"{file} is empty; it should hold a key.", f"openssl rand -hex 24 > {file}")
    return key or None
