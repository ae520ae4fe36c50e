"""The report: what it writes, that finished parts are kept, and that what does not hold is said to."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser, report
from geodiff.data import Dataset, load
from geodiff.data.digest import digest
from geodiff.learned import LearnedDenoiser, UNetConfig
from geodiff.local import LocalDenoiser, published
from geodiff.report import Finding, Picture
from geodiff.report.context import Context
from geodiff.report.page import placed, render
from geodiff.report.parts import PARTS, distilled, local_denoisers, magnitudes, score_agreement, thin_shell_of_noise
from geodiff.report.store import Store
from geodiff.report.typeset import html, mathtext

DIGITS = load("digits")
FEW = (magnitudes, thin_shell_of_noise, score_agreement)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A report of every part on the digits, without a network."""
    out = tmp_path_factory.mktemp("report")
    return out, report.run(DIGITS, out, num=32)


def test_every_claim_is_measured_or_says_why_not(whole: tuple[Path, dict[str, Any]]) -> None:
    out, document = whole
    assert document == json.loads((out / "report.json").read_text(encoding="utf-8"))
    findings = {finding["key"]: finding for finding in document["findings"]}
    assert len(findings) == len(PARTS)
    assert {f"observation-{number}" for number in range(1, 6)} <= findings.keys()
    assert [key for key, finding in findings.items() if finding["held"] is None] == [
        "observation-4",
        "flow-deviation",
        "local-denoisers",
        "distillation",
    ]
    assert "--net" in findings["observation-4"]["verdict"]
    assert "--net" in findings["flow-deviation"]["verdict"]
    assert document["held"] + document["not_held"] + document["not_measured"] == len(PARTS)
    for key in ("observation-1", "observation-2", "observation-3", "memorisation", "mean-shift", "likelihood-ascent"):
        assert findings[key]["held"] is True, findings[key]["verdict"]
    for key, finding in findings.items():
        assert finding["claim"], key
        assert finding["measure"], key
        assert finding["verdict"], key
        if finding["held"] is not None:
            assert finding["figures"], key
            assert finding["pictures"], key


def test_figures_are_those_of_the_data(whole: tuple[Path, dict[str, Any]]) -> None:
    figures = {finding["key"]: finding["figures"] for finding in whole[1]["findings"]}
    assert figures["observation-3"]["norm_x"][0] == pytest.approx(80 * 8, rel=0.05)
    mean = (DIGITS.data.double() / 127.5 - 1).mean(0)
    assert figures["observation-3"]["norm_r"][0] == pytest.approx(float(mean.norm()), rel=0.02)
    assert figures["observation-1"]["dev_x"][0] == 0
    assert figures["memorisation"]["optimal denoiser"]["share_copied"] == 1
    assert figures["interpolation"]["ratio"]["linear"][4] == pytest.approx(0.5**0.5, rel=0.05)


def test_the_page_needs_nothing_else(whole: tuple[Path, dict[str, Any]]) -> None:
    page = (whole[0] / "report.html").read_text(encoding="utf-8")
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    assert "<script" not in page
    assert page.count("<article") == len(PARTS)
    assert all(f'id="{finding["key"]}"' in page for finding in whole[1]["findings"])
    assert 'name="viewport"' in page
    assert "@media print" in page
    assert "‖x<sub>σ</sub> − x<sub>end</sub>‖" in page


def computed(out: Path, **settings: Any) -> list[str]:
    """The parts that a run computes anew."""
    names = []
    saved = Store.save

    def save(store: Store, part: Any, finding: Finding) -> None:
        names.append(part.__name__)
        saved(store, part, finding)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "save", save)
        report.run(DIGITS, out, parts=FEW, **settings)
    return names


def test_finished_parts_are_kept(tmp_path: Path) -> None:
    every = [part.__name__ for part in FEW]
    assert computed(tmp_path, num=4) == every
    first = (tmp_path / "report.html").read_bytes()
    assert computed(tmp_path, num=4) == []
    assert (tmp_path / "report.html").read_bytes() == first
    (tmp_path / "parts" / f"{every[1]}.json").write_text('{"key": "torn', encoding="utf-8")
    assert computed(tmp_path, num=4) == [every[1]]
    assert computed(tmp_path, num=5) == every
    assert computed(tmp_path, num=5, learned=LearnedDenoiser((1, 8, 8), UNetConfig(1, width=8))) == every


