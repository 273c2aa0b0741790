"""The command line ``xrayreg``.

Imports nothing heavy: a command's module is imported when that command runs, so ``--help`` is instant.

Exit status: 0 done (and the verification believes the result), 3 done but the verification says
failure, 2 bad input or a missing package, with one line on stderr, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from XRayRegistrationLib import __version__
from XRayRegistrationLib.errors import InputError, NotYetAvailableError, XRayRegistrationError

OK, BAD_INPUT, NOT_VERIFIED, STOPPED = 0, 2, 3, 130

LATER = ("simulate", "train", "evaluate")
COMMANDS = ("demo", "register", "segment", "drr", "convert", "methods", *LATER)
INTERNAL = ("work",)  # not in the help
VIEWS = ("ap", "pa", "lat-left", "lat-right")
BACKENDS = ("auto", "scipy", "numba", "torch", "diffdrr")
SOLVERS = ("lm", "cma_es", "adam")
DEFAULT_OUT = "xrayreg-out"


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults are shown where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """One line for what is wrong, as for every other bad input."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message}; see {self.prog} --help")


class _UsageError(XRayRegistrationError):
    pass


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``xrayreg`` with these arguments (None: those of the process); returns the exit status."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # a user can do nothing about a library's deprecation
    previous = _stop_on_terminate()
    try:
        parser = build_parser()
        words = sys.argv[1:] if argv is None else list(argv)
        _check_command(words)
        args = parser.parse_args(words)
        module = importlib.import_module(f"XRayRegistrationLib.{args.module}")
        status: int = module.run(args)
        sys.stdout.flush()
        return status
    except XRayRegistrationError as error:
        _say(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        _say("stopped; no file was written or changed")
        return STOPPED
    except MemoryError:
        _say("the memory is full; give a smaller CT or X-ray, or close other programs")
        return BAD_INPUT
    except BrokenPipeError:  # the reader of our output, such as head, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except SystemExit as stop:  # argparse after --help
        return stop.code if isinstance(stop.code, int) else OK
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command and option."""
    parser = _Parser(
        prog="xrayreg",
        description="Where was this X-ray taken from? Rigid registration of X-rays to a CT, "
        "without training and without a start pose. Not for clinical use.",
        epilog="Exit status: 0 success, 3 finished but the check says failure, 2 bad input, 130 stopped.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"xrayreg {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    commands.required = True

    def command(name: str, text: str, module: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=f"xrayreg {name}: {text}.", allow_abbrev=False,
            formatter_class=_Help,
        )  # fmt: skip
        sub.set_defaults(module=module)
        return sub

    _demo_options(command("demo", "do the whole job on a sample chest CT, with pictures", "demo"))
    _register_options(command("register", "find where X-rays were taken from", "commands.register"))
    _segment_options(command("segment", "find the bone in a CT", "commands.segment"))
    _drr_options(command("drr", "simulate what an X-ray of a CT would show", "commands.drr"))
    _convert_options(command("convert", "convert a pose or a camera between conventions", "commands.convert"))
    _methods_options(command("methods", "list the methods and what each needs", "commands.methods"))
    work = commands.add_parser("work")  # no help: for the Slicer panel
    work.add_argument("folder")
    work.set_defaults(module="commands.work")
    for name in LATER:
        commands.add_parser(name, help="(comes in a later version)", description="Comes in a later version.")
    return parser


def _demo_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--out", default="demo-out", metavar="DIR", help="folder for the pictures and files")
    p.add_argument("--seed", type=_whole, default=1, metavar="N", help="another number, another X-ray")
    p.add_argument("--size", type=_whole, default=256, metavar="PX", help="width and height of the X-ray")
    p.add_argument("--backend", default="auto", help=f"renderer: {', '.join(BACKENDS)}")
    _progress_options(p)


def _register_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--ct", required=True, metavar="CT", help="CT: NIfTI, NRRD, MHA or a DICOM folder")
    p.add_argument("--xray", required=True, action="extend", nargs="+", metavar="IMG",
                   help="X-ray: DICOM, PNG, TIFF, NRRD or MHA; several for a calibrated rig")  # fmt: skip
    p.add_argument("--camera", action="extend", nargs="+", default=None, metavar="CAM",
                   help="camera.json or MayaCam text, one for each X-ray, in their order")  # fmt: skip
    p.add_argument("--bone", default="auto", metavar="auto|full|LABELS[:1,2]",
                   help="what is rigid: the bone of the CT, the whole CT, or (some labels of) a label map")  # fmt: skip
    p.add_argument("--method", default="diffdrr", metavar="NAME", help="see xrayreg methods")
    p.add_argument("--start", default="none", metavar="none|" + "|".join(VIEWS) + "|POSE",
                   help="nothing, the view, or a pose: result.json, JSON with camera_from_ct, .tfm or .h5")  # fmt: skip
    p.add_argument("--landmarks", default=None, metavar="L.mrk.json", help="points on the CT to project onto the X-ray")
    p.add_argument("--backend", default="auto", help=f"renderer: {', '.join(BACKENDS)}")
    p.add_argument("--solver", default="lm", help=f"optimiser: {', '.join(SOLVERS)}")
    p.add_argument(
        "--paper-mode", action="store_true", help="exactly the method's published baseline, from an AP start"
    )
    p.add_argument("--seed", type=_whole, default=0, metavar="N", help="of everything random")
    xray = p.add_argument_group("the X-ray, where its file does not say")
    xray.add_argument("--sdd", type=_positive, default=None, metavar="MM", help="distance from source to detector")
    xray.add_argument("--pixel-spacing", type=_spacing, default=None, metavar="SX[,SY]",
                      help="column and row spacing on the detector, mm")  # fmt: skip
    xray.add_argument("--frame", type=_whole, default=None, metavar="N", help="frame of a multi-frame X-ray, from 0")
    xray.add_argument("--polarity", default="auto", help="auto, bone-bright or bone-dark")
    xray.add_argument("--mask", default="auto", metavar="auto|none|IMG", help="which pixels to believe: not 0 in IMG")
    p.add_argument("--out", default=DEFAULT_OUT, metavar="DIR", help="folder for the results")
    p.add_argument("--pictures", default="basic", help="basic, all (also checkerboard, outlines, 3D) or none")
    _progress_options(p)


def _segment_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--ct", required=True, metavar="CT", help="CT: NIfTI, NRRD, MHA or a DICOM folder")
    p.add_argument("--threshold", type=_number, default=None, metavar="HU", help="one threshold in place of hysteresis")
    p.add_argument("--out", default=f"{DEFAULT_OUT}/bone.nii.gz", metavar="FILE",
                   help="label map: .nii.gz, .nii, .nrrd or .mha, or a folder")  # fmt: skip
    _progress_options(p)


def _drr_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--ct", required=True, metavar="CT", help="CT: NIfTI, NRRD, MHA or a DICOM folder")
    p.add_argument("--pose", default="ap", metavar="|".join(VIEWS) + "|POSE",
                   help="a view, or a pose: result.json, JSON with camera_from_ct, .tfm or .h5")  # fmt: skip
    p.add_argument("--camera", default=None, metavar="CAM", help="camera.json, result.json or MayaCam text")
    p.add_argument("--size", type=_size, default=None, metavar="W[,H]", help="pixels, without --camera (default 512)")
    p.add_argument("--pixel-spacing", type=_spacing, default=None, metavar="SX[,SY]",
                   help="mm on the detector, without --camera (default 400 mm over the width)")  # fmt: skip
    p.add_argument("--sdd", type=_positive, default=None, metavar="MM",
                   help="source to detector, without --camera (default 1020)")  # fmt: skip
    p.add_argument("--sod", type=_positive, default=None, metavar="MM",
                   help="source to bone, for a view (default 0.7 SDD)")  # fmt: skip
    p.add_argument("--bone", default="full", metavar="full|auto|LABELS[:1,2]", help="what is rendered")
    p.add_argument("--backend", default="auto", help=f"renderer: {', '.join(BACKENDS)}")
    p.add_argument("--out", default="xrayreg-drr", metavar="DIR", help="folder for drr.png, drr.mha, camera and pose")
    _progress_options(p)


def _convert_options(p: argparse.ArgumentParser) -> None:
    names = "xrayreg, camera, slicer, diffdrr, deepfluoro, mayacam or carm"
    p.add_argument(
        "input", metavar="FILE", help="a pose or a camera, such as result.json, pose.json, .tfm, MayaCam text"
    )
    p.add_argument("--from", dest="source", default="auto", metavar="NAME", help=f"convention of FILE: {names}")
    p.add_argument("--to", required=True, metavar="NAME", help=f"convention wanted: {names}")
    p.add_argument("--ct", default=None, metavar="CT", help="the CT: diffdrr and carm count from its centre")
    p.add_argument("--camera", default=None, metavar="CAM", help="the camera, where FILE has none")
    p.add_argument("--out", default=None, metavar="FILE", help="file to write (default: print)")
    p.add_argument("--quiet", action="store_true", help="print nothing but what was converted")


def _methods_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--json", action="store_true", help="as JSON")


def _progress_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--progress", choices=("bar", "json", "none"), default="bar",
                   help="on stderr: a bar (only on a terminal), JSON lines, or nothing")  # fmt: skip
    p.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _check_command(words: Sequence[str]) -> None:
    """argparse knows no nearest names, and lists a wrong command's alternatives in two lines."""
    now = [name for name in COMMANDS if name not in LATER]
    if not words:
        raise _UsageError(f"no command was given; allowed are {', '.join(now)}; see xrayreg --help")
    if not words[0].startswith("-") and words[0] not in (*COMMANDS, *INTERNAL):
        raise _UsageError(
            f"command {words[0]!r} is unknown; allowed are {', '.join(COMMANDS)}{nearest(words[0], COMMANDS)}"
        )
    if words[0] in LATER and not {"-h", "--help"} & set(words):
        raise NotYetAvailableError(f"{words[0]} comes in a later version; available now are {', '.join(now)}")


def nearest(name: str, allowed: Sequence[str]) -> str:
    """``"; did you mean 'x'?"`` with the nearest allowed names, or ""."""
    close = difflib.get_close_matches(name.lower(), allowed, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def one_of(name: str, allowed: Sequence[str], what: str) -> str:
    """``name`` if it is allowed; raises with the nearest names otherwise."""
    if name not in allowed:
        raise InputError(f"{what} {name!r} is unknown; allowed are {', '.join(allowed)}{nearest(name, allowed)}")
    return name


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number; allowed is a finite number")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not positive; allowed is a length in mm above 0")
    return value


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed is a whole number from 0")
    return int(text)


def _spacing(text: str) -> tuple[float, float]:
    parts = [_positive(part) for part in text.split(",")]
    if len(parts) not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text!r} has {len(parts)} numbers; allowed is SX or SX,SY in mm")
    return parts[0], parts[-1]


def _size(text: str) -> tuple[int, int]:
    parts = [_whole(part) for part in text.split(",")]
    if len(parts) not in (1, 2) or min(parts) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; allowed is W or W,H in pixels")
    return parts[0], parts[-1]


def _say(message: str) -> None:
    print("xrayreg: " + " ".join(message.split()), file=sys.stderr, flush=True)


def _stop_on_terminate() -> signal._HANDLER | None:
    """Let a plain kill clean up as Ctrl-C does; None outside the main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        return signal.signal(signal.SIGTERM, stop)
    except ValueError:
        return None


if __name__ == "__main__":
    sys.exit(main())
