"""The conventions page: its Python runs, its table of views is the code's, its picture is there."""

from __future__ import annotations

import re
from pathlib import Path

from XRayRegistrationLib.drr.volume import AIR_HU, WATER_MU_PER_MM
from XRayRegistrationLib.geometry import adapters
from XRayRegistrationLib.geometry.carm import NAMED_VIEWS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "conventions.md").read_text(encoding="utf-8")


def test_its_python_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) >= 2
    names: dict = {}
    for block in blocks:  # each goes on where the one before ended
        assert "assert" in block
        exec(compile(block, "conventions.md", "exec"), names)


def test_its_numbers_are_the_codes():
    for name, (primary, secondary) in NAMED_VIEWS.items():
        assert f"| `{name}` | ({primary:.0f}, {secondary:.0f}) |" in PAGE
    assert f"{WATER_MU_PER_MM} (1 + HU / 1000), 0 below {AIR_HU:.0f} HU" in PAGE


def test_it_names_adapters_that_exist():
    table = PAGE[PAGE.index("## Other programs") : PAGE.index("## Several X-rays")]
    named = set(re.findall(r"`(\w+_from_\w+)`", table)) - {"ct_from_camera", "camera_from_ct", "camera_from_rig"}
    assert len(named) > 10
    assert named <= set(adapters.__all__)


def test_its_picture_is_small_and_there():
    link = re.search(r"!\[[^]]+]\(([^)]+)\)", PAGE)
    picture = DOCS / link.group(1)
    assert 10_000 < picture.stat().st_size < 150_000
