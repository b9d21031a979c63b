import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
from beams import QUICK

from ptychoseg_stream.evaluation.evaluate import Request, evaluate
from ptychoseg_stream.evaluation.figures import About, figures, plain
from ptychoseg_stream.evaluation.overlay import (
    CLASS_COLORS,
    EXTRA,
    MISSED,
    as_png,
    compared,
    enlarged,
    grey,
    rgb_of,
    tinted,
    window_of,
)
from ptychoseg_stream.evaluation.page import write_page
from ptychoseg_stream.node.options import NodeOptions
from ptychoseg_stream.science.frame import ClassCode

OPTIONS = NodeOptions(stages=(0, 3), student=QUICK)
ABOUT = About(
    "<b>my</b> & frames.h5",
    (8, 104, 104),
    "uint16",
    "simulated truth",
    (0,),
    OPTIONS,
    "1.2.3",
    "ptychoseg evaluate 'my frames.h5' --seeds 1",
)


@pytest.fixture(scope="module")
def spoiled(strong):
    frames = strong.frames[:8].astype(np.float32)
    frames[5] = np.nan
    return frames


@pytest.fixture(scope="module")
def outcome(spoiled, strong):
    return evaluate(spoiled, list(strong.truth[:8]), Request(OPTIONS, (0,), quick=True))


@pytest.fixture(scope="module")
def page(outcome, spoiled, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "r.html"
    write_page(path, ABOUT, outcome, spoiled)
    return path.read_text()


class Structure(HTMLParser):
    """Checks that tags are closed in order, and collects images, rows and links."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.images, self.links = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        self.links += [found[key] for key in ("src", "href") if key in found]
        if tag == "img":
            self.images.append(found)
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def structure_of(page):
    parser = Structure()
    parser.feed(page)
    assert parser.open == []
    return parser


# --- the page -------------------------------------------------------------------------------------


def test_page_needs_nothing_from_elsewhere(page):
    links = structure_of(page).links
    assert links
    assert all(link.startswith("data:image/png;base64,") for link in links)
    for outside in ("http:", "https:", "url(", "@import", "<script", "<link"):
        assert outside not in page


def test_page_shows_every_score_and_each_of_the_worst_frames(page, outcome):
    parsed = structure_of(page)
    assert parsed.tags.count("tr") == 1 + len(outcome.scores)
    for score in outcome.scores:
        assert f"<th>{score.name}</th>" in page
        assert f"{score.ring:.3f}" in page
    worst = outcome.worst(6)
    assert re.findall(r"<h3>frame (\d+)", page) == [str(i) for i in worst]
    assert len(parsed.images) == 2 + 6 * len(worst)
    assert {f"{name} of frame {worst[0]}" for name in ("frame", "reference", "teacher")} <= {
        image["alt"] for image in parsed.images
    }
    assert f"fused <b>{outcome.ious['fused'][worst[0]]:.3f}</b>" in page


def test_pictures_of_the_page_are_pictures(page):
    for image in structure_of(page).images:
        content = base64.b64decode(image["src"].partition(",")[2])
        pixels = matplotlib.image.imread(io.BytesIO(content))
        assert min(pixels.shape[:2]) > 100
        assert pixels[:, :, :3].std() > 0.01


def test_page_says_what_made_it_and_what_was_left_out(page):
    assert "&lt;b&gt;my&lt;/b&gt; &amp; frames.h5" in page
    assert "<b>my</b>" not in page
    for word in ("1.2.3", "--seeds 1", "simulated truth", "first_steps", "frames 0, 3"):
        assert word in page
    assert "<li>frame 5: " in page


def test_legend_names_every_class(page):
    for code in ClassCode:
        assert f"({code.value})</li>" in page
    assert {code for code in ClassCode if code != ClassCode.BACKGROUND} == set(CLASS_COLORS)


def test_same_outcome_gives_the_same_page(page, outcome, spoiled, tmp_path):
    write_page(tmp_path / "again.html", ABOUT, outcome, spoiled)
    assert (tmp_path / "again.html").read_text() == page


def test_page_of_frames_without_a_ring_can_be_written(strong, tmp_path):
    blank = [np.zeros((104, 104), np.uint8)] * 3
    options = replace(OPTIONS, stages=())
    result = evaluate(strong.frames[:3], blank, Request(options, (0,), quick=True))
    write_page(tmp_path / "r.html", ABOUT, result, strong.frames[:3])
    text = (tmp_path / "r.html").read_text()
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text).lower()
    assert "<td>–</td>" in text  # no core, no student


# --- figures --------------------------------------------------------------------------------------


def test_figures_are_json_without_nan(outcome):
    found = json.loads(json.dumps(figures(ABOUT, outcome), allow_nan=False))
    assert found["scored"] == len(found["scored_frames"]) == len(outcome.scored)
    assert found["staged"] == [0, 3]
    assert list(found["refused"]) == ["5"]
    assert found["best_baseline"] == outcome.best_baseline
    assert [s["name"] for s in found["scores"]] == [s.name for s in outcome.scores]
    assert found["ious"]["fused"] == outcome.ious["fused"].tolist()
    assert found["options"]["stages"] == [0, 3]
    assert [row["frames"] for row in found["stages"]] == [n for _, n, _ in outcome.stages]


def test_what_is_no_number_becomes_null():
    value = {1: np.array([1.0, np.nan]), "a": (float("inf"), 2, np.float32(0.5)), "b": None}
    expected = {"1": [1.0, None], "a": [None, 2, 0.5], "b": None}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == expected


# --- small pictures -------------------------------------------------------------------------------


def test_classes_tint_and_differences_are_in_full_color():
    classes = np.array([[0, 1, 2, 3, 4, 5, 255]], np.uint8)
    picture = np.full((1, 7, 3), 100, np.uint8)
    tint = tinted(picture, classes)
    assert (tint[0, 0] == 100).all()
    assert len({tuple(pixel) for pixel in tint[0].tolist()}) == 7
    ring, truth = classes == 1, np.roll(classes == 1, 1)
    differs = compared(tint, ring, truth)
    assert tuple(differs[0, 1]) == rgb_of(EXTRA)
    assert tuple(differs[0, 2]) == rgb_of(MISSED)
    assert np.array_equal(differs[0, 3:], tint[0, 3:])
    assert (picture == 100).all()


def test_grey_stands_hot_and_missing_pixels():
    image = np.ones((50, 50))
    image[0, 0], image[1, 1], image[2, 2] = 1e9, np.nan, -5
    shown = grey(image)
    assert shown[10, 10, 0] == 255
    assert shown[1, 1, 0] == shown[2, 2, 0] == 0
    assert grey(np.zeros((50, 50))).max() == 0


def test_enlarged_pixels_stay_sharp():
    large = enlarged(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), 100)
    assert large.shape == (100, 100, 3)
    assert len(np.unique(large.reshape(-1, 3), axis=0)) == 4
    assert as_png(large).startswith(b"\x89PNG")


def test_window_holds_the_ring_or_everything():
    ring = np.zeros((100, 100), bool)
    rows, columns = window_of(ring)
    assert ring[rows, columns].shape == (100, 100)
    ring[2:20, 40:60] = True
    rows, columns = window_of(ring)
    assert ring[rows, columns].sum() == ring.sum()
    assert ring[rows, columns].size < 2500
