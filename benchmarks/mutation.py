"""Whether the tests notice small faults: mutants of the method's modules, and how many are killed.

    make mutants

A mutant is a module with one small change: another comparison or operator, a negated condition, another
constant, a removed statement or argument, two arguments swapped. Of each module in ROOMS, `--sample` mutants
drawn with `--seed` are tried, each in a process of its own, which is forked from one that has imported
everything but this package. It runs the tests that reach the changed line, quickest first, then the rest of
their files, as many as took `--budget` seconds without a change. A mutant that fails a test or makes one
last too long is killed.

Which lines each test reaches is measured once a test file. What is known stands in --out, a line a mutant;
stopped and called again, it goes on with what is missing. `--again` tries those once more that survived.
`--write` writes the table and all survivors, with the reasons given for them there, to
benchmarks/results/mutation.json, beside the samples of other seeds: tests written for the survivors of one
sample say more of it than of the rest, so that what they are worth is the share killed of a later one.

Left alone are what only readers or type checkers see: annotations, docstrings, errors' texts, decorators,
assertions, and the `strict` of zip; and the order of the arguments of min, max and promote_types, which
makes no difference.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import random
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "medcare"
RESULTS = ROOT / "benchmarks" / "results" / "mutation.json"
# What is mutated, and whose tests have to notice.
ROOMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "adapters": (
        (
            "adapters/adapted_linear.py",
            "adapters/fused_products.py",
            "adapters/branches.py",
            "adapters/low_rank.py",
            "adapters/noise_aggregator.py",
            "adapters/orthogonality.py",
            "adapters/merge.py",
            "adapters/tuner.py",
            "adapters/methods.py",
        ),
        (
            "adapters/test_adapted_linear.py",
            "adapters/test_branches.py",
            "adapters/test_equal_rank.py",
            "adapters/test_experts.py",
            "adapters/test_fused_products.py",
            "adapters/test_noise_aggregator.py",
            "adapters/test_orthogonality.py",
            "adapters/test_tuner.py",
            "adapters/test_methods.py",
        ),
    ),
    "losses": (("training/losses.py",), ("training/test_losses.py",)),
    "chat": (
        ("text/chat_template.py", "text/template.py"),
        (
            "text/test_chat_template.py",
            "text/test_laws_of_rendering.py",
            "text/test_plain_text.py",
            "text/test_real_tokenizers.py",
            "text/test_thoughts.py",
        ),
    ),
    "batches": (("text/batches.py",), ("text/test_batches.py",)),
    "statistics": (
        ("evaluation/resampling.py", "evaluation/comparison.py"),
        ("evaluation/test_resampling.py", "evaluation/test_comparison.py"),
    ),
    "reading": (
        ("evaluation/reading.py", "evaluation/multiple_choice/extraction.py"),
        (
            "evaluation/test_reading.py",
            "evaluation/multiple_choice/test_extraction.py",
            "evaluation/multiple_choice/test_answers.py",
            "evaluation/test_own_tasks.py",
        ),
    ),
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip

# Calls whose arguments are not exchanged: they take a type, or it makes no difference.
TYPED = ("cast", "isinstance")
UNORDERED = ("min", "max", "torch.promote_types")


@dataclass(frozen=True)
class Mutant:
    """One small change of a module.

    Attributes:
        module: its path below the package.
        function: in which it is; empty for the module itself.
        before: what stood there.
        after: what stands there now.
        nth: of the places in this function where the same is changed to the same.
        lines: the first and last line of the statement, of a compound one of its head.
    """

    module: str
    function: str
    before: str
    after: str
    nth: int
    lines: tuple[int, int]

    @property
    def key(self) -> str:
        """What tells it from all others, wherever in the file it moves."""
        return " | ".join((self.module, self.function, self.before, self.after, str(self.nth)))


class Sites:
    """The places in a module that can be mutated."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.tree = ast.parse((SOURCE / module).read_text())
        self.found: list[tuple[Mutant, Callable[[], None]]] = []
        self._seen: Counter[tuple[str, str, str]] = Counter()
        self._block(self.tree, "body", "")

    def _block(self, holder: ast.AST, field: str, function: str) -> None:
        body: list[ast.stmt] = getattr(holder, field)
        for place, statement in enumerate(body):
            kind = type(statement)
            if kind in (ast.Import, ast.ImportFrom, ast.Assert) or _documents(statement):
                continue
            if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
                continue
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                inner = f"{function}.{statement.name}".lstrip(".")
                if isinstance(statement, ast.FunctionDef):
                    lines = (statement.lineno, statement.body[0].lineno - 1)
                    for values in (statement.args.defaults, statement.args.kw_defaults):
                        for index in range(len(values)):
                            self._expression(values, index, inner, lines)
                self._block(statement, "body", inner)
                continue
            blocks = [
                name
                for name in ("body", "orelse", "finalbody", "handlers", "cases")
                if getattr(statement, name, None)
            ]
            end = getattr(statement, blocks[0])[0].lineno - 1 if blocks else statement.end_lineno
            lines = (statement.lineno, max(statement.lineno, end or 0))
            removed = isinstance(statement, ast.AugAssign | ast.Raise) or (
                isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
            )
            if isinstance(statement, ast.Assign):
                removed = isinstance(statement.targets[0], ast.Attribute | ast.Subscript) and bool(function)
            if removed:
                self._add(body, place, ast.Pass(), function, lines)
            if isinstance(statement, ast.Break | ast.Continue):
                other = ast.Continue() if isinstance(statement, ast.Break) else ast.Break()
                self._add(body, place, other, function, lines)
            if not isinstance(statement, ast.Raise):
                skipped = {*blocks, "annotation", "type_comment", "targets", "target"}
                if isinstance(statement, ast.AugAssign):
                    self._operator(statement, function, lines)
                for name, value in ast.iter_fields(statement):
                    if name not in skipped:
                        self._field(statement, name, value, function, lines)
            for name in blocks:
                if name in ("handlers", "cases"):
                    for part in getattr(statement, name):
                        self._block(part, "body", function)
                else:
                    self._block(statement, name, function)

    def _field(self, holder: ast.AST, name: str, value: Any, function: str, lines: tuple[int, int]) -> None:
        if isinstance(value, ast.expr):
            self._expression(holder, name, function, lines)
        elif isinstance(value, list):
            for index, entry in enumerate(value):
                if isinstance(entry, ast.expr):
                    self._expression(value, index, function, lines)
                elif isinstance(entry, ast.AST):
                    for inner, deeper in ast.iter_fields(entry):
                        self._field(entry, inner, deeper, function, lines)
        elif isinstance(value, ast.AST):
            for inner, deeper in ast.iter_fields(value):
                self._field(value, inner, deeper, function, lines)

    def _expression(self, holder: Any, place: str | int, function: str, lines: tuple[int, int]) -> None:
        node = holder[place] if isinstance(place, int) else getattr(holder, place)
        if node is None or isinstance(node, ast.JoinedStr):
            return
        condition = place == "test" or (isinstance(holder, list) and place == "ifs")
        for other in _changed(node):
            self._add(holder, place, other, function, lines)
        if condition and not isinstance(node, ast.UnaryOp) and not _flips(node):
            self._add(holder, place, ast.UnaryOp(ast.Not(), node), function, lines)
        for name, value in ast.iter_fields(node):
            if name == "ifs":
                continue
            if isinstance(node, ast.Call) and name == "func" and isinstance(value, ast.Name):
                continue
            if isinstance(node, ast.keyword) and node.arg == "strict":
                continue
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) in ("cast", "re.compile")
                and name == "args"
            ):
                value = value[1:]  # a type, a pattern
                for index in range(len(value)):
                    self._expression(node.args, index + 1, function, lines)
                continue
            if isinstance(node, ast.Call) and name == "keywords":
                for entry in value:
                    if entry.arg != "strict":
                        self._expression(entry, "value", function, lines)
                continue
            self._field(node, name, value, function, lines)

    def _operator(self, statement: ast.AugAssign, function: str, lines: tuple[int, int]) -> None:
        if (other := OPERATORS.get(type(statement.op))) is not None:
            changed = ast.AugAssign(statement.target, other(), statement.value)

            def apply() -> None:
                statement.op = other()

            self._note(ast.unparse(statement), ast.unparse(changed), function, lines, apply)

    def _add(
        self, holder: Any, place: str | int, other: ast.AST, function: str, lines: tuple[int, int]
    ) -> None:
        node = holder[place] if isinstance(place, int) else getattr(holder, place)

        def apply() -> None:
            new = ast.copy_location(other, node)
            if isinstance(place, int):
                holder[place] = new
            else:
                setattr(holder, place, new)

        self._note(ast.unparse(node), ast.unparse(other), function, lines, apply)

    def _note(
        self, before: str, after: str, function: str, lines: tuple[int, int], apply: Callable[[], None]
    ) -> None:
        if before != after:
            self._seen[function, before, after] += 1
            nth = self._seen[function, before, after]
            self.found.append((Mutant(self.module, function, before, after, nth, lines), apply))


