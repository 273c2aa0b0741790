"""From a protocol to the page: cases, predictions that are stored and gone on with, scores, report, command."""

from __future__ import annotations

import csv
import json
from argparse import Namespace
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from XRayRegistrationLib.cli import OK, STOPPED
from XRayRegistrationLib.commands import evaluate
from XRayRegistrationLib.drr.render import render
from XRayRegistrationLib.errors import InputError, MissingDependencyError
from XRayRegistrationLib.evaluation import cases as cases_module
from XRayRegistrationLib.evaluation import predict as predict_module
from XRayRegistrationLib.evaluation.cases import CtFile, SimulatedCases, bone_share, is_truncated
from XRayRegistrationLib.evaluation.paper_figures import FIGURES, paper_figures
from XRayRegistrationLib.evaluation.predict import MethodRun, predict
from XRayRegistrationLib.evaluation.protocols import INSTRUMENTS, INVERTED, LITTLE_BONE, PLAIN, PROTOCOLS, TRUNCATED
from XRayRegistrationLib.evaluation.report import report_html
from XRayRegistrationLib.evaluation.score import ALL_CTS, PROPOSED, REFINED, START, score, score_cases, summary
from XRayRegistrationLib.evaluation.store import ERROR, Store, Target
from XRayRegistrationLib.evaluation.variants import NAMES, VARIANTS
from XRayRegistrationLib.files.landmarks import write_landmarks
from XRayRegistrationLib.files.volume_file import write_volume
from XRayRegistrationLib.geometry.camera import Camera
from XRayRegistrationLib.geometry.rigid import from_rotation_translation, transform_points
from XRayRegistrationLib.images.volume import fingerprint
from XRayRegistrationLib.methods import get_method
from XRayRegistrationLib.networks.weights_file import write_weights
from XRayRegistrationLib.networks.weights_store import weights_folder
from XRayRegistrationLib.result import Result, View

torch = pytest.importorskip("torch")  # images are developed with it

INF = float("inf")
OTHER_FILE = Path(cases_module.__file__)
SMALL = replace(
    PROTOCOLS["scr"], camera=Camera.from_spacing(96, 96, 3.0, 1020.0), sampler="prost", cases=3, instruments_share=0.4,
    inverted_share=0.4, least_bone=0.0,
)  # fmt: skip
STARTS = replace(PROTOCOLS["prost"], camera=SMALL.camera, least_bone=0.0)
CLEAN = replace(SMALL, appearance="clean", instruments_share=0.0, inverted_share=0.0)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Of images this small, torch's threads would spend their time waiting for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def ct_file(ct, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("evaluation") / "phantom.nii.gz"
    write_volume(path, replace(ct, values=np.round(ct.values).astype(np.int16)))
    return path


@pytest.fixture
def source(ct_file) -> SimulatedCases:
    return SimulatedCases(SMALL, (CtFile("phantom", ct_file),), seed=1)


def shifted(pose: np.ndarray, x: float) -> np.ndarray:
    return from_rotation_translation(np.eye(3), [x, 0.0, 0.0]) @ pose


class Stub:
    """A register() that knows the answer, and is off by so many mm in x; None raises as a method may."""

    def __init__(self, source: SimulatedCases, off_mm: list[float | None]) -> None:
        self.source, self.off_mm, self.asked, self.starts = source, off_mm, [], []

    def __call__(self, ct, xray, *, method, bone, start, options, backend, seed):
        number = int(xray.source.split()[-1])
        self.asked.append((method, number))
        self.starts.append(start)
        off = self.off_mm[number]
        if off is None:
            raise InputError("it sees no bone")
        pose = self.source.case("phantom", number).camera_from_ct
        status = "success" if off < 20 else "failure"
        poses = (shifted(pose, off)[None], shifted(pose, 2 * off)[None])
        return Result(status, "so it says", method, (View(xray.camera),), *poses, 0.5, timings_s={"total_s": 2.0})


