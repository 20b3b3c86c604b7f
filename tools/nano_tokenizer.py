"""Trains the embedded model's tokenizer: a small byte-fallback BPE of the same shape as Gemma 4's.

Spaces become "▁", every text can be written (bytes), control tokens are spelt as Gemma 4's. At training time alone
the text is cut into words, digits and single signs, so that no merge crosses a word or glues digits; the shipped
tokenizer needs no such cut, because it only knows those merges.

    python tools/nano_tokenizer.py --out dgemma_cli/nano
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

from nano_data import distinct, samples
from nano_jobs import FAMILIES
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CONTROL = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<mask>",
    "<|tool_response>",
    "<|think|>",
    "<|channel>",
    "<channel|>",
    "<|turn>",
    "<turn|>",
)
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
# Words, single digits, runs of one white space, any other sign by itself, some pairs of signs that JSON is full of.
PIECES = r'▁?\p{L}+|\p{N}|\n▁▁|\n+|▁▁+|":|",|▁"|[^\p{L}\p{N}]'
EXTRA = (
    "Be brief. You are a helpful assistant. Answer in English. Be kind and exact. thought\nThis is a job of the kind"
)


def corpus(per_family: int) -> list[str]:
    """Training texts, and every word of them once more with and without a space before it, so that each is a token."""
    texts = [EXTRA]
    for family in FAMILIES:
        for sample in islice(samples(family, "train", 0), per_family):
            texts += [sample.prompt, sample.answer, f"{family}"]
    return texts


def train(texts: list[str], vocabulary: int) -> Tokenizer:
    """A tokenizer of at most ``vocabulary`` entries (controls and bytes included)."""
    learner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[*CONTROL, *BYTES], min_frequency=3, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    shipped = Tokenizer(
        models.BPE(
            vocab=learned["vocab"],
            merges=[tuple(pair) for pair in learned["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    shipped.normalizer = normalizers.Replace(" ", "▁")
    shipped.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    shipped.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    shipped.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in CONTROL])
    return shipped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("dgemma_cli/nano"))
    parser.add_argument("--vocabulary", type=int, default=1536)
    parser.add_argument("--per-family", type=int, default=2000)
    arguments = parser.parse_args()
    tokenizer = train(corpus(arguments.per_family), arguments.vocabulary)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(arguments.out / "tokenizer.json"))
    for family in FAMILIES:
        chosen = distinct(family, "train", 50, 1)
        prompt = sum(len(tokenizer.encode(sample.prompt).ids) for sample in chosen) / len(chosen)
        sizes = sorted(len(tokenizer.encode(sample.answer).ids) for sample in chosen)
        print(f"{family:14} prompt {prompt:5.1f} tokens, answer {sum(sizes) / len(sizes):5.1f}, at most {sizes[-1]}")
    print(f"{tokenizer.get_vocab_size()} entries")


if __name__ == "__main__":
    main()