def _documents(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _starred(node: ast.expr) -> bool:
    return isinstance(node, ast.Starred)


def _flips(node: ast.expr) -> bool:
    """Whether another comparison is its negation already."""
    return isinstance(node, ast.Compare) and not isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)


def _changed(node: ast.expr) -> Iterator[ast.expr]:
    """What may stand in place of an expression."""
    match node:
        case ast.Compare(left, [operator], right):
            yield ast.Compare(left, [COMPARISONS[type(operator)]()], right)
        case ast.Compare(left, operators, right):
            for place, operator in enumerate(operators):
                changed = COMPARISONS[type(operator)]()
                yield ast.Compare(left, [*operators[:place], changed, *operators[place + 1 :]], right)
        case ast.BinOp(left, operator, right) if type(operator) in OPERATORS:
            yield ast.BinOp(left, OPERATORS[type(operator)](), right)
        case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert(), operand):
            yield operand
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(str() as value):
            yield ast.Constant(f"{value}mutant")
        case ast.Call(function, arguments, keywords):
            ordered = ast.unparse(function) not in (*TYPED, *UNORDERED)
            if len(arguments) > 1 and ordered and not any(map(_starred, arguments[:2])):
                yield ast.Call(function, [arguments[1], arguments[0], *arguments[2:]], keywords)
            for place, keyword in enumerate(keywords):
                if keyword.arg not in (None, "strict"):
                    yield ast.Call(function, arguments, keywords[:place] + keywords[place + 1 :])