def test_a_case_depends_on_its_number_and_seed_alone(source, ct_file):
    case = source.case("phantom", 1)
    source.case("phantom", 2)
    again = SimulatedCases(SMALL, (CtFile("phantom", ct_file),), seed=1).case("phantom", 1)
    np.testing.assert_array_equal(case.camera_from_ct, again.camera_from_ct)
    np.testing.assert_array_equal(case.xray.line_integrals, again.xray.line_integrals)
    assert case.tags == again.tags
    for other in (source.case("phantom", 2), replace(source, seed=2).case("phantom", 1)):
        assert np.abs(case.camera_from_ct - other.camera_from_ct).max() > 1e-3
    look = replace(source, protocol=replace(SMALL, instruments_share=1.0, inverted_share=1.0)).case("phantom", 1)
    np.testing.assert_array_equal(case.camera_from_ct, look.camera_from_ct)  # an appearance does not move the pose
    assert look.tags[:2] == (INSTRUMENTS, INVERTED)


def test_the_image_is_the_bone_at_the_true_pose(source):
    case = replace(source, protocol=CLEAN).case("phantom", 0)
    assert PLAIN in case.tags
    seen = render(source.patient("phantom").bone.full, case.camera, case.camera_from_ct)
    right = np.corrcoef(seen.ravel(), case.xray.line_integrals.ravel())[0, 1]
    mirrored = np.corrcoef(seen[:, ::-1].ravel(), case.xray.line_integrals.ravel())[0, 1]
    assert right > 0.995
    assert mirrored < 0.98


def test_poses_with_too_little_bone_are_drawn_again_and_counted(source, monkeypatch):
    wide = replace(SMALL, sampler="scr", least_bone=0.12)
    cases = [replace(source, protocol=wide).case("phantom", n) for n in range(4)]
    bone = source.patient("phantom").bone
    assert min(bone_share(c.camera, c.camera_from_ct, bone) for c in cases) >= 0.12
    free = [replace(source, protocol=replace(wide, least_bone=0.0)).case("phantom", n) for n in range(4)]
    for case, unchecked in zip(cases, free, strict=True):
        enough = bone_share(unchecked.camera, unchecked.camera_from_ct, bone) >= 0.12
        assert (case.redrawn == 0) == enough
    assert sum(c.redrawn for c in cases) > 0
    monkeypatch.setattr(cases_module, "_MOST_DRAWS", 20)
    with pytest.raises(InputError, match="which wants 99 %"):
        replace(source, protocol=replace(wide, least_bone=0.99)).case("phantom", 0)


