"""The embedded model's data: samples of every job family, split into training and held-out jobs.

Whether a job belongs to training is a hash of its *content* (the words, numbers or facts it is about, in a canonical
order), never of its wording: a held-out job was not seen in any wording or order. Where a fact must be seen to be
known (small facts, letters of a word, small talk) the content is the pair of fact and wording: training sees each
fact and each wording, but not the pair.

    python tools/nano_data.py --split heldout --count 3      prints samples as JSON lines
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from typing import Literal, TypeAlias

from nano_jobs import FAMILIES
from nano_sample import Sample
from nano_tales import OPEN
from nano_talk import POEM

Split: TypeAlias = Literal["train", "heldout"]
HELD_OUT_SHARE = 0.1

# How often training draws each family: the ones that need copying, comparing or carrying are drawn more.
WEIGHTS = {
    "facts": 0.8,
    "sort": 3.0,
    "reverse": 1.6,
    "count": 0.5,
    "sum": 5.0,
    "number_words": 0.7,
    "counting": 4.5,
    "dates": 1.2,
    "to_json": 0.5,
    "from_json": 0.6,
    "spelling": 0.4,
    "gap": 2.0,
    "list": 0.5,
    "replace": 2.2,
    "table": 1.4,
    "story": 0.4,
    "talk": 0.8,
    "beyond": 0.7,
}
# With the open families (train_nano.py --open) half of the jobs are tales and poems.
OPEN_WEIGHTS = {"tale": 18.0, "poem": 9.0}


def split_of(sample: Sample) -> Split:
    """The split a sample's content belongs to: a fixed tenth of all contents is held out."""
    if sample.always_train:
        return "train"
    content = json.dumps([sample.family, sample.content], ensure_ascii=False)
    digest = hashlib.sha256(content.encode()).digest()
    return "heldout" if int.from_bytes(digest[:8]) < HELD_OUT_SHARE * 2**64 else "train"


def samples(family: str, split: Split, seed: int) -> Iterator[Sample]:
    """An endless stream of one family's samples of one split; the same seed gives the same stream."""
    rng = random.Random(f"{family}/{split}/{seed}")
    draw = (FAMILIES | OPEN)[family]
    while True:
        sample = draw(rng)
        if split_of(sample) == split:
            yield sample


def distinct(family: str, split: Split, count: int, seed: int) -> list[Sample]:
    """``count`` different samples: of different prompts, or where a prompt has many answers, of different answers.
    Raises ValueError if a family has too few of them.
    """
    found: dict[tuple[str, str], Sample] = {}
    for tried, sample in enumerate(samples(family, split, seed)):
        found.setdefault((sample.prompt, sample.answer), sample)
        if len(found) == count:
            return list(found.values())
        if tried > 200 * count:
            raise ValueError(f"{family} has no {count} different {split} prompts, only {len(found)}.")
    raise AssertionError("the stream is endless")


def mixture(split: Split, seed: int, weights: dict[str, float] | None = None) -> Iterator[Sample]:
    """An endless stream over all families, drawn by weight. With poems among them, small talk has none of its own."""
    chosen = WEIGHTS if weights is None else weights
    names = list(chosen)
    rng = random.Random(f"mixture/{split}/{seed}")
    streams = {name: samples(name, split, seed) for name in names}
    while True:
        sample = next(streams[rng.choices(names, [chosen[name] for name in names])[0]])
        if "poem" not in chosen or sample.answer != POEM:
            yield sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("train", "heldout"), default="train")
    parser.add_argument("--count", type=int, default=3, help="samples of each family")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for family in FAMILIES:
        for sample in distinct(family, arguments.split, arguments.count, arguments.seed):
            row = {"family": family, "prompt": sample.prompt, "answer": sample.answer}
            print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
