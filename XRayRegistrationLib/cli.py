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
from typing import Any, NoReturn

from XRayRegistrationLib import __version__
from XRayRegistrationLib.errors import InputError, XRayRegistrationError

OK, BAD_INPUT, NOT_VERIFIED, STOPPED = 0, 2, 3, 130

COMMANDS = ("demo", "register", "train", "evaluate", "simulate", "segment", "drr", "convert", "methods")
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

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Of a command too nothing may be left over: only here its options' names are at hand."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"{unknown[0]!r} is unknown to {self.prog}{nearest(unknown[0], tuple(self._option_string_actions))}")
        return known, unknown

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
    except OSError as error:  # a place that may not be read, or a name that is none
        _say(f"{str(error.filename or 'a file')[:120]}: {error.strerror or error}; check the path and its permissions")
        return BAD_INPUT
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
    _train_options(command("train", "train a method that learns", "commands.train"))
    _evaluate_options(command("evaluate", "measure methods on the papers' test protocols", "commands.evaluate"))
    _simulate_options(command("simulate", "make X-rays of a CT, with everything that is known of them", "commands.simulate"))
    _segment_options(command("segment", "find the bone in a CT", "commands.segment"))
    _drr_options(command("drr", "simulate what an X-ray of a CT would show", "commands.drr"))
    _convert_options(command("convert", "convert a pose or a camera between conventions", "commands.convert"))
    _methods_options(command("methods", "list the methods and what each needs", "commands.methods"))
    work = commands.add_parser("work")  # no help: for the Slicer panel
    work.add_argument("folder")
    work.set_defaults(module="commands.work")
    return parser


def _demo_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--out", default="demo-out", metavar="DIR", help="folder for the pictures and files")
    p.add_argument("--seed", type=_whole, default=1, metavar="N", help="another number, another X-ray")
    p.add_argument("--method", default="diffdrr", metavar="NAME", help="see xrayreg methods")
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
    p.add_argument("--weights", default=None, metavar="W.safetensors",
                   help="of a method that learns (default: those trained on this CT)")  # fmt: skip
    p.add_argument("--solver", default="lm", help=f"optimiser: {', '.join(SOLVERS)}")
    p.add_argument("--paper-mode", action="store_true",
                   help="diffdrr as published, from an AP start; of a method that learns, the published network")  # fmt: skip
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


def _train_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("method", metavar="METHOD", help="see xrayreg methods")
    p.add_argument("--ct", required=True, action="extend", nargs="+", metavar="CT", help="CT to learn from")
    p.add_argument("--hold-out", action="extend", nargs="+", default=None, metavar="CT",
                   help="CT of another patient to validate on (default: other poses of the CTs learned)")  # fmt: skip
    p.add_argument("--bone", action="extend", nargs="+", default=None, metavar="auto|full|LABELS[:1,2]",
                   help="what is rigid in each CT (default auto)")  # fmt: skip
    p.add_argument("--labels", action="extend", nargs="+", default=None, metavar="LABELS", help="label map of each CT")
    p.add_argument("--landmarks", action="extend", nargs="+", default=None, metavar="L.mrk.json",
                   help="points on each CT, as Slicer saves them (default: spread over the bone)")  # fmt: skip
    p.add_argument("--out", default=None, metavar="W.safetensors", help="weights to write (default METHOD.safetensors)")
    p.add_argument("--resume", action="store_true", help="go on with the training that wrote --out")
    budget = p.add_argument_group("budget (default 30 minutes)")
    budget.add_argument("--minutes", type=_positive, default=None, metavar="M", help="of training, pauses not counted")
    budget.add_argument("--iterations", type=_whole, default=None, metavar="N", help="in place of minutes; repeatable")
    recipe = p.add_argument_group("recipe")
    recipe.add_argument("--paper-mode", action="store_true", help="the network and the losses that were published")
    recipe.add_argument("--encoder-weights", default=None, metavar="FILE",
                        help="DINOv2 ViT-S/14 to start rayemb --paper-mode from")  # fmt: skip
    recipe.add_argument("--poses", default=None, metavar="NAME", help="distribution of the poses, such as scr, rayemb, uniform")
    recipe.add_argument("--set", action="extend", nargs="+", default=None, metavar="NAME=VALUE",
                        help="any other option of the method, such as variant=miccai2020")  # fmt: skip
    recipe.add_argument("--camera", default=None, metavar="CAM", help="camera.json of the X-rays to come")
    recipe.add_argument("--batch-size", type=_whole, default=None, metavar="N", help="images an iteration (default 16)")
    recipe.add_argument("--learning-rate", type=_positive, default=None, metavar="X",
                        help="at its highest (default: the method's)")  # fmt: skip
    recipe.add_argument("--validate-every", type=_whole, default=None, metavar="N", help="iterations (default 500)")
    recipe.add_argument("--seed", type=_whole, default=0, metavar="N", help="of everything random")
    machine = p.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu or cuda")
    machine.add_argument("--devices", type=_whole, default=1, metavar="N", help="GPUs of this machine")
    machine.add_argument("--nodes", type=_whole, default=1, metavar="N", help="machines; started by torchrun")
    machine.add_argument("--workers", type=_whole, default=None, metavar="N",
                         help="processes that make X-rays ahead (default: one a core for a GPU, else none)")  # fmt: skip
    machine.add_argument("--precision", default=None, metavar="auto|32|bf16", help="of the network (default auto)")
    _progress_options(p)


