"""The sandbox renders what transformers renders, and stops what goes too far."""

from __future__ import annotations

import re
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from dgemma_cli.errors import CheckpointError, UsageError
from dgemma_cli.prompting import template as module
from dgemma_cli.prompting.template import Template

MESSAGES = [{"role": "user", "content": "Grüße <b>\n"}, {"role": "assistant", "content": " so\tit is "}]


def render(source: str, **variables: Any) -> str:
    return Template(source).render(MESSAGES, variables)


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}\n  {% if m.role == 'user' %}\n  U {{ m.content }}\n  {% endif %}\n{% endfor %}\nend\n",
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role | trim }}{% break %}{% endfor %}",
        "{{ messages | tojson }} {{ messages | tojson(indent=2) }} {{ messages[0] | tojson(sort_keys=true) }}",
        "{{ {'b': 1, 'a': [1]} | tojson(separators=(',', ':'), ensure_ascii=true) }}",
        "a{% generation %}{{ messages[1].content }}{% endgeneration %}b",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 2 %}{% endfor %}{{ ns.n }}",
        "{% macro f(x, y='z') %}[{{ x }}{{ y }}]{% endmacro %}{{ f(1) }}{{ f(2, 3) }}",
        "{% macro g() %}<{{ caller() }}>{% endmacro %}{% call g() %}x{% endcall %}",
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% else %}none{% endfor %}",
        "{% for m in messages recursive %}{{ m.role }}{% if loop.depth < 3 %}{{ loop([m]) }}{% endif %}{% endfor %}",
        "{% set x %}{% for i in range(3) %}{{ i }}{% endfor %}{% endset %}{{ x * 2 }}{{ 3 * 4 }}{{ '-' * 3 }}",
        "{{ bos_token }}{{ add_generation_prompt }}{{ tools }}{{ documents is defined }}{{ nothing }}",
        "{{ strftime_now('%Y') }}{{ dict(a=1) }}",
    ],
)
def test_like_transformers(source: str) -> None:
    theirs = render_jinja_template([MESSAGES], chat_template=source, add_generation_prompt=True, bos_token="<s>")[0][0]
    assert render(source, bos_token="<s>") == theirs


def test_reads_tells_which_variables_matter() -> None:
    template = Template("{% if enable_thinking is defined %}x{% endif %}{% set own = 1 %}{{ own }}")
    assert template.reads("enable_thinking")
    assert not template.reads("own")
    assert not template.reads("tools")


def test_a_refusal_is_the_users_to_mend() -> None:
    with pytest.raises(UsageError) as caught:
        render("{{ raise_exception('Roles must\n alternate\x1b[31m') }}")
    assert caught.value.message == "The model's chat template refuses this: Roles must alternate[31m"


@pytest.mark.parametrize(
    "source", ["{% if %}", "{{ 'a' ", "{% for x in y %}", "{% nonsense %}", "(" * 9 + "{{" + "(" * 5000]
)
def test_no_jinja(source: str) -> None:
    with pytest.raises(CheckpointError, match="The chat template is no valid Jinja: ") as caught:
        Template(source)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].clear() }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ watch_clock.__func__ }}",
        "{% include 'chat_template.jinja' %}",
        "{% import 'os' as os %}{{ os }}",
        "{{ messages[7].content }}",
        "{{ 1 + 'a' }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_failures_and_escapes_are_one_line(source: str) -> None:
    with pytest.raises(CheckpointError, match="The model's chat template failed: ") as caught:
        render(source)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400


def test_source_limit() -> None:
    assert Template("x" * module.SOURCE_LIMIT)
    with pytest.raises(CheckpointError, match=r"1,000,001 characters long"):
        Template("x" * (module.SOURCE_LIMIT + 1))


def test_output_limit_counts_what_the_template_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTPUT_LIMIT", 100)
    template = Template("{% for m in messages %}{{ m.content }}{% for i in range(n) %}12345{% endfor %}{% endfor %}")
    messages = [{"role": "user", "content": "x" * 1000}]
    assert len(template.render(messages, {"n": 20})) == 1100
    with pytest.raises(CheckpointError, match="writes more than 100 characters of its own"):
        template.render(messages, {"n": 21})


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(9) %}{% endfor %}",
        "{% for i in range(9) if i > 7 %}{% endfor %}",
        "{% macro f() %}{% endmacro %}{{ f() }}",
        "{% macro g() %}{{ caller() }}{% endmacro %}{% call g() %}{% endcall %}",
        "{% set x %}{% if true %}{% for i in [1] %}{{ i }}{% endfor %}{% endif %}{% endset %}",
    ],
)
def test_time_limit(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    render(source)
    monkeypatch.setattr(module, "TIME_LIMIT", -1.0)
    with pytest.raises(CheckpointError, match="it runs longer than"):
        render(source)
    render("{% if true %}x{% endif %}")


def test_time_limit_starts_with_each_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    template = Template("{% for m in messages %}{{ m.role }}{% endfor %}")
    for _ in range(3):
        assert template.render(MESSAGES, {}) == "userassistant"
        clock[0] += module.TIME_LIMIT * 0.9


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ 9 ** 9 ** 9 }}", "computes powers"),
        ("{{ ('x' * 2000000) | length }}", "repeats something"),
        ("{{ (3000000 * [1]) | length }}", "repeats something"),
    ],
)
def test_single_expressions_that_take_for_ever(source: str, why: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(why)):
        render(source)