class Mutated(SourceFileLoader):
    """Loads one module with its mutant in place of what stands in the file, and writes no bytecode."""

    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        super().__init__(name, path)
        self._tree = ast.fix_missing_locations(tree)

    def get_code(self, fullname: str) -> CodeType:
        """The mutant's."""
        return compile(self._tree, self.path, "exec")


class Finder:
    """Finds the mutant where its module is imported."""

    def __init__(self, module: str, tree: ast.Module) -> None:
        self._name = name_of(module)
        self._path, self._tree = str(SOURCE / module), tree

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """As of importlib's finders."""
        if name != self._name:
            return None
        loader = Mutated(name, self._path, self._tree)
        return importlib.util.spec_from_file_location(name, self._path, loader=loader)


def functions(holder: Any, module: str, prefix: str = "") -> Iterator[tuple[str, FunctionType]]:
    """The functions and methods that a module defines, by name, out of whatever wraps them."""
    for name, value in list(vars(holder).items()):
        value = getattr(value, "__func__", getattr(value, "fget", getattr(value, "func", value)))
        if isinstance(value, type):
            if value.__module__ == module:
                yield from functions(value, module, f"{prefix}{name}.")
        elif callable(value):
            value = inspect.unwrap(value)
            if isinstance(value, FunctionType) and value.__module__ == module:
                yield prefix + name, value


