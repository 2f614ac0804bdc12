"""Policies of the code base, as tests."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "nasrun"

LAYERS = [
    {"__main__"},
    {"cli"},
    {"config"},
    {"task"},
    {"report", "testing", "model", "export"},
    {"search_algo", "evaluator", "trainer", "sampler", "budget", "architectures"},
    {"search_space", "dataset", "run", "building"},
    {"metrics", "values", "streams", "errors", "limits", ""},
]
"""Who stands above whom: imports go downwards, or sideways where that closes no circle."""

HYDRA = {"cli", "config"}
"""The only ones that know Hydra and OmegaConf."""


def layer_of(part: str) -> int:
    return next(index for index, parts in enumerate(LAYERS) if part in parts)


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    part = relative.parts[0].removesuffix(".py")
    return "" if part == "__init__" else part


@cache
def imports(path: Path) -> list[str]:
    """Modules that the file imports, also inside functions and for type checkers."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


FILES = sorted(PACKAGE.rglob("*.py"))

DOOR = PACKAGE / "__init__.py"
"""Leads from ``import nasrun`` to what stands above, and imports it only when it is called."""


def imported(path: Path) -> set[str]:
    """The parts of the package that a file imports, its own left out."""
    words = [name.split(".") for name in imports(path)]
    found = {name[1] if len(name) > 1 else "" for name in words if name[0] == "nasrun"}
    return {"" if part == "__version__" else part for part in found} - {part_of(path)}


def test_imports_go_downwards():
    for path in FILES:
        if path == DOOR:
            continue
        own = part_of(path)
        for other in imported(path):
            assert layer_of(other) >= layer_of(own), f"{path.relative_to(ROOT)} imports {other}"
        if {"hydra", "omegaconf"} & {name.split(".")[0] for name in imports(path)}:
            assert own in HYDRA, path.relative_to(ROOT)


def test_parts_of_a_layer_form_no_circle():
    above = {part: set() for parts in LAYERS for part in parts}
    for path in FILES:
        for other in imported(path) if path != DOOR else ():
            above[other].add(part_of(path))
    TopologicalSorter(above).prepare()  # raises CycleError


def test_the_door_imports_nothing_at_once():
    """``import nasrun`` takes no time: only functions, and type checkers, import what is slow."""
    for node in ast.parse(DOOR.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            assert node.module in ("__future__", "typing")
        assert not isinstance(node, ast.Import)


def test_the_package_root_holds_the_ground_alone():
    names = {path.stem for path in PACKAGE.glob("*.py")}
    ground = {"values", "streams", "errors", "limits"}
    assert names <= {*ground, "__init__", "__main__"}


def test_values_know_no_torch():
    for path in FILES:
        if part_of(path) in ("values", "errors", "metrics"):
            assert not any(word.split(".")[0] == "torch" for word in imports(path))


def test_nothing_is_unpickled():
    """Tensors are read with weights_only=True, everything else is JSON or YAML's safe subset."""
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert not {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"} & {
            name.split(".")[0] for name in imports(path)
        }
        for call in re.findall(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call
        assert not re.search(
            r"allow_pickle\s*=\s*True|yaml\.(unsafe_)?load\(|\beval\(|\bexec\(",
            text.replace(".eval(", ""),
        )


def test_files_stay_readable():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400
        assert ast.get_docstring(ast.parse(text)), "every module says what it is for"


def test_every_value_of_a_group_has_a_comment():
    """Each tunable in conf/ names its unit or source, except in the deltas of recipes."""
    for path in sorted((ROOT / "conf").glob("*/*.yaml")):
        if path.parent.name in ("experiment", "effort", "task"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            value = re.match(r"\s*(\w+):\s*[^\s#]", line)
            if value and value.group(1) != "_target_":
                assert "#" in line, f"{path.relative_to(ROOT)}:{number}: {line}"


WRITING_METHODS = {
    *("write_text", "write_bytes", "savefig", "touch", "symlink_to", "hardlink_to", "mkfifo"),
    *("to_csv", "save_file", "tofile", "dump", "savez", "savez_compressed", "rename", "truncate"),
    *("copyfile", "copytree", "copy2", "move", "mkstemp", "mkdtemp", "NamedTemporaryFile"),
}
"""Methods that write, copy or rename files."""

WRITING_CALLS = {
    *("os.open", "os.replace", "os.link", "os.symlink", "os.write", "csv.writer"),
    *("csv.DictWriter", "torch.save", "np.save", "np.savetxt", "OmegaConf.save"),
    *("FileHandler", "logging.FileHandler", "SummaryWriter"),
}
"""Functions and classes that do."""

MODES = re.compile("[wax+]")
READS_ONLY = re.compile(r"\(.*O_RDONLY(?!.*O_(CREAT|TRUNC|APPEND))")

WRITERS = {
    "run/files.py": None,  # the one module that opens files to write them
    "report/canvas.py": {"savefig"},  # into memory
    "cli/main.py": {"os.open"},  # /dev/null in place of a closed pipe
    "run/lock.py": {"truncate"},  # of the file that files.py has opened
}
"""Files that may -> which calls; None: any."""


def writing_calls(tree: ast.AST) -> list[str]:
    """The calls in a module that write files, or may: by name, or by the mode of an open."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
            names |= {(getattr(node, "module", None) or "").partition(".")[0]}
            found += sorted(names & {"shutil", "tempfile"})
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        if name == "os.open" and READS_ONLY.search(ast.unparse(node)):
            continue
        if name in WRITING_CALLS or ("." in name and last in WRITING_METHODS):
            found.append(name if name in WRITING_CALLS else last)
        elif last in ("open", "fdopen"):
            given = [*node.args[:2], *(word.value for word in node.keywords if word.arg == "mode")]
            modes = [value.value for value in given if isinstance(value, ast.Constant)]
            spoken = [mode for mode in modes if isinstance(mode, str)]
            if last == "fdopen" or any(len(m) <= 3 and MODES.search(m) for m in spoken):
                found.append(name)
    return found


def test_one_module_writes_files():
    """It refuses links, and nobody sees a file half-written; see tests/test_links.py."""
    for path in FILES:
        allowed = WRITERS.get(path.relative_to(PACKAGE).as_posix(), set())
        calls = set(writing_calls(ast.parse(path.read_text(encoding="utf-8"))))
        assert allowed is None or calls <= allowed, f"{path.relative_to(ROOT)}: {calls - allowed}"


def test_calls_that_write_are_seen():
    for line in (
        *(
            "open('x', 'w')",
            "open(p, mode='ab')",
            "p.open('w')",
            "gzip.open(p, 'wt')",
            "f.x.open('r+')",
        ),
        *(
            "p.write_text('')",
            "p.write_bytes(b'')",
            "figure.savefig(p)",
            "os.open(p, 1)",
            "p.touch()",
        ),
        *("import shutil", "from shutil import copy", "from tempfile import mkstemp"),
        *(
            "csv.writer(f)",
            "json.dump(x, f)",
            "yaml.dump(x, f)",
            "torch.save(x, p)",
            "np.save(p, x)",
        ),
        *("os.fdopen(3)", "p.rename(q)", "OmegaConf.save(c, p)", "p.hardlink_to(q)"),
    ):
        assert writing_calls(ast.parse(line)), line
    for line in (
        *("p.open()", "open(p)", "p.open('rb')", "write_bytes(p, b'')", "json.dumps(x)"),
        "os.open(p, os.O_RDONLY | os.O_NONBLOCK)",
    ):
        assert not writing_calls(ast.parse(line)), line
