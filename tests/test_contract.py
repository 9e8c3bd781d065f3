"""Contracts are read with care: what is wrong is told with its file and line."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from fabric_beam.contract import Contract, Field, Rule
from fabric_beam.contract_file import load_contract
from fabric_beam.errors import UsageError

HEAD = "contract: sizes\nversion: 1\n"
FIELD = HEAD + "fields:\n  size: "
RULES = HEAD + "rules:\n"

BAD = {
    "": (
        1,
        "the contract is a mapping with the keys contract, version, description, mode, fields, rules; here is nothing.",
    ),
    "[1]": (
        1,
        "the contract is a mapping with the keys contract, version, description, mode, fields, rules; here is [1].",
    ),
    "contract: a\nversion: 1\n": (1, "it has no fields and no rules, so it checks nothing."),
    "contract: a\n": (1, "the contract lacks the key 'version'."),
    "contract: [a]\nversion: 1\nfields: {}\n": (1, "contract is the name of a data set, not ['a']."),
    "contract: a\nversion: '1'\nfields: {}\n": (2, "version is a whole number from 1, not '1'."),
    HEAD + "mode: frozen\n": (3, "mode 'frozen' is unknown. Did you mean 'freeze'? Known: evolve, freeze."),
    HEAD + "feilds: {}\n": (
        3,
        "the contract: the key 'feilds' is unknown. Did you mean 'fields'? "
        "Known: contract, description, fields, mode, rules, version.",
    ),
    HEAD + "fields: [a]\n": (3, "fields is a mapping from name to checks, not ['a']."),
    HEAD + "rules: {a: 1}\n": (3, "rules is a list, not {'a': 1}."),
    HEAD + "version: 2\n": (3, "not readable as YAML: 'version' is here twice."),
    HEAD + "fields:\n  size: {type: int}\n  size: {type: int}\n": (5, "not readable as YAML: 'size' is here twice."),
    HEAD + "fields:\n  on: {type: int}\n": (
        4,
        "not readable as YAML: the key True is not text, so put it in quotes.",
    ),
    HEAD + "fields: {\n": (4, "not readable as YAML: expected the node content, but found '<stream end>'."),
    HEAD + "fields: !!python/object:os.system {}\n": (
        3,
        "not readable as YAML: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object:os.system'.",
    ),
    FIELD + "int\n": (
        4,
        "field 'size' is a mapping with the keys type, action, description, required, min, max, min_length, "
        "max_length, pattern, one_of; here is 'int'.",
    ),
    FIELD + "{min: 1}\n": (4, "field 'size' lacks the key 'type'."),
    FIELD + "{type: integer}\n": (
        4,
        "field 'size': type 'integer' is unknown. Did you mean 'int'? Known: bool, float, int, string, timestamp.",
    ),
    FIELD + "{type: int, minimum: 1}\n": (
        4,
        "field 'size': the key 'minimum' is unknown. Did you mean 'min'? Known: action, description, max, max_length, "
        "min, min_length, one_of, pattern, required, type.",
    ),
    FIELD + "\n    type: int\n    min: 5\n    max: 3\n": (
        6,
        "field 'size': min 5 is above max 3: no value satisfies both.",
    ),
    FIELD + "{type: string, min_length: 5, max_length: 3}\n": (
        4,
        "field 'size': min_length 5 is above max_length 3: no value satisfies both.",
    ),
    FIELD + "\n    type: int\n    action: drop\n": (
        6,
        "field 'size': action 'drop' is unknown. Known: flag, reject, warn.",
    ),
    FIELD + "{type: int, required: 1}\n": (4, "field 'size': required is true or false, not 1."),
    FIELD + "{type: int, min: '1'}\n": (4, "field 'size': min '1' is not of type int."),
    FIELD + "{type: int, min: true}\n": (4, "field 'size': min True is not of type int."),
    FIELD + "{type: float, max: .nan}\n": (4, "field 'size': max nan is not of type float."),
    FIELD + "{type: string, one_of: [yes, 'no']}\n": (
        4,
        "field 'size': one_of True is not of type string. Put it in quotes.",
    ),
    FIELD + "{type: string, one_of: GET}\n": (4, "field 'size': one_of is a list, not 'GET'."),
    FIELD + "{type: int, one_of: []}\n": (4, "field 'size': one_of is a list, not []."),
    FIELD + "{type: string, min: a}\n": (
        4,
        "field 'size': min does not apply to type string, whose limits are: min_length, max_length, pattern, one_of.",
    ),
    FIELD + "{type: bool, one_of: [true]}\n": (
        4,
        "field 'size': one_of does not apply to type bool, which has no limits.",
    ),
    FIELD + "{type: string, max_length: -1}\n": (4, "field 'size': max_length is a number of characters, not -1."),
    FIELD + "{type: timestamp, min: noon}\n": (4, "field 'size': min is a time in ISO 8601, not 'noon'."),
    RULES + "  - {name: a}\n": (4, "rule 1 lacks the key 'expression'."),
    RULES + "  - just text\n": (
        3,
        "rule 1 is a mapping with the keys name, expression, action, message; here is 'just text'.",
    ),
    RULES + "  - name: a\n    expression: true\n": (5, "rule 'a': expression is text, not True."),
    RULES + "  - {name: min, expression: size > 1}\n": (
        4,
        "rule 'min': a check of fields has this name; choose another.",
    ),
    RULES + "  - {name: a, expression: size > 1}\n  - {name: a, expression: size > 2}\n": (
        3,
        "two rules are named 'a'.",
    ),
    RULES + "  - name: a\n    expression: size > 1\n    action: rejekt\n": (
        6,
        "rule 'a': action 'rejekt' is unknown. Did you mean 'reject'? Known: flag, reject, warn.",
    ),
}


@pytest.mark.parametrize(("text", "expected"), BAD.items())
def test_wrong_contract_is_refused_with_file_and_line(text: str, expected: tuple[int, str], tmp_path: Path) -> None:
    """Each mistake is told with the file, the line and what would be right."""
    path = tmp_path / "sizes.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as error:
        load_contract(path)
    assert str(error.value) == f"{path}:{expected[0]}: {expected[1]}"


@pytest.mark.parametrize("text", [b"contract: \xff\n", b"contract: a\nversion: 2015-13-01\n", b"contract: \x00\n"])
def test_unreadable_contract_is_refused(text: bytes, tmp_path: Path) -> None:
    """Bytes that are not UTF-8, values that cannot be, and control characters are refused."""
    path = tmp_path / "sizes.yaml"
    path.write_bytes(text)
    with pytest.raises(UsageError, match=r"sizes\.yaml: not readable as YAML"):
        load_contract(path)


def test_missing_file_is_refused_with_the_nearest(tmp_path: Path) -> None:
    """A file that is not there is refused, naming the contract beside it that is most like it."""
    (tmp_path / "access_log.yaml").write_text(HEAD, encoding="utf-8")
    with pytest.raises(UsageError, match=r"No such file or directory\. Did you mean 'access_log\.yaml'\?"):
        load_contract(tmp_path / "acess_log.yaml")


def test_wrong_pattern_is_refused(tmp_path: Path) -> None:
    """A regular expression that cannot be compiled is refused when the contract is read."""
    path = tmp_path / "sizes.yaml"
    path.write_text(FIELD + "{type: string, pattern: '('}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"yaml:4: field 'size': pattern '\(' is not a regular expression"):
        load_contract(path)


def test_contract_is_read_in_full(tmp_path: Path) -> None:
    """Every key reaches the contract, and each part knows its line."""
    path = tmp_path / "sizes.yaml"
    path.write_text(
        """# sizes of answers