def test_an_interrupted_report_goes_on(tmp_path: Path) -> None:
    def interrupt(part: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        report.run(DIGITS, tmp_path, num=4, parts=FEW, progress=interrupt)
    assert not (tmp_path / "report.html").exists()
    assert computed(tmp_path, num=4) == [FEW[2].__name__]


def test_what_does_not_hold_is_said_to(tmp_path: Path) -> None:
    untrained = LearnedDenoiser((1, 8, 8), UNetConfig(1, width=8)).eval().requires_grad_(False)
    document = report.run(DIGITS, tmp_path, num=8, parts=(score_agreement,), learned=untrained)
    assert document["findings"][0]["held"] is False
    assert document["not_held"] == 1
    assert "did not hold" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_network_that_is_local_agrees_with_a_local_denoiser(tmp_path: Path) -> None:
    local = LocalDenoiser(DIGITS.data, patch=published("mnist_unet_zeros"))

    class Local(LearnedDenoiser):
        def forward(self, x: Tensor, sigma: float | Tensor, class_labels: Tensor | None = None) -> Tensor:
            return local(x, sigma)

    network = Local((1, 8, 8), UNetConfig(1, width=8)).eval()
    (finding,) = report.run(DIGITS, tmp_path, num=2, parts=(local_denoisers,), learned=network)["findings"]
    assert finding["held"] is True
    assert finding["figures"]["correlation"]["local"] == pytest.approx([1] * len(finding["figures"]["sigma"]))
    assert len(finding["pictures"]) == 2


def test_points_that_are_no_pictures_have_a_report_too(tmp_path: Path) -> None:
    points = Dataset(torch.randn(40, 6), None, "<points>", "flat")
    document = report.run(points, tmp_path, num=8)
    assert all("above" not in caption for finding in document["findings"] for caption in finding["pictures"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;points&gt;" in page
    assert "<points>" not in page


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^net: expected a denoiser of points \(1, 8, 8\)"):
        report.run(DIGITS, tmp_path, learned=LearnedDenoiser((1, 4, 4), UNetConfig(1, width=8)))
    with pytest.raises(ValueError, match=r"^num: "):
        report.run(DIGITS, tmp_path, num=1)


def test_a_finding_comes_back_as_it_was() -> None:
    picture = Picture("a <caption>", "image/png", b"\x89PNG\x00", wide=True)
    finding = Finding("k", "Limit", "t", "c", "m", None, "v", {"x": [1.0, float("nan")]}, [["a"], ["1"]], [picture])
    again = Finding.restored(json.loads(json.dumps(finding.stored())))
    assert again.pictures == [picture]
    assert again.figures == {"x": [1.0, None]}
    assert again.document() == finding.document()
    head = {"data": "d", "N": 1, "shape": [1], "noises": 2, "seed": 0, "backend": "cpu", "net": None}
    counts = {"held": 0, "not_held": 0, "not_measured": 1, "inputs": {"geodiff": "0"}}
    page = render({**head, **counts}, [again])
    assert "a &lt;caption&gt;" in page
    assert "not measured" in page


def test_subscripts_are_set_as_such() -> None:
    assert html("‖x − x_end‖ < σ_c² = λ_max") == "‖x − x<sub>end</sub>‖ &lt; σ<sub>c</sub>² = λ<sub>max</sub>"
    assert html("<b>r_θ(x_σ; σ)") == "&lt;b&gt;r<sub>θ</sub>(x<sub>σ</sub>; σ)"
    assert html("a file_name, dev_x, __init__ and x_1") == "a file_name, dev_x, __init__ and x_1"
    assert mathtext("r_θ at x_end") == r"r$_{\mathrm{θ}}$ at x$_{\mathrm{end}}$"


def test_a_picture_without_a_neighbour_is_known() -> None:
    kinds = [False, True, False, False, True, True, False, False, False]
    pictures = [Picture(str(k), "image/png", b"", wide=wide) for k, wide in enumerate(kinds)]
    places = placed(pictures)
    assert [picture for _, picture in places] == pictures
    assert [place for place, _ in places] == ["alone", "wide", "half", "half", "wide", "wide", "half", "half", "alone"]
    assert placed([]) == []


def test_the_digest_is_of_its_values() -> None:
    data = torch.randint(0, 256, (10, 3, 4), dtype=torch.uint8)
    assert digest(data) == digest(data.transpose(1, 2).contiguous().transpose(1, 2))
    changed = data.clone()
    changed[9, 2, 3] ^= 1
    assert digest(data) != digest(changed)
    assert digest(data) != digest(data.reshape(10, 12))


def test_the_same_seed_draws_the_same() -> None:
    first, again, other = (Context(DIGITS, OptimalDenoiser(DIGITS.data), None, num=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.noise, again.noise)
    assert not torch.equal(first.noise, other.noise)
    assert not torch.equal(first.normal(3, stream=1), first.normal(3, stream=2))


def test_a_student_is_compared_with_its_teacher() -> None:
    from geodiff.learned import ConsistencyModel

    torch.manual_seed(0)
    student = ConsistencyModel((1, 8, 8), UNetConfig(1, width=8))
    student.training_metadata = {"distill": "cd", "teacher": "optimal"}
    found = distilled(Context(DIGITS, OptimalDenoiser(DIGITS.data), student, num=16))
    assert found.held is False  # it has learned nothing
    assert found.figures["nfe"] == 1
    assert found.figures["copied"] == 0
    assert found.figures["teacher"] < found.figures["own"]
    assert len(found.pictures) == 1
    assert [row[0] for row in found.table[1:]] == list(found.figures["consistency"])


def test_a_student_that_answers_whole_trajectories_is_compared_and_asked_nothing_else(tmp_path: Path) -> None:
    from geodiff.learned import TrajectoryOperator

    torch.manual_seed(0)
    student = TrajectoryOperator((1, 8, 8), UNetConfig(1, width=8))
    student.training_metadata = {"distill": "dfno", "teacher": "optimal"}
    document = report.run(DIGITS, tmp_path, learned=student, num=16, parts=(score_agreement, distilled))
    agreement, compared = document["findings"]
    assert agreement["held"] is None
    assert "no denoiser or flow was given" in agreement["verdict"]
    assert compared["figures"]["method"] == "dfno"
    assert compared["figures"]["nfe"] == 1
