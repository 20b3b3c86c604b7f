"""Random sequences of commands on a tiny random model: cache, history and file stay consistent.

After every sequence the logits of the chat's cache are those of a fresh session with the same conversation, and the
file plays back to the history.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tiny
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from talk import Talk, talk

from dgemma_cli.chat.records import parse
from dgemma_cli.chat.settings import Settings
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.session import Session
from dgemma_cli.errors import DgemmaError
from dgemma_cli.model import cache as cache_module
from dgemma_cli.model.defaults import GenerationDefaults
from dgemma_cli.model.model import Model
from dgemma_cli.prompting.prompter import Prompter
from dgemma_cli.terminal.cancel import Cancelled
from dgemma_cli.terminal.narrator import Language
from dgemma_cli.writing import InProcess

_CONFTEST = Path(__file__).parent.parent / "prompting" / "conftest.py"
_ROOM = 200  # tokens; conversations hit it now and then
_QUESTIONS = st.sampled_from(["the", "thought the turn", "a b c", "<turn|> <|channel>", "ught"])
_COMMANDS = [
    *("/undo", "/regen", "/regen --seed 5", "/clear", "/compact", "/compact 1", "/set think on", "/set think off"),
    *("/system the turn", "/system ught", "/system -", "/show", "/history", "/model tiny", "/set seed 4", "/undone"),
]


def _prompter() -> Prompter:
    """The small tokenizer and template that the tests of prompting make."""
    spec = importlib.util.spec_from_file_location("prompting_conftest", _CONFTEST)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    folder = Path(tempfile.mkdtemp())
    (folder / "tokenizer.json").write_text(json.dumps(made.small_tokenizer()))
    (folder / "chat_template.jinja").write_text(made.TEMPLATE)
    try:
        return Prompter.load(folder)
    finally:
        shutil.rmtree(folder)


PROMPTER = _prompter()
VOCABULARY = 400


class Watched(Model):
    """Remembers the last logits, and can be cancelled or interrupted: in which of the passes to come."""

    last: torch.Tensor | None = None
    encoded = 0
    cancel_in: int | None = None
    break_in: int | None = None

    def encode(self, ids: torch.Tensor, cache: Any) -> None:
        if self.break_in is not None:
            # Ctrl-C in the middle of a pass: the first layer has kept the new keys, the second has not.
            self.break_in = None
            cache.begin(len(ids))
            layer = cache._layers[0]
            layer.append(layer.k.new_ones(1, 1, len(ids), 16), layer.k.new_ones(1, 1, len(ids), 16))
            raise Cancelled
        self.encoded += len(ids)
        super().encode(ids, cache)

    def denoise(self, canvas: torch.Tensor, cache: Any, soft: torch.Tensor | None) -> torch.Tensor:
        if self.cancel_in is not None:
            self.cancel_in -= 1
            if self.cancel_in < 0:
                self.cancel_in = None
                raise Cancelled
        self.last = super().denoise(canvas, cache, soft)
        return self.last


def _model() -> Watched:
    torch.manual_seed(0)
    made = Watched(tiny.config(context=_ROOM + 8, vocab=VOCABULARY)).requires_grad_(False).eval()
    made.defaults = GenerationDefaults(steps=2, eos_ids=frozenset(range(60, 90)))  # so that replies end
    return made


class Loaded:
    """A ``commands.loading.Session`` of the tiny model."""

    name = "tiny"
    folder = Path("tiny")
    room = _ROOM

    class choice:
        device = "cpu"
        dtype = "float32"
        fit = "as stored"

    def __init__(self, model: Watched) -> None:
        self.network = model

    def encode(self, messages: Any, thinking: bool) -> list[int]:
        return PROMPTER.encode(messages, thinking)

    def check_memory(self, options: Options) -> None:
        """There is memory for anything."""

    def language(self, prompt: Any) -> Language:
        begin, end = PROMPTER.thought_ids
        thinking = next((token == begin for token in reversed(prompt) if token in (begin, end)), False)
        return Language(
            PROMPTER.pieces,
            lambda ids: PROMPTER.reply(ids, prompt),
            self.network.defaults.eos_ids,
            begin,
            end,
            thinking,
        )

    def converse(self) -> Session:
        return Session(self.network)


def first_logits(session: Session, model: Watched, ids: list[int]) -> torch.Tensor:
    """Of the first step of a reply to ``ids``."""
    list(itertools.islice(session.reply(ids, Options(seed=0, steps=1, max_tokens=1)), 3))
    assert model.last is not None
    return model.last


class ChatMachine(RuleBasedStateMachine):
    going: Talk

    @initialize(slack=st.sampled_from([0, 10, 1024]), kept=st.booleans())
    def begin(self, slack: int, kept: bool) -> None:
        self.slack, self.before, cache_module.SLACK = slack, cache_module.SLACK, slack
        self.folder = Path(tempfile.mkdtemp())
        self.model = _model()
        self.going = talk(self.folder if kept else None, Settings(options=Options(max_tokens=20), markdown=False))
        self.chat = self.going.chat
        self.chat.load = lambda name: InProcess(Loaded(self.model))
        self.chat.loaded = InProcess(Loaded(self.model))
        self.files = 0
        self.interrupted = False

    def say(self, line: str) -> None:
        before = [*self.chat.dialogue.turns]
        try:
            self.going.say(line)
        except DgemmaError:
            assert before[: len(self.chat.dialogue.turns)] == self.chat.dialogue.turns

    @rule(text=_QUESTIONS)
    def ask(self, text: str) -> None:
        self.say(text)

    @rule(text=_QUESTIONS, steps=st.integers(0, 5))
    def ask_and_cancel(self, text: str, steps: int) -> None:
        self.model.cancel_in = steps
        self.say(text)
        self.model.cancel_in = None

    @rule(text=_QUESTIONS)
    def ask_and_interrupt_a_pass(self, text: str) -> None:
        self.model.break_in = 0
        self.interrupted = True  # which costs a fresh cache, so that more is encoded than is new
        self.say(text)
        self.model.break_in = None

    @rule(line=st.sampled_from(_COMMANDS))
    def command(self, line: str) -> None:
        self.say(line)

    @rule(text=_QUESTIONS)
    def edit(self, text: str) -> None:
        self.say("/edit")
        if self.chat.draft.replaces:
            self.say(text)

    @rule()
    def save_and_load(self) -> None:
        self.files += 1
        path = self.folder / f"copy-{self.files}"
        before = self.chat.dialogue
        self.say(f"/save {path}")
        self.say(f"/load {path}")
        assert self.chat.dialogue == before

    @precondition(lambda self: self.chat.journal is not None)
    @rule()
    def leave_and_resume(self) -> None:
        store, journal = self.chat.store, self.chat.journal
        assert store is not None
        assert journal is not None
        self.chat.close()
        self.chat.journal, story, remark = store.resume(journal.id)
        assert remark is None
        assert story.dialogue == self.chat.dialogue
        self.chat.dialogue = story.dialogue

    def teardown(self) -> None:
        if not hasattr(self, "going"):
            return
        cache_module.SLACK = self.before
        chat = self.chat
        if chat.journal is not None:
            assert parse(chat.journal.path.read_bytes()).dialogue == chat.dialogue
        chat.close()
        shutil.rmtree(self.folder)
        conversation: Any = getattr(chat.conversation, "inner", None)
        if conversation is None:
            return
        if chat.dialogue.question is None:
            chat.dialogue.ask("the next")
        ids = PROMPTER.encode(chat.dialogue.messages(), chat.settings.thinking)
        if len(ids) > _ROOM:
            return
        held = conversation.encoded
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(held, ids, strict=False)))
        self.model.encoded = 0
        warm = first_logits(conversation, self.model, ids)
        new = self.model.encoded
        if self.slack == 1024 and not self.interrupted:
            assert new == len(ids) - min(common, len(ids) - 1)
        torch.testing.assert_close(warm, first_logits(Session(self.model), self.model, ids), rtol=0, atol=5e-4)


TestChat = ChatMachine.TestCase
TestChat.settings = settings(
    max_examples=500, stateful_step_count=8, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
