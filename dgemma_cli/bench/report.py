"""A report written out: markdown for people, CSV for a spreadsheet, JSON and JSON lines for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dgemma_cli.bench.chart import bars
from dgemma_cli.bench.figures import ALL, Row, cells

Document = Mapping[str, Any]

_WHAT = {"compute": ("multiply-adds", "a matrix product"), "memory": ("bytes", "a copy")}
_NAMES = {
    "ms_per_step": "ms a step",
    "prefill_tokens_per_second": "prefill tokens/s",
    "kept_tokens_per_second": "kept tokens/s",
    "first_draft_ms": "first draft, ms",
    "first_block_ms": "first block, ms",
}


def as_json(document: Document) -> str:
    """The whole of it, one object."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def as_json_lines(document: Document) -> str:
    """A line for the run, with everything but its rows, then one a row. "line" says which it is."""
    lines = [{"line": "run"} | {key: value for key, value in document.items() if key != "rows"}]
    lines += [{"line": "row"} | row for row in document["rows"]]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def as_csv(document: Document) -> str:
    """A line a row, without raw samples."""
    flat = [dict(cells(row)) for row in document["rows"]]
    names = list(dict.fromkeys(name for row in flat for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def as_markdown(document: Document, unicode: bool = True) -> str:
    """For people. unicode: bars may be drawn with block characters."""
    parts = [_machine(document["environment"])]
    for target in document["targets"]:
        rows = [row for row in document["rows"] if (row["model"], row["format"]) == (target["model"], target["format"])]
        parts.append(_target(target, document))
        if rows:
            parts += [_speed(rows), _blocks(rows)]
        if target["quality"]:
            parts.append(_quality(target["quality"]))
        if target["profile"] is not None:
            parts.append(_profile(target["profile"], rows, unicode))
    if document["comparison"] is not None:
        parts.append(_comparison(document["comparison"]))
    parts += [f"note: {note}" for note in document["notes"]]
    return "\n\n".join(parts) + "\n"


def _machine(environment: Mapping[str, Any]) -> str:
    host, gpu = environment["host"], environment["gpu"]
    lines = [f"{host['processor']}, {host['cores']} cores, {_bytes(host['memory_bytes'])}"]
    if gpu is not None:
        lines.append(f"{gpu['name']}, {_bytes(gpu['memory_bytes'])}, driver {gpu['driver']}")
    cuda = f", CUDA {environment['cuda']}" if environment["cuda"] else ""
    commit = f" ({environment['commit'][:12]})" if environment["commit"] else ""
    lines.append(f"dgemma {environment['dgemma']}{commit}, torch {environment['torch']}{cuda}")
    return "  \n".join(lines)


def _target(target: Mapping[str, Any], document: Document) -> str:
    plan, rate = document["plan"], target["rate"]
    threads = f", {_count(target['threads'], 'thread')}" if target["device"] == "cpu" else ""
    weights = f", {_bytes(target['weights_bytes'])} of weights" if target["weights_bytes"] else ""
    lines = [
        f"computed in {target['dtype']} by {target['kernels']}{threads}",
        f"loaded {target['fit']} in {target['load_seconds']:.2f} s{weights}",
        f"{_count(plan['rounds'], 'round')} after {_count(plan['warmup'], 'warm-up')}; mean ± standard deviation",
    ]
    if rate is not None:
        what, of_what = _WHAT[rate["kind"]]
        lines.append(f"floor: a step's {what} at {_amount(rate['per_second'])} a second, measured here on {of_what}")
    if target["experts_used"] is not None:
        lines.append(f"{target['experts_used']:.1f} of {target['experts']} experts are used by a layer in a step")
    heading = f"## {target['model']} ({target['format']}) on {target['device']}"
    return "\n".join([heading, "", *(f"- {line}" for line in lines)])


def _speed(rows: Sequence[Row]) -> str:
    columns: dict[str, Callable[[Row], str]] = {
        "tokens in": lambda row: f"{row['prompt_tokens']:,}",
        "kept": lambda row: _or_none(row["tokens"], "{:,}"),
        "ms a step": lambda row: _spread(row["ms_per_step"]),
        "floor": lambda row: _number(row["floor"]["ms"]),
        "reached": lambda row: _or_none(row["floor"]["reached"], "{:.0%}"),
        "prefill tokens/s": lambda row: _spread(row["prefill_tokens_per_second"]),
        "kept tokens/s": lambda row: _spread(row["kept_tokens_per_second"]),
    }
    return _table(rows, columns)


def _blocks(rows: Sequence[Row]) -> str:
    columns: dict[str, Callable[[Row], str]] = {
        "blocks": lambda row: f"{row['blocks']:,}",
        "steps a block": lambda row: f"{row['steps_per_block']['mean']:.1f} ({_range(row['steps_per_block'])})",
        "at the cap": lambda row: f"{row['steps_per_block']['at_cap']:.0%}",
        "tokens/forward": lambda row: _or_none(row["tokens_per_forward"], "{:.1f}"),
        "first draft, ms": lambda row: _spread(row["first_draft_ms"]),
        "first block, ms": lambda row: _spread(row["first_block_ms"]),
        "peak memory": lambda row: "–" if row["peak_memory_bytes"] is None else _bytes(row["peak_memory_bytes"]),
    }
    return _table(rows, columns)


def _range(steps: Mapping[str, Any]) -> str:
    return str(steps["min"]) if steps["min"] == steps["max"] else f"{steps['min']} to {steps['max']}"


def _quality(found: Sequence[Mapping[str, Any]]) -> str:
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "right": lambda row: f"{row['right']} of {row['tasks']}",
        "exact (95 %)": lambda row: f"{row['exact']:.1%} ({row['exact_low']:.1%} to {row['exact_high']:.1%})",
        "steps": lambda row: f"{row['steps']:,}",
        "tokens/forward": lambda row: f"{row['tokens_per_forward']:.1f}",
        "ms a step": lambda row: _number(row["ms_per_step"]),
        "kept tokens/s": lambda row: _number(row["kept_tokens_per_second"]),
    }
    header = ["preset", *columns]
    return _lines(header, [[row["preset"], *(column(row) for column in columns.values())] for row in found])


def _profile(found: Mapping[str, Any], rows: Sequence[Row], unicode: bool) -> str:
    total = sum(part["ms"] for part in found["parts"])
    told = f"Where a step's time goes ({found['steps']} steps, {_number(total)} ms each while being watched"
    plain = next((row["ms_per_step"]["mean"] for row in rows if row["prompt"] == found["prompt"]), None)
    told += f", {_number(plain)} ms otherwise):" if plain is not None else "):"
    drawn = bars([(part["part"], part["ms"], f"{_number(part['ms'])} ms") for part in found["parts"]], unicode)
    return "\n".join([told, "", "```", *drawn, "```"])


def _comparison(found: Mapping[str, Any]) -> str:
    lines = [f"## Against the run of {found['time']}", ""]
    lines += [f"- {difference}" for difference in found["differences"]]
    if found["differences"]:
        lines.append("")
    presets = {row["preset"] for row in found["rows"]}
    several = len({(row["model"], row["format"]) for row in found["rows"]}) > 1
    figures = [name for name in _NAMES if any(name in row["figures"] for row in found["rows"])]
    table = []
    for row in found["rows"]:
        name = _name(row) + (f", {row['preset']}" if len(presets) > 1 else "")
        step = row["figures"]["ms_per_step"]
        changes = [row["figures"].get(figure) for figure in figures]
        told = ["–" if each is None else f"{_or_none(each['ratio'], '{:.3f}')} {each['verdict']}" for each in changes]
        table.append(
            [f"{row['format']}: {name}" if several else name, _spread(step["old"]), _spread(step["new"]), *told]
        )
    lines.append(
        _lines(["prompt", "ms a step before", "now", *(f"{_NAMES[figure]}: now/before" for figure in figures)], table)
    )
    other = [_name(row) for row in found["rows"] if row["same_text"] is False]
    if other:
        lines += ["", f"The text is another one than before, which tokens/s follow: {', '.join(other)}."]
    for count, which in ((found["only_old"], "before"), (found["only_new"], "now")):
        if count:
            lines += ["", f"{_count(count, 'row')} only {which}, left out."]
    return "\n".join(lines)


def _table(rows: Sequence[Row], columns: Mapping[str, Callable[[Row], str]]) -> str:
    with_preset = len({row["preset"] for row in rows}) > 1
    header = ["prompt", *(["preset"] if with_preset else []), *columns]
    body = [
        [_name(row), *([row["preset"]] if with_preset else []), *(column(row) for column in columns.values())]
        for row in rows
    ]
    return _lines(header, body, names=2 if with_preset else 1)


def _name(row: Row) -> str:
    if row["prompt"] == ALL:
        return "**all**"
    return str(row["prompt"]) if row["context"] is None else f"{row['prompt']}, {row['context']:,}"


def _lines(header: Sequence[str], body: Sequence[Sequence[str]], names: int = 1) -> str:
    """A markdown table whose source is aligned, too: the first columns, names, at the left, figures at the right."""
    widths = [max(len(row[column]) for row in [header, *body]) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < names else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * (width + 2) if column < names else "-" * (width + 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([line(header), "|" + "|".join(rule) + "|", *map(line, body)])


def _spread(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    digits = _digits(found["mean"])
    text = f"{found['mean']:,.{digits}f}"
    return f"{text} ± {found['sd']:,.{digits}f}" if found["count"] > 1 else text


def _number(value: float) -> str:
    return f"{value:,.{_digits(value)}f}"


def _digits(value: float) -> int:
    """Decimals to show, so that three figures count."""
    return next((digits for digits, bound in enumerate((100, 10, 1)) if value >= bound), 3)


def _or_none(value: Any, form: str) -> str:
    return "–" if value is None else form.format(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _amount(value: float) -> str:
    """A large number with its prefix: "42.6 G"."""
    return next(f"{value / scale:.3g} {prefix}" for scale, prefix in _scales(value))


def _bytes(count: float) -> str:
    return f"{_amount(count)}B"


def _scales(value: float) -> Iterator[tuple[float, str]]:
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            yield scale, prefix
    yield 1.0, ""
