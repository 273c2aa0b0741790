"""``xrayreg methods``."""

from __future__ import annotations

import argparse
import json

from XRayRegistrationLib.cli import OK
from XRayRegistrationLib.methods import METHODS


def run(args: argparse.Namespace) -> int:
    """List the methods and what each needs."""
    rows = [{"name": name, **method.describe()} for name, method in METHODS.items()]
    if args.json:
        print(json.dumps(rows, indent=1))
        return OK
    for row in rows:
        print(row.pop("name"))
        for key, value in row.items():
            print(f"  {key.replace('_', ' ')}: {value}")
    return OK
