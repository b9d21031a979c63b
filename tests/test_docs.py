"""The documentation says what the code does: keys, columns, options, messages and links."""

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml

from ptychoseg_stream.cli import app
from ptychoseg_stream.node.ports import Account, RunInfo
from ptychoseg_stream.profile import Profile
from ptychoseg_stream.science.features import FEATURES, WEIGHTS
from ptychoseg_stream.science.frame import bit_legend, legend
from ptychoseg_stream.sinks.arrays import ARRAYS
from ptychoseg_stream.sinks.derived import Derived
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.rows import COLUMNS
from ptychoseg_stream.sinks.side_tables import SIDE_TABLES
from ptychoseg_stream.sources.addresses import FORMS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def rows_of(page: str, heading: str = "") -> Iterator[list[str]]:
    """Yield the cells of each table row of a page (or of one section), without header and ruler."""
    text = (DOCS / page).read_text()
    if heading:
        text = re.split(r"^#+ ", text.partition(f"# {heading}\n")[2], flags=re.MULTILINE)[0]
    for line in text.splitlines():
        if line.startswith("|") and not re.fullmatch(r"[|\s:-]+", line):
            yield [cell.strip() for cell in line[1:-1].split("|")]


def keys_of(options: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key of a profile with its default, ``node.prepare.gain`` and the like."""
    for each in fields(options):
        value = getattr(options, each.name)
        if is_dataclass(value):
            yield from keys_of(value, f"{prefix}{each.name}.")
        else:
            yield f"{prefix}{each.name}", list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(("key", "default"), list(keys_of(Profile())))
def test_every_key_of_a_profile_is_documented_with_its_default(key: str, default: Any) -> None:
    documented = {row[0].strip("` "): row[1] for row in rows_of("reference/profile.md")}
    assert key in documented
    assert yaml.safe_load(documented[key].strip("`")) == default


def test_no_key_is_documented_that_a_profile_does_not_have() -> None:
    known = {key for key, _ in keys_of(Profile())}
    documented = {row[0].strip("` ") for row in rows_of("reference/profile.md") if len(row) == 3}
    assert documented - known == {"key"}


@pytest.mark.parametrize("page", ["feed-over-zmq", "feed-from-kafka", "follow-the-feed"])
def test_the_page_of_a_source_says_the_same_defaults_as_the_profile(page: str) -> None:
    documented = {row[0].strip("` "): row[1] for row in rows_of("reference/profile.md")}
    here = {row[0].strip("` "): row[1] for row in rows_of(f"how-to/{page}.md", "Settings")}
    del here["key"]
    assert here.items() <= documented.items()
    assert len(here) > 3


TABLES = {"Table": COLUMNS, "Alarms": SIDE_TABLES["alarms"], "Stages": SIDE_TABLES["stages"]}


@pytest.mark.parametrize(
    ("heading", "column"), [(heading, name) for heading in TABLES for name in TABLES[heading]]
)
def test_every_column_of_a_table_is_documented_with_type_and_unit(
    heading: str, column: str
) -> None:
    documented = {row[0].strip("` "): row for row in rows_of("reference/mask-run.md", heading)}
    assert column in documented
    _, kind, unit, *_ = documented[column]
    assert kind == TABLES[heading][column].dtype
    assert unit == TABLES[heading][column].units


@pytest.mark.parametrize("heading", TABLES)
def test_no_column_is_documented_that_a_table_does_not_have(heading: str) -> None:
    documented = {row[0].strip("` ") for row in rows_of("reference/mask-run.md", heading)}
    assert documented - set(TABLES[heading]) == {"column", "seq_num", "time"}


def test_every_number_of_an_account_is_documented() -> None:
    uid = "0" * 8 + "-0000-4000-8000-" + "0" * 12
    derived = Derived(RunInfo("raw", {}, {}), uid, 0.0)
    account = Account(received=2, announced=3)  # does not balance
    told = derived.stop(account, {}, 1.0, filled=0, repeated=0, dropped=1, doubled=1)["account"]
    documented = {row[0].strip("` ") for row in rows_of("reference/mask-run.md", "Stop document")}
    assert documented - {"key"} == set(told)


@pytest.mark.parametrize("name", ARRAYS)
def test_every_array_is_documented_with_its_type_and_what_stands_for_nothing(name: str) -> None:
    documented = {row[0].strip("` "): row for row in rows_of("reference/mask-run.md", "Arrays")}
    assert documented[name][1] == np.dtype(ARRAYS[name].dtype).name
    assert documented[name][2] == str(ARRAYS[name].fill)


@pytest.mark.parametrize("meanings", [legend(), bit_legend()], ids=["class codes", "valid bits"])
def test_class_codes_and_bits_are_documented_by_name(meanings: dict[str, str]) -> None:
    documented = {(row[0], row[1].strip("`")) for row in rows_of("reference/class-codes.md")}
    assert set(meanings.items()) <= documented


def test_features_are_documented_in_order_with_their_weights() -> None:
    rows = [row for row in rows_of("explanations/method.md") if row[0].strip("`") in FEATURES]
    assert [row[0].strip("`") for row in rows] == list(FEATURES)
    assert {row[0].strip("`"): float(row[2]) for row in rows} == WEIGHTS


def test_every_command_and_option_is_documented() -> None:
    page = (DOCS / "reference" / "command-line.md").read_text()
    command: Any = typer.main.get_command(app)
    for name, sub in command.commands.items():
        section = page.partition(f"## `ptychoseg {name}")[2].partition("\n## ")[0]
        assert section, name
        for option in (opt for param in sub.params for opt in param.opts if opt[0] == "-"):
            assert f"`{option}`" in section, f"{name} {option}"


def strings_of_the_code() -> str:
    """Return all string constants of the package; what is filled in later is an ellipsis."""
    sources = [*(ROOT / "ptychoseg_stream").rglob("*.py"), *(ROOT / "callbacks").rglob("*.py")]
    texts: list[str] = []
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
                texts.append("".join(map(str, parts)))
    return re.sub(r"%(\.\d)?[a-z]", "…", "\n".join(texts)).replace("%%", "%")


EXPLAINED = [
    ("when-something-is-wrong", "", 60),
    ("feed-over-zmq", "When nothing arrives", 4),
    ("follow-the-feed", "When nothing comes", 3),
    ("replay-recorded-runs", "When a file is damaged", 2),
]


@pytest.mark.parametrize(("page", "heading", "least"), EXPLAINED)
def test_messages_that_are_explained_are_those_of_the_code(
    page: str, heading: str, least: int
) -> None:
    code = strings_of_the_code()
    cells = [row[0] for row in rows_of(f"how-to/{page}.md", heading)]
    messages = [text for cell in cells for text in re.findall("`([^`]{20,})`", cell)]
    assert len(messages) >= least
    for message in messages:
        for fragment in re.split("…|^cannot |: |; ", message):
            assert fragment.strip(" ;:,(") in code, message


def names_of_checks(*modules: str) -> set[str]:
    """Return the names of the lines that modules of a check list print."""
    names: set[str] = set()
    for module in modules:
        for node in ast.walk(ast.parse((ROOT / "ptychoseg_stream" / module).read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ok", "note", "fail"):
                names.update(a.value for a in node.args[:1] if isinstance(a, ast.Constant))
    return names


def test_every_line_of_an_audit_is_explained() -> None:
    explained = {row[0].strip("` ") for row in rows_of("how-to/audit-a-run.md", "The lines")}
    assert explained - {"line"} == names_of_checks("health/audit.py")


def test_everything_that_a_doctor_looks_at_is_named() -> None:
    modules = ("health/machine.py", "health/servers.py", "health/feeds.py", "inspection.py")
    page = (DOCS / "reference" / "command-line.md").read_text()
    section = page.partition("## `ptychoseg doctor`")[2].partition("\n## ")[0]
    missing = {name for name in names_of_checks(*modules) if name not in section}
    assert not missing


def test_every_way_in_is_on_the_first_page_of_the_documentation() -> None:
    index = (DOCS / "README.md").read_text()
    forms = FORMS.split(", ")
    assert len(forms) == 3
    assert all(form.replace(":9092", "") in index.replace(":9092", "") for form in forms)


def test_the_rings_that_are_drawn_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = [
        [name.strip().removeprefix("ptychoseg_stream.") for name in layer.split("|")]
        for layer in contracts["contracts"][0]["layers"]
    ]
    page = (DOCS / "explanations" / "architecture.md").read_text()
    drawn = page.partition("## Rings")[2].split("```")[1].strip().splitlines()
    rings = [[name.strip() for name in re.split(r"  +", line)[0].split("|")] for line in drawn]
    assert rings == layers


def test_every_thread_is_drawn() -> None:
    page = (DOCS / "explanations" / "architecture.md").read_text()
    drawn = set(re.findall(r"ptychoseg-[a-z]+", page))
    named: set[str] = {"ptychoseg-keeper", "ptychoseg-tiled"}  # made in a loop
    for source in [*(ROOT / "ptychoseg_stream").rglob("*.py"), *(ROOT / "callbacks").rglob("*.py")]:
        named |= set(re.findall(r'Thread\([^()]*name="(ptychoseg-[a-z]+)"', source.read_text()))
    assert len(named) > 6
    assert drawn == named


def test_scopes_that_are_asked_for_are_those_of_the_message() -> None:
    code = strings_of_the_code()
    for page in ("tutorial.md", "how-to/when-something-is-wrong.md"):
        named = set(re.findall(r"\b(?:read|write|create):\w+", (DOCS / page).read_text()))
        assert named == {"read:metadata", "read:data", "create:node"} | {
            "write:metadata",
            "write:data",
        }
        assert all(scope in code for scope in named)


@pytest.mark.parametrize("page", ["survive-an-outage", "when-something-is-wrong"])
def test_the_pauses_that_are_promised_are_the_defaults(page: str) -> None:
    options = TiledOptions()
    text = (DOCS / "how-to" / f"{page}.md").read_text()
    assert f"asked again after {options.retry_wait:g} s" in text
    assert f"up to each {options.retry_longest:g} s" in text


def anchors_of(page: Path) -> set[str]:
    """Return what a link may name after ``#``, as GitHub spells headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors_of(file), target


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    for page in DOCS.rglob("*.md"):
        if page != DOCS / "README.md":
            assert f"({page.relative_to(DOCS)})" in index


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_that_is_shown_can_be_compiled(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        assert compile(block, str(page), "exec").co_filename == str(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_that_are_imported_in_a_page_have_what_is_imported(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ptychoseg"):
                names: dict[str, Any] = {}
                exec(ast.unparse(node), names)
                assert all(alias.name in names for alias in node.names)
