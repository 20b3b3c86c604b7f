"""A model in this process as something to measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from dgemma_cli.bench.prompts import Encode, Prompt
from dgemma_cli.engine.events import Event
from dgemma_cli.engine.options import Options


@dataclass(frozen=True, slots=True)
class LocalTarget:
    """A ``runner.Target``. write: the events of a reply to these ids; encode: a prompt's ids; sync: lets the device
    finish; most: the most bytes held since it was last called.
    """

    write: Callable[[Sequence[int], Options], Iterator[Event]]
    encode: Encode
    sync: Callable[[], None]
    most: Callable[[], int]

    def prepare(self, prompt: Prompt) -> Prompt:
        return prompt if prompt.ids else replace(prompt, ids=tuple(self.encode(prompt.messages)))

    def generate(self, prompt: Prompt, options: Options) -> Iterator[Event]:
        return self.write(prompt.ids, options)

    def wait(self) -> None:
        self.sync()

    def peak(self) -> int | None:
        return self.most()
