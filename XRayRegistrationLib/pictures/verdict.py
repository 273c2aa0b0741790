"""The verdict in words and a colour, the same in every picture and in the shell."""

from __future__ import annotations

from dataclasses import dataclass

from XRayRegistrationLib.result import Result, percentage

GREEN, RED, AMBER = "#3ddc84", "#ff5c5c", "#ffc04d"


@dataclass(frozen=True)
class Verdict:
    """A headline, its colour, the sentences below it, and whether the pose may be used."""

    headline: str
    colour: str
    sentences: tuple[str, ...] = ()
    ok: bool = True


def verdict_of(result: Result) -> Verdict:
    """What to tell a clinician about a result: the headline never leaves the outcome to the colour alone."""
    percent = percentage(result.probability)
    # of a pose that is wrong, another one that looks like it says nothing
    sentences = tuple(s for s in (result.message, result.ambiguity if result.ok else "") if s)
    if result.ok:
        colour = AMBER if result.ambiguity else GREEN
        return Verdict(f"✔ Registration accepted ({percent} sure)", colour, sentences)
    headline = f"✘ REGISTRATION FAILED, do not use this pose (probability that it is right: {percent})"
    return Verdict(headline, RED, sentences, ok=False)