contract: sizes
version: 3
description: How large answers are.
mode: freeze
fields:
  timestamp: {type: timestamp, required: true, min: 2015-05-17, max: 2015-05-18T00:00:00+02:00}
  size:
    type: float
    min: 1
    max: 2.5
    action: flag
  unit: {type: string, one_of: [By, kBy], min_length: 1, max_length: 3, pattern: "^[a-zA-Z]+$", action: warn}
rules:
  - name: small
    expression: size < 2 OR unit = 'By'
    action: warn
    message: large sizes are in bytes
""",
        encoding="utf-8",
    )
    contract = load_contract(path)
    day = datetime(2015, 5, 17, tzinfo=UTC)
    assert contract == Contract(
        "sizes",
        3,
        [
            Field("timestamp", "timestamp", required=True, min=day, max=day.replace(hour=22)),
            Field("size", "float", min=1, max=2.5, action="flag"),
            Field(
                "unit",
                "string",
                one_of=["By", "kBy"],
                min_length=1,
                max_length=3,
                pattern="^[a-zA-Z]+$",
                action="warn",
            ),
        ],
        [Rule("small", "size < 2 OR unit = 'By'", "warn", "large sizes are in bytes")],
        mode="freeze",
        description="How large answers are.",
    )
    assert [contract.where(part) for part in (*contract.fields, *contract.rules)] == [
        f"{path}:{line}" for line in (7, 8, 13, 15)
    ]


def test_a_contract_can_be_written_in_python() -> None:
    """Made without a file, a contract is checked in the same way."""
    with pytest.raises(UsageError, match=r"^field 'size': min 2 is above max 1"):
        Field("size", "int", min=2, max=1)
    with pytest.raises(UsageError, match=r"^two fields are named 'size'"):
        Contract("sizes", 1, [Field("size", "int"), Field("size", "float")])
    assert Contract("sizes", 1, [Field("size", "int")]).where() == "contract 'sizes'"


def test_the_access_log_contract_is_sound() -> None:
    """The contract that comes with the project can be read, and its rules fit its own fields."""
    from fabric_beam.expressions import compile_predicate

    contract = load_contract(Path(__file__).parents[1] / "contracts" / "access_log.yaml")
    types = {"string": pl.String(), "int": pl.Int64(), "timestamp": pl.Datetime("us", "UTC")}
    schema = pl.Schema({field.name: types[field.type] for field in contract.fields})
    for rule in contract.rules:
        compile_predicate(rule.expression, schema)
    assert contract.name == "access_log"
