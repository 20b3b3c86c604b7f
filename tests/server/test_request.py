"""Bodies: what is asked for is read, what dgemma does not do is refused by its name, and nothing breaks the reading."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgemma_cli.engine.options import Options
from dgemma_cli.prompting.conversation import Message
from dgemma_cli.server import request
from dgemma_cli.server.refusal import Refusal
from dgemma_cli.server.request import Asked, Bounds

BOUNDS = Bounds(tokens=1000, vocabulary=100)
HI = [{"role": "user", "content": "Hi"}]
EXAMPLES = int(os.environ.get("DGEMMA_BODIES", "300"))  # 10000 for a thorough run


def chat(**body: Any) -> Asked:
    return request.chat({"messages": HI, **body}, BOUNDS)


def refusal(read: Callable[[], Any]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read()
    assert caught.value.status == 400
    return caught.value


def test_as_many_canvases_as_there_is_memory_for() -> None:
    def asked(canvases: int) -> Asked:
        return request.chat({"messages": HI, "dgemma": {"best_of": canvases}}, replace(BOUNDS, canvases=3))

    assert asked(3).options.best_of == 3
    with pytest.raises(Refusal, match="must be at most 3"):
        asked(4)


def test_what_a_plain_request_asks() -> None:
    asked = chat()
    assert asked.messages == (Message("user", "Hi"),)
    assert asked.options == Options(max_tokens=1000)  # the default, within the bounds
    assert not (asked.stream or asked.events or asked.include_usage or asked.thinking)
    assert (asked.model, asked.conversation, asked.user) == (None, None, None)


def test_every_parameter_that_means_something() -> None:
    asked = chat(
        model="nano",
        max_completion_tokens=7,
        max_tokens=7,
        seed=5,
        stream=True,
        stream_options={"include_usage": True},
        user="me",
        chat_template_kwargs={"enable_thinking": True},
        dgemma={"events": True, "conversation": "c", "preset": "fast", "steps": 9, "t_min": 1, "best_of": 2},
    )
    assert asked.options == Options(max_tokens=7, seed=5, preset="fast", steps=9, t_min=1, best_of=2)
    assert (asked.stream, asked.events, asked.steps, asked.include_usage, asked.thinking) == (True,) * 5
    assert (asked.model, asked.conversation, asked.user) == ("nano", "c", "me")


def test_every_knob_of_a_generation_can_be_asked_for() -> None:
    knobs = {"preset": "fast", "steps": 4, "horizon": 3, "t_min": 0.1, "t_max": 0.9, "entropy_bound": 0.2}
    knobs |= {"stability": 2, "confidence": 0.01, "best_of": 2, "spacing": 5, "repair": True, "guard": False}
    options = chat(dgemma=knobs).options
    assert {key: getattr(options, key) for key in knobs} == knobs
    assert set(request._KNOBS) == set(knobs)  # a new one belongs into this test


def test_events_without_the_steps() -> None:
    asked = chat(stream=True, dgemma={"events": "blocks"})
    assert (asked.events, asked.steps) == (True, False)


def test_parts_of_text_and_the_roles_there_are() -> None:
    asked = chat(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c", "reasoning_content": "t", "tool_calls": None, "annotations": []},
        ]
    )
    assert asked.messages == (Message("system", "Be brief."), Message("user", "ab"), Message("assistant", "c"))


NEUTRAL = {"n": 1, "top_p": 1.0, "stop": None, "tools": [], "logprobs": False, "frequency_penalty": 0}
NEUTRAL |= {"presence_penalty": 0.0, "response_format": {"type": "text"}, "temperature": None, "logit_bias": {}}


def test_values_that_ask_for_what_is_done_anyway_are_taken() -> None:
    assert chat(**NEUTRAL) == chat()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": 0.7}, "temperature"),
        ({"temperature": 0}, "temperature"),
        ({"top_p": 0.9}, "top_p"),
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"stop": ["x"]}, "stop"),
        ({"tools": [{}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"prompt": "x"}, "prompt"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs.x"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"dgemma": {"speed": 1}}, "dgemma.speed"),
        ({"messages": [{"role": "user", "content": "x", "name": "n"}]}, "messages[0].name"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
    ],
)
def test_what_is_not_done_is_refused_by_its_name(body: dict[str, Any], param: str) -> None:
    found = refusal(lambda: chat(**body))
    assert (found.param, found.code) == (param, "unsupported_parameter")
    assert found.message.startswith(f"{param} is not supported.")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].content[0]"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1001}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens"),
        ({"seed": -1}, "seed"),
        ({"seed": 1 << 63}, "seed"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"dgemma": []}, "dgemma"),
        ({"dgemma": {"events": True}}, "dgemma.events"),
        ({"stream": True, "dgemma": {"events": "all"}}, "dgemma.events"),
        ({"dgemma": {"steps": True}}, "dgemma.steps"),
        ({"dgemma": {"steps": 1025}}, "dgemma.steps"),
        ({"dgemma": {"best_of": 17}}, "dgemma.best_of"),
        ({"dgemma": {"t_min": 10**400}}, "dgemma"),
        ({"dgemma": {"preset": "slow"}}, "dgemma"),
        ({"user": ""}, "user"),
        ({"user": "x" * 201}, "user"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(body: dict[str, Any], param: str) -> None:
    found = refusal(lambda: chat(**body))
    assert (found.param, found.code) == (param, "invalid_value")


def test_prompts_of_completions() -> None:
    for prompt, read in (("x", "x"), (["x"], "x"), ([1, 2], (1, 2)), ([[1, 2]], (1, 2))):
        assert request.completion({"prompt": prompt}, BOUNDS).prompt == read
    for prompt in (None, [], ["x", "y"], [[1], [2]], [1, "x"], [100], [-1], [True], 7, "\udfff"):
        assert refusal(lambda prompt=prompt: request.completion({"prompt": prompt}, BOUNDS)).param == "prompt"


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"NaN", b'{"seed": Infinity}', b"[" * 100_000, b"9" * 5000])
def test_what_is_no_json_is_told(data: bytes) -> None:
    assert refusal(lambda: request.decode(data)).code == "invalid_json"


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_keys = st.sampled_from(sorted(request._CHAT | request._COMPLETION | set(request._NEUTRAL))) | st.text(max_size=8)
_own = st.dictionaries(st.sampled_from([*request._KNOBS, "events", "conversation"]) | st.text(max_size=4), _values)
_messages = st.lists(
    st.dictionaries(st.sampled_from(["role", "content", "name"]), _values | st.sampled_from(["user", "system"])),
    max_size=3,
)
BODIES = st.dictionaries(_keys, _values, max_size=5).flatmap(
    lambda body: st.fixed_dictionaries(
        {}, optional={"messages": _messages | st.just(HI), "dgemma": _own, "prompt": st.text(max_size=3) | _values}
    ).map(lambda more: {**body, **more})
) | _values  # fmt: skip


@settings(max_examples=EXAMPLES, deadline=None)
@given(BODIES)
def test_whatever_comes_is_read_or_refused(body: Any) -> None:
    for read in (request.chat, request.completion):
        try:
            asked = read(body, BOUNDS)
        except Refusal as error:
            assert error.status == 400
            json.dumps(error.body()).encode()
        else:
            assert 1 <= asked.options.max_tokens <= BOUNDS.tokens
            assert asked.messages or asked.prompt is not None


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_whatever_bytes_come_are_read_or_refused(data: bytes) -> None:
    try:
        request.decode(data)
    except Refusal as error:
        assert (error.status, error.code) == (400, "invalid_json")