def put_in(mutant: Mutant) -> None:
    """Give the function of a mutant, which is loaded already, the mutant's code."""
    sites = Sites(mutant.module)
    next(apply for other, apply in sites.found if other.key == mutant.key)()
    name = name_of(mutant.module)
    changed = ModuleType(name)
    changed.__file__, changed.__package__ = str(SOURCE / mutant.module), name.rpartition(".")[0]
    tree = ast.fix_missing_locations(sites.tree)
    exec(compile(tree, changed.__file__, "exec"), changed.__dict__)
    new = dict(functions(changed, name))[mutant.function]
    old = dict(functions(sys.modules[name], name))[mutant.function]
    old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__


def name_of(module: str) -> str:
    """What Python calls a module."""
    return "medcare." + module.removesuffix(".py").replace("/", ".")


class Reached:
    """Which lines of the package each test reaches, with those of its fixtures, and in what time."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}
        self.failed: set[str] = set()
        self._lines: list[set[tuple[str, int]]] = [set()]
        self._of_fixtures: dict[Any, set[tuple[str, int]]] = {}
        wanted = (module for modules, _ in ROOMS.values() for module in modules)
        self._names = {str(SOURCE / module): module for module in wanted}

    def _local(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            self._lines[-1].add((frame.f_code.co_filename, frame.f_lineno))
        return self._local

    def _enter(self, frame: FrameType, event: str, _: Any) -> Any:
        return self._local if frame.f_code.co_filename in self._names else None

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """What a fixture reaches counts for all tests that use it."""
        self._lines.append(set())
        try:
            return (yield)
        finally:
            found = self._lines.pop()
            self._of_fixtures.setdefault(fixturedef, set()).update(found)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        """One test."""
        self._lines[-1].clear()
        begun = time.process_time()
        threading.settrace(self._enter)
        sys.settrace(self._enter)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            seconds = time.process_time() - begun
            found = set(self._lines[-1])
            for definitions in item._fixtureinfo.name2fixturedefs.values():
                for definition in definitions:
                    found |= self._of_fixtures.get(definition, set())
            lines: dict[str, list[int]] = {}
            for name, line in sorted(found):
                lines.setdefault(self._names[name], []).append(line)
            self.tests[item.nodeid] = {"seconds": round(seconds, 3), "lines": lines}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Only tests that pass without a mutant can notice one."""
        if not report.passed:
            self.failed.add(report.nodeid)


