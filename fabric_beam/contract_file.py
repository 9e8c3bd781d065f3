"""Read a data contract from its YAML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from fabric_beam.contract import CHECKS, Contract, Field, KeyedError, Rule
from fabric_beam.errors import UsageError, nearest

#: The keys of the file's mappings, and whether each must be there.
_CONTRACT_KEYS = {
    "contract": True,
    "version": True,
    "description": False,
    "mode": False,
    "fields": False,
    "rules": False,
}
_FIELD_KEYS = {"type": True, "action": False, "description": False, **dict.fromkeys(CHECKS[1:], False)}
_RULE_KEYS = {"name": True, "expression": True, "action": False, "message": False}


def load_contract(path: str | Path) -> Contract:
    """Read a contract.

    Args:
        path: a YAML file.

    Returns:
        The contract, each field and rule with its line.

    Raises:
        UsageError: naming the file and the line.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            tree = yaml.load(file, _Loader)  # a SafeLoader
    except OSError as error:
        others = [other.name for other in path.parent.glob("*.y*ml")]
        problem = f"cannot read the contract: {error.strerror}. {nearest(path.name, others)}"
        raise UsageError(f"{path}: {problem}") from error
    except (ValueError, yaml.reader.ReaderError) as error:  # not UTF-8, or a date such as 2015-13-01
        raise UsageError(f"{path}: not readable as YAML: {error}.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{path}:{line}: not readable as YAML: {error.problem}.") from error
    return _contract(path, tree)


class _Mapping(dict[str, Any]):
    """A YAML mapping that knows the line of each key."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}


class _Loader(yaml.SafeLoader):
    pass


def _mapping(loader: _Loader, node: yaml.MappingNode) -> _Mapping:
    mapping = _Mapping(node.start_mark.line + 1)
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        problem = "" if isinstance(key, str) else f"the key {key!r} is not text, so put it in quotes"
        if problem or key in mapping:
            raise yaml.MarkedYAMLError(problem=problem or f"{key!r} is here twice", problem_mark=key_node.start_mark)
        mapping[key] = loader.construct_object(value_node, deep=True)
        mapping.lines[key] = key_node.start_mark.line + 1
    return mapping


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _contract(path: Path, tree: Any) -> Contract:
    line = tree.line if isinstance(tree, _Mapping) else 1
    keys = _checked(path, line, "the contract", tree, _CONTRACT_KEYS)
    named, listed = keys.pop("fields", None) or _Mapping(line), keys.pop("rules", None) or []
    if not isinstance(named, _Mapping):
        raise UsageError(f"{path}:{tree.lines['fields']}: fields is a mapping from name to checks, not {named!r}.")
    if not isinstance(listed, list):
        raise UsageError(f"{path}:{tree.lines['rules']}: rules is a list, not {listed!r}.")
    checks = []
    for name, body in named.items():
        line = named.lines[name]
        given = _checked(path, line, f"field {name!r}", body, _FIELD_KEYS)
        with _lines(path, body):
            checks.append(Field(name, line=line, **given))
    rules = []
    for number, body in enumerate(listed, 1):
        line = body.line if isinstance(body, _Mapping) else tree.lines["rules"]
        given = _checked(path, line, f"rule {number}", body, _RULE_KEYS)
        with _lines(path, body):
            rules.append(Rule(line=line, **given))
    with _lines(path, tree):
        return Contract(keys.pop("contract"), fields=checks, rules=rules, path=path, **keys)


def _checked(path: Path, line: int, what: str, body: Any, keys: Mapping[str, bool]) -> dict[str, Any]:
    """The keys of a mapping, all of them known and the required ones there."""
    if not isinstance(body, _Mapping):
        found = "nothing" if body is None else repr(body)
        raise UsageError(f"{path}:{line}: {what} is a mapping with the keys {', '.join(keys)}; here is {found}.")
    for key in body:
        if key not in keys:
            raise UsageError(f"{path}:{body.lines[key]}: {what}: the key {key!r} is unknown. {nearest(key, keys)}")
    for key, required in keys.items():
        if required and key not in body:
            raise UsageError(f"{path}:{line}: {what} lacks the key {key!r}.")
    return dict(body)


@contextmanager
def _lines(path: Path, body: _Mapping) -> Iterator[None]:
    """Add the file and the line to what is wrong with a key."""
    try:
        yield
    except KeyedError as error:
        raise UsageError(f"{path}:{body.lines.get(error.key, body.line)}: {error}") from error
