"""Reading a JSON file that a user named."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from XRayRegistrationLib.errors import InputError


def json_text(data: Any) -> str:
    """JSON for files that people read too: indented, a row of numbers on one line, nothing but JSON's own numbers."""
    text = json.dumps(data, indent=1, allow_nan=False)
    # strings hold no raw line breaks, so only lists of numbers match
    return re.sub(r"\[\n([-+\d.eE,\s]+)\]", lambda m: f"[{' '.join(m[1].split())}]", text) + "\n"


def read_json(path: str | os.PathLike[str], what: str, way_out: str) -> Any:
    """The content of a JSON file.

    Args:
        what: the file's role, to begin the message with, such as ``"the start pose"``.
        way_out: what to give instead.

    Raises:
        InputError: missing, a folder, not text or not JSON (truncated, say); it gives the place.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"{what} {path} does not exist; give {way_out}")
    if not file.is_file():
        raise InputError(f"{what} {path} is no file; give {way_out}")
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is no JSON text; give {way_out}") from error
    except RecursionError as error:
        raise InputError(f"{what} {path} is nested too deeply; give {way_out}") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{what} {path} is no valid JSON (line {error.lineno}, column {error.colno}: {error.msg}); give {way_out}"
        ) from error
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read ({error.strerror}); give {way_out}") from error