class Room:
    """A plugin for pytest that runs the collected tests once a mutant, each time in a process of its own.

    Args:
        mutants: those to try.
        out: the folder of what is known.
        budget: seconds of tests a mutant.

    Attributes:
        rest: mutants that have to be there when their module is imported.
        tests: what is known of each test.
    """

    def __init__(self, mutants: list[Mutant], out: Path, budget: float) -> None:
        self._mutants, self._out, self._budget = mutants, out, budget
        self._told = os.fdopen(os.dup(1), "w")
        self._failed = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Which test failed."""
        if report.failed:
            self._failed = self._failed or report.nodeid

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of pytest's own loop."""
        session.config.pluginmanager.unregister(name="terminalreporter")  # a dot for each test of each mutant
        tests = self._measured(session)
        items = {item.nodeid: item for item in session.items}
        # The quickest, that is; all take as long as what is to come.
        quick = sorted(tests, key=lambda name: tests[name]["seconds"])[:100]
        status, by = forked(lambda tell: self._run(session, items, quick, tell), 300)
        if status != 0:
            self._say(f"Without a mutant they don't pass: {by}")
            os._exit(1)
        for mutant in self._mutants:
            loaded = sys.modules.get(name_of(mutant.module))
            if loaded is None or mutant.function not in dict(functions(loaded, loaded.__name__)):
                continue
            names = chosen(mutant, tests, self._budget)

            def work(tell: Callable[[str], None], mutant: Mutant = mutant, names: list[str] = names) -> int:
                try:
                    put_in(mutant)
                except Exception:
                    return UNPLACED
                return self._run(session, items, names, tell)

            if (row := tried(mutant, names, tests, work)) is not None:
                keep(row, self._out, self._say)
        return True

    def _say(self, text: str) -> None:
        print(text, file=self._told, flush=True)

    def _run(
        self,
        session: pytest.Session,
        items: dict[str, pytest.Item],
        names: list[str],
        tell: Callable[[str], None],
    ) -> int:
        self._failed = ""
        for name, following in zip(names, [*names[1:], None], strict=True):
            session.config.hook.pytest_runtest_protocol(
                item=items[name], nextitem=None if following is None else items[following]
            )
            if self._failed:
                tell(self._failed)
                return 1
        return 0

    def _measured(self, session: pytest.Session) -> dict[str, dict[str, Any]]:
        """What each test reaches."""
        digest = hashlib.sha256()
        for path in sorted({str(item.path) for item in session.items}):
            digest.update(Path(path).read_bytes())
        for module in sorted({mutant.module for mutant in self._mutants}):
            digest.update((SOURCE / module).read_bytes())
        kept = self._out / f"reached-{digest.hexdigest()[:16]}.json"
        if not kept.exists():

            def work(_: Callable[[str], None]) -> int:
                plugin = Reached()
                session.config.pluginmanager.register(plugin)
                for item, following in zip(session.items, [*session.items[1:], None], strict=True):
                    session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                passed = {name: test for name, test in plugin.tests.items() if name not in plugin.failed}
                part = kept.with_suffix(".part")
                part.write_text(json.dumps({"tests": passed, "without": sorted(plugin.failed)}))
                part.replace(kept)
                return 0

            self._say(f"measuring {len(session.items)} tests")
            forked(work, 1500)
        found = json.loads(kept.read_text())
        for name in found["without"]:
            self._say(f"skipped, or fails without a mutant: {name}")
        (self._out / "reached.json").write_text(json.dumps(found["tests"]))
        return dict(found["tests"])


class Chosen:
    """A plugin for pytest: runs the chosen tests in their order, and tells which one failed."""

    def __init__(self, tests: list[str], tell: Callable[[str], None]) -> None:
        self._order, self._tell = {test: place for place, test in enumerate(tests)}, tell

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """The chosen ones; pytest would have them in the order of their files."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self._order), key=lambda item: self._order[item.nodeid]
        )

    def pytest_runtest_logreport(self, report: Any) -> None:
        """The first that fails."""
        if report.failed:
            self._tell(report.nodeid)


def forked(work: Callable[[Callable[[str], None]], int], seconds: float) -> tuple[int | None, str]:
    """Do some work in a process of its own.

    Args:
        work: gets a function that tells something, and gives the exit status.
        seconds: of processor time that it may take; twenty times as much by the clock.

    Returns:
        The exit status, None if it took too long, and what it told.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        os.close(reading)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + (6 << 30), held + (6 << 30)))
        signal.setitimer(signal.ITIMER_REAL, 20 * seconds)
        try:
            status = work(lambda text: os.write(writing, text.encode()) and None)
        except BaseException as error:
            os.write(writing, repr(error).encode()[:300])
            status = 99
        os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().decode()
    _, ended = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what a killed test may have left
    return (None if os.WIFSIGNALED(ended) else os.WEXITSTATUS(ended)), told


UNPLACED = 98  # an exit status
OPTIONS = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]