def _evaluate_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--protocol", required=True, metavar="NAME",
                   help="what is tested: scr, rayemb, prost, prost-challenging, sopi or deepfluoro")  # fmt: skip
    p.add_argument("--method", required=True, action="extend", nargs="+", metavar="NAME",
                   help="see xrayreg methods; also the variants that docs/learning.md lists, e.g. search, cma_es")  # fmt: skip
    p.add_argument("--ct", action="extend", nargs="+", default=None, metavar="CT",
                   help="CTs to simulate X-rays of; with deepfluoro, ids of specimens (default all)")  # fmt: skip
    p.add_argument("--bone", action="extend", nargs="+", default=None, metavar="auto|LABELS[:1,2]",
                   help="the bone of each CT, in their order (default auto)")  # fmt: skip
    p.add_argument("--landmarks", action="extend", nargs="+", default=None, metavar="L.mrk.json",
                   help="landmarks on each CT, in their order (default 14 points of the bone)")  # fmt: skip
    p.add_argument("--deepfluoro", default=None, metavar="FILE.h5", help="the data set's ipcai_2020_full_res_data.h5")
    p.add_argument("--cases", type=_whole, default=None, metavar="N", help="a CT (default the protocol's)")
    p.add_argument("--weights", action="extend", nargs="+", default=None, metavar="[NAME=]FILE",
                   help="trained weights; with several methods, which one's")  # fmt: skip
    p.add_argument("--appearance", default=None, metavar="NAME",
                   help="of the simulated X-rays: clean, realistic or randomised (default the protocol's)")  # fmt: skip
    p.add_argument("--with-search", action="store_true",
                   help="let methods that learn search where their network fails")  # fmt: skip
    p.add_argument("--paper-mode", action="store_true", help="diffdrr as published; of methods that learn, the published network")
    p.add_argument("--backend", default="auto", help=f"renderer: {', '.join(BACKENDS)}")
    p.add_argument("--jobs", type=_whole, default=1, metavar="N", help="processes, each with one thread")
    p.add_argument("--scheduler", default=None, metavar="ADDR", help="Dask scheduler, in place of --jobs, e.g. tcp://host:8786")
    p.add_argument("--failures", type=_whole, default=12, metavar="N", help="failures to draw on the page, a method")
    p.add_argument("--landscapes", type=_whole, default=8, metavar="N",
                   help="cases a CT around whose truth a learned similarity is drawn; 0 for none")  # fmt: skip
    p.add_argument("--out", default="xrayreg-evaluation", metavar="DIR", help="folder for predictions, tables and report.html")
    p.add_argument("--seed", type=_whole, default=0, metavar="N", help="of cases, methods and confidence intervals")
    p.add_argument("--resume", action="store_true", help="go on with the predictions in --out")
    _progress_options(p)


def _simulate_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--ct", required=True, metavar="CT", help="CT: NIfTI, NRRD, MHA or a DICOM folder")
    p.add_argument("--out", default="xrayreg-simulated", metavar="DIR", help="folder for the set")
    p.add_argument("--count", type=_whole, default=100, metavar="N", help="number of X-rays")
    p.add_argument("--poses", default="scr", metavar="NAME",
                   help="scr, rayemb, prost, prost-moving, prost-start, sopi, sopi-start, xvr or uniform")  # fmt: skip
    p.add_argument("--appearance", default="randomised", metavar="NAME", help="randomised, realistic or clean")
    p.add_argument("--size", type=_whole, default=None, metavar="PX",
                   help="width and height, without --camera (default 128)")  # fmt: skip
    p.add_argument("--camera", default=None, metavar="CAM", help="camera.json, result.json or MayaCam text")
    p.add_argument("--bone", default="auto", metavar="auto|full|LABELS[:1,2]", help="what is rigid")
    p.add_argument("--landmarks", default=None, metavar="L.mrk.json",
                   help="points on the CT (default: 14 spread over the bone)")  # fmt: skip
    p.add_argument("--labels", default=None, metavar="LABELS", help="label map, to write which labels each ray meets")
    p.add_argument("--hits", action="store_true", help="write the first and last bone point of each ray too")
    p.add_argument("--seed", type=_whole, default=0, metavar="N", help="of everything random")
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
    if not words:
        raise _UsageError(f"no command was given; allowed are {', '.join(COMMANDS)}; see xrayreg --help")
    if not words[0].startswith("-") and words[0] not in (*COMMANDS, *INTERNAL):
        raise _UsageError(
            f"command {words[0]!r} is unknown; allowed are {', '.join(COMMANDS)}{nearest(words[0], COMMANDS)}"
        )


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
