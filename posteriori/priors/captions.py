"""The words in which the text-driven digits prior was told what it sees."""

from __future__ import annotations

from itertools import product

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_WEIGHTS = ("thin", "regular", "bold")
SLANTS = ("leaning left", "upright", "leaning right")


def captions(digit: int | None, weight: str | None, slant: str | None) -> list[str]:
    """Four ways to say all three, then those of each part of them: 20 captions.

    The parts are the digit alone, digit and weight, digit and slant, weight and slant.
    """
    parts = (
        (digit, weight, slant),
        (digit, None, None),
        (digit, weight, None),
        (digit, None, slant),
        (None, weight, slant),
    )
    return [text for part in parts for text in phrased(*part)]


def phrased(digit: int | None, weight: str | None, slant: str | None) -> list[str]:
    """The four ways to say what is not None: "a bold seven leaning left", "the digit seven, bold,
    leaning left", "a handwritten 7 in bold strokes, leaning left", "number 7, bold strokes, leaning
    left"."""
    name, figure = ("digit", "digit") if digit is None else (NAMES[digit], str(digit))
    word = "number" if digit is None else f"number {figure}"
    first = " ".join(part for part in (weight, "upright" if slant == "upright" else None) if part)
    first = f"{first} {name}" if first else name
    article = "an" if first[0] in "aeiou" and not first.startswith("one") else "a"
    tail = f" {slant}" if slant not in (None, "upright") else ""
    of = "the digit" if digit is None else f"the digit {name}"
    told = [part for part in (weight, slant) if part]
    strokes = [f"{weight} strokes"] if weight else []
    lean = [slant] if slant else []
    third = " in ".join([f"a handwritten {figure}", *strokes])
    return [
        f"{article} {first}{tail}",
        ", ".join([of, *told]),
        ", ".join([third, *lean]),
        ", ".join([word, *strokes, *lean]),
    ]


def all_captions() -> list[str]:
    """Every caption once."""
    told = product((*range(10), None), (*_WEIGHTS, None), (*SLANTS, None))
    return list(dict.fromkeys(text for part in told for text in phrased(*part)))