def chosen(mutant: Mutant, tests: dict[str, dict[str, Any]], budget: float) -> list[str]:
    """The tests to run: those that reach its lines, then the rest of their files; the quickest first."""
    first, last = mutant.lines

    def reaches(test: dict[str, Any]) -> bool:
        return any(first <= line <= last for line in test["lines"].get(mutant.module, ()))

    near = {name for name, test in tests.items() if reaches(test)}
    if not near:  # run while importing
        near = {name for name, test in tests.items() if test["lines"].get(mutant.module)}
    files: Counter[str] = Counter()
    for name in near:
        files[name.split("::")[0]] += tests[name]["seconds"]  # type: ignore[assignment]
    rest = {name for name in tests if name.split("::")[0] in files} - near

    def order(name: str) -> Any:
        file = name.split("::")[0]  # together, for the sake of their fixtures
        return name in rest, files[file], file, tests[name]["seconds"]

    taken, kept = 0.0, []
    for name in sorted(near | rest, key=order):
        taken += tests[name]["seconds"]
        if kept and taken > budget:
            break
        kept.append(name)
    return kept


def tried(
    mutant: Mutant,
    names: list[str],
    tests: dict[str, dict[str, Any]],
    work: Callable[[Callable[[str], None]], int],
) -> dict[str, Any] | None:
    """What becomes of a mutant in these tests; None if its function can't be exchanged."""
    begun = time.monotonic()
    limit = 3 * sum(tests[name]["seconds"] for name in names) + 20
    status, by = forked(work, limit) if names else (0, "")
    if status == UNPLACED:
        return None
    fate = "survived" if status == 0 else "lasted too long" if status is None else "killed"
    seconds = round(time.monotonic() - begun, 1)
    by = by.split("tests/", 1)[-1]
    return {**asdict(mutant), "fate": fate, "by": by, "tests": len(names), "seconds": seconds}


def while_importing(mutant: Mutant, names: list[str], tell: Callable[[str], None]) -> int:
    """Run tests with a mutant that is there when its module is imported."""
    sites = Sites(mutant.module)
    next(apply for other, apply in sites.found if other.key == mutant.key)()
    sys.meta_path.insert(0, Finder(mutant.module, sites.tree))
    files = list(dict.fromkeys(str(ROOT / name.split("::")[0]) for name in names))
    return int(pytest.main([*OPTIONS, "-x", *files], plugins=[Chosen(names, tell)]))


def keep(row: dict[str, Any], out: Path, say: Callable[[str], None]) -> None:
    """Write down what became of a mutant."""
    with (out / "mutants.jsonl").open("a") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    say(f"{row['fate']:16} {row['seconds']:6.1f} s  {row_key(row)[:150]}")


def sampled(module: str, count: int, seed: int) -> list[Mutant]:
    """Mutants of a module, drawn; the order is that of the draw, so that more of them hold the fewer."""
    found = [mutant for mutant, _ in Sites(module).found]
    random.Random(f"{seed} {module}").shuffle(found)
    return found[:count]


def rows_of(out: Path) -> list[dict[str, Any]]:
    """All that was written down."""
    file = out / "mutants.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def known(out: Path) -> dict[str, dict[str, Any]]:
    """The last that is known of each mutant."""
    return {row_key(row): row for row in rows_of(out)}


def row_key(row: dict[str, Any]) -> str:
    """The key of the mutant of a row."""
    return " | ".join(str(row[name]) for name in ("module", "function", "before", "after", "nth"))


def share_of(count: Counter[str]) -> str:
    """How many were killed, of all and of those that could be."""
    possible = count["mutants"] - count["equivalent"]
    return f"{count['killed'] / max(1, count['mutants']):9.1%}{count['killed'] / max(1, possible):15.1%}"


