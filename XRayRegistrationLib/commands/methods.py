"""``xrayreg methods``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from XRayRegistrationLib.cli import OK
from XRayRegistrationLib.methods import METHODS


def run(args: argparse.Namespace) -> int:
    """List the methods and what each needs."""
    rows = [{"name": name, **method.describe()} for name, method in METHODS.items()]
    if args.json:
        print(json.dumps(rows, indent=1))
        return OK
    for row in rows:
        print(f"{row['name']}: {row['summary']}")
        print(f"    needs {needs_in_words(row)}; {row['reference']}")
    return OK


def needs_in_words(row: dict[str, Any]) -> str:
    """What a method cannot do without, for a user who has to choose."""
    needs = [
        words
        for key, words in (
            ("training_per_patient", "training on each patient's CT"),
            ("trained_weights", "trained weights"),
            ("labels_or_landmarks", "labels or landmarks of the CT"),
            ("start_pose", "a start pose"),
        )
        if row[key] and not (key == "trained_weights" and row["training_per_patient"])
    ]
    packages = list(row["optional_packages"])
    if packages:
        needs.append(f"the package{'s' if packages[1:] else ''} {' and '.join(packages)}")
    return ", ".join(needs) if needs else "no training, no labels and no start pose"
