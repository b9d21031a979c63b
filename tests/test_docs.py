"""The documentation says what the code does: keys, columns, options, messages and links."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml

from ptychoseg_stream.cli import app
from ptychoseg_stream.profile import Profile
from ptychoseg_stream.science.features import FEATURES, WEIGHTS
from ptychoseg_stream.science.frame import bit_legend, legend
from ptychoseg_stream.sinks.arrays import ARRAYS
from ptychoseg_stream.sinks.options import TiledOptions
from ptychoseg_stream.sinks.rows import COLUMNS
from ptychoseg_stream.sinks.side_tables import SIDE_TABLES

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


def test_messages_that_are_explained_are_those_of_the_code() -> None:
    code = strings_of_the_code()
    cells = [row[0] for row in rows_of("how-to/when-something-is-wrong.md")]
    messages = [text for cell in cells for text in re.findall("`([^`]{20,})`", cell)]
    assert len(messages) > 30
    for message in messages:
        for fragment in re.split("…|^cannot |: |; ", message):
            assert fragment.strip(" ;:,(") in code, message


def test_scopes_that_are_asked_for_are_those_of_the_message() -> None:
    code = strings_of_the_code()
    for page in ("tutorial.md", "how-to/when-something-is-wrong.md"):
        named = set(re.findall(r"\b(?:read|write|create):\w+", (DOCS / page).read_text()))
        assert named == {"read:metadata", "read:data", "create:node"} | {
            "write:metadata",
            "write:data",
        }
        assert all(scope in code for scope in named)


def test_the_number_of_attempts_that_is_promised_is_the_default() -> None:
    options = TiledOptions()
    pauses = sum(options.retry_wait * 2**n for n in range(options.attempts - 1))
    page = (DOCS / "how-to" / "when-something-is-wrong.md").read_text()
    assert f"{options.attempts} attempts, {int(pauses)} s of pauses" in page


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