def report(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Print the table; with `--write`, keep it with the survivors and the reasons that are known for them."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"samples": {}}
    reasons = {
        row_key(row): row["reason"]
        for sample in kept["samples"].values()
        for row in sample["survivors"]
        if row["reason"]
    }
    counts: dict[str, dict[str, Counter[str]]] = {"modules": {}, "rooms": {}, "all": {}}
    survivors = []
    for row in rows:
        survived = row["fate"] == "survived"
        reason = reasons.get(row_key(row), "") if survived else ""
        room = next(room for room, (modules, _) in ROOMS.items() if row["module"] in modules)
        for part, name in (("modules", row["module"]), ("rooms", room), ("all", "all")):
            count = counts[part].setdefault(name, Counter())
            count["mutants"] += 1
            count["killed"] += not survived
            count["equivalent"] += reason.startswith("equivalent")
        if survived:
            places = ("module", "function", "before", "after", "nth")
            survivors.append({**{name: row[name] for name in places}, "reason": reason})
    for part, named in counts.items():
        print(f"{part:34}{'mutants':>9}{'killed':>8}{'equivalent':>12}{'share':>9}{'of the others':>15}")
        for name, count in named.items():
            line = f"{name:34}{count['mutants']:9}{count['killed']:8}{count['equivalent']:12}"
            print(line + share_of(count))
    if args.write:
        from medcare.foundation.provenance import git_commit

        keys = ("mutants", "killed", "equivalent")
        kept["samples"][f"seed {args.seed}"] = {
            "mutants_a_module_at_most": args.sample,
            "seconds_of_tests_a_mutant": args.budget,
            "commit": git_commit(),
            **{
                part: {name: {key: count[key] for key in keys} for name, count in named.items()}
                for part, named in counts.items()
            },
            "survivors": sorted(survivors, key=row_key),
        }
        RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def try_all(queue: list[Mutant], files: list[str], args: argparse.Namespace) -> None:
    """Try mutants of one room that have not been tried."""
    done = known(args.out)
    missing = [
        mutant
        for mutant in queue
        if mutant.key not in done or (args.again and done[mutant.key]["fate"] == "survived")
    ]
    if not missing:
        return
    begun = len(rows_of(args.out))
    session = os.fork()
    if not session:
        os._exit(pytest.main([*OPTIONS, *files], plugins=[Room(missing, args.out, args.budget)]))
    if os.waitpid(session, 0)[1]:
        raise SystemExit(f"The tests {', '.join(files)} could not be run.")
    tests = json.loads((args.out / "reached.json").read_text())
    tried_now = {row_key(row) for row in rows_of(args.out)[begun:]}
    for mutant in missing:
        if mutant.key not in tried_now:
            names = chosen(mutant, tests, args.budget)

            def work(tell: Callable[[str], None], mutant: Mutant = mutant, names: list[str] = names) -> int:
                return while_importing(mutant, names, tell)

            if (row := tried(mutant, names, tests, work)) is not None:
                keep(row, args.out, lambda text: print(text, flush=True))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", help="below the package; by default all of ROOMS")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "mutation")
    parser.add_argument("--sample", type=int, default=80, help="mutants a module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=15.0, help="seconds of tests a mutant")
    parser.add_argument("--again", action="store_true", help="try survivors again")
    parser.add_argument("--write", action="store_true", help="keep the table")
    parser.add_argument("--table", action="store_true", help="try nothing, print what is known")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
    os.chdir(ROOT)
    for name in ("torch", "transformers", "scipy.stats", "pandas", "peft"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    rows = []
    for modules, patterns in ROOMS.values():
        wanted = [module for module in modules if not args.modules or module in args.modules]
        queue = [mutant for module in wanted for mutant in sampled(module, args.sample, args.seed)]
        if not args.table:
            paths = sorted({path for pattern in patterns for path in (ROOT / "tests").glob(pattern)})
            try_all(queue, [str(path) for path in paths], args)
        done = known(args.out)
        rows += [done[mutant.key] for mutant in queue if mutant.key in done]
    report(rows, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
