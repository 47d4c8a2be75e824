"""`keytrail policies check`: files in, what an agent would say of them out, without an agent.

Problems go to standard output, one a line as FILE:LINE: FIELD: MESSAGE, so that editors and CI systems link them.
"""

import argparse
from pathlib import Path

from keytrail.commands.terminal import printable, say
from keytrail.domain.errors import Problem
from keytrail.tracing.inspection import gathered, inspect
from keytrail.tracing.schema import newer_fields
from keytrail.yaml_documents import Document, read_documents


def run_check(args: argparse.Namespace) -> int:
    """Judge every file; exit code 2 when an agent would refuse any."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    notes: list[str] = []
    policies = 0
    for name in args.files:
        documents = [one for one in read_documents(Path(name)) if one.problems or one.data is not None]
        reports = [inspect(one, observe_only=args.observe_only) for one in documents or [_empty(name)]]
        policies += len(reports)
        problems += gathered(report.document.problems for report in reports)
        warnings += gathered(report.warnings for report in reports)
        notes += [_newer(report.document) for report in reports if not report.document.problems]
    for problem in problems:
        say(printable(str(problem)))
    for warning in warnings:
        say(printable(f"{warning} (warning)"))
    for note in filter(None, notes):
        say(printable(note))
    say(f"{policies} checked, {_counted(len(problems), 'problem')}, {_counted(len(warnings), 'warning')}")
    return 2 if problems else 0


def _newer(document: Document) -> str:
    """What an old agent among the nodes would refuse, which is no fault of the policy; empty: nothing."""
    fields = newer_fields(document.data)
    if not fields:
        return ""
    more = f" and {_counted(len(fields) - 1, 'field')} more" if len(fields) > 1 else ""
    return f"{document.path}:{document.line}: an agent 1.4 refuses {fields[0]}{more} (note)"


def _empty(name: str) -> Document:
    document = Document(name, 0)
    document.add((), "expected a TracingPolicy, found nothing")
    return document


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