def test_an_image_whose_blades_leave_little_bone_is_of_a_group_of_its_own(source, monkeypatch):
    case = replace(source, protocol=CLEAN).case("phantom", 0)
    bone = source.patient("phantom").bone
    whole = np.ones((case.camera.height, case.camera.width), bool)
    share = bone_share(case.camera, case.camera_from_ct, bone)
    assert bone_share(case.camera, case.camera_from_ct, bone, whole) == pytest.approx(share)
    upper = whole.copy()
    upper[case.camera.height // 2 :] = False
    halves = [bone_share(case.camera, case.camera_from_ct, bone, half) for half in (upper, ~upper)]
    assert sum(halves) == pytest.approx(share)
    assert LITTLE_BONE not in case.tags
    develop = cases_module.develop

    def behind_blades(*args, **kwargs):
        image, field = develop(*args, **kwargs)
        field[..., : int(0.92 * field.shape[-1])] = False  # nowhere else can there be bone to see
        return image, field

    monkeypatch.setattr(cases_module, "develop", behind_blades)
    assert LITTLE_BONE in replace(source, protocol=CLEAN).case("phantom", 0).tags


def test_starts_come_with_the_case_and_challenging_views_are_a_protocol(source):
    starting = replace(source, protocol=STARTS)
    challenging = replace(source, protocol=replace(STARTS, name=(c := PROTOCOLS["prost-challenging"]).name, sampler=c.sampler))
    middle, centre = [0.0, 0.0, 800.0], source.patient("phantom").bone.centroid
    farthest = 0.0
    for n in range(4):
        for cases in (starting, challenging):
            case = cases.case("phantom", n)
            start, true = (transform_points(p, centre) - middle for p in (case.start_camera_from_ct, case.camera_from_ct))
            assert (np.abs(start) <= [200.0, 200.0, 300.0]).all()
            if cases is starting:
                assert (np.abs(true) <= 25.0).all()
            else:
                farthest = max(farthest, float(np.abs(true).max()))
    assert farthest > 75.0
    np.testing.assert_array_equal(case.start_camera_from_ct, challenging.case("phantom", 3).start_camera_from_ct)


def test_a_start_is_told_where_it_is_wanted_and_scored_as_a_stage(source, tmp_path, monkeypatch):
    stub, store = Stub(starting := replace(source, protocol=STARTS), [1.0, 1.0]), Store(tmp_path / "out")
    monkeypatch.setattr(predict_module, "register", stub)
    predict(starting, [MethodRun("a", "diffdrr"), MethodRun("b", "diffdrr", from_start=False)], store, limit=2)
    told = starting.case("phantom", 0).start_camera_from_ct
    assert [s if isinstance(s, str) else s.tolist() for s in stub.starts[:2]] == [told.tolist(), "none"]
    rows = score(score_cases(store.predictions(), store.targets()))
    start, proposed, refined = (summary(rows, "a", "all", stage) for stage in (START, PROPOSED, REFINED))
    assert start.mtre_p50 > 50.0
    assert proposed.mtre_p50 == pytest.approx(2.0)
    assert refined.mtre_p50 == pytest.approx(1.0)
    assert refined.along_mean == pytest.approx(1.0 / 3.0)  # 1 mm in x, 0 in y and z
    assert refined.along_sd == pytest.approx(np.std([1.0, 0.0, 0.0]))
    assert store.run()["asked"]["methods"]["b"]["from_start"] is False


def test_the_starts_are_on_the_page_once_and_beside_the_papers(source, ct_file, tmp_path, monkeypatch):
    for name in ("prost", "sopi"):
        monkeypatch.setitem(PROTOCOLS, name, replace(STARTS, name=name, instruments_share=0.0))
        starting = replace(source, protocol=PROTOCOLS[name])
        monkeypatch.setattr(predict_module, "register", Stub(starting, [1.0, None]))
        args = _args(ct_file, tmp_path / name, protocol=name, method=["diffdrr", "search"])
        assert evaluate.run(args) == OK
        page = (tmp_path / name / "report.html").read_text()
        assert page.count("start, ours") == 1
        assert VARIANTS["search"].summary in page
        assert ("65.6 %" in page) == (name == "prost")
        assert ("1.89 ± 1.57" in page) == (name == "sopi")


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_options_that_their_method_takes(name):
    chosen = VARIANTS[name]
    options = get_method(chosen.method).options(json.loads(json.dumps(dict(chosen.options))))
    assert options == get_method(chosen.method).options(chosen.options)
    assert (options == get_method(chosen.method).options({})) == (name == "search")


def test_less_than_half_of_the_bone_is_truncated(source):
    bone = source.patient("phantom").bone
    camera = Camera.from_spacing(96, 96, 4.0, 1000.0)
    rotation = np.array([[-1.0, 0, 0], [0, 0, -1.0], [0, -1.0, 0]])  # AP
    middle = np.median(bone.surface_points, axis=0)
    for x, truncated in ((-20.0, False), (20.0, True)):  # the median point 20 mm this or that side of the image's edge
        edge = camera.width / 2 * 4.0 * 0.7
        pose = from_rotation_translation(rotation, np.array([edge + x, 0.0, 700.0]) - rotation @ middle)
        assert is_truncated(camera, pose, bone) == truncated


def test_predictions_are_stored_and_gone_on_with(source, tmp_path, monkeypatch):
    store, runs = Store(tmp_path / "out"), [MethodRun("diffdrr", "diffdrr")]
    stub = Stub(source, [1.0, None, 30.0, 4.0])
    monkeypatch.setattr(predict_module, "register", stub)
    assert predict(source, runs, store, limit=2) == 2
    found = store.predictions()
    assert [p.status for p in found] == ["success", ERROR]
    assert found[1].message == "it sees no bone"
    assert found[1].camera_from_ct is None
    assert len(found[1].proposed) == 0
    case = source.case("phantom", 0)
    np.testing.assert_allclose(found[0].camera_from_ct, shifted(case.camera_from_ct, 1.0), atol=1e-12)
    np.testing.assert_allclose(found[0].true_camera_from_ct, case.camera_from_ct, atol=1e-12)
    assert found[0].tags == case.tags

    with pytest.raises(InputError, match="--resume"):
        predict(source, runs, store, limit=3)
    with pytest.raises(InputError, match="another seed"):
        predict(source, runs, store, limit=3, seed=5, resume=True)
    with pytest.raises(InputError, match="another source"):
        predict(replace(source, seed=9), runs, store, limit=3, resume=True)
    with pytest.raises(InputError, match="another method diffdrr"):
        predict(source, [MethodRun("diffdrr", "diffdrr", {"solver": "adam"})], store, limit=3, resume=True)

    text = (store.folder / "predictions.jsonl").read_bytes()
    (store.folder / "predictions.jsonl").write_bytes(text + text[:100])  # the power went off in the middle of a line
    assert len(store.predictions()) == 2
    stub.asked.clear()
    two = [*runs, MethodRun("second", "diffdrr")]
    assert predict(source, two, store, limit=3, resume=True) == 4  # one case more, and a second method on all three
    assert stub.asked == [("diffdrr", 0), ("diffdrr", 1), ("diffdrr", 2), ("diffdrr", 2)]
    assert len({p.key for p in store.predictions()}) == 6
    assert set(store.run()["asked"]["methods"]) == {"diffdrr", "second"}

    (store.folder / "predictions.jsonl").write_bytes(b"{}\n" + text)
    with pytest.raises(InputError, match="line 1 is no prediction"):
        store.predictions()


def test_a_defect_is_not_taken_for_a_failure_of_the_method(source, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(predict_module, "register", broken)
    with pytest.raises(ZeroDivisionError):
        predict(source, [MethodRun("diffdrr", "diffdrr")], Store(tmp_path), limit=1)

    def missing(*args, **kwargs):
        raise MissingDependencyError("numba", "this", "numba")

    monkeypatch.setattr(predict_module, "register", missing)
    with pytest.raises(MissingDependencyError):
        predict(source, [MethodRun("diffdrr", "diffdrr")], Store(tmp_path), limit=1, resume=True)
    assert Store(tmp_path).predictions() == []


def test_scores_of_known_errors(source, tmp_path, monkeypatch):
    off = [1.0, None, 30.0, 4.0, 15.0]
    monkeypatch.setattr(predict_module, "register", Stub(source, off))
    store = Store(tmp_path)
    predict(source, [MethodRun("diffdrr", "diffdrr")], store, limit=5)
    cases = score_cases(store.predictions(), store.targets())
    np.testing.assert_allclose([c.refined.mtre_landmarks_mm for c in cases], [1.0, INF, 30.0, 4.0, 15.0], atol=1e-9)
    np.testing.assert_allclose([c.proposed.mtre_surface_mm for c in cases], [2.0, INF, 60.0, 8.0, 30.0], atol=1e-9)
    np.testing.assert_allclose(cases[0].refined.along_mm, (1.0, 0.0, 0.0), atol=1e-9)
    rows = score(cases)
    row = summary(rows, "diffdrr", "all", REFINED)
    assert (row.ct, row.n, row.no_pose) == ("phantom", 5, 1)  # one CT needs no row for all
    assert (row.mtre_p50, row.mtre_p75, row.mtre_p95) == (pytest.approx(15.0), pytest.approx(30.0), INF)
    assert (row.gfr2, row.gfr5, row.gfr10, row.success10) == pytest.approx((0.8, 0.6, 0.6, 0.4))
    assert (row.passed, row.wrong_but_passed, row.right_but_rejected) == (3, 1, 0)  # 15 mm off, and passed
    assert row.along_x_p50 == pytest.approx(15.0)
    assert row.seconds_total == pytest.approx(2.0)
    assert summary(rows, "diffdrr", "all", PROPOSED).mtre_p50 == pytest.approx(30.0)
    tagged = [c for c in cases if INVERTED in c.prediction.tags]
    assert summary(rows, "diffdrr", INVERTED, REFINED).n == len(tagged) > 0
    assert summary(rows, "diffdrr", TRUNCATED, REFINED) is None  # no such case, no row


def weights_of(ct, path: Path, learned: str) -> Path:
    """A file that says it is of ``rayemb`` and learned a CT with this fingerprint."""
    header = {"method": "rayemb", "architecture": {"paper_mode": False}, "cts": [{"name": "some", "fingerprint": learned}]}
    return write_weights(path, {"w": torch.zeros(1)}, header)


def test_weights_that_are_looked_for_are_named_and_a_resumed_run_has_no_others(source, tmp_path, monkeypatch):
    monkeypatch.setenv("XRAYREGISTRATION_HOME", str(tmp_path / "home"))
    ct = source.patient("phantom").ct
    weights_folder().mkdir(parents=True)
    given = []
    stub = Stub(source, [1.0, 40.0])
    monkeypatch.setattr(predict_module, "register", lambda *a, **k: given.append(k["options"].get("weights")) or stub(*a, **k))
    runs, store = [MethodRun("rayemb", "rayemb")], Store(tmp_path / "out")
    path = weights_of(ct, weights_folder() / "mine.safetensors", fingerprint(ct))
    assert predict(source, runs, store, limit=1) == 1
    assert given == [str(path)]
    (of_phantom,) = store.run()["record"]["weights"]["rayemb"].values()
    assert (of_phantom["path"], of_phantom["learned_this_ct"]) == ("mine.safetensors", True)
    assert predict(source, runs, store, limit=2, resume=True) == 1
    cases = score_cases(store.predictions(), store.targets())
    page = report_html(store.run(), cases, score(cases))
    assert "phantom by mine.safetensors, trained on that CT" in page
    assert "1 of 2; none is shown." in page
    assert "every pose is within 10 mm" not in page
    # trained again in between
    path.unlink()
    weights_of(ct, path, "0" * 16)
    with pytest.raises(InputError, match="a run with another method rayemb"):
        predict(source, runs, store, limit=2, resume=True)
    fresh = Store(tmp_path / "fresh")
    predict(source, runs, fresh, limit=1)
    assert "phantom by mine.safetensors, which never saw that CT" in report_html(fresh.run(), cases, score(cases))
    with pytest.raises(InputError, match="has no weights for this CT"):  # before anything is predicted
        predict(source, [MethodRun("posenet", "posenet")], Store(tmp_path / "none"), limit=1)
    assert not (tmp_path / "none").exists()


def test_a_run_that_goes_on_keeps_what_its_first_part_was_of(source, tmp_path):
    store, target = Store(tmp_path), Target.of(source.patient("phantom"))
    asked = {"methods": {}}
    store.begin(asked, {"a": target}, {"cpu": "slow"}, resume=False)
    store.begin(asked, {"b": target}, {"cpu": "slow"}, resume=True)
    assert list(store.targets()) == ["a", "b"]
    assert store.run()["record"] == {"cpu": "slow"}
    store.begin(asked, {"b": target}, {"cpu": "fast"}, resume=True)
    store.begin(asked, {"b": target}, {"cpu": "fast"}, resume=True)
    assert store.run()["record"] == {"cpu": "fast", "earlier": [{"cpu": "slow"}]}


def test_two_cts_are_pooled(source, ct_file, tmp_path, monkeypatch):
    both = replace(source, cts=(CtFile("phantom", ct_file), CtFile("again", ct_file)))
    monkeypatch.setattr(predict_module, "register", Stub(source, [1.0, 2.0]))
    store = Store(tmp_path)
    predict(both, [MethodRun("diffdrr", "diffdrr")], store, limit=2)
    rows = score(score_cases(store.predictions(), store.targets()))
    assert [r.ct for r in rows if (r.group, r.stage) == ("all", REFINED)] == ["again", "phantom", ALL_CTS]
    assert summary(rows, "diffdrr", "all", REFINED).n == 4


def test_the_papers_figures():
    assert len(paper_figures("deepfluoro", "17-1905")) == 4  # RayEmb's poster; SCR's order leaves it open
    (scr,) = [f for f in paper_figures("scr", "all") if f.ours == "scene_coordinates"]
    assert (scr.p25, scr.p50, scr.p95, scr.gfr10) == (2.14, 3.79, 14.13, 11.76)
    # the tables' own means, and rates that are whole numbers of images
    for method in ("PoseNet", "SCR"):
        mean, *_ = (f for f in FIGURES if (f.method, f.protocol, f.ct) == (method, "scr", "all"))
        six = [f for f in FIGURES if (f.method, f.protocol) == (method, "scr") and f.ct != "all"]
        assert mean.p50 == pytest.approx(np.mean([f.p50 for f in six]), abs=0.006)
        assert mean.gfr10 == pytest.approx(np.mean([f.gfr10 for f in six]), abs=0.006)
    pooled = {"DiffDRR": 192, "Fixed landmarks (RayEmb's)": 25, "RayEmb": 19, "RayEmb* (other patients)": 18}
    for method, beyond10 in pooled.items():
        counts = [f.gfr10 / 100 * f.n for f in FIGURES if f.method == method and f.ct != "all"]
        assert np.round(counts).sum() == beyond10
        np.testing.assert_allclose(counts, np.round(counts), atol=0.02)
    assert {f.ours for f in FIGURES} <= {"", *NAMES}
    of_ours = {f.method: f.ours for f in FIGURES}
    assert (of_ours["PoseNet"], of_ours["DFLNet"], of_ours["DeepIM"]) == ("posenet", "dflnet", "deepim")
    assert (of_ours["CMA-ES alone"], of_ours["ProST + CMA-ES"]) == ("cma_es_prost", "prost_cma_es")


def _args(ct_file: Path, out: Path, **more) -> Namespace:
    values = {
        "protocol": "scr", "method": ["diffdrr"], "ct": [str(ct_file)], "bone": None, "landmarks": None,
        "deepfluoro": None, "cases": 2, "weights": None, "paper_mode": False,
        "appearance": None, "with_search": False, "backend": "auto", "jobs": 1,
        "scheduler": None, "failures": 4, "landscapes": 2,
        "out": str(out), "seed": 1, "resume": False, "progress": "none", "quiet": False,
    }  # fmt: skip
    return Namespace(**{**values, **more})


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_command_writes_tables_and_a_page_of_its_own(source, ct_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PROTOCOLS, "scr", SMALL)
    monkeypatch.setattr(predict_module, "register", Stub(source, [1.0, None, 15.0, 40.0]))
    out = tmp_path / "out"
    landmarks = tmp_path / "l.mrk.json"
    write_landmarks(landmarks, [[0.0, 0, 0], [10.0, 0, 0]], ["a", "b"])
    assert evaluate.run(_args(ct_file, out, cases=4, landmarks=[str(landmarks)])) == OK
    said = capsys.readouterr().out
    assert "4 predictions were added" in said
    with open(out / "scores.csv") as stream:
        rows = list(csv.DictReader(stream))
    (row,) = [r for r in rows if (r["group"], r["stage"]) == ("all", REFINED)]
    assert (row["n"], row["no_pose"], row["gfr10"], row["mtre_p95"]) == ("4", "1", "0.75", "inf")
    assert row["wrong_but_passed"] == "1"
    with open(out / "cases.csv") as stream:
        assert [r["refined_mtre_landmarks_mm"] for r in csv.DictReader(stream)] == ["1", "inf", "15", "40"]
    content = json.loads((out / "scores.json").read_text())
    assert content["asked"]["protocol"]["name"] == "scr"
    assert len(content["targets"]["phantom"]["landmarks_ct"]) == 2
    assert {r["mtre_p95"] for r in content["scores"]} >= {"inf"}
    assert any(f["p50"] == 3.79 for f in content["published"])
    page = (out / "report.html").read_text()
    parser = _Page()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.links) == 3  # a picture of each failure
    assert all(link.startswith("data:image/png;base64,") for link in parser.links)
    assert "://" not in page.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched
    assert "PASSED by the verification" in page
    assert "it sees no bone" in page
    assert "3.79" in page  # the paper's median, beside ours

    assert evaluate.run(_args(ct_file, out, cases=4, landmarks=[str(landmarks)], resume=True, quiet=True)) == OK
    assert len(Store(out).predictions()) == 4


def test_ctrl_c_keeps_what_is_predicted(source, ct_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PROTOCOLS, "scr", SMALL)
    stub = Stub(source, [1.0])

    def interrupted(*args, **kwargs):
        if stub.asked:
            raise KeyboardInterrupt
        return stub(*args, **kwargs)

    monkeypatch.setattr(predict_module, "register", interrupted)
    assert evaluate.run(_args(ct_file, tmp_path / "out")) == STOPPED
    assert "1 predictions are kept" in capsys.readouterr().err
    assert len(Store(tmp_path / "out").predictions()) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"protocol": "srcr"}, "did you mean 'scr'"),
        ({"method": ["difdrr"]}, "did you mean 'diffdrr'"),
        ({"ct": None}, "at least one with --ct"),
        ({"ct": ["nowhere.nii.gz"]}, "does not exist"),
        ({"protocol": "deepfluoro", "ct": None}, "--deepfluoro"),
        ({"deepfluoro": "x.h5"}, "drop one"),
        ({"weights": ["w.safetensors"]}, "0 of the methods take weights"),
        ({"method": ["serch"]}, "did you mean 'search'"),
        ({"weights": ["cma_es=w.safetensors"]}, "takes no weights"),
        ({"weights": ["diffdrr=w.safetensors"]}, "takes no weights"),
        ({"bone": ["auto", "auto"]}, "2 --bone for 1 --ct"),
        ({"bone": ["full"]}, "no bone to measure on"),
        ({"jobs": 0}, "at least 1"),
        ({"cases": 0}, "at least 1 a CT"),
    ],
)
def test_bad_arguments_are_one_line(change, says, ct_file, tmp_path):
    with pytest.raises(InputError) as caught:
        evaluate.run(_args(ct_file, tmp_path / "out", **change))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "predictions.jsonl").exists()


