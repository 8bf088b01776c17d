"""docs/conformance/ lists every normative statement; each names its tests, and each test exists.

`pytest tests/clients --tables` writes the names of the client tests into the tables.
"""

import re

import pytest

from brokers import REPO
from conftest import clauses

TABLES = {version: REPO / "docs" / "conformance" / f"mqtt-{version}.md" for version in ("3.1.1", "5")}
ROW = re.compile(r"^\| (MQTT-\S+) \|(.*)\| ([^|]*) \|$")
OURS = re.compile(r"(?:; )?clients: .*$")


def covered(items, version):
    """clause -> names of the client tests, in order."""
    found = {}
    for item in items:
        for of, clause, test in clauses(item):
            if of == version and test not in found.setdefault(clause, []):
                found[clause].append(test)
    return found


def written(text, found):
    """The table as it should be: our part of the last column comes from the markers."""
    lines = []
    for line in text.splitlines():
        if row := ROW.match(line):
            clause, middle, tests = row.groups()
            tests = OURS.sub("", tests)
            ours = ", ".join(f"`{name}`" for name in found.get(clause, []))
            others = tests if tests not in ("—", "") else ""
            tests = "; ".join(part for part in (others, ours and f"clients: {ours}") if part) or "—"
            line = f"| {clause} |{middle}| {tests} |"
        lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("version", TABLES)
def test_tables_name_the_tests(request, version):
    items = request.session.all_items
    if not {"test_policies", "test_attacks"} <= {item.path.stem for item in items}:
        pytest.skip("only some of the tests were collected")
    path, found = TABLES[version], covered(items, version)
    text = path.read_text()
    if request.config.getoption("--tables"):
        path.write_text(written(text, found))
        return
    assert text == written(text, found), f"{path.name} is stale: pytest tests/clients --tables"
    rows = {row[1]: row[3] for line in text.splitlines() if (row := ROW.match(line))}
    assert not set(found) - set(rows), "tests name clauses that are not in the table"
    assert not [clause for clause, tests in rows.items() if tests == "—"], "clauses without a test"


@pytest.mark.parametrize("version", TABLES)
def test_rust_tests_exist(version):
    sources = "\n".join(path.read_text() for path in (REPO / "domain" / "mqtt").rglob("*.rs"))
    for name in sorted(set(re.findall(r"`tests::[\w:]*?(\w+)`", TABLES[version].read_text()))):
        assert f"fn {name}(" in sources, name
