"""The rules that a collector is to run in, as settings, folders and the API server give them; compiled they come out.

Reads the shipped library and the user's rules, tunes them by the PolicyLibrary, and finds the file and line of all that
is wrong. Every command judges rules through this one module; the collector has it done in a process of its own
(`keytrail.aside`), for the CEL engine and what reading leaves behind weigh more than all else that a collector knows.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

from keytrail.configuration import RULE_CHOICES, files_below, given_manifests, library_of, rules_folder
from keytrail.detect import Engine
from keytrail.detect.compiled import CompiledRules
from keytrail.detect.compiler import compile_rules
from keytrail.detect.library import load_rules
from keytrail.detect.rule_check import RuleError, check_rule
from keytrail.domain.errors import ManifestError, Problem
from keytrail.domain.objects import Resource
from keytrail.domain.rules import DetectionRule, Maturity
from keytrail.domain.shape import Fault, FieldPath, dotted
from keytrail.manifests import Manifests, load_folder
from keytrail.settings import Settings
from keytrail.tracing import sensors
from keytrail.yaml_documents import read_documents

_TUNE: Final = ("spec", "rules", "tune")


def given_rules(settings: Settings, manifests: Manifests) -> tuple[DetectionRule, ...]:
    """The shipped rules and the user's own, which replace those of the same name. Raises ManifestError."""
    folder = rules_folder(settings)
    shipped, problems = (_shipped_rules(folder), ()) if settings.rules in RULE_CHOICES else _checked(folder)
    own = [one for one in manifests.resources if isinstance(one, DetectionRule)]
    if settings.config is not None and not all(map(_can_run, own)):
        # Only now is the folder read a second time: where in its file each condition stands was not kept.
        problems += _checked(settings.config)[1]
    if problems:
        raise ManifestError(list(dict.fromkeys(problems)))  # both folders may be one
    return tuple({rule.name: rule for rule in (*shipped, *own)}.values())


def compiled_rules(settings: Settings, applied: tuple[Resource, ...] = ()) -> CompiledRules:
    """The rules that are to run, with what the API server has on top. Raises ManifestError for a wrong one."""
    manifests = given_manifests(settings).overlaid(applied)
    return _compiled(settings, manifests, given_rules(settings, manifests), applied)


def build_rules(settings: Settings, manifests: Manifests) -> Engine:
    """The given rules, tuned by the user's PolicyLibrary, in force. Raises ManifestError for a wrong one."""
    return Engine(_compiled(settings, manifests, given_rules(settings, manifests)))


def _compiled(
    settings: Settings, manifests: Manifests, rules: Iterable[DetectionRule], applied: tuple[Resource, ...] = ()
) -> CompiledRules:
    library = library_of(manifests)
    compiled = compile_rules(
        rules,
        library,
        sensors=sensors(),
        maturities=RULE_CHOICES.get(settings.rules, tuple(Maturity)),
    )
    # What the API server has is never a reason to start nothing: it is reported, and the rest works.
    elsewhere = {one.metadata.name for one in applied if isinstance(one, DetectionRule)}
    refused = {} if library in applied else {n: found for n, found in compiled.refused.items() if n not in elsewhere}
    if refused:
        if damaged := _checked(rules_folder(settings))[1]:
            raise ManifestError(list(damaged))
        # Each rule alone was right: it is how the PolicyLibrary tunes it that is not.
        raise ManifestError(
            [
                _tuning_problem(settings, name, fault)
                for name, faults in refused.items()
                for fault in dict.fromkeys(faults)
            ]
        )
    return compiled


def _tuning_problem(settings: Settings, name: str, fault: Fault) -> Problem:
    """Find the tuning of a rule in its file again; what the fault says is of the rule's own fields."""
    of_rule = fault.path[:2] != _TUNE[:2]
    message = f"{name}: {fault.field}: {fault.message}" if of_rule else fault.message
    for file in () if settings.config is None else files_below(settings.config):
        for document in read_documents(file):
            for path in document.lines:
                if path[:3] == _TUNE and path[4:] == ("name",) and _at(document.data, path) == name:
                    return Problem(document.path, document.line_of(path), dotted(path[:4]), message)
    return Problem(str(settings.config), 0, dotted(_TUNE), message)


def _at(data: Any, path: FieldPath) -> Any:
    for step in path:
        data = data[step]
    return data


def _can_run(rule: DetectionRule) -> bool:
    try:
        check_rule(rule, sensors=sensors())
    except RuleError:
        return False
    return True


def _checked(folder: Path) -> tuple[tuple[DetectionRule, ...], tuple[Problem, ...]]:
    return load_rules(folder, sensors=sensors())


@cache
def _shipped_rules(folder: Path) -> tuple[DetectionRule, ...]:
    """Read the library, which travels with the program and does not change while it runs.

    What its conditions say is checked of the rules that are to run when they are compiled: by default a third are not.
    """
    return tuple(one for one in load_folder(folder).resources if isinstance(one, DetectionRule))