def test_a_missing_cluster_package_is_named(source, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(MissingDependencyError, match=r"xrayregistration\[cluster\]"):
        predict(source, [MethodRun("diffdrr", "diffdrr")], Store(tmp_path), limit=1, scheduler="tcp://nowhere:1")


def test_a_real_method_in_two_processes(source, tmp_path):
    store = Store(tmp_path)
    assert predict(replace(source, protocol=CLEAN), [MethodRun("diffdrr", "diffdrr")], store, limit=2, jobs=2) == 2
    cases = score_cases(store.predictions(), store.targets())
    assert sorted(c.prediction.number for c in cases) == [0, 1]
    assert all(c.passed and c.refined.mtre_landmarks_mm < 0.5 for c in cases)
    assert all(c.proposed.mtre_landmarks_mm > c.refined.mtre_landmarks_mm for c in cases)
    assert all(c.prediction.seconds["propose_s"] > 0 for c in cases)


def test_methods_that_learn_are_measured_alone_unless_the_search_is_asked_for() -> None:
    alone = {run.label: run.options for run in evaluate.method_runs(["diffdrr", "scene_coordinates"], [], paper_mode=False)}
    assert alone == {"diffdrr": {}, "scene_coordinates": {"search_on_failure": False}}
    names = ["prost", "prost_cma_es", "deep_reg"]
    runs = evaluate.method_runs(names, [f"prost={__file__}", f"deep_reg={OTHER_FILE}"], paper_mode=False)
    assert [run.method for run in runs] == ["prost"] * 3
    assert [Path(run.options["weights"]).name for run in runs] == [Path(__file__).name] * 2 + [OTHER_FILE.name]
    (with_search,) = evaluate.method_runs(["scene_coordinates"], [], paper_mode=False, with_search=True)
    assert with_search.label == "scene_coordinates (with search)"
    assert with_search.options == {"search_on_failure": True}


def test_another_appearance_is_part_of_the_protocol_and_real_images_have_none() -> None:
    protocol = evaluate._with_appearance(PROTOCOLS["scr"], "randomised")
    assert protocol.settings()["appearance"] == "randomised"
    with pytest.raises(InputError, match="'sunny' is unknown; allowed are randomised, realistic, clean"):
        evaluate._with_appearance(PROTOCOLS["scr"], "sunny")
    with pytest.raises(InputError, match="whose images are real"):
        evaluate._with_appearance(PROTOCOLS["deepfluoro"], "clean")
