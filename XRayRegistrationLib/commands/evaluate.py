"""``xrayreg evaluate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from XRayRegistrationLib.cli import OK, STOPPED, one_of
from XRayRegistrationLib.commands.inputs import bone_choice, check_backend, check_exists
from XRayRegistrationLib.errors import InputError
from XRayRegistrationLib.evaluation.cases import CaseSource, CtFile, SimulatedCases, fingerprint
from XRayRegistrationLib.evaluation.deepfluoro import DeepFluoroCases
from XRayRegistrationLib.evaluation.failure_pictures import chosen_failures, failure_picture
from XRayRegistrationLib.evaluation.landscape import Landscape, landscapes
from XRayRegistrationLib.evaluation.machine import describe_machine
from XRayRegistrationLib.evaluation.paper_figures import FIGURES
from XRayRegistrationLib.evaluation.predict import MethodRun, predict
from XRayRegistrationLib.evaluation.protocols import PROTOCOLS, Protocol, get_protocol
from XRayRegistrationLib.evaluation.report import report_html, summary_text
from XRayRegistrationLib.evaluation.score import cases_csv, rows_csv, rows_json, score, score_cases
from XRayRegistrationLib.evaluation.store import Store
from XRayRegistrationLib.evaluation.variants import NAMES, variant
from XRayRegistrationLib.files.atomic import OutputFolder, write_atomically
from XRayRegistrationLib.files.json_file import json_text
from XRayRegistrationLib.methods import METHODS
from XRayRegistrationLib.methods.learned import LearnedMethod
from XRayRegistrationLib.progress import Progress
from XRayRegistrationLib.simulation.appearance_options import PRESETS

PAPER_MODE = " (paper mode)"
WITH_SEARCH = " (with search)"
_VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")


def run(args: argparse.Namespace) -> int:
    """Predict, score, and write ``scores.csv``, ``scores.json``, ``cases.csv`` and ``report.html``.

    Returns 0 when all was predicted, however good; 130 when stopped, with the predictions so far kept.
    """
    protocol = get_protocol(one_of(args.protocol, tuple(PROTOCOLS), "--protocol"))
    check_backend(args.backend)
    OutputFolder(args.out).check(["run.json", "predictions.jsonl", "scores.csv", "report.html"])
    if args.appearance is not None:
        protocol = _with_appearance(protocol, args.appearance)
    runs = method_runs(args.method, args.weights or [], args.paper_mode, args.with_search)
    source = _source(protocol, args)
    store = Store(Path(args.out))
    with Progress("none" if args.quiet else args.progress) as progress:
        try:
            added = predict(
                source,
                runs,
                store,
                limit=args.cases,
                backend=args.backend,
                seed=args.seed,
                jobs=args.jobs,
                scheduler=args.scheduler,
                resume=args.resume,
                record=describe_machine(),
                progress=progress.between(0.0, 0.9),
            )
            progress(0.9, "looking around the truth")
            found = landscapes(source, runs, min(args.landscapes, args.cases or args.landscapes), args.seed)
            files = write_scores(store, source, args.failures, args.backend, args.seed, progress.between(0.9, 1.0), found)
        except KeyboardInterrupt:
            progress.clear()
            kept = len(store.predictions())
            print(f"xrayreg: stopped; {kept} predictions are kept in {args.out}, go on with --resume", file=sys.stderr)
            return STOPPED
    if not args.quiet:
        rows = score(score_cases(store.predictions(), store.targets()), args.seed)
        print(summary_text(rows, protocol.paper_group))
        print(f"{added} predictions were added. Files in {args.out}: {', '.join(files)}")
    return OK


def write_scores(
    store: Store,
    source: CaseSource,
    failures: int,
    backend: str,
    seed: int,
    progress: Any = None,
    found: Sequence[Landscape] = (),
) -> list[str]:
    """Score what is stored and write the tables and the page; returns the files' names.

    Args:
        failures: how many to show a method.
        seed: of the confidence intervals.
        found: landscapes of learned similarities, for the page and a file of their own.
    """
    tell = progress or (lambda fraction, text: None)
    content = store.run()
    cases = score_cases(store.predictions(), store.targets())
    rows = score(cases, seed)
    chosen = chosen_failures(cases, failures)
    pictures = []
    for n, case in enumerate(chosen):
        tell(n / len(chosen), "drawing failures")
        pictures.append(failure_picture(source, case, backend))
    published = [asdict(f) for f in FIGURES if f.protocol == content["asked"]["protocol"]["name"]]
    texts = {
        "scores.csv": rows_csv(rows),
        "scores.json": json_text({**content, "scores": rows_json(rows), "published": published}),
        "cases.csv": cases_csv(cases),
        "report.html": report_html(content, cases, rows, pictures, found),
    }
    if found:
        texts["landscapes.json"] = json_text([landscape.to_dict() for landscape in found])
    for name, text in texts.items():
        write_atomically(store.folder / name, text)
    return list(texts)


def method_runs(
    methods: Sequence[str], weights: Sequence[str], paper_mode: bool, with_search: bool = False
) -> list[MethodRun]:
    """The methods, and variants of methods, with their weights and options.

    Args:
        weights: ``FILE`` where one method takes weights, or ``NAME=FILE``: of a method, which its variants take too, or of
            one variant alone.

    Raises:
        InputError: an unknown method, weights for a method that takes none, or a file that is not there.
    """
    chosen = {name: variant(one_of(name, NAMES, "--method")) for name in methods}
    taking = list(dict.fromkeys(v.method for v in chosen.values() if METHODS[v.method].needs.weights))
    files: dict[str, Path] = {}
    for text in weights:
        name, sign, path = text.partition("=")
        if not sign or name not in NAMES:
            if len(taking) != 1:
                raise InputError(
                    f"--weights {text}: {len(taking)} of the methods take weights ({', '.join(taking) or 'none'}); "
                    "allowed is NAME=FILE for each of them"
                )
            name, path = taking[0], text
        if name not in taking and not (name in chosen and chosen[name].method in taking):
            raise InputError(f"--weights {text}: method {name!r} is not evaluated or takes no weights; drop it")
        files[name] = check_exists(path, "--weights", "the weights")
    out = []
    for name, made in chosen.items():
        options = dict(made.options)
        if paper_mode:
            options["paper_mode"] = True
        if isinstance(METHODS[made.method], LearnedMethod):
            options["search_on_failure"] = with_search
        file = files.get(name, files.get(made.method))
        if file is not None:
            options["weights"] = str(file)
        label = name + (PAPER_MODE if paper_mode else "") + (WITH_SEARCH if options.get("search_on_failure") else "")
        out.append(MethodRun(label, made.method, options, None if file is None else fingerprint(file), made.from_start))
    return out


def _with_appearance(protocol: Protocol, name: str) -> Protocol:
    if not protocol.simulated:
        raise InputError(f"--appearance cannot be given with protocol {protocol.name!r}, whose images are real; drop it")
    return replace(protocol, appearance=one_of(name, PRESETS, "--appearance"))  # type: ignore[arg-type]


def _source(protocol: Protocol, args: argparse.Namespace) -> CaseSource:
    cts = args.ct or []
    if not protocol.simulated:
        if args.deepfluoro is None:
            raise InputError(
                f"protocol {protocol.name!r} is of real images; give --deepfluoro ipcai_2020_full_res_data.h5, from its authors"
            )
        for name in ("bone", "landmarks"):
            if getattr(args, name):
                raise InputError(f"--{name} cannot be given with protocol {protocol.name!r}, whose file has its own; drop it")
        return DeepFluoroCases(check_exists(args.deepfluoro, "--deepfluoro", "the file"), tuple(cts) or None)
    if args.deepfluoro is not None:
        raise InputError(f"--deepfluoro cannot be given with protocol {protocol.name!r}, which simulates; drop one of the two")
    if not cts:
        raise InputError(f"protocol {protocol.name!r} simulates X-rays of CTs; give at least one with --ct")
    bones, landmarks = _one_each(args.bone, cts, "--bone"), _one_each(args.landmarks, cts, "--landmarks")
    files = []
    for path, bone, marks in zip(cts, bones, landmarks, strict=True):
        check_exists(path, "--ct", "the CT")
        if marks is not None:
            check_exists(marks, "--landmarks", "the landmarks")
        choice = bone_choice(bone or "auto")
        if choice.kind == "full":
            raise InputError("--bone full has no bone to measure on; allowed are auto or a label map with or without its labels")
        files.append(CtFile(_name(Path(path)), Path(path), choice.path, choice.labels, None if marks is None else Path(marks)))
    return SimulatedCases(protocol, tuple(files), args.seed)


def _one_each(given: Sequence[str] | None, cts: Sequence[str], option: str) -> list[str | None]:
    if not given:
        return [None] * len(cts)
    if len(given) != len(cts):
        raise InputError(f"{len(given)} {option} for {len(cts)} --ct; allowed is none, or one for each CT in their order")
    return list(given)


def _name(path: Path) -> str:
    """Of the CT in tables: the file's, without its ending."""
    for ending in _VOLUME_ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.name
