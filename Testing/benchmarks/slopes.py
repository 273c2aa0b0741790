"""Training and use of the methods that learn from pairs of poses: memory, and time of an iteration and of a registration.

    python -m Testing.benchmarks.slopes                  writes results/slopes.csv and results/slopes.json (the machine)
    python -m Testing.benchmarks.slopes --device cuda    the same on a CUDA device, to results/slopes-cuda.csv
    python -m Testing.benchmarks.slopes --only "prost tmi2024"   a look, written nowhere

On the sample chest CT. Each contender trains and registers in a process of its own. Training: forward, backward and
step of one batch, X-rays made before; ``memory_mb`` is the most that the process (on CUDA: the device's allocator) ever
held, ``before_mb`` what it held before the network. The peer of "prost tmi2024" is the same network, loss and batch with
what the paper does: autograd through every sample of every ray, twice (``drr.backend_torch.render_torch``, in plain
torch as the paper's sampler is CUDA; the paper gives 15 GB for 128^3 voxels, 128^2 pixels and batches of 4).
Registration: ``slope_ms`` is one similarity and slope at one pose and at 16 at once (of a network that has hardly
learned, which takes as long); ``register_s`` the whole of ``registration.register`` on the demonstration's case with the
weights that come with the software, where there are some, and ``refine_s`` what of it follows the network.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from Testing.benchmarks import machine

RESULTS = Path(__file__).parent / "results" / "slopes.csv"
REPEATS = 3


@dataclass(frozen=True)
class Contender:
    """One training.

    Attributes:
        method: in the registry. options: of it. batch: pairs an iteration.
        through_the_sampler: as the paper differentiates, rather than by derivative images.
    """

    method: str
    options: dict[str, Any]
    batch: int = 4
    through_the_sampler: bool = False


CONTENDERS = {
    "prost tmi2024": Contender("prost", {"paper_mode": True}),
    "prost tmi2024 through the sampler": Contender("prost", {"paper_mode": True}, through_the_sampler=True),
    "prost miccai2020": Contender("prost", {"paper_mode": True, "variant": "miccai2020"}),
    "prost": Contender("prost", {}, batch=16),
    "sopi": Contender("sopi", {}, batch=16),
    "deepim": Contender("deepim", {}, batch=16),
    "dmw": Contender("dmw", {}, batch=16),
    "deepim as published": Contender("deepim", {"paper_mode": True}),
    "dmw as published": Contender("dmw", {"paper_mode": True}),
    "sopi as published": Contender("sopi", {"paper_mode": True}),
}


@dataclass
class Row:
    """One line of the CSV."""

    contender: str
    device: str
    pixels: int = 0
    voxels: int = 0
    batch: int = 0
    parameters: int = 0
    before_mb: float | None = None
    memory_mb: float | None = None
    iteration_s: float | None = None
    pairs_per_second: float | None = None
    slope_ms: float | None = None
    slope_of_16_ms: float | None = None
    register_s: float | None = None
    refine_s: float | None = None
    verdict: str = ""
    note: str = ""


def main() -> int:
    """Every contender in a process of its own."""
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(asdict(_measure(arguments.one, arguments.device))))
        return 0
    description = machine.describe() | {"device": arguments.device, "repeats": REPEATS}
    rows = []
    for name in arguments.only or CONTENDERS:
        command = [sys.executable, "-m", "Testing.benchmarks.slopes", "--one", name, "--device", arguments.device]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            row = Row(name, arguments.device, note=f"ended with {done.returncode}: out of memory?")
        else:
            row = Row(**json.loads(done.stdout.splitlines()[-1]))
        rows.append(row)
        print(", ".join(f"{k} {v}" for k, v in asdict(row).items() if v not in (None, "")), flush=True)
        if not arguments.only:
            _write(RESULTS.with_stem("slopes" if arguments.device == "cpu" else "slopes-cuda"), rows, description)
    return 0


def _write(out: Path, rows: list[Row], description: dict[str, object]) -> None:
    with out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({n: f"{v:.4g}" if isinstance(v, float) else v for n, v in asdict(row).items()})
    description["load_average_at_end"] = machine.load()
    out.with_suffix(".json").write_text(json.dumps(description, indent=2) + "\n")


def _measure(name: str, device_name: str) -> Row:
    import torch

    from XRayRegistrationLib.images.sample import load_sample_ct
    from XRayRegistrationLib.methods import get_method
    from XRayRegistrationLib.simulation.subject import make_subject
    from XRayRegistrationLib.training.options import TrainingOptions

    contender, device = CONTENDERS[name], torch.device(device_name)
    method = get_method(contender.method)
    ct = load_sample_ct()
    subject = make_subject(ct, name="chest")
    training = TrainingOptions(minutes=None, iterations=1, batch_size=contender.batch, workers=0, device=device.type)  # type: ignore[arg-type]
    task = method.task([subject], [], method.options(contender.options), training, None)  # type: ignore[attr-defined]
    header = task.header()
    row = Row(name, device_name, header["input"]["camera"]["width"], header["input"]["voxels"], contender.batch)
    batches = [task.batch(n, device) for n in range(2)]
    torch.manual_seed(0)
    row.before_mb = _held_mb(device, anew=True)
    network = task.network().to(device).train()
    row.parameters = sum(p.numel() for p in network.parameters())
    optimizer = task.optimizer(network, training)

    def iterate(number: int) -> None:
        optimizer.zero_grad()
        batch = batches[number % 2]
        loss = _loss_through_the_sampler(task, network, batch) if contender.through_the_sampler else task.loss(network, batch)[0]
        loss.backward()
        optimizer.step()

    iterate(0)  # compiles, and fills caches
    row.iteration_s = _median_s(iterate, device)
    row.pairs_per_second = contender.batch / row.iteration_s
    row.memory_mb = _held_mb(device)
    if contender.through_the_sampler:
        return row
    network.eval()
    if contender.method in ("prost", "sopi"):
        row.slope_ms, row.slope_of_16_ms = (1000 * _slope_s(task, network, batches[0], n, device) for n in (1, 16))
    if not contender.options and device.type == "cpu":
        _register(contender.method, ct, row)
    return row


def _loss_through_the_sampler(task: Any, network: Any, batch: Any) -> Any:
    """ProST's, with the pose's slope taken by autograd through the projector, on the tape for a second time."""
    import torch

    from XRayRegistrationLib.drr.backend_torch import render_torch
    from XRayRegistrationLib.networks.pose_parameters import rotation_of_vector
    from XRayRegistrationLib.training.pose_slope import geodesic_loss
    from XRayRegistrationLib.training.similarity import LENGTH_MM

    subject = task.subjects[0]
    volume = task.volumes[id(subject)]
    image = batch.xrays.image
    step = torch.zeros(len(image), 6, dtype=torch.float64, device=image.device, requires_grad=True)
    moving = torch.as_tensor(batch.moving, device=image.device)
    centre = moving @ moving.new_tensor([*subject.centre_ct, 1.0])
    turn = rotation_of_vector(step[:, :3])
    shift = step[:, 3:] + centre[:, :3] - (turn @ centre[:, :3, None])[..., 0]
    last = moving.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(image), 1, 4)
    poses = torch.cat([torch.cat([turn, shift[..., None]], 2), last], 1) @ moving
    features = network.features(task.values(subject, image.device))
    projections = render_torch(
        features, volume.ct_from_ijk, task.stream_options.camera, poses, float(volume.spacing_mm.min())
    )
    similarity = network.similarity(projections, image)
    (slope,) = torch.autograd.grad(similarity.sum(), step, create_graph=True)
    return geodesic_loss(slope.float(), batch.motion, LENGTH_MM).mean()


def _slope_s(task: Any, network: Any, batch: Any, poses: int, device: Any) -> float:
    import torch

    from XRayRegistrationLib.solvers.learned_descent import similarity_slope

    subject = task.subjects[0]
    with torch.no_grad():
        features = network.features(task.values(subject, device))
    image = batch.xrays.image[:1]
    slope = similarity_slope(
        network, features, task.volumes[id(subject)], image, task.stream_options.camera, subject.centre_ct
    )
    at = batch.moving[np.arange(poses) % len(batch.moving)]
    slope(at)
    return _median_s(lambda number: slope(at), device)


def _register(method: str, ct: Any, row: Row) -> None:
    """The demonstration's case, once to warm up and once for the clock."""
    from XRayRegistrationLib.errors import InputError
    from XRayRegistrationLib.images.prepare import prepare_xray
    from XRayRegistrationLib.registration import register
    from XRayRegistrationLib.simulation.demo_case import make_demo_case

    case = make_demo_case(ct)
    xray = prepare_xray(case.values, case.camera, source="demonstration")
    try:
        for _ in range(2):
            begin = time.perf_counter()
            result = register(case.ct, xray, method=method)
            row.register_s = time.perf_counter() - begin
    except InputError as error:
        row.note = str(error).split(";")[0]
        return
    row.refine_s = result.timings_s.get("refine_s")
    row.verdict = f"{result.status}, {float(np.linalg.norm((result.camera_from_ct - case.camera_from_ct)[:3, 3])):.2f} mm"


def _median_s(call: Callable[[int], object], device: Any) -> float:
    import torch

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    times = []
    for number in range(REPEATS):
        begin = now()
        call(number)
        times.append(now() - begin)
    return statistics.median(times)


def _held_mb(device: Any, anew: bool = False) -> float:
    import torch

    if device.type == "cuda":
        if anew:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device) / 2**20
    if anew:
        machine.reset_peak_memory()
    return machine.peak_memory_mb()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", choices=list(CONTENDERS), nargs="+", help="just these, written nowhere")
    parser.add_argument("--one", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
